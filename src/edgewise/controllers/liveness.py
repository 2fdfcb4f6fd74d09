"""Which devices are Online, Offline or AwaitingReconnect, from who was heard when.

An agent that polls is heard; one that does not is Offline a while after its last contact. Each agent that does not poll has one deadline
that is looked at when it comes, so that requests cost next to nothing here. Documents change only when a connection does; many at once are
written in batches.
"""

from typing import Final

from edgewise.controllers.documents import event, put_status
from edgewise.controllers.history import connected
from edgewise.controllers.patience import deadline, devices_of
from edgewise.controllers.rows import DeviceRow
from edgewise.controllers.view import FleetView
from edgewise.controllers.work import Work
from edgewise.resources.states import Connection
from edgewise.store.contract import EventRow

_BATCH: Final = 100


def step(view: FleetView, work: Work) -> None:
    """Gather what changed of the devices' connections."""
    welcomed = _welcomed(view, work.now)
    changes = [*_returned(view, work), *_silent(view, work), *_unheard(view, work)]
    named = len(welcomed) + len(changes) <= view.limits.controllers.offline_events_named_max
    for row, connection, seen in changes:
        status = connected(row.status, connection, seen, work.now)
        events = (_said(row, connection, work.now),) if named else ()
        work.add((put_status(row, status),), events, most=_BATCH)
    if not named:
        work.add((), (_summary([*welcomed, *changes], work.now),))
    elif welcomed:
        work.add((), [_said(row, connection, work.now) for row, connection, _ in welcomed])
    work.cut()


_Change = tuple[DeviceRow, Connection, float]


def _said(row: DeviceRow, connection: Connection, now: float) -> EventRow:
    lost = connection is not Connection.ONLINE
    return event(now, f"Device{connection.value}", f"device {row.key.name} is {connection.value}", row.key, warning=lost)


def _summary(changes: list[_Change], now: float) -> EventRow:
    counts: dict[str, int] = {}
    for _, connection, _ in changes:
        counts[connection.value] = counts.get(connection.value, 0) + 1
    text = ", ".join(f"{count} devices are {name} now" for name, count in sorted(counts.items()))
    return event(now, "ConnectionsChanged", text, None, warning=Connection.OFFLINE in counts)


def _all(names: set[str]) -> list[str]:
    """Return the names in order. A set that was large stays slow to walk after it was emptied, and this is asked all the time."""
    if not names:
        names.clear()
        return []
    return sorted(names)


def _welcomed(view: FleetView, now: float) -> list[_Change]:
    """Return the devices that are Online since their own reports: only the event log has yet to hear of them."""
    rows = [view.devices[name] for name in _all(view.presence.welcomed) if name in view.devices]
    view.presence.welcomed.clear()
    return [(row, Connection.ONLINE, now) for row in rows]


def _returned(view: FleetView, work: Work) -> list[_Change]:
    """Return the devices that are heard again. An agent leaves the list once the documents say so."""
    presence = view.presence
    changes: list[_Change] = []
    for agent in _all(presence.returned):
        if len(changes) + work.written >= view.limits.controllers.decision_writes_max:
            break
        stale = [(row, Connection.ONLINE, work.now) for row in devices_of(view, agent) if row.status.connection is not Connection.ONLINE]
        changes += stale
        if not stale:
            presence.returned.discard(agent)
            presence.silent.discard(agent)
            presence.watched.add(agent)
            view.timers.at(("agent", agent), deadline(view, agent, work.now))
    return changes


def expire(view: FleetView, agent: str, now: float) -> None:
    """Decide about an agent whose deadline came: it is silent now, or it has a new one. While it polls it has none: it gets one when the
    poll ends."""
    presence = view.presence
    if presence.polling(agent):
        presence.parked.add(agent)
        return
    heard = presence.heard(agent)
    due = deadline(view, agent, heard) if heard is not None else now
    if due > now:
        view.timers.at(("agent", agent), due)
    else:
        presence.watched.discard(agent)
        presence.silent.add(agent)


def _silent(view: FleetView, work: Work) -> list[_Change]:
    presence = view.presence
    changes: list[_Change] = []
    for agent in _all(presence.silent):
        if agent in presence.returned:
            continue
        if len(changes) + work.written >= view.limits.controllers.decision_writes_max:
            break
        seen = presence.last(agent)
        stale = [(row, Connection.OFFLINE, seen) for row in devices_of(view, agent) if row.status.connection is not Connection.OFFLINE]
        changes += stale
        if not stale:
            presence.silent.discard(agent)
    return changes


_PHASES: Final = (
    (),
    (Connection.ONLINE,),
    (Connection.ONLINE, Connection.AWAITING_RECONNECT),
)
"""By phase after the start, what a device not heard of may still be called by mistake."""


def _enter_phase(view: FleetView, now: float) -> None:
    """Look once, when its time comes, for the devices that were not heard of since the control plane started."""
    presence, limits = view.presence, view.limits.liveness
    waits = (limits.awaiting_after_seconds, limits.reconnect_window_seconds)
    while presence.phase < len(waits):
        due = presence.started_at + waits[presence.phase]
        if now < due:
            view.timers.sooner(("start",), due)
            return
        presence.phase += 1
        presence.unheard = {
            name
            for name, row in view.devices.items()
            if row.status.connection in _PHASES[presence.phase] and row.spec.agent in view.agents and presence.heard(row.spec.agent) is None
        }


def _unheard(view: FleetView, work: Work) -> list[_Change]:
    presence = view.presence
    _enter_phase(view, work.now)
    wanted = Connection.OFFLINE if presence.phase > 1 else Connection.AWAITING_RECONNECT
    changes: list[_Change] = []
    for device in _all(presence.unheard):
        if len(changes) + work.written >= view.limits.controllers.decision_writes_max:
            break
        row = view.devices.get(device)
        if row is None or row.status.connection not in _PHASES[presence.phase] or presence.heard(row.spec.agent) is not None:
            presence.unheard.discard(device)
            continue
        changes.append((row, wanted, presence.started_at if wanted is Connection.OFFLINE else row.status.last_seen))
    return changes
