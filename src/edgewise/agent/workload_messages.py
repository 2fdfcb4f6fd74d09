"""What is said over the local workload API, as JSON: what a workload may send, and what it gets."""

from typing import Annotated, Literal

import msgspec

from edgewise.resources.meta import Name, Scalar

MetricName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z][-A-Za-z0-9_./]{0,127}$")]
RevisionText = Annotated[str, msgspec.Meta(max_length=128)]


class Subject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which instance a metric is about, when it is not the one who reports it: a workload of the same namespace on this device."""

    workload: Name
    revision: RevisionText


class Point(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One or many values of a metric. A counter's values are increments. Names and units follow OpenTelemetry."""

    name: MetricName
    value: float | None = None
    values: Annotated[tuple[float, ...], msgspec.Meta(max_length=10_000)] = ()
    unit: Annotated[str, msgspec.Meta(max_length=32)] = ""
    type: Literal["gauge", "counter", "histogram"] = "gauge"
    subject: Subject | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Many values of one metric, summarised by the caller. `buckets` counts the values at most each of `bounds` (ascending), and in its
    last place those above all. `sketch` is the bytes of a mergeable summary of the distribution, Base64; a series takes one in a window.
    `revision`: of the caller's own instance; empty: the one that it runs."""

    name: MetricName
    count: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]
    sum: float
    sum_squares: Annotated[float, msgspec.Meta(ge=0)]
    min: float
    max: float
    last: float
    unit: Annotated[str, msgspec.Meta(max_length=32)] = ""
    type: Literal["gauge", "counter", "histogram"] = "histogram"
    bounds: Annotated[tuple[float, ...], msgspec.Meta(max_length=64)] = ()
    buckets: Annotated[tuple[Annotated[int, msgspec.Meta(ge=0)], ...], msgspec.Meta(max_length=65)] = ()
    sketch: Annotated[bytes, msgspec.Meta(max_length=8192)] = b""
    sketch_type: Annotated[str, msgspec.Meta(max_length=32)] = ""
    revision: RevisionText = ""


class Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v1/metrics`: single values, what the caller summarised itself, or both."""

    metrics: Annotated[tuple[Point, ...], msgspec.Meta(max_length=1000)] | None = None
    summaries: Annotated[tuple[Summary, ...], msgspec.Meta(max_length=128)] | None = None


class Feedback(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/feedback`: whether a model's answers turned out right. `correct` and `wrong` count answers."""

    service: Name
    revision: RevisionText
    correct: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0
    wrong: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 0


class RefusedPoint(msgspec.Struct, frozen=True, omit_defaults=True):
    """A metric that was not taken, by its place in the request; summaries count on after the metrics."""

    index: int
    reason: str
    message: str


class Taken(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to metrics and feedback: how many points were taken, and which were not."""

    accepted: int
    refused: tuple[RefusedPoint, ...] = ()


class ServiceAnswer(msgspec.Struct, frozen=True):
    """Where another instance serves. `ready`: it takes requests now."""

    name: str
    address: str
    revision: str
    ready: bool


class InstanceAnswer(msgspec.Struct, frozen=True):
    """Who the caller is."""

    instance: str
    device: str
    revision: str
    parameters: dict[str, Scalar]


class LocalError(msgspec.Struct, frozen=True):
    """The body of every 4xx and 5xx."""

    reason: str
    message: str
