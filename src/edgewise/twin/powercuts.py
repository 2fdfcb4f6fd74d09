"""Cuts the power at every disk operation of what a device does, in every way the port's contract allows, and lets the device go on with
what is left. Afterwards it must run the old or the new, whole; remember what it refused; have lost nothing it promised; and come to rest
where it would have come without the cut. Then cuts again, during the recovery.

Disks that look the same in the same world are gone on from once, and so are devices that are the same again once they have started: what
follows is the same. So the run is exhaustive at a fraction of the cost, and the number of cuts stays that of all of them.
"""

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

import msgspec

from edgewise.twin._nodes import Look, built, dirty, looks, platter
from edgewise.twin._powercut_scenarios import SCENARIOS, PowerCutScenario, finish
from edgewise.twin._powercut_world import Check, PromiseBroken, World
from edgewise.twin.disk import Crash, PowerCut, RecordingDisk
from edgewise.twin.kernel import Kernel

__all__ = [
    "KILLED",
    "SCENARIOS",
    "Cut",
    "PowerCutFailure",
    "PowerCutResult",
    "PowerCutScenario",
    "ScenarioCuts",
    "replay",
    "run_power_cuts",
]

KILLED: Final = "killed"
"""The way in which the program alone ends: what it wrote is there, and what it started runs on."""
_WAYS: Final[tuple[str, ...]] = (*(how.value for how in Crash), KILLED)
_BRICKED: Final[frozenset[Check]] = frozenset({"rest", "outcome", "failed", "damage"})
_MIXED: Final[frozenset[Check]] = frozenset({"whole", "identity"})
_STATES_PER_PROGRESS: Final = 100
_ENCODER: Final = msgspec.msgpack.Encoder()


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """One cut: before the `operation`-th changing operation of a run (0 is the first), `at` says which that would have been."""

    operation: int
    how: str
    at: str = ""


class PowerCutFailure(msgspec.Struct, frozen=True, kw_only=True):
    """What a cut, or two, broke. `replay(scenario, cuts)` does it again."""

    scenario: str
    check: Check
    message: str
    cuts: tuple[Cut, ...]

    def __str__(self) -> str:
        path = ", then ".join(f"{cut.how} before operation {cut.operation} ({cut.at})" for cut in self.cuts)
        return f"{self.scenario}: {path or 'without a cut'}: {self.check}: {self.message}"


