"""Downlink: what a device should run, as a self-contained, numbered document.

Whoever carries the document (the device's own connection, a neighbour, a USB stick) is a detail.
"""

from typing import Annotated, Literal

import msgspec

from edgewise.resources.artifact import ArtifactType
from edgewise.resources.meta import Digest, Scalar
from edgewise.resources.traffic import Traffic
from edgewise.wire.version import WIRE_VERSION

__all__ = [
    "ArtifactTarget",
    "Contingency",
    "DesiredState",
    "DeviceDesired",
    "InstanceDesired",
    "Position",
    "SealedSecret",
    "StreamRequest",
    "Traffic",
    "parse_position",
]


class Position(msgspec.Struct, frozen=True, order=True, gc=False):
    """Where in the downlink one is: the store's epoch and a number that grows within it. Written `EPOCH.N`."""

    epoch: int
    n: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.n}"


def parse_position(text: str) -> Position:
    """Read `EPOCH.N`. Raises `ValueError` otherwise."""
    epoch, dot, n = text.partition(".")
    if not (dot and epoch.isascii() and n.isascii() and epoch.isdigit() and n.isdigit()) or len(text) > 40:
        raise ValueError(f"{text[:60]!r} is not a position of the form EPOCH.N")
    return Position(int(epoch), int(n))


class ArtifactTarget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Where the signed manifest is in the repository. The device believes the repository's signatures, not this message."""

    target: str
    digest: Digest
    length: int
    type: ArtifactType
    variant: str
    size: int = 0


class SealedSecret(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A Secret's data, sealed to the device's sealing key (see `trust`)."""

    name: str
    sealed: bytes


class InstanceDesired(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One instance on this device. `name` is NAMESPACE/WORKLOAD. `hold`: stay in Probation until a later document says otherwise;
    with `traffic` the candidate is held beside the committed revision, which keeps the socket, and sees what `traffic` says; without, it
    takes the socket. `traffic` without `hold`, for a bundle, or where nothing is committed means nothing.
    `rejected`: revisions to refuse and to leave. Bytes of memory, thousandths of a core, seconds."""

    name: str
    uid: str
    epoch: int
    revision: str
    artifact: ArtifactTarget
    desired: Literal["Running", "Stopped"] = "Running"
    parameters: dict[str, Scalar] = {}
    config: dict[str, str] = {}
    secrets: tuple[SealedSecret, ...] = ()
    memory: int | None = None
    cpu_milli: int | None = None
    peripherals: tuple[str, ...] = ()
    hold: bool = False
    rejected: tuple[str, ...] = ()
    probation_seconds: float = 5.0
    deadline_seconds: float = 600.0
    lost_after_seconds: float = 300.0
    exclusive: bool = False
    traffic: Traffic | None = None


class Contingency(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What to do while cut off: when `silent` has been silent for `after_seconds`, start `start` at its epoch."""

    silent: str
    after_seconds: float
    start: InstanceDesired


class DeviceDesired(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Everything one device should run. `cleared_refusals`: forget refused revisions when this is greater than what was last seen.
    `tell_again`: tell everything again when this is not what was last seen, because another device told things under this one's name."""

    device: str
    uid: str
    position: Position
    instances: tuple[InstanceDesired, ...] = ()
    contingencies: tuple[Contingency, ...] = ()
    cleared_refusals: int = 0
    decommission: bool = False
    tell_again: int = 0


class StreamRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Please open `POST /v1/streams/ID` and send the log of `instance` (NAMESPACE/WORKLOAD) there: the last `tail_lines`, and with
    `follow` what
    comes after, until the answer or the connection ends."""

    id: str
    device: str
    instance: str
    follow: bool = False
    tail_lines: int = 200
    purpose: Literal["logs"] = "logs"


class DesiredState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The answer of `GET /v1/desired`: the documents of those devices of the agent that changed after the asked position, and the
    streams that
    are asked for now."""

    position: Position
    devices: tuple[DeviceDesired, ...] = ()
    streams: tuple[StreamRequest, ...] = ()
    wire: Annotated[int, msgspec.Meta(ge=1)] = WIRE_VERSION
