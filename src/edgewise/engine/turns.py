"""One step of the engine after another, with the disk in between.

A step decides, puts the records into the journal, and only then adopts the new state and carries out the effects. When the journal does not
take the records, nothing of the step happens; the engine hears `StorageFailed`, and the event is offered again, at growing intervals, until
the disk takes it. Events that need no record go on meanwhile, so that what runs is still looked after.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final, Generic, Literal, Protocol, TypeVar

from edgewise.engine.limits import LinkLimits
from edgewise.engine.protocol import Desired, Effect, Event, Heartbeat, Now, Persist, StorageFailed, StorageRecovered, Tick
from edgewise.engine.records import Record
from edgewise.ports.clock import Clock
from edgewise.ports.files import FilesError, Full, ReadOnly

S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)
TICK_SECONDS_MIN: Final = 0.02


class Engine(Protocol[S]):
    """The pure decisions (`edgewise.engine.machine`)."""

    def handle(self, state: S, event: Event, now: Now, /) -> tuple[S, Sequence[Effect]]:
        """Decide."""
        ...

    def next_wake(self, state: S, /) -> float | None:
        """Return when the engine wants a `Tick`, monotonic, or None."""
        ...


class Shell(Protocol[S_contra]):
    """The world around the engine, as one step needs it."""

    def persist(self, records: tuple[Record, ...], /) -> None:
        """Append records to the journal and sync it. Raises `FilesError`."""
        ...

    def adopted(self, state: S_contra, /) -> None:
        """Hear of a new state before its effects begin."""
        ...

    def carry(self, effect: Effect, /) -> None:
        """Start an effect; do not wait for it."""
        ...

    def taken(self, event: Event, state: S_contra, /) -> None:
        """Hear of an event whose step is done."""
        ...

    def crashed(self, event: Event, error: Exception, /) -> None:
        """Hear of an exception out of the engine itself: the event is forgotten."""
        ...

    def trouble(self, message: str, error: FilesError | None, /) -> None:
        """Hear of trouble with the disk."""
        ...

    def relieved(self, message: str, /) -> None:
        """Hear of its end."""
        ...


class Turns(Generic[S]):
    """Runs one engine, one `turn` at a time."""

    __slots__ = ("_asked", "_clock", "_deferred", "_engine", "_failures", "_limits", "_recovered", "_retry_at", "_shell", "_wake", "state")

    def __init__(self, engine: Engine[S], state: S, shell: Shell[S], clock: Clock, limits: LinkLimits) -> None:
        self._engine = engine
        self.state = state
        self._shell = shell
        self._clock = clock
        self._limits = limits
        self._deferred: deque[Event] | None = None
        self._failures = 0
        self._recovered = False
        self._retry_at = 0.0
        self._asked: S | None = None
        self._wake: float | None = None

    @property
    def deferred(self) -> tuple[Event, ...]:
        """The events that wait for the disk."""
        return tuple(self._deferred or ())

    def wake(self) -> float | None:
        """Return when the next `turn` without an event is due (monotonic), or None."""
        wake = self._wake if self._asked is self.state else self._due()
        if self._deferred or self._failures:
            wake = self._retry_at if wake is None else max(wake, self._retry_at)
        return wake

    def look_again(self) -> None:
        """Ask the engine anew when it wants to be woken, though its state is the same."""
        self._asked = None

    def _due(self) -> float | None:
        if self._asked is not self.state:
            self._asked, self._wake = self.state, self._engine.next_wake(self.state)
        return self._wake

    def turn(self, event: Event | None) -> None:
        """Give the engine `event`, and whatever is due."""
        if event is not None:
            self._offer_or_defer(event)
        now = self._clock.monotonic()
        self._settle(due=now >= self._retry_at)
        wake = self._due()
        if wake is not None and wake <= now and (self._failures == 0 or now >= self._retry_at or event is not None):
            self._offer(Tick())
            self._settle(due=False)

    def _offer_or_defer(self, event: Event) -> None:
        if self._offer(event) or isinstance(event, Heartbeat):
            return
        waiting = self._deferred or deque()
        if isinstance(event, Desired):  # only the newest document of a device counts
            name = event.document.device
            waiting = deque(each for each in waiting if not (isinstance(each, Desired) and each.document.device == name))
        if len(waiting) >= self._limits.deferred_events_max:
            self._shell.trouble("too many events wait for the disk; the oldest is forgotten", None)
            waiting.popleft()
        waiting.append(event)
        self._deferred = waiting

    def _offer_deferred(self) -> None:
        while self._deferred:
            if not self._offer(self._deferred[0]):
                return
            self._deferred.popleft()
        self._deferred = None

    def _settle(self, *, due: bool) -> None:
        """Offer what waits for the disk, if it is time or the disk has just taken something; then say that it recovered. Not before: what
        waits may say that something is not to run any more."""
        if self._deferred and (due or self._recovered):
            self._offer_deferred()
        if self._recovered:
            self._recovered = False
            self._offer(StorageRecovered())

    def _offer(self, event: Event) -> bool:
        """Do one step. Returns False when the disk did not take it and the event must be offered again."""
        now = Now(wall=self._clock.wall(), monotonic=self._clock.monotonic())
        try:
            state, effects = self._engine.handle(self.state, event, now)
        except Exception as error:  # noqa: BLE001  # a defect in a decision must not end the device's work
            self._shell.crashed(event, error)
            return True
        records = tuple(record for effect in effects if isinstance(effect, Persist) for record in effect.records)
        if records:
            try:
                self._shell.persist(records)
            except FilesError as error:
                self._storage_failed(error)
                return False
        self.state = state
        self._shell.adopted(state)
        for effect in effects:
            if not isinstance(effect, Persist):
                self._shell.carry(effect)
        if records and self._failures:
            self._failures = 0
            self._shell.relieved("the journal takes records again")
            self._recovered = True
        self._shell.taken(event, self.state)
        return True

    def _storage_failed(self, error: FilesError) -> None:
        seconds = min(self._limits.storage_retry_seconds_max, self._limits.storage_retry_seconds * 2.0 ** min(self._failures, 10))
        self._retry_at = self._clock.monotonic() + seconds
        self._failures, self._recovered = self._failures + 1, False
        self._shell.trouble("the journal does not take records", error)
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
