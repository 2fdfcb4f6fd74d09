"""The update of an instance: one function per state, each deciding whether the table's next event has happened."""

import zlib
from collections.abc import Callable
from typing import Final

from edgewise.engine import converge, lifecycle
from edgewise.engine.limits import EngineLimits
from edgewise.engine.model import SLOTS, Live, Step, Update, refused, replace, slot_of
from edgewise.engine.protocol import Cancel, Failed, Fetch, Fetched, FetchStage, Result
from edgewise.engine.records import Abandoned, Committed, Installed, Kept, Refusal, Refused, Release, Tried
from edgewise.engine.tables import SlotPhase, UpdateEvent, next_update
from edgewise.resources.states import UpdateState
from edgewise.wire.desired import InstanceDesired

_PROGRESS: Final[dict[FetchStage, UpdateEvent]] = {
    "Download": UpdateEvent.DOWNLOADING,
    "Verify": UpdateEvent.VERIFYING,
    "Install": UpdateEvent.INSTALLING,
}
FETCHING: Final = (UpdateState.DOWNLOAD, UpdateState.VERIFY, UpdateState.INSTALL)


def advance(live: Live, want: InstanceDesired | None, step: Step) -> Live:
    """Take the update's next step, if there is one."""
    return _ADVANCE[live.update.state](live, want, step)


def wants(live: Live, want: InstanceDesired | None, step: Step) -> bool:
    """Whether another revision than the committed one should be brought here, and may be."""
    if want is None:
        return False
    kept = step.kept(live)
    if refused(kept, want, want.revision):
        return False
    return kept.committed is None or kept.committed.revision != want.revision or not converge.usable(live, kept.committed, step)


def _move(live: Live, event: UpdateEvent, **changes: object) -> Live:
    return replace(live, update=replace(live.update, state=next_update(live.update.state, event), **changes))


def _afresh(live: Live, event: UpdateEvent, update: Update) -> Live:
    return replace(live, update=replace(update, state=next_update(live.update.state, event)))


# ---- what comes back ----


def progressed(live: Live, stage: FetchStage, tree: str) -> Live:
    """Take in that the fetch entered a stage."""
    return _move(live, _PROGRESS[stage], tree=tree or live.update.tree)


def fetched(live: Live, result: Result, want: InstanceDesired | None) -> Live:
    """Take in the end of this update's fetch."""
    update = replace(live.update, job=0)
    if isinstance(result, Fetched) and want is not None:
        release = Release(
            revision=update.revision,
            type=want.artifact.type,
            tree=result.tree,
            variant=result.variant,
            parameters=result.parameters,
            config=want.config,
            secrets=want.secrets,
            memory=want.memory,
            cpu_milli=want.cpu_milli,
        )
        return replace(live, update=replace(update, fetched=release))
    failed = result if isinstance(result, Failed) else Failed(kind="transient", reason="FetchFailed", message="no answer")
    return replace(live, update=replace(update, problem=Refusal(reason=failed.reason, message=failed.message), problem_kind=failed.kind))


# ---- one function per state ----


def _idle(live: Live, want: InstanceDesired | None, step: Step) -> Live:
    kept = step.kept(live)
    if want is None or not wants(live, want, step):
        if live.interim and kept.candidate is not None and want is not None:
            step.record(Abandoned(instance=live.name, revision=kept.candidate.revision))
            return replace(live, interim=False)
        return live
    if step.blocked or converge.suspended(live, want, step):
        return live
    for release in (kept.candidate, kept.previous):
        if release is not None and release.revision == want.revision and release.tree in step.installed:
            return _try(live, UpdateEvent.KEPT, release, step)
    return _afresh(live, UpdateEvent.WANTED, Update(revision=want.revision, attempt=1))


