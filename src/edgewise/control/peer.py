"""uvicorn's HTTP protocol with what a device gateway needs besides: who the TLS peer is, and bounds on what a connection may cost.

`scope["edgewise.connection"]` is the connection itself (`Connection`). Idle and slow connections are closed by one sweep over all of them
instead of a timer each; requests are pipelined four deep at most.
"""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Protocol

from httptools import HttpParserError
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from edgewise.control.limits import LIMITS, ControlLimits
from edgewise.trust.authority import AuthorityError, agent_of
from edgewise.trust.names import NameRefusedError

SCOPE_KEY: Final = "edgewise.connection"
_PIPELINE_MAX: Final = 4
_FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]


class HeadTooLarge(HttpParserError):
    """A request's line and headers are larger than allowed, or requests are piled up behind each other."""


class Connection(Protocol):
    """What the application may know of and do to the connection that a request came on."""

    agent: str | None
    long_lived: bool
    on_lost: Callable[[], object] | None

    @property
    def gone(self) -> bool:
        """Whether nothing that is sent arrives any more."""
        ...

    def drop(self) -> None:
        """Close at once, whatever is under way."""
        ...


class PeerProtocol(HttpToolsProtocol):
    """One connection. `agent` is the name in the verified client certificate, None without one. `long_lived`: a request is under way that
    may take as long as it likes. `on_lost` is called when the connection is lost, for those who wait for something else than its next
    byte."""

    limits: ControlLimits = LIMITS
    anonymous_allowed: bool = True
    """For the gateway: only few connections without a certificate are served. The operator API's connections never have one."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self.agent = _peer(transport)
        _notice_silence(transport, self.limits)
        self.long_lived = False
        self.on_lost: Callable[[], object] | None = None
        self._linger_bytes: int | None = None
        self._head_bytes = 0
        self._in_head = False
        self._since = time.monotonic()
        self._anonymous = self.agent is None and not self.anonymous_allowed
        state: Any = self.server_state
        if self._anonymous:
            state.anonymous = getattr(state, "anonymous", 0) + 1
        limits = self.limits
        if len(self.connections) > limits.connections_max or (self._anonymous and state.anonymous > limits.anonymous_connections_max):
            transport.write(_FULL)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._anonymous:
            self._anonymous = False
            state: Any = self.server_state
            state.anonymous -= 1
        self.pipeline.clear()
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.transport.is_closing():
            return
        if self._linger_bytes is not None:
            self._linger_bytes -= len(data)
            if self._linger_bytes < 0:
                self.transport.abort()
            return
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.head_bytes_max and not self.transport.is_closing():
                self.send_400_response("The request's headers are too large.")

    def on_message_begin(self) -> None:
        """See `httptools`."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        self._since = time.monotonic()
        self.scope[SCOPE_KEY] = self  # type: ignore[typeddict-unknown-key]  # an extension of ours

    def on_header(self, name: bytes, value: bytes) -> None:
        """See `httptools`."""
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self.limits.head_bytes_max:
            raise HeadTooLarge
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """See `httptools`."""
        self._in_head = False
        if len(self.url) > self.limits.head_bytes_max or len(self.pipeline) >= _PIPELINE_MAX:
            raise HeadTooLarge
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Start the next request, if one waits. Unlike uvicorn's own, sets no timer: the sweep closes idle connections."""
        self.server_state.total_requests += 1
        self.long_lived = False
        self._since = time.monotonic()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)

    @property
    def gone(self) -> bool:
        """See `Connection`."""
        return self.transport.is_closing()

    def linger(self) -> None:
        """Take and forget what still comes, then close: closing at once would have the network throw away the answer."""
        self._linger_bytes = self.limits.linger_bytes_max

    def drop(self) -> None:
        """See `Connection`."""
        self.transport.abort()

    def overdue(self, now: float) -> bool:
        """Tell whether the connection has been idle, or a request incomplete, for longer than allowed."""
        since = now - self._since
        if self._linger_bytes is not None:
            return since > self.limits.linger_seconds
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            if self._in_head:
                return since > self.limits.request_seconds
            return since > (self.limits.anonymous_idle_seconds if self._anonymous else self.limits.idle_seconds)
        return cycle.more_body and not self.long_lived and since > self.limits.request_seconds


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a whole answer. Behind uvicorn it goes out in one write, so that it is one TLS record; the headers are ours, so nothing about
    them is checked. They must hold a content-length unless there is no body."""
    cycle = getattr(send, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle) or cycle.response_started:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return
    if cycle.disconnected:
        return
    parts = [STATUS_LINE[status]]
    for name, value in headers:
        parts += (name, b": ", value, b"\r\n")
        if name == b"connection":
            cycle.keep_alive = False
    if not cycle.keep_alive and (b"connection", b"close") not in headers:
        parts.append(b"connection: close\r\n")
    parts += (b"\r\n", b"" if cycle.scope["method"] == "HEAD" else body)
    cycle.response_started = cycle.response_complete = True
    cycle.transport.write(b"".join(parts))
    cycle.message_event.set()
    if not cycle.keep_alive:
        if cycle.more_body:
            cycle.scope[SCOPE_KEY].linger()  # type: ignore[typeddict-item]  # an extension of ours
        else:
            cycle.transport.close()
    cycle.on_response()


def sweep(connections: set[Any], now: float) -> int:
    """Close the connections that are overdue; return how many. A connection that is idle is closed in order, one that is stuck at once."""
    overdue = [each for each in connections if isinstance(each, PeerProtocol) and each.overdue(now)]
    for each in overdue:
        if each.transport.is_closing():
            each.transport.abort()
        else:
            each.transport.close()
    return len(overdue)


def _notice_silence(transport: asyncio.Transport, limits: ControlLimits) -> None:
    """Have the kernel ask a silent peer whether it is still there: a device that lost its power says no goodbye, and an open poll is what
    it is called Online for."""
    plain = transport.get_extra_info("socket")
    if plain is None or plain.family not in {socket.AF_INET, socket.AF_INET6}:
        return
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, limits.keepalive_idle_seconds)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, limits.keepalive_interval_seconds)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limits.keepalive_give_up_seconds * 1000)


def _peer(transport: asyncio.Transport) -> str | None:
    """Return the agent that the certificate names which TLS has verified."""
    described = transport.get_extra_info("peercert")
    if described:
        described.clear()  # the event loop keeps the certificate in words, kilobytes, for as long as the connection; nobody reads it
    tls = transport.get_extra_info("ssl_object")
    certificate = tls.getpeercert(binary_form=True) if tls is not None else None
    if certificate is None:
        return None
    try:
        return agent_of(certificate)
    except (AuthorityError, NameRefusedError):
        return None
