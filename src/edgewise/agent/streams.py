"""Log streams: sent when the control plane asks for one, over a connection that the device opens."""

# pathlib alone would cost the resident agent a third of a megabyte:
# ruff: noqa: PTH118, PTH123

import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

from edgewise.agent.errors import LinkError
from edgewise.agent.gateway import Gateway
from edgewise.agent.limits import LIMITS, AgentLimits
from edgewise.agent.log import Log
from edgewise.agent.slots import instance_folder
from edgewise.wire.desired import StreamRequest

_CURRENT = "current.log"


class Streams:
    """Sends at most `streams_max` logs at once, each from its own thread and connection; one that is asked for again is not sent twice."""

    def __init__(self, data_folder: str, connect: Callable[[], Gateway], log: Log, limits: AgentLimits = LIMITS) -> None:
        self._data = data_folder
        self._connect = connect
        self._log = log
        self._limits = limits
        self._lock = threading.Lock()
        self._open: dict[str, Gateway] = {}
        self._closed = False

    def take(self, request: StreamRequest) -> bool:
        """Begin to send. Returns False when it is being sent already, or too many are."""
        if not request.id.replace("-", "").replace("_", "").isalnum():
            return False
        with self._lock:
            if self._closed or request.id in self._open or len(self._open) >= self._limits.streams_max:
                return False
            gateway = self._open[request.id] = self._connect()
        threading.Thread(target=self._send, args=(request, gateway), name="stream", daemon=True).start()
        return True

    def close(self) -> None:
        """Break all of them off."""
        with self._lock:
            self._closed = True
            for gateway in self._open.values():
                gateway.client.abort()

    def _send(self, request: StreamRequest, gateway: Gateway) -> None:
        try:
            folder = os.path.join(self._data, "logs", instance_folder(request.instance))
            gateway.upload_stream(request.id, log_pieces(folder, request, self._limits, lambda: self._closed))
        except LinkError as error:
            self._log.info("a log stream ended", error)
        except Exception as error:  # noqa: BLE001  # a log that cannot be read is no reason to stop anything else
            self._log.warning(f"a log stream failed: {type(error).__name__}", error)
        finally:
            gateway.client.close()
            with self._lock:
                self._open.pop(request.id, None)


def log_pieces(folder: str, request: StreamRequest, limits: AgentLimits, stopped: Callable[[], bool]) -> Iterator[bytes]:
    """Yield the last `tail_lines` lines of an instance's log, and then, with `follow`, what is added, through rotations. An empty
    piece says that nothing was added for a moment."""
    end = time.monotonic() + limits.stream_seconds_max
    file = _opened(os.path.join(folder, _CURRENT))
    try:
        tail = _tail(folder, file, request.tail_lines, limits.stream_tail_bytes_max)
        if tail:
            yield tail
        while request.follow and not stopped() and time.monotonic() < end:
            data = file.read(65536) if file is not None else b""
            if data:
                yield data
                continue
            if _moved_on(file, folder):
                rest = file.read(limits.stream_tail_bytes_max) if file is not None else b""  # written just before the rotation
                if rest:
                    yield rest
                successor = _opened(os.path.join(folder, _CURRENT))
                if file is not None:
                    file.close()
                file = successor
                continue
            yield b""
            time.sleep(limits.stream_poll_seconds)
    finally:
        if file is not None:
            file.close()


def _opened(path: str) -> BinaryIO | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    return open(descriptor, "rb", buffering=0)


def _moved_on(file: BinaryIO | None, folder: str) -> bool:
    try:
        now = os.stat(os.path.join(folder, _CURRENT))  # noqa: PTH116  # as above
    except OSError:
        return False
    if file is None:
        return True
    mine = os.fstat(file.fileno())
    return (mine.st_ino, mine.st_dev) != (now.st_ino, now.st_dev) or now.st_size < file.tell()


def _tail(folder: str, current: BinaryIO | None, lines: int, size: int) -> bytes:
    """Return the last lines, of the current file and, when those are too few, of the one before it. `current` stands at its end after."""
    if lines <= 0 or current is None:
        if current is not None:
            current.seek(0, os.SEEK_END)
        return b""
    text = _end_of(current, size)
    if text.count(b"\n") < lines:
        before = _opened(os.path.join(folder, f"{_CURRENT}.1"))
        if before is not None:
            with before:
                text = _end_of(before, max(0, size - len(text))) + text
    return b"".join(text.splitlines(keepends=True)[-lines:])


def _end_of(file: BinaryIO, size: int) -> bytes:
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - size))
    pieces: list[bytes] = []
    left = min(size, length)
    while left > 0 and (data := file.read(left)):
        pieces.append(data)
        left -= len(data)
    return b"".join(pieces)
