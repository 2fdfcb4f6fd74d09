"""What a comparison found, in words with the numbers."""

from collections.abc import Callable
from typing import Final

from edgewise.delivery.evidence.units import UNIT_RANGE, Side
from edgewise.resources.rollout import MetricVerdict
from edgewise.resources.workload import AnalysisMetric

Allowed = Callable[[float], float]
"""From a value of the old revision to the last value of the new one that is still as good."""

_SECONDS: Final = "duration"


def waiting(metric: AnalysisMetric, new: Side, old: Side) -> str:
    """Return what a comparison still waits for."""
    counts = f"{new.count} and {old.count} of {metric.min_samples} samples of the new revision and of the one before"
    if not old.count and new.count:
        return f"nothing to compare with: no device reported it of the revision before ({counts})"
    if metric.quantile is not None and min(new.count, old.count) >= metric.min_samples:
        return f"no histogram to take a quantile of ({counts})"
    return counts


def in_words(metric: AnalysisMetric, verdict: MetricVerdict, left_out: int = 0) -> str:
    """Return what was found, in one sentence."""
    difference, new, old = verdict.difference, verdict.new, verdict.old
    if difference is None or new is None or old is None:
        return verdict.message
    what = metric.metric if metric.quantile is None else f"{metric.metric} (quantile {metric.quantile:g})"
    size = abs(difference.value)
    moved = "higher" if difference.value > 0 else "lower"
    change = f"{amount(metric.metric, size)} {moved}" if size else "the same"
    low = "below" if difference.low is None else amount(metric.metric, difference.low, unit=False)
    high = "above" if difference.high is None else amount(metric.metric, difference.high)
    interval = f"{difference.confidence * 100:.4g} % interval {_range(low, high)}"
    devices = f"{new.devices} {_plural(new.devices, 'device')} against {old.devices}"
    text = (
        f"{what} of the new revision is {change} ({value(metric.metric, old.value)} -> {value(metric.metric, new.value)}, "
        f"{interval}, {devices}): {_conclusion(metric, verdict)}"
    )
    if verdict.clipped:
        text += f"; {verdict.clipped} {_plural(verdict.clipped, 'device')} far outside the others counted as less extreme"
    if left_out:
        text += f"; {left_out} {_plural(left_out, 'device')} of a class without a control left out"
    return text


def _range(low: str, high: str) -> str:
    if low == "below" and high == "above":
        return "without bounds yet"
    if low == "below":
        return f"up to {high}"
    return f"from {low} up" if high == "above" else f"{low} to {high}"


def _conclusion(metric: AnalysisMetric, verdict: MetricVerdict) -> str:
    margin = amount(metric.metric, verdict.margin or 0.0)
    match verdict.finding:
        case "worse":
            return f"worse than the margin of {margin}"
        case "better":
            return "better"
        case "same":
            return f"no difference beyond the margin of {margin}"
        case "within":
            return f"not worse than the margin of {margin}"
        case _:
            return f"not yet clear whether it is worse than the margin of {margin}"


def value(name: str, number: float) -> str:
    """Return a value of a metric: shares in per cent, durations in seconds or milliseconds."""
    if name in UNIT_RANGE:
        return f"{number * 100:.1f} %"
    return amount(name, number)


def amount(name: str, number: float, *, unit: bool = True) -> str:
    """Return a difference of a metric: shares in points."""
    if name in UNIT_RANGE:
        text = f"{number * 100:.2g}" if abs(number) < 0.001 else f"{number * 100:.1f}".removesuffix(".0")
        return f"{text} {'point' if text == '1' else 'points'}" if unit else text
    if name.endswith(_SECONDS):
        return f"{number * 1000:.3g} ms" if abs(number) < 1 else f"{number:.3g} s"
    return f"{number:.4g}"


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"
