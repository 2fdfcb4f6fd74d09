"""Lets one disk operation of what a device does fail, whichever and however, and then takes the power away at rest.

What failed must be done later; and what the system took for done although it failed (a sync that lost what it should have written, a name
that programs see and that never reached the disk) must not be believed.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from edgewise.ports.files import Damaged, FilesError, Full, ReadOnly
from edgewise.twin._nodes import Look, built, looks
from edgewise.twin._powercut_scenarios import SCENARIOS, PowerCutScenario, finish
from edgewise.twin._powercut_world import World
from edgewise.twin.disk import Crash, RecordingDisk
from edgewise.twin.kernel import Kernel
from edgewise.twin.powercuts import Cut, PowerCutFailure, go_on

FAULTS: Final[tuple[tuple[str, type[FilesError], bool], ...]] = (
    ("full", Full, False),
    ("read-only", ReadOnly, False),
    ("error", Damaged, False),
    ("late error", Damaged, True),
)
"""What an operation fails with: a word, the error, and whether it is done for programs to see all the same."""
_QUIET_SECONDS: Final = 150.0


class DiskFaultResult(msgspec.Struct, frozen=True, kw_only=True):
    """What was tried: `faults` is each operation with each fault, `cuts` each way of losing power afterwards that left another disk."""

    faults: int
    cuts: int
    failures: tuple[PowerCutFailure, ...]

    def __str__(self) -> str:
        return f"{self.faults} failed disk operations and {self.cuts} power cuts after them tried: {len(self.failures)} failures"


def run_disk_faults(
    scenarios: Iterable[PowerCutScenario] = SCENARIOS,
    progress: Callable[[str, int], None] | None = None,
    *,
    share: float = 1.0,
    seed: int = 0,
) -> DiskFaultResult:
    """Let operations fail: `share` of them, drawn from `seed`. `progress` hears the scenario and how many faults were tried in it."""
    faults = cuts = 0
    failures: list[PowerCutFailure] = []
    for scenario in scenarios:
        base = scenario.base()
        chance = Kernel(seed).stream("disk faults", scenario.name)
        tried = 0
        for number in range(1, _operations(scenario, base) + 1):
            for word, fault, late in FAULTS:
                if share < 1 and not chance.chance(share):
                    continue
                tried += 1
                found, ways = _try(scenario, base, Cut(operation=number, how=word), fault, late=late)
                cuts += ways
                failures.extend(found)
        faults += tried
        if progress is not None:
            progress(scenario.name, tried)
    return DiskFaultResult(faults=faults, cuts=cuts, failures=tuple(failures))


def _operations(scenario: PowerCutScenario, base: tuple[World, RecordingDisk]) -> int:
    world, disk = base[0].copy(), base[1].copy()
    finish(world, disk, scenario.phases)
    return disk.operations - base[1].operations


def _try(
    scenario: PowerCutScenario, base: tuple[World, RecordingDisk], cut: Cut, fault: type[FilesError], *, late: bool
) -> tuple[list[PowerCutFailure], int]:
    """Let one operation fail. Returns what that broke, and in how many ways the power was taken away afterwards."""
    world, disk = base[0].copy(), base[1].copy()
    world.quiet = max(world.quiet, _QUIET_SECONDS)
    disk.fail_at, disk.fail_with, disk.fail_late = disk.operations + cut.operation, fault, late
    failure = go_on(scenario, world, disk, (cut,))
    if failure is not None and failure.check == "failed":
        failure = go_on(scenario, world, disk, (cut,))  # joining and forgetting end with the error, and are begun anew
    if failure is not None:
        return [failure], 0
    found: list[PowerCutFailure] = []
    ways = 0
    for how, look in _different(disk):
        ways += 1
        other = world.copy()
        other.power_cut()
        path = (cut, Cut(operation=disk.operations, how=how.value, at="rest"))
        failure = go_on(scenario, other, RecordingDisk(built(look), disk.capacity), path)
        if failure is not None:
            found.append(failure)
    return found, ways


def _different(disk: RecordingDisk) -> Iterator[tuple[Crash, Look]]:
    known: set[Look] = set()
    for how in Crash:
        look = looks(disk.root, how, Kernel(0).stream("mixed", disk.operations))
        if look not in known:
            known.add(look)
            yield how, look
