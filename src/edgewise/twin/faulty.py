"""Which faults a chaos run has: its temper, and the rules drawn for it."""

from typing import Final

import msgspec

from edgewise.twin.fleet import LinkQuality, TwinFleet
from edgewise.twin.kernel import Kernel, Stream
from edgewise.twin.scenario import FaultKind, FaultRule, Select
from edgewise.twin.schedule import ANONYMOUS

__all__ = ["EVERY_KIND", "TEMPERS", "Temper", "rules_of"]

_NETWORK: Final[tuple[FaultKind, ...]] = ("partition", "captive-portal", "link")
_POWER: Final[tuple[FaultKind, ...]] = ("power-cut", "reboot", "agent-kill", "supervisor-kill", "battery")
_DISK: Final[tuple[FaultKind, ...]] = ("disk-full", "disk-error", "disk-read-only", "sync-failure", "bit-rot")
_CONTROL: Final[tuple[FaultKind, ...]] = ("control-kill", "control-kill-at-write", "control-restore", "slow-store")
_WORK: Final[tuple[FaultKind, ...]] = ("workload-crash", "workload-hang", "workload-leak", "heat")
_HARDWARE: Final[tuple[FaultKind, ...]] = ("lost", "absent", "replaced", "cloned", "clock")

EVERY_KIND: Final[tuple[FaultKind, ...]] = (*_NETWORK, *_POWER, *_DISK, *_CONTROL, *_WORK, *_HARDWARE)

_ONCE: Final = frozenset[FaultKind]({"lost", "replaced", "cloned", "control-restore"})
"""What comes at most twice a run, to one device: more of it leaves nothing to look at."""


class Temper(msgspec.Struct, frozen=True, kw_only=True):
    """What sort of run it is. `kinds`: how many kinds of fault are drawn out of `of`; `times`: how often each comes, about."""

    name: str
    of: tuple[FaultKind, ...] = ()
    kinds: int = 0
    times: int = 1


TEMPERS: Final[tuple[Temper, ...]] = (
    Temper(name="no-faults"),
    Temper(name="one-kind", of=EVERY_KIND, kinds=1, times=12),
    Temper(name="one-kind", of=EVERY_KIND, kinds=1, times=5),
    Temper(name="two-kinds", of=EVERY_KIND, kinds=2, times=5),
    Temper(name="network", of=_NETWORK, kinds=3, times=5),
    Temper(name="power", of=_POWER, kinds=4, times=4),
    Temper(name="disk", of=(*_DISK, "power-cut"), kinds=4, times=3),
    Temper(name="control-plane", of=(*_CONTROL, "partition"), kinds=4, times=2),
    Temper(name="workloads", of=(*_WORK, "agent-kill", "supervisor-kill"), kinds=4, times=4),
    Temper(name="some", of=EVERY_KIND, kinds=6, times=2),
    Temper(name="everything", of=EVERY_KIND, kinds=len(EVERY_KIND), times=1),
    Temper(name="everything-often", of=EVERY_KIND, kinds=len(EVERY_KIND), times=3),
)


def rules_of(temper: Temper, fleet: TwinFleet, kernel: Kernel, window: float) -> tuple[FaultRule, ...]:
    """Return rules whose faults come, and end, within `window` seconds."""
    drawn = kernel.stream("chaos", "kinds")
    left = list(temper.of)
    kinds = [left.pop(drawn.below(len(left))) for _ in range(min(temper.kinds, len(left)))]
    kinds.sort(key=EVERY_KIND.index)
    return tuple(_rule(kind, temper.times, fleet, kernel.stream("chaos", "rule", kind), window) for kind in kinds)


def _rule(kind: FaultKind, times: int, fleet: TwinFleet, stream: Stream, window: float) -> FaultRule:
    start = round(stream.uniform(0.0, 0.5 * window), 3)
    often = times > 1 and kind not in _ONCE
    lasts = round(min(_lasts(kind, stream), 0.4 * window), 3)
    mean = max(1.0, round((0.9 * window - start) / times, 3))
    together = not often or kind in ANONYMOUS or stream.chance(0.5)
    if not together:
        # Each device at its own moments: as many faults in all.
        mean *= len(fleet.devices)
    return FaultRule(
        fault=kind,
        at=f"{start:g}s",
        every=f"{mean:g}s" if often else None,
        until=f"{0.9 * window:g}s" if often else None,
        lasts=f"{lasts:g}s",
        together=together,
        select=Select() if kind in ANONYMOUS else _select(kind, fleet, stream),
        direction=(("both", "both", "up", "down")[stream.below(4)]) if kind == "partition" else "both",
        quality=_quality(stream) if kind == "link" else None,
        seconds=_seconds(kind, stream),
        amount=_amount(kind, stream),
    )


def _lasts(kind: FaultKind, stream: Stream) -> float:
    """Return how long one fault lasts: from shorter than anything waits to longer than everything does."""
    if kind in {"absent", "battery", "heat", "clock"}:
        return stream.uniform(120.0, 1_200.0)
    if kind in {"control-kill", "control-kill-at-write", "control-restore"}:
        return (0.5, 5.0, 45.0, 240.0)[stream.below(4)]
    return (1.0, 10.0, 60.0, 200.0, 600.0)[stream.below(5)]


def _select(kind: FaultKind, fleet: TwinFleet, stream: Stream) -> Select:
    if kind in _ONCE:
        return Select(devices=(fleet.devices[stream.below(len(fleet.devices))].name,))
    match stream.below(4):
        case 0:
            return Select()
        case 1:
            return Select(share=0.5, whole_sites=True)
        case 2:
            return Select(share=round(1 / len(fleet.devices), 3))
        case _:
            return Select(share=0.4)


def _quality(stream: Stream) -> LinkQuality:
    return LinkQuality(
        latency_seconds=round(stream.uniform(0.005, 3.0), 3),
        jitter_seconds=round(stream.uniform(0.0, 2.0), 3),
        bandwidth=float((64_000, 1_000_000, 50_000_000)[stream.below(3)]),
        loss=round(stream.uniform(0.0, 0.3), 3),
        duplication=round(stream.uniform(0.0, 0.5), 3),
        reordering=round(stream.uniform(0.0, 0.5), 3),
    )


def _seconds(kind: FaultKind, stream: Stream) -> float:
    match kind:
        case "clock":
            return (0.0, -86_400.0, -30.0, 30.0, 7_200.0, 31_536_000.0)[stream.below(6)]
        case "control-restore":
            return (30.0, 300.0, 900.0)[stream.below(3)]
        case "slow-store":
            return (0.05, 0.5, 5.0)[stream.below(3)]
        case _:
            return 0.0


def _amount(kind: FaultKind, stream: Stream) -> float:
    match kind:
        case "battery":
            return round(stream.uniform(0.02, 0.3), 3)
        case "heat":
            return float((15, 30, 60)[stream.below(3)])
        case "control-kill-at-write":
            return round(stream.unit(), 3)
        case _:
            return 0.0
