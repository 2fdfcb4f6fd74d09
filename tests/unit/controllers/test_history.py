"""How well a device kept up: outages, their length and restarts, wherever they are noticed."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.controllers.history import booted, connected
from edgewise.resources.device import DeviceHistory, DeviceStatus
from edgewise.resources.states import Connection
from edgewise.wire.report import DeviceReport

ONLINE, OFFLINE, AWAITING = Connection.ONLINE, Connection.OFFLINE, Connection.AWAITING_RECONNECT


def history(fleet, name):
    return fleet.get("Device", name, "").status.history


def test_a_device_that_joins_has_a_history_from_then_on(fleet):
    now = fleet.now
    fleet.join("d0")
    assert history(fleet, "d0") == DeviceHistory(since=now)


@pytest.mark.parametrize("count", [1, 50])
def test_outages_are_counted_however_many_devices_are_lost_at_once(fleet, count):
    for number in range(count):
        fleet.join(f"d{number}")
    fleet.run(3)
    for device in fleet.devices.values():
        device.online = False
    gone = fleet.now
    fleet.run(100)
    assert {history(fleet, name).outages for name in fleet.devices} == {1}
    assert {history(fleet, name).offline_seconds for name in fleet.devices} == {0.0}
    for device in fleet.devices.values():
        device.online = True
    back = fleet.now
    fleet.run(5)
    for name in fleet.devices:
        assert history(fleet, name).outages == 1
        assert history(fleet, name).offline_seconds == pytest.approx(back - gone, abs=5)


def test_a_report_ends_an_outage_as_a_poll_does(fleet):
    device = fleet.join("d0")
    fleet.run(3)
    device.online = False
    fleet.run(100)
    device.report("status", DeviceReport(device="d0", boot_id="b1"))
    assert fleet.get("Device", "d0", "").status.connection is ONLINE
    assert history(fleet, "d0").outages == 1
    assert history(fleet, "d0").offline_seconds == pytest.approx(100, abs=5)


def test_a_device_that_joins_anew_keeps_its_history(fleet):
    device = fleet.join("d0")
    fleet.run(3)
    device.online = False
    fleet.run(100)
    row = fleet.get("Device", "d0", "")
    fleet.put(msgspec.structs.replace(row, spec=msgspec.structs.replace(row.spec, decommission=True)))
    fleet.run(100)
    fleet.devices.pop("d0")
    fleet.join("d0")
    fleet.run(3)
    assert history(fleet, "d0").outages == 1
    assert history(fleet, "d0").offline_seconds > 100


def test_another_boot_id_is_a_restart(fleet):
    device = fleet.join("d0")
    for boot, restarts in (("b1", 0), ("b1", 0), ("b2", 1), (None, 1), ("", 1), ("b3", 2)):
        device.report("status", DeviceReport(device="d0", boot_id=boot))
        assert history(fleet, "d0").restarts == restarts
    assert fleet.get("Device", "d0", "").status.boot_id == "b3"


def test_a_restart_of_the_control_plane_is_no_outage():
    status = DeviceStatus(connection=ONLINE, last_seen=10.0, history=DeviceHistory(since=1.0))
    awaited = connected(status, AWAITING, 10.0, 50.0)
    assert awaited.history == status.history
    assert connected(awaited, ONLINE, 60.0, 60.0).history == status.history
    assert connected(awaited, OFFLINE, 40.0, 90.0).history.outages == 1


def test_an_outage_that_began_before_the_counting_has_no_length():
    status = DeviceStatus(connection=OFFLINE, last_seen=10.0)
    assert connected(status, ONLINE, 500.0, 500.0).history == DeviceHistory(since=500.0)


@given(st.lists(st.tuples(st.sampled_from([ONLINE, OFFLINE, AWAITING]), st.floats(0.0, 1e6)), max_size=30))
def test_the_counts_never_fall_and_never_exceed_the_time(changes):
    status, now, start = DeviceStatus(connection=ONLINE, last_seen=100.0), 100.0, 100.0
    for connection, after in changes:
        now += after
        before = status.history
        status = connected(status, connection, now if connection is ONLINE else status.last_seen, now)
        assert status.connection is connection
        assert status.history.outages - before.outages in {0, 1}
        assert before.offline_seconds <= status.history.offline_seconds <= now - start + 1e-3


def test_the_boot_id_is_taken_over():
    assert booted(DeviceStatus(), "b", 5.0) == DeviceStatus(boot_id="b", history=DeviceHistory(since=5.0))