def _fetching(live: Live, want: InstanceDesired | None, step: Step) -> Live:
    update = live.update
    if want is None or want.revision != update.revision or not wants(live, want, step):
        if update.job:
            step.effects.append(Cancel(id=update.job))
        return _afresh(live, UpdateEvent.WITHDRAWN, Update())
    if update.fetched is not None:
        step.tell("Normal", "Installed", f"revision {update.revision} is installed", live.name)
        return _try(live, UpdateEvent.INSTALLED, update.fetched, step)
    if want.artifact.type not in ("model", "bundle"):
        return _invalid(
            live, Refusal(reason="Unsupported", message=f"this device does not run artifacts of type {want.artifact.type}"), step
        )
    if update.problem is not None:
        return _invalid(live, update.problem, step) if update.problem_kind == "invalid" else _interrupted(live, update.problem, step)
    if update.job or step.fetching or step.removing or step.blocked:
        return live
    job = step.effect_id()
    step.fetching = job
    step.effects.append(Fetch(id=job, instance=live.name, revision=update.revision, artifact=want.artifact, parameters=want.parameters))
    return replace(live, update=replace(update, job=job))


def _invalid(live: Live, refusal: Refusal, step: Step) -> Live:
    revision = live.update.revision
    step.record(Refused(instance=live.name, uid=live.uid, revision=revision, refusal=refusal))
    step.tell("Warning", "Refused", f"revision {revision} is refused here: {refusal.message}", live.name)
    return _move(live, UpdateEvent.INVALID, retry_at=None, refused=True, reason=refusal.reason, message=refusal.message, problem=None)


def _interrupted(live: Live, problem: Refusal, step: Step) -> Live:
    update = live.update
    untrusted = update.problem_kind == "untrusted"
    pause = fetch_pause(live.uid, update.attempt, step.limits, untrusted=untrusted)
    if update.attempt == 1 or untrusted:
        step.tell("Warning", "UpdateFailed", f"revision {update.revision}: {problem.message}; next try in {pause:.0f} s", live.name)
    return _move(
        live,
        UpdateEvent.INTERRUPTED,
        retry_at=step.now.monotonic + pause,
        retry_within=_pause_most(update.attempt, step.limits, untrusted=untrusted),
        reason=problem.reason,
        message=problem.message,
        problem=None,
    )


def fetch_pause(uid: str, attempt: int, limits: EngineLimits, *, untrusted: bool) -> float:
    """Return how long to wait after the `attempt`-th failed fetch (seconds): doubling, shortened by up to half, differently for every
    instance, so that a fleet does not come back at once."""
    share = zlib.crc32(f"{uid}:{attempt}".encode()) / 2**32
    return _pause_most(attempt, limits, untrusted=untrusted) * (1.0 - share / 2)


def _pause_most(attempt: int, limits: EngineLimits, *, untrusted: bool) -> float:
    first = limits.untrusted_delay_seconds if untrusted else limits.fetch_delay_seconds
    most = limits.untrusted_delay_seconds_max if untrusted else limits.fetch_delay_seconds_max
    return min(first * 2.0 ** min(attempt - 1, 30), most)


def _try(live: Live, event: UpdateEvent, release: Release, step: Step) -> Live:
    step.record(Installed(instance=live.name, uid=live.uid, release=release))
    for name in SLOTS:
        live = lifecycle.recognise(live, name, release, step)
    return replace(_afresh(live, event, Update(revision=release.revision)), interim=False)


def _probation(live: Live, want: InstanceDesired | None, step: Step) -> Live:
    kept = step.kept(live)
    candidate = kept.candidate
    if candidate is None:  # a rejection took it
        refusal = kept.refused.get(live.update.revision, Refusal(reason="Refused"))
        live = _move(live, UpdateEvent.FAILED, refused=True, reason=refusal.reason, message=refusal.message)
    elif step.durable.document is not None and (want is None or want.revision != candidate.revision):
        live = _other_wanted(live, want, candidate, step)
    elif live.update.recovering:
        live = _recovering(live, candidate, step)
    elif converge.suspended(live, want, step):
        if live.update.began is not None:
            live = replace(live, update=replace(live.update, began=None, settled=None, beside=False))
    elif want is not None:
        live = _on_trial(live, want, candidate, step)
    return live


