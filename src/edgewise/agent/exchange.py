"""One request and its answer on an open connection: h11 for the heads, the socket itself for a body whose length is known."""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Sequence

import h11
import msgspec

from edgewise.agent.errors import LinkError, ProtocolBroken, TlsFailed, Unreachable
from edgewise.agent.limits import LIMITS, AgentLimits

Headers = Sequence[tuple[str, str]]


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds: for one connection attempt, for one read without a byte, and for the whole exchange (None: no end)."""

    connect: float = LIMITS.connect_seconds
    read: float = LIMITS.read_seconds
    total: float | None = LIMITS.request_seconds


class Incoming:
    """An answer that is being received."""

    def __init__(self, wire: "Wire", deadlines: "Deadlines", limits: AgentLimits) -> None:
        self._wire = wire
        self._deadlines = deadlines
        self._limits = limits
        self._head = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.head_bytes_max)
        self._rest = b""
        self._left: int | None = 0
        self._chunked = False
        self._keep = False
        self._broken_off = False
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
        elif isinstance(body, bytes):
            self._send(head)
            self._send(body)
        else:
            self._send(head)
            self._send_pieces(body or ())
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
            raise translated(error) from error

    def _send_pieces(self, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            if not piece and self._early():
                return
            self._send(self._head.send(h11.Data(data=piece)) or b"")
        self._send(self._head.send(h11.EndOfMessage()) or b"")

    def _early(self) -> bool:
        """Tell whether the server answers already, and has therefore heard enough. Raises `Unreachable` when it is gone."""
        self._wire.socket.settimeout(0.0)
        try:
            data = self._wire.socket.recv(64 * 1024)
        except (ssl.SSLWantReadError, BlockingIOError):
            return False
        if not data:
            raise Unreachable(f"{self._wire.host}: the connection ended")
        self.answered = True
        self._broken_off = True
        self._head.receive_data(data)
        return True

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
        self._keep = event.http_version == b"1.1" and "close" not in self.headers.get("connection", "").lower() and not self._broken_off
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


class Wire:
    """An open, secured connection."""

    def __init__(self, secured: ssl.SSLSocket, host: str) -> None:
        self.socket = secured
        self.host = host

    def shut_down(self) -> None:
        """Wake a thread that waits for this connection; it finds it ended."""
        # SSLSocket.shutdown would take the TLS state away from under a thread that reads; the plain one only wakes it.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close."""
        with contextlib.suppress(OSError):
            self.socket.close()


class Deadlines:
    """The deadlines of one exchange, counted from its beginning."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._end = None if timeouts.total is None else time.monotonic() + timeouts.total

    def connect(self) -> float:
        """Seconds for a connection attempt that begins now. Raises `Unreachable` when the time is over."""
        return self._within(self._timeouts.connect)

    def read(self) -> float:
        """Seconds for a read that begins now. Raises `Unreachable` when the time is over."""
        return self._within(self._timeouts.read)

    def passed(self) -> bool:
        """Tell whether the time is over."""
        return self._end is not None and time.monotonic() >= self._end

    def _within(self, seconds: float) -> float:
        if self._end is None:
            return seconds
        left = self._end - time.monotonic()
        if left <= 0:
            raise Unreachable(f"no end after {self._timeouts.total} s")
        return min(seconds, left)


def translated(error: Exception) -> LinkError:
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
