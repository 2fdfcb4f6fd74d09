"""What must hold of a workload's strategy beyond the types of its fields."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from edgewise.resources._rules import exactly_one, unique
from edgewise.resources.errors import Problem
from edgewise.resources.quantity import fraction, seconds
from edgewise.resources.workload import AB, AnalysisMetric, BlueGreen, Canary, Shadow, Strategy

SHADOW_METRICS: Final = "model.shadow."
"""How the metrics begin that a candidate in the shadow reports."""

_CANARY: Final = Canary()


def strategy_rules(path: str, strategy: Strategy) -> Iterator[Problem]:
    """Yield what is wrong with a strategy."""
    chosen = {"canary": strategy.canary != _CANARY, "ab": strategy.ab is not None, "blueGreen": strategy.blue_green is not None}
    if sum(chosen.values()) > 1:
        yield from exactly_one(path, chosen)
    yield from _canary(f"{path}.canary", strategy.canary)
    if strategy.shadow is not None:
        yield from _shadow(path, strategy, strategy.shadow)
    if strategy.ab is not None:
        yield from _ab(path, strategy, strategy.ab)
    if strategy.blue_green is not None:
        yield from _blue_green(f"{path}.blueGreen", strategy.blue_green)
    if not 0 < fraction(strategy.error_rate) < 0.5:
        yield Problem(path=f"{path}.errorRate", message=f"{strategy.error_rate} is not between 0% and 50%", hint="1% is usual")
    yield from _analysis(f"{path}.analysis", strategy)


def _shadow(path: str, strategy: Strategy, shadow: Shadow) -> Iterator[Problem]:
    other = "ab" if strategy.ab is not None else "blueGreen" if strategy.blue_green is not None else ""
    if other:
        yield Problem(path=f"{path}.shadow", message=f"goes before a canary, not before {other}", hint=f"remove shadow or {other}")
    if _size(shadow.devices) == 0:
        yield Problem(path=f"{path}.shadow.devices", message="must be more than 0")
    if fraction(shadow.share) == 0:
        yield Problem(path=f"{path}.shadow.share", message="must be more than 0%")
    if not any(metric.metric.startswith(SHADOW_METRICS) for metric in strategy.analysis):
        yield Problem(
            path=f"{path}.shadow",
            message=f"nothing judges the shadow: analysis has no metric that begins with {SHADOW_METRICS}",
            hint=f"add {{metric: {SHADOW_METRICS}disagreement, max: 2%, minSamples: 100}}",
        )


def _ab(path: str, strategy: Strategy, ab: AB) -> Iterator[Problem]:
    if _size(ab.devices) == 0:
        yield Problem(path=f"{path}.ab.devices", message="must be more than 0")
    if not 0 < fraction(ab.share) < 1:
        yield Problem(path=f"{path}.ab.share", message=f"{ab.share} leaves one of the two without a request: between 0% and 100%")
    for field, duration in (("giveUpAfter", ab.give_up_after), ("deviceDeadline", ab.device_deadline)):
        if seconds(duration) <= 0:
            yield Problem(path=f"{path}.ab.{field}", message="must be more than 0")
    if not any(metric.direction is not None for metric in strategy.analysis):
        yield Problem(
            path=f"{path}.ab",
            message="nothing tells who wins: analysis compares no metric",
            hint="add {metric: model.accuracy, direction: higher, margin: 0.01, minSamples: 100}",
        )


def _blue_green(path: str, blue_green: BlueGreen) -> Iterator[Problem]:
    if seconds(blue_green.device_deadline) <= 0:
        yield Problem(path=f"{path}.deviceDeadline", message="must be more than 0")


def _canary(path: str, canary: Canary) -> Iterator[Problem]:
    for word, kind in (("counts", int), ("percentages", str)):
        sizes = [(index, _size(wave)) for index, wave in enumerate(canary.waves) if isinstance(wave, kind)]
        for (_, before), (index, after) in pairwise(sizes):
            if after <= before:
                yield Problem(
                    path=f"{path}.waves[{index}]", message=f"waves must grow: {word} are cumulative, each greater than the one before"
                )
    for index, wave in enumerate(canary.waves):
        if _size(wave) == 0:
            yield Problem(path=f"{path}.waves[{index}]", message="must be more than 0")
    if canary.waves[-1] not in {"100%", "100.0%"}:
        yield Problem(path=f"{path}.waves", message="the last wave must be 100%", hint='end the list with "100%"')
    if seconds(canary.device_deadline) <= 0:
        yield Problem(path=f"{path}.deviceDeadline", message="must be more than 0")


def _size(wave: int | str) -> float:
    return wave if isinstance(wave, int) else float(wave.removesuffix("%"))


def _analysis(path: str, strategy: Strategy) -> Iterator[Problem]:
    for field, compared in (("metric", False), ("compared metric", True)):
        names = (_judged(metric) for metric in strategy.analysis if (metric.direction is not None) is compared)
        yield from unique(path, field, names)
    for index, metric in enumerate(strategy.analysis):
        yield from _metric(f"{path}[{index}]", metric)
        yield from _comparable(f"{path}[{index}].direction", strategy, metric)
        if metric.metric.startswith(SHADOW_METRICS) and strategy.shadow is None:
            yield Problem(
                path=f"{path}[{index}].metric",
                message=f"{metric.metric} is reported by a shadow only, and this strategy has none",
                hint="add strategy.shadow or remove this metric",
            )


def _comparable(path: str, strategy: Strategy, metric: AnalysisMetric) -> Iterator[Problem]:
    """Yield why there would be nothing to compare a metric with."""
    if metric.direction is None:
        return
    hint = "judge it by min or max"
    if metric.metric.startswith(SHADOW_METRICS):
        yield Problem(path=path, message=f"{metric.metric} is the difference to the revision before: nothing to compare it with", hint=hint)
    elif strategy.blue_green is not None:
        yield Problem(path=path, message="all devices switch at once: none is left to compare with", hint=hint)
    elif strategy.ab is None and strategy.canary.waves[0] in {"100%", "100.0%"}:
        message = "the first wave has all devices: none is left to compare with"
        yield Problem(path=path, message=message, hint=f"{hint}, or add a smaller wave")


def _judged(metric: AnalysisMetric) -> str:
    return metric.metric if metric.quantile is None else f"{metric.metric} (quantile {metric.quantile:g})"


def _metric(path: str, metric: AnalysisMetric) -> Iterator[Problem]:
    if not metric.metric:
        yield Problem(path=f"{path}.metric", message="must not be empty")
    threshold = metric.min is not None or metric.max is not None
    if not threshold and metric.direction is None:
        yield Problem(path=path, message="needs min or max, or both, or a direction to compare by")
    if threshold and metric.direction is not None:
        yield Problem(
            path=path,
            message="has a threshold and a direction",
            hint="make it two entries: one with min or max, one with direction and margin",
        )
    if threshold:
        yield from _threshold(path, metric)
    if metric.direction is not None and metric.margin is None:
        hint = "for example margin: 0.01, or margin: 10% of what the revision before reaches"
        yield Problem(path=f"{path}.margin", message="is missing: how much worse is still as good?", hint=hint)
    if metric.margin is not None:
        yield from _margin(path, metric, metric.margin)
    if metric.quantile is not None and not 0 < metric.quantile < 1:
        yield Problem(path=f"{path}.quantile", message=f"{metric.quantile:g} is not between 0 and 1", hint="0.95 is the 95th percentile")
    if seconds(metric.give_up_after) <= 0:
        yield Problem(path=f"{path}.giveUpAfter", message="must be more than 0")


def _threshold(path: str, metric: AnalysisMetric) -> Iterator[Problem]:
    least, most = (None if bound is None else fraction(bound) for bound in (metric.min, metric.max))
    if least is not None and most is not None and least > most:
        yield Problem(path=f"{path}.min", message=f"{metric.min} is greater than max, {metric.max}")
    if any(bound is not None and math.isnan(bound) for bound in (least, most)):
        yield Problem(path=path, message="min and max must be numbers")


def _margin(path: str, metric: AnalysisMetric, margin: float | str) -> Iterator[Problem]:
    if metric.direction is None:
        yield Problem(path=f"{path}.margin", message="belongs to a comparison", hint="add direction: higher or direction: lower")
    if not (0 < fraction(margin) < math.inf):
        yield Problem(path=f"{path}.margin", message=f"{_said(margin)} is not more than 0: two revisions never differ by nothing at all")


def _said(bound: float | str) -> str:
    return bound if isinstance(bound, str) else f"{bound:g}"