def _on_trial(live: Live, want: InstanceDesired, candidate: Release, step: Step) -> Live:
    now, aside = step.now.monotonic, converge.beside(live, want, step) is not None
    if live.update.beside is not aside:  # to serve is another trial than to wait: it has its own time
        live = replace(live, update=replace(live.update, began=now, settled=None, beside=aside))
    if live.update.began is None or _hindered(live, candidate):
        live = replace(live, update=replace(live.update, began=now))
    trouble = _trouble(live, want, candidate, step)
    if trouble is not None:
        return _fail(live, trouble, step)
    if not (converge.waits_well(live, candidate) if aside else converge.settled(live, candidate)):
        return live if live.update.settled is None else replace(live, update=replace(live.update, settled=None))
    since = now if live.update.settled is None else live.update.settled
    if want.hold or now < since + want.probation_seconds:
        if step.kept(live).attempts > 1 and now >= since + step.limits.stable_seconds:
            step.record(Tried(instance=live.name, revision=candidate.revision, attempts=1))
        return live if live.update.settled == since else replace(live, update=replace(live.update, settled=since))
    step.record(Committed(instance=live.name, revision=candidate.revision))
    step.tell("Normal", "Committed", f"revision {candidate.revision} passed its probation", live.name)
    step.remove_due = now
    return _move(live, UpdateEvent.PASSED)


def _recovering(live: Live, candidate: Release, step: Step) -> Live:
    if not converge.usable(live, candidate, step):  # its tree is gone: it is fetched again
        step.record(Abandoned(instance=live.name, revision=candidate.revision))
        return _move(live, UpdateEvent.WITHDRAWN, refused=False)
    attempts = step.kept(live).attempts
    if attempts > step.limits.recoveries_max:
        message = f"the agent or the device was restarted {attempts} times while revision {candidate.revision} was on trial"
        return _fail(live, Refusal(reason="TooManyRecoveries", message=message), step)
    step.record(Tried(instance=live.name, revision=candidate.revision, attempts=attempts + 1))
    step.tell("Normal", "Recovered", f"the trial of revision {candidate.revision} goes on after a restart", live.name)
    return replace(live, update=replace(live.update, recovering=False))


def _hindered(live: Live, candidate: Release) -> bool:
    """Whether the candidate could not be started for no fault of its own: the deadline's clock stands still."""
    name = slot_of(live, candidate.revision)
    return name is not None and live.slots[name].hindrances > 0


def _trouble(live: Live, want: InstanceDesired, candidate: Release, step: Step) -> Refusal | None:
    """Return why the candidate fails its trial, if it does."""
    name = slot_of(live, candidate.revision)
    slot = live.slots[name] if name else None
    if slot is not None:
        if slot.fatal or slot.failures > step.limits.probation_crashes_max:
            return slot.trouble or Refusal(reason="Crashed", message="it ended unexpectedly")
        if live.update.settled is not None and slot.phase is SlotPhase.UP and not slot.ready:
            return slot.trouble or Refusal(reason="ReadinessLost", message="it is not ready any more")
    began = live.update.began
    if began is not None and live.update.settled is None and step.now.monotonic >= began + want.deadline_seconds:
        return Refusal(reason="DeadlineExceeded", message=f"not ready within {want.deadline_seconds:.0f} s")
    return None


def _fail(live: Live, refusal: Refusal, step: Step) -> Live:
    revision = live.update.revision
    step.record(Refused(instance=live.name, uid=live.uid, revision=revision, refusal=refusal))
    step.tell("Warning", "Refused", f"revision {revision} failed on trial and is refused here: {refusal.message}", live.name)
    return _move(live, UpdateEvent.FAILED, refused=True, reason=refusal.reason, message=refusal.message)


def _other_wanted(live: Live, want: InstanceDesired | None, candidate: Release, step: Step) -> Live:
    """Another revision is wanted than the one on trial: a newer one lets a candidate that serves already go on until it comes."""
    committed = step.kept(live).committed
    if want is not None and (committed is None or committed.revision != want.revision) and wants(live, want, step):
        name = slot_of(live, candidate.revision)
        serves = name is not None and live.slots[name].active and live.slots[name].phase is SlotPhase.UP
        if not serves:
            step.record(Abandoned(instance=live.name, revision=candidate.revision))
        return replace(_afresh(live, UpdateEvent.SUPERSEDED, Update()), interim=serves)
    step.record(Abandoned(instance=live.name, revision=candidate.revision))
    return _move(live, UpdateEvent.WITHDRAWN, refused=False)


