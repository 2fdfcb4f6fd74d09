"""The engine's thread: one queue of events, one step at a time.

A step decides, puts the records into the journal, and only then adopts the new state and carries out the effects. When the journal does not
take the records, nothing of the step happens; the engine hears `StorageFailed`, and the event is offered again, at growing intervals, until
the disk takes it. Events that need no record go on meanwhile, so that what runs is still looked after.
"""

import queue
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Literal, Protocol, TypeVar

from edgewise.agent.limits import LIMITS, AgentLimits
from edgewise.agent.log import Log
from edgewise.engine.protocol import Desired, Effect, Event, Heartbeat, Now, Persist, StorageFailed, StorageRecovered, Tick
from edgewise.engine.records import Record
from edgewise.ports.clock import Clock
from edgewise.ports.files import FilesError, Full, ReadOnly

S = TypeVar("S")
_TICK_SECONDS_MIN = 0.02


class Engine(Protocol[S]):
    """The pure decisions (`edgewise.engine.machine`)."""

    def handle(self, state: S, event: Event, now: Now, /) -> tuple[S, Sequence[Effect]]:
        """Decide."""
        ...

    def next_wake(self, state: S, /) -> float | None:
        """Return when the engine wants a `Tick`, monotonic, or None."""
        ...


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
        self._engine = engine
        self.state = state
        self._clock = clock
        self._persist = persist
        self._carry = carry
        self._log = log
        self._adopted = adopted
        self._taken = taken
        self._on_crash = on_crash
        self._limits = limits
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._deferred: deque[Event] = deque()
        self._failures = 0
        self._retry_at = 0.0
        self._stopped = False
        self.busy_since: float | None = None
        """Monotonic; None while the loop waits."""

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
            self._turn(event)
        finally:
            self.busy_since = None
        return 0.0

    def _turn(self, event: Event | None) -> None:
        if event is not None:
            self._offer_or_defer(event)
        now = self._clock.monotonic()
        if self._deferred and now >= self._retry_at:
            self._offer_deferred()
        wake = self._engine.next_wake(self.state)
        if wake is not None and wake <= now and (self._failures == 0 or now >= self._retry_at or event is not None):
            self._offer(Tick())

    def _patience(self) -> float | None:
        wake = self._engine.next_wake(self.state)
        if self._deferred or self._failures:
            wake = self._retry_at if wake is None else max(wake, self._retry_at)
        if wake is None:
            return None
        return max(_TICK_SECONDS_MIN, wake - self._clock.monotonic())

    def _offer_or_defer(self, event: Event) -> None:
        if self._offer(event) or isinstance(event, Heartbeat):
            return
        if isinstance(event, Desired):  # only the newest document of a device counts
            name = event.document.device
            self._deferred = deque(each for each in self._deferred if not (isinstance(each, Desired) and each.document.device == name))
        if len(self._deferred) >= self._limits.deferred_events_max:
            self._log.error("too many events wait for the disk; the oldest is forgotten")
            self._deferred.popleft()
        self._deferred.append(event)

    def _offer_deferred(self) -> None:
        while self._deferred:
            if not self._offer(self._deferred[0]):
                return
            self._deferred.popleft()

    def _offer(self, event: Event) -> bool:
        """Do one step. Returns False when the disk did not take it and the event must be offered again."""
        now = Now(wall=self._clock.wall(), monotonic=self._clock.monotonic())
        try:
            state, effects = self._engine.handle(self.state, event, now)
        except Exception as error:  # noqa: BLE001  # a defect in a decision must not end the device's work
            self._log.error(f"the engine failed on {type(event).__name__}: {type(error).__name__}", error)
            self._on_crash(event, error)
            return True
        records = tuple(record for effect in effects if isinstance(effect, Persist) for record in effect.records)
        if records:
            try:
                self._persist(records)
            except FilesError as error:
                self._storage_failed(error)
                return False
        self.state = state
        self._adopted(state)
        for effect in effects:
            if not isinstance(effect, Persist):
                self._carry(effect)
        if records and self._failures:
            self._failures = 0
            self._log.info("the journal takes records again")
            self._offer(StorageRecovered())
        self._taken(event, self.state)
        return True

    def _storage_failed(self, error: FilesError) -> None:
        seconds = min(self._limits.storage_retry_seconds_max, self._limits.storage_retry_seconds * 2.0 ** min(self._failures, 10))
        self._retry_at = self._clock.monotonic() + seconds
        self._failures += 1
        self._log.error("the journal does not take records", error)
        if self._failures == 1:
            self._offer(StorageFailed(kind=storage_kind(error), message=str(error)))


def storage_kind(error: FilesError) -> Literal["full", "read-only", "damaged"]:
    """Return the engine's word for what a disk said."""
    match error:
        case Full():
            return "full"
        case ReadOnly():
            return "read-only"
        case _:
            return "damaged"
