"""Probes of a slot: which there are, when they run, what their answers mean."""

from typing import Final

from edgewise.engine.limits import EngineLimits
from edgewise.engine.model import Live, ProbeView, SlotView, Step, replace, with_slot
from edgewise.engine.protocol import Probed, ProbeKind, RunProbe, Slot
from edgewise.engine.records import Refusal, Release
from edgewise.engine.tables import SlotPhase
from edgewise.resources.artifact import Probe, Probes

_BY_PHASE: Final[dict[SlotPhase, tuple[ProbeKind, ...]]] = {
    SlotPhase.PROBING: ("start",),
    SlotPhase.UP: ("readiness", "liveness"),
}


def probes_of(release: Release, limits: EngineLimits) -> Probes:
    """Return the probes of a release. A model without any is asked for `/ready` on its control socket: its
    start probe says when it is ready, its liveness probe whether it still is."""
    if release.type != "model" or release.variant.probes != Probes():
        return release.variant.probes
    threshold = max(1, round(limits.model_start_seconds))
    return Probes(
        start=Probe(http_path="/ready", period_seconds=1.0, failure_threshold=threshold),
        liveness=Probe(http_path="/ready", period_seconds=limits.model_probe_seconds),
    )


def probe_of(slot: SlotView, kind: ProbeKind, limits: EngineLimits) -> Probe | None:
    """Return one probe of what a slot runs, or None."""
    if slot.release is None:
        return None
    probes = probes_of(slot.release, limits)
    return {"start": probes.start, "readiness": probes.readiness, "liveness": probes.liveness}[kind]


def begin(slot: SlotView, step: Step, *, soon: bool) -> SlotView:
    """Set up the probes that belong to the slot's new phase; liveness waits for one period, the others run soon."""
    now = step.now.monotonic
    views: dict[ProbeKind, ProbeView] = {}
    for kind in _BY_PHASE.get(slot.phase, ()):
        probe = probe_of(slot, kind, step.limits)
        if probe is not None:
            at_once = soon and kind != "liveness"
            views[kind] = ProbeView(
                due=now + (min(step.limits.probe_first_seconds, probe.period_seconds) if at_once else probe.period_seconds)
            )
    return replace(slot, probes=views)


def wake(slot: SlotView) -> float | None:
    """Return when the next probe is due (monotonic), or None."""
    return min((view.due for view in slot.probes.values() if not view.job), default=None)


def run_due(live: Live, name: Slot, step: Step) -> Live:
    """Run the probes that are due; heartbeats are judged here and now."""
    for kind in _BY_PHASE.get(live.slots[name].phase, ()):
        slot = live.slots[name]
        view, probe = slot.probes.get(kind), probe_of(slot, kind, step.limits)
        if view is None or probe is None or view.job or step.now.monotonic < view.due:
            continue
        if probe.heartbeat:
            heard = slot.heartbeat is not None and slot.heartbeat >= step.now.monotonic - probe.period_seconds
            live = with_slot(live, name, answered(slot, kind, probe, Probed(ok=heard, message="no heartbeat"), step))
        else:
            job = step.effect_id()
            step.effects.append(RunProbe(id=job, instance=live.name, slot=name, kind=kind, probe=probe))
            live = with_slot(live, name, replace(slot, probes={**slot.probes, kind: replace(view, job=job)}))
    return live


def answered(slot: SlotView, kind: ProbeKind, probe: Probe, answer: Probed, step: Step) -> SlotView:
    """Take in one answer. What is waited for is asked quickly at first, ever slower up to the probe's period."""
    view = slot.probes[kind]
    failures = 0 if answer.ok else view.failures + 1
    awaited = kind == "start" or (kind == "readiness" and not slot.ready)
    quick = min(probe.period_seconds, step.limits.probe_first_seconds * 2.0 ** min(view.tries, 30))
    due = step.now.monotonic + (quick if awaited and not answer.ok else probe.period_seconds)
    view = replace(view, job=0, due=due, tries=view.tries + 1, failures=failures, ok=view.ok or answer.ok)
    slot = replace(slot, probes={**slot.probes, kind: view})
    if kind == "readiness":
        return _readiness(slot, probe, answer, step)
    if kind == "liveness" and failures >= probe.failure_threshold:
        trouble = Refusal(reason="LivenessFailed", message=f"liveness probe failed {failures} times: {answer.message}")
        return replace(slot, trouble=trouble, fatal=True)
    if kind == "start" and not answer.ok and answer.message:
        return replace(slot, trouble=Refusal(reason="StartProbeFailed", message=f"start probe: {answer.message}"))
    return slot


def _readiness(slot: SlotView, probe: Probe, answer: Probed, step: Step) -> SlotView:
    if answer.ok:
        return slot if slot.ready else replace(slot, ready=True, ready_at=step.now.wall)
    if slot.ready and slot.probes["readiness"].failures >= probe.failure_threshold:
        return replace(slot, ready=False, trouble=Refusal(reason="ReadinessLost", message=f"readiness probe: {answer.message}"))
    return slot


def heard(live: Live, step: Step) -> Live:
    """Take in a heartbeat: it counts for every slot that runs, and those that wait for their first one are judged at once."""
    for name in live.slots:
        slot = live.slots[name]
        if slot.phase not in _BY_PHASE:
            continue
        views = dict(slot.probes)
        for kind, view in slot.probes.items():
            probe = probe_of(slot, kind, step.limits)
            if probe is not None and probe.heartbeat and not view.ok:
                views[kind] = replace(view, due=step.now.monotonic)
        live = with_slot(live, name, replace(slot, heartbeat=step.now.monotonic, probes=views))
    return live
