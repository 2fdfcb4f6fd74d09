"""Taking connections in: all of them at once, their TLS handshakes a few at a time, in the order they came.

A fleet that comes back together brings more handshakes than a processor does in the time that a device waits for one. Begun all at once
they would all end at the end, most of them for devices that have given up; begun in turn, each that ends serves a device.
"""

import asyncio
import contextlib
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final

from edgewise.control.limits import ControlLimits

_ACCEPTS_PER_TURN: Final = 256
_STARTS_PER_TURN: Final = 8
_FULL_SECONDS: Final = 0.25
_GONE: Final = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Door:
    """Accepts on one listening socket and makes TLS connections of a protocol. Stands where uvicorn has an `asyncio.Server`: `close`, then
    `wait_closed`."""

    def __init__(
        self, listener: socket.socket, tls: ssl.SSLContext, make_protocol: Callable[[], asyncio.Protocol], limits: ControlLimits
    ) -> None:
        self._listener = listener
        self._tls = tls
        self._make_protocol = make_protocol
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[socket.socket] = deque()
        self._shaking: set[asyncio.Task[None]] = set()
        self._starting = False
        self._closed = False

    def open(self) -> None:
        """Begin to accept."""
        self._listener.settimeout(0)
        self._listen()

    def close(self) -> None:
        """Accept no more; drop who has not got through the handshake."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._listener)
        while self._waiting:
            self._waiting.popleft().close()
        for task in self._shaking:
            task.cancel()

    async def wait_closed(self) -> None:
        """Return once nothing is left of the handshakes."""
        await asyncio.gather(*self._shaking, return_exceptions=True)

    def _listen(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                break
            except ConnectionError:  # it went away before it was taken in
                continue
            except OSError:  # no more files: some must end first
                self._loop.remove_reader(self._listener)
                self._loop.call_later(_FULL_SECONDS, self._listen)
                break
            connection.settimeout(0)
            self._waiting.append(connection)
        if self._waiting and not self._starting:
            self._starting = True
            self._start()

    def _start(self) -> None:
        """Begin the next handshakes; the rest after a turn of the event loop, in which those under way go on."""
        started = 0
        while self._waiting and started < _STARTS_PER_TURN:
            connection = self._waiting.popleft()
            if _is_gone(connection):
                connection.close()
                continue
            started += 1
            task = self._loop.create_task(self._shake(connection))
            self._shaking.add(task)
            task.add_done_callback(self._shaking.discard)
        self._starting = bool(self._waiting)
        if self._starting:
            self._loop.call_soon(self._start)

    async def _shake(self, connection: socket.socket) -> None:
        # What goes wrong in a handshake is the other side's business, and closes the connection.
        with contextlib.suppress(OSError):
            await self._loop.connect_accepted_socket(
                self._make_protocol, connection, ssl=self._tls, ssl_handshake_timeout=self._limits.handshake_seconds
            )


def _is_gone(connection: socket.socket) -> bool:
    """Tell whether the other side has closed or broken off the connection."""
    asked = select.poll()
    asked.register(connection, _GONE)
    return bool(asked.poll(0))
