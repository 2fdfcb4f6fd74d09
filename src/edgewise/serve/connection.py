"""One open connection: its socket, its conversation, and what it waits for."""

import fcntl
import socket
import termios
import time
from collections.abc import Collection
from typing import Final

from edgewise.serve.conversation import KEPT_HEADERS, Budget, Conversation, Request
from edgewise.serve.limits import ServeLimits

_CHUNK: Final = 65_536
_BODY_CHUNK: Final = 262_144


class Gone(Exception):
    """The other end closed, or the connection broke."""


class Connection:
    """`serial` names it to the worker. `running`: its request is with the worker. `ending`: what is in `out` is the last."""

    __slots__ = ("asked_at", "control", "deadline", "ending", "events", "limits", "lingered", "out", "running", "serial", "sock", "talk")

    def __init__(
        self,
        sock: socket.socket,
        serial: int,
        limits: ServeLimits,
        budget: Budget,
        *,
        control: bool,
        kept: Collection[bytes] = KEPT_HEADERS,
    ) -> None:
        self.sock = sock
        self.serial = serial
        self.control = control
        self.limits = limits
        self.talk = Conversation(limits, budget, kept)
        self.out = memoryview(b"")
        self.running: Request | None = None
        self.ending = False
        self.events = 0
        self.lingered = 0
        self.asked_at = 0.0
        self.deadline = time.monotonic() + limits.idle_seconds_max

    @property
    def reading(self) -> bool:
        """Whether more bytes are wanted now: one request at a time."""
        return self.running is None and not self.out

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, as far as was read."""
        return self.reading and not self.ending and not self.talk.partial and not self.talk.requests and self.talk.problem is None

    def receive(self) -> None:
        """Read once. Raises `Gone`."""
        try:
            data = self.sock.recv(_BODY_CHUNK if self.talk.partial else _CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            raise Gone from error
        if not data:
            raise Gone
        if self.ending:
            self.lingered += len(data)
            if self.lingered > self.limits.linger_bytes_max:
                raise Gone
            return
        was_partial = self.talk.partial
        self.talk.feed(data)
        if self.talk.partial and not was_partial:
            self.deadline = time.monotonic() + self.limits.request_seconds_max

    def send(self, data: bytes) -> None:
        """Queue bytes and send what goes out at once. Raises `Gone`."""
        self.out = memoryview(bytes(self.out) + data) if self.out else memoryview(data)
        self.flush()

    def flush(self) -> None:
        """Send what goes out; after the last answer, half-close, so that the client reads it whole. Raises `Gone`."""
        try:
            while self.out:
                self.out = self.out[self.sock.send(self.out) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            raise Gone from error
        if self.ending:
            self._half_close()

    def await_next(self) -> None:
        """Set the deadline of what comes next."""
        now = time.monotonic()
        if self.out:
            self.deadline = now + self.limits.write_seconds_max
        elif self.ending:
            self.deadline = now + self.limits.linger_seconds
        elif self.running is not None:
            self.deadline = float("inf")
        elif not self.talk.partial:
            self.deadline = now + self.limits.idle_seconds_max

    def has_unread(self) -> bool:
        """Whether bytes wait in the kernel that were not read yet."""
        try:
            return fcntl.ioctl(self.sock.fileno(), termios.FIONREAD, b"\0\0\0\0") != b"\0\0\0\0"
        except OSError:
            return False

    def close(self) -> None:
        """Close for good."""
        self.talk.close()
        self.sock.close()

    def _half_close(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise Gone from error
