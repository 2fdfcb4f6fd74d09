"""Lost devices: liveness, replacement, return, decommissioning, deletion."""

import msgspec
import pytest

from edgewise.controllers.gateway import decide_desired
from edgewise.resources.selector import Selector
from edgewise.resources.states import Health
from edgewise.resources.workload import Disconnect
from edgewise.store.contract import ANY, Key, Put, Transaction
from edgewise.wire.report import DeviceReport


@pytest.fixture
def pair(fleet):
    """Four devices at two sites, two replicas."""
    for number in range(4):
        fleet.join(f"d{number}", site="north" if number % 2 else "south")
    fleet.publish("1")
    fleet.publish("2")
    fleet.apply("1", replicas=2)
    fleet.until(lambda: fleet.state(1) == "Succeeded")
    fleet.run(3)
    return fleet


def connection(fleet, name):
    return fleet.get("Device", name, "").status.connection.value


def wanted(fleet):
    return {d: i.spec.epoch for d, i in fleet.instances().items() if i.spec.desired == "Running"}


def test_replicas_spread_over_sites(pair):
    assert len(pair.versions()) == 2
    assert {pair.view.devices[d].facts.site for d in pair.versions()} == {"north", "south"}


def test_a_lost_replica_runs_elsewhere_and_its_surplus_stops_on_return(pair):
    lost, kept = sorted(pair.versions())
    before = list(pair.devices[kept].starts)
    pair.devices[lost].online = False
    pair.run(30)
    assert connection(pair, lost) == "Offline"
    assert set(wanted(pair)) == {lost, kept}
    pair.run(60)
    now = wanted(pair)
    assert len(now) == 3
    replacement = next(iter(set(now) - {lost, kept}))
    assert now[replacement] == now[lost] + 1
    assert pair.versions()[replacement] == "1"
    pair.run(600, step=20)
    assert wanted(pair) == now
    pair.devices[lost].online = True
    pair.run(5)
    assert connection(pair, lost) == "Online"
    assert set(wanted(pair)) == {kept, replacement}
    assert lost not in pair.instances()
    assert pair.devices[kept].starts == before
    assert len(pair.devices[replacement].starts) == 1
    assert pair.settle() == 0


def test_surplus_waits_until_the_replacement_is_ready(pair):
    lost, kept = sorted(pair.versions())
    for name, device in pair.devices.items():
        if name not in {lost, kept}:
            device.stuck.add("1")
    pair.devices[lost].online = False
    pair.run(100)
    assert len(wanted(pair)) == 3
    pair.devices[lost].online = True
    pair.run(20)
    assert lost in wanted(pair)
    for device in pair.devices.values():
        device.stuck.clear()
    pair.run(5)
    assert lost not in wanted(pair)
    assert len(wanted(pair)) == 2


def test_replacements_do_not_pile_up(pair):
    for _ in range(6):
        victim = min(d for d in wanted(pair) if pair.devices[d].online)
        pair.devices[victim].online = False
        pair.run(100)
        assert len([d for d in wanted(pair) if pair.devices[d].online]) == min(2, sum(d.online for d in pair.devices.values()))
        pair.devices[victim].online = True
        pair.run(10)
        assert len(wanted(pair)) == 2


def test_everywhere_is_never_replaced(fleet):
    for number in range(3):
        fleet.join(f"d{number}")
    fleet.publish("1")
    fleet.apply("1")
    fleet.until(lambda: fleet.state(1) == "Succeeded")
    fleet.devices["d0"].online = False
    fleet.run(300)
    assert len(fleet.instances()) == 3
    assert {i.spec.epoch for i in fleet.instances().values()} == {1}


def test_replace_false_is_kept(fleet):
    for number in range(3):
        fleet.join(f"d{number}")
    fleet.publish("1")
    fleet.apply("1", replicas=1)
    document = fleet.get("Workload", "app")
    spec = msgspec.structs.replace(document.spec, disconnect=Disconnect(lost_after="10s", replace=False))
    fleet.put(msgspec.structs.replace(document, spec=spec))
    fleet.until(lambda: fleet.state(1) == "Succeeded")
    only = next(iter(fleet.versions()))
    fleet.devices[only].online = False
    fleet.run(300)
    assert list(wanted(fleet)) == [only]


def test_deadlines_count_from_the_restart(pair):
    lost, kept = sorted(pair.versions())
    pair.devices[lost].online = False
    pair.run(50)
    pair.start()
    pair.run(40)
    assert set(wanted(pair)) == {lost, kept}
    pair.run(30)
    assert len(wanted(pair)) == 3
    pair.start()
    assert pair.settle() == 0
    pair.run(300)
    assert len(wanted(pair)) == 3


