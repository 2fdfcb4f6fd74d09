"""Reading requests and writing answers on the device gateway: bounded bodies, MessagePack, and one way to refuse.

Plain ASGI, no framework: this is the path that every report takes.
"""

from typing import Final, TypeVar

import msgspec
import zstandard

from edgewise.control.limits import ControlLimits
from edgewise.control.peer import Receive, Scope, Send, respond
from edgewise.controllers import answers
from edgewise.ports.randomness import SystemRandomness
from edgewise.resources.decoding import UNREADABLE
from edgewise.wire.enrolment import ErrorAnswer
from edgewise.wire.version import CONTENT_TYPE

T = TypeVar("T")

_TYPE_HEADER: Final = (b"content-type", CONTENT_TYPE.encode())
_EMPTY: Final = b""
_RANDOMNESS: Final = SystemRandomness()
_encoder: Final = msgspec.msgpack.Encoder()


class Refusal(Exception):
    """A request is refused with `status` (4xx or 503). `reason` is one CamelCase word; `retry_after` in seconds; `close`: and the
    connection with it, because the rest of the body will not be read."""

    def __init__(self, status: int, reason: str, message: str, *, retry_after: float | None = None, close: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
        self.close = close


class Disconnected(Exception):
    """The other side went away in the middle of its request."""


def busy(limits: ControlLimits, message: str, *, status: int = 503, retry_after: float | None = None, close: bool = False) -> Refusal:
    """Return the refusal that sheds load: come back later, each at another moment."""
    reason, seconds = answers.busy(limits, _RANDOMNESS, status, retry_after)
    return Refusal(status, reason, message, retry_after=seconds, close=close)


def refusal_of(decided: answers.Refusal) -> Refusal:
    """Return a refusal that the controllers decided."""
    return Refusal(decided.status, decided.answer.reason, decided.answer.message, retry_after=decided.answer.retry_after)


def header(scope: Scope, name: bytes) -> bytes:
    """Return a request header's value, empty when there is none. `name` in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return _EMPTY


def declared_length(scope: Scope, limit: int) -> int | None:
    """Return the declared Content-Length, None when chunked. Raises `Refusal` when it is beyond `limit`."""
    text = header(scope, b"content-length")
    if not text:
        return None
    length = int(text) if text.isdigit() and len(text) <= 18 else limit + 1
    if length > limit:
        raise too_large(limit)
    return length


def too_large(limit: int) -> Refusal:
    """Return the refusal of a body that is larger than `limit`."""
    return Refusal(413, "TooLarge", f"the body is larger than {limit} bytes", close=True)


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Return the whole body. Raises `Refusal` beyond `limit` without reading further, `Disconnected`."""
    declared_length(scope, limit)
    message = await receive()
    if message["type"] != "http.request":
        raise Disconnected
    body: bytes = message["body"]
    if not message.get("more_body"):
        if len(body) > limit:
            raise too_large(limit)
        return body
    pieces, size = [body], len(body)
    while message.get("more_body"):
        if size > limit:
            raise too_large(limit)
        message = await receive()
        if message["type"] != "http.request":
            raise Disconnected
        pieces.append(message["body"])
        size += len(message["body"])
    if size > limit:
        raise too_large(limit)
    return b"".join(pieces)


def unpacked(scope: Scope, body: bytes, limit: int) -> bytes:
    """Return the body after its Content-Encoding. Raises `Refusal` for an unknown or damaged one, and when it would become larger than
    `limit`: no more than that is ever unpacked."""
    encoding = header(scope, b"content-encoding")
    if not encoding or encoding == b"identity":
        return body
    if encoding != b"zstd":
        raise Refusal(415, "UnknownEncoding", "the body may be sent as it is, or with Content-Encoding: zstd")
    unpacker = zstandard.ZstdDecompressor(max_window_size=max(limit, 1 << 20)).decompressobj(write_size=65_536)
    result = bytearray()
    try:
        view = memoryview(body)
        for start in range(0, len(body), 1_024):  # a small piece cannot become more than a few megabytes at once
            result += unpacker.decompress(view[start : start + 1_024])
            if len(result) > limit:
                raise too_large(limit)
            if unpacker.eof:
                break
    except zstandard.ZstdError as error:
        raise Refusal(400, "BadEncoding", "the body is not zstd data") from error
    if not unpacker.eof:
        raise Refusal(400, "BadEncoding", "the zstd data is cut short")
    return bytes(result)


def decoded(decoder: msgspec.msgpack.Decoder[T], body: bytes) -> T:
    """Return the message in a body. Raises `Refusal` for what is not one, however deep it is nested."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Refusal(400, "Malformed", str(error)[:500]) from error
    except UNREADABLE as error:
        raise Refusal(400, "Malformed", "the body is not a MessagePack message of this protocol") from error


async def answer(send: Send, message: msgspec.Struct, status: int = 200) -> None:
    """Send `message` as MessagePack."""
    body = _encoder.encode(message)
    await respond(send, status, [_TYPE_HEADER, (b"content-length", b"%d" % len(body))], body)


async def answer_empty(send: Send, status: int = 204) -> None:
    """Send an answer without a body."""
    await respond(send, status, [] if status == 204 else [(b"content-length", b"0")], _EMPTY)


async def refuse(send: Send, refusal: Refusal) -> None:
    """Send a refusal as `ErrorAnswer`, with Retry-After in whole seconds when it has one."""
    body = _encoder.encode(ErrorAnswer(reason=refusal.reason, message=str(refusal), retry_after=refusal.retry_after))
    headers = [_TYPE_HEADER, (b"content-length", b"%d" % len(body))]
    if refusal.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, round(refusal.retry_after))))
    if refusal.close:
        headers.append((b"connection", b"close"))
    await respond(send, refusal.status, headers, body)
