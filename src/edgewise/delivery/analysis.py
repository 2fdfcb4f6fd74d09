"""Is the new revision good enough? Thresholds on what it reports, and comparisons with the revision before, over the same time.

A comparison asks two questions, each with an e-value that may be looked at after every report (`evidence/`). Is it worse than the margin?
That fails the rollout, and all compared metrics share the error rate in equal parts (Bonferroni), for any of them can take a sound revision
back. Is it surely not worse than the margin? Only if that holds for every metric does it succeed, so each may use the whole rate (an
intersection-union test, Berger 1982). Too little of either is no verdict, and never a success.
"""

import math
from collections.abc import Mapping
from typing import Literal

import msgspec

from edgewise.delivery import findings
from edgewise.delivery.evidence.compare import compare
from edgewise.delivery.evidence.mixture import Estimate, e_value, radius
from edgewise.delivery.evidence.quantiles import QuantileInterval, quantile, quantile_interval
from edgewise.delivery.evidence.units import UNIT_RANGE, Side, Sides
from edgewise.resources.quantity import fraction, seconds
from edgewise.resources.rollout import Difference, Finding, MetricVerdict, SideEstimate
from edgewise.resources.states import AnalysisState
from edgewise.resources.workload import AnalysisMetric

_NONE = Sides()


def judge(
    metrics: tuple[AnalysisMetric, ...], samples: Mapping[str, Sides], error_rate: float, healthy_since: float | None, now: float
) -> tuple[MetricVerdict, ...]:
    """Return a verdict for each metric. A threshold with enough samples is judged at once, a comparison once its evidence suffices; what
    is undecided when `give_up_after` has passed since the wave became healthy is Inconclusive. `error_rate`: of a rollout's wrong
    failures, over all compared metrics together, and of its wrong successes; however often this is called with ever more samples."""
    compared = sum(1 for metric in metrics if metric.direction is not None)
    verdicts: list[MetricVerdict] = []
    for metric in metrics:
        late = healthy_since is not None and now >= healthy_since + seconds(metric.give_up_after)
        undecided = AnalysisState.INCONCLUSIVE if late else AnalysisState.RUNNING
        sides = samples.get(metric.metric, _NONE)
        if metric.direction is None:
            verdicts.append(_threshold(metric, sides.wave if sides.wave is not None else sides.new, undecided))
        else:
            verdicts.append(_compared(metric, sides, _Rates(harm=error_rate / compared, soundness=error_rate), undecided))
    return tuple(verdicts)


def overall(verdicts: tuple[MetricVerdict, ...]) -> AnalysisState:
    """Return what the verdicts mean together: one failure fails all; nothing to judge is a success."""
    states = {verdict.state for verdict in verdicts}
    for state in (AnalysisState.FAILED, AnalysisState.INCONCLUSIVE, AnalysisState.RUNNING):
        if state in states:
            return state
    return AnalysisState.SUCCESSFUL


def winner(verdicts: tuple[MetricVerdict, ...]) -> Literal["", "new", "old", "none"]:
    """Return how an A/B stands by its verdicts. `old`: the new revision failed in something. `new`: it is better in something and worse
    than the margin in nothing. `none`: every compared metric is the same but for its margin. Empty: not known yet."""
    if any(verdict.state is AnalysisState.FAILED for verdict in verdicts):
        return "old"
    if any(verdict.state is not AnalysisState.SUCCESSFUL for verdict in verdicts):
        return ""
    found = {verdict.finding for verdict in verdicts if verdict.finding}
    if "better" in found:
        return "new"
    return "none" if found == {"same"} else ""


def gives_up_at(metrics: tuple[AnalysisMetric, ...], healthy_since: float) -> float:
    """Return when the first metric without enough samples becomes Inconclusive."""
    return healthy_since + min(seconds(metric.give_up_after) for metric in metrics)


# ---- thresholds ----