def _commit(live: Live, want: InstanceDesired | None, step: Step) -> Live:
    del want, step
    told = live.reported is not None and live.reported.update is UpdateState.COMMIT
    return _afresh(live, UpdateEvent.SETTLED, Update()) if told else live


def _rollback(live: Live, want: InstanceDesired | None, step: Step) -> Live:
    goal, update = converge.target(live, want, step), live.update
    name = slot_of(live, goal.revision) if goal else None
    broken = name is not None and live.slots[name].phase is SlotPhase.BROKEN
    if converge.settled(live, goal) or broken:
        if not update.refused:
            step.leave_behind()
            return _afresh(live, UpdateEvent.RETURNED, Update())
        where = f"back on revision {goal.revision}" if goal else "nothing is left to run"
        step.tell("Warning", "RolledBack", f"revision {update.revision} was taken back ({update.message}); {where}", live.name)
        step.remove_due = step.now.monotonic
        return _move(live, UpdateEvent.FAILED, retry_at=None)
    if want is not None and want.revision != update.revision and wants(live, want, step):
        return _afresh(live, UpdateEvent.SUPERSEDED, Update())
    return live


def _failed(live: Live, want: InstanceDesired | None, step: Step) -> Live:
    update = live.update
    if update.retry_at is None:
        told = live.reported is not None and live.reported.update is UpdateState.FAILED
        return _afresh(live, UpdateEvent.SETTLED, Update()) if told else live
    if want is None or want.revision != update.revision or not wants(live, want, step):
        step.leave_behind()
        return _afresh(live, UpdateEvent.WITHDRAWN, Update())
    if step.now.monotonic >= update.retry_at and not step.blocked:
        return _afresh(live, UpdateEvent.RETRY, _again(update))
    return live


def _again(update: Update) -> Update:
    """Return the next try of an update that failed. Why it did, and that it is tried again, is told until it works."""
    return Update(
        revision=update.revision,
        attempt=update.attempt + 1,
        reason=update.reason,
        message=update.message,
        retry_within=update.retry_within,
        tree=update.tree,
    )


_ADVANCE: Final[dict[UpdateState, Callable[[Live, InstanceDesired | None, Step], Live]]] = {
    UpdateState.IDLE: _idle,
    UpdateState.DOWNLOAD: _fetching,
    UpdateState.VERIFY: _fetching,
    UpdateState.INSTALL: _fetching,
    UpdateState.PROBATION: _probation,
    UpdateState.COMMIT: _commit,
    UpdateState.ROLLBACK: _rollback,
    UpdateState.FAILED: _failed,
}


def interim_failed(live: Live, step: Step) -> Live:
    """Give a superseded candidate, which serves until its successor comes, no second chance: at its first failure the committed one is
    taken up again."""
    candidate = step.kept(live).candidate
    if not live.interim:
        return live
    if candidate is None:
        return replace(live, interim=False)
    name = slot_of(live, candidate.revision)
    if name is not None and live.slots[name].phase is SlotPhase.UP and not live.slots[name].fatal:
        return live
    trouble = live.slots[name].trouble if name else None
    refusal = trouble or Refusal(reason="Crashed", message="it ended unexpectedly")
    step.record(Refused(instance=live.name, uid=live.uid, revision=candidate.revision, refusal=refusal))
    step.tell("Warning", "Refused", f"revision {candidate.revision} failed and is refused here: {refusal.message}", live.name)
    return replace(live, interim=False)


def wake(live: Live, want: InstanceDesired | None, kept: Kept, limits: EngineLimits) -> float | None:
    """Return when something of this update is due (monotonic), or None. 0.0 is at once."""
    update = live.update
    match update.state:
        case UpdateState.COMMIT:
            return 0.0
        case UpdateState.FAILED:
            return update.retry_at if update.retry_at is not None else 0.0
        case UpdateState.PROBATION if want is not None:
            if update.settled is None:
                return None if update.began is None else update.began + want.deadline_seconds
            if want.hold:
                return update.settled + limits.stable_seconds if kept.attempts > 1 else None
            return update.settled + want.probation_seconds
        case _:
            return None
