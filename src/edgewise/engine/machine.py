"""The engine's front door: `handle` takes one event and returns the next state and what to do; `next_wake` says when to send a `Tick`.

A step goes: the event is taken in, every instance takes its next steps until nothing moves, leftovers are removed, changes are reported.
"""

from collections.abc import Callable, Collection
from typing import Final, assert_never

from edgewise.engine import converge, garbage, lifecycle, probes, recovery, reports, routing, update
from edgewise.engine.adoption import adopt, telling_of
from edgewise.engine.model import SLOTS, Live, State, Step, Storage, replace
from edgewise.engine.protocol import (
    ContactChanged,
    Desired,
    Done,
    Effect,
    Emit,
    Event,
    Exited,
    Fetched,
    FetchProgress,
    Heartbeat,
    Now,
    Observed,
    StorageFailed,
    StorageRecovered,
    Tick,
)
from edgewise.engine.records import Advanced, Broke, Record, Refused, Tried
from edgewise.engine.recovery import recover, snapshot
from edgewise.engine.tables import SlotPhase
from edgewise.wire.desired import SealedSecret

__all__ = ["handle", "next_wake", "recover", "sealed_secrets", "snapshot"]

_ROUNDS_MAX: Final = 50
_MAY_BE_OWED: Final = (Refused, Broke, Tried)
"""Records that only ever forbid or slow down: acting on them before they are on the disk is the safe side when the disk takes nothing."""


def handle(state: State, event: Event, now: Now) -> tuple[State, list[Effect]]:
    """Return the next state and the effects, in order, that belong to it. Adopt the state only once its `Persist` is done."""
    if state.left:
        return state, []
    step = Step(state, now, trying=_tries(state, event, now))
    state = _take_in(state, event, step)
    step.trying = step.trying or bool(step.records)  # what must be written now brings everything owed along, in order
    if step.observed_at is not None:
        state = _decide(state, step)
    state = replace(
        state,
        durable=step.durable,
        next_id=step.next_id,
        fetching=step.fetching,
        removing=step.removing,
        remove_due=step.remove_due,
        installed=step.installed,
        storage=step.storage,
        online=step.online,
        contact=step.contact,
        observed_at=step.observed_at,
        stepped_at=now.monotonic,
    )
    state = garbage.leave(state, step)
    return state, step.result()


def _tries(state: State, event: Event, now: Now) -> bool:
    """Whether this is the step that finds out if the journal takes records again. No other event is held up for that."""
    if isinstance(event, StorageRecovered):
        return True
    return isinstance(event, Tick) and state.storage is not None and now.monotonic >= state.storage.retry_at


def _decide(state: State, step: Step) -> State:
    live, told = garbage.forget_gone(state.live, state.told_stopped, step)
    live = _members(live, step)
    state = _settle_debts(state, step)
    live, owed, behind = _advance(live, step)
    state, live = garbage.advance(state, live, step)
    if step.storage is not None and step.records:
        step.storage, behind = None, True  # this state is adopted only if the journal took them; what waited for that goes on at once
        step.tell("Normal", "StorageRecovered", "the journal takes records again")
    live = reports.report_instances(live, step)
    told = reports.tell_stopped(told, live, step)
    reported = reports.report_device(state, step, live)
    step.effects.extend(Emit(lane="events", item=item) for item in step.events)
    return replace(state, live=live, told_stopped=told, reported=reported, owed=(*state.owed, *owed), behind=behind)


# ---- taking events in ----


def _take_in(state: State, event: Event, step: Step) -> State:
    match event:
        case Tick() | StorageRecovered():
            pass
        case Desired():
            state = _desired(state, event, step)
        case Observed():
            state = _observed(state, event, step)
        case ContactChanged():
            step.online, step.contact = event.online, event.last_contact
        case StorageFailed():
            _storage_failed(event, step)
        case Done():
            state = _done(state, event, step)
        case FetchProgress():
            state = _each(state, lambda live: update.progressed(live, event.stage, event.tree) if live.update.job == event.id else live)
        case Exited():
            state = _at(state, event.instance, lambda live: lifecycle.exited(live, event.slot, event.launch_id, event.code, step))
        case Heartbeat():
            state = _at(state, event.instance, lambda live: probes.heard(live, step))
        case _:
            assert_never(event)
    return state


def _desired(state: State, event: Desired, step: Step) -> State:
    before = step.durable.document
    adopt(event.document, state.live, step)
    after = step.durable.document
    if before is None or after is None or telling_of(before) == telling_of(after):
        return state
    return reports.forget_told(state)


def _each(state: State, change: Callable[[Live], Live]) -> State:
    return replace(state, live={name: change(live) for name, live in state.live.items()})


def _at(state: State, name: str, change: Callable[[Live], Live]) -> State:
    return replace(state, live={**state.live, name: change(state.live[name])}) if name in state.live else state


def _observed(state: State, event: Observed, step: Step) -> State:
    first = state.observed_at is None
    step.observed_at = step.now.monotonic
    step.installed = frozenset(event.installed)
    step.remove_due = step.now.monotonic
    live = recovery.observe(state.live, event, step, first=first)
    if first and state.damage:
        step.tell("Warning", "JournalDamaged", state.damage)
    return replace(state, live=live, boot_id=event.boot_id)


