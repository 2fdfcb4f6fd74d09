"""The thin loop around the controllers: changes into the view, decisions into the store, agents woken whose documents changed.

Everything that this process writes goes through `commit`, which takes what was written over into the view at once; the store's watch
brings it a second time, in order and without a gap, together with what others write. The loop outlives whatever one document does to it.
"""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final

from edgewise.control.limits import ControlLimits
from edgewise.controllers.desired import refresh
from edgewise.controllers.documents import about_of, event
from edgewise.controllers.known import known_keys
from edgewise.controllers.reconcile import Changed, Event, Tick, handle
from edgewise.controllers.view import VIEWED, FleetView
from edgewise.ports.clock import Clock
from edgewise.store.contract import (
    Change,
    CompactedError,
    ConflictError,
    Delete,
    Document,
    Key,
    Store,
    StoreClosedError,
    StoreError,
    Transaction,
    Written,
)

_LOG: Final = logging.getLogger("edgewise.control.runner")
_PAGE: Final = 1_000
_CHUNK: Final = 200
_ROUNDS_AT_ONCE: Final = 100


class Runner:
    """Keeps `view` current and carries out what the controllers decide. Belongs to one event loop."""

    def __init__(self, store: Store, view: FleetView, clock: Clock, limits: ControlLimits, wake: Callable[[str], object]) -> None:
        """`wake` is told the agents whose desired state has changed."""
        self.view = view
        self._store = store
        self._clock = clock
        self._limits = limits
        self._wake = wake
        self._fed = 0
        self._fed_event = asyncio.Event()
        self._stirred = asyncio.Event()
        self._deleted: OrderedDict[Key, Document] = OrderedDict()
        self._bad: set[Key] = set()
        self._heard: dict[str, float] = {}
        self._wake_at: float | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def load(self) -> None:
        """Fill the view from the store; called before `start`, and again when the watch cannot say what changed. What the view knows and
        the store does not list was deleted meanwhile."""
        revision = self._store.revision
        for kind in VIEWED:
            gone, after = set(known_keys(self.view, kind)), ""
            while True:
                page = await self._store.list(kind, limit=_PAGE, after=after)
                self.take(Change(revision=document.revision, key=document.key, document=document) for document in page.documents)
                gone.difference_update(document.key for document in page.documents)
                after = page.next
                await asyncio.sleep(0)
                if not after:
                    break
            self.take(Change(revision=revision, key=key, document=None) for key in sorted(gone))
        for mark in await self._store.all_marks():
            self.view.apply_mark(mark)
        self.view.loaded(revision)
        self._fed = revision

    def start(self) -> None:
        """Begin to follow the store and to reconcile."""
        self._tasks = [
            asyncio.create_task(self._forever(self._feed), name="feed"),
            asyncio.create_task(self._forever(self._reconcile), name="reconcile"),
            asyncio.create_task(self._forever(self._touch), name="touch"),
        ]

    async def stop(self) -> None:
        """End the loop; write down who was heard."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        with contextlib.suppress(StoreError):
            await self._flush_heard()

    async def ended(self) -> None:
        """Return when a task has ended by itself: the store was closed, or its disk failed."""
        await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    # ---- for the handlers ----

    async def commit(self, transaction: Transaction) -> Written:
        """Write, take over what was written, and return once it is durable. Raises `StoreError`."""
        written = await self.write(transaction)
        self.take(written.changes)
        return written

    async def write(self, transaction: Transaction) -> Written:
        """Write and return once it is durable; the caller takes over what was written. Raises `StoreError`."""
        for write in transaction.writes:
            if type(write) is Delete:
                await self._remember(write.key)
        return await self._store.write(transaction)

    def take(self, changes: Iterable[Change]) -> None:
        """Take changes over into the view. A document that cannot be read is passed over, and said once."""
        for change in changes:
            try:
                self.view.apply(change)
            except Exception as error:  # noqa: BLE001 - whatever a damaged document does, the fleet goes on
                self._passed_over(change.key, error)
        self._stirred.set()

    def stir(self) -> None:
        """Something other than a document changed: let the controllers look."""
        self._stirred.set()

    def heard(self, agent: str, now: float) -> None:
        """Note that an authenticated request of `agent` came."""
        self.view.contact(agent, now)
        self._note_heard(agent, now)

    def poll_opened(self, agent: str, now: float) -> None:
        """Note that a poll of `agent` waits."""
        self.view.poll_opened(agent, now)
        self._note_heard(agent, now)

    def poll_closed(self, agent: str, now: float) -> None:
        """Note that a poll of `agent` ended."""
        self.view.poll_closed(agent, now)
        self._heard[agent] = now
        due = self.view.timers.next()
        if due is not None and (self._wake_at is None or due < self._wake_at):
            self._stirred.set()

    def refresh(self) -> None:
        """Give numbers to the documents that changed, and wake their agents."""
        for agent in refresh(self.view):
            self._wake(agent)

    async def caught_up(self, revision: int, seconds: float = 5.0) -> None:
        """Return once the watch has brought everything up to `revision`, or after `seconds`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._fed < revision:
                    self._fed_event.clear()
                    await self._fed_event.wait()

    async def conflicted(self, error: ConflictError) -> None:
        """Let the view catch up with what a compare-and-set found."""
        if error.current is not None:
            self.take((Change(revision=error.current.revision, key=error.key, document=error.current),))
        await self.caught_up(self._store.revision)

    def last_of(self, key: Key) -> Document | None:
        """Return what a document was that was deleted lately, or None."""
        return self._deleted.get(key)

    # ---- the tasks ----

    async def _forever(self, body: Callable[[], "asyncio.Future[None] | object"]) -> None:
        while True:
            try:
                await body()  # type: ignore[misc]  # a coroutine function of ours
            except StoreClosedError:
                return
            except Exception:  # noqa: BLE001 - said in the log, and tried again
                _LOG.exception("a task of the control plane failed and begins again")
                await asyncio.sleep(1.0)

    async def _feed(self) -> None:
        try:
            async for changes in self._store.watch(self._fed):
                for start in range(0, len(changes), _CHUNK):
                    self.take(changes[start : start + _CHUNK])
                    if len(changes) > _CHUNK:
                        await asyncio.sleep(0)
                self._fed = changes[-1].revision
                self._fed_event.set()
        except CompactedError:
            _LOG.warning("the view fell behind the store and is filled again")
            await self.load()

    async def _reconcile(self) -> None:
        cause: Event = Changed()
        while True:
            self._stirred.clear()
            wake_at = self._wake_at = await self._settle(cause)
            cause = await self._next(wake_at)

    async def _settle(self, cause: Event) -> float | None:
        """Decide and write until nothing is left to do; return when to look again."""
        rounds = 0
        while True:
            self.refresh()
            decision = handle(cause, self.view, self._clock.wall())
            if not decision.transactions:
                self.refresh()
                return decision.wake_at
            for transaction in decision.transactions:
                try:
                    await self.commit(transaction)
                except ConflictError as error:
                    await self.conflicted(error)
                    break
            rounds += 1
            await asyncio.sleep(0 if rounds < _ROUNDS_AT_ONCE else self._limits.reconcile_pause_seconds)
            cause = Changed()

    async def _next(self, wake_at: float | None) -> Event:
        await asyncio.sleep(self._limits.reconcile_pause_seconds)
        if self._stirred.is_set() or self.view.presence.returned:
            return Changed()
        delay = None if wake_at is None else max(0.0, wake_at - self._clock.wall())
        try:
            async with asyncio.timeout(delay):
                await self._stirred.wait()
        except TimeoutError:
            return Tick()
        return Changed()

    async def _touch(self) -> None:
        while True:
            await asyncio.sleep(self._limits.liveness_flush_seconds)
            await self._flush_heard()

    async def _flush_heard(self) -> None:
        if self._heard:
            heard, self._heard = self._heard, {}
            await self._store.touch(heard)

    # ---- parts ----

    def _note_heard(self, agent: str, now: float) -> None:
        self._heard[agent] = now
        if agent in self.view.presence.returned:
            self._stirred.set()

    async def _remember(self, key: Key) -> None:
        document = await self._store.get(key)
        if document is not None:
            self._deleted[key] = document
            if len(self._deleted) > self._limits.deleted_kept:
                self._deleted.popitem(last=False)

    def _passed_over(self, key: Key, error: Exception) -> None:
        if key in self._bad or len(self._bad) > self._limits.deleted_kept:
            return
        self._bad.add(key)
        _LOG.error("%s cannot be read and is passed over: %s: %s", about_of(key), type(error).__name__, error)
        now = self._clock.wall()
        told = event(now, "Unreadable", f"{about_of(key)} cannot be read and is passed over", key, warning=True)
        asyncio.get_running_loop().create_task(self._tell(Transaction(now=now, events=(told,))))

    async def _tell(self, transaction: Transaction) -> None:
        with contextlib.suppress(StoreError):
            await self._store.write(transaction)
