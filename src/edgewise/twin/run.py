"""`run(plan)`: one run from beginning to end."""

from collections.abc import Callable, Sequence

from edgewise.twin.invariants import observers_for
from edgewise.twin.observers import Observer
from edgewise.twin.plan import Plan
from edgewise.twin.result import Progress, ProgressCall, RunResult, StopCall
from edgewise.twin.world import World

__all__ = ["run"]

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
    looking = observers_for(plan.profile.invariants) if observers is None else observers
    world = World(plan, observers=looking, sink=sink)
    try:
        return _run(world, progress, stop)
    finally:
        world.close()


def _run(world: World, progress: ProgressCall | None, stop: StopCall | None) -> RunResult:
    pace = _Pace(world, progress, stop)
    joined_at = len(world.devices) / world.limits.first_power_per_second
    while world.kernel.now < world.plan.warm_up:
        world.advance(min(world.check_seconds, world.plan.warm_up - world.kernel.now))
        if pace.stopped():
            break
        if world.kernel.now > joined_at and world.at_rest():
            break
    world.begin()
    while not pace.halted and world.kernel.now < world.bound:
        world.advance(min(world.check_seconds, world.bound - world.kernel.now))
        if pace.stopped():
            break
        if world.over():
            break
    world.finish()
    return world.result(interrupted=pace.halted)


class _Pace:
    """Tells progress and asks whether to stop."""

    def __init__(self, world: World, progress: ProgressCall | None, stop: StopCall | None) -> None:
        self._world = world
        self._progress = progress
        self._stop = stop
        self._next = 0.0
        self.halted = False

    def stopped(self) -> bool:
        """Tell how far the run is; return whether it is to end."""
        world = self._world
        now, bound = world.kernel.now, world.bound
        if self._progress is not None and now >= self._next:
            self._next = now + bound / _TOLD
            self._progress(Progress(seed=world.plan.seed, simulated_seconds=now, of_seconds=bound, exchanges=world.control.exchanges))
        if self._stop is not None and self._stop():
            self.halted = True
        return self.halted
