"""A small blocking HTTP/1.1 client over TLS, for one thread and one connection at a time.

h11 reads the heads; a body with a Content-Length comes straight off the socket, because a model has hundreds of megabytes. Every wait has a
deadline and every size a limit. Headers are as few as can be: an idle device on a metered link pays for each.
"""

import base64
import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import h11
import msgspec

from edgewise.agent.addresses import Address, parse_address
from edgewise.agent.errors import LinkError, ProtocolBroken, Refused, TlsFailed, Unreachable
from edgewise.agent.limits import LIMITS, AgentLimits
from edgewise.agent.tls import check_times
from edgewise.wire.enrolment import ErrorAnswer

Headers = Sequence[tuple[str, str]]


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds: for one connection attempt, for one read without a byte, and for the whole exchange (None: no end)."""

    connect: float = LIMITS.connect_seconds
    read: float = LIMITS.read_seconds
    total: float | None = LIMITS.request_seconds


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
        self._now = now
        self._limits = limits
        self._wire: _Wire | None = None
        self._preferred = 0
        self._used_at = 0.0
        self._aborted = False
        self.validity = (0.0, 0.0)
        """Of the control plane's certificates, as of the last connection: latest beginning, earliest end."""
        self.use(endpoint)

    def use(self, endpoint: Endpoint) -> None:
        """From the next request on, connect as `endpoint` says."""
        self.close()
        self._addresses = [parse_address(text)[0] for text in endpoint.addresses]
        self._proxy = parse_address(endpoint.proxy, "http", 3128) if endpoint.proxy else None
        self._context = endpoint.context

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
    ) -> "Iterator[Incoming]":
        """Send a request and hand out the answer while it comes, 2xx or 3xx. A `body` of several pieces goes out chunked. What is left
        unread closes the connection. Raises a `LinkError`."""
        deadlines = _Deadlines(timeouts or Timeouts())
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

    def _begin(
        self, method: str, target: str, body: bytes | Iterable[bytes] | None, headers: Headers, deadlines: "_Deadlines"
    ) -> "Incoming":
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
                raise _translated(error) from error
            return incoming

    def _connect(self, deadlines: "_Deadlines") -> "_Wire":
        problems: list[LinkError] = []
        for attempt in range(len(self._addresses)):
            index = (self._preferred + attempt) % len(self._addresses)
            if self._aborted:
                raise Unreachable("stopped")
            try:
                wire = self._open(self._addresses[index], deadlines)
            except (OSError, h11.ProtocolError, LinkError) as error:
                problems.append(_translated(error))
                continue
            self._preferred = index
            self._wire = wire
            if self._aborted:
                raise Unreachable("stopped")
            return wire
        # A trust problem says more than an address that is merely down.
        raise next((problem for problem in problems if isinstance(problem, TlsFailed)), problems[-1])

    def _open(self, address: Address, deadlines: "_Deadlines") -> "_Wire":
        first = self._proxy[0] if self._proxy else address
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
            if self._proxy:
                _tunnel(plain, address, self._proxy[1], self._limits)
            secured = self._context.wrap_socket(plain, server_hostname=address.host.encode())
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
            if self._context.verify_mode is ssl.CERT_REQUIRED:
                self.validity = check_times(secured, self._now())
        except BaseException:
            secured.close()
            raise
        return _Wire(secured, address.authority)


