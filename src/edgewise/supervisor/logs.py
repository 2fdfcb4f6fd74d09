"""What workloads print: read through a pipe, kept in rotated files of bounded size, with protection against floods.

Both slots of an instance write to `logs/FOLDER/current.log`; older parts are `.1`, `.2` and so on. An instance may write `log_burst_bytes`
at once and `log_bytes_per_second` for long. What is beyond is dropped, counted and said in the log, and the pipe is then read slowly, so
that a process that prints without end is slowed down by its own pipe rather than this process kept busy.
"""

# pathlib and contextlib would load half a megabyte:
# ruff: noqa: PTH103, PTH105, PTH110

import os
import time

from edgewise.supervisor.files import remove_quietly
from edgewise.supervisor.limits import SupervisorLimits
from edgewise.supervisor.loop import Loop, Timer

_READ_BYTES = 65536
_LAST_READS_MAX = 32


class LogFile:
    """The rotated log of one instance."""

    def __init__(self, folder: str, limits: SupervisorLimits) -> None:
        self._folder = f"logs/{folder}"
        self._limits = limits
        self._descriptor = -1
        self._size = 0
        self._allowance = limits.log_burst_bytes
        self._counted_at = time.monotonic()
        self.dropped = 0

    def take(self, data: bytes) -> bool:
        """Keep `data`, or what of it may be kept. Returns false when some of it was dropped."""
        now = time.monotonic()
        self._allowance = min(self._limits.log_burst_bytes, self._allowance + (now - self._counted_at) * self._limits.log_bytes_per_second)
        self._counted_at = now
        if self._allowance >= len(data) + self._limits.log_burst_bytes / 8 * bool(self.dropped):
            self._say_dropped()
            self._allowance -= len(data)
            return self._write(data)
        self.dropped += len(data)
        return False

    def mark(self, message: str) -> None:
        """Write a line of our own."""
        self._say_dropped()
        self._write(f"[edgewise] {message}\n".encode())

    def close(self) -> None:
        """Nobody writes any more."""
        self._say_dropped()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _say_dropped(self) -> None:
        if self.dropped:
            dropped, self.dropped = self.dropped, 0
            rate = self._limits.log_bytes_per_second
            self._write(f"[edgewise] {dropped} bytes of output dropped: more than {rate:.0f} bytes per second\n".encode())

    def _write(self, data: bytes) -> bool:
        try:
            if self._descriptor < 0:
                self._open()
            if self._size and self._size + len(data) > self._limits.log_file_bytes_max:
                self._rotate()
            while data:
                written = os.write(self._descriptor, data)
                self._size += written
                data = data[written:]
        except OSError:
            # A full or broken disk must not stop the workload: its output is lost, and said to be when the disk takes writes again.
            self.dropped += len(data)
            return False
        return True

    def _open(self) -> None:
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(f"{self._folder}/current.log", flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size

    def _rotate(self) -> None:
        oldest = int(self._limits.log_files_max) - 1
        if oldest < 1:
            os.ftruncate(self._descriptor, 0)
            self._size = 0
            return
        os.close(self._descriptor)
        self._descriptor = -1
        remove_quietly(f"{self._folder}/current.log.{oldest}")
        for number in range(oldest - 1, 0, -1):
            if os.path.exists(f"{self._folder}/current.log.{number}"):
                os.replace(f"{self._folder}/current.log.{number}", f"{self._folder}/current.log.{number + 1}")
        os.replace(f"{self._folder}/current.log", f"{self._folder}/current.log.1")
        self._open()


class LogPipe:
    """The reading end of one process's standard output and error."""

    def __init__(self, loop: Loop, log: LogFile, limits: SupervisorLimits) -> None:
        self._loop = loop
        self._log = log
        self._limits = limits
        self._pause: Timer | None = None
        self._reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reader, False)
        self._open = True

    def started(self) -> None:
        """Close the writing end, which the process has now, and read."""
        os.close(self.writer)
        self.writer = -1
        self._loop.watch(self._reader, self._readable)

    def close(self) -> None:
        """Take what is still in the pipe, and close it: the process is gone."""
        if not self._open:
            return
        for _ in range(_LAST_READS_MAX):
            if not self._read():
                break
        self._end()

    def _readable(self, _events: int) -> None:
        if not self._read():
            if self._open:
                self._end()
        elif self._log.dropped:
            self._loop.unwatch(self._reader)
            self._pause = self._loop.later(self._limits.log_pause_seconds, self._resume)

    def _resume(self) -> None:
        self._pause = None
        if self._open:
            self._loop.watch(self._reader, self._readable)

    def _read(self) -> bool:
        try:
            data = os.read(self._reader, _READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            self._log.take(data)
        return bool(data)

    def _end(self) -> None:
        self._open = False
        self._loop.cancel(self._pause)
        self._loop.unwatch(self._reader)
        os.close(self._reader)
        if self.writer >= 0:
            os.close(self.writer)
            self.writer = -1
