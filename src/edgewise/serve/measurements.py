"""What the server measures, summarised until the agent takes it. A value costs a look-up and a few additions; none is kept.

`Measurements` is filled by the loop's and the inference thread and emptied by the reporter's; what could not be told is put back and told
with what came since.
"""

import bisect
import math
import operator
import threading
from collections.abc import Sequence
from typing import Final

import msgspec

SECONDS_BOUNDS: Final = (
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0,
    2.0, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds of the buckets of durations. Close enough for a quantile of a few milliseconds to be told within a third."""
SHARE_BOUNDS: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Upper bounds of the buckets of shares and probabilities."""
SERIES_MAX: Final = 96
"""How many metrics there may be; what comes with another name is not measured. The agent takes 128 of an instance in a window."""


class Told(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """Many values of one metric, as the local workload API takes them. All are finite."""

    name: str
    unit: str
    count: int = 0
    sum: float = 0.0
    sum_squares: float = 0.0
    min: float = math.inf
    max: float = -math.inf
    last: float = 0.0
    bounds: tuple[float, ...] = ()
    buckets: list[int] = []
    sketch: bytes = b""
    sketch_type: str = ""

    def add(self, value: float) -> None:
        """Add one value."""
        self.count += 1
        self.sum += value
        self.sum_squares += value * value
        self.min = min(self.min, value)
        self.max = max(self.max, value)
        self.last = value
        if self.bounds:
            self.buckets[bisect.bisect_left(self.bounds, value)] += 1

    def merge(self, older: "Told") -> None:
        """Add what `older` holds, of the same metric. Sketches are not merged: whoever makes them keeps them."""
        if not self.count:
            self.last = older.last
        self.count += older.count
        self.sum += older.sum
        self.sum_squares += older.sum_squares
        self.min = min(self.min, older.min)
        self.max = max(self.max, older.max)
        if self.bounds:
            self.buckets = list(map(operator.add, self.buckets, older.buckets))


class Measurements:
    """Summaries by metric, safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: dict[str, Told] = {}

    def add(self, name: str, value: float, unit: str = "1", bounds: tuple[float, ...] = ()) -> None:
        """Add one value of a metric. One that is not finite is left out. Unit and bounds are those of the metric's first value."""
        self.extend(name, (value,), unit, bounds)

    def extend(self, name: str, values: Sequence[float], unit: str = "1", bounds: tuple[float, ...] = ()) -> None:
        """Add values of a metric, as `add`."""
        with self._lock:
            told = self._told.get(name)
            if told is None:
                if len(self._told) >= SERIES_MAX:
                    return
                told = self._told[name] = Told(name=name, unit=unit, bounds=bounds, buckets=[0] * (len(bounds) + 1) if bounds else [])
            for value in values:
                if math.isfinite(value):
                    told.add(value)

    def take(self) -> list[Told]:
        """Take everything out."""
        with self._lock:
            told, self._told = self._told, {}
        return [one for one in told.values() if one.count]

    def put_back(self, told: Sequence[Told]) -> None:
        """Put back what was taken and could not be told."""
        with self._lock:
            for one in told:
                newer = self._told.get(one.name)
                if newer is None:
                    if len(self._told) < SERIES_MAX:
                        self._told[one.name] = one
                else:
                    newer.merge(one)
