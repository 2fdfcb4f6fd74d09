"""What devices send: reports, exactly once in effect.

The shell lets one report of an agent in at a time, asks `decide_report`, writes the transaction, and calls `settle` with what was written.
On `ConflictError` it lets the view catch up and asks again. Joins and renewals are in `enrolment.py`, desired states in `desired.py`.
"""

from typing import Final, assert_never

import msgspec

from edgewise.controllers._reports import DeviceClock, device_status, event_row, frame_row
from edgewise.controllers.answers import Refusal, refuse, refused_agent
from edgewise.controllers.desired import decide_desired, refresh
from edgewise.controllers.documents import event, put_labelled, put_status
from edgewise.controllers.enrolment import (
    JoinDecision,
    RenewDecision,
    complete_join,
    complete_renew,
    decide_join,
    decide_renew,
    settle_join,
)
from edgewise.controllers.limits import ReportLimits
from edgewise.controllers.rows import AgentRow
from edgewise.controllers.sessions import next_session
from edgewise.controllers.view import FleetView
from edgewise.resources.device import DeviceStatus
from edgewise.resources.states import AgentLifecycle, Connection
from edgewise.store.codec import encode
from edgewise.store.contract import Delete, EventRow, FrameRow, Mark, PutStatus, Transaction, Write, Written
from edgewise.wire.desired import Position
from edgewise.wire.report import DeviceReport, EventReport, FrameReport, InstanceReport, Item, Lane, Report, ReportAnswer

__all__ = [
    "JoinDecision",
    "Refusal",
    "RenewDecision",
    "ReportDecision",
    "complete_join",
    "complete_renew",
    "decide_desired",
    "decide_join",
    "decide_renew",
    "decide_report",
    "decide_session",
    "refresh",
    "settle",
    "settle_join",
]

_LANES: Final[tuple[Lane, ...]] = ("alerts", "status", "events", "telemetry")
_NUMBER_MAX: Final = 2**62
_NAME_MAX: Final = 512


class ReportDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What to write, and what to answer once it is written. `frames` are counted by `settle`; `returned` are the devices that are Online
    by this report. `disowned`: nothing of it is taken, the device is to number it anew."""

    transaction: Transaction
    answer: ReportAnswer
    frames: tuple[FrameReport, ...] = ()
    returned: tuple[str, ...] = ()
    disowned: bool = False


class _Taken:
    """What a report of one agent amounts to, item by item."""

    __slots__ = ("agent", "clock", "decommissioned", "devices", "events", "frames", "instances", "limits", "now", "rows", "view")

    def __init__(self, agent: AgentRow, view: FleetView, clock: DeviceClock, limits: ReportLimits) -> None:
        self.agent = agent
        self.clock = clock
        self.view = view
        self.now = clock.now
        self.limits = limits
        self.instances: dict[tuple[str, str], InstanceReport] = {}
        self.devices: dict[str, DeviceStatus] = {}
        self.decommissioned: list[str] = []
        self.events: list[EventRow] = []
        self.rows: list[FrameRow] = []
        self.frames: list[FrameReport] = []

    def take(self, items: tuple[Item, ...]) -> str | None:
        """Sort items; return the name of a device that is not the agent's, or None."""
        devices = self.agent.spec.devices
        for item in items:
            device = item.device
            if device not in devices:
                return device
            match item:
                case InstanceReport():
                    self.instances[device, item.name] = item
                case DeviceReport():
                    self._device(item)
                case EventReport():
                    self.events.append(event_row(item, self.clock, self.limits))
                case FrameReport():
                    frame = frame_row(item, self.clock, self.limits)
                    if frame is not None:
                        self.rows.append(frame)
                        self.frames.append(item)
                case _:
                    assert_never(item)
        return None

    def _device(self, item: DeviceReport) -> None:
        row = self.view.devices.get(item.device)
        if row is None:
            return
        told = Position(self.view.epoch, self.view.numbers.get(item.device, self.view.revision))
        known = self.devices.get(item.device, row.status)
        self.devices[item.device] = device_status(known, item, told, self.now, self.limits)
        if item.decommissioned and row.spec.decommission:
            self.decommissioned.append(item.device)


