"""What a simulated device sees of the control plane: exchanges that end in an answer, a refusal, or nothing but a lost connection.

`network.py` implements it with latency, loss and partitions in front of `control.py`.
"""

from collections.abc import Callable
from typing import Literal, Protocol

import msgspec

Purpose = Literal["report", "desired", "join", "renew", "repository", "blob"]


class Request(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One exchange that a device begins. `body` is what the wire carries (MessagePack). `agent` names the identity that it shows,
    `key` its key, which a replaced device has not. `path` is what `GET` asks for: a position and wait, a
    repository file, a digest. `offset`: where a blob's rest begins. `fresh`: over a connection of its
    own, which has to be opened. `not_after`: when the certificate that it shows expires, by the true wall clock (0: it shows none)."""

    purpose: Purpose
    agent: str
    device: str
    key: str = ""
    body: bytes = b""
    path: str = ""
    wait: float = 0.0
    offset: int = 0
    session: str = ""
    fresh: bool = False
    not_after: float = 0.0


class Answered(msgspec.Struct, frozen=True, kw_only=True, tag="answered", gc=False):
    """A 2xx answer. `body` is empty for 204. `size` is what a transfer weighed on the wire where the bytes themselves are not carried."""

    body: bytes = b""
    size: int = 0


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused", gc=False):
    """A 4xx or 5xx answer."""

    status: int
    reason: str
    message: str = ""
    retry_after: float | None = None


class Broken(msgspec.Struct, frozen=True, kw_only=True, tag="broken", gc=False):
    """No answer of the control plane: `lost` (no route, timeout, reset) or `nonsense` (a captive portal answered)."""

    kind: Literal["lost", "nonsense"]
    received: int = 0


Outcome = Answered | Refused | Broken


class Exchange(Protocol):
    """An exchange under way."""

    def abandon(self) -> None:
        """Close the connection: `done` is not called any more; the other end may have acted."""
        ...


class Link(Protocol):
    """The way from one device to the control plane."""

    def send(self, request: Request, done: Callable[[Outcome], None]) -> Exchange:
        """Begin an exchange. `done` is called at most once, never from within `send`."""
        ...
