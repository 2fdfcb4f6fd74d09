"""Cuts the power at every disk operation of what a device does, in every way the port's contract allows, and lets the device go on with
what is left. Afterwards it must run the old or the new, whole; remember what it refused; have lost nothing it promised; and come to rest
where it would have come without the cut."""

import random
from collections.abc import Callable, Iterator

import msgspec
import powercut_device
import pytest
from powercut_device import DEVICE, SMALL, Device, World, document, want
from powercut_disk import Crash, PowerCut, SimDisk

from edgewise.engine import identity, install
from edgewise.resources.states import InstanceState, UpdateState

Phase = Callable[[World], None]


def says(*instances: object, bad: tuple[str, ...] = (), **fields: object) -> Phase:
    def phase(world: World) -> None:
        n = world.document.position.n + 1 if world.document else 1
        world.document = document(n, *instances, **fields)
        world.bad = set(bad)

    return phase


def play(world: World, disk: SimDisk, phases: list[Phase], first: int = 0) -> Iterator[int]:
    """Run phase after phase with one device, yielding the number of each as it begins."""
    device = None
    for number in range(first, len(phases)):
        yield number
        if number > first or not hasattr(world, "phase"):
            phases[number](world)
        world.phase = number
        if device is None:
            device = Device(world, disk)
            device.boot()
        device.run(until=world.quiet)
        device.check_counts()
    for number in range(len(phases), len(phases) + 1):
        yield number


def finish(world: World, disk: SimDisk, phases: list[Phase], first: int = 0) -> None:
    for _ in play(world, disk, phases, first):
        pass


def cut_everywhere(
    name: str, base: tuple[World, SimDisk], phases: list[Phase], check: Callable[[World, SimDisk], None], seconds_cuts: int = 1
) -> None:
    """Cut after every operation, go on in every way, and check."""
    world, disk = base[0].copy(), base[1].copy()
    before = disk.operations
    finish(world, disk, phases)
    check(world, disk)
    operations = disk.operations - before
    chance = random.Random(name)
    count = 0
    for after in range(operations):
        world, disk = base[0].copy(), base[1].copy()
        disk.cut_after = before + after
        at = play_until_cut(world, disk, phases)
        if not hasattr(world, "phase") or world.phase != at:
            phases[at](world)
            world.phase = at
        for left in leftovers(disk):
            again = world.copy()
            again.power_cut()
            twice = chance.random() < 0.3
            found = cut_again(again, left, phases, at, chance) if twice else left
            count += 1 + twice
            go_on(again, found, phases, at, check, f"{name}: cut after {disk.trace[-1] if disk.trace else 'nothing'} ({after})")
        killed = world.copy(), disk.copy()
        count += 1
        go_on(*killed, phases, at, check, f"{name}: killed after {disk.trace[-1] if disk.trace else 'nothing'} ({after})")
    powercut_device.tried[name] = count


def play_until_cut(world: World, disk: SimDisk, phases: list[Phase]) -> int:
    """Return the phase that the power went in."""
    at = 0
    try:
        for number in play(world, disk, phases):
            at = number
    except PowerCut:
        return at
    raise AssertionError("the power did not go")


def leftovers(disk: SimDisk) -> list[SimDisk]:
    found = {}
    for how in Crash:
        left = disk.crash(how)
        found.setdefault(left.fingerprint(), left)
    return list(found.values())


def cut_again(world: World, disk: SimDisk, phases: list[Phase], at: int, chance: random.Random) -> SimDisk:
    """Lose power once more, early after the start."""
    disk.cut_after = disk.operations + chance.randrange(12)
    try:
        for number in play(world, disk, phases, at):
            if number > at:
                break
    except PowerCut:
        pass
    world.power_cut()
    return disk.crash(chance.choice(list(Crash)))


def go_on(world: World, disk: SimDisk, phases: list[Phase], at: int, check: Callable[[World, SimDisk], None], where: str) -> None:
    try:
        finish(world, disk, phases, at)
        check(world, disk)
        assert world.dropped or not world.promised, f"promised but never arrived: {world.promised}"
    except BaseException as error:
        error.add_note(where)
        raise


# ---- scenarios ----


def nothing() -> tuple[World, SimDisk]:
    return World(), SimDisk()


def made(*phases: Phase, base: tuple[World, SimDisk] | None = None) -> tuple[World, SimDisk]:
    """A device that has been through `phases` already."""
    world, disk = base or nothing()
    finish(world, disk, list(phases))
    del world.phase
    world.power_cut()
    return world, disk.crash(Crash.ALL)


R1 = want("r1", probation_seconds=0.5)
R2 = want("r2", probation_seconds=0.5)
R3 = want("r3", probation_seconds=0.5, deadline_seconds=0.5)


