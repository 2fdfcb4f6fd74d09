"""The loop with the real engine and the real journal on a disk that fills up and empties again."""

import time

import pytest

from edgewise.agent.log import Log
from edgewise.agent.loop import Loop
from edgewise.engine import machine, recovery
from edgewise.engine.journal import open_journal
from edgewise.engine.limits import EngineLimits
from edgewise.engine.protocol import Desired, Emit, Fetch, Observed
from edgewise.ports.clock import SystemClock
from edgewise.ports.disk import DiskFiles
from edgewise.wire.desired import ArtifactTarget, DeviceDesired, InstanceDesired, Position
from edgewise.wire.report import DeviceReport

TARGET = ArtifactTarget(target="releases/n/a/1.json", digest="sha256:" + "0" * 64, length=1, type="bundle", variant="v")


def document(n: int) -> DeviceDesired:
    wanted = InstanceDesired(name="n/w", uid="u", epoch=1, revision=f"r{n}", artifact=TARGET)
    return DeviceDesired(device="d", uid="x", position=Position(1, n), instances=(wanted,))


@pytest.fixture
def device(tmp_path):
    class Device:
        def __init__(self) -> None:
            self.files = DiskFiles(str(tmp_path))
            self.effects: list[object] = []
            self.begin()

        def begin(self) -> None:
            opened = open_journal(self.files)
            self.journal = opened.journal
            state = recovery.recover(opened.records, "d", EngineLimits(storage_retry_seconds=0.3), damage=opened.damage)
            self.loop = Loop(
                machine, state, clock=SystemClock(), persist=self.journal.append, carry=self.effects.append, log=Log(quiet=True)
            )

        def until(self, condition, seconds: float = 30.0) -> None:
            end = time.monotonic() + seconds
            while not condition():
                assert time.monotonic() < end, "waited in vain"
                self.loop.step()

        @property
        def number(self) -> int:
            held = self.loop.state.durable.document
            return held.position.n if held is not None else 0

    return Device()


def test_a_full_disk_decides_nothing_and_then_goes_on(device):
    device.loop.post(Observed(slots=(), installed=(), boot_id="b"))
    device.loop.post(Desired(document=document(1)))
    device.until(lambda: device.number == 1)
    device.files._quota = 1
    device.effects.clear()
    device.loop.post(Desired(document=document(2)))
    device.until(lambda: device.loop.state.storage is not None)
    assert device.number == 1
    assert not any(isinstance(each, Fetch) and each.revision == "r2" for each in device.effects)
    told = [each.item for each in device.effects if isinstance(each, Emit) and isinstance(each.item, DeviceReport)]
    assert any(condition.type and "full" in f"{condition}".lower() for item in told for condition in item.conditions or ())
    device.files._quota = None
    device.until(lambda: device.number == 2 and device.loop.state.storage is None)
    assert device.loop._turns.deferred == ()
    device.journal.close()
    device.begin()
    assert device.number == 2
    device.journal.close()
