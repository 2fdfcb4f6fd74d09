"""HTTP/1.1 on one connection, without I/O: bytes in, whole requests out; answers in, bytes out.

llhttp (by httptools) parses strictly; this module bounds what it keeps. A request that breaks a rule becomes a `problem`, after which
nothing more is read: it is answered when the requests before it are, and the connection ends.
"""

from collections import deque
from collections.abc import Collection
from http import HTTPStatus
from typing import Final

import httptools
import msgspec

from edgewise.serve.answers import Answer, problem
from edgewise.serve.limits import ServeLimits

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
KEPT_HEADERS: Final = frozenset({b"content-encoding", b"accept-encoding", b"inference-header-content-length"})
_LOOKED_AT: Final = frozenset({b"content-length", b"content-encoding", b"expect"})
_ENCODINGS: Final = frozenset({b"", b"identity", b"gzip", b"x-gzip", b"deflate"})
_REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


class Budget:
    """Bytes of bodies that all connections together may hold."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def take(self, size: int) -> bool:
        """Take `size` bytes when they are left."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give(self, size: int) -> None:
        """Give bytes back."""
        self._left += size


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A whole request. `path` is without the query, `body` as it came (it may be compressed). `headers` are those that matter here, with
    names in lower case; of several with one name the last."""

    method: str
    path: str
    body: bytes
    keep_alive: bool
    headers: dict[str, str] = {}

    @property
    def header_bytes(self) -> int | None:
        """How much of the body is JSON before binary tensors: None when it does not say, -1 when what it says is no length."""
        value = self.headers.get("inference-header-content-length")
        if value is None:
            return None
        return int(value) if value.isascii() and value.isdigit() and len(value) < 12 else -1


class Conversation:
    """One connection's parser. Read `requests` and `problem` after each `feed`. `kept`: which headers the requests carry, in lower case; it
    may be one that changes."""

    def __init__(self, limits: ServeLimits, budget: Budget, kept: Collection[bytes] = KEPT_HEADERS) -> None:
        self._limits = limits
        self._budget = budget
        self._kept = kept
        # The parser's callbacks and this object hold each other: Python's collector frees them together.
        self._parser = httptools.HttpRequestParser(self)
        self._held = 0
        self._head_bytes = 0
        self._header_bytes = 0
        self._framing_bytes = 0
        self._messages = 0
        self._in_body = False
        self._url = b""
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._expects = False
        self._headers: dict[str, str] = {}
        self.requests: deque[Request] = deque()
        self.problem: Answer | None = None
        self.partial = False
        self.wants_continue = False

    def feed(self, data: bytes) -> None:
        """Take in what was read. After a problem nothing more is parsed."""
        if self.problem is not None:
            return
        self._head_bytes += 0 if self._in_body else len(data)
        message, framing = self._messages if self._in_body else -1, len(data) + self._body_bytes
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(_other_protocol())
        except httptools.HttpParserError:
            self._refuse(problem(400, "this is not an HTTP/1.1 request"))
        if not self._in_body and self.partial and self._head_bytes > self._limits.head_bytes_max:
            self._refuse(self._large_head())
        if self._in_body and message == self._messages:
            self._framing_bytes += framing - self._body_bytes
            if self._framing_bytes > self._limits.framing_bytes_max:
                self._refuse(problem(400, "chunk extensions or trailers are too long"))

    def release(self, request: Request) -> None:
        """Give back what a request's body took of the budget, once it is answered."""
        self._give(min(len(request.body), self._held))

    def close(self) -> None:
        """Give back all that is still held."""
        self._give(self._held)

    # ---- called by the parser ----

    def on_message_begin(self) -> None:
        """Begin another request."""
        self.partial = True
        self._messages += 1
        self._header_bytes = self._framing_bytes = 0
        self._url, self._body, self._body_bytes, self._expects, self._headers = b"", [], 0, False, {}

    def on_url(self, url: bytes) -> None:
        """Take in a piece of the request target."""
        self._url += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Look at the few headers that matter here."""
        self._count_head(len(name) + len(value) + 4)
        name = name.lower()
        if name not in _LOOKED_AT and name not in self._kept:
            return
        if name in self._kept and not self._in_body:  # trailers are headers to the parser too
            self._headers[name.decode("latin-1")] = value.strip().decode("latin-1")
        match name:
            case b"content-length":
                self._check_length(value)
            case b"content-encoding" if value.strip().lower() not in _ENCODINGS:
                self._refuse(problem(415, "bodies are accepted as they are, or compressed with gzip or deflate"))
            case b"expect":
                self._expects = value.strip().lower() == b"100-continue"
            case _:
                pass

    def on_headers_complete(self) -> None:
        """Go on to the body."""
        self._in_body = True
        self.wants_continue = self._expects and self.problem is None

    def on_body(self, chunk: bytes) -> None:
        """Take in a piece of the body, within the limits."""
        self.wants_continue = False
        if self.problem is not None:
            return
        self._body_bytes += len(chunk)
        if self._body_bytes > self._limits.body_bytes_max:
            self._refuse(problem(413, f"the body has more than {self._limits.body_bytes_max} bytes"))
        elif not self._budget.take(len(chunk)):
            retry = self._limits.retry_after_seconds
            self._refuse(problem(503, "too many large requests at once", retry_after=retry))
        else:
            self._held += len(chunk)
            self._body.append(chunk)

    def on_message_complete(self) -> None:
        """Hand out a whole request."""
        self.partial = self._in_body = self.wants_continue = False
        self._head_bytes = 0
        if self.problem is not None:
            return
        if len(self.requests) >= self._limits.pipelined_requests_max:
            self._refuse(problem(400, f"more than {self._limits.pipelined_requests_max} requests before an answer"))
            return
        upgrade, method = self._parser.should_upgrade(), self._parser.get_method()
        if upgrade and method != b"GET":  # the parser takes its body for another protocol's first bytes
            self._refuse(_other_protocol())
            return
        self.requests.append(
            Request(
                method=method.decode("ascii", "replace"),
                path=self._url.partition(b"?")[0].decode("ascii", "replace"),
                body=b"".join(self._body),
                keep_alive=self._parser.should_keep_alive() and not upgrade,
                headers=self._headers,
            )
        )
        self._body = []

    def _check_length(self, value: bytes) -> None:
        if not value.isdigit() or len(value) > 18 or int(value) > self._limits.body_bytes_max:
            self._refuse(problem(413, f"the body has more than {self._limits.body_bytes_max} bytes"))

    def _count_head(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self._limits.head_bytes_max:
            self._refuse(self._large_head())

    def _large_head(self) -> Answer:
        return problem(431, f"request line and headers have more than {self._limits.head_bytes_max} bytes")

    def _refuse(self, answer: Answer) -> None:
        if self.problem is None:
            self.problem = answer
        self._body = []

    def _give(self, size: int) -> None:
        self._held -= size
        self._budget.give(size)


def _other_protocol() -> Answer:
    return problem(400, "this server speaks HTTP/1.1 and nothing else")


class Writer:
    """Turns answers into bytes; the revision goes into every head."""

    def __init__(self, revision: str) -> None:
        self.revision = revision
        self._revision = revision.encode("ascii")

    def __call__(self, answer: Answer, *, close: bool) -> bytes:
        """Return head and body."""
        lines = [
            b"HTTP/1.1 %d %s" % (answer.status, _REASONS.get(answer.status, b"")),
            b"content-type: " + answer.content_type.encode("ascii"),
            b"content-length: %d" % len(answer.body),
            b"edgewise-revision: " + self._revision,
        ]
        if answer.header_bytes:
            lines.append(b"inference-header-content-length: %d" % answer.header_bytes)
        if answer.encoding:
            lines.append(b"content-encoding: " + answer.encoding.encode("ascii"))
        if answer.allow:
            lines.append(b"allow: " + answer.allow.encode("ascii"))
        if answer.retry_after:
            lines.append(b"retry-after: %d" % answer.retry_after)
        if close:
            lines.append(b"connection: close")
        return b"\r\n".join((*lines, b"", answer.body))
