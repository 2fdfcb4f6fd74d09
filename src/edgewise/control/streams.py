"""Log streams: an operator asks, the device opens, bytes flow from one to the other through a bounded buffer.

A request becomes part of the agent's next answer to its poll; the device opens `POST /v1/streams/ID`, and what it sends goes straight to
the operator. Nothing is stored. When the operator reads slowly the device is slowed down; when either goes, the other is told.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable

from edgewise.control.limits import ControlLimits
from edgewise.control.messages import Refusal
from edgewise.control.peer import Connection, Receive
from edgewise.wire.desired import StreamRequest


class TooManyStreams(Exception):
    """No more streams can be opened at the moment."""


class StreamUnanswered(Exception):
    """The device did not open the stream in time."""


class Stream:
    """One stream. Belongs to one event loop. `request` is what the device is asked for."""

    def __init__(self, agent: str, request: StreamRequest, buffer_bytes: int) -> None:
        self.agent = agent
        self.request = request
        self._buffer_bytes = buffer_bytes
        self._pieces: list[bytes] = []
        self._held = 0
        self._changed = asyncio.Event()
        self._ended = False
        self._opened = False
        self.asked = False
        """Whether the device was told."""
        self.on_end: Callable[[], object] | None = None
        self.opened = asyncio.Event()

    def open(self) -> bool:
        """Note that a device is here; return whether it is the first to come."""
        first = not self._opened
        self._opened = True
        self.opened.set()
        return first

    async def put(self, piece: bytes) -> bool:
        """Hand on a piece, waiting for room; return False once nobody reads any more."""
        while self._held >= self._buffer_bytes and not self._ended:
            self._changed.clear()
            await self._changed.wait()
        if self._ended:
            return False
        if piece:
            self._pieces.append(piece)
            self._held += len(piece)
            self._changed.set()
        return True

    def end(self) -> None:
        """Nothing more comes, or nobody reads any more."""
        self._ended = True
        self.opened.set()
        self._changed.set()
        if self.on_end is not None:
            self.on_end()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield what the device sends until it ends."""
        while True:
            if self._pieces:
                piece = b"".join(self._pieces)
                self._pieces.clear()
                self._held = 0
                self._changed.set()
                yield piece
                continue
            if self._ended:
                return
            self._changed.clear()
            await self._changed.wait()


class Streams:
    """All open streams. `wake` is told the agent whose poll has a new request to answer."""

    def __init__(self, limits: ControlLimits, wake: Callable[[str], object]) -> None:
        self._limits = limits
        self._wake = wake
        self._open: dict[str, Stream] = {}

    def __len__(self) -> int:
        return len(self._open)

    def ask(self, agent: str, device: str, instance: str, *, follow: bool, tail_lines: int) -> Stream:
        """Ask `agent` for a log. Raises `TooManyStreams`. Close the stream in any case."""
        if len(self._open) >= self._limits.streams_max:
            raise TooManyStreams
        request = StreamRequest(
            id=secrets.token_urlsafe(24),
            device=device,
            instance=instance,
            follow=follow,
            tail_lines=max(0, min(tail_lines, self._limits.stream_tail_lines_max)),
        )
        stream = Stream(agent, request, self._limits.stream_buffer_bytes)
        self._open[request.id] = stream
        self._wake(agent)
        return stream

    async def wait_opened(self, stream: Stream) -> None:
        """Return once the device has opened the stream. Raises `StreamUnanswered`."""
        try:
            async with asyncio.timeout(self._limits.stream_open_seconds):
                await stream.opened.wait()
        except TimeoutError:
            raise StreamUnanswered from None

    def close(self, stream: Stream) -> None:
        """Forget a stream; a device that still sends is told."""
        stream.end()
        self._open.pop(stream.request.id, None)

    def close_all(self) -> None:
        """End all streams: the process ends."""
        for stream in tuple(self._open.values()):
            self.close(stream)

    def requests(self, agent: str) -> tuple[StreamRequest, ...]:
        """Return the streams that `agent` is to be asked for now; each is told once."""
        if not self._open:
            return ()
        new = [each for each in self._open.values() if each.agent == agent and not each.asked]
        for each in new:
            each.asked = True
        return tuple(each.request for each in new)

    async def receive(self, agent: str, identifier: str, receive: Receive, connection: Connection) -> None:
        """Take what a device sends for a stream until it or the reader ends; when the reader ends first, the connection is closed, because
        a device that waits for its log's next line would not notice otherwise. Raises `Refusal` when nobody asked this agent for it."""
        stream = self._open.get(identifier)
        if stream is None or stream.agent != agent or not stream.open():
            raise Refusal(404, "NotFound", "nobody asks for this stream (any more)", close=True)
        connection.long_lived = True
        stream.on_end = connection.drop
        try:
            async with asyncio.timeout(self._limits.stream_seconds_max):
                while True:
                    message = await receive()
                    if message["type"] != "http.request" or not await stream.put(message["body"]) or not message.get("more_body"):
                        return
        except TimeoutError:
            connection.drop()
        finally:
            stream.on_end = None
            stream.end()
