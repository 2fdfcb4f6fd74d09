"""Where the runs of a rehearsal are born: a process with one thread that warms a fleet up and is then copied (`os.fork`) for every run.

It talks to the process that started it by frames (`worker.py`), to its copies by pipes, and waits in one place for all of them. Where it
cannot be copied, runs are made in the process itself, from the beginning: slow, and the same.
"""

import contextlib
import ctypes
import gc
import os
import selectors
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import IO, Final, NoReturn

import msgspec

from edgewise.twin.result import Progress
from edgewise.twin.worker import Failed, Frames, Halt, Job, Run, Told, Warming, attempt, broken, frame, thinned, write_frame

__all__ = ["obituary", "serve"]

_DETAILS_MAX: Final = 4000
_READ: Final = 1 << 20
_PR_SET_PDEATHSIG: Final = 1
_COLLECT_AFTER: Final = 50_000
"""Garbage is looked for when there are so many objects more than before: seldom, as most of a world lives as long as its run."""


def serve(run: Run, warming: Warming | None = None, frame_bytes_max: int = 1 << 30) -> NoReturn:
    """Make the runs that standard input asks for until it ends. `run` makes those that share no warm-up."""
    gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])
    _Nursery(run, warming, frame_bytes_max).serve()


def obituary(status: int, errors: IO[bytes], number: int = 0) -> Failed:
    """Say how a process died: `status` as `subprocess` tells it, `errors` its standard error."""
    errors.seek(0, os.SEEK_END)
    errors.seek(max(0, errors.tell() - _DETAILS_MAX))
    details = errors.read().decode("utf-8", "replace").strip()
    how = f"by signal {-status}" + (" (out of memory?)" if status == -9 else "") if status < 0 else f"with exit status {status}"
    return Failed(f"its process ended {how}", details, number)


class _Copy:
    """A copy that makes a run, as the nursery sees it."""

    def __init__(self, number: int, process: int, *, answers: int, control: int, errors: IO[bytes], frame_bytes_max: int) -> None:
        self.number = number
        self.process = process
        self.answers = answers
        self.control = control
        self.errors = errors
        self.frames = Frames(frame_bytes_max)

    def halt(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self.control, b"h")

    def close(self) -> None:
        """Let go of its pipes."""
        os.close(self.answers)
        os.close(self.control)
        self.errors.close()


