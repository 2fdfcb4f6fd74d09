"""Slots: start, stop, crash, restart with back-off, give up. Every change of phase goes through the table."""

from edgewise.engine import probes, routing
from edgewise.engine.model import Live, SlotView, Step, replace, with_slot
from edgewise.engine.protocol import Activate, Failed, Finished, Launch, Probed, Result, Slot, Start, Started, Stop, Stopped
from edgewise.engine.records import Broke, Refusal, Release
from edgewise.engine.tables import SlotEvent, SlotPhase, next_phase
from edgewise.resources.states import UpdateState

RUNS = (SlotPhase.PROBING, SlotPhase.UP)


def launch_of(release: Release) -> Launch:
    """Return what a driver needs to start `release`."""
    return Launch(
        driver="model" if release.type == "model" else "process",
        revision=release.revision,
        tree=release.tree,
        variant=release.variant,
        parameters=release.parameters,
        config=release.config,
        secrets=tuple(secret.name for secret in release.secrets),
        memory=release.memory,
        cpu_milli=release.cpu_milli,
    )


def _move(slot: SlotView, event: SlotEvent, step: Step) -> SlotView:
    return replace(slot, phase=next_phase(slot.phase, event), since=step.now.monotonic, due=None)


# ---- what the engine asks for ----


def start(live: Live, name: Slot, release: Release, step: Step) -> Live:
    """Start `release` in an empty slot, or again in one that waits."""
    slot = live.slots[name]
    again = slot.phase is not SlotPhase.EMPTY
    event = SlotEvent.RETRY if again else SlotEvent.START
    job = step.effect_id()
    step.effects.append(Start(id=job, instance=live.name, slot=name, launch=launch_of(release)))
    slot = replace(_move(slot, event, step), release=release, revision=release.revision, job=job, early={}, launch_id="")
    return replace(with_slot(live, name, slot), restarts=live.restarts + again)


def stop(
    live: Live, name: Slot, step: Step, *, event: SlotEvent = SlotEvent.STOP, restart: bool = False, grace: float | None = None
) -> Live:
    """Stop what runs in a slot, within `grace` seconds if given."""
    slot = live.slots[name]
    job = step.effect_id()
    seconds = step.limits.stop_grace_seconds if grace is None else grace
    step.effects.append(Stop(id=job, instance=live.name, slot=name, grace_seconds=seconds))
    slot = replace(_move(slot, event, step), job=job, activation=0, routing=0, ready=False, active=False, restart=restart, probes={})
    return with_slot(live, name, slot)


def clear(live: Live, name: Slot) -> Live:
    """Forget a slot in which nothing runs."""
    next_phase(live.slots[name].phase, SlotEvent.CLEAR)
    return with_slot(live, name, SlotView())


def give_up(live: Live, name: Slot, release: Release, step: Step) -> Live:
    """Leave an instance alone until something changes."""
    slot = live.slots[name]
    slot = replace(_move(slot, SlotEvent.GIVE_UP, step), release=release, revision=release.revision)
    return with_slot(live, name, slot)


def revive(live: Live, name: Slot, step: Step) -> Live:
    """Give a broken slot new tries."""
    slot = _move(live.slots[name], SlotEvent.REVIVE, step)
    return with_slot(live, name, replace(slot, failures=0, fatal=False, trouble=None, due=step.now.monotonic))


def activate(live: Live, name: Slot, step: Step) -> Live:
    """Let a ready model server take the traffic."""
    slot = live.slots[name]
    job = step.effect_id()
    step.effects.append(Activate(id=job, instance=live.name, slot=name))
    return with_slot(live, name, replace(slot, activation=job))


def recognise(live: Live, name: Slot, release: Release, step: Step) -> Live:
    """Take a running process that the journal had forgotten for what it is."""
    slot = live.slots[name]
    if slot.release is not None or slot.phase is not SlotPhase.UP or slot.revision != release.revision:
        return live
    slot = replace(slot, release=release, active=slot.active or release.type != "model")
    return with_slot(live, name, probes.begin(slot, step, soon=True))


# ---- what comes back ----


def done(live: Live, name: Slot, identifier: int, result: Result, step: Step) -> Live | None:
    """Take in the end of an effect of this slot; None when it was not this slot's."""
    slot = live.slots[name]
    if identifier == slot.job:
        return _start_done(live, name, result, step) if slot.phase is SlotPhase.STARTING else _stop_done(live, name, result, step)
    if identifier == slot.activation:
        return _activate_done(live, name, result, step)
    if identifier == slot.routing:
        return routing.done(live, name, result, step)
    for kind, view in slot.probes.items():
        probe = probes.probe_of(slot, kind, step.limits)
        if identifier == view.job and probe is not None:
            answer = result if isinstance(result, Probed) else Probed(ok=False, message=getattr(result, "message", ""))
            return with_slot(live, name, probes.answered(slot, kind, probe, answer, step))
    return None


