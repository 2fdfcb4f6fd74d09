"""What devices do while the power is cut: every way of an update, and what else touches the disk.

A scenario is a device that was prepared without cuts, what it is told then, phase by phase, and where it must come to rest, whatever was
cut.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from edgewise.engine import identity, install
from edgewise.ports.files import Files
from edgewise.resources.states import InstanceState, UpdateState
from edgewise.twin._powercut_device import Device, started
from edgewise.twin._powercut_world import DEVICE, SMALL, PromiseBroken, World, certificates, want
from edgewise.twin.disk import Crash, RecordingDisk
from edgewise.wire.desired import InstanceDesired, Traffic
from edgewise.wire.report import EventReport, FrameReport, Lane

_SEGMENTS_MAX: Final = 8
"""How many segments two lanes may keep when all is acknowledged: the current ones, and those that cuts and faults left unfit to go on
with, until the next item is acknowledged."""

Phase = Callable[[World], None]
Start = tuple[World, RecordingDisk]


class PowerCutScenario(msgspec.Struct, frozen=True, kw_only=True):
    """A story that is cut at every operation. `base` makes the device as it is before; `phases` are what the control plane or a workload
    does then, each once the device has come to rest; `check` raises `PromiseBroken` unless it has come to rest where it should."""

    name: str
    base: Callable[[], Start]
    phases: tuple[Phase, ...]
    check: Callable[[World, Files], None]


def finish(world: World, disk: RecordingDisk, phases: Sequence[Phase], known: Callable[[], bool] | None = None) -> Device | None:
    """Let one device go on from the phase that it is in to the end of the last one. Returns None when it had just started, and `known` said
    that what follows is known. Raises `PromiseBroken`, `PowerCut`."""
    if world.phase < 0:
        world.phase = 0
        phases[0](world)
    device = started(world, disk)
    if known is not None:
        device.run(until=0.0)
        if known():
            return None
    while True:
        device.run(until=world.quiet)
        device.check_counts()
        if world.phase + 1 >= len(phases):
            return device
        world.phase += 1
        phases[world.phase](world)
        if device.ended:
            device = started(world, disk)


def made(*phases: Phase, base: Start | None = None) -> Start:
    """Return a device that has been through `phases` already, and was switched off then."""
    world, disk = base or (World(), RecordingDisk())
    finish(world, disk, phases)
    world.phase = -1
    world.power_cut()
    return world, disk.crash(Crash.ALL)


# ---- phases ----


def joins(world: World) -> None:
    """Let the device join; nothing is desired yet."""
    world.issued = max(world.issued, 1)


def says(*instances: InstanceDesired, bad: tuple[str, ...] = (), decommission: bool = False) -> Phase:
    """Return a phase in which something else is desired."""
    return lambda world: world.say(*instances, bad=bad, decommission=decommission)


def renews(world: World) -> None:
    """Let the authority give new certificates."""
    world.issued += 1


def lets_in_again(world: World) -> None:
    """Let the device join anew, as another one: the control plane has forgotten it."""
    world.decommissioned = world.forgotten = False
    world.told = world.certificates = world.certificates_attempted = None
    world.say(R1)


def feeds(events: int, frames: int, *, online: bool) -> Phase:
    """Return a phase in which workloads have much to say, with a connection or without."""

    def phase(world: World) -> None:
        world.online = online
        both: list[tuple[Lane, EventReport | FrameReport]] = []
        for n in range(max(events, frames)):
            both += [("events", _event(world.phase, n))] if n < events else []
            both += [("telemetry", _frame(world.phase, n))] if n < frames else []
        world.feed += tuple(both)

    return phase


def connects(world: World) -> None:
    """Let the connection come back."""
    world.online = True


def _event(phase: int, n: int) -> EventReport:
    return EventReport(device=DEVICE, at=100.0 * phase + n, type="Normal", reason="Happened", message=f"event {n} " * 20)


def _frame(phase: int, n: int) -> FrameReport:
    return FrameReport(
        device=DEVICE, boot_id="boot", start=100.0 * phase + n, end=100.0 * phase + n + 1.0, monotonic=0.0, series=(), samples=b"\x01" * 300
    )


# ---- where it must come to rest ----


def _must(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise PromiseBroken("outcome", f"{what}: {found!r}, expected {expected!r}")


def runs(revision: str, *, refused: tuple[str, ...] = (), trees: int = 1) -> Callable[[World, Files], None]:
    """Return a check: one instance runs that revision, everybody knows it, and nothing else is left on the disk."""

    def check(world: World, disk: Files) -> None:
        status = world.status()
        expected = (InstanceState.RUNNING, UpdateState.IDLE, revision, revision, True, refused)
        _must((status.state, status.update, status.revision, status.committed, status.ready, status.refused), expected, "status")
        _must([slot.revision for slot in world.works()], [revision], "what runs")
        _must(len(install.installed_trees(disk)), trees, "installed trees")
        _must(disk.list("staging"), (), "staged trees")
        _must(len(disk.list("manifests")), trees, "manifests")

    return check


def _beside(world: World, disk: Files) -> None:
    status = world.status()
    expected = (InstanceState.RUNNING, UpdateState.PROBATION, "r2", "r1", "r1", True, SHADOW.traffic)
    found = (status.state, status.update, status.update_revision, status.revision, status.committed, status.ready, status.traffic)
    _must(found, expected, "status")
    _must(sorted((slot.revision, slot.active) for slot in world.works()), [("r1", True), ("r2", False)], "what runs, and what serves")
    _must(len(install.installed_trees(disk)), 2, "installed trees")


def _gone(world: World, disk: Files) -> None:
    _must(("ns/app", world.statuses["ns/app"].gone), ("ns/app", True), "gone")
    _must(world.running, {}, "what runs")
    _must(install.installed_trees(disk), (), "installed trees")


def _forgotten(world: World, disk: Files) -> None:
    _must((world.decommissioned, world.forgotten, world.running), (True, True, {}), "decommissioned, forgotten, what runs")
    _must(identity.read_certificates(disk), None, "identity")


def _renewed(world: World, disk: Files) -> None:
    runs("r1")(world, disk)
    _must(world.issued, 3, "certificates issued")
    found = identity.read_identity(disk)
    _must(found.certificates if found else None, certificates(3), "certificates")


def _told(world: World, disk: Files) -> None:
    runs("r1")(world, disk)
    _must(world.feed, (), "what workloads gave")
    numbers = [entry.name for lane in ("events", "telemetry") for entry in disk.list(f"outbox/{lane}")]
    _must(numbers[_SEGMENTS_MAX:], [], "segments too many")


# ---- the scenarios ----

R1: Final = want("r1")
R2: Final = want("r2")
SHADOW: Final = want("r2", beside=Traffic(mode="shadow"))
HALF: Final = want("r2", beside=Traffic(mode="split", share=0.5))
R3: Final = want("r3", deadline_seconds=0.5)
B1: Final = want("b1", bundle=True)
B2: Final = want("b2", bundle=True)


def joined() -> Start:
    """Return a device that has joined and runs nothing."""
    return made(joins)


def running(*instances: InstanceDesired) -> Start:
    """Return a device that went from one instance to the next."""
    return made(joins, *(says(instance) for instance in instances))


def beside(instance: InstanceDesired) -> Start:
    """Return a device on which an instance is held beside the committed r1."""
    return made(joins, says(R1), says(instance))


def _compacting() -> Start:
    """Return a device whose journal is written anew after nearly every record."""
    world, disk = World(msgspec.structs.replace(SMALL, journal_compact_bytes=200, journal_compact_growth=1)), RecordingDisk()
    return made(joins, says(R1), base=(world, disk))


def _nearly_full() -> Start:
    world, disk = running(R1)
    disk.capacity, world.quiet = disk.used_bytes() + 3_000, 30.0
    return world, disk


SCENARIOS: Final = (
    PowerCutScenario(name="join and first install", base=lambda: (World(), RecordingDisk()), phases=(says(R1),), check=runs("r1")),
    PowerCutScenario(name="first install", base=joined, phases=(says(R1),), check=runs("r1")),
    PowerCutScenario(name="upgrade", base=lambda: running(R1), phases=(says(R2),), check=runs("r2", trees=2)),
    PowerCutScenario(name="upgrade of a bundle", base=lambda: running(B1), phases=(says(B2),), check=runs("b2", trees=2)),
    PowerCutScenario(
        name="rollback", base=lambda: running(R1, R2), phases=(says(R3, bad=("r3",)),), check=runs("r2", refused=("r3",), trees=2)
    ),
    PowerCutScenario(
        name="rollback of a bundle", base=lambda: running(B1), phases=(says(B2, bad=("b2",)),), check=runs("b1", refused=("b2",))
    ),
    PowerCutScenario(
        name="rejection",
        base=lambda: running(R1, R2),
        phases=(says(want("r1", rejected=("r2",))),),
        check=runs("r1", refused=("r2",), trees=1),
    ),
    PowerCutScenario(name="held beside", base=lambda: running(R1), phases=(says(SHADOW),), check=_beside),
    PowerCutScenario(
        name="held beside, then committed", base=lambda: beside(SHADOW), phases=(says(HALF), says(R2)), check=runs("r2", trees=2)
    ),
    PowerCutScenario(
        name="held beside, then rejected",
        base=lambda: beside(HALF),
        phases=(says(want("r1", rejected=("r2",))),),
        check=runs("r1", refused=("r2",)),
    ),
    PowerCutScenario(name="disk nearly full", base=_nearly_full, phases=(says(R2),), check=runs("r2", trees=2)),
    PowerCutScenario(name="journal compaction", base=_compacting, phases=(says(R2),), check=runs("r2", trees=2)),
    PowerCutScenario(
        name="outbox compaction",
        base=lambda: running(R1),
        phases=(feeds(10, 5, online=False), connects, feeds(2, 4, online=True)),
        check=_told,
    ),
    PowerCutScenario(name="renewal", base=lambda: running(R1), phases=(renews, renews), check=_renewed),
    PowerCutScenario(name="removal", base=lambda: running(R1), phases=(says(),), check=_gone),
    PowerCutScenario(name="removal and return", base=lambda: running(R1), phases=(says(), says(R1)), check=runs("r1")),
    PowerCutScenario(name="decommission", base=lambda: running(R1), phases=(says(decommission=True),), check=_forgotten),
    PowerCutScenario(
        name="decommission and return", base=lambda: running(R1), phases=(says(decommission=True), lets_in_again), check=runs("r1")
    ),
)
"""All of them; their names are those of the report."""
