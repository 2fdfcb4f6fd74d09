"""Draws the single faults of a run from its scenario, its fleet and its seed.

Pure: the same three give the same faults with the same numbers, on every machine. Every rule draws from a stream of its own, and every
device that is hit at its own moments too, so that a rule or a device more moves no other fault in time.
"""

import math
from collections.abc import Iterator
from typing import Final

import msgspec

from edgewise.resources.errors import Invalid, Problem
from edgewise.resources.quantity import seconds
from edgewise.twin.fleet import TwinDevice, TwinFleet
from edgewise.twin.kernel import Kernel, Stream
from edgewise.twin.scenario import Fault, FaultKind, FaultRule, Scenario, Select

__all__ = ["ANONYMOUS", "LIMITS", "MOMENTARY", "ScheduleLimits", "kept", "schedule", "selected"]

ANONYMOUS: Final[frozenset[FaultKind]] = frozenset({"control-kill", "control-kill-at-write", "control-restore", "slow-store"})
"""Faults of the control plane: they hit no device."""

MOMENTARY: Final[frozenset[FaultKind]] = frozenset(
    {"reboot", "agent-kill", "supervisor-kill", "lost", "sync-failure", "bit-rot", "workload-crash"}
)
"""Faults that are over at once, or come to no end: they last 0 seconds."""

_DAY: Final = 86_400.0


class ScheduleLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one schedule may hold: faults, and devices hit by all of them together."""

    faults_max: int = 1_000_000
    hits_max: int = 20_000_000


LIMITS: Final = ScheduleLimits()

_Unit = tuple[str, tuple[str, ...]]
"""What is hit as one: its name for chance, and the devices."""


class _Drawn(msgspec.Struct, frozen=True):
    at: float
    rule: int
    lasts: float
    devices: tuple[str, ...]
    kind: FaultRule


def schedule(scenario: Scenario, fleet: TwinFleet, seed: int, limits: ScheduleLimits = LIMITS) -> tuple[Fault, ...]:
    """Return the faults of `scenario` on `fleet`, in the order of their time, numbered from 1. The rules come first; what is known of the
    devices' past (`TwinDevice.history`) gives outages and restarts of its own. No fault outlasts `scenario.lasts`.

    Raises `Invalid` when there would be more than `limits` allow.
    """
    end = seconds(scenario.lasts)
    kernel = Kernel(seed)
    drawn: list[_Drawn] = []
    hits = 0
    for fault in _all(scenario, fleet, kernel, end):
        drawn.append(fault)
        hits += len(fault.devices)
        if len(drawn) > limits.faults_max or hits > limits.hits_max:
            message = f"gives more than {limits.faults_max} faults, or hits more than {limits.hits_max} devices with them"
            where = f"faults[{fault.rule}]" if fault.rule < len(scenario.faults) else "devices.history"
            raise Invalid((Problem(path=where, message=message, hint="let it come less often, to fewer devices, or for a shorter time"),))
    drawn.sort(key=lambda fault: (fault.at, fault.rule, fault.devices))
    return tuple(
        Fault(number=number, at=fault.at, lasts=fault.lasts, rule=fault.kind, devices=fault.devices)
        for number, fault in enumerate(drawn, start=1)
    )


def kept(faults: tuple[Fault, ...], only: tuple[int, ...] | None) -> tuple[Fault, ...]:
    """Return the faults whose numbers are in `only`, or all of them where that is None."""
    if only is None:
        return faults
    numbers = frozenset(only)
    return tuple(fault for fault in faults if fault.number in numbers)


def selected(select: Select, fleet: TwinFleet) -> tuple[TwinDevice, ...]:
    """Return the devices that `select` speaks of, before its `share` is drawn."""
    sites, classes, devices = frozenset(select.sites), frozenset(select.classes), frozenset(select.devices)
    wanted = select.labels.items()
    return tuple(
        device
        for device in fleet.devices
        if (not sites or device.site in sites)
        and (not classes or device.device_class in classes)
        and (not devices or device.name in devices)
        and all(device.labels.get(key) == value for key, value in wanted)
    )


def _all(scenario: Scenario, fleet: TwinFleet, kernel: Kernel, end: float) -> Iterator[_Drawn]:
    for index, rule in enumerate(scenario.faults):
        for moment, units in _moments(rule, index, fleet, kernel, end):
            at = _rounded(moment)
            lasts = 0.0 if rule.fault in MOMENTARY else _rounded(min(seconds(rule.lasts), end - at))
            devices = tuple(name for _, names in units for name in names)
            yield _Drawn(at, index, lasts, devices, rule)
    yield from _past(fleet, len(scenario.faults), kernel, end)


def _rounded(value: float) -> float:
    """Return `value` in whole milliseconds: logarithms may differ in their last bit between machines, moments must not."""
    return round(value, 3)


# ---- rules ----


def _moments(rule: FaultRule, index: int, fleet: TwinFleet, kernel: Kernel, end: float) -> Iterator[tuple[float, list[_Unit]]]:
    """Yield when a rule's faults come, and whom each hits."""
    start = seconds(rule.at)
    until = min(end, seconds(rule.until) if rule.until is not None else end)
    units = [] if rule.fault in ANONYMOUS else _units(rule, fleet)
    if rule.fault not in ANONYMOUS and not units:
        return
    share = rule.select.share
    steady = _drawn_units(units, share, kernel.stream("faults", index, "who")) if rule.select.same or rule.every is None else None
    if rule.together or rule.fault in ANONYMOUS:
        times = kernel.stream("faults", index, "when")
        for number, at in enumerate(_times(rule, start, until, times, own=False)):
            yield at, steady if steady is not None else _drawn_units(units, share, kernel.stream("faults", index, "who", number))
        return
    for unit in units if steady is None else steady:
        own = kernel.stream("faults", index, "when", unit[0])
        for at in _times(rule, start, until, own, own=True):
            # Drawn anew each time: each hits its unit with the probability that is the share.
            if steady is not None or own.unit() < share:
                yield at, [unit]


