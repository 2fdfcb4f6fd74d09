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
        self._new: dict[str, Told] = {}
        self._again: dict[str, Told] = {}
        self._totals: dict[str, Told] = {}

    def add(self, name: str, value: float, unit: str = "1", bounds: tuple[float, ...] = ()) -> None:
        """Add one value of a metric. One that is not finite is left out. Unit and bounds are those of the metric's first value."""
        self.extend(name, (value,), unit, bounds)

    def extend(self, name: str, values: Sequence[float], unit: str = "1", bounds: tuple[float, ...] = ()) -> None:
        """Add values of a metric, as `add`."""
        with self._lock:
            told = self._new.get(name)
            if told is None:
                if len(self._new) >= SERIES_MAX:
                    return
                told = self._new[name] = Told(name=name, unit=unit, bounds=bounds, buckets=[0] * (len(bounds) + 1) if bounds else [])
            for value in values:
                if math.isfinite(value):
                    told.add(value)

    def take(self) -> list[Told]:
        """Take everything out that is to be told."""
        with self._lock:
            new, self._new = self._new, {}
            again, self._again = self._again, {}
            self._totals = _merged(self._totals, new)
        return list(_merged(again, new).values())

    def put_back(self, told: Sequence[Told]) -> None:
        """Put back what was taken and could not be told."""
        with self._lock:
            self._again = _merged(self._again, {one.name: one for one in told})

    def totals(self) -> list[Told]:
        """Return what was measured since the process started, by name."""
        with self._lock:
            return sorted(_merged(self._totals, self._new).values(), key=lambda one: one.name)


def _merged(older: dict[str, Told], newer: dict[str, Told]) -> dict[str, Told]:
    """Return both together; neither is changed. Metrics without values are left out, and those beyond `SERIES_MAX`."""
    both: dict[str, Told] = {}
    for name in list({**older, **newer})[:SERIES_MAX]:
        parts = [part for part in (newer.get(name), older.get(name)) if part is not None and part.count]
        if parts:
            both[name] = whole = msgspec.structs.replace(parts[0], buckets=list(parts[0].buckets))
            for part in parts[1:]:
                whole.merge(part)
    return both
