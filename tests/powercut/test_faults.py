"""A disk that is full, read-only or broken, at every operation, once or for good: what runs, runs on; nothing wrong is started; and once the
disk takes everything again, the device comes to rest where it should."""

import msgspec
import pytest

from edgewise.ports.files import Damaged, FilesError, Full, ReadOnly
from edgewise.resources.states import Health, InstanceState
from edgewise.twin._powercut_device import Device
from edgewise.twin._powercut_scenarios import R1, R2, R3, made, runs, says
from edgewise.twin._powercut_world import PromiseBroken, World
from edgewise.twin.disk import Crash, RecordingDisk
from edgewise.twin.diskfaults import run_disk_faults
from edgewise.wire.report import DeviceReport, Item

FAULTS = (Full, ReadOnly, Damaged)


def test_what_failed_is_done_later_and_survives_a_power_cut(record_property) -> None:
    """Every scenario with a seeded sample of its operations failing; all of them take some minutes."""
    result = run_disk_faults(share=0.005)
    record_property("power cuts", f"disk faults: {result}")
    assert [str(failure) for failure in result.failures] == []
    assert result.faults > 10


def upgraded(world: World, disk: RecordingDisk, fault: type[FilesError], at: int, *, for_good: bool) -> Device:
    """Let a running device upgrade while its disk fails; stop before the disk is mended."""
    device = Device(world, disk)
    device.boot()
    device.run(until=world.quiet)
    disk.fail_at, disk.fail_on, disk.fail_with = disk.operations + at, for_good, fault
    says(R2)(world)
    device.run(until=world.quiet)
    return device


def health(world: World) -> list[Health]:
    """What the device said of its health, in order."""
    items = [msgspec.json.decode(body, type=Item) for body in world.kept.values()]
    return [item.health for item in items if isinstance(item, DeviceReport) and item.health]


@pytest.mark.parametrize("fault", FAULTS)
def test_one_failed_operation_delays_an_upgrade_and_no_more(fault: type[FilesError]) -> None:
    base = made(says(R1))
    at = 0
    while True:
        at += 1
        world, disk = base[0].copy(), base[1].copy()
        world.quiet = 15.0
        device = upgraded(world, disk, fault, at, for_good=False)
        reached = disk.operations >= disk.fail_at
        disk.fail_at = None
        device.run(until=700.0)
        device.check_counts()
        try:
            runs("r2", trees=2)(world, disk)
        except PromiseBroken as error:
            error.add_note(f"{fault.__name__} at operation {at}")
            raise
        if not reached:
            break
    assert at > 30


@pytest.mark.parametrize("fault", FAULTS)
def test_a_disk_that_fails_for_good_stops_nothing_that_runs(fault: type[FilesError]) -> None:
    base = made(says(R1))
    for at in range(1, 60, 3):
        world, disk = base[0].copy(), base[1].copy()
        world.quiet = 15.0
        device = upgraded(world, disk, fault, at, for_good=True)
        device.check_counts()
        assert [slot.revision for slot in world.running.values() if slot.active] in (["r1"], ["r2"])
        disk.fail_at = None
        device.run(until=700.0)
        runs("r2", trees=2)(world, disk)


def test_health_says_that_the_disk_takes_nothing_and_that_it_does_again() -> None:
    world, disk = made(says(R1))
    world.quiet = 15.0
    device = upgraded(world, disk, ReadOnly, 1, for_good=True)
    assert health(world)[-1] is Health.ERROR
    disk.fail_at = None
    device.run(until=700.0)
    assert health(world)[-1] is Health.HEALTHY


def test_a_device_starts_on_a_disk_that_is_read_only_and_runs_what_it_has() -> None:
    world, disk = made(says(R1))
    disk.fail_at, disk.fail_on, disk.fail_with = disk.operations + 1, True, ReadOnly
    device = Device(world, disk)
    device.boot()
    device.run(until=15.0)
    assert [(slot.revision, slot.active) for slot in world.running.values()] == [("r1", True)]
    assert world.statuses["ns/app"].status.state is InstanceState.RUNNING


@pytest.mark.parametrize("fault", FAULTS)
def test_a_trial_that_fails_while_the_disk_takes_nothing_is_still_taken_back(fault: type[FilesError]) -> None:
    world, disk = made(says(R1))
    device = Device(world, disk)
    device.boot()
    says(R3)(world)
    device.run(stop=lambda: any(slot.revision == "r3" for slot in world.running.values()))
    disk.fail_at, disk.fail_on, disk.fail_with = disk.operations + 1, True, fault
    world.bad = frozenset({"r3"})
    device.run(until=15.0)
    assert [(slot.revision, slot.active) for slot in world.running.values()] == [("r1", True)]
    disk.fail_at = None
    device.run(until=60.0)
    assert world.refused == {"r3"}
    world.power_cut()
    after = disk.crash(Crash.DROPPED)
    again = Device(world, after)
    again.boot()
    again.run(until=15.0)
    runs("r1", refused=("r3",))(world, after)
