"""Handing out blobs so that a fleet's download never delays a report.

Few transfers at a time (the others are asked to come back), very few pieces in hand at the same moment, files read by the blob store's
threads, and, if wanted, one budget of bytes per second for all of them together.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from edgewise.control.limits import ControlLimits
from edgewise.control.messages import Refusal, busy, header
from edgewise.control.peer import SCOPE_KEY, Connection, Scope, Send
from edgewise.store.contract import BlobError, BlobStore

DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_RANGE: Final = re.compile(rb"bytes=([0-9]{0,18})-([0-9]{0,18})")


class Budget:
    """Bytes per second, shared by all. `per_second` None: no limit."""

    def __init__(self, per_second: float | None, burst: int) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._left = float(burst)
        self._at = time.monotonic()

    async def take(self, size: int) -> None:
        """Return once `size` bytes may be sent. Who comes later waits behind who came first."""
        if self._per_second is None:
            return
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second) - size
        self._at = now
        if self._left < 0:
            await asyncio.sleep(-self._left / self._per_second)


class Transfers:
    """Blob downloads under way."""

    def __init__(self, blobs: BlobStore, limits: ControlLimits) -> None:
        self._blobs = blobs
        self._limits = limits
        self._open = 0
        self._pieces = asyncio.Semaphore(limits.transfer_readers_max)
        self._budget = Budget(limits.transfer_bytes_per_second, limits.transfer_chunk_bytes)

    async def serve(self, scope: Scope, send: Send, digest: str) -> None:
        """Answer `GET` and `HEAD` for a blob, whole or by a single range. Raises `Refusal`."""
        if DIGEST.fullmatch(digest) is None:
            raise Refusal(404, "NotFound", "there is no such blob")
        if self._open >= self._limits.transfers_max:
            raise busy(self._limits, "too many downloads at the moment")
        self._open += 1
        try:
            await self._serve(scope, send, digest)
        finally:
            self._open -= 1

    async def _serve(self, scope: Scope, send: Send, digest: str) -> None:
        size = await self._blobs.size(digest)
        if size is None:
            raise Refusal(404, "NotFound", "there is no such blob")
        span = _span(header(scope, b"range"), size)
        if span is None:
            await _start(send, 416, [(b"content-range", b"bytes */%d" % size), (b"content-length", b"0")])
            await send({"type": "http.response.body", "body": b""})
            return
        start, end = span
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", b"%d" % (end - start)),
            (b"accept-ranges", b"bytes"),
            (b"etag", b'"%b"' % digest.encode()),
        ]
        partial = end - start != size
        if partial:
            headers.append((b"content-range", b"bytes %d-%d/%d" % (start, end - 1, size)))
        if scope["method"] == "HEAD" or start == end:
            await _start(send, 206 if partial else 200, headers)
            await send({"type": "http.response.body", "body": b""})
            return
        await self._send_pieces(scope, send, self._blobs.read(digest, start, end), (206 if partial else 200, headers, end - start))

    async def _send_pieces(
        self, scope: Scope, send: Send, pieces: AsyncIterator[bytes], head: tuple[int, list[tuple[bytes, bytes]], int]
    ) -> None:
        """Send status and headers with the first piece, not before: a blob that vanished is still a clean refusal."""
        connection: Connection = scope[SCOPE_KEY]
        status, headers, size = head
        sent = 0
        try:
            async for piece in _in_turn(pieces, self._pieces):
                if not sent:
                    await _start(send, status, headers)
                await self._budget.take(len(piece))
                sent += len(piece)
                async with self._deadline(connection):
                    await send({"type": "http.response.body", "body": piece, "more_body": sent < size})
                if connection.gone:
                    return
                await asyncio.sleep(0)
        except BlobError as error:
            if not sent:
                raise Refusal(404, "NotFound", "there is no such blob") from error
        if sent != size:
            connection.drop()  # too late to say so: the receiver sees that the body is short

    @asynccontextmanager
    async def _deadline(self, connection: Connection) -> AsyncGenerator[None, None]:
        try:
            async with asyncio.timeout(self._limits.transfer_stall_seconds):
                yield
        except TimeoutError:
            connection.drop()
            raise


async def _in_turn(pieces: AsyncIterator[bytes], turn: asyncio.Semaphore) -> AsyncGenerator[bytes, None]:
    try:
        while True:
            async with turn:
                piece = await anext(pieces, None)
            if piece is None:
                return
            yield piece
    finally:
        if isinstance(pieces, AsyncGenerator):
            await pieces.aclose()


async def _start(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


def _span(text: bytes, size: int) -> tuple[int, int] | None:
    """Return the [start, end) that a Range header asks for, all of it without one or for several ranges, None when it is beyond the end."""
    match = _RANGE.fullmatch(text.strip())
    if match is None or not (match[1] or match[2]):
        return 0, size
    if not match[1]:
        wanted = int(match[2])
        return (max(0, size - wanted), size) if wanted and size else None
    start = int(match[1])
    end = min(size, int(match[2]) + 1) if match[2] else size
    if match[2] and int(match[2]) < start:
        return 0, size
    return (start, end) if start < size else None