class Incoming:
    """An answer that is being received."""

    def __init__(self, wire: "_Wire", deadlines: "_Deadlines", limits: AgentLimits) -> None:
        self._wire = wire
        self._deadlines = deadlines
        self._limits = limits
        self._head = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.head_bytes_max)
        self._rest = b""
        self._left: int | None = 0
        self._chunked = False
        self._keep = False
        self.answered = False
        self.status = 0
        self.headers: dict[str, str] = {}

    @property
    def length(self) -> int | None:
        """Bytes of the body still to come, or None when the server did not say."""
        return None if self._chunked else self._left

    @property
    def reusable(self) -> bool:
        """The answer was read to its end, and the connection may serve another request."""
        return self._keep and self._left == 0 and not self._chunked

    def exchange(self, method: str, target: str, body: bytes | Iterable[bytes] | None, headers: Headers) -> None:
        """Send the request and read the answer's head."""
        fields = [("Host", self._wire.host), *headers]
        if isinstance(body, bytes):
            fields.append(("Content-Length", str(len(body))))
        elif body is not None:
            fields.append(("Transfer-Encoding", "chunked"))
        head = self._head.send(h11.Request(method=method, target=target, headers=fields)) or b""
        if isinstance(body, bytes) and len(body) <= 16 * 1024:
            self._send(head + body)  # in one TLS record
        else:
            self._send(head)
            for piece in (body,) if isinstance(body, bytes) else body or ():
                self._send(piece if isinstance(body, bytes) else self._head.send(h11.Data(data=piece)) or b"")
        self._send(b"" if isinstance(body, bytes) else self._head.send(h11.EndOfMessage()) or b"")
        self._read_head(method)

    def read(self, limit: int) -> bytes:
        """Return the whole body. Raises `ProtocolBroken` when it has more than `limit` bytes."""
        if self._left is not None and self._left > limit:
            raise ProtocolBroken(f"the answer has {self._left} bytes, the limit is {limit}")
        pieces: list[bytes] = []
        size = 0
        for piece in self.chunks():
            size += len(piece)
            if size > limit:
                raise ProtocolBroken(f"the answer has more than {limit} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    def chunks(self, size: int = LIMITS.chunk_bytes) -> Iterator[bytes]:
        """Hand out the body in pieces of at most `size` bytes. Raises `Unreachable` when it ends too early."""
        try:
            yield from self._chunked_pieces() if self._chunked else self._plain_pieces(size)
        except (OSError, h11.ProtocolError) as error:
            raise _translated(error) from error

    def _send(self, data: bytes) -> None:
        if data:
            self._wire.socket.settimeout(self._deadlines.read())
            self._wire.socket.sendall(data)

    def _receive(self) -> bytes:
        self._wire.socket.settimeout(self._deadlines.read())
        return self._wire.socket.recv(64 * 1024)

    def _read_head(self, method: str) -> None:
        while True:
            event = self._head.next_event()
            if event is h11.NEED_DATA:
                data = self._receive()
                if not data:
                    raise Unreachable(f"{self._wire.host}: the connection ended before an answer")
                self.answered = True
                self._head.receive_data(data)
            elif isinstance(event, h11.Response):
                break
            elif not isinstance(event, h11.InformationalResponse):
                raise ProtocolBroken(f"{self._wire.host}: no HTTP answer but {event!r:.100}")
        self.status = event.status_code
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        self._keep = event.http_version == b"1.1" and "close" not in self.headers.get("connection", "").lower()
        if method == "HEAD" or self.status in {204, 304}:
            self._left = 0
        elif "transfer-encoding" in self.headers:
            self._chunked = True
            self._left = None
        else:
            length = self.headers.get("content-length")
            self._left = int(length) if length is not None else None
            self._rest = self._head.trailing_data[0]

    def _plain_pieces(self, size: int) -> Iterator[bytes]:
        if self._rest:
            piece, self._rest = self._rest, b""
            if self._left is not None:
                if len(piece) > self._left:
                    raise ProtocolBroken(f"{self._wire.host}: more bytes than announced")
                self._left -= len(piece)
            yield piece
        buffer: bytearray | None = None
        while self._left != 0:
            wanted = size if self._left is None else min(size, self._left)
            if buffer is None or len(buffer) != wanted:
                buffer = bytearray(wanted)
            filled = self._fill(memoryview(buffer))
            if self._left is not None:
                self._left -= filled
            if filled:
                yield bytes(memoryview(buffer)[:filled])
            if filled < wanted:
                if self._left is not None:
                    raise Unreachable(f"{self._wire.host}: the connection ended {self._left} bytes early")
                self._left, self._keep = 0, False

    def _fill(self, view: memoryview) -> int:
        filled = 0
        connection = self._wire.socket
        connection.settimeout(self._deadlines.read())
        while filled < len(view):
            try:
                count = connection.recv_into(view[filled:])
            except (TimeoutError, ssl.SSLError, ConnectionError):
                if filled:
                    return filled  # hand out what came: a resumed download begins after it
                raise
            if count == 0:
                break
            filled += count
        return filled

    def _chunked_pieces(self) -> Iterator[bytes]:
        while True:
            event = self._head.next_event()
            if event is h11.NEED_DATA:
                data = self._receive()
                if not data:
                    raise Unreachable(f"{self._wire.host}: the connection ended within the answer")
                self._head.receive_data(data)
            elif isinstance(event, h11.Data):
                yield bytes(event.data)
            else:
                self._chunked, self._left = False, 0
                return


class _Wire:
    """An open, secured connection."""

    def __init__(self, secured: ssl.SSLSocket, host: str) -> None:
        self.socket = secured
        self.host = host

    def shut_down(self) -> None:
        # SSLSocket.shutdown would take the TLS state away from under a thread that reads; the plain one only wakes it.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.close()


class _Deadlines:
    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._end = None if timeouts.total is None else time.monotonic() + timeouts.total

    def connect(self) -> float:
        return self._within(self._timeouts.connect)

    def read(self) -> float:
        return self._within(self._timeouts.read)

    def passed(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end

    def _within(self, seconds: float) -> float:
        if self._end is None:
            return seconds
        left = self._end - time.monotonic()
        if left <= 0:
            raise Unreachable(f"no end after {self._timeouts.total} s")
        return min(seconds, left)


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
    except msgspec.DecodeError:
        answer = ErrorAnswer(reason=f"Http{incoming.status}", message="the answer says no more")
    retry_after = answer.retry_after
    text = incoming.headers.get("retry-after", "")
    if retry_after is None and text.isascii() and text.isdigit():
        retry_after = float(text[:9])
    if retry_after is not None:
        retry_after = max(0.0, min(retry_after, limits.retry_after_seconds_max))
    return Refused(incoming.status, answer, retry_after)


def _translated(error: Exception) -> LinkError:
    """Say in this module's terms what the socket, TLS or h11 said."""
    match error:
        case LinkError():
            return error
        case h11.ProtocolError():
            return ProtocolBroken(f"not HTTP as it should be: {error}")
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return Unreachable(f"the connection broke: {error}")
        case ssl.SSLError():  # such as an alert: the server turns the certificate down only after the handshake
            return TlsFailed(str(error))
        case TimeoutError():
            return Unreachable("no answer in time")
        case _:
            return Unreachable(f"the connection broke: {error}")
