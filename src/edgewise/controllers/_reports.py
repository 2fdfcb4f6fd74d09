"""One item of a report at a time: what it makes of a device's status, of the event log, of the frames."""

import math
from typing import Final

import msgspec

from edgewise.controllers.history import booted, connected
from edgewise.controllers.limits import ReportLimits
from edgewise.resources.device import DeviceStatus
from edgewise.resources.states import Connection
from edgewise.store.codec import encode
from edgewise.store.contract import EventRow, FrameRow
from edgewise.wire.desired import Position
from edgewise.wire.report import DeviceReport, EventReport, FrameReport, Report

_ENCODER: Final = msgspec.msgpack.Encoder()
_SECONDS_MAX: Final = 1e12
_WRONG_SECONDS: Final = 60.0
_CAPABILITIES_MAX: Final = 32
_CAPABILITY_CHARS_MAX: Final = 64
"""A clock that is off by less is right enough: then the device's own times stand."""


class DeviceClock:
    """What a device's times mean here, from what time it said it was as it sent its report at `now`."""

    __slots__ = ("_boot_id", "_monotonic", "_shift", "now")

    def __init__(self, report: Report, now: float) -> None:
        self.now = now
        self._boot_id = report.boot_id
        self._monotonic = report.monotonic
        off = now - report.sent_at if report.sent_at else 0.0
        self._shift = off if _WRONG_SECONDS < abs(off) < _SECONDS_MAX else 0.0

    def at(self, wall: float) -> float:
        """Return when that was, here, whatever the device's clock showed."""
        return min(wall + self._shift, self.now) if self._shift else wall

    def of(self, wall: float, monotonic: float, boot_id: str) -> float:
        """Do the same where the device also said how long after its boot that was: then even a clock that was set since does not matter."""
        if not self._monotonic or not monotonic or boot_id != self._boot_id:
            return self.at(wall)
        ago = self._monotonic - monotonic
        then = self.now - ago if 0.0 <= ago < _SECONDS_MAX else self.now
        return then if abs(then - wall) > _WRONG_SECONDS else wall


def device_status(known: DeviceStatus, item: DeviceReport, told: Position, now: float, limits: ReportLimits) -> DeviceStatus:
    """Return a device's status with what an item says of it; `told` is the newest document meant for it. Being heard, it is Online."""
    capacity = item.capacity if item.capacity is not None and len(encode(item.capacity)) <= limits.capacity_bytes_max else known.capacity
    observed = item.observed.n if item.observed is not None and item.observed.epoch == told.epoch else known.observed_number
    if known.connection is not Connection.ONLINE:
        known = connected(known, Connection.ONLINE, now, now)
    if item.boot_id:
        known = booted(known, _short(item.boot_id, ""), now)
    return msgspec.structs.replace(
        known,
        health=item.health if item.health is not None else known.health,
        update=item.update if item.update is not None else known.update,
        capacity=capacity,
        agent_version=_short(item.agent_version, known.agent_version),
        capabilities=_capabilities(item, known),
        conditions=item.conditions[: limits.conditions_max] if item.conditions is not None else known.conditions,
        desired_number=told.n,
        observed_number=observed,
    )


def _capabilities(item: DeviceReport, known: DeviceStatus) -> tuple[str, ...]:
    if item.agent_version is None and item.capabilities is None:
        return known.capabilities
    return tuple(sorted(name[:_CAPABILITY_CHARS_MAX] for name in (item.capabilities or ())[:_CAPABILITIES_MAX]))


def _short(text: str | None, known: str) -> str:
    return text[:128] if text is not None else known


def event_row(item: EventReport, clock: DeviceClock, limits: ReportLimits) -> EventRow:
    """Return an event as the log keeps it."""
    namespace, _, workload = item.about.partition("/")
    about = f"Instance/{namespace}/{workload}.{item.device}" if workload else f"Device//{item.device}"
    return EventRow(
        at=clock.at(item.at) if abs(item.at) < _SECONDS_MAX else clock.now,
        type=item.type,
        reason=item.reason[:128],
        message=item.message[: limits.message_characters_max],
        source=item.device,
        about=about[:512],
        received_at=clock.now,
    )


def frame_row(item: FrameReport, clock: DeviceClock, limits: ReportLimits) -> FrameRow | None:
    """Return a frame as it is stored, its summaries as the index; None when its times are no times."""
    start, end = item.start, item.end
    if not (math.isfinite(start) and math.isfinite(end) and abs(start) < _SECONDS_MAX and abs(end) < _SECONDS_MAX):
        return None
    shift = clock.of(end, item.monotonic, item.boot_id) - end
    body = item.samples if len(item.samples) <= limits.samples_bytes_max else b""
    return FrameRow(device=item.device, start=start + shift, end=end + shift, summary=_ENCODER.encode(item.series), body=body)