def runs(revision: str, *, refused: tuple[str, ...] = (), trees: int = 1) -> Callable[[World, SimDisk], None]:
    def check(world: World, disk: SimDisk) -> None:
        status = world.statuses["ns/app"].status
        assert (status.state, status.update, status.revision, status.committed) == (
            InstanceState.RUNNING,
            UpdateState.IDLE,
            revision,
            revision,
        )
        assert status.ready
        assert status.refused == refused
        assert [slot.revision for slot in world.running.values()] == [revision]
        assert len(install.installed_trees(disk)) == trees
        assert len(disk.list("staging")) == 0
        assert len(disk.list("manifests")) == trees

    return check


def test_first_install() -> None:
    cut_everywhere("first install", nothing(), [says(R1)], runs("r1"))


def test_upgrade_of_a_model() -> None:
    cut_everywhere("upgrade", made(says(R1)), [says(R2)], runs("r2", trees=2))


def test_journal_compaction() -> None:
    """The same upgrade with a journal that is written anew after nearly every record."""
    base = nothing()
    base[0].limits = msgspec.structs.replace(SMALL, journal_compact_bytes=200, journal_compact_growth=1)
    world, disk = made(says(R1), base=base)
    trial = world.copy(), disk.copy()
    finish(*trial, [says(R2)])
    assert sum("rename journal/new" in line for line in trial[1].trace) >= 3
    cut_everywhere("journal compaction", (world, disk), [says(R2)], runs("r2", trees=2))


def test_upgrade_of_a_bundle() -> None:
    base = made(says(want("b1", bundle=True, probation_seconds=0.5)))
    cut_everywhere("upgrade of a bundle", base, [says(want("b2", bundle=True, probation_seconds=0.5))], runs("b2", trees=2))


def test_rollback_of_a_model() -> None:
    cut_everywhere("rollback", made(says(R1), says(R2)), [says(R3, bad=("r3",))], runs("r2", refused=("r3",), trees=2))


def test_rollback_of_a_bundle() -> None:
    base = made(says(want("b1", bundle=True, probation_seconds=0.5)))
    phases = [says(want("b2", bundle=True, probation_seconds=0.5), bad=("b2",))]
    cut_everywhere("rollback of a bundle", base, phases, runs("b1", refused=("b2",)))


def test_a_rejection_goes_back_without_a_fetch_and_garbage_goes() -> None:
    back = want("r1", probation_seconds=0.5, rejected=("r2",))
    cut_everywhere("rejection", made(says(R1), says(R2)), [says(back)], runs("r1", refused=("r2",), trees=1))


def test_removal() -> None:
    def check(world: World, disk: SimDisk) -> None:
        assert world.statuses["ns/app"].gone
        assert not world.running
        assert install.installed_trees(disk) == ()

    cut_everywhere("removal", made(says(R1)), [says()], check)


def test_decommission() -> None:
    def check(world: World, disk: SimDisk) -> None:
        assert world.decommissioned
        assert world.forgotten
        assert not world.running
        assert identity.read_certificates(disk) is None

    cut_everywhere("decommission", made(says(R1)), [says(decommission=True)], check)


def test_a_disk_that_is_nearly_full() -> None:
    world, disk = made(says(R1))
    disk.capacity, world.quiet = disk.used_bytes() + 3_000, 30.0
    cut_everywhere("nearly full", (world, disk), [says(R2)], runs("r2", trees=2))


def certificates(serial: int) -> identity.Certificates:
    body = f"-----BEGIN CERTIFICATE-----\n{serial}\n-----END CERTIFICATE-----\n"
    return identity.Certificates(agent=DEVICE, certificate=body, authority=body)


def test_joining_and_renewal() -> None:
    """Whatever is cut, the identity is whole: none, the old one or the new one; and the keys never change once they were told."""
    count = 0
    for after in range(40):
        disk = SimDisk()
        disk.cut_after = after
        told: list[identity.DeviceKeys] = []
        expected: list[identity.Certificates | None] = [None]
        try:
            for keys in (identity.DeviceKeys(key="-----BEGIN PRIVATE KEY-----", sealing_key=b"k" * 32),):
                identity.write_keys(disk, keys)
                told.append(keys)
                for serial in range(1, 4):
                    expected.append(certificates(serial))
                    if serial == 1:
                        identity.complete_join(disk, certificates(serial), b"root")
                    else:
                        identity.renew(disk, certificates(serial))
                    expected[:] = [certificates(serial)]
        except PowerCut:
            pass
        for left in leftovers(disk):
            count += 1
            assert identity.read_certificates(left) in expected
            if told:
                assert identity.read_keys(left) == told[0]
            if identity.read_certificates(left) is not None:
                assert identity.read_identity(left) is not None
        if not disk.dead:
            break
    else:
        pytest.fail("the scenario does not end")
    powercut_device.tried["join and renewal"] = count