def _storage_failed(event: StorageFailed, step: Step) -> None:
    since = step.storage.since if step.storage is not None else step.now.wall
    if step.storage is None:
        step.tell("Warning", "StorageFailed", f"the journal takes no records ({event.kind}): {event.message}")
    retry_at = step.now.monotonic + step.limits.storage_retry_seconds
    step.storage = Storage(kind=event.kind, message=event.message, since=since, retry_at=retry_at)


def _done(state: State, event: Done, step: Step) -> State:
    if event.id == step.removing:
        return garbage.removed(state, event.result, step)
    if event.id == step.fetching:
        step.fetching = 0
        if isinstance(event.result, Fetched):
            step.installed |= {event.result.tree}
        return _fetched(state, event, step)
    for name, live in state.live.items():
        for slot in SLOTS:
            changed = lifecycle.done(live, slot, event.id, event.result, step)
            if changed is not None:
                return replace(state, live={**state.live, name: changed})
    return state


def _fetched(state: State, event: Done, step: Step) -> State:
    for name, live in state.live.items():
        if live.update.job == event.id:
            return replace(state, live={**state.live, name: update.fetched(live, event.result, step.desired(live))})
    if step.remove_due is None:
        step.remove_due = step.now.monotonic  # cancelled: nobody needs what it left
    return state


# ---- deciding ----


def _members(live: dict[str, Live], step: Step) -> dict[str, Live]:
    """Add the instances that the document names for the first time, and give strangers that run here the identity it has for them."""
    document = step.durable.document
    if document is None or document.decommission:
        return live
    result = dict(live)
    for want in document.instances:
        if want.desired == "Running" and (want.name not in live or not live[want.name].uid):
            result[want.name] = replace(live.get(want.name) or Live(name=want.name, uid=""), uid=want.uid)
    return result


def _settle_debts(state: State, step: Step) -> State:
    """Write down what was acted upon while the journal took nothing, as soon as it is time to try again."""
    if step.storage is None or step.blocked:
        return state
    if state.owed:
        step.records[:0] = state.owed
        return replace(state, owed=())
    if not step.records and step.durable.document is not None:
        step.record(Advanced(position=step.durable.document.position))  # says nothing new, but shows whether the disk takes it
    if not step.records:
        step.storage = None
    return state


def _advance(live: dict[str, Live], step: Step) -> tuple[dict[str, Live], tuple[Record, ...], bool]:
    """Let every instance take its next steps. While the journal takes nothing, steps that need it wait, and the others go on. Returns
    the instances, the records owed, and whether any instance waits."""
    result, owed, behind = dict(live), [], False
    for name in sorted(live):
        mark, before = step.mark(), len(step.records)
        after = _instance(live[name], step)
        decided = step.records[before:]
        if not step.blocked or not decided:
            result[name] = after
        elif all(isinstance(record, _MAY_BE_OWED) for record in decided):
            owed.extend(decided)
            del step.records[before:]
            result[name] = after
        else:
            step.back_to(mark)
            behind = True
    return result, tuple(owed), behind


def _instance(live: Live, step: Step) -> Live:
    for _ in range(_ROUNDS_MAX):
        before, decided = live, len(step.records)
        want = step.desired(live)
        live = lifecycle.advance(live, step)
        live = update.interim_failed(live, step)
        live = update.advance(live, want, step)
        live = converge.advance(live, want, step)
        if len(step.records) == decided and (live is before or live == before):
            return live
    raise AssertionError(f"{live.name} does not come to rest")  # shown not to happen by the exhaustive tests


# ---- for the shell ----


def next_wake(state: State, unprobed: Collection[str] = ()) -> float | None:
    """Return when to send the next `Tick` (monotonic; a time in the past means at once), or None when only an event can matter.
    `unprobed`: the launches whose probes are left out, because whoever asks knows that they would pass (a simulation does)."""
    if state.left or state.observed_at is None:
        return None
    step = Step(state, Now(wall=0.0, monotonic=0.0))
    times: list[float | None] = [_instance_wake(live, step, unprobed) for live in state.live.values()]
    if not state.fetching and not state.removing:
        times.append(state.remove_due)
    if state.behind:
        times.append(0.0)
    at = min((time for time in times if time is not None), default=None)
    if state.storage is None:
        return at
    # What waits for the disk is overdue and would not let the shell sleep: until the next try, only what lies ahead counts.
    ahead = [time for time in times if time is not None and time > state.stepped_at]
    return min([*ahead, state.storage.retry_at])


def _instance_wake(live: Live, step: Step, unprobed: Collection[str]) -> float | None:
    want = step.desired(live)
    until = converge.exclusive_until(live, want, step)
    held = any(slot.phase in (*lifecycle.RUNS, SlotPhase.WAITING) for slot in live.slots.values())
    times = [
        update.wake(live, want, step.kept(live), step.limits),
        until if held else None,
        routing.wake(live) if converge.beside(live, want, step) is not None else None,
        0.0 if live.removed else None,
        *(lifecycle.wake(slot, probed=slot.launch_id not in unprobed) for slot in live.slots.values()),
    ]
    return min((time for time in times if time is not None), default=None)


def sealed_secrets(state: State, instance: str, revision: str) -> tuple[SealedSecret, ...]:
    """Return the sealed secrets that `revision` of an instance was installed with; empty when it is not known here."""
    kept = state.durable.instances.get(instance)
    if kept is None:
        return ()
    releases = (kept.candidate, kept.committed, kept.previous)
    return next((release.secrets for release in releases if release is not None and release.revision == revision), ())
