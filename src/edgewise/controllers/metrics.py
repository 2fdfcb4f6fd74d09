"""What the devices of a rollout's wave reported of the metrics that judge it: per metric and side, one small cell of sums per device.

The new side are devices that run the new revision, the old side those that run the one before, over the same time. Everything else only
passes through. One report costs a dictionary look-up and a few additions, whatever the size of the fleet; memory is bounded by
`UnitLimits` and `MetricLimits`. `stored` is what survives a restart of the control plane with the rollout's status.
"""

import zlib
from collections.abc import Collection, Mapping
from typing import Final, Literal

import msgspec

from edgewise.delivery.evidence.units import LIMITS, Cell, Side, Sides, UnitLimits, Window, cell_key, plus, usable
from edgewise.wire.report import Series


class MetricLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`stored_bytes_max`: of all evidence of one rollout as it is stored (compressed); more is not stored, and the count begins
    anew after a restart. `cumulative_max`: series whose last cumulative value is remembered; of more the whole value counts as dropped."""

    stored_bytes_max: int = 256_000
    cumulative_max: int = 100_000


class StoredSide(msgspec.Struct, frozen=True, array_like=True):
    """One side of one metric, as stored."""

    cells: dict[str, Cell] = {}
    devices: int = 0
    dropped: int = 0
    bounds: tuple[float, ...] = ()


class StoredEvidence(msgspec.Struct, frozen=True, array_like=True):
    """All evidence of one wave, as stored: for which revisions and wave, and both sides by metric."""

    version: int
    revision: str
    wave: int
    sides: dict[str, tuple[StoredSide, StoredSide]] = {}


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
        if bounds and not self.bounds and len(bounds) <= limits.buckets_max:
            self.bounds = bounds
        if bounds != self.bounds or len(window.buckets) != len(bounds) + 1:
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


class WaveMetrics:
    """The evidence of one wave. `old_revision` empty: nothing is compared. `controls`: the devices whose reports of the old revision count
    (None: all that report it). `paired`: each device runs both revisions."""

    __slots__ = ("_cumulative", "_resumed", "_tallies", "controls", "limits", "names", "old_revision", "paired", "revision", "wave")

    def __init__(
        self,
        revision: str,
        wave: int,
        names: frozenset[str],
        *,
        old_revision: str = "",
        controls: Collection[str] | None = None,
        paired: bool = False,
        stored: bytes = b"",
        limits: UnitLimits = LIMITS,
    ) -> None:
        self.revision = revision
        self.wave = wave
        self.names = names
        self.old_revision = old_revision
        self.controls = controls
        self.paired = paired
        self.limits = limits
        known = restored(stored, revision, wave)
        self._resumed = known is not None
        sides = known.sides if known is not None else {}
        self._tallies: dict[str, tuple[_Tally, _Tally]] = {
            name: (_Tally(new), _Tally(old)) for name, (new, old) in sides.items() if name in names
        }
        self._cumulative: dict[tuple[str, str, str], Window] = {}

    def side_of(self, device: str, revision: str) -> Literal["new", "old", ""]:
        """Return which side a device's report of a revision belongs to; empty: neither."""
        if revision == self.revision:
            return "new"
        if not self.old_revision or revision != self.old_revision:
            return ""
        return "old" if self.controls is None or device in self.controls else ""

    def add(self, device: str, series: Series, stratum: str = "") -> bool:
        """Take over one series of a device; `stratum` is what it is matched by, its class. Return whether it counts here."""
        side = self.side_of(device, series.revision) if series.name in self.names else ""
        if not side or series.count <= 0:
            return False
        tallies = self._tallies.get(series.name)
        if tallies is None:
            tallies = self._tallies[series.name] = (_Tally(StoredSide()), _Tally(StoredSide()))
        tally = tallies[side == "old"]
        window = Window(count=series.count, total=series.sum, squares=series.sum_squares, buckets=series.buckets)
        if not usable(series.name, window, self.limits):
            tally.dropped += 1
            return False
        if series.temporality == "cumulative":
            grown = self._growth((device, series.name, series.revision), window)
            if grown is None:
                return False
            window = grown
        # Until something of the new revision is known, the old one is not counted either: both cover the same time.
        if side == "old" and not tallies[0].cells:
            return False
        tally.add(device, stratum, window, series.bounds, self.limits)
        return True

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
        return {name: Sides(new=new.side(), old=old.side(), paired=self.paired) for name, (new, old) in self._tallies.items()}

    def stored(self, limits: MetricLimits = _LIMITS) -> bytes:
        """Return what to keep with the rollout, empty when it would be too much."""
        sides = {name: (new.stored(), old.stored()) for name, (new, old) in self._tallies.items()}
        body = zlib.compress(_ENCODER.encode(StoredEvidence(_VERSION, self.revision, self.wave, sides)), 1)
        return body if len(body) <= limits.stored_bytes_max else b""


def restored(stored: bytes, revision: str, wave: int) -> StoredEvidence | None:
    """Return stored evidence of this wave of this revision; None when there is none or it cannot be read."""
    if not stored:
        return None
    try:
        body = zlib.decompressobj().decompress(stored, _UNPACKED_MAX)
        evidence = _DECODER.decode(body)
    except (zlib.error, msgspec.MsgspecError):
        return None
    same = (evidence.version, evidence.revision, evidence.wave) == (_VERSION, revision, wave)
    return evidence if same else None


_UNPACKED_MAX: Final = 16_000_000
