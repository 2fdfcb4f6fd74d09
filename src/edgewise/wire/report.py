"""Uplink: what changed on a device, numbered per lane, acknowledged by one mark per lane.

Items of a lane are numbered 1, 2, 3 … under the outbox's incarnation. At least once on the wire, exactly once in effect: the control
plane drops items at or below the lane's mark, and keeps the mark in the same transaction as the items' effect.
"""

from typing import Annotated, Literal

import msgspec

from edgewise.resources.device import Capacity
from edgewise.resources.instance import InstanceStatus
from edgewise.resources.meta import Condition
from edgewise.resources.states import DeviceUpdate, Health
from edgewise.wire.desired import Position
from edgewise.wire.version import WIRE_VERSION

Lane = Literal["alerts", "status", "events", "telemetry"]
"""Most urgent first. Over budget, the oldest items of the least urgent lane are dropped and counted."""


class InstanceReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="item", tag="instance", gc=False):
    """The whole status of one instance. `name` is NAMESPACE/WORKLOAD. `gone`: nothing of it is left on the device."""

    device: str
    name: str
    uid: str
    status: InstanceStatus
    gone: bool = False


class DeviceReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="item", tag="device", gc=False):
    """What changed of a device; None means unchanged. `observed` is the desired state that the device has taken over.
    `capabilities` go with `agent_version`: an agent that tells one and not the other has none."""

    device: str
    capacity: Capacity | None = None
    health: Health | None = None
    update: DeviceUpdate | None = None
    observed: Position | None = None
    conditions: tuple[Condition, ...] | None = None
    agent_version: str | None = None
    boot_id: str | None = None
    decommissioned: bool = False
    capabilities: tuple[str, ...] | None = None


class EventReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="item", tag="event", gc=False):
    """Something that happened. `at` is the device's wall clock, `monotonic` seconds since its boot; `about` is NAMESPACE/WORKLOAD
    or empty
    for the device itself. `reason` is one CamelCase word."""

    device: str
    at: float
    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    about: str = ""
    monotonic: float = 0.0


class Series(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, array_like=True, gc=False):
    """One metric over one window, summarised. Names and units follow OpenTelemetry. `instance` is NAMESPACE/WORKLOAD or empty. A histogram
    may carry `buckets`: how many values were at most each of `bounds`, and in the last how many were above all. `sketch` is a mergeable
    summary of the distribution, in the bytes of `sketch_type` (`kll-float`: Apache DataSketches). An older agent leaves these out."""

    name: str
    unit: str
    type: Literal["gauge", "counter", "histogram"]
    instance: str
    revision: str
    count: int
    sum: float
    sum_squares: float
    min: float
    max: float
    last: float
    temporality: Literal["delta", "cumulative"] = "delta"
    bounds: tuple[float, ...] = ()
    buckets: tuple[int, ...] = ()
    sketch: bytes = b""
    sketch_type: str = ""


class FrameReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="item", tag="frame", gc=False):
    """A telemetry frame: the summaries, and the samples as a compressed block that the control plane stores as it came. Wall and
    monotonic
    times in seconds."""

    device: str
    boot_id: str
    start: float
    end: float
    monotonic: float
    series: tuple[Series, ...]
    samples: bytes = b""


Item = InstanceReport | DeviceReport | EventReport | FrameReport


class LaneItems(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Consecutive items of one lane. The first has number `first`; `dropped` counts all items of this lane that were ever dropped;
    numbers
    of dropped items are never used again, so `first` may be beyond the mark by more than one."""

    first: Annotated[int, msgspec.Meta(ge=1)]
    items: tuple[Item, ...]
    dropped: int = 0


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The body of `POST /v1/report`. `incarnation` names the outbox's numbering (new when an outbox had to be started afresh);
    `session` is
    drawn at random by each start of the agent, so that two devices that show one identity are told from one that restarts.
    `sent_at` (wall), `monotonic` and `boot_id` are the device's own time as it sends this: what sets the times of its items right when its
    clock is wrong."""

    incarnation: str
    session: str
    lanes: dict[Lane, LaneItems] = {}
    sent_at: float = 0.0
    monotonic: float = 0.0
    boot_id: str = ""
    capabilities: tuple[str, ...] = ()
    wire: Annotated[int, msgspec.Meta(ge=1)] = WIRE_VERSION


class ReportAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The answer: per lane, the number up to which everything is kept. `time` is the control plane's wall clock."""

    marks: dict[Lane, int]
    time: float
    wire: Annotated[int, msgspec.Meta(ge=1)] = WIRE_VERSION
