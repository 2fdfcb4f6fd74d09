"""What is counted: per device and side a few sums over windows, so that a window, and not a sample, is the unit of evidence.

A camera that went blind sends thousands of samples that are all one piece of news. So each report of a device is one *window*, and how
much window means of one device scatter says how much news a sample is (`compare.py`). A device is a *cell*; of more devices than
`cells_max` the rest share cells by a hash, so that memory and stored bytes are bounded whatever the size of the fleet: a shared cell
is a cluster of `devices` devices, as valid a unit as one of them.
"""

import math
import operator
import zlib
from collections.abc import Mapping
from typing import Final

import msgspec


class UnitLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Per metric and side: `cells_max` devices have a cell of their own, all others share `shared_max` more. `count_max`: samples of one
    window; a report that claims more is dropped. `value_max`: the largest magnitude that counts as a measurement. `buckets_max`: of
    one histogram."""

    cells_max: int = 48
    shared_max: int = 16
    count_max: int = 10_000_000
    value_max: float = 1e15
    buckets_max: int = 64


LIMITS: Final = UnitLimits()

UNIT_RANGE: Final = frozenset({"model.accuracy", "model.server.errors", "model.confidence", "model.shadow.disagreement"})
"""Metrics whose samples lie from 0 to 1: a report with a mean outside is dropped, and their variance is never taken for 0."""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """What one device reported of one metric in one window. `buckets` are counts per histogram bucket, one more than there are bounds."""

    count: int
    total: float
    squares: float
    buckets: tuple[int, ...] = ()


class Cell(msgspec.Struct, frozen=True, array_like=True):
    """Sums over the windows of one device, or of the `devices` that share the cell: number of windows and samples, sum and sum of squares
    of the samples, `between`: sum over the windows of total²/count (for the scatter between windows), counts per histogram bucket."""

    stratum: str = ""
    devices: int = 1
    windows: int = 0
    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    between: float = 0.0
    buckets: tuple[int, ...] = ()

    @property
    def mean(self) -> float:
        """The mean of the samples, 0 without any."""
        return self.total / self.count if self.count else 0.0


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """All cells of one side of one metric. `devices` counts the devices behind them, `dropped` the reports that could not be used. `bounds`
    are the upper ends of the histogram's buckets."""

    cells: Mapping[str, Cell] = {}
    devices: int = 0
    dropped: int = 0
    bounds: tuple[float, ...] = ()

    @property
    def count(self) -> int:
        """Samples of all cells."""
        return sum(cell.count for cell in self.cells.values())

    @property
    def total(self) -> float:
        """The sum of all samples."""
        return sum(cell.total for cell in self.cells.values())


class Sides(msgspec.Struct, frozen=True, kw_only=True):
    """Both sides of one metric: the new revision and, over the same time, the old one. `paired`: each device runs both (split, shadow), so
    a device is compared with itself. `wave`: the new revision since its wave began, for thresholds (None: the same as `new`)."""

    new: Side = Side()
    old: Side = Side()
    paired: bool = False
    wave: Side | None = None


def side_of(count: int, total: float, squares: float | None = None, windows: int = 1) -> Side:
    """Return a side with one device, as a short way to say a count and a sum."""
    if not count:
        return Side()
    squares = total * total / count if squares is None else squares
    cell = Cell("", 1, windows, count, total, squares, total * total / count)
    return Side(cells={"": cell}, devices=1)


def usable(name: str, window: Window, limits: UnitLimits = LIMITS) -> bool:
    """Return whether a window can be counted: finite, of a believable size, and inside the metric's range."""
    if not 0 < window.count <= limits.count_max or not math.isfinite(window.total) or not math.isfinite(window.squares):
        return False
    mean = window.total / window.count
    if name in UNIT_RANGE:
        return -1e-9 <= mean <= 1 + 1e-9 and window.squares <= window.count * (1 + 1e-9)
    return abs(mean) <= limits.value_max


def cell_key(cells: Mapping[str, Cell], device: str, stratum: str, limits: UnitLimits = LIMITS) -> str:
    """Return the key of the cell that a device belongs to: its own while there is room, else a shared one of its stratum's."""
    if device in cells or len(cells) < limits.cells_max:
        return device
    # A shared cell holds devices of one stratum only; '/' is in no device's name.
    number = zlib.crc32(f"{stratum}/{device}".encode()) % limits.shared_max
    return f"/{number}/{stratum}" if f"/{number}/{stratum}" in cells or len(cells) < limits.cells_max + limits.shared_max else f"/{number}"


def plus(cell: Cell, window: Window, *, fresh: bool = False) -> Cell:
    """Return the cell with one more window; `fresh`: of a device that was not in it before."""
    # A sum of squares below what the mean alone makes is wrong (old agents, rounding): the least possible is taken.
    between = window.total * window.total / window.count
    return Cell(
        cell.stratum,
        cell.devices + fresh,
        cell.windows + 1,
        cell.count + window.count,
        cell.total + window.total,
        cell.squares + max(window.squares, between),
        cell.between + between,
        _added(cell.buckets, window.buckets) if cell.windows else window.buckets,
    )


def merged(one: Cell, other: Cell) -> Cell:
    """Return the sums of both, as of one cluster. Associative and commutative up to rounding; cells of two strata become one of none."""
    if not one.windows or not other.windows:
        return one if one.windows else other
    return Cell(
        one.stratum if one.stratum == other.stratum else "",
        one.devices + other.devices,
        one.windows + other.windows,
        one.count + other.count,
        one.total + other.total,
        one.squares + other.squares,
        one.between + other.between,
        _added(one.buckets, other.buckets),
    )


def _added(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    """Return the counts of both; none when either has none, for then they would not be of all samples."""
    return tuple(map(operator.add, one, other)) if len(one) == len(other) else ()
