"""How workloads behave where nobody says otherwise, and what `analysis: passes` or `fails` means for a workload's own analysis."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from edgewise.delivery.evidence.units import UNIT_RANGE
from edgewise.resources.meta import DEFAULT_NAMESPACE
from edgewise.resources.quantity import fraction, seconds
from edgewise.resources.workload import AnalysisMetric, Workload
from edgewise.twin.scenario import Behaviour, Scenario

__all__ = ["behaviour_of", "expected_metrics", "resolved", "speaks_of", "workload_key"]

_SAMPLES_PER_SECOND: Final = 10.0
_METRIC_SECONDS: Final = 10.0
_GOOD_SHARE: Final = 0.9
_CLEARLY: Final = 4.0
_PART: Final = 3.0
"""The least samples of an analysis arrive in this part of the time after which it gives up, from one device alone."""


def workload_key(workload: Workload) -> str:
    """Return NAMESPACE/NAME."""
    return f"{workload.metadata.namespace or DEFAULT_NAMESPACE}/{workload.metadata.name}"


def speaks_of(behaviour: Behaviour, key: str) -> bool:
    """Return whether a behaviour is about the workload NAMESPACE/NAME."""
    return behaviour.workload in {"", key, key.partition("/")[2]}


def behaviour_of(workload: Workload, *, passes: bool = True, version: str = "") -> Behaviour:
    """Return how a sound version of `workload` behaves: what its analysis measures is safely inside the bounds, or outside, and comes
    often enough to be judged in time."""
    return Behaviour(
        workload=workload_key(workload),
        version=version,
        metrics=expected_metrics(workload, passes=passes),
        metric_seconds=_METRIC_SECONDS,
        samples_per_second=_rate(workload),
    )


def expected_metrics(workload: Workload, *, passes: bool) -> dict[str, tuple[float, float]]:
    """Return a mean and a standard deviation for each metric of the workload's analysis: safely inside its bounds, or safely outside."""
    analysis = workload.spec.strategy.analysis
    compared = {metric.metric: _beside(metric, passes=passes) for metric in analysis if metric.direction is not None}
    bounded = {metric.metric: (_inside(metric) if passes else _outside(metric)) for metric in analysis if metric.direction is None}
    # What lies outside its bounds is also worse than what lies inside them.
    return compared | bounded


def resolved(
    scenario: Scenario, workloads: Iterable[Workload], usual: Sequence[Behaviour] = (), new: frozenset[str] = frozenset()
) -> Scenario:
    """Return the scenario with behaviours that say everything, followed by the `usual` ones.

    `analysis: passes` and `analysis: fails` are said in the metrics of each of `workloads`. A behaviour that says nothing of metrics says
    how else a workload behaves: it measures what it usually does. `new`: the versions, of those that `usual` names, that are new.
    """
    known = tuple(workloads)
    behaviours: list[Behaviour] = []
    for behaviour in scenario.behaviours:
        if behaviour.analysis:
            behaviours.extend(_judged(behaviour, known))
        elif behaviour.metrics:
            behaviours.append(behaviour)
        else:
            behaviours.extend(_measuring(behaviour, usual, new))
    return msgspec.structs.replace(scenario, behaviours=(*behaviours, *usual))


def _judged(behaviour: Behaviour, workloads: tuple[Workload, ...]) -> Iterator[Behaviour]:
    for workload in workloads:
        if speaks_of(behaviour, workload_key(workload)):
            yield msgspec.structs.replace(
                behaviour,
                workload=workload_key(workload),
                analysis="",
                metrics=expected_metrics(workload, passes=behaviour.analysis == "passes"),
                samples_per_second=max(behaviour.samples_per_second, _rate(workload)),
            )


def _measuring(behaviour: Behaviour, usual: Sequence[Behaviour], new: frozenset[str]) -> Iterator[Behaviour]:
    """Yield a behaviour with what the usual ones measure, as far as both can be meant at once."""
    for one in usual:
        version = _both(behaviour.version, one.version, new)
        if version is not None and one.metrics and speaks_of(behaviour, one.workload):
            yield msgspec.structs.replace(
                behaviour,
                workload=one.workload,
                version=version,
                metrics=one.metrics,
                metric_seconds=one.metric_seconds,
                samples_per_second=max(behaviour.samples_per_second, one.samples_per_second),
            )
    yield behaviour


def _both(wanted: str, usual: str, new: frozenset[str]) -> str | None:
    """Return the version that is meant where both must match, or None where none is."""
    if not usual or wanted == usual:
        return wanted
    if not wanted:
        return usual
    return usual if wanted == ("new" if usual in new else "old") else None


def _rate(workload: Workload) -> float:
    """Return samples per second that are enough for the workload's analysis."""
    needed = [_PART * metric.min_samples / seconds(metric.give_up_after) for metric in workload.spec.strategy.analysis]
    return max(_SAMPLES_PER_SECOND, *needed) if needed else _SAMPLES_PER_SECOND


def _beside(metric: AnalysisMetric, *, passes: bool) -> tuple[float, float]:
    """Return what a revision that is as good as another one measures, or one that is clearly worse."""
    share = metric.metric in UNIT_RANGE
    usual = 1.0 if not share else _GOOD_SHARE if metric.direction == "higher" else 1.0 - _GOOD_SHARE
    margin = fraction(metric.margin or 0.0) * (usual if isinstance(metric.margin, str) else 1.0)
    if passes:
        return usual, margin / 2
    worse = usual - _CLEARLY * margin if metric.direction == "higher" else usual + _CLEARLY * margin
    return (min(1.0, max(0.0, worse)) if share else worse), margin / 2


def _bounds(metric: AnalysisMetric) -> tuple[float | None, float | None]:
    return (None if metric.min is None else fraction(metric.min), None if metric.max is None else fraction(metric.max))


def _inside(metric: AnalysisMetric) -> tuple[float, float]:
    least, most = _bounds(metric)
    if least is not None and most is not None:
        return (least + most) / 2, (most - least) / 20
    if least is not None:
        # Shares (accuracy, precision) end at 1.
        mean = least + (1 - least) / 2 if 0 <= least < 1 else least + max(abs(least) * 0.1, 1e-6)
        return mean, (mean - least) / 4
    bound = most if most is not None else 0.0
    mean = bound * 0.7 if bound > 0 else bound - max(abs(bound) * 0.3, 1e-6)
    return mean, (bound - mean) / 4


def _outside(metric: AnalysisMetric) -> tuple[float, float]:
    least, most = _bounds(metric)
    if least is not None:
        mean = least * 0.8 if least > 0 else least - max(abs(least) * 0.2, 1e-3)
        return mean, (least - mean) / 8
    bound = most if most is not None else 0.0
    mean = bound + max(abs(bound) * 0.5, 1e-3)
    return mean, (mean - bound) / 8