def decide_report(report: Report, agent: str, view: FleetView, now: float, limits: ReportLimits | None = None) -> ReportDecision | Refusal:
    """Return what a report of `agent` changes. Items at or below a lane's mark had their effect already; what remains takes effect in
    one transaction with the new marks."""
    limits = limits if limits is not None else view.limits.report
    row = view.agents.get(agent)
    refusal = refused_agent(row) or _malformed(report, limits)
    if refusal is not None or row is None:
        return refusal if refusal is not None else refuse(403, "UnknownAgent", "no agent of this name is enrolled here")
    quarantine = _seen_under(report.session, row, view, now)
    if quarantine is not None:
        return quarantine
    if report.incarnation == row.status.disowned:
        return _to_be_numbered_anew(report, now)
    known = view.marks.get(agent)
    kept = known.numbers if known is not None and known.incarnation == report.incarnation else {}
    taken = _Taken(row, view, DeviceClock(report, now), limits)
    marks: list[Mark] = []
    answer: dict[Lane, int] = {}
    for lane in _LANES:
        items = report.lanes.get(lane)
        if items is None:
            continue
        mark = kept.get(lane, 0)
        fresh = max(0, mark + 1 - items.first)
        last = max(mark, items.first + len(items.items) - 1)
        foreign = taken.take(items.items[fresh:] if fresh else items.items)
        if foreign is not None:
            return refuse(403, "NotYourDevice", f"agent {agent} does not speak for device {foreign[:128]}")
        answer[lane] = last if items.items else mark
        if last > mark and items.items:
            marks.append(Mark(agent=agent, incarnation=report.incarnation, lane=lane, number=last, dropped=items.dropped))
    transaction = Transaction(
        now=now, writes=_writes(taken, row, view, now), events=tuple(taken.events), frames=tuple(taken.rows), marks=tuple(marks)
    )
    return ReportDecision(
        transaction=transaction,
        answer=ReportAnswer(marks=answer, time=now),
        frames=tuple(taken.frames),
        returned=tuple(name for name in taken.devices if view.devices[name].status.connection is not Connection.ONLINE),
    )


def _to_be_numbered_anew(report: Report, now: float) -> ReportDecision:
    """Take nothing of a report whose numbers another device gave to other things as well, and acknowledge more than can ever have been
    numbered: its outbox goes on under a new incarnation then, and sends all that it holds again."""
    answer = ReportAnswer(marks=dict.fromkeys(report.lanes, _NUMBER_MAX), time=now)
    return ReportDecision(transaction=Transaction(now=now), answer=answer, disowned=True)


def settle(view: FleetView, decision: ReportDecision, written: Written) -> None:
    """Take over a report that was written: its documents, marks, and what its frames measured of revisions on trial."""
    for change in written.changes:
        view.apply(change)
    for mark in decision.transaction.marks:
        view.apply_mark(mark)
    view.presence.welcomed.update(decision.returned)
    if view.metrics:
        for frame in decision.frames:
            _measure(view, frame)


def _malformed(report: Report, limits: ReportLimits) -> Refusal | None:
    if not _is_session(report.incarnation) or not _is_session(report.session):
        return refuse(400, "Malformed", "incarnation and session must be printable and not empty")
    count = series = 0
    for items in report.lanes.values():
        count += len(items.items)
        for item in items.items:
            if type(item) is FrameReport:
                series += len(item.series)
        if items.first + len(items.items) > _NUMBER_MAX or not 0 <= items.dropped <= _NUMBER_MAX:
            return refuse(400, "Malformed", "an item's number is out of range")
    if count > limits.items_max:
        return refuse(413, "TooManyItems", f"{count} items, at most {limits.items_max} are allowed in one report")
    if series > limits.series_max:
        return refuse(413, "TooManySeries", f"{series} series, at most {limits.series_max} are allowed in one report")
    return None


