"""A rollout's open wave under judgement: what was measured, with whom it is compared, what follows, and what of it is kept.

The evidence is counted in memory (`metrics.py`) and kept in a document of its own, so that a restart of the control plane loses at most
what came since the last time it was written.
"""

import msgspec

from edgewise.controllers.documents import create, put_spec, uid_of
from edgewise.controllers.members import Members
from edgewise.controllers.rows import EVIDENCE, EvidenceSpec, RolloutRow, WorkloadKey
from edgewise.controllers.view import FleetView
from edgewise.delivery.analysis import gives_up_at, judge, overall, winner
from edgewise.delivery.controls import Place, choose_controls
from edgewise.delivery.stages import stage_at
from edgewise.resources.quantity import fraction
from edgewise.resources.rollout import MetricVerdict, Winner
from edgewise.resources.states import AnalysisState, RolloutState
from edgewise.store.contract import Key, Write


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What the evidence says now. `winner`: of an A/B."""

    state: AnalysisState = AnalysisState.SUCCESSFUL
    verdicts: tuple[MetricVerdict, ...] = ()
    winner: Winner = ""


def evidence_key(workload: WorkloadKey) -> Key:
    """Return where a workload's evidence is kept."""
    return Key(EVIDENCE, *workload)


def judged(view: FleetView, rollout: RolloutRow, now: float) -> Judged:
    """Return what the evidence says of the open wave. Without a metric to judge by it is Successful."""
    status, stage = rollout.status, stage_at(rollout.spec, rollout.status.wave)
    if not stage.metrics or status.wave == 0 or status.analysis is AnalysisState.SUCCESSFUL:
        return Judged(verdicts=status.verdicts, winner=status.winner)
    measured = view.metrics.get(f"{rollout.key.namespace}/{rollout.spec.workload}")
    samples = measured.of() if measured is not None else {}
    verdicts = judge(stage.metrics, samples, fraction(rollout.spec.strategy.error_rate), status.healthy_since, now)
    state = overall(verdicts)
    if not stage.decides:
        return Judged(state=state, verdicts=verdicts)
    won = winner(verdicts)
    if state is AnalysisState.SUCCESSFUL and not won:
        # Not worse is not enough to win, and not yet the same.
        late = status.healthy_since is not None and now >= gives_up_at(stage.metrics, status.healthy_since)
        state = AnalysisState.INCONCLUSIVE if late else AnalysisState.RUNNING
    return Judged(state=state, verdicts=verdicts, winner=won)


def controls_of(view: FleetView, rollout: RolloutRow, members: Members) -> tuple[str, ...]:
    """Return the devices that the open wave is compared with. They are chosen once its members are, and stay."""
    status, stage = rollout.status, stage_at(rollout.spec, rollout.status.wave)
    if status.controls or status.wave == 0 or not stage.compares:
        return status.controls
    to, stable = rollout.spec.to_revision, rollout.spec.from_revision
    runs = [device for device, instance in members.instances.items() if instance.running and instance.spec.revision == to]
    if not runs:
        return ()
    old = (
        device
        for device, instance in members.instances.items()
        if instance.running and instance.spec.revision == instance.seen.committed == stable and device not in members.offline
    )
    most = view.limits.controllers.controls_max
    return choose_controls((_place(view, device) for device in runs), (_place(view, device) for device in old), most)


def _place(view: FleetView, device: str) -> Place:
    row = view.devices.get(device)
    if row is None:
        return Place(device=device, device_class="", site="")
    return Place(device=device, device_class=row.facts.device_class, site=row.facts.site)


def due_at(rollout: RolloutRow) -> list[float]:
    """Return when the open wave's judgement changes by the time alone."""
    status, stage = rollout.status, stage_at(rollout.spec, rollout.status.wave)
    if status.state is not RolloutState.PROGRESSING or status.healthy_since is None or status.analysis is AnalysisState.SUCCESSFUL:
        return []
    due = [status.healthy_since + stage.observe]
    return [*due, gives_up_at(stage.metrics, status.healthy_since)] if stage.metrics else due


def kept(view: FleetView, workload: WorkloadKey, now: float) -> Write | None:
    """Return the write that keeps what was measured since it was last kept, not more often than the limit says, or None."""
    measured = view.metrics.get(f"{workload[0]}/{workload[1]}")
    if measured is None:
        return None
    due = view.kept_at.get(workload, 0.0) + view.limits.controllers.evidence_interval_seconds
    if now < due:
        view.timers.sooner(("workload", *workload), due)
        return None
    stored, known = measured.stored() if measured.of() else b"", view.evidence.get(workload)
    if not stored or (known is not None and known.stored == stored):
        return None
    view.kept_at[workload] = now
    if known is not None:
        return put_spec(known, EvidenceSpec(stored=stored))
    key = evidence_key(workload)
    return create(key, uid_of(key, view.epoch, view.revision), EvidenceSpec(stored=stored))
