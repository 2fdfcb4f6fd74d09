"""Runs the short-lived helper process from the resident side: hands it a job, passes its lines on, and never waits for ever.

`os.posix_spawn` does what is needed; the `subprocess` module and those it loads would cost more than half a megabyte.
"""

import contextlib
import itertools
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from functools import cache

import msgspec

from edgewise.agent.jobs import FetchEnded, FetchJob, Job, Line, Progress, Renewed, RenewJob, Unsealed, UnsealJob
from edgewise.agent.limits import LIMITS, AgentLimits
from edgewise.engine.protocol import Failed, Fetched
from edgewise.resources.decoding import UNREADABLE

COMMAND = (sys.executable, "-m", "edgewise.agent.fetch")
_ERROR_BYTES_MAX = 4096
_SIGKILL = 9


class HelperFailed(Exception):
    """The helper process ended without a result, was too slow, or was told to stop."""


class Helper:
    """One helper process at a time per call; calls may come from several threads."""

    def __init__(self, command: tuple[str, ...] = COMMAND, limits: AgentLimits = LIMITS) -> None:
        self._command = command
        self._limits = limits
        self._lock = threading.Lock()
        self._running: dict[int, _Child] = {}
        self._cancelled: set[int] = set()
        self._keys = itertools.count(-1, -1)

    def fetch(self, key: int, job: FetchJob, progress: Callable[[Progress], None]) -> Fetched | Failed:
        """Fetch, verify and install; `key` is for `cancel`. Every failure of the process is `Failed`, `transient`."""
        try:
            line = self._run(key, job, self._limits.fetch_seconds_max, progress)
        except HelperFailed as error:
            return Failed(kind="transient", reason="FetchFailed", message=str(error))
        if isinstance(line, FetchEnded):
            return line.result
        return Failed(kind="transient", reason="FetchFailed", message="the fetch process answered something else")

    def renew(self, job: RenewJob) -> Renewed:
        """Renew the certificate. Raises `HelperFailed`."""
        line = self._run(next(self._keys), job, self._limits.renew_seconds_max, None)
        if isinstance(line, Renewed):
            return line
        raise HelperFailed("the helper answered something else")

    def unseal(self, job: UnsealJob) -> Unsealed:
        """Open secrets. Raises `HelperFailed`."""
        line = self._run(next(self._keys), job, self._limits.renew_seconds_max, None)
        if isinstance(line, Unsealed):
            return line
        raise HelperFailed("the helper answered something else")

    def cancel(self, key: int) -> None:
        """Kill the process that works for `key`; its call then returns."""
        with self._lock:
            self._cancelled.add(key)
            child = self._running.get(key)
            if child is not None:
                child.kill()

    def forget(self, key: int) -> None:
        """Forget that `key` was cancelled: its call has returned."""
        with self._lock:
            self._cancelled.discard(key)

    def cancel_all(self) -> None:
        """Kill every helper process."""
        with self._lock:
            for child in self._running.values():
                child.kill()

    def _run(self, key: int, job: Job, seconds: float, progress: Callable[[Progress], None] | None) -> Line:
        with self._lock:
            if key in self._cancelled:
                raise HelperFailed("cancelled")
            child = _spawn(self._command)
            self._running[key] = child
        try:
            return self._converse(child, job, seconds, progress)
        finally:
            with self._lock:
                self._running.pop(key, None)
                child.kill()
            child.reap()

    def _converse(self, child: "_Child", job: Job, seconds: float, progress: Callable[[Progress], None] | None) -> Line:
        end = time.monotonic() + seconds
        child.give(msgspec.json.encode(job), end)
        lines = _Lines(child, self._limits, end)
        while (text := lines.next()) is not None:
            try:
                line: Line = _line_decoder().decode(text)
            except UNREADABLE as error:
                raise HelperFailed(f"the helper wrote something that is no line: {error}") from error
            if not isinstance(line, Progress):
                return line
            if progress is not None:
                progress(line)
        raise HelperFailed(f"the helper ended without a result{lines.complaint()}")


class _Child:
    """A process in its own group, with a pipe for each of its standard streams. Not reaped before `reap`, so that `kill` hits no other."""

    def __init__(self, pid: int, job: int, out: int, err: int) -> None:
        self._pid = pid
        self._job = job
        self.out = out
        self.err = err

    def give(self, data: bytes, end: float) -> None:
        """Write its standard input and close it."""
        os.set_blocking(self._job, False)
        poll = select.poll()
        poll.register(self._job, select.POLLOUT)
        view = memoryview(data)
        with contextlib.suppress(BrokenPipeError):  # it died already: what it said comes from the other pipes
            while view:
                if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
                    raise HelperFailed("the helper did not take its job")
                view = view[os.write(self._job, view) :]
        os.close(self._job)
        self._job = -1

    def kill(self) -> None:
        """End it and whatever it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, _SIGKILL)

    def reap(self) -> None:
        """Wait for its end, which must have been brought about, and close the pipes."""
        for descriptor in (self._job, self.out, self.err):
            if descriptor >= 0:
                os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _spawn(command: tuple[str, ...]) -> _Child:
    """Start the helper. Raises `HelperFailed` when the machine has no room for another process."""
    pipes: list[int] = []
    try:
        for _ in range(3):
            pipes.extend(os.pipe2(os.O_CLOEXEC))
        job_end, job, out, out_end, err, err_end = pipes
        actions = [(os.POSIX_SPAWN_DUP2, job_end, 0), (os.POSIX_SPAWN_DUP2, out_end, 1), (os.POSIX_SPAWN_DUP2, err_end, 2)]
        pid = os.posix_spawn(command[0], command, _environment(), file_actions=actions, setpgroup=0)
    except OSError as error:
        for descriptor in pipes:
            os.close(descriptor)
        raise HelperFailed(f"no helper process could be started: {error}") from error
    for descriptor in (job_end, out_end, err_end):
        os.close(descriptor)
    return _Child(pid, job, out, err)


class _Lines:
    """Reads whole lines of a process with a deadline for silence and one for the whole."""

    def __init__(self, child: _Child, limits: AgentLimits, end: float) -> None:
        self._out = child.out
        self._err = child.err
        self._limits = limits
        self._end = end
        self._buffer = b""
        self._complaint = b""
        self._open = {self._out, self._err}

    def next(self) -> bytes | None:
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if len(line) > self._limits.fetch_line_bytes_max:
                raise HelperFailed("the helper wrote a line that is too long")
            if newline:
                self._buffer = rest
                return line
            if self._out not in self._open:
                return None
            self._receive()

    def complaint(self) -> str:
        text = self._complaint.decode("utf-8", "replace").strip()
        return f": {text.splitlines()[-1][:500]}" if text else ""

    def _receive(self) -> None:
        wait = min(self._limits.fetch_silence_seconds, self._end - time.monotonic())
        poll = select.poll()
        for descriptor in self._open:
            poll.register(descriptor, select.POLLIN)
        ready = poll.poll(max(0.0, wait) * 1000)
        if not ready:
            raise HelperFailed("the helper was silent for too long")
        for descriptor, _ in ready:
            data = os.read(descriptor, 65536)
            if not data:
                self._open.discard(descriptor)
            elif descriptor == self._out:
                self._buffer += data
            else:
                self._complaint = (self._complaint + data)[-_ERROR_BYTES_MAX:]


def _environment() -> dict[str, str]:
    """Only what Python needs; nothing of the agent's own environment leaks into the helper."""
    kept = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"MALLOC_ARENA_MAX": "1"}


@cache
def _line_decoder() -> msgspec.json.Decoder[Line]:
    return msgspec.json.Decoder(Line)