class _Nursery:
    def __init__(self, run: Run, warming: Warming | None, frame_bytes_max: int) -> None:
        self._run = run
        self._warming = warming
        self._frame_bytes_max = frame_bytes_max
        self._jobs: deque[Job] = deque()
        self._copies: dict[int, _Copy] = {}
        self._halted = False
        self._key: bytes | None = None
        self._rest: Run | Exception | None = None
        """What makes the rest of runs with that key, or why it cannot be made."""
        self._drop: Callable[[], None] | None = None
        self._decoder = msgspec.msgpack.Decoder(Job | Halt)
        self._input = Frames(frame_bytes_max)
        self._output = os.dup(1)
        os.dup2(2, 1)  # what a run prints by mistake is no answer
        os.set_blocking(self._output, False)
        self._unsent = bytearray()
        # Not epoll: what a copy closes would go on being watched.
        self._selector = selectors.PollSelector() if hasattr(selectors, "PollSelector") else selectors.SelectSelector()
        self._selector.register(0, selectors.EVENT_READ)

    def serve(self) -> NoReturn:
        while True:
            while self._jobs:
                self._begin(self._jobs.popleft())
            self._wait(None)

    # ---- the process that asks ----

    def _wait(self, seconds: float | None) -> None:
        """Take and pass on what there is; None: wait until there is something."""
        for key, events in self._selector.select(seconds):
            if key.fd == self._output:
                self._send()
            elif key.fd == 0:
                self._listen()
            elif events:
                self._hear(self._copies[key.fd])

    def _listen(self) -> None:
        received = os.read(0, _READ)
        if not received:
            self._end()
        for body in self._input.feed(received):
            match self._decoder.decode(body):
                case Job() as job:
                    self._jobs.append(job)
                case Halt():
                    self._halted = True
                    for copy in self._copies.values():
                        copy.halt()

    def _end(self) -> NoReturn:
        for copy in self._copies.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(copy.process, signal.SIGKILL)
        os._exit(0)

    def _answer(self, body: bytes) -> None:
        if not self._unsent:
            self._selector.register(self._output, selectors.EVENT_WRITE)
        self._unsent += frame(body)

    def _send(self) -> None:
        try:
            sent = os.write(self._output, self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self._end()
        del self._unsent[:sent]
        if not self._unsent:
            self._selector.unregister(self._output)

    def _tell(self, number: int, at: Progress) -> None:
        self._answer(msgspec.msgpack.encode(Told(at, number)))

    def _stop(self) -> bool:
        """Take what came meanwhile; return whether to stop."""
        self._wait(0)
        return self._halted

    # ---- runs ----

    def _begin(self, job: Job) -> None:
        run = self._warm(job)
        if isinstance(run, Exception):
            self._answer(msgspec.msgpack.encode(broken(run, job.number)))
        elif not self._copy(job, run):
            end = attempt(self._run, job.plan, partial(self._tell, job.number), self._stop, job.number)
            self._answer(msgspec.msgpack.encode(end))

    def _warm(self, job: Job) -> Run | Exception:
        """Return what makes the run, once the fleet is warmed up for it."""
        key = self._warming.key(job.plan) if self._warming is not None and hasattr(os, "fork") else None
        if self._warming is None or key is None:
            return self._run
        if key != self._key or self._rest is None:
            if self._drop is not None:
                self._drop()
            self._drop = self._rest = None
            gc.unfreeze()
            self._key = key
            try:
                world = self._warming.warm(job.plan, progress=thinned(partial(self._tell, job.number)), stop=self._stop)
            except Exception as error:  # noqa: BLE001 - whatever breaks the warm-up breaks all runs that need it
                self._rest = error
            else:
                self._drop = world.close
                self._rest = partial(self._warming.carry_on, world)
            gc.collect()
            # What is there now stays: looking through it for garbage would cost time, and copy every page of it.
            gc.freeze()
        return self._rest

    def _copy(self, job: Job, run: Run) -> bool:
        """Let a copy of this process make a run; tell whether there is one."""
        errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the copy
        answers, told = os.pipe()
        heard, control = os.pipe()
        nursery = os.getpid()
        try:
            process = os.fork() if hasattr(os, "fork") else -1
        except OSError:
            process = -1
        if process == 0:
            for copy in self._copies.values():
                copy.close()
            for ours in (answers, control, self._output):
                os.close(ours)
            _die_with(nursery)
            _be_a_copy(job, run, told, _Halted(heard, halted=self._halted), errors)
        os.close(told)
        os.close(heard)
        if process < 0:
            os.close(answers)
            os.close(control)
            errors.close()
            return False
        self._copies[answers] = _Copy(
            job.number, process, answers=answers, control=control, errors=errors, frame_bytes_max=self._frame_bytes_max
        )
        self._selector.register(answers, selectors.EVENT_READ)
        return True

    def _hear(self, copy: _Copy) -> None:
        received = os.read(copy.answers, _READ)
        for body in copy.frames.feed(received):
            self._answer(body)
        if received:
            return
        self._selector.unregister(copy.answers)
        del self._copies[copy.answers]
        _, status = os.waitpid(copy.process, 0)
        code = os.waitstatus_to_exitcode(status)
        if code:
            self._answer(msgspec.msgpack.encode(obituary(code, copy.errors, copy.number)))
        copy.close()


# ---- in the copy ----


def _be_a_copy(job: Job, run: Run, answers: int, halted: "_Halted", errors: IO[bytes]) -> NoReturn:
    """Make the run, tell what it gave, and end."""
    code = 1
    try:
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor is all that is needed
            os.dup2(nothing.fileno(), 0)
        os.dup2(errors.fileno(), 2)
        os.dup2(2, 1)
        end = attempt(run, job.plan, lambda at: write_frame(answers, Told(at, job.number)), halted, job.number)
        write_frame(answers, end)
        code = 0
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


class _Halted:
    """Tells whether the nursery said so; a copy whose nursery is gone ends."""

    def __init__(self, control: int, *, halted: bool) -> None:
        self._control = control
        self._halted = halted
        self._selector = selectors.PollSelector() if hasattr(selectors, "PollSelector") else selectors.SelectSelector()
        self._selector.register(control, selectors.EVENT_READ)

    def __call__(self) -> bool:
        if not self._halted and self._selector.select(0):
            if not os.read(self._control, 1):
                os._exit(1)
            self._halted = True
        return self._halted


def _die_with(nursery: int) -> None:
    """Let the kernel end this process when the nursery ends. Where it cannot, the run notices between two of its steps."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != nursery:
        os._exit(1)