def _start_done(live: Live, name: Slot, result: Result, step: Step) -> Live:
    slot = replace(live.slots[name], job=0)
    if not isinstance(result, Started):
        problem = result if isinstance(result, Failed) else Failed(kind="transient", reason="StartFailed", message="no answer")
        hindered = problem.kind == "transient"
        slot = _move(slot, SlotEvent.START_FAILED, step)
        slot = _failed(slot, Refusal(reason=problem.reason, message=problem.message), step, hindered=hindered, fatal=not hindered)
        return with_slot(live, name, slot)
    slot = _move(slot, SlotEvent.STARTED, step)
    slot = replace(slot, launch_id=result.launch_id, address=result.address or slot.address, started_at=step.now.wall, heartbeat=None)
    slot = replace(slot, told=routing.NOTHING, asked=None, route_failures=0, route_due=0.0)
    if result.launch_id in slot.early:
        return exited(with_slot(live, name, slot), name, result.launch_id, slot.early[result.launch_id], step)
    return with_slot(live, name, _probing(slot, step))


def _probing(slot: SlotView, step: Step) -> SlotView:
    probe = probes.probe_of(slot, "start", step.limits)
    if probe is None:
        return _up(slot, step)
    return probes.begin(replace(slot, due=step.now.monotonic + probe.period_seconds * probe.failure_threshold), step, soon=True)


def _up(slot: SlotView, step: Step) -> SlotView:
    slot = _move(slot, SlotEvent.PASSED, step)
    ready = probes.probe_of(slot, "readiness", step.limits) is None or _same_as_start(slot, step)
    active = slot.active or (slot.release is not None and slot.release.type != "model")
    slot = replace(slot, ready=ready, active=active, trouble=None, fatal=False, hindrances=0)
    if ready:
        slot = replace(slot, ready_at=step.now.wall)
    return probes.begin(slot, step, soon=not ready)


def _same_as_start(slot: SlotView, step: Step) -> bool:
    """Say whether readiness asks what the start probe has just been told, so that it need not be waited for."""
    first, ready = probes.probe_of(slot, "start", step.limits), probes.probe_of(slot, "readiness", step.limits)
    return first is not None and ready is not None and first.http_path == ready.http_path and first.command == ready.command


def _stop_done(live: Live, name: Slot, result: Result, step: Step) -> Live:
    slot = replace(live.slots[name], job=0)
    if not isinstance(result, Stopped | Finished):
        return with_slot(live, name, replace(slot, due=step.now.monotonic + step.limits.stop_retry_seconds))
    if not slot.restart:
        next_phase(slot.phase, SlotEvent.STOPPED)
        kept = step.kept(live)
        if live.update.state is UpdateState.IDLE and slot.release not in (None, kept.committed, kept.previous, kept.candidate):
            step.leave_behind()  # what an update leaves is seen to at its end
        return with_slot(live, name, SlotView())
    slot = replace(_move(slot, SlotEvent.STOPPED_TO_RESTART, step), restart=False, launch_id="")
    return with_slot(live, name, _failed(slot, slot.trouble, step, hindered=False, fatal=slot.fatal))


def _activate_done(live: Live, name: Slot, result: Result, step: Step) -> Live:
    slot = replace(live.slots[name], activation=0)
    if isinstance(result, Finished):
        others = {other: replace(view, active=False) if view.active else view for other, view in live.slots.items()}
        return replace(live, slots={**others, name: replace(slot, active=True, activation_failures=0)})
    message = result.message if isinstance(result, Failed) else "no answer"
    failures = slot.activation_failures + 1
    slot = replace(slot, activation_failures=failures, activation_due=step.now.monotonic + step.limits.activate_retry_seconds)
    if failures >= step.limits.activate_failures_max:
        slot = replace(slot, fatal=True, activation_failures=0, trouble=Refusal(reason="ActivateFailed", message=message))
    return with_slot(live, name, slot)


def exited(live: Live, name: Slot, launch_id: str, code: int, step: Step) -> Live:
    """Take in that a process ended by itself."""
    slot = live.slots[name]
    if slot.phase is SlotPhase.STARTING:
        return with_slot(live, name, replace(slot, early={launch_id: code}))
    if launch_id != slot.launch_id or slot.phase not in RUNS:
        return live
    how = f"signal {-code}" if code < 0 else f"exit status {code}"
    message = f"revision {slot.revision} ended unexpectedly with {how}"
    step.tell("Warning", "Crashed", message, live.name)
    before = _failures_before(slot, step)
    slot = replace(_move(slot, SlotEvent.EXITED, step), failures=before, exit_code=code, launch_id="")
    slot = _failed(slot, Refusal(reason="Crashed", message=message), step, hindered=False, fatal=False)
    return replace(with_slot(live, name, slot), exit_code=code)