def _times(rule: FaultRule, start: float, until: float, stream: Stream, *, own: bool) -> Iterator[float]:
    if rule.every is None:
        at = stream.uniform(start, until) if own else start
        if at < until or at == start < until:
            yield at
        return
    mean = max(seconds(rule.every), 0.001)
    at = start + _gap(stream, mean)
    while at < until:
        yield at
        at += _gap(stream, mean)


def _gap(stream: Stream, mean: float) -> float:
    return -mean * math.log(1.0 - stream.unit())


def _units(rule: FaultRule, fleet: TwinFleet) -> list[_Unit]:
    devices = selected(rule.select, fleet)
    if rule.fault == "battery":
        # Nothing else notices: a share is one of those that have a battery.
        powered = {sort.name for sort in fleet.classes if sort.energy.battery_watt_hours > 0}
        devices = tuple(device for device in devices if device.device_class in powered)
    if not rule.select.whole_sites:
        return [(device.name, (device.name,)) for device in devices]
    sites: dict[str, list[str]] = {}
    for device in devices:
        sites.setdefault(device.site, []).append(device.name)
    return [(site, tuple(sites[site])) for site in sorted(sites)]


def _drawn_units(units: list[_Unit], share: float, stream: Stream) -> list[_Unit]:
    """Return `share` of `units`, at least one, in their own order: the first steps of a Fisher-Yates shuffle."""
    if share >= 1 or not units:
        return units
    count = min(len(units), max(1, round(share * len(units)))) if share > 0 else 0
    moved: dict[int, int] = {}
    picked: list[int] = []
    for position in range(count):
        other = position + stream.below(len(units) - position)
        picked.append(moved.get(other, other))
        moved[other] = moved.get(position, position)
    return [units[position] for position in sorted(picked)]


# ---- what is known of the devices' past ----


def _past(fleet: TwinFleet, base: int, kernel: Kernel, end: float) -> Iterator[_Drawn]:
    for device in fleet.devices:
        history = device.history
        if history.offline:
            # Nobody knows when it comes back: when the faults end.
            yield _Drawn(0.0, base, _rounded(end), (device.name,), _OFFLINE)
            continue
        if history.outages_per_day > 0:
            yield from _outages(device, base + 1, kernel.stream("past", "outages", device.name), end)
        if history.restarts_per_day > 0:
            stream = kernel.stream("past", "restarts", device.name)
            mean = _DAY / history.restarts_per_day
            at = _gap(stream, mean)
            while at < end:
                yield _Drawn(_rounded(at), base + 2, 0.0, (device.name,), _RESTART)
                at += _gap(stream, mean)


_OFFLINE: Final = FaultRule(fault="partition")
_OUTAGE: Final = FaultRule(fault="partition", together=False)
_RESTART: Final = FaultRule(fault="reboot", together=False)


def _outages(device: TwinDevice, index: int, stream: Stream, end: float) -> Iterator[_Drawn]:
    mean = _DAY / device.history.outages_per_day
    at = _gap(stream, mean)
    while at < end:
        lasts = min(max(1.0, _gap(stream, max(device.history.outage_seconds, 1.0))), end - at)
        yield _Drawn(_rounded(at), index, _rounded(lasts), (device.name,), _OUTAGE)
        at += lasts + _gap(stream, mean)
