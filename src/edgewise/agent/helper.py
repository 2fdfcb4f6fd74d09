"""Runs the short-lived helper process from the resident side: hands it a job, passes its lines on, and never waits for ever."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cache

import msgspec

from edgewise.agent.jobs import FetchEnded, FetchJob, Job, Line, Progress, Renewed, RenewJob, Unsealed, UnsealJob
from edgewise.agent.limits import LIMITS, AgentLimits
from edgewise.engine.protocol import Failed, Fetched

COMMAND = (sys.executable, "-m", "edgewise.agent.fetch")
_ERROR_BYTES_MAX = 4096


class HelperFailed(Exception):
    """The helper process ended without a result, was too slow, or was told to stop."""


class Helper:
    """One helper process at a time per call; calls may come from several threads."""

    def __init__(self, command: tuple[str, ...] = COMMAND, limits: AgentLimits = LIMITS) -> None:
        self._command = command
        self._limits = limits
        self._lock = threading.Lock()
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._cancelled: set[int] = set()

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
        line = self._run(-1, job, self._limits.renew_seconds_max, None)
        if isinstance(line, Renewed):
            return line
        raise HelperFailed("the helper answered something else")

    def unseal(self, job: UnsealJob) -> Unsealed:
        """Open secrets. Raises `HelperFailed`."""
        line = self._run(-2, job, self._limits.renew_seconds_max, None)
        if isinstance(line, Unsealed):
            return line
        raise HelperFailed("the helper answered something else")

    def cancel(self, key: int) -> None:
        """Kill the process that works for `key`; its call then returns."""
        with self._lock:
            self._cancelled.add(key)
            process = self._running.get(key)
            if process is not None:
                _kill(process)

    def cancel_all(self) -> None:
        """Kill every helper process."""
        with self._lock:
            for process in self._running.values():
                _kill(process)

    def _run(self, key: int, job: Job, seconds: float, progress: Callable[[Progress], None] | None) -> Line:
        with self._lock:
            if key in self._cancelled:
                self._cancelled.discard(key)
                raise HelperFailed("cancelled")
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env=_environment(),
            )
            self._running[key] = process
        try:
            return self._converse(process, job, seconds, progress)
        finally:
            _kill(process)
            for pipe in (process.stdin, process.stdout, process.stderr):
                with contextlib.suppress(OSError):
                    if pipe is not None:
                        pipe.close()
            process.wait()
            with self._lock:
                self._running.pop(key, None)
                self._cancelled.discard(key)

    def _converse(self, process: subprocess.Popen[bytes], job: Job, seconds: float, progress: Callable[[Progress], None] | None) -> Line:
        end = time.monotonic() + seconds
        with contextlib.suppress(BrokenPipeError):  # it died already: what it said comes below
            _write_all(process, msgspec.json.encode(job), end)
        lines = _Lines(process, self._limits, end)
        while (text := lines.next()) is not None:
            try:
                line: Line = _line_decoder().decode(text)
            except msgspec.DecodeError as error:
                raise HelperFailed(f"the helper wrote something that is no line: {error}") from error
            if not isinstance(line, Progress):
                return line
            if progress is not None:
                progress(line)
        raise HelperFailed(f"the helper ended without a result{lines.complaint()}")


class _Lines:
    """Reads whole lines of a process with a deadline for silence and one for the whole."""

    def __init__(self, process: subprocess.Popen[bytes], limits: AgentLimits, end: float) -> None:
        assert process.stdout is not None  # noqa: S101  # both are pipes, as `_run` made them
        assert process.stderr is not None  # noqa: S101
        self._out = process.stdout.fileno()
        self._err = process.stderr.fileno()
        self._limits = limits
        self._end = end
        self._buffer = b""
        self._complaint = b""
        self._open = {self._out, self._err}

    def next(self) -> bytes | None:
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                return line
            if self._out not in self._open:
                return None
            if len(self._buffer) > self._limits.fetch_line_bytes_max:
                raise HelperFailed("the helper wrote a line that is too long")
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


def _write_all(process: subprocess.Popen[bytes], data: bytes, end: float) -> None:
    assert process.stdin is not None  # noqa: S101  # a pipe, as `_run` made it
    descriptor = process.stdin.fileno()
    os.set_blocking(descriptor, False)
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    view = memoryview(data)
    while view:
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            raise HelperFailed("the helper did not take its job")
        view = view[os.write(descriptor, view) :]
    process.stdin.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def _environment() -> dict[str, str]:
    """Only what Python needs; nothing of the agent's own environment leaks into the helper."""
    kept = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"MALLOC_ARENA_MAX": "1"}


@cache
def _line_decoder() -> msgspec.json.Decoder[Line]:
    return msgspec.json.Decoder(Line)
