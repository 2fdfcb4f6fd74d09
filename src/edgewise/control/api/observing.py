"""What happened and what is measured: events, logs, metrics."""

import math
from collections.abc import AsyncGenerator
from typing import Final

import msgspec
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.response import Stream as StreamResponse

from edgewise.control.api.access import may, user_of
from edgewise.control.api.errors import ApiError, not_found
from edgewise.control.api.requests import AnyRequest, answer, flag, number
from edgewise.control.api.watching import Event, Watches, event_of, watch_events
from edgewise.control.services import Services
from edgewise.control.streams import Stream, StreamUnanswered, TooManyStreams
from edgewise.controllers.documents import audit
from edgewise.store.contract import FrameRow, Key, Transaction
from edgewise.wire.report import Series

_API: Final = "/apis/v1alpha1"
_SERIES: Final = msgspec.msgpack.Decoder(tuple[Series, ...])
_TEXT_MAX: Final = 512


class EventList(msgspec.Struct, frozen=True, kw_only=True):
    """Events, oldest first; `revision` is the last one's number."""

    items: tuple[Event, ...]
    revision: int
    kind: str = "EventList"


class Measured(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One metric of one instance and revision over the asked time. `mean` over `count` samples, times in seconds since the epoch."""

    name: str
    unit: str
    instance: str
    revision: str
    count: int
    mean: float
    deviation: float
    min: float
    max: float
    last: float
    start: float
    end: float


class MetricList(msgspec.Struct, frozen=True, kw_only=True):
    """What a device measured."""

    device: str
    items: tuple[Measured, ...]


def observing_handlers(services: Services, watches: Watches) -> list[HTTPRouteHandler]:
    """Return the handlers of events, logs and metrics."""

    @get(f"{_API}/events", opt=may("list", kind="Event", watch=True, gives=EventList), summary="List or watch events")
    async def events(request: AnyRequest) -> Response[bytes] | StreamResponse:
        about = request.query_params.get("about", "")[:_TEXT_MAX] or None
        source = request.query_params.get("source", "")[:_TEXT_MAX] or None
        after = number(request, "after", 0, 0, 1 << 62)
        if flag(request, "watch"):
            return watches.stream(watch_events(services, after, about, source))
        limit = number(request, "limit", services.limits.list_items_default, 1, services.limits.events_max)
        store = services.store
        rows = await (store.events(after, limit, about, source) if after else store.recent_events(limit, about, source))
        last = rows[-1].number if rows else after
        return answer(EventList(items=tuple(event_of(row) for row in rows), revision=last))

    return [events, _logs(services), _metrics(services)]


def _logs(services: Services) -> HTTPRouteHandler:
    @get(f"{_API}/logs/{{device:str}}/{{namespace:str}}/{{workload:str}}", opt=may("get", kind="Log"), summary="Stream a workload's log")
    async def logs(request: AnyRequest) -> StreamResponse:
        device, namespace, workload = (request.path_params[name] for name in ("device", "namespace", "workload"))
        row = services.runner.view.agent_of(device)
        if row is None:
            raise not_found(f"there is no device {device[:128]}, or no agent speaks for it")
        if (namespace, workload) not in services.runner.view.on_device.get(device, {}):
            raise not_found(f"workload {workload[:128]} of namespace {namespace[:128]} is not on device {device}")
        agent = row.key.name
        if not services.polls.is_open(agent):
            raise ApiError(503, "Unreachable", f"device {device} is not connected", retry_after=5.0)
        follow, tail = flag(request, "follow"), number(request, "tail", 200, 0, services.limits.stream_tail_lines_max)
        now = services.clock.wall()
        told = audit(now, user_of(request).name, "Logs", f"log of {namespace}/{workload} on {device}", Key("Device", "", device))
        await services.runner.commit(Transaction(now=now, events=(told,)))
        stream = await _opened(services, agent, device, f"{namespace}/{workload}", follow=follow, tail=tail)
        return StreamResponse(_log(services, stream), media_type="text/plain; charset=utf-8", headers={"cache-control": "no-store"})

    return logs


def _metrics(services: Services) -> HTTPRouteHandler:
    @get(f"{_API}/metrics/{{device:str}}", opt=may("get", kind="Metrics", gives=MetricList), summary="What a device measured")
    async def metrics(request: AnyRequest) -> Response[bytes]:
        device = request.path_params["device"]
        if device not in services.runner.view.devices:
            raise not_found(f"there is no device {device[:128]}")
        seconds = number(request, "seconds", 3_600, 1, 30 * 86_400)
        now = services.clock.wall()
        frames = await services.store.frames(device, now - seconds, now + 86_400, services.limits.list_items_max)
        return answer(MetricList(device=device, items=summarised(frames)))

    return metrics


def summarised(frames: tuple[FrameRow, ...]) -> tuple[Measured, ...]:
    """Return the frames' summaries added up per metric, instance and revision. Cumulative series count with their latest value."""
    sums: dict[tuple[str, str, str, str], _Sum] = {}
    for frame in frames:
        for series in _SERIES.decode(frame.summary):
            if series.count > 0 and math.isfinite(series.sum) and math.isfinite(series.sum_squares):
                key = (series.name, series.unit, series.instance, series.revision)
                sums.setdefault(key, _Sum()).add(series, frame)
    return tuple(total.measured(*key) for key, total in sorted(sums.items()))


class _Sum:
    """Adds up one metric."""

    def __init__(self) -> None:
        self.count, self.total, self.squares = 0, 0.0, 0.0
        self.least, self.most, self.last = math.inf, -math.inf, 0.0
        self.start, self.end = math.inf, -math.inf

    def add(self, series: Series, frame: FrameRow) -> None:
        if series.temporality == "cumulative":
            self.count, self.total, self.squares = series.count, series.sum, series.sum_squares
        else:
            self.count, self.total, self.squares = self.count + series.count, self.total + series.sum, self.squares + series.sum_squares
        self.least, self.most, self.last = min(self.least, series.min), max(self.most, series.max), series.last
        self.start, self.end = min(self.start, frame.start), max(self.end, frame.end)

    def measured(self, name: str, unit: str, instance: str, revision: str) -> Measured:
        mean = self.total / self.count
        variance = max(0.0, self.squares / self.count - mean * mean)
        return Measured(
            name=name, unit=unit, instance=instance, revision=revision, count=self.count, mean=mean, deviation=math.sqrt(variance),
            min=self.least, max=self.most, last=self.last, start=self.start, end=self.end,
        )  # fmt: skip


async def _opened(services: Services, agent: str, device: str, instance: str, *, follow: bool, tail: int) -> Stream:
    """Return a stream that the device has opened. Raises `ApiError`."""
    try:
        stream = services.streams.ask(agent, device, instance, follow=follow, tail_lines=tail)
    except TooManyStreams as error:
        raise ApiError(503, "Overloaded", "too many streams are open", retry_after=10.0) from error
    try:
        await services.streams.wait_opened(stream)
    except StreamUnanswered as error:
        services.streams.close(stream)
        raise ApiError(503, "Unreachable", f"device {device} did not answer in time", retry_after=5.0) from error
    except BaseException:
        services.streams.close(stream)
        raise
    return stream


async def _log(services: Services, stream: Stream) -> AsyncGenerator[bytes, None]:
    try:
        async for piece in stream.pieces():
            yield piece
    finally:
        services.streams.close(stream)