def decide_session(session: str, agent: str, view: FleetView, now: float) -> Refusal | None:
    """Return why an agent that polls under `session` is refused, or None. Clones that have nothing to report are told apart by this."""
    row = view.agents.get(agent)
    refusal = refused_agent(row)
    if refusal is not None or row is None:
        return refusal
    if not _is_session(session):
        return refuse(400, "Malformed", "the session must be printable and not empty")
    return _seen_under(session, row, view, now)


def _is_session(text: str) -> bool:
    return 0 < len(text) <= _NAME_MAX and text.isprintable()


def _seen_under(session: str, row: AgentRow, view: FleetView, now: float) -> Refusal | None:
    agent = row.key.name
    seen = view.sessions[agent] = next_session(view.sessions.get(agent), session)
    return _quarantine(row, view, now) if seen.flips >= view.limits.controllers.session_flips_max else None


def _quarantine(row: AgentRow, view: FleetView, now: float) -> Refusal:
    known = view.marks.get(row.key.name)
    spec = msgspec.structs.replace(row.spec, quarantined=True)
    status = msgspec.structs.replace(
        row.status,
        message="two devices showed this identity in turns",
        quarantines=row.status.quarantines + 1,
        disowned=known.incarnation if known is not None else "",
    )
    message = f"agent {row.key.name} shows two sessions in turns: two devices show one identity; both are quarantined"
    refusal = refuse(403, "Quarantined", message)
    transaction = Transaction(
        now=now,
        writes=(put_labelled(row, spec), put_status(row, status)),
        events=(event(now, "Quarantined", message, row.key, warning=True),),
    )
    return msgspec.structs.replace(refusal, transaction=transaction)


def _writes(taken: _Taken, agent: AgentRow, view: FleetView, now: float) -> tuple[Write, ...]:
    writes: list[Write] = []
    for (device, name), item in taken.instances.items():
        write = _instance_write(device, name, item, view)
        if write is not None:
            writes.append(write)
    for device, status in taken.devices.items():
        row = view.devices[device]
        if status != row.status:
            writes.append(put_status(row, status))
    if taken.decommissioned and agent.status.lifecycle is AgentLifecycle.ENROLLED:
        left = [name for name in agent.spec.devices if name in view.devices and name not in taken.decommissioned]
        if not left:
            done = msgspec.structs.replace(agent.status, lifecycle=AgentLifecycle.DECOMMISSIONED, message="")
            writes.append(put_status(agent, done))
            taken.events.append(event(now, "Decommissioned", f"agent {agent.key.name} has stopped and forgotten everything", agent.key))
    return tuple(writes)


def _instance_write(device: str, name: str, item: InstanceReport, view: FleetView) -> Write | None:
    namespace, _, workload = name.partition("/")
    row = view.on_device.get(device, {}).get((namespace, workload))
    if row is None or (item.uid and item.uid != row.uid):
        # It speaks of an instance that was removed meanwhile.
        return None
    if item.gone and not row.running:
        return Delete(key=row.key, expect=row.generation, uid=row.uid, missing_ok=True)
    return PutStatus(key=row.key, status=encode(item.status), uid=row.uid, missing_ok=True)


def _measure(view: FleetView, frame: FrameReport) -> None:
    for series in frame.series:
        wave = view.metrics.get(series.instance)
        if wave is None:
            continue
        namespace, _, workload = series.instance.partition("/")
        row = view.on_device.get(frame.device, {}).get((namespace, workload))
        # What is still said of a revision that was taken back does not count any more.
        if row is None or (row.spec.revision != wave.revision and (wave.paired or series.revision == wave.revision)):
            continue
        known = view.devices.get(frame.device)
        if wave.add(frame.device, series, known.facts.device_class if known is not None else "", view.now):
            view.stirred.setdefault((namespace, workload), view.now + view.limits.controllers.settle_seconds)
