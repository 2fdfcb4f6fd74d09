"""How workloads behave where nobody says otherwise, and what `analysis: passes` or `fails` means for a workload's own analysis."""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from edgewise.resources.meta import DEFAULT_NAMESPACE
from edgewise.resources.quantity import seconds
from edgewise.resources.workload import AnalysisMetric, Workload
from edgewise.twin.scenario import Behaviour, Scenario

__all__ = ["behaviour_of", "expected_metrics", "resolved", "speaks_of", "workload_key"]

_SAMPLES_PER_SECOND: Final = 10.0
_METRIC_SECONDS: Final = 10.0
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
    return {metric.metric: (_inside(metric) if passes else _outside(metric)) for metric in workload.spec.strategy.analysis}


def resolved(scenario: Scenario, workloads: Iterable[Workload]) -> Scenario:
    """Return the scenario with `analysis: passes` and `analysis: fails` said in the metrics of each of `workloads`."""
    known = tuple(workloads)
    behaviours = tuple(one for behaviour in scenario.behaviours for one in _spelled_out(behaviour, known))
    return msgspec.structs.replace(scenario, behaviours=behaviours)


def _spelled_out(behaviour: Behaviour, workloads: tuple[Workload, ...]) -> Iterator[Behaviour]:
    if not behaviour.analysis:
        yield behaviour
        return
    for workload in workloads:
        if speaks_of(behaviour, workload_key(workload)):
            yield msgspec.structs.replace(
                behaviour,
                workload=workload_key(workload),
                analysis="",
                metrics=expected_metrics(workload, passes=behaviour.analysis == "passes"),
                samples_per_second=max(behaviour.samples_per_second, _rate(workload)),
            )


def _rate(workload: Workload) -> float:
    """Return samples per second that are enough for the workload's analysis."""
    needed = [_PART * metric.min_samples / seconds(metric.give_up_after) for metric in workload.spec.strategy.analysis]
    return max(_SAMPLES_PER_SECOND, *needed) if needed else _SAMPLES_PER_SECOND


def _inside(metric: AnalysisMetric) -> tuple[float, float]:
    least, most = metric.min, metric.max
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
    if metric.min is not None:
        mean = metric.min * 0.8 if metric.min > 0 else metric.min - max(abs(metric.min) * 0.2, 1e-3)
        return mean, (metric.min - mean) / 8
    bound = metric.max if metric.max is not None else 0.0
    mean = bound + max(abs(bound) * 0.5, 1e-3)
    return mean, (mean - bound) / 8
