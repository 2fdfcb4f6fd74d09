"""New against old over devices that differ by themselves: a random-effects comparison that may be looked at any time.

Model: the mean of device d on side s is μ_s + b_d + noise, with b_d of variance τ² (cameras, light, sites differ) and noise of variance
φ σ² / n_d, where σ² is the variance of a sample and φ >= 1 says how much less news a sample is because samples of one window go
together (between-window mean square over σ², as in an analysis of variance; Donner & Klar 2000). Time effects that both sides share
cancel in the difference. The devices' means are weighted by the inverse of their variance (DerSimonian & Laird 1986), which by itself
bounds what one device weighs: 1/τ² at most, whatever it sends.

Why one may look at any time: efficient estimates of accumulating data have independent increments, Cov(D_s, D_t) = Var(D_t) for s < t
(Scharfstein, Tsiatis & Robins 1997; Jennison & Turnbull 1997). b_d is drawn once and stays: with v_t the variance of the noise, D has
the variance v_t + τ²c, and D / (v_t + τ²c) is a Brownian motion in the time 1 / (v_t + τ²c). The device effect merely ends that time
early: it never runs beyond 1 / (τ²c). So the mixture of `mixture.py` holds, and more samples of the same devices do not make certain what
only more devices can.

Devices are compared within their stratum (device class), strata are put together by inverse variance. Where each device runs both revisions
(`paired`), the unit is the device's own difference, and b_d cancels.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from edgewise.delivery.evidence.mixture import RHO, Estimate
from edgewise.delivery.evidence.units import Cell, Side, Sides


class CompareLimits(msgspec.Struct, frozen=True, kw_only=True):
    """No verdict with less than `samples_min` samples and `windows_min` windows on each side: the approximation to the normal is not
    trusted before. A device counts as at most `weight_max` times the samples of the median device. With at least `outlier_cells_min`
    cells, a mean farther than `outlier_deviations` robust standard deviations from its side's median is taken to be just there. Until
    devices show how much they differ, they are taken to do so by `prior_spread` of the margin, which weighs as much as `prior_devices`
    devices; but by at most `prior_points` (metrics from 0 to 1, in their unit) or `prior_share` of the root mean square of the old side's
    samples (all others): a generous margin says nothing of how devices differ. `spread_caution` over the degrees of freedom is added to
    how much devices seem to differ, for few devices often look more alike than they are."""

    samples_min: int = 20
    windows_min: int = 4
    weight_max: float = 4.0
    outlier_cells_min: int = 5
    outlier_deviations: float = 6.0
    prior_spread: float = 0.1
    prior_devices: float = 8.0
    prior_points: float = 0.02
    prior_share: float = 0.05
    spread_caution: float = 2.0


LIMITS: Final = CompareLimits()


class Noise(msgspec.Struct, frozen=True, kw_only=True):
    """What one sample of a side tells: its variance, the design effect (φ), and the degrees of freedom of both."""

    variance: float
    design: float
    freedom: float


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One unit of comparison: a cell's mean (or its difference between both sides), the variance of its noise, the degrees of freedom of
    that, the devices behind it."""

    value: float
    noise: float
    devices: int = 1


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Points that share a mean but for device effects; `sign` of its mean in the contrast."""

    points: tuple[Point, ...]
    factor: float
    freedom: float
    sample: float


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """`new` - `factor` * `old`, with each side's own estimate. `spread`: the standard deviation between devices (τ). `clipped`:
    devices whose value was taken to be less extreme. `left_out`: devices of a stratum that the other side has none of."""

    contrast: Estimate
    new: float
    old: float
    spread: float
    clipped: int = 0
    left_out: int = 0


def noise_of(cells: Iterable[Cell], *, unit_range: bool) -> Noise:
    """Return the noise of a side's samples. `unit_range`: samples from 0 to 1, whose squares gain those of two failures, so that a row
    without any failure is not taken for certainty (as in "add two successes and two failures", Agresti & Coull 1998)."""
    samples = windows = within = between = square_of_means = 0.0
    for cell in cells:
        own = cell.total * cell.total / cell.count
        samples += cell.count - 1
        windows += cell.windows - 1
        within += max(0.0, cell.squares - own)
        between += max(0.0, cell.between - own)
        square_of_means += own
    prior = _PSEUDO_FAILURES if unit_range else 0.0
    variance = (within + prior) / (samples + 1) if samples or prior else 0.0
    # Exactly equal values are still measured with some error; this also keeps what follows away from a division by 0.
    variance = max(variance, 1e-18 * square_of_means, 1e-300)
    # The mean square between windows, shrunk towards "samples are independent" while there are few windows.
    shrunk = (between + _DESIGN_PRIOR * variance) / (windows + _DESIGN_PRIOR)
    return Noise(variance=variance, design=max(1.0, shrunk / variance), freedom=windows + _DESIGN_PRIOR)


_DESIGN_PRIOR: Final = 2.0
_PSEUDO_FAILURES: Final = 2.0
"""Samples at the far end of the range that are added to the squares within."""


def compare(sides: Sides, factor: float, margin: float, *, unit_range: bool, limits: CompareLimits = LIMITS) -> Comparison | None:
    """Return the estimate of new - `factor` * old, or None while there is too little of either side. `margin`, in the unit of the metric,
    only sets how much devices are taken to differ before they show it."""
    new, old = _enough(sides.new, limits), _enough(sides.old, limits)
    if new is None or old is None:
        return None
    new_means, new_clipped = clipped_means(new, unit_range=unit_range, limits=limits)
    old_means, old_clipped = clipped_means(old, unit_range=unit_range, limits=limits)
    new_noise = noise_of((cell for key, cell in new.items() if key not in new_clipped), unit_range=unit_range)
    old_noise = noise_of((cell for key, cell in old.items() if key not in old_clipped), unit_range=unit_range)
    new_points, old_points = _points(new, new_means, new_noise, limits), _points(old, old_means, old_noise, limits)
    strata, left_out = _strata(new, old, new_points, old_points, paired=sides.paired)
    if not strata:
        return None
    # Information is counted in samples, of which RHO tell an effect of their deviation / sqrt(RHO). Samples that nearly equal one another
    # make that far smaller than what devices differ by, and than anybody asks about, and ever smaller; so it is the margin at the least.
    scale = max(0.5 * (new_noise.variance + factor * factor * old_noise.variance), RHO * margin * margin)
    prior = prior_deviation(old, margin, unit_range=unit_range, limits=limits)
    groups: list[tuple[Group, ...]]
    if sides.paired:
        pairs = [_paired(one, other, factor) for one, other in strata]
        groups = [(Group(points=points, factor=1.0, freedom=min(new_noise.freedom, old_noise.freedom), sample=scale),) for points in pairs]
    else:
        groups = [
            (
                Group(points=tuple(one.values()), factor=1.0, freedom=new_noise.freedom, sample=scale),
                Group(points=tuple(other.values()), factor=-factor, freedom=old_noise.freedom, sample=scale),
            )
            for one, other in strata
        ]
    flat = tuple(group for stratum in groups for group in stratum)
    tau, tau_freedom = between_devices(flat, prior, limits)
    contrast = pooled([combined(stratum, tau, tau_freedom, scale) for stratum in groups])
    return Comparison(
        contrast=contrast,
        new=_side_mean([one for one, _ in strata], tau),
        old=_side_mean([other for _, other in strata], tau),
        spread=math.sqrt(tau),
        clipped=sum(new[key].devices for key in new_clipped) + sum(old[key].devices for key in old_clipped),
        left_out=left_out,
    )


def prior_deviation(old: Mapping[str, Cell], margin: float, *, unit_range: bool, limits: CompareLimits = LIMITS) -> float:
    """Return the standard deviation between devices that is assumed until they show it, in the unit of the metric."""
    usual = limits.prior_spread * abs(margin)
    if unit_range:
        return min(usual, limits.prior_points)
    size = math.sqrt(sum(cell.squares for cell in old.values()) / sum(cell.count for cell in old.values()))
    # Where everything was 0 nothing says what is much.
    return min(usual, limits.prior_share * size) if size else usual


def _enough(side: Side, limits: CompareLimits) -> Mapping[str, Cell] | None:
    cells = {key: cell for key, cell in side.cells.items() if cell.count}
    counts, windows = sum(cell.count for cell in cells.values()), sum(cell.windows for cell in cells.values())
    return cells if counts >= limits.samples_min and windows >= limits.windows_min else None


def _points(cells: Mapping[str, Cell], means: Mapping[str, float], noise: Noise, limits: CompareLimits) -> dict[str, Point]:
    """Return the cells as points, no device counting more than `weight_max` times the median one."""
    most = limits.weight_max * statistics.median(cell.count / cell.devices for cell in cells.values())
    variance = noise.variance * noise.design
    return {
        key: Point(value=means[key], noise=variance / min(cell.count, most * cell.devices), devices=cell.devices)
        for key, cell in cells.items()
    }


def clipped_means(
    cells: Mapping[str, Cell], *, unit_range: bool, limits: CompareLimits = LIMITS
) -> tuple[dict[str, float], frozenset[str]]:
    """Return the cells' means, those far outside of their stratum's taken to be less extreme, and which those are."""
    means = {key: cell.mean for key, cell in cells.items()}
    strata: dict[str, list[str]] = {}
    for key, cell in cells.items():
        strata.setdefault(cell.stratum, []).append(key)
    clipped: set[str] = set()
    for keys in strata.values():
        if len(keys) < limits.outlier_cells_min:
            continue
        middle = statistics.median(means[key] for key in keys)
        counts = statistics.median(cells[key].count for key in keys)
        sample = _typical_variance([cells[key] for key in keys], unit_range=unit_range)
        usual = max(1.4826 * statistics.median(abs(means[key] - middle) for key in keys), math.sqrt(sample / counts))
        for key in keys:
            # A device that sent little scatters more than the others by itself.
            reach = limits.outlier_deviations * usual * math.sqrt(max(1.0, counts / cells[key].count))
            if abs(means[key] - middle) > reach:
                means[key] = middle + math.copysign(reach, means[key] - middle)
                clipped.add(key)
    return means, frozenset(clipped)


def _typical_variance(cells: Sequence[Cell], *, unit_range: bool) -> float:
    """Return the variance of a sample with what windows add to it. Within 0 and 1 all cells together tell it best; otherwise the median
    cell, for one that lies can make the sum as large as it likes."""
    together = noise_of(cells, unit_range=unit_range)
    if unit_range:
        return together.variance * together.design
    alone = (noise_of((cell,), unit_range=False) for cell in cells)
    return statistics.median(each.variance * each.design for each in alone)


_Pair = tuple[dict[str, Point], dict[str, Point]]


def _strata(
    new: Mapping[str, Cell], old: Mapping[str, Cell], new_points: dict[str, Point], old_points: dict[str, Point], *, paired: bool
) -> tuple[list[_Pair], int]:
    """Return the points of both sides by stratum, and how many new devices have nothing to be compared with. Where no stratum has both
    sides, all devices are compared with all."""
    if paired:
        both = [key for key in new if key in old]
        left = sum(cell.devices for key, cell in new.items() if key not in old)
        return ([({key: new_points[key] for key in both}, {key: old_points[key] for key in both})] if both else []), left
    shared = {cell.stratum for cell in new.values()} & {cell.stratum for cell in old.values()}
    if not shared:
        return [(new_points, old_points)], 0
    left = sum(cell.devices for cell in new.values() if cell.stratum not in shared)
    return [
        (
            {key: point for key, point in new_points.items() if new[key].stratum == stratum},
            {key: point for key, point in old_points.items() if old[key].stratum == stratum},
        )
        for stratum in sorted(shared)
    ], left


def _paired(one: dict[str, Point], other: dict[str, Point], factor: float) -> tuple[Point, ...]:
    return tuple(
        Point(
            value=point.value - factor * other[key].value,
            noise=point.noise + factor * factor * other[key].noise,
            devices=point.devices,
        )
        for key, point in one.items()
    )


def between_devices(groups: Iterable[Group], prior: float, limits: CompareLimits = LIMITS) -> tuple[float, float]:
    """Return τ² and its degrees of freedom: by moments over all groups together (DerSimonian & Laird 1986), raised towards `prior`², which
    counts as `prior_devices` devices. What was measured is never lowered by it."""
    excess = scale = freedom = 0.0
    for group in groups:
        weights = [1 / point.noise for point in group.points]
        total = sum(weights)
        mean = sum(weight * point.value for weight, point in zip(weights, group.points, strict=True)) / total
        spread = sum(weight * (point.value - mean) ** 2 for weight, point in zip(weights, group.points, strict=True))
        excess += spread - (len(weights) - 1)
        per = sum(weight / point.devices for weight, point in zip(weights, group.points, strict=True))
        per_square = sum(weight * weight / point.devices for weight, point in zip(weights, group.points, strict=True))
        scale += per - per_square / total
        freedom += len(weights) - 1
    # Few devices often look more alike than they are: the fewer, the more of the noise may hide a difference between them.
    excess = max(0.0, excess) + limits.spread_caution / max(1.0, freedom)
    measured = excess / scale if freedom and scale > 0 else 0.0
    blended = (freedom * measured + limits.prior_devices * prior * prior) / (freedom + limits.prior_devices)
    return (measured, freedom) if measured > blended else (blended, freedom + limits.prior_devices)


def mean_of(group: Group, tau: float, tau_freedom: float) -> tuple[float, float, float]:
    """Return a group's mean weighted by inverse variance, the variance of that, and its degrees of freedom (Satterthwaite 1946)."""
    total = value = noise = between = 0.0
    for point in group.points:
        weight = 1 / (point.noise + tau / point.devices)
        total += weight
        value += weight * point.value
        noise += weight * weight * point.noise
        between += weight * weight * tau / point.devices
    noise, between = noise / (total * total), between / (total * total)
    spread = noise * noise / group.freedom + between * between / tau_freedom
    variance = noise + between
    return value / total, variance, variance * variance / spread if spread > 0 else math.inf


