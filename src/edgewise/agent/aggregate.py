"""Metrics of workloads, reduced on the device to one summary per series and window.

A sample costs a dictionary look-up and a few additions; nothing per sample is kept or sent. The number of series is bounded: a workload
that puts a number into a metric's name fills its share, and what comes after is dropped and counted.
"""

import math
import operator
import threading
from collections.abc import Sequence
from typing import Literal

import msgspec

from edgewise.wire.report import Series

MetricType = Literal["gauge", "counter", "histogram"]


class AggregateLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`window_seconds`: how much time one summary covers. `series_max`: series in one window, of all workloads together;
    `series_per_instance_max`: of those, how many one instance may fill by what it reports. `sketch_bytes_max`: all sketches of one window,
    of all workloads together."""

    window_seconds: float = 15.0
    series_max: int = 512
    series_per_instance_max: int = 128
    sketch_bytes_max: int = 65_536


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Values of one metric. `instance` (NAMESPACE/WORKLOAD) and `revision` are what it is about. Values are finite."""

    name: str
    values: Sequence[float]
    instance: str
    revision: str
    unit: str = ""
    type: MetricType = "gauge"


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """Many values of one metric that were summarised by whoever reports them, as in `wire.report.Series`. What it holds is finite,
    `buckets` has one more number than `bounds`, and neither is long."""

    name: str
    instance: str
    revision: str
    count: int
    sum: float
    sum_squares: float
    min: float
    max: float
    last: float
    unit: str = ""
    type: MetricType = "histogram"
    bounds: tuple[float, ...] = ()
    buckets: tuple[int, ...] = ()
    sketch: bytes = b""
    sketch_type: str = ""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """All series of one span of time. `start` and `end` are wall clock seconds, `monotonic` is the end's. `dropped` counts the values that
    were not taken over."""

    start: float
    end: float
    monotonic: float
    series: tuple[Series, ...]
    dropped: int = 0


class _Sums:
    __slots__ = ("bounds", "buckets", "count", "last", "max", "min", "sketch", "sketch_type", "squares", "sum")

    def __init__(self) -> None:
        self.bounds: tuple[float, ...] = ()
        self.buckets: tuple[int, ...] = ()
        self.sketch = b""
        self.sketch_type = ""
        self.count = 0
        self.sum = 0.0
        self.squares = 0.0
        self.min = math.inf
        self.max = -math.inf
        self.last = 0.0

    def add(self, values: Sequence[float]) -> None:
        for value in values:
            self.count += 1
            self.sum += value
            self.squares += value * value
            self.last = value
            self.min = min(self.min, value)
            self.max = max(self.max, value)

    def merge(self, summary: Summary) -> None:
        if self.count == 0:
            self.bounds, self.buckets = summary.bounds, summary.buckets
        elif self.bounds == summary.bounds:
            self.buckets = tuple(map(operator.add, self.buckets, summary.buckets))
        else:  # the two cannot be told as one: what is left is true of both
            self.bounds, self.buckets = (), ()
        self.count += summary.count
        self.sum += summary.sum
        self.squares += summary.sum_squares
        self.last = summary.last
        self.min = min(self.min, summary.min)
        self.max = max(self.max, summary.max)
        if summary.sketch:
            self.sketch, self.sketch_type = summary.sketch, summary.sketch_type


_Key = tuple[str, str, MetricType, str, str]


class Aggregator:
    """Takes samples from any thread; one thread takes the windows."""

    def __init__(self, limits: AggregateLimits | None = None) -> None:
        self._limits = limits or AggregateLimits()
        self._lock = threading.Lock()
        self._series: dict[_Key, _Sums] = {}
        self._filled: dict[str, int] = {}
        self._sketch_bytes = 0
        self._dropped = 0
        self._start_wall = 0.0
        self._start_monotonic: float | None = None

    def add(self, sample: Sample, wall: float, monotonic: float, reporter: str = "") -> bool:
        """Add a sample at this time. `reporter` is the instance that reported it, whose share of series it counts for. Returns false when
        it was dropped because there are too many series."""
        key = (sample.name, sample.unit, sample.type, sample.instance, sample.revision)
        with self._lock:
            sums = self._sums(key, wall, monotonic, reporter)
            if sums is None:
                self._dropped += len(sample.values)
                return False
            if sums.bounds:  # single values beside summaries: the buckets would not be true any more
                sums.bounds, sums.buckets = (), ()
            sums.add(sample.values)
        return True

    def add_summary(self, summary: Summary, wall: float, monotonic: float, reporter: str) -> bool:
        """Add what was summarised elsewhere, otherwise as `add`. Returns false, and takes nothing, when the window has no room for it: too
        many series, or too many bytes of sketches; a series holds one sketch in a window."""
        key = (summary.name, summary.unit, summary.type, summary.instance, summary.revision)
        with self._lock:
            if self._sketch_bytes + len(summary.sketch) > self._limits.sketch_bytes_max:
                return False
            known = self._series.get(key)
            if summary.sketch and known is not None and known.sketch:
                return False
            sums = self._sums(key, wall, monotonic, reporter)
            if sums is None:
                return False
            self._sketch_bytes += len(summary.sketch)
            sums.merge(summary)
        return True

    def _sums(self, key: _Key, wall: float, monotonic: float, reporter: str) -> _Sums | None:
        """Return the series of `key`, begun if there is room for it, else None. The lock is held."""
        if self._start_monotonic is None:
            self._start_wall, self._start_monotonic = wall, monotonic
        sums = self._series.get(key)
        if sums is None:
            filled = self._filled.get(reporter, 0)
            if len(self._series) >= self._limits.series_max or filled >= self._limits.series_per_instance_max:
                return None
            self._filled[reporter] = filled + 1
            sums = self._series[key] = _Sums()
        return sums

    def due_in(self, monotonic: float) -> float | None:
        """Return the seconds until the window ends, 0 when it has, None while there is nothing to report."""
        with self._lock:
            if self._start_monotonic is None:
                return None
            return max(0.0, self._start_monotonic + self._limits.window_seconds - monotonic)

    def take(self, wall: float, monotonic: float) -> Window | None:
        """End the window now and return it, or None when nothing was reported. The next one begins with its first sample."""
        with self._lock:
            if self._start_monotonic is None:
                return None
            series, self._series = self._series, {}
            dropped, self._dropped = self._dropped, 0
            start = self._start_wall
            self._start_monotonic = None
            self._filled = {}
            self._sketch_bytes = 0
        return Window(
            start=min(start, wall),
            end=wall,
            monotonic=monotonic,
            series=tuple(_series(key, sums) for key, sums in series.items() if sums.count),
            dropped=dropped,
        )


def _series(key: _Key, sums: _Sums) -> Series:
    name, unit, kind, instance, revision = key
    return Series(
        name=name,
        unit=unit,
        type=kind,
        instance=instance,
        revision=revision,
        count=sums.count,
        sum=sums.sum,
        sum_squares=sums.squares,
        min=sums.min,
        max=sums.max,
        last=sums.last,
        bounds=sums.bounds,
        buckets=sums.buckets,
        sketch=sums.sketch,
        sketch_type=sums.sketch_type,
    )
