"""Is the new revision good enough? Thresholds on the means of reported metrics, each with a least number of samples."""

from collections.abc import Mapping

import msgspec

from edgewise.resources.quantity import fraction, seconds
from edgewise.resources.rollout import MetricVerdict
from edgewise.resources.states import AnalysisState
from edgewise.resources.workload import AnalysisMetric


class Sum(msgspec.Struct, frozen=True):
    """Samples of one metric: how many, and their sum."""

    count: int = 0
    total: float = 0.0


def judge(
    metrics: tuple[AnalysisMetric, ...], sums: Mapping[str, Sum], healthy_since: float | None, now: float
) -> tuple[MetricVerdict, ...]:
    """Return a verdict for each metric. One with enough samples is judged at once; one without is Inconclusive when `give_up_after`
    has passed since the wave became healthy."""
    return tuple(_judge(metric, sums.get(metric.metric, Sum()), healthy_since, now) for metric in metrics)


def overall(verdicts: tuple[MetricVerdict, ...]) -> AnalysisState:
    """Return what the verdicts mean together: one failure fails all; nothing to judge is a success."""
    states = {verdict.state for verdict in verdicts}
    for state in (AnalysisState.FAILED, AnalysisState.INCONCLUSIVE, AnalysisState.RUNNING):
        if state in states:
            return state
    return AnalysisState.SUCCESSFUL


def gives_up_at(metrics: tuple[AnalysisMetric, ...], healthy_since: float) -> float:
    """Return when the first metric without enough samples becomes Inconclusive."""
    return healthy_since + min(seconds(metric.give_up_after) for metric in metrics)


def _judge(metric: AnalysisMetric, measured: Sum, healthy_since: float | None, now: float) -> MetricVerdict:
    count = measured.count
    mean = measured.total / count if count else None
    if mean is None or count < metric.min_samples:
        late = healthy_since is not None and now >= healthy_since + seconds(metric.give_up_after)
        return MetricVerdict(
            metric=metric.metric,
            state=AnalysisState.INCONCLUSIVE if late else AnalysisState.RUNNING,
            mean=mean,
            samples=count,
            message=f"{count} of {metric.min_samples} samples",
        )
    bad = _out_of_bounds(metric, mean)
    return MetricVerdict(
        metric=metric.metric,
        state=AnalysisState.FAILED if bad else AnalysisState.SUCCESSFUL,
        mean=mean,
        samples=count,
        message=bad,
    )


def _out_of_bounds(metric: AnalysisMetric, mean: float) -> str:
    # Written so that a mean that is not a number is out of bounds.
    if metric.min is not None and not mean >= fraction(metric.min):
        return f"mean {mean:.6g} is below {fraction(metric.min):.6g}"
    if metric.max is not None and not mean <= fraction(metric.max):
        return f"mean {mean:.6g} is above {fraction(metric.max):.6g}"
    return ""
