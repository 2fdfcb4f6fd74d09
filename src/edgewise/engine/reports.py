"""What is told of the device and its instances: whole statuses, only when they differ from what was told last."""

from typing import Final

from edgewise.engine import converge, routing
from edgewise.engine.model import SLOTS, Live, State, Step, Storage, empty, refused, replace, slot_of
from edgewise.engine.protocol import Emit, Slot
from edgewise.engine.records import Refusal
from edgewise.engine.tables import INSTANCE_STATE, SlotPhase
from edgewise.resources.instance import InstanceStatus
from edgewise.resources.meta import Condition
from edgewise.resources.states import DeviceUpdate, Health, InstanceState, UpdateState
from edgewise.resources.traffic import Traffic
from edgewise.wire.desired import InstanceDesired
from edgewise.wire.report import DeviceReport, InstanceReport

_UNWELL: Final = frozenset({InstanceState.ERRORED, InstanceState.BROKEN})


def serving(live: Live, want: InstanceDesired | None, step: Step) -> Slot | None:
    """Return the slot that an instance's status speaks of."""
    goal = converge.target(live, want, step)
    order = [name for name in SLOTS if live.slots[name].active]
    held = slot_of(live, goal.revision) if goal else None
    order += [held] if held else []
    order += [name for name in SLOTS if live.slots[name].phase is not SlotPhase.EMPTY]
    return order[0] if order else None


def _traffic(live: Live, want: InstanceDesired | None, step: Step) -> Traffic | None:
    """Return which traffic is in force between the committed revision and the candidate that is ready beside it."""
    candidate = step.kept(live).candidate
    if candidate is None or converge.beside(live, want, step) is None:
        return None
    name = slot_of(live, candidate.revision)
    return routing.in_force(live, "a" if name == "b" else "b", name) if name is not None else None


def status_of(live: Live, want: InstanceDesired | None, step: Step) -> InstanceStatus:
    """Return the whole status of an instance."""
    kept, name, update = step.kept(live), serving(live, want, step), live.update
    slot = live.slots[name] if name else None
    state, why = _state(live, want, step, slot.phase if slot else None)
    # A download that is tried again is not told anew each time: months offline must not fill the outbox.
    retrying = update.state is UpdateState.DOWNLOAD and update.attempt > 1
    if not why.reason and slot is not None and slot.trouble is not None and slot.phase is not SlotPhase.UP:
        why = slot.trouble
    return InstanceStatus(
        observed_epoch=want.epoch if want else 0,
        state=state,
        update=UpdateState.FAILED if retrying else update.state,
        revision=slot.revision if slot else "",
        committed=kept.committed.revision if kept.committed else "",
        previous=kept.previous.revision if kept.previous else "",
        update_revision=update.revision if update.state is not UpdateState.IDLE else "",
        variant=slot.release.variant.name if slot and slot.release else "",
        slot=name or "",
        ready=bool(slot and slot.phase is SlotPhase.UP and slot.ready and slot.active),
        restarts=live.restarts,
        exit_code=live.exit_code,
        refused=tuple(kept.refused),
        reason=why.reason,
        message=why.message[: step.limits.message_chars_max],
        address=slot.address if slot else "",
        started_at=slot.started_at if slot and slot.phase is SlotPhase.UP else 0.0,
        ready_at=slot.ready_at if slot and slot.phase is SlotPhase.UP else 0.0,
        traffic=_traffic(live, want, step),
        retry_seconds=update.retry_within,
    )


def _state(live: Live, want: InstanceDesired | None, step: Step, phase: SlotPhase | None) -> tuple[InstanceState, Refusal]:
    """Return an instance's state, and the reason if there is one beyond the slot's own."""
    kept = step.kept(live)
    leaving = want is None and step.durable.document is not None
    why = Refusal(reason=live.update.reason, message=live.update.message)
    if want is not None and not why.reason:
        why = kept.refused.get(want.revision, why)
    if (
        want is not None
        and not why.reason
        and step.storage is not None
        and (kept.committed is None or kept.committed.revision != want.revision)
    ):
        why = Refusal(reason=_storage_reason(step.storage), message=f"nothing new begins here meanwhile: {step.storage.message}")
    if leaving:
        return (InstanceState.STOPPED if empty(live) else InstanceState.STOPPING), why
    if converge.suspended(live, want, step):
        if step.storage is not None and empty(live):
            return InstanceState.STOPPED, Refusal(
                reason=_storage_reason(step.storage), message=f"an exclusive instance is not started: {step.storage.message}"
            )
        lost = Refusal(reason="LostContact", message="an exclusive instance does not run while the control plane is out of reach")
        return (InstanceState.STOPPED if empty(live) else InstanceState.STOPPING), lost
    if phase is not None:
        return INSTANCE_STATE[phase], why
    if want is not None and kept.committed is None and refused(kept, want, want.revision):
        return InstanceState.ERRORED, why
    return InstanceState.PENDING, why


