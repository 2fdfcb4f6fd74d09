"""Metrics of workloads, reduced on the device to one summary per series and window.

A sample costs a dictionary look-up and a few additions; nothing per sample is kept or sent. The number of series is bounded: a workload
that puts a number into a metric's name fills its share, and what comes after is dropped and counted.
"""

import math
import threading
from collections.abc import Sequence
from typing import Literal

import msgspec

from edgewise.wire.report import Series

MetricType = Literal["gauge", "counter", "histogram"]


class AggregateLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`window_seconds`: how much time one summary covers. `series_max`: series in one window, of all workloads together;
    `series_per_instance_max`: of those, how many one instance may fill by what it reports."""

    window_seconds: float = 15.0
    series_max: int = 512
    series_per_instance_max: int = 128


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Values of one metric. `instance` (NAMESPACE/WORKLOAD) and `revision` are what it is about. Values are finite."""

    name: str
    values: Sequence[float]
    instance: str
    revision: str
    unit: str = ""
    type: MetricType = "gauge"


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """All series of one span of time. `start` and `end` are wall clock seconds, `monotonic` is the end's. `dropped` counts the values that
    were not taken over."""

    start: float
    end: float
    monotonic: float
    series: tuple[Series, ...]
    dropped: int = 0


class _Sums:
    __slots__ = ("count", "last", "max", "min", "squares", "sum")

    def __init__(self) -> None:
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


_Key = tuple[str, str, MetricType, str, str]


class Aggregator:
    """Takes samples from any thread; one thread takes the windows."""

    def __init__(self, limits: AggregateLimits | None = None) -> None:
        self._limits = limits or AggregateLimits()
        self._lock = threading.Lock()
        self._series: dict[_Key, _Sums] = {}
        self._filled: dict[str, int] = {}
        self._dropped = 0
        self._start_wall = 0.0
        self._start_monotonic: float | None = None

    def add(self, sample: Sample, wall: float, monotonic: float, reporter: str = "") -> bool:
        """Add a sample at this time. `reporter` is the instance that reported it, whose share of series it counts for. Returns false when
        it was dropped because there are too many series."""
        key = (sample.name, sample.unit, sample.type, sample.instance, sample.revision)
        with self._lock:
            if self._start_monotonic is None:
                self._start_wall, self._start_monotonic = wall, monotonic
            sums = self._series.get(key)
            if sums is None:
                filled = self._filled.get(reporter, 0)
                if len(self._series) >= self._limits.series_max or filled >= self._limits.series_per_instance_max:
                    self._dropped += len(sample.values)
                    return False
                self._filled[reporter] = filled + 1
                sums = self._series[key] = _Sums()
            sums.add(sample.values)
        return True

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
    )
