"""What the local workload API answers: who may ask what, and what it does. No sockets here.

The caller is known by the socket it came through, never by what it says. It may speak of itself and of the other instances of its namespace
on this device; anything else is denied in the same words whether it exists or not.
"""

import functools
import itertools
import math
import threading
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import msgspec

from edgewise.agent import aggregate
from edgewise.agent.aggregate import Aggregator, Sample, Window
from edgewise.agent.workload_messages import (
    Feedback,
    InstanceAnswer,
    Metrics,
    Point,
    RefusedPoint,
    ServiceAnswer,
    Summary,
    Taken,
)
from edgewise.ports.clock import Clock
from edgewise.resources.decoding import UNREADABLE
from edgewise.resources.meta import Scalar

ACCURACY_METRIC: Final = "model.accuracy"
REVISIONS_REMEMBERED: Final = 8
"""Of each instance, so that what arrives just after a swap still counts for the revision it is about."""


class InstanceView(msgspec.Struct, frozen=True, kw_only=True):
    """What the API knows of an instance. `name` is NAMESPACE/WORKLOAD, `revision` the one that takes the traffic (before any does: the
    one that starts), `also_running` those in the other slot, `address` where it serves or empty. `secrets` are the names it may read."""

    name: str
    revision: str
    also_running: tuple[str, ...] = ()
    address: str = ""
    ready: bool = False
    parameters: dict[str, Scalar] = {}
    config: dict[str, str] = {}
    secrets: tuple[str, ...] = ()


class ApiCalls(msgspec.Struct, frozen=True):
    """What the API asks of the agent, from its own thread; none of it may block for long. `secret(instance, name)` returns the secret's
    data or None; `heartbeat(instance)`; `window(window)` takes the metrics of one window. Without `window` somebody else calls the
    aggregator's `take`."""

    heartbeat: Callable[[str], None]
    secret: Callable[[str, str], Mapping[str, str] | None]
    window: Callable[[Window], None] | None = None


class ApiRefused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Request(msgspec.Struct, frozen=True):
    """One request, read whole. `instance` is who asks."""

    instance: str
    method: str
    path: str
    revision: str
    body: bytes


_Answer = msgspec.Struct | dict[str, str]