def _threshold(metric: AnalysisMetric, side: Side, undecided: AnalysisState) -> MetricVerdict:
    count = side.count
    value = _measured(metric, side) if count else None
    if value is None or count < metric.min_samples:
        state, message = undecided, f"{count} of {metric.min_samples} samples"
        if value is None and count:
            message = f"{count} samples, but no histogram to take a quantile of"
    else:
        message = _out_of_bounds(metric, value)
        state = AnalysisState.FAILED if message else AnalysisState.SUCCESSFUL
    return MetricVerdict(
        metric=metric.metric,
        state=state,
        mean=value,
        samples=count,
        message=message,
        quantile=metric.quantile,
        new=SideEstimate(value=value, samples=count, devices=side.devices) if value is not None and math.isfinite(value) else None,
        dropped=side.dropped,
    )


def _measured(metric: AnalysisMetric, side: Side) -> float | None:
    if metric.quantile is None:
        return side.total / side.count
    rows = [cell.buckets for cell in side.cells.values() if len(cell.buckets) == len(side.bounds) + 1]
    if not side.bounds or not rows:
        return None
    value = quantile(side.bounds, [sum(column) for column in zip(*rows, strict=True)], metric.quantile)
    return None if math.isnan(value) else value


def _out_of_bounds(metric: AnalysisMetric, value: float) -> str:
    what = "mean" if metric.quantile is None else f"quantile {metric.quantile:g}"
    # Written so that a mean that is not a number is out of bounds.
    if metric.min is not None and not value >= fraction(metric.min):
        return f"{what} {value:.6g} is below {fraction(metric.min):.6g}"
    if metric.max is not None and not value <= fraction(metric.max):
        return f"{what} {value:.6g} is above {fraction(metric.max):.6g}"
    return ""


# ---- comparisons ----


class _Rates(msgspec.Struct, frozen=True, kw_only=True):
    """How often each wrong verdict may happen."""

    harm: float
    soundness: float


