"""A small blocking HTTP/1.1 client over TLS, for one thread and one connection at a time.

h11 reads the heads; a body with a Content-Length comes straight off the socket, because a model has hundreds of megabytes. Every wait has a
deadline and every size a limit. Headers are as few as can be: an idle device on a metered link pays for each.
"""

import base64
import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator

import h11
import msgspec

from edgewise.agent.addresses import Address, parse_address
from edgewise.agent.errors import LinkError, Refused, TlsFailed, Unreachable
from edgewise.agent.exchange import Deadlines, Headers, Incoming, Timeouts, Wire, translated
from edgewise.agent.limits import LIMITS, AgentLimits
from edgewise.agent.tls import check_times, served_chain
from edgewise.resources.decoding import UNREADABLE
from edgewise.wire.enrolment import ErrorAnswer


class Response(msgspec.Struct, frozen=True):
    """A whole answer. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach the control plane: its addresses in order of preference, the TLS context, and a proxy
    (`http://[USER:PASSWORD@]HOST:PORT`) or none."""

    addresses: tuple[str, ...]
    context: ssl.SSLContext
    proxy: str = ""


class Client:
    """Requests over one kept-alive connection. `now` gives the time that certificates are judged by. Not for several threads, but for
    `abort`."""

    def __init__(self, endpoint: Endpoint, now: Callable[[], float] = time.time, limits: AgentLimits = LIMITS) -> None:
        self._endpoint = endpoint
        self._now = now
        self._limits = limits
        self._wire: Wire | None = None
        self._wire_endpoint = endpoint
        self._preferred = 0
        self._used_at = 0.0
        self._aborted = False
        self.validity = (0.0, 0.0)
        """Of the control plane's certificates, as of the last connection: latest beginning, earliest end."""

    def use(self, endpoint: Endpoint) -> None:
        """From the next request on, connect as `endpoint` says. May be called from any thread."""
        self._endpoint = endpoint

    def request(
        self,
        method: str,
        target: str,
        *,
        body: bytes | None = None,
        headers: Headers = (),
        timeouts: Timeouts | None = None,
        body_limit: int = LIMITS.error_bytes_max,
    ) -> Response:
        """Send a request and return the whole answer, 2xx or 3xx. Raises a `LinkError`."""
        with self.stream(method, target, body=body, headers=headers, timeouts=timeouts) as incoming:
            return Response(incoming.status, incoming.headers, incoming.read(body_limit))

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        target: str,
        *,
        body: bytes | Iterable[bytes] | None = None,
        headers: Headers = (),
        timeouts: Timeouts | None = None,
    ) -> Iterator[Incoming]:
        """Send a request and hand out the answer while it comes, 2xx or 3xx. A `body` of several pieces goes out chunked; at an
        empty piece it is looked whether the server is still there. What is left unread closes the connection. Raises a `LinkError`."""
        deadlines = Deadlines(timeouts or Timeouts())
        incoming = self._begin(method, target, body, headers, deadlines)
        try:
            if incoming.status >= 400:
                raise _refusal(incoming, self._limits)
            yield incoming
        finally:
            if incoming.reusable and self._wire is not None:
                self._used_at = time.monotonic()
            else:
                self.close()

    def idle_for(self) -> float:
        """Seconds since the open connection was last used; 0 when none is open."""
        return time.monotonic() - self._used_at if self._wire is not None else 0.0

    def close(self) -> None:
        """Close the connection, if one is open. The next request opens a new one."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def abort(self) -> None:
        """From another thread: break off what is going on, for good. It ends in `Unreachable`."""
        self._aborted = True
        wire = self._wire
        if wire is not None:
            wire.shut_down()

    def _begin(self, method: str, target: str, body: bytes | Iterable[bytes] | None, headers: Headers, deadlines: Deadlines) -> Incoming:
        if self._wire_endpoint is not self._endpoint:
            self.close()
        while True:
            reused = self._wire is not None
            wire = self._wire or self._connect(deadlines)
            incoming = Incoming(wire, deadlines, self._limits)
            try:
                incoming.exchange(method, target, body, headers)
            except (OSError, h11.ProtocolError, LinkError) as error:
                self.close()
                # A server may close an idle connection just as it is used again. Nothing came back, and all requests here may be repeated.
                if reused and not incoming.answered and isinstance(body, bytes | None) and not self._aborted and not deadlines.passed():
                    continue
                raise translated(error) from error
            return incoming

    def served_chain(self) -> tuple[bytes, ...]:
        """Connect anew and return the certificates that the server shows, in DER. Raises a `LinkError`."""
        self.close()
        chain = served_chain(self._connect(Deadlines(Timeouts())).socket)
        self.close()
        return chain

    def _connect(self, deadlines: Deadlines) -> Wire:
        problems: list[LinkError] = []
        endpoint = self._endpoint
        count = len(endpoint.addresses)
        for attempt in range(count):
            index = (self._preferred + attempt) % count
            if self._aborted:
                raise Unreachable("stopped")
            try:
                wire = self._open(endpoint, parse_address(endpoint.addresses[index])[0], deadlines)
            except (OSError, h11.ProtocolError, LinkError) as error:
                problems.append(translated(error))
                continue
            self._preferred = index
            self._wire, self._wire_endpoint = wire, endpoint
            if self._aborted:
                raise Unreachable("stopped")
            return wire
        # A trust problem says more than an address that is merely down.
        raise next((problem for problem in problems if isinstance(problem, TlsFailed)), problems[-1])

    def _open(self, endpoint: Endpoint, address: Address, deadlines: Deadlines) -> Wire:
        proxy = parse_address(endpoint.proxy, "http", 3128) if endpoint.proxy else None
        first = proxy[0] if proxy else address
        seconds = deadlines.connect()
        try:
            # Names go as bytes: text would load the tables for internationalised names, a megabyte of them.
            plain = socket.create_connection((first.host.encode(), first.port), timeout=seconds)  # type: ignore[arg-type]
        except OSError as error:
            raise Unreachable(f"{first.authority}: {error}") from error
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, self._limits.keepalive_idle_seconds)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
            if proxy:
                _tunnel(plain, address, proxy[1], self._limits)
            secured = endpoint.context.wrap_socket(plain, server_hostname=address.host.encode())
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
            plain.close()
            raise Unreachable(f"{address.authority}: the connection ended during the TLS handshake") from error
        except ssl.SSLError as error:
            plain.close()
            raise TlsFailed(f"{address.authority}: {error}") from error
        except BaseException:
            plain.close()
            raise
        try:
            if endpoint.context.verify_mode is ssl.CERT_REQUIRED:
                self.validity = check_times(secured, self._now())
        except BaseException:
            secured.close()
            raise
        return Wire(secured, address.authority)


def _tunnel(plain: socket.socket, address: Address, credentials: str, limits: AgentLimits) -> None:
    """Ask a proxy for a tunnel. Raises `Unreachable`."""
    head = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.head_bytes_max)
    fields = [("Host", address.authority)]
    if credentials:
        fields.append(("Proxy-Authorization", "Basic " + base64.b64encode(credentials.encode()).decode()))
    plain.sendall(head.send(h11.Request(method="CONNECT", target=address.authority, headers=fields)) or b"")
    plain.sendall(head.send(h11.EndOfMessage()) or b"")
    while (event := head.next_event()) is h11.NEED_DATA or isinstance(event, h11.InformationalResponse):
        if event is h11.NEED_DATA:
            data = plain.recv(4096)
            if not data:
                raise Unreachable("the proxy closed the connection")
            head.receive_data(data)
    if not isinstance(event, h11.Response) or not 200 <= event.status_code < 300:
        raise Unreachable(f"the proxy refused the tunnel: {getattr(event, 'status_code', event)}")


def _refusal(incoming: Incoming, limits: AgentLimits) -> Refused:
    body = incoming.read(limits.error_bytes_max)
    try:
        answer = msgspec.msgpack.decode(body, type=ErrorAnswer)
    except UNREADABLE:
        answer = ErrorAnswer(reason=f"Http{incoming.status}", message="the answer says no more")
    retry_after = answer.retry_after
    text = incoming.headers.get("retry-after", "")
    if retry_after is None and text.isascii() and text.isdigit():
        retry_after = float(text[:9])
    if retry_after is not None:
        retry_after = max(0.0, min(retry_after, limits.retry_after_seconds_max))
    return Refused(incoming.status, answer, retry_after)
