"""Sums of the metrics that a rollout's analysis judges, since its wave began. Everything else only passes through."""

import math
from collections.abc import Mapping

from edgewise.delivery.analysis import Sum
from edgewise.wire.report import Series


class WaveMetrics:
    """What the instances of one workload's new revision reported since the wave began. Kept in memory: after a restart of the control
    plane the count begins anew."""

    __slots__ = ("_cumulative", "names", "revision", "sums", "wave")

    def __init__(self, revision: str, wave: int, names: frozenset[str]) -> None:
        self.revision = revision
        self.wave = wave
        self.names = names
        self.sums: dict[str, Sum] = {}
        self._cumulative: dict[tuple[str, str], Sum] = {}

    def add(self, device: str, series: Series) -> bool:
        """Take over one series of a device that runs the revision. Return whether it counts here."""
        if series.name not in self.names or series.revision != self.revision or series.count <= 0:
            return False
        if not math.isfinite(series.sum):
            return False
        count, total = series.count, series.sum
        if series.temporality == "cumulative":
            # A cumulative series says everything since its start again: only what came since its last report is new.
            before = self._cumulative.get((device, series.name), Sum())
            self._cumulative[device, series.name] = Sum(count, total)
            if count >= before.count:
                count, total = count - before.count, total - before.total
        known = self.sums.get(series.name, Sum())
        self.sums[series.name] = Sum(known.count + count, known.total + total)
        return True

    def of(self) -> Mapping[str, Sum]:
        """Return the sums by metric."""
        return self.sums