def combined(groups: tuple[Group, ...], tau: float, tau_freedom: float, scale: float) -> Estimate:
    """Return the sum of the groups' means, each times its factor."""
    value = variance = spread = 0.0
    for group in groups:
        mean, own, freedom = mean_of(group, tau, tau_freedom)
        own *= group.factor * group.factor
        value += group.factor * mean
        variance += own
        spread += own * own / freedom
    return Estimate(
        value=value, variance=variance, information=scale / variance, freedom=variance * variance / spread if spread else math.inf
    )


def pooled(estimates: list[Estimate]) -> Estimate:
    """Return the mean of independent estimates of one thing, by inverse variance."""
    if len(estimates) == 1:
        return estimates[0]
    total = sum(1 / each.variance for each in estimates)
    return Estimate(
        value=sum(each.value / each.variance for each in estimates) / total,
        variance=1 / total,
        information=sum(each.information for each in estimates),
        freedom=_freedom_of(estimates, total),
    )


def _freedom_of(estimates: list[Estimate], total: float) -> float:
    # Each estimate makes the share 1 / (variance * total) of the variance of their weighted mean (Satterthwaite).
    spread = sum((1 / (each.variance * total)) ** 2 / each.freedom for each in estimates)
    return 1 / spread if spread > 0 else math.inf


def _side_mean(groups: list[dict[str, Point]], tau: float) -> float:
    points = [point for group in groups for point in group.values()]
    weights = [1 / (point.noise + tau / point.devices) for point in points]
    return sum(weight * point.value for weight, point in zip(weights, points, strict=True)) / sum(weights)
