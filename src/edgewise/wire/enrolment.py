"""How a device gets and renews its identity.

`POST /v1/join` comes over TLS without a client certificate: the device checks that the server's chain ends in the CA whose hash its token
carries. `POST /v1/renew` comes with or without one, because the old certificate may have expired months ago: the signing request is
signed by the same key, which is the proof of possession.
"""

from typing import Annotated

import msgspec

from edgewise.resources.device import Capacity
from edgewise.resources.meta import LabelValue, Name
from edgewise.wire.version import CAPABILITIES, WIRE_VERSION


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`secret` is the token's secret part; `signing_request` a PEM PKCS#10 request; `sealing_key` the raw public X25519 key (32
    bytes)."""

    secret: str
    device: Name
    signing_request: str
    sealing_key: bytes
    labels: dict[str, LabelValue] = {}
    device_class: str = ""
    capacity: Capacity = Capacity()
    capabilities: tuple[str, ...] = CAPABILITIES
    wire: Annotated[int, msgspec.Meta(ge=1)] = WIRE_VERSION


class JoinAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Certificates in PEM, leaf first. `repository_root` is the signed repository's root metadata, which the device pins from now on."""

    agent: str
    certificate: str
    authority: str
    repository_root: bytes
    wire: Annotated[int, msgspec.Meta(ge=1)] = WIRE_VERSION


class RenewRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`certificate` is the old one in PEM, expired or not; `signing_request` is signed by the same key and names the same agent."""

    certificate: str
    signing_request: str
    wire: Annotated[int, msgspec.Meta(ge=1)] = WIRE_VERSION


class RenewAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The new certificate, leaf first, in PEM, and the authority's certificates."""

    certificate: str
    authority: str
    wire: Annotated[int, msgspec.Meta(ge=1)] = WIRE_VERSION


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of every 4xx and 5xx. `reason` is one CamelCase word that programs may compare, `message` is for people."""

    reason: str
    message: str
    retry_after: float | None = None
    wire: Annotated[int, msgspec.Meta(ge=1)] = WIRE_VERSION
