"""What the agent does now and then."""

from types import SimpleNamespace

import msgspec

from edgewise.agent import chores
from edgewise.agent.chores import Inventory
from edgewise.agent.config import AgentConfig
from edgewise.agent.limits import LIMITS
from edgewise.engine.recovery import recover
from edgewise.resources.device import Capacity
from edgewise.wire.desired import DeviceDesired, Position


def following(epoch):
    """An engine that follows a control plane's store."""
    state = recover((), "cam")
    document = DeviceDesired(device="cam", uid="u", position=Position(epoch, 1))
    return msgspec.structs.replace(state, durable=msgspec.structs.replace(state.durable, document=document))


def test_the_inventory_is_told_when_it_is_news_and_again_to_a_store_that_was_set_back(monkeypatch, tmp_path):
    told, seen = [], {"capacity": Capacity(cpu_milli=1000), "state": recover((), "cam")}
    monkeypatch.setattr(chores, "scan", lambda _data: seen["capacity"])
    outlet = SimpleNamespace(append=lambda lane, item: told.append((lane, item)), flush=lambda: None)
    config = AgentConfig(device="cam", agent="cam", addresses=("https://127.0.0.1:1",))
    inventory = Inventory(str(tmp_path), config, outlet, "boot", state=lambda: seen["state"], limits=LIMITS)

    def new():
        inventory.run()
        items = [item for _, item in told]
        told.clear()
        return [(item.capacity.cpu_milli, item.boot_id) for item in items]

    assert not inventory.outdated(seen["state"])
    assert new() == [(1000, "boot")]
    assert new() == []
    seen["state"] = following(5)
    assert not inventory.outdated(seen["state"])
    assert new() == []
    seen["capacity"] = Capacity(cpu_milli=2000)
    assert new() == [(2000, "boot")]
    seen["state"] = following(6)
    assert inventory.outdated(seen["state"])
    assert new() == [(2000, "boot")]
    assert not inventory.outdated(seen["state"])
    assert new() == []