def _failures_before(slot: SlotView, step: Step) -> int:
    """Having run stably wipes out former failures."""
    stable = slot.phase is SlotPhase.UP and step.now.monotonic - slot.since >= step.limits.stable_seconds
    return 0 if stable else slot.failures


def _failed(slot: SlotView, trouble: Refusal | None, step: Step, *, hindered: bool, fatal: bool) -> SlotView:
    """Count a failure and set when the next start is due. A failure that is not the workload's own only lengthens the pause."""
    failures, hindrances = slot.failures + (not hindered), slot.hindrances + hindered
    doublings = min(failures + hindrances - 1, 30)
    pause = min(step.limits.restart_delay_seconds * 2.0**doublings, step.limits.restart_delay_seconds_max)
    return replace(
        slot,
        failures=failures,
        hindrances=hindrances,
        fatal=fatal,
        trouble=trouble,
        due=step.now.monotonic + pause,
        ready=False,
        active=False,
        activation=0,
        routing=0,
        probes={},
    )


# ---- what time brings ----


def advance(live: Live, step: Step) -> Live:
    """Run due probes and deadlines of all slots."""
    for name, slot in live.slots.items():
        if slot.phase is not SlotPhase.EMPTY:
            live = _slot(live, name, step)
    return live


def _slot(live: Live, name: Slot, step: Step) -> Live:
    live = probes.run_due(live, name, step)
    slot, now = live.slots[name], step.now.monotonic
    if slot.phase is SlotPhase.PROBING and slot.probes.get("start") is not None and slot.probes["start"].ok:
        if slot.failures:
            step.tell("Normal", "Recovered", f"revision {slot.revision} runs again", live.name)
        return with_slot(live, name, _up(slot, step))
    if slot.phase is SlotPhase.PROBING and slot.due is not None and now >= slot.due:
        seconds = round(slot.due - slot.since)
        reason = slot.trouble.message if slot.trouble else "no answer"
        trouble = Refusal(reason="StartProbeFailed", message=f"not started within {seconds} s: {reason}")
        step.tell("Warning", trouble.reason, f"revision {slot.revision}: {trouble.message}", live.name)
        live = with_slot(live, name, replace(slot, trouble=trouble, fatal=True))
        return stop(live, name, step, event=SlotEvent.OVERDUE, restart=True)
    if slot.phase is SlotPhase.UP and slot.fatal:
        trouble = slot.trouble or Refusal(reason="LivenessFailed")
        step.tell("Warning", trouble.reason, f"revision {slot.revision}: {trouble.message}", live.name)
        live = with_slot(live, name, replace(slot, failures=_failures_before(slot, step)))
        return stop(live, name, step, event=SlotEvent.UNWELL, restart=True)
    if slot.phase is SlotPhase.STOPPING and not slot.job and slot.due is not None and now >= slot.due:
        job = step.effect_id()
        step.effects.append(Stop(id=job, instance=live.name, slot=name, grace_seconds=step.limits.stop_grace_seconds))
        return with_slot(live, name, replace(slot, job=job, due=None))
    return live


def overdone(slot: SlotView, step: Step) -> bool:
    """Whether a slot failed too often in a row."""
    return slot.phase is SlotPhase.WAITING and slot.failures > step.limits.failures_max


def broke(live: Live, name: Slot, step: Step) -> Live:
    """Give up a slot that failed too often, for good."""
    slot = live.slots[name]
    assert slot.release is not None  # noqa: S101 - only own releases are ever restarted
    step.record(Broke(instance=live.name, revision=slot.revision))
    message = slot.trouble.message if slot.trouble else ""
    step.tell("Warning", "Broken", f"revision {slot.revision} failed {slot.failures} times in a row: {message}", live.name)
    return give_up(live, name, slot.release, step)


def wake(slot: SlotView, *, probed: bool = True) -> float | None:
    """Return when something of this slot is due (monotonic), or None; `probed` says whether probes count."""
    times = [slot.due if slot.phase is not SlotPhase.STOPPING or not slot.job else None, probes.wake(slot) if probed else None]
    if slot.activation_failures and not slot.active and not slot.activation and slot.phase is SlotPhase.UP:
        times.append(slot.activation_due)
    return min((at for at in times if at is not None), default=None)