def report_instances(live: dict[str, Live], step: Step) -> dict[str, Live]:
    """Emit the status of each instance that changed."""
    result = dict(live)
    for name in sorted(live):
        one = live[name]
        if not one.uid or one.told_gone or _untouched(one, step):
            continue
        status = status_of(one, step.desired(one), step)
        if one.removed:
            step.effects.append(_instance_item(step, one, status, gone=True))
            result[name] = replace(one, reported=status, told_gone=True)
        elif status != one.reported:
            step.effects.append(_instance_item(step, one, status, gone=False))
            result[name] = replace(one, reported=status)
    return result


def _untouched(one: Live, step: Step) -> bool:
    """Whether nothing changed of which an instance's status is made: then it was told already. Objects do not change: the same is equal."""
    before = step.before
    if one.reported is None or one.removed or before.live.get(one.name) is not one or before.installed is not step.installed:
        return False
    if before.storage is not step.storage:
        return False
    then, now = before.durable, step.durable
    if then is not now and (then.document is not now.document or then.instances.get(one.name) is not now.instances.get(one.name)):
        return False
    want = step.desired(one)
    return want is None or not want.exclusive  # one that is exclusive changes with the time


def _instance_item(step: Step, live: Live, status: InstanceStatus, *, gone: bool) -> Emit:
    return Emit(lane="status", item=InstanceReport(device=step.device, name=live.name, uid=live.uid, status=status, gone=gone))


def forget_told(state: State) -> State:
    """Tell everything again (see `adoption.telling_of`)."""
    live = {name: replace(one, reported=None) for name, one in state.live.items()}
    return replace(state, live=live, told_stopped={}, reported=None)


def tell_stopped(told: dict[str, str], live: dict[str, Live], step: Step) -> dict[str, str]:
    """Confirm once per start of the agent that instances meant to be stopped are not here at all. Returns what was told."""
    document = step.durable.document
    if document is None or document.decommission:
        return told
    now = {want.name: want.uid for want in document.instances if want.desired == "Stopped"}
    result = {name: uid for name, uid in told.items() if now.get(name) == uid}
    for name, uid in now.items():
        if name not in live and name not in step.durable.instances and result.get(name) != uid:
            status = InstanceStatus(state=InstanceState.STOPPED)
            step.effects.append(Emit(lane="status", item=InstanceReport(device=step.device, name=name, uid=uid, status=status, gone=True)))
            result[name] = uid
    return result if result != told else told


def device_of(state: State, step: Step, live: dict[str, Live]) -> DeviceReport:
    """Return all that the engine reports of the device itself."""
    document = step.durable.document
    conditions = tuple(condition for condition in (_storage(step), _journal(state)) if condition is not None)
    return DeviceReport(
        device=state.device,
        health=_health(state, step, live),
        update=_device_update(step, live),
        observed=document.position if document else None,
        conditions=conditions,
        boot_id=state.boot_id or None,
    )


def report_device(state: State, step: Step, live: dict[str, Live]) -> DeviceReport:
    """Emit what changed of the device. Returns what is known to have been told."""
    full, last = device_of(state, step, live), state.reported
    if last == full:
        return full
    changed = full if last is None else _difference(last, full)
    step.effects.append(Emit(lane="status", item=changed))
    return full


def _difference(last: DeviceReport, full: DeviceReport) -> DeviceReport:
    return DeviceReport(
        device=full.device,
        health=full.health if full.health != last.health else None,
        update=full.update if full.update != last.update else None,
        observed=full.observed if full.observed != last.observed else None,
        conditions=full.conditions if full.conditions != last.conditions else None,
        boot_id=full.boot_id if full.boot_id != last.boot_id else None,
    )


def _storage(step: Step) -> Condition | None:
    if step.storage is None:
        return None
    reason = _storage_reason(step.storage)
    return Condition(type="StorageFailed", status="True", reason=reason, message=step.storage.message, since=step.storage.since)


def _storage_reason(storage: Storage) -> str:
    return {"full": "DiskFull", "read-only": "DiskReadOnly"}.get(storage.kind, "DiskDamaged")


def _journal(state: State) -> Condition | None:
    if not state.damage:
        return None
    return Condition(type="JournalDamaged", status="True", reason="DamagedRecords", message=state.damage)


def _health(state: State, step: Step, live: dict[str, Live]) -> Health:
    if step.storage is not None:
        return Health.DEGRADED if step.storage.kind == "full" else Health.ERROR
    unwell = any(one.reported is not None and one.reported.state in _UNWELL for one in live.values())
    return Health.DEGRADED if unwell or state.damage else Health.HEALTHY


def _device_update(step: Step, live: dict[str, Live]) -> DeviceUpdate:
    document = step.durable.document
    if document is None:
        return DeviceUpdate.UNKNOWN
    result = DeviceUpdate.UP_TO_DATE
    for one in live.values():
        want, status = step.desired(one), one.reported
        if status is None or status.update not in (UpdateState.IDLE, UpdateState.FAILED):
            return DeviceUpdate.UPDATING
        if want is None or status.committed != want.revision:
            result = DeviceUpdate.OUT_OF_DATE
    return result
