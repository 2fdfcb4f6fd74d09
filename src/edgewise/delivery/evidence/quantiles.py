"""Quantiles from histogram buckets: the quantile is above an edge exactly when less than its share of the samples is at or below it.

So a bound on the share at one edge is a bound on the quantile, and it needs to hold only where the quantile truly lies: no price is
paid for looking at many edges (Howard & Ramdas 2022, section 3: a confidence sequence for a quantile by inverting those for a proportion).
The ends are edges: what a histogram cannot tell apart is left inside the interval. Devices differ as in `compare.py`; for independent
samples `exact_interval` uses the beta-binomial mixture instead.
"""

import math
from collections.abc import Callable, Iterable, Sequence

import msgspec

from edgewise.delivery.evidence.compare import Group, Point, between_devices, clipped_means, combined, noise_of
from edgewise.delivery.evidence.mixture import Estimate, radius
from edgewise.delivery.evidence.proportions import proportion_interval
from edgewise.delivery.evidence.units import Cell, Side


class QuantileInterval(msgspec.Struct, frozen=True, kw_only=True):
    """A quantile, interpolated within its bucket, and the edges that it lies between, each but for the error that was asked for."""

    value: float
    low: float
    high: float


def quantile(bounds: Sequence[float], buckets: Sequence[int], share: float) -> float:
    """Return the quantile of a histogram, linear within a bucket; beyond the last edge that edge, nan without samples."""
    wanted, seen, below = share * sum(buckets), 0, 0.0 if bounds and bounds[0] > 0 else -math.inf
    if not sum(buckets) or not bounds:
        return math.nan
    for edge, count in zip(bounds, buckets, strict=False):
        if count and seen + count >= wanted:
            return edge if math.isinf(below) else below + (edge - below) * (wanted - seen) / count
        seen, below = seen + count, edge
    return bounds[-1]


def quantile_interval(side: Side, share: float, alpha: float) -> QuantileInterval | None:
    """Return the interval of the `share`-quantile over devices that differ; either end is wrong, at any time, with a probability of at
    most `alpha`. None when no cell has a histogram."""
    cells = [cell for cell in side.cells.values() if len(cell.buckets) == len(side.bounds) + 1 and any(cell.buckets)]
    if not side.bounds or not cells:
        return None
    # Histograms do not tell windows apart; how much news a sample is, the means of the windows tell.
    noise = noise_of(cells, unit_range=False)

    def shares(edge: int) -> tuple[float, float]:
        estimate = _share_at(cells, edge, noise.design, noise.freedom)
        reach = radius(estimate, alpha)
        return estimate.value - reach, estimate.value + reach

    return _between(side.bounds, _total(cells), share, shares)


def exact_interval(bounds: Sequence[float], buckets: Sequence[int], share: float, alpha: float) -> QuantileInterval:
    """Return the interval for independent samples, exact at every sample size."""
    count = sum(buckets)
    return _between(bounds, buckets, share, lambda edge: proportion_interval(sum(buckets[: edge + 1]), count, alpha))


def _total(cells: Iterable[Cell]) -> list[int]:
    columns: Iterable[tuple[int, ...]] = zip(*(cell.buckets for cell in cells), strict=True)
    return [sum(column) for column in columns]


def _between(
    bounds: Sequence[float], buckets: Sequence[int], share: float, shares: Callable[[int], tuple[float, float]]
) -> QuantileInterval:
    value = quantile(bounds, buckets, share)
    at = next((edge for edge, bound in enumerate(bounds) if bound >= value), len(bounds) - 1)
    low = next((bounds[edge] for edge in range(at, -1, -1) if shares(edge)[1] < share), -math.inf)
    high = next((bounds[edge] for edge in range(at, len(bounds)) if shares(edge)[0] >= share), math.inf)
    return QuantileInterval(value=value, low=low, high=high)


def _share_at(cells: Sequence[Cell], edge: int, design: float, freedom: float) -> Estimate:
    binary: dict[str, Cell] = {}
    for number, cell in enumerate(cells):
        below, count = float(sum(cell.buckets[: edge + 1])), sum(cell.buckets)
        binary[str(number)] = Cell("", cell.devices, 1, count, below, below, below * below / count)
    noise = noise_of(binary.values(), unit_range=True)
    means, _ = clipped_means(binary, unit_range=True)
    points = tuple(
        Point(value=means[key], noise=noise.variance * design / cell.count, devices=cell.devices) for key, cell in binary.items()
    )
    group = Group(points=points, factor=1.0, freedom=freedom, sample=noise.variance)
    tau, tau_freedom = between_devices((group,), 0.0)
    return combined((group,), tau, tau_freedom, noise.variance)
