"""A kept connection to another model server's control socket: requests out, answers in, never waiting."""

import selectors
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import httptools
import msgspec

from edgewise.ports.unix import connect_unix

_CHUNK: Final = 65_536
_PIECES_MAX: Final = 64
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class PeerAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer. Names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Peer:
    """One connection. `answered` is called for each answer, in the order of the requests; `lost` once when the connection is gone for any
    other
    reason than `close`. Answers larger than `answer_bytes_max` end it."""

    def __init__(
        self,
        path: str,
        selector: selectors.BaseSelector,
        answer_bytes_max: int,
        *,
        answered: Callable[["Peer", PeerAnswer], None],
        lost: Callable[["Peer"], None],
    ) -> None:
        """Connect. Raises `OSError`: nobody listens, or too many wait already."""
        self._sock = connect_unix(path, 0.0)
        self._selector = selector
        self._answered, self._lost = answered, lost
        self._out: deque[memoryview] = deque()
        self._events = _READ
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_bytes, self._body_bytes_max = 0, answer_bytes_max
        self._arrived: list[PeerAnswer] = []
        self._too_large = False
        self.closed = False
        self.waiting = 0
        """Requests that were not answered yet."""
        self.unsent = 0
        """Bytes that the kernel has not taken yet."""
        self.deadline = float("inf")
        selector.register(self._sock, _READ, self._on_events)

    def send(self, pieces: Sequence[bytes]) -> None:
        """Send one request, as much as goes out now; the rest when there is room."""
        self.waiting += 1
        for piece in pieces:
            if piece:
                self._out.append(memoryview(piece))
                self.unsent += len(piece)
        self._flush()

    def close(self) -> None:
        """End it; nobody is called."""
        if not self.closed:
            self.closed = True
            self._selector.unregister(self._sock)
            self._sock.close()
            self._out.clear()
            self.unsent = 0

    def _on_events(self, events: int) -> None:
        if self.closed:
            return
        if events & _WRITE:
            self._flush()
        if events & _READ and not self.closed:
            self._receive()

    def _flush(self) -> None:
        try:
            while self._out:
                sent = self._sock.sendmsg([self._out[at] for at in range(min(len(self._out), _PIECES_MAX))])
                self.unsent -= sent
                while sent and sent >= len(self._out[0]):
                    sent -= len(self._out.popleft())
                if sent:
                    self._out[0] = self._out[0][sent:]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            self._end()
            return
        wanted = _READ | (_WRITE if self._out else 0)
        if wanted != self._events:
            self._events = wanted
            self._selector.modify(self._sock, wanted, self._on_events)

    def _receive(self) -> None:
        try:
            data = self._sock.recv(_CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        try:
            if data:
                self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            data = b""
        arrived, self._arrived = self._arrived, []
        for answer in arrived:
            if self.closed or not self.waiting:
                break
            self.waiting -= 1
            self._answered(self, answer)
        if not self.closed and (not data or self._too_large):
            self._end()

    def _end(self) -> None:
        self.close()
        self._lost(self)

    # ---- called by the parser ----

    def on_message_begin(self) -> None:
        """Begin another answer."""
        self._headers, self._body, self._body_bytes = {}, [], 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take in a header."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """Take in a piece of the body."""
        self._body_bytes += len(body)
        if self._body_bytes > self._body_bytes_max:
            self._too_large = True
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Hand out a whole answer."""
        if not self._too_large:
            self._arrived.append(PeerAnswer(status=self._parser.get_status_code(), headers=self._headers, body=b"".join(self._body)))