class Answers:
    """Answers requests from what was published last."""

    def __init__(self, device: str, calls: ApiCalls, aggregator: Aggregator, clock: Clock) -> None:
        self._device = device
        self._calls = calls
        self._aggregator = aggregator
        self._clock = clock
        self._views: Mapping[str, InstanceView] = {}
        self._revisions: dict[str, tuple[str, ...]] = {}
        self._lock = threading.Lock()
        self._routes: dict[tuple[str, str], Callable[[Request, InstanceView, str], _Answer]] = {
            ("GET", "services"): self._service,
            ("GET", "config"): self._config,
            ("GET", "secrets"): self._secret,
            ("GET", "instance"): self._instance,
            ("POST", "metrics"): self._metrics,
            ("POST", "feedback"): self._feedback,
            ("POST", "heartbeat"): self._heartbeat,
        }

    def publish(self, instances: Mapping[str, InstanceView]) -> None:
        """Replace what is known. Safe from any thread."""
        with self._lock:
            before = self._revisions
            self._revisions = {
                name: _remembered(before.get(name, ()), (*view.also_running, view.revision)) for name, view in instances.items()
            }
            self._views = dict(instances)

    def answer(self, request: Request) -> _Answer:
        """Carry out one request. Raises `ApiRefused`."""
        view = self._views.get(request.instance)
        if view is None:
            raise ApiRefused(404, "NotFound", "this instance is no longer wanted here")
        version, _, rest = request.path.removeprefix("/").partition("/")
        what, _, name = rest.partition("/")
        if version != "v1" or not any(what == known for _, known in self._routes):
            raise ApiRefused(404, "NotFound", f"there is no {request.path[:100]} here")
        route = self._routes.get((request.method, what))
        if route is None:
            raise ApiRefused(405, "WrongMethod", f"{request.method[:20]} is not for {request.path[:100]}")
        if bool(name) != (what in {"services", "secrets"}) or "/" in name:
            raise ApiRefused(404, "NotFound", f"there is no {request.path[:100]} here")
        return route(request, view, name)

    def _service(self, _request: Request, view: InstanceView, name: str) -> ServiceAnswer:
        other = self._views.get(f"{_namespace(view)}/{name}")
        if other is None or not other.address:
            raise ApiRefused(404, "NotFound", f"no service {name[:100]} in this namespace on this device")
        return ServiceAnswer(name, other.address, other.revision, other.ready)

    def _config(self, _request: Request, view: InstanceView, _name: str) -> dict[str, str]:
        return view.config

    def _secret(self, _request: Request, view: InstanceView, name: str) -> dict[str, str]:
        data = self._calls.secret(view.name, name) if name in view.secrets else None
        if data is None:
            raise ApiRefused(404, "NotFound", f"this workload has no secret {name[:100]}")
        return dict(data)

    def _instance(self, request: Request, view: InstanceView, _name: str) -> InstanceAnswer:
        return InstanceAnswer(view.name, self._device, self._own_revision(request, view), view.parameters)

    def _heartbeat(self, _request: Request, view: InstanceView, _name: str) -> dict[str, str]:
        self._calls.heartbeat(view.name)
        return {}

    def _metrics(self, request: Request, view: InstanceView, _name: str) -> Taken:
        said = _decoded(request.body, Metrics)
        if said.metrics is None and said.summaries is None:
            raise ApiRefused(400, "Invalid", "the request has neither metrics nor summaries")
        own = self._own_revision(request, view)
        steps: list[Callable[[], None]] = [
            *(functools.partial(self._add_point, view, own, point) for point in said.metrics or ()),
            *(functools.partial(self._add_summary, view, own, summary) for summary in said.summaries or ()),
        ]
        refused = []
        for index, step in enumerate(steps):
            try:
                step()
            except ApiRefused as error:
                refused.append((index, error))
        if steps and len(refused) == len(steps):
            raise refused[0][1]
        return Taken(len(steps) - len(refused), tuple(RefusedPoint(index, error.reason, str(error)) for index, error in refused))

    def _feedback(self, request: Request, view: InstanceView, _name: str) -> Taken:
        said = _decoded(request.body, Feedback)
        instance = self._known(view, said.service, said.revision)
        values = (1.0,) * said.correct + (0.0,) * said.wrong
        self._add(view, (instance, said.revision), Point(name=ACCURACY_METRIC, values=values, unit="1"))
        return Taken(len(values))

    def _add_point(self, view: InstanceView, own: str, point: Point) -> None:
        self._add(view, self._about(view, point, own), point)

    def _add_summary(self, view: InstanceView, own: str, summary: Summary) -> None:
        revision = summary.revision or own
        if summary.revision:
            self._known(view, view.name.partition("/")[2], summary.revision)
        numbers = (summary.sum, summary.sum_squares, summary.min, summary.max, summary.last, *summary.bounds)
        if not all(map(math.isfinite, numbers)) or not summary.min <= summary.last <= summary.max:
            raise ApiRefused(400, "Invalid", f"{summary.name} needs finite numbers, and its last value between its least and its greatest")
        buckets = len(summary.buckets) == len(summary.bounds) + 1 and sum(summary.buckets) == summary.count
        if (summary.bounds or summary.buckets) and not (buckets and _ascending(summary.bounds)):
            raise ApiRefused(
                400, "Invalid", f"{summary.name} needs ascending bounds, one bucket more than bounds, and all values in buckets"
            )
        fields = {field: getattr(summary, field) for field in summary.__struct_fields__ if field != "revision"}
        taken = aggregate.Summary(instance=view.name, revision=revision, **fields)
        if not self._aggregator.add_summary(taken, self._clock.wall(), self._clock.monotonic(), view.name):
            raise ApiRefused(429, "WindowFull", f"this window has no room for {summary.name}: it is taken in the next one")

    def _about(self, view: InstanceView, point: Point, own: str) -> tuple[str, str]:
        if point.subject is None:
            return view.name, own
        return self._known(view, point.subject.workload, point.subject.revision), point.subject.revision

    def _known(self, view: InstanceView, workload: str, revision: str) -> str:
        instance = f"{_namespace(view)}/{workload}"
        if revision not in self._revisions.get(instance, ()):
            raise ApiRefused(403, "Denied", f"no revision {revision[:100]} of {workload[:100]} in this namespace ran on this device lately")
        return instance

    def _own_revision(self, request: Request, view: InstanceView) -> str:
        # Two revisions of an instance run while one replaces the other; each says which one it is, and is believed if it can be.
        return request.revision if request.revision in self._revisions.get(view.name, ()) else view.revision

    def _add(self, view: InstanceView, about: tuple[str, str], point: Point) -> None:
        values = point.values if point.value is None else (*point.values, point.value)
        if not values or not all(map(math.isfinite, values)):
            raise ApiRefused(400, "Invalid", f"{point.name} needs at least one value, all of them finite")
        sample = Sample(name=point.name, values=values, instance=about[0], revision=about[1], unit=point.unit, type=point.type)
        if not self._aggregator.add(sample, self._clock.wall(), self._clock.monotonic(), view.name):
            raise ApiRefused(429, "TooManySeries", f"{point.name} is one series too many for this window")


def _ascending(bounds: tuple[float, ...]) -> bool:
    return all(low < high for low, high in itertools.pairwise(bounds))


def _namespace(view: InstanceView) -> str:
    return view.name.partition("/")[0]


def _remembered(before: tuple[str, ...], running: tuple[str, ...]) -> tuple[str, ...]:
    return (*(one for one in before if one not in running), *running)[-REVISIONS_REMEMBERED:]


_T = TypeVar("_T")


def _decoded(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE as error:
        raise ApiRefused(400, "Invalid", str(error)[:300]) from error