def test_after_a_restart_the_unheard_wait_then_are_offline(pair):
    for device in pair.devices.values():
        device.online = False
    pair.start()
    assert pair.settle() == 0
    pair.run(29)
    assert connection(pair, "d0") == "Online"
    pair.run(5)
    assert {connection(pair, d) for d in pair.devices} == {"AwaitingReconnect"}
    pair.run(100)
    assert {connection(pair, d) for d in pair.devices} == {"Offline"}
    for device in pair.devices.values():
        device.online = True
    pair.run(2)
    assert {connection(pair, d) for d in pair.devices} == {"Online"}
    assert len(wanted(pair)) == 2
    assert all(len(device.starts) <= 1 for device in pair.devices.values())


def test_scale_up_and_down_moves_nothing(pair):
    before = set(wanted(pair))
    pair.apply("1", replicas=4)
    pair.run(3)
    assert len(pair.versions()) == 4
    assert before < set(pair.versions())
    pair.apply("1", replicas=2)
    pair.run(3)
    assert len(wanted(pair)) == 2
    pair.apply("1", replicas=3)
    pair.run(3)
    assert len(pair.versions()) == 3
    pair.apply("1", replicas=0)
    pair.run(3)
    assert pair.instances() == {}


def test_an_outage_of_many_is_one_event_and_few_transactions(fleet):
    for number in range(60):
        fleet.join(f"d{number:02}", site=f"s{number % 3}")
    fleet.publish("1")
    fleet.apply("1", replicas=10)
    fleet.until(lambda: fleet.state(1) == "Succeeded")
    fleet.store.events.clear()
    fleet.transactions.clear()
    for device in list(fleet.devices.values())[:50]:
        device.online = False
    fleet.run(30)
    offline = [e for e in fleet.store.events if e.reason in {"ConnectionsChanged", "DeviceOffline"}]
    assert len(offline) == 1
    assert "50 devices are Offline" in offline[0].message
    fleet.run(100)
    assert len([d for d in wanted(fleet) if fleet.devices[d].online]) == 10
    assert len(fleet.transactions) < 30


@pytest.mark.parametrize(("many", "told"), [(1, ["device d00 is Online"]), (20, None), (21, ["21 devices are Online now"])])
def test_a_device_that_is_heard_again_by_its_report_is_told_of_too(fleet, many, told):
    for number in range(many):
        fleet.join(f"d{number:02}")
    fleet.run(1)
    for device in fleet.devices.values():
        device.online = False
    fleet.run(30)
    fleet.store.events.clear()
    for device in fleet.devices.values():
        device.report("status", DeviceReport(device=device.name, health=Health.HEALTHY))
    fleet.settle()
    said = [(event.reason, event.message) for event in fleet.store.events]
    assert [message for _, message in said] == (told or [f"device d{number:02} is Online" for number in range(many)])
    assert {reason for reason, _ in said} == {"DeviceOnline" if many <= 20 else "ConnectionsChanged"}
    fleet.store.events.clear()
    fleet.run(5)
    assert not fleet.store.events


def test_the_silence_of_hardware_that_was_replaced_says_nothing_of_what_took_its_place(pair):
    """A connection that was cut breaks only minutes later: the poll of the old hardware ends when the new one is there already."""
    old = pair.get("Agent", "d0", "")
    pair.put(msgspec.structs.replace(old, spec=msgspec.structs.replace(old.spec, revoked=True)))
    assert "d0" in pair.polling
    pair.join("d0")
    pair.run(3)
    pair.polling.discard("d0")
    pair.view.poll_closed("d0", pair.now)
    for _ in range(60):
        pair.run(1)
        assert connection(pair, "d0") == "Online"


def test_unschedulable_keeps_what_runs(pair):
    name = min(wanted(pair))
    device = pair.get("Device", name, "")
    pair.put(msgspec.structs.replace(device, spec=msgspec.structs.replace(device.spec, unschedulable=True)))
    pair.run(3)
    assert name in wanted(pair)


def test_a_label_change_moves_an_instance(fleet):
    fleet.join("d0", labels={"line": "1"})
    fleet.join("d1", labels={"line": "2"})
    fleet.publish("1")
    fleet.apply("1", selector=Selector(match_labels={"line": "1"}))
    fleet.until(lambda: fleet.state(1) == "Succeeded")
    assert set(fleet.versions()) == {"d0"}
    for name, line in (("d0", "2"), ("d1", "1")):
        device = fleet.get("Device", name, "")
        fleet.put(msgspec.structs.replace(device, metadata=msgspec.structs.replace(device.metadata, labels={"line": line})))
    fleet.run(3)
    assert set(fleet.versions()) == {"d1"}
    assert set(fleet.instances()) == {"d1"}


