"""The engine's thread: one queue of events, one turn (`engine.turns`) at a time."""

import queue
from collections.abc import Callable
from typing import Generic, TypeVar

from edgewise.agent.limits import LIMITS, AgentLimits
from edgewise.agent.log import Log
from edgewise.engine.protocol import Effect, Event
from edgewise.engine.records import Record
from edgewise.engine.turns import TICK_SECONDS_MIN, Engine, Turns
from edgewise.ports.clock import Clock
from edgewise.ports.files import FilesError

S = TypeVar("S")


class Loop(Generic[S]):
    """Runs one engine. `post` may be called from any thread, everything else from the loop's own.

    `persist` appends records to the journal and syncs it, or raises `FilesError`; `carry` starts an effect and does not wait for it;
    `adopted` hears of each new state before its effects begin, `taken` of each event whose step is done, `on_crash` of an exception out
    of the engine itself."""

    def __init__(
        self,
        engine: Engine[S],
        state: S,
        *,
        clock: Clock,
        persist: Callable[[tuple[Record, ...]], None],
        carry: Callable[[Effect], None],
        log: Log,
        adopted: Callable[[S], None] = lambda _state: None,
        taken: Callable[[Event, S], None] = lambda _event, _state: None,
        on_crash: Callable[[Event, Exception], None] = lambda _event, _error: None,
        limits: AgentLimits = LIMITS,
    ) -> None:
        self.persist, self.carry, self.adopted, self.taken = persist, carry, adopted, taken
        self._clock = clock
        self._log = log
        self._on_crash = on_crash
        self._turns: Turns[S] = Turns(engine, state, self, clock, limits)
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._stopped = False
        self.busy_since: float | None = None
        """Monotonic; None while the loop waits."""

    @property
    def state(self) -> S:
        """The engine's present state."""
        return self._turns.state

    def post(self, event: Event) -> None:
        """Hand an event to the engine."""
        self._queue.put(event)

    def stop(self) -> None:
        """End after the current step. What waits is forgotten: a new start finds out what is so."""
        self._stopped = True
        self._queue.put(None)

    def step(self) -> float:
        """Wait for the next event, or for the time that the engine asked for, and handle it."""
        try:
            event = self._queue.get(timeout=self._patience())
        except queue.Empty:
            event = None
        if self._stopped:
            return 0.0
        self.busy_since = self._clock.monotonic()
        try:
            self._turns.turn(event)
        finally:
            self.busy_since = None
        return 0.0

    def _patience(self) -> float | None:
        wake = self._turns.wake()
        return None if wake is None else max(TICK_SECONDS_MIN, wake - self._clock.monotonic())

    # ---- what a turn tells (`engine.turns.Shell`) ----

    def crashed(self, event: Event, error: Exception) -> None:
        """Say it and pass it on."""
        self._log.error(f"the engine failed on {type(event).__name__}: {type(error).__name__}", error)
        self._on_crash(event, error)

    def trouble(self, message: str, error: FilesError | None) -> None:
        """Say it."""
        self._log.error(message, error)

    def relieved(self, message: str) -> None:
        """Say it."""
        self._log.info(message)
