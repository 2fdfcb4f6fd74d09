"""The invariant of what becomes of a shadow, counted from what devices report alone."""

from typing import TYPE_CHECKING, Final

import msgspec

from edgewise.controllers.gateway import ReportDecision
from edgewise.controllers.reconcile import Decision
from edgewise.controllers.rows import RolloutRow
from edgewise.delivery.stages import stages_of
from edgewise.resources.instance import InstanceSpec
from edgewise.resources.quantity import fraction
from edgewise.resources.states import AnalysisState
from edgewise.resources.workload import AnalysisMetric
from edgewise.store.contract import Put
from edgewise.twin.observers import Observer
from edgewise.wire.report import FrameReport, Report

if TYPE_CHECKING:
    from edgewise.twin.world import World

_SPEC: Final = msgspec.msgpack.Decoder(InstanceSpec)
_CLEARLY: Final = 2.0


class ShadowFirst(Observer):
    """shadow-first. Counts what the shadows of every revision reported since the run began, whoever judged what of it. A bound is
    overstepped only where all of it together is twice as bad: a wave counts from its own beginning, and what is kept may lag."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, str], tuple[int, float]] = {}

    def reported(self, world: "World", agent: str, report: Report, decision: ReportDecision) -> None:
        """See `Observer`."""
        del world, agent, decision
        for items in report.lanes.values():
            for item in items.items:
                for series in item.series if isinstance(item, FrameReport) else ():
                    key = (series.instance, series.revision, series.name)
                    count, total = self._sums.get(key, (0, 0.0))
                    self._sums[key] = (count + series.count, total + series.sum)

    def decided(self, world: "World", decision: Decision) -> None:
        """See `Observer`."""
        view = world.control.view
        for transaction in decision.transactions:
            for write in transaction.writes:
                if not isinstance(write, Put) or write.key.kind != "Instance":
                    continue
                spec = _SPEC.decode(write.spec)
                rollout = view.rollouts.get((write.key.namespace, spec.workload), {}).get(spec.rollout)
                if rollout is None or spec.revision != rollout.spec.to_revision or spec.traffic is not None or spec.wave == 0:
                    continue
                if spec.desired != "Running":  # its device leaves the fleet
                    continue
                why = self._too_early(rollout, f"{write.key.namespace}/{spec.workload}")
                if why:
                    world.violated("shadow-first", rollout.key.name, f"{spec.device} is to serve {spec.revision}: {why}")

    def _too_early(self, rollout: RolloutRow, instance: str) -> str:
        shadow = stages_of(rollout.spec)[0]
        if shadow.phase != "Shadow" or rollout.spec.promote or rollout.status.promoted:
            return ""
        if not any(stage.wave == 1 and stage.state is AnalysisState.SUCCESSFUL for stage in rollout.status.stages):
            return "its shadow was not judged Successful"
        said = (self._outside(metric, instance, rollout.spec.to_revision) for metric in shadow.metrics)
        return "; ".join(each for each in said if each)

    def _outside(self, metric: AnalysisMetric, instance: str, revision: str) -> str:
        count, total = self._sums.get((instance, revision, metric.metric), (0, 0.0))
        if count < metric.min_samples:
            return f"{metric.metric}: {count} of {metric.min_samples} samples"
        if metric.max is not None and total / count > _CLEARLY * fraction(metric.max):
            return f"{metric.metric}: {total / count:.3g} is far above {metric.max}"
        return ""