class _Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison, whichever way it was made. `worse` is by how much the new revision is worse (in the direction that matters, less the
    margin): the bounds below and above which it surely is not."""

    new: float
    old: float
    margin: float
    low: float
    high: float
    worse_low: float
    worse_high: float
    harm: float | None = None
    soundness: float | None = None
    clipped: int = 0
    left_out: int = 0


def _compared(metric: AnalysisMetric, sides: Sides, rates: _Rates, undecided: AnalysisState) -> MetricVerdict:
    new, old = sides.new, sides.old
    counts = new.count, old.count
    verdict = MetricVerdict(
        metric=metric.metric,
        state=undecided,
        mean=new.total / counts[0] if counts[0] else None,
        samples=counts[0],
        message=findings.waiting(metric, new, old),
        quantile=metric.quantile,
        direction=metric.direction or "",
        error_rate=rates.harm,
        dropped=new.dropped + old.dropped,
    )
    if min(counts) < metric.min_samples:
        return verdict
    judgement = _by_mean(metric, sides, rates) if metric.quantile is None else _by_quantile(metric, sides, rates)
    if judgement is None:
        return verdict
    finding = _finding(metric, judgement)
    state = AnalysisState.FAILED if finding == "worse" else AnalysisState.SUCCESSFUL if finding else undecided
    verdict = msgspec.structs.replace(
        verdict,
        state=state,
        finding=finding,
        new=SideEstimate(value=judgement.new, samples=counts[0], devices=new.devices),
        old=SideEstimate(value=judgement.old, samples=counts[1], devices=old.devices),
        difference=Difference(
            value=judgement.new - judgement.old,
            low=judgement.low if math.isfinite(judgement.low) else None,
            high=judgement.high if math.isfinite(judgement.high) else None,
            confidence=1 - rates.harm - rates.soundness,
        ),
        margin=judgement.margin,
        harm=judgement.harm,
        soundness=judgement.soundness,
        clipped=judgement.clipped,
    )
    return msgspec.structs.replace(verdict, message=findings.in_words(metric, verdict, judgement.left_out))


def _finding(metric: AnalysisMetric, judgement: _Judgement) -> Finding:
    if judgement.worse_low > 0:
        return "worse"
    if judgement.worse_high >= 0:
        return ""
    # By how much it is worse, at the most and at the least, in the plain unit.
    most, least = (judgement.high, judgement.low) if metric.direction == "lower" else (-judgement.low, -judgement.high)
    if most < 0:
        return "better"
    return "same" if least > -judgement.margin else "within"


def _by_mean(metric: AnalysisMetric, sides: Sides, rates: _Rates) -> _Judgement | None:
    sign = 1.0 if metric.direction == "lower" else -1.0
    unit_range = metric.metric in UNIT_RANGE
    old = sides.old
    amount = abs(fraction(metric.margin if metric.margin is not None else 0.0))
    relative = isinstance(metric.margin, str)
    margin = amount * abs(old.total / old.count) if relative else amount
    plain = compare(sides, 1.0, margin, unit_range=unit_range)
    if plain is None:
        return None
    # A relative margin is tested as new - (1 ± margin) * old, which is as uncertain as both sides are.
    growth = 1.0 + sign * amount * math.copysign(1.0, old.total) if relative else 1.0
    tested = compare(sides, growth, margin, unit_range=unit_range) if relative else plain
    if tested is None:
        return None
    excess = _times(tested.contrast, sign)
    null = 0.0 if relative else amount
    worse = _times(plain.contrast, sign)
    least, most = worse.value - radius(worse, rates.harm), worse.value + radius(worse, rates.soundness)
    low, high = sorted((sign * least, sign * most))
    worse_low, worse_high = excess.value - radius(excess, rates.harm), excess.value + radius(excess, rates.soundness)
    if unit_range:
        # Two numbers from 0 to 1 differ by at most 1, whatever little is known of them.
        low, high = max(-1.0, low), min(1.0, high)
        if not relative:
            worse_low, worse_high = max(-1.0, worse_low), min(1.0, worse_high)
    return _Judgement(
        new=plain.new,
        old=plain.old,
        margin=margin,
        low=low,
        high=high,
        worse_low=worse_low - null,
        worse_high=worse_high - null,
        harm=e_value(excess, null),
        soundness=e_value(_times(excess, -1.0), -null),
        clipped=plain.clipped,
        left_out=plain.left_out,
    )


def _times(estimate: Estimate, sign: float) -> Estimate:
    return msgspec.structs.replace(estimate, value=sign * estimate.value)


def _by_quantile(metric: AnalysisMetric, sides: Sides, rates: _Rates) -> _Judgement | None:
    share = metric.quantile if metric.quantile is not None else 0.5
    lower = metric.direction == "lower"
    # Each question needs one end of each side: half of its error for either.
    harm = [quantile_interval(side, share, rates.harm / 2) for side in (sides.new, sides.old)]
    sound = [quantile_interval(side, share, rates.soundness / 2) for side in (sides.new, sides.old)]
    if harm[0] is None or harm[1] is None or sound[0] is None or sound[1] is None:
        return None
    new, old = harm[0], harm[1]
    amount = abs(fraction(metric.margin if metric.margin is not None else 0.0))
    relative = isinstance(metric.margin, str)

    def allowed(value: float) -> float:
        """Return up to where the new quantile is as good as an old one of `value`."""
        reach = amount * abs(value) if relative and math.isfinite(value) else amount
        return value + reach if lower else value - reach

    worse_low, worse_high = _excess(new, old, allowed, lower=lower)[0], _excess(sound[0], sound[1], allowed, lower=lower)[1]
    least, most = _minus(new.low, old.high), _minus(new.high, old.low)
    least_sound, most_sound = _minus(sound[0].low, sound[1].high), _minus(sound[0].high, sound[1].low)
    return _Judgement(
        new=new.value,
        old=old.value,
        margin=abs(allowed(old.value) - old.value),
        low=least if lower else least_sound,
        high=most_sound if lower else most,
        worse_low=worse_low,
        worse_high=worse_high,
    )


def _excess(new: QuantileInterval, old: QuantileInterval, allowed: "findings.Allowed", *, lower: bool) -> tuple[float, float]:
    """Return by how much, at least and at most, the new quantile is beyond what is allowed, in the direction that is worse."""
    if lower:
        return _minus(new.low, allowed(old.high)), _minus(new.high, allowed(old.low))
    return _minus(allowed(old.low), new.high), _minus(allowed(old.high), new.low)


def _minus(one: float, other: float) -> float:
    """Subtract; what is unbounded on either side stays unbounded in the direction that it came from."""
    return one - other if math.isfinite(one) else one if math.isfinite(other) or one != other else -one if one < 0 else one
