"""What the operator API answers, besides resources themselves. Unknown fields are ignored: the control plane may be newer."""

from typing import Generic, Literal, TypeVar

import msgspec

from edgewise.resources.errors import Problem
from edgewise.resources.kinds import Resource

R = TypeVar("R", bound=Resource)

ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]
ApplyResult = Literal["created", "configured", "unchanged"]


class DevicePlan(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What placement decided for one device: the variant it gets, or why it is rejected."""

    device: str
    variant: str = ""
    reason: str = ""
    chosen: bool = False
    current: bool = False


class Placement(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What becomes of each device for one workload. `message` says why there is nothing to place yet."""

    devices: tuple[DevicePlan, ...] = ()
    message: str = ""


class Metric(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One metric of one instance (NAMESPACE/WORKLOAD) and revision on a device, summarised over `count` samples from `start` to `end`
    (seconds since the Unix epoch)."""

    name: str
    unit: str = ""
    instance: str = ""
    revision: str = ""
    count: int = 0
    mean: float = 0.0
    deviation: float = 0.0
    min: float = 0.0
    max: float = 0.0
    last: float = 0.0
    start: float = 0.0
    end: float = 0.0


class Token(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What may be known of a token that exists. Join tokens have `site`, `uses` and `used`, access tokens `name` and `role`."""

    id: str
    expires_at: float
    name: str = ""
    role: str = ""
    site: str = ""
    uses: int = 0
    used: int = 0
    created_by: str = ""


class AppliedResource(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One resource after it was applied, and what that did. For a dry run of a workload, `placement` is what it would run on."""

    resource: Resource
    result: ApplyResult
    warnings: tuple[str, ...] = ()
    placement: tuple[DevicePlan, ...] = ()


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """All resources of one `apply`, in order."""

    items: tuple[AppliedResource, ...]

    @property
    def revision(self) -> int:
        """The store's revision after the last change: watching from here misses nothing of what it caused."""
        return max((item.resource.metadata.revision for item in self.items), default=0)


class Listing(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """Resources of one kind, and the revision to watch from."""

    items: tuple[R, ...]
    revision: int


class Change(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """One change of a watch. `resource` is as of `revision`; of a deleted one it is the last that was seen."""

    type: ChangeType
    resource: R
    revision: int


class Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One line of the event log. Times in seconds since the Unix epoch: `at` by the source's clock, `received_at` by the control
    plane's."""

    number: int
    at: float
    type: str
    reason: str
    message: str
    source: str
    about: str = ""
    received_at: float = 0.0


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What went wrong, as the control plane says it."""

    reason: str = ""
    message: str = ""
    problems: tuple[Problem, ...] = ()
    current: msgspec.Raw = msgspec.Raw()
    retry_after: float | None = None


class ErrorEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every 4xx and 5xx."""

    error: ErrorBody


class WatchEvent(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One server-sent event of a watch."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    revision: int = 0
    object: msgspec.Raw = msgspec.Raw()


class ListBody(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a list."""

    items: tuple[msgspec.Raw, ...] = ()
    revision: int = 0
    next: str = msgspec.field(default="", name="continue")


class TokenAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A new token's text, which is never shown again."""

    token: str

    def __repr__(self) -> str:
        return "TokenAnswer(token=…)"


class Version(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What the control plane says of itself."""

    version: str = ""
    wire: int = 0
    epoch: int = 0
