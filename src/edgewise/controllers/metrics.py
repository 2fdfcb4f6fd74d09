"""What the devices of a rollout's wave reported of the metrics that judge it: per metric and side, one small cell of sums per device.

The new side are devices that run the new revision, the old side those that run the one before, over the same time. Everything else only
passes through. One report costs a dictionary look-up and a few additions, whatever the size of the fleet; memory is bounded by
`UnitLimits` and `MetricLimits`. `stored` is what survives a restart of the control plane with the rollout's status.
"""

import math
import zlib
from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Final, Literal

import msgspec

from edgewise.delivery.evidence.units import LIMITS, Cell, Side, Sides, UnitLimits, Window, cell_key, plus, usable
from edgewise.wire.report import Series


class MetricLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`stored_bytes_max`: of all evidence of one rollout as it is stored (compressed); more is not stored, and the count begins
    anew after a restart. `cumulative_max`: series whose last cumulative value is remembered; those of more devices do not count.
    `concurrent_seconds`: a report counts in a comparison when the other side was heard at most so long ago."""

    stored_bytes_max: int = 128_000
    cumulative_max: int = 100_000
    concurrent_seconds: float = 120.0


class StoredSide(msgspec.Struct, frozen=True, array_like=True):
    """One side of one metric, as stored."""

    cells: dict[str, Cell] = {}
    devices: int = 0
    dropped: int = 0
    bounds: tuple[float, ...] = ()


class StoredEvidence(msgspec.Struct, frozen=True, array_like=True):
    """All evidence of one rollout, as stored: of which revision and wave, paired or not, both compared sides by metric, and the new side of
    the wave alone by metric."""

    version: int
    revision: str
    wave: int
    paired: bool = False
    sides: dict[str, tuple[StoredSide, StoredSide]] = {}
    waves: dict[str, StoredSide] = {}


_VERSION: Final = 1
_LIMITS: Final = MetricLimits()
_DECODER: Final = msgspec.msgpack.Decoder(StoredEvidence)
_ENCODER: Final = msgspec.msgpack.Encoder()


class _Tally:
    """One side of one metric, being counted."""

    __slots__ = ("_carried", "_named", "bounds", "cells", "dropped")

    def __init__(self, stored: StoredSide) -> None:
        self.cells = dict(stored.cells)
        self.bounds = stored.bounds
        self.dropped = stored.dropped
        self._named: set[str] = set()
        self._carried = stored.devices

    @property
    def devices(self) -> int:
        # After a restart it is not known which devices shared cells; those that report again are most of them.
        return max(self._carried, len(self._named))

    def add(self, device: str, stratum: str, window: Window, bounds: tuple[float, ...], limits: UnitLimits) -> None:
        if bounds and not self.bounds and len(bounds) <= limits.buckets_max and _rises(bounds):
            self.bounds = bounds
        # Buckets that are of other bounds, or not of all samples, say nothing beside the others.
        if bounds != self.bounds or len(window.buckets) != len(bounds) + 1 or not _adds_up(window):
            window = msgspec.structs.replace(window, buckets=())
        key = cell_key(self.cells, device, stratum, limits)
        known = self.cells.get(key)
        fresh = device not in self._named
        if known is None:
            self.cells[key] = plus(Cell(stratum), window)
        else:
            # A cell of its own is one device's for ever; a shared one gains those that were not counted in it yet.
            self.cells[key] = plus(known, window, fresh=fresh and key != device and len(self._named) >= self._carried)
        self._named.add(device)

    def side(self) -> Side:
        return Side(cells=self.cells, devices=self.devices, dropped=self.dropped, bounds=self.bounds)

    def stored(self) -> StoredSide:
        return StoredSide(self.cells, self.devices, self.dropped, self.bounds)


def _rises(bounds: tuple[float, ...]) -> bool:
    return all(one < other for one, other in pairwise(bounds)) and all(math.isfinite(bound) for bound in bounds)


def _adds_up(window: Window) -> bool:
    return sum(window.buckets) == window.count and min(window.buckets, default=0) >= 0


class WaveMetrics:
    """The evidence of a rollout whose wave `wave` is open, of the metrics `names`. What thresholds judge is counted since the wave began.
    What is `compared` with `old_revision` (unless said otherwise: all, where there is one) is counted since the rollout began, carried on
    from the wave `before`, so that all waves together are one test with one error rate; a report counts only while the other side is
    heard too. `controls`: the devices whose reports of the old revision count (None: all that report it). `paired`: each device
    runs both revisions. `stored`: what `stored()` returned before a restart."""

    __slots__ = (
        "_cumulative", "_heard", "_resumed", "_tallies", "_waves",
        "compared", "controls", "limits", "names", "old_revision", "paired", "revision", "wave",
    )  # fmt: skip

    def __init__(
        self,
        revision: str,
        wave: int,
        names: frozenset[str],
        *,
        old_revision: str = "",
        compared: Collection[str] | None = None,
        controls: Collection[str] | None = None,
        paired: bool = False,
        stored: bytes = b"",
        before: "WaveMetrics | None" = None,
        limits: UnitLimits = LIMITS,
    ) -> None:
        self.revision = revision
        self.wave = wave
        self.names = names
        self.compared = (names if compared is None else frozenset(compared)) if old_revision else frozenset()
        self.old_revision = old_revision
        self.controls = controls
        self.paired = paired
        self.limits = limits
        carried = before if before is not None and (before.revision, before.old_revision) == (revision, old_revision) else None
        known = restored(stored, revision) if carried is None else None
        self._resumed = known is not None
        self._tallies: dict[str, tuple[_Tally, _Tally]] = {}
        self._waves: dict[str, _Tally] = {}
        if known is not None and known.paired == paired:
            self._tallies = {name: (_Tally(new), _Tally(old)) for name, (new, old) in known.sides.items() if name in self.compared}
        if known is not None and known.wave == wave:
            self._waves = {name: _Tally(side) for name, side in known.waves.items() if name in names}
        self._heard: dict[tuple[str, str], float] = {}
        self._cumulative: dict[tuple[str, str, str], Window] = {}
        if carried is not None:
            self._cumulative, self._resumed = carried._cumulative, carried._resumed  # noqa: SLF001 - of the same class
            if carried.paired == paired:
                self._tallies = {name: pair for name, pair in carried._tallies.items() if name in self.compared}  # noqa: SLF001 - as above
                self._heard = carried._heard  # noqa: SLF001 - as above

    def compare_with(self, controls: Collection[str]) -> None:
        """Count the old revision's reports of these devices from now on. With none the comparison stands as it is: what the new revision
        alone says would change the evidence, and nothing could set it right."""
        self.controls = controls
        if not controls:
            self._heard = {}

    def add(self, device: str, series: Series, stratum: str = "", now: float = 0.0) -> bool:
        """Take over one series of a device; `stratum` is what it is matched by, its class. Return whether it counts here."""
        side = self._side_of(device, series)
        if not side or series.count <= 0:
            return False
        window = Window(count=series.count, total=series.sum, squares=series.sum_squares, buckets=series.buckets)
        targets = self._targets(side, series.name, now)
        if not usable(series.name, window, self.limits):
            for tally in targets:
                tally.dropped += 1
            return False
        if series.temporality == "cumulative":
            grown = self._growth((device, series.name, series.revision), window)
            if grown is None:
                return False
            window = grown
        for tally in targets:
            tally.add(device, stratum, window, series.bounds, self.limits)
        return bool(targets)

    def _side_of(self, device: str, series: Series) -> Literal["new", "old", ""]:
        if series.revision == self.revision:
            return "new" if series.name in self.names or series.name in self.compared else ""
        if series.revision != self.old_revision or not self.old_revision or series.name not in self.compared:
            return ""
        return "old" if self.controls is None or device in self.controls else ""

    def _targets(self, side: Literal["new", "old"], name: str, now: float) -> list[_Tally]:
        """Return the tallies that a report counts for now."""
        targets: list[_Tally] = []
        if side == "new" and name in self.names:
            targets.append(self._waves.setdefault(name, _Tally(StoredSide())))
        if name in self.compared:
            self._heard[name, side] = now
            other = self._heard.get((name, "old" if side == "new" else "new"))
            # Both sides cover the same time: what happens to all devices alike cancels then.
            if other is not None and now - other <= _LIMITS.concurrent_seconds:
                pair = self._tallies.setdefault(name, (_Tally(StoredSide()), _Tally(StoredSide())))
                targets.append(pair[side == "old"])
        return targets

    def _growth(self, key: tuple[str, str, str], window: Window) -> Window | None:
        """Return what came since the last report of a series that says everything since its start again, or None."""
        before = self._cumulative.get(key)
        if before is None and len(self._cumulative) >= _LIMITS.cumulative_max:
            return None
        self._cumulative[key] = window
        if before is None:
            # After a restart nobody knows how much of it was counted before: it only says from where to count on.
            return None if self._resumed else window
        if window.count < before.count:
            return window
        count = window.count - before.count
        if not count:
            return None
        buckets: tuple[int, ...] = ()
        if len(window.buckets) == len(before.buckets):
            buckets = tuple(now - then for now, then in zip(window.buckets, before.buckets, strict=True))
        return Window(
            count=count,
            total=window.total - before.total,
            squares=max(0.0, window.squares - before.squares),
            buckets=buckets if min(buckets, default=0) >= 0 else (),
        )

    def of(self) -> Mapping[str, Sides]:
        """Return both sides by metric, as they are now."""
        none = _Tally(StoredSide())
        sides: dict[str, Sides] = {}
        for name in sorted(self._tallies.keys() | self._waves.keys()):
            new, old = self._tallies.get(name, (none, none))
            wave = self._waves.get(name)
            sides[name] = Sides(new=new.side(), old=old.side(), paired=self.paired, wave=(wave or none).side())
        return sides

    def stored(self, limits: MetricLimits | None = None) -> bytes:
        """Return what to keep with the rollout, empty when it would be too much."""
        sides = {name: (new.stored(), old.stored()) for name, (new, old) in self._tallies.items()}
        waves = {name: tally.stored() for name, tally in self._waves.items()}
        evidence = StoredEvidence(_VERSION, self.revision, self.wave, self.paired, sides, waves)
        body = zlib.compress(_ENCODER.encode(evidence), 1)
        return body if len(body) <= (limits or _LIMITS).stored_bytes_max else b""


def restored(stored: bytes, revision: str) -> StoredEvidence | None:
    """Return stored evidence of a revision; None when there is none or it cannot be read."""
    if not stored:
        return None
    try:
        evidence = _DECODER.decode(zlib.decompressobj().decompress(stored, _UNPACKED_MAX))
    except (zlib.error, msgspec.MsgspecError):
        return None
    return evidence if (evidence.version, evidence.revision) == (_VERSION, revision) else None


_UNPACKED_MAX: Final = 16_000_000
