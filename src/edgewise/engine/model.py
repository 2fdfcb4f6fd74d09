"""The engine's state: immutable, in two parts.

`State.durable` is the fold of all journal records and changes in no other way. Everything else is what the engine remembers since the
agent started; a crash may lose it, and `recovery.observe` builds it anew from what really runs.
"""

from typing import Final

import msgspec

from edgewise.engine.limits import EngineLimits
from edgewise.engine.protocol import Effect, Now, Persist, ProbeKind, Slot
from edgewise.engine.records import Durable, Kept, Record, Refusal, Release, fold
from edgewise.engine.tables import SlotPhase
from edgewise.resources.instance import InstanceStatus
from edgewise.resources.states import UpdateState
from edgewise.resources.traffic import Traffic
from edgewise.wire.desired import InstanceDesired
from edgewise.wire.report import DeviceReport, EventReport

SLOTS: Final[tuple[Slot, ...]] = ("a", "b")

replace = msgspec.structs.replace


class ProbeView(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One probe of a slot. `due` is monotonic; `job` is the `RunProbe` in flight or 0; `failures` counts those in a row."""

    due: float
    job: int = 0
    tries: int = 0
    failures: int = 0
    ok: bool = False


class Told(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a model server was told of its traffic. `to` is the candidate's launch; empty: none, it passes nothing on."""

    traffic: Traffic
    to: str = ""


class SlotView(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the engine knows of a slot. `release` is None for a process that the journal does not know.

    `job` is the `Start` or `Stop` in flight, `activation` the `Activate`; 0 is none. `due` is the start deadline while Probing, the restart
    while Waiting, the next try while Stopping. `failures` counts those in a row that were the workload's own, `hindrances` those that were
    not; `told` is what its process was told of its traffic (None: not known), `routing` the `Route` in flight that tells it `asked`, due
    again at `route_due` after `route_failures` in a row; `fatal`: the last one must fail a trial at once. `early` is an exit that was
    heard of before the start was confirmed. Monotonic
    times, except `started_at` and `ready_at`."""

    phase: SlotPhase = SlotPhase.EMPTY
    release: Release | None = None
    revision: str = ""
    job: int = 0
    activation: int = 0
    activation_due: float = 0.0
    activation_failures: int = 0
    routing: int = 0
    asked: Told | None = None
    told: Told | None = None
    route_due: float = 0.0
    route_failures: int = 0
    launch_id: str = ""
    address: str = ""
    active: bool = False
    ready: bool = False
    restart: bool = False
    since: float = 0.0
    due: float | None = None
    failures: int = 0
    hindrances: int = 0
    fatal: bool = False
    trouble: Refusal | None = None
    early: dict[str, int] = {}
    exit_code: int | None = None
    started_at: float = 0.0
    ready_at: float = 0.0
    heartbeat: float | None = None
    probes: dict[ProbeKind, ProbeView] = {}


class Update(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where an instance's update stands. `revision` is the one it speaks of. While fetching: `job` is the `Fetch` in flight or 0, `attempt`
    counts from 1, `fetched` or `problem` is its result. While on trial: `began` is when the clock of the deadline started, `settled` since
    when the candidate alone has served well, or, `beside`, has waited well beside the committed one. `retry_at` is set while a failure
    waits for the next try; without it a failure is final.
    `retry_within` is the most that there may be between two tries, in seconds, while it is being tried again.
    `recovering`: the trial is being taken up after a start of the agent."""

    state: UpdateState = UpdateState.IDLE
    revision: str = ""
    job: int = 0
    tree: str = ""
    attempt: int = 0
    retry_at: float | None = None
    retry_within: float = 0.0
    fetched: Release | None = None
    problem: Refusal | None = None
    problem_kind: str = ""
    began: float | None = None
    settled: float | None = None
    beside: bool = False
    recovering: bool = False
    refused: bool = False
    reason: str = ""
    message: str = ""


class Live(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The remembered part of one instance. `interim`: the superseded candidate serves until its successor is installed. `removed`: nothing
    of it is on the disk any more, only its last report and record are missing."""

    name: str
    uid: str
    update: Update = Update()
    slots: dict[Slot, SlotView] = msgspec.field(default_factory=lambda: {slot: SlotView() for slot in SLOTS})
    interim: bool = False
    restarts: int = 0
    exit_code: int | None = None
    removed: bool = False
    told_gone: bool = False
    reported: InstanceStatus | None = None
    reported_uid: str = ""


class Storage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The journal does not take records; it is tried again at `retry_at` (monotonic). `since` is wall time."""

    kind: str
    message: str
    since: float
    retry_at: float


class State(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Everything the engine knows. `fetching` is the `Fetch` in flight (one at a time on a device) and `removing` the `Remove`; 0 is none.
    `installed` are the whole trees. `owed` are records that were acted upon while the journal took none; `behind`: instances wait for
    the journal. `contact` is monotonic, None: not known since the agent started. `stepped_at` is the time of the last step."""

    device: str
    limits: EngineLimits
    durable: Durable = Durable()
    live: dict[str, Live] = {}
    next_id: int = 1
    observed_at: float | None = None
    stepped_at: float = 0.0
    boot_id: str = ""
    installed: frozenset[str] = frozenset()
    fetching: int = 0
    removing: int = 0
    removing_names: tuple[str, ...] = ()
    keeping: tuple[str, ...] = ()
    remove_due: float | None = None
    online: bool = False
    contact: float | None = None
    storage: Storage | None = None
    owed: tuple[Record, ...] = ()
    behind: bool = False
    damage: str = ""
    reported: DeviceReport | None = None
    told_stopped: dict[str, str] = {}
    left: bool = False


class Step:
    """What one step decides, collected in order. Lives for one call of `handle` only; `mark` and `back_to` undo an instance's part."""

    def __init__(self, state: State, now: Now, *, trying: bool = False) -> None:
        self.before = state
        self.device = state.device
        self.limits = state.limits
        self.now = now
        self.durable = state.durable
        self.next_id = state.next_id
        self.fetching = state.fetching
        self.removing = state.removing
        self.remove_due = state.remove_due
        self.installed = state.installed
        self.storage = state.storage
        self.trying = trying
        self.online = state.online
        self.contact = state.contact
        self.observed_at = state.observed_at
        self.records: list[Record] = []
        self.effects: list[Effect] = []
        self.events: list[EventReport] = []
        self._desired: dict[str, InstanceDesired] | None = None

    @property
    def blocked(self) -> bool:
        """The journal took no records the last time, and this is not the step to try again."""
        return self.storage is not None and not self.trying

    def effect_id(self) -> int:
        """Return an id that no other effect has."""
        self.next_id += 1
        return self.next_id - 1

    def record(self, record: Record) -> None:
        """Decide a durable fact."""
        self.records.append(record)
        self.durable = fold(self.durable, record)
        self._desired = None

    def leave_behind(self) -> None:
        """Note that there may be trees now that nobody needs."""
        if self.remove_due is None:
            self.remove_due = self.now.monotonic

    def tell(self, kind: str, reason: str, message: str, about: str = "") -> None:
        """Tell a person; a `kind` other than `Normal` is a warning."""
        self.events.append(
            EventReport(
                device=self.device,
                at=self.now.wall,
                monotonic=self.now.monotonic,
                type="Normal" if kind == "Normal" else "Warning",
                reason=reason,
                message=message[: self.limits.message_chars_max],
                about=about,
            )
        )

    def kept(self, live: Live) -> Kept:
        """Return the durable part of an instance."""
        return self.durable.instances.get(live.name) or Kept(uid=live.uid)

    def desired(self, live: Live) -> InstanceDesired | None:
        """Return what should run as `live`, or None when it should not run here (any more)."""
        document = self.durable.document
        if document is None or document.decommission or live.removed:
            return None
        if self._desired is None:
            self._desired = {want.name: want for want in document.instances}
        want = self._desired.get(live.name)
        return want if want is not None and want.uid == live.uid and want.desired == "Running" else None

    def mark(self) -> tuple[int, int, int, int, Durable, int, float | None]:
        """Return where the step stands, for `back_to`."""
        return len(self.records), len(self.effects), len(self.events), self.next_id, self.durable, self.fetching, self.remove_due

    def back_to(self, mark: tuple[int, int, int, int, Durable, int, float | None]) -> None:
        """Undo everything since `mark`."""
        records, effects, events, self.next_id, self.durable, self.fetching, self.remove_due = mark
        del self.records[records:], self.effects[effects:], self.events[events:]
        self._desired = None

    def result(self) -> list[Effect]:
        """Return the effects with the records first."""
        return [Persist(records=tuple(self.records)), *self.effects] if self.records else self.effects


def refused(kept: Kept, want: InstanceDesired, revision: str) -> bool:
    """Whether `revision` may not be started as an update."""
    return revision in kept.refused or revision in want.rejected


def slot_of(live: Live, revision: str) -> Slot | None:
    """Return the slot that holds `revision` to stay, if any does; of two, the one that takes the traffic."""
    found: Slot | None = None
    for name in SLOTS:
        slot = live.slots[name]
        if slot.revision == revision and _stays(slot) and (found is None or (slot.active and not live.slots[found].active)):
            found = name
    return found


def _stays(slot: SlotView) -> bool:
    return slot.phase is not SlotPhase.EMPTY and (slot.phase is not SlotPhase.STOPPING or slot.restart)


def empty(live: Live) -> bool:
    """Whether nothing is left in any slot."""
    return all(slot.phase is SlotPhase.EMPTY for slot in live.slots.values())


def with_slot(live: Live, name: Slot, slot: SlotView) -> Live:
    """Return `live` with one slot changed."""
    return live if live.slots[name] is slot else replace(live, slots={**live.slots, name: slot})