class ScenarioCuts(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario's numbers. `operations`: disk operations that were cut at. `cuts` and `second_cuts`: each operation in each way, in the
    first run and in the runs of recovery. `states`: how many different disks and worlds that gave. `recovered`: cuts after which all
    checks held."""

    name: str
    operations: int
    cuts: int
    second_cuts: int
    states: int
    recovered: int
    failures: tuple[PowerCutFailure, ...] = ()


class PowerCutResult(msgspec.Struct, frozen=True, kw_only=True):
    """All scenarios' numbers. `second`: the share of operations of every recovery at which the power was cut again."""

    second: float
    scenarios: tuple[ScenarioCuts, ...]

    @property
    def cuts(self) -> int:
        """How many cuts were tried, second ones included."""
        return sum(one.cuts + one.second_cuts for one in self.scenarios)

    @property
    def states(self) -> int:
        """How many different disks and worlds they gave."""
        return sum(one.states for one in self.scenarios)

    @property
    def recovered(self) -> int:
        """How many of the cuts the device recovered from."""
        return sum(one.recovered for one in self.scenarios)

    @property
    def failures(self) -> tuple[PowerCutFailure, ...]:
        """What went wrong."""
        return tuple(failure for one in self.scenarios for failure in one.failures)

    @property
    def bricked(self) -> int:
        """How many failures left a device that does not do its job any more."""
        return sum(failure.check in _BRICKED for failure in self.failures)

    @property
    def mixed(self) -> int:
        """How many failures left something that is neither old nor new."""
        return sum(failure.check in _MIXED for failure in self.failures)

    def __str__(self) -> str:
        again = (
            "every operation of every recovery"
            if self.second >= 1
            else f"a seeded sample of {self.second:.1%} of every recovery's operations"
        )
        return (
            f"{self.cuts} power cuts tried in {len(self.scenarios)} scenarios ({self.states} different disks; cut again at {again}): "
            f"{self.recovered} recovered, {self.bricked} bricked, {self.mixed} mixed, {len(self.failures)} failures in all"
        )


Progress = Callable[[str, int, int], None]
"""Hears the scenario, how many cuts were tried in it and how many different states were gone on from."""


def run_power_cuts(
    scenarios: Iterable[PowerCutScenario] = SCENARIOS,
    progress: Progress | None = None,
    *,
    second: float = 1.0,
    seed: int = 0,
    failures_max: int = 20,
) -> PowerCutResult:
    """Cut everywhere. `second` is the share of operations of every recovery at which the power is cut again, drawn from `seed`; 1 is all
    of them. A scenario ends early after `failures_max` failures."""
    found = [_Explorer(scenario, second, Kernel(seed), failures_max, progress).explore() for scenario in scenarios]
    return PowerCutResult(second=second, scenarios=tuple(found))


def replay(scenario: PowerCutScenario, cuts: Iterable[Cut], *, seed: int = 0) -> PowerCutFailure | None:
    """Let a scenario be cut as `cuts` say, and return what that broke, if anything."""
    world, disk = scenario.base()
    path: tuple[Cut, ...] = ()
    for cut in cuts:
        disk.cut_after = disk.operations + cut.operation
        with suppress(PowerCut):
            finish(world, disk, scenario.phases)
        path = (*path, cut)
        if cut.how == KILLED:
            disk = disk.copy()
        else:
            disk = disk.crash(Crash(cut.how), Kernel(seed).stream("mixed", scenario.name, _digest(world, disk).hex()))
            world.power_cut()
    return go_on(scenario, world, disk, path)


class _Tally(msgspec.Struct):
    """How many cuts led to one state, and whether the device recovered from it."""

    reached: int = 1
    failed: bool = False


class _State(msgspec.Struct, frozen=True):
    """What a power cut left, and how it came to be."""

    world: World
    disk: RecordingDisk
    path: tuple[Cut, ...]
    tally: _Tally


class _Explorer:
    """Goes through one scenario."""

    def __init__(self, scenario: PowerCutScenario, second: float, kernel: Kernel, failures_max: int, progress: Progress | None) -> None:
        self._scenario, self._second, self._kernel, self._failures_max, self._progress = scenario, second, kernel, failures_max, progress
        self._chance = kernel.stream("powercuts", scenario.name)
        self._known: dict[bytes, _Tally] = {}
        self._cuts: dict[bytes, tuple[_Tally, ...]] = {}
        self._ends: dict[bytes, PowerCutFailure | None] = {}
        self._failures: list[PowerCutFailure] = []
        self._operations = self._second_operations = self._gone_on = 0

    def explore(self) -> ScenarioCuts:
        """Cut everywhere."""
        world, disk = self._scenario.base()
        for state in self._run(_State(world, disk, (), _Tally())):
            for again in self._run(state):
                self._run(again)
            if len(self._failures) >= self._failures_max:
                break
        return ScenarioCuts(
            name=self._scenario.name,
            operations=self._operations,
            cuts=self._operations * len(_WAYS),
            second_cuts=self._second_operations * len(_WAYS),
            states=len(self._known),
            recovered=sum(tally.reached for tally in self._known.values() if not tally.failed),
            failures=tuple(self._failures),
        )

    def _run(self, state: _State) -> list[_State]:
        """Go on from a state to the end, and return what cuts on that way would leave, as far as it is new."""
        left: list[_State] = []
        first, depth = state.disk.operations, len(state.path)

        def watch(what: str) -> None:
            if depth and self._second < 1 and not self._chance.chance(self._second):
                return
            if depth:
                self._second_operations += 1
            else:
                self._operations += 1
            left.extend(self._cut(state, state.disk.operations - first, what))

        again = not depth or (depth == 1 and self._second > 0)
        state.disk.watch = watch if again else None
        failure = go_on(self._scenario, state.world, state.disk, state.path, None if again else self._ends)
        if failure is not None:
            state.tally.failed = True
            self._failures.append(failure)
        self._gone_on += 1
        if self._progress is not None and self._gone_on % _STATES_PER_PROGRESS == 0:
            self._progress(self._scenario.name, (self._operations + self._second_operations) * len(_WAYS), self._gone_on)
        return left

    def _cut(self, state: _State, operation: int, what: str) -> list[_State]:
        """Return what is left when the power goes now, in every way, as far as it is new."""
        world, disk = state.world, state.disk
        here = _digest(world, disk)
        known = self._cuts.get(here)
        if known is not None:
            for tally in known:
                tally.reached += 1
            return []
        off = world.copy()
        off.power_cut()
        after, like, seen = off.key(), _alike(*dirty(disk.root)), dict[Crash, Look]()
        left, tallies = list[_State](), list[_Tally]()
        for how in Crash:
            one = like.get(how, how)
            if one not in seen:
                seen[one] = looks(disk.root, one, self._kernel.stream("mixed", self._scenario.name, here.hex()))
            tally, new = self._tally(_digested((after, seen[one])))
            tallies.append(tally)
            if new:
                path = (*state.path, Cut(operation=operation, how=how.value, at=what))
                left.append(_State(off.copy(), RecordingDisk(built(seen[one]), disk.capacity), path, tally))
        tally, new = self._tally(here)
        tallies.append(tally)
        if new:
            left.append(_State(world.copy(), disk.copy(), (*state.path, Cut(operation=operation, how=KILLED, at=what)), tally))
        self._cuts[here] = tuple(tallies)
        return left

    def _tally(self, key: bytes) -> tuple[_Tally, bool]:
        """Count a cut that led to a state. Returns the state's tally, and whether the state is new."""
        tally = self._known.get(key)
        if tally is not None:
            tally.reached += 1
            return tally, False
        self._known[key] = tally = _Tally()
        return tally, True


def _alike(contents: bool, names: bool) -> dict[Crash, Crash]:
    """Return which ways leave the same as another one, where contents, or names, are all on the platter."""
    if not contents and not names:
        return dict.fromkeys(Crash, Crash.ALL)
    if not contents:
        same = (Crash.TORN, Crash.GARBAGE, Crash.REORDERED, Crash.CONTENTS_DROPPED)
        return {**dict.fromkeys(same, Crash.ALL), Crash.NAMES_DROPPED: Crash.DROPPED}
    return {} if names else {Crash.NAMES_DROPPED: Crash.ALL, Crash.CONTENTS_DROPPED: Crash.DROPPED}


def _digest(world: World, disk: RecordingDisk) -> bytes:
    """Return what tells one device with power from another."""
    return _digested((world.key(), platter(disk.root)))


def _digested(what: object) -> bytes:
    return hashlib.blake2b(_ENCODER.encode(what), digest_size=16).digest()


def go_on(
    scenario: PowerCutScenario,
    world: World,
    disk: RecordingDisk,
    path: tuple[Cut, ...],
    ends: dict[bytes, PowerCutFailure | None] | None = None,
) -> PowerCutFailure | None:
    """Let a device go on from a world and a disk to the end, and return what went wrong, if anything; `path` says how they came to be.
    `ends` remembers how it ended for devices that have just started: all that a device then has in memory it has from its disk."""
    start = b""

    def known() -> bool:
        nonlocal start
        start = _digest(world, disk)
        return ends is not None and start in ends

    failure: PowerCutFailure | None = None
    try:
        if finish(world, disk, scenario.phases, known if ends is not None else None) is None and ends is not None:
            failure = ends[start]
            return msgspec.structs.replace(failure, cuts=path) if failure is not None else None
        scenario.check(world, disk)
        world.check_promises()
    except PromiseBroken as error:
        failure = PowerCutFailure(scenario=scenario.name, check=error.check, message=str(error), cuts=path)
    except Exception as error:  # noqa: BLE001 - whatever stops a device is what is looked for
        failure = PowerCutFailure(scenario=scenario.name, check="failed", message=f"{type(error).__name__}: {error}", cuts=path)
    if start and ends is not None:
        ends[start] = failure
    return failure
