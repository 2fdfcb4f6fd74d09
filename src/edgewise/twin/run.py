"""`run(plan)`: one run from beginning to end.

Runs that warm up alike can share that part: `warmed(plan)` is a world that is ready for any of them, and `carry_on(world, plan)` makes the
rest. The same two make a run that is alone, so that it is the same run.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b

import msgspec

from edgewise.resources.quantity import seconds
from edgewise.twin.invariants import observers_for
from edgewise.twin.observers import Observer
from edgewise.twin.plan import Plan, warm_up_of
from edgewise.twin.result import Progress, ProgressCall, RunResult, StopCall
from edgewise.twin.world import World

__all__ = ["carry_on", "run", "warm_up_key", "warmed"]

_TOLD: int = 1_000
"""About how often a run tells its progress."""


def run(
    plan: Plan,
    *,
    progress: ProgressCall | None = None,
    stop: StopCall | None = None,
    observers: Sequence[Observer] | None = None,
    sink: Callable[[str], None] | None = None,
) -> RunResult:
    """Run a plan to its end and return what it gave. The fleet warms up first. `progress` is told now and then; once `stop` says so the run
    ends early, with what it has. `sink` hears every line of the trace. Without `observers` the invariants of the plan's profile look on."""
    world = _world(plan, observers, sink)
    try:
        _warm_up(world, _Pace(world, plan, progress, stop))
        return carry_on(world, plan, progress=progress, stop=stop)
    finally:
        world.close()


def warm_up_key(plan: Plan) -> bytes | None:
    """Return what is the same for plans that may share a warm-up; None: this one may not."""
    common = warm_up_of(plan)
    if common is None or plan.profile.store != "memory":
        return None
    return blake2b(msgspec.msgpack.encode(common)).digest()


def warmed(plan: Plan, *, progress: ProgressCall | None = None, stop: StopCall | None = None) -> World:
    """Return a world in which the fleet of `plan` has joined and taken up what it runs. It may begin all plans with the same
    `warm_up_key`, but only one of them: use copies of the process."""
    world = _world(plan, None, None)
    _warm_up(world, _Pace(world, plan, progress, stop))
    return world


def carry_on(world: World, plan: Plan, *, progress: ProgressCall | None = None, stop: StopCall | None = None) -> RunResult:
    """Make the run of `plan` from its beginning after the warm-up to its end."""
    pace = _Pace(world, plan, progress, stop)
    world.begin(plan)
    while not pace.stopped() and world.kernel.now < world.bound:
        world.advance(min(world.stride, world.bound - world.kernel.now))
        if world.over():
            break
    world.finish()
    return world.result(interrupted=pace.halted)


def _world(plan: Plan, observers: Sequence[Observer] | None, sink: Callable[[str], None] | None) -> World:
    looking = observers_for(plan.profile.invariants) if observers is None else observers
    return World(warm_up_of(plan) or plan, observers=looking, sink=sink)


def _warm_up(world: World, pace: "_Pace") -> None:
    joined_at = len(world.devices) / world.limits.first_power_per_second
    while world.kernel.now < world.plan.warm_up:
        world.advance(min(world.check_seconds, world.plan.warm_up - world.kernel.now))
        if pace.stopped() or (world.kernel.now > joined_at and world.at_rest() and not world.found.let_go()):
            return


class _Pace:
    """Tells progress and asks whether to stop."""

    def __init__(self, world: World, plan: Plan, progress: ProgressCall | None, stop: StopCall | None) -> None:
        self._world = world
        self._seed = plan.seed
        self._after = seconds(plan.scenario.lasts) + seconds(plan.scenario.settle)
        self._warm_up = plan.warm_up
        self._progress = progress
        self._stop = stop
        self._next = 0.0
        self.halted = False

    def stopped(self) -> bool:
        """Tell how far the run is; return whether it is to end."""
        world = self._world
        now, began = world.kernel.now, world.t0
        if self._progress is not None and now >= self._next:
            bound = self._after + (self._warm_up if began is None else began)
            self._next = now + bound / _TOLD
            exchanges = 0 if began is None else world.control.exchanges - world.exchanges_before
            self._progress(Progress(seed=self._seed, simulated_seconds=now, of_seconds=bound, exchanges=exchanges))
        if self._stop is not None and self._stop():
            self.halted = True
        return self.halted
