"""What a resident program does around the engine, wherever it runs: write records down, keep the journal small, say where it stands."""

from collections.abc import Callable
from typing import Final

from edgewise.engine import recovery
from edgewise.engine.adoption import telling_of
from edgewise.engine.journal import Journal
from edgewise.engine.limits import LinkLimits
from edgewise.engine.model import State
from edgewise.engine.protocol import Event, Exited, RunningSlot
from edgewise.engine.records import Record
from edgewise.ports.files import FilesError, Full
from edgewise.wire.desired import Position
from edgewise.wire.report import DeviceReport


def persist(journal: Journal, records: tuple[Record, ...], make_room: Callable[[], bool], state: State | None = None) -> None:
    """Put records into the journal, which comes before anything in the outbox: `make_room` drops from that. Where the disk has lost what
    was written before, it is written anew from `state`, which the records follow. Raises `FilesError`."""
    try:
        _append(journal, records, make_room)
    except FilesError:
        if state is None or not journal.lost:
            raise
        journal.compact((*recovery.snapshot(state), *records))


def _append(journal: Journal, records: tuple[Record, ...], make_room: Callable[[], bool]) -> None:
    try:
        journal.append(records)
    except Full:
        if not make_room():
            raise
        journal.append(records)


def compacted(journal: Journal, state: State) -> FilesError | None:
    """Compact the journal if that is worth it. Returns what went wrong: nothing is lost then, and it is tried again."""
    if journal.wants_compaction:
        try:
            journal.compact(recovery.snapshot(state))
        except FilesError as error:
            return error
    return None


def position(state: State) -> Position:
    """Return from where on to poll."""
    document = state.durable.document
    return document.position if document is not None else Position(0, 0)


class Inventory:
    """What the control plane was told of the device itself: once at the start, when it changed, and again when everything is to be told
    again (see `adoption.telling_of`)."""

    __slots__ = ("_of", "_told")

    def __init__(self) -> None:
        self._told: DeviceReport | None = None
        self._of: tuple[int, int] | None = None

    def outdated(self, state: State) -> bool:
        """Whether what was told has to be told again."""
        of = _telling_of(state)
        if self._of is None:
            self._of = of  # the first document after joining is of the store that was told already
        return self._told is not None and of is not None and of != self._of

    def news(self, report: DeviceReport, state: State) -> bool:
        """Whether `report` is to be told now; then it counts as told."""
        fresh = report != self._told or self.outdated(state)
        self._told, self._of = report, _telling_of(state)
        return fresh


def _telling_of(state: State) -> tuple[int, int] | None:
    document = state.durable.document
    return telling_of(document) if document is not None else None


FORGET_POLL_SECONDS: Final = 0.5
"""How often to ask `may_forget`."""


def may_forget(since: float, now: float, limits: LinkLimits, *, told: bool) -> bool:
    """Whether a device that was decommissioned at `since` may forget everything by now: its last word was taken (`told`), or nobody takes
    it (monotonic seconds)."""
    return told or now - since > limits.forget_seconds


def exit_known(event: Event) -> str:
    """Return the launch whose exit the supervisor may forget once `event` is taken; empty: none."""
    return event.launch_id if isinstance(event, Exited) else ""


def exits_found(running: tuple[RunningSlot, ...]) -> tuple[str, ...]:
    """Return the launches whose exits the supervisor told as what it runs."""
    return tuple(each.launch_id for each in running if each.exit_code is not None)