def test_decommission_moves_work_and_ends_the_agent(pair):
    name = min(wanted(pair))
    device = pair.get("Device", name, "")
    pair.put(msgspec.structs.replace(device, spec=msgspec.structs.replace(device.spec, decommission=True)))
    pair.run(5)
    assert len(wanted(pair)) == 2
    assert name not in pair.instances()
    assert pair.get("Agent", pair.devices[name].agent, "").status.lifecycle.value == "Decommissioned"
    answer = pair.devices[name]
    answer.online = True
    assert decide_desired(answer.agent, None, pair.view, pair.seal).status == 403
    pair.run(3)
    assert pair.settle() == 0


def test_decommission_of_a_dead_device_ends_without_it(pair):
    name = min(wanted(pair))
    pair.devices[name].online = False
    device = pair.get("Device", name, "")
    pair.put(msgspec.structs.replace(device, spec=msgspec.structs.replace(device.spec, decommission=True)))
    pair.run(5)
    assert len([d for d in wanted(pair) if d != name]) == 2
    pair.run(100)
    assert name not in pair.instances()
    assert pair.get("Agent", pair.devices[name].agent, "").status.lifecycle.value == "Decommissioned"
    pair.devices.pop(name)
    again = pair.join(name, site="south")
    assert again.agent != name
    pair.run(3)
    assert connection(pair, name) == "Online"


def test_deleting_a_workload_stops_it_then_its_documents_go(pair):
    lost = min(wanted(pair))
    pair.devices[lost].online = False
    pair.run(30)
    document = pair.store.documents[Key("Workload", "shop", "app")]
    put = Put(key=document.key, spec=document.spec, expect=ANY, deleted_at=pair.now)
    pair.write(Transaction(now=pair.now, writes=(put,)))
    pair.run(5)
    assert list(pair.instances()) == [lost]
    assert pair.get("Workload", "app") is not None
    pair.devices[lost].online = True
    pair.run(5)
    assert {key.kind for key in pair.store.documents if key.namespace} == {"Artifact", "ArtifactVersion"}
    assert all(not device.status for device in pair.devices.values())
    pair.apply("2", replicas=1)
    pair.until(lambda: pair.state(1) == "Succeeded")
    assert list(pair.versions().values()) == ["2"]


def test_upgrade_while_a_replica_is_being_replaced(pair):
    lost = min(wanted(pair))
    pair.devices[lost].online = False
    pair.run(30)
    pair.apply("2", replicas=2, lost_after="60s")
    pair.run(200)
    assert pair.state(2) == "Succeeded"
    online = {d: v for d, v in pair.versions().items() if pair.devices[d].online}
    assert list(online.values()) == ["2", "2"]
    pair.devices[lost].online = True
    pair.run(10)
    assert list(pair.versions().values()) == ["2", "2"]
    assert lost not in pair.versions()


@pytest.mark.parametrize("warm", [0, 3, 20])
def test_a_replica_that_may_not_wait_as_long_is_replaced_before_devices_are_called_offline_otherwise(fleet, warm):
    for number in range(3):
        fleet.join(f"d{number}")
    fleet.publish("1")
    fleet.run(21 - warm)
    fleet.apply("1", replicas=2, lost_after="6s")
    fleet.until(lambda: fleet.state(1) == "Succeeded")
    fleet.run(warm)
    lost, kept = sorted(fleet.versions())
    fleet.devices[lost].online = False
    fleet.run(4)
    assert connection(fleet, lost) == "Online"
    fleet.run(4)
    assert connection(fleet, lost) == "Offline"
    assert set(wanted(fleet)) > {lost, kept}


def test_a_fleet_that_polls_has_no_deadlines_and_a_poll_that_ends_has_one(fleet):
    for number in range(5):
        fleet.join(f"d{number}")
    fleet.run(200)
    assert fleet.wake_at is None
    agent = fleet.devices["d0"].agent
    fleet.devices["d0"].online = False
    fleet.view.poll_closed(agent, fleet.now)
    fleet.polling.discard(agent)
    closed = fleet.now
    assert closed + 20 <= fleet.view.timers.next() <= closed + 21
    fleet.run(19)
    assert connection(fleet, "d0") == "Online"
    fleet.run(3)
    assert connection(fleet, "d0") == "Offline"
    assert connection(fleet, "d1") == "Online"
