"""One connection pool to the control plane: pinned authority, deadlines, bounded answers, careful retries, errors as the public tree.

What may be tried again: everything that surely was not carried out (no connection, 429, 503), and, when an answer was lost on the way, only
requests that do no harm twice.
"""

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Literal, NoReturn, TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from edgewise.client.answers import ErrorBody, ErrorEnvelope
from edgewise.client.context import Context
from edgewise.client.errors import Conflict, ContextError, Denied, Error, Invalid, NotFound, Problem, Refused, Unreachable
from edgewise.resources.decoding import UNREADABLE
from edgewise.resources.kinds import Resource

T = TypeVar("T")
Method = Literal["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"]
Body = bytes | AsyncIterator[bytes] | None
Params = dict[str, str]

API: Final = "/apis/v1alpha1"
_NOT_FOUND: Final = 404
_BUSY: Final = frozenset({429, 503})


class ClientLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a client: seconds and bytes. `retry_seconds` bounds how long one request is tried again, `watch_silence_seconds` how long
    a watch may be silent before it is opened anew, `reconnect_seconds` how long a watch or wait bears an unreachable control plane."""

    connect_seconds: float = 5.0
    answer_seconds: float = 60.0
    upload_seconds: float = 120.0
    retry_seconds: float = 3.0
    watch_silence_seconds: float = 90.0
    reconnect_seconds: float = 300.0
    answer_bytes_max: int = 64_000_000
    error_bytes_max: int = 1_000_000
    line_bytes_max: int = 4_000_000
    list_page_items: int = 500
    upload_chunk_bytes: int = 262_144
    poll_seconds: float = 0.5


class Connection:
    """Sends requests of one context. Use as an asynchronous context manager, or `close` it."""

    def __init__(self, context: Context, limits: ClientLimits, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._limits = limits
        self._address = context.address
        self._http = httpx.AsyncClient(
            base_url=context.address,
            headers={"Authorization": f"Bearer {context.token}", "Accept": "application/json", "User-Agent": "edgewise"},
            verify=_tls(context) if transport is None else True,
            timeout=httpx.Timeout(limits.answer_seconds, connect=limits.connect_seconds),
            transport=transport,
            # Never through a proxy to this machine itself.
            trust_env=not _is_loopback(context.address),
            follow_redirects=False,
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def request(self, method: Method, path: str, *, params: Params | None = None, body: bytes | None = None) -> bytes:
        """Return the answer's body. Raises `Error`."""
        deadline = time.monotonic() + self._limits.retry_seconds
        attempt = 0
        while True:
            try:
                return await self._once(method, path, params, body)
            except (_Busy, _NotSent, _Lost) as error:
                attempt += 1
                delay = self._delay(error, attempt)
                safe = not isinstance(error, _Lost) or method in {"GET", "HEAD"}
                if not safe or time.monotonic() + delay > deadline:
                    raise Unreachable(str(error)) from None
                await asyncio.sleep(delay)

    async def json(self, method: Method, path: str, wanted: type[T], *, params: Params | None = None, body: object = None) -> T:
        """Send `body` as JSON and return the answer as a `wanted`. Raises `Error`."""
        encoded = None if body is None else msgspec.json.encode(body)
        return decode(await self.request(method, path, params=params, body=encoded), wanted)

    async def exists(self, path: str) -> bool:
        """Return whether HEAD finds something there. Raises `Error`."""
        try:
            await self.request("HEAD", path)
        except NotFound:
            return False
        return True

    async def upload(self, path: str, chunks: AsyncIterator[bytes], size: int) -> None:
        """PUT a body of `size` bytes that is read while it is sent. Not tried again: `chunks` can be read once. Raises `Error`."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        timeout = httpx.Timeout(self._limits.upload_seconds, connect=self._limits.connect_seconds)
        try:
            answer = await self._http.put(path, content=chunks, headers=headers, timeout=timeout)
        except httpx.HTTPError as error:
            raise Unreachable(f"the upload to {self._address} broke off: {_words(error)}") from None
        if answer.status_code >= 400:
            _raise(answer.status_code, answer.content)

    @asynccontextmanager
    async def stream(self, path: str, params: Params, silence_seconds: float | None) -> AsyncIterator[AsyncIterator[bytes]]:
        """Open a GET whose body is read as it comes. `silence_seconds` bounds the time between two chunks. Raises `Error`."""
        timeout = httpx.Timeout(self._limits.answer_seconds, connect=self._limits.connect_seconds, read=silence_seconds)
        headers = {"Accept": "text/event-stream, text/plain, */*"}
        try:
            async with self._http.stream("GET", path, params=params, headers=headers, timeout=timeout) as answer:
                if answer.status_code >= 400:
                    _raise(answer.status_code, await _bounded(answer, self._limits.error_bytes_max))
                yield answer.aiter_bytes()
        except httpx.HTTPError as error:
            raise Unreachable(f"the connection to {self._address} broke: {_words(error)}") from None

    async def _once(self, method: Method, path: str, params: Params | None, body: bytes | None) -> bytes:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        try:
            async with self._http.stream(method, path, params=params, content=body, headers=headers) as answer:
                limit = self._limits.error_bytes_max if answer.status_code >= 400 else self._limits.answer_bytes_max
                content = await _bounded(answer, limit)
                if answer.status_code in _BUSY:
                    raise _Busy(f"{self._address} is too busy (HTTP {answer.status_code})", _retry_after(answer))
                if answer.status_code >= 300:
                    _raise(answer.status_code, content)
                return content
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise _NotSent(f"cannot reach {self._address}: {_words(error)}") from None
        except httpx.HTTPError as error:
            raise _Lost(f"the answer of {self._address} was lost: {_words(error)}") from None

    def _delay(self, error: "_Busy | _NotSent | _Lost", attempt: int) -> float:
        if isinstance(error, _Busy) and error.retry_after is not None:
            return error.retry_after
        return random.uniform(0.05, min(0.2 * 2**attempt, 2.0))


class _Busy(Exception):
    def __init__(self, message: str, retry_after: float | None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class _NotSent(Exception):
    """No connection: nothing was carried out."""


class _Lost(Exception):
    """The request left, the answer did not come: it may have been carried out."""


def decode(data: bytes | msgspec.Raw, wanted: type[T]) -> T:
    """Read an answer. Raises `Error` when it has a form that this version does not know."""
    try:
        return msgspec.json.decode(data, type=wanted)
    except UNREADABLE as error:
        raise Refused(f"the control plane answered in a form that this edgewise does not know ({error}): is it newer?", "Unknown") from None


async def _bounded(answer: httpx.Response, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in answer.aiter_bytes():
        size += len(part)
        if size > limit:
            raise Refused(f"the answer is larger than {limit} bytes", "TooLarge")
        parts.append(part)
    return b"".join(parts)


def _raise(status: int, content: bytes) -> NoReturn:
    try:
        body = msgspec.json.decode(content, type=ErrorEnvelope).error
    except UNREADABLE:
        if status == _NOT_FOUND and content:
            raise Refused(
                "what answers there is no operator API (HTTP 404): is it another port of the control plane, such as the device gateway's?",
                "NotEdgewise",
            ) from None
        body = ErrorBody(reason="", message="")
    raise _error(status, body)


def _error(status: int, body: ErrorBody) -> Error:
    message = body.message or f"the control plane answered HTTP {status}"
    match status:
        case 400 | 413 | 422:
            return Invalid(body.problems or (Problem(path="", message=message),))
        case 401 | 403:
            return Denied(message)
        case 404:
            return NotFound(message)
        case 409 | 412:
            return Conflict(message, _current(body))
        case _ if status in _BUSY:
            return Unreachable(message)
        case _:
            return Refused(message, body.reason or f"HTTP{status}")


def _current(body: ErrorBody) -> Resource | None:
    try:
        return msgspec.json.decode(body.current, type=Resource) if len(bytes(body.current)) > 0 else None
    except UNREADABLE:
        return None


def _retry_after(answer: httpx.Response) -> float | None:
    text = answer.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() and len(text) < 6 else None


def _words(error: httpx.HTTPError) -> str:
    """Say what went wrong, without the request (it carries the token)."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "its certificate does not come from the pinned authority, or names another host. Was the control plane made anew?"
    if isinstance(error, httpx.TimeoutException):
        return "it did not answer in time"
    return text[:200] or type(error).__name__


def _tls(context: Context) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        tls.load_verify_locations(cadata=context.authority)
    except (ssl.SSLError, ValueError):
        raise ContextError("the context's authority is not a certificate in PEM: add the context again") from None
    return tls


def _is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")
