"""Many runs of one change under different seeds, several at a time.

rehearse(plans, …) -> Rehearsal: results in the order of the plans, whichever run ended first; what was lost is told with its seed
rehearse_each(makers, seeds, …) -> one Rehearsal for each of several ways to make plans, which share what they can
"""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import IO, Final

import msgspec

from edgewise.twin.nursery import obituary
from edgewise.twin.plan import Plan
from edgewise.twin.result import Progress, RunResult
from edgewise.twin.worker import Done, Failed, Frames, Halt, Job, Run, Told, attempt, write_frame

__all__ = ["LIMITS", "LostRun", "Rehearsal", "RehearsalLimits", "RehearsalProgress", "rehearse", "rehearse_each", "usable_processors"]

WORKER: Final = (sys.executable, "-P", "-m", "edgewise.twin.worker")
"""How a worker is started."""

_POLL_SECONDS: Final = 0.1


class RehearsalLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a rehearsal takes. `stop_seconds`: how long workers have to hand over what they have when it is stopped."""

    runs_max: int = 10_000
    processes_max: int = 256
    frame_bytes_max: int = 1 << 30
    stop_seconds: float = 10.0


LIMITS: Final = RehearsalLimits()


class LostRun(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A run that gave nothing: an error in it, or its process died. `details` is where, for whoever repairs it."""

    seed: int
    reason: str
    details: str = ""


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What all runs gave. `runs` are whole, `partial` were interrupted; both in the order of the plans. `interrupted`: somebody stopped it
    before all were done."""

    planned: int
    runs: tuple[RunResult, ...] = ()
    partial: tuple[RunResult, ...] = ()
    lost: tuple[LostRun, ...] = ()
    interrupted: bool = False


class RehearsalProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far all runs are together. `share` of the simulated time, `simulated_seconds` and `exchanges` (without those of warm-ups) summed
    over all runs so far."""

    runs: int
    ended: int
    share: float
    simulated_seconds: float
    exchanges: int


def usable_processors() -> int:
    """Return how many processors this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def rehearse(
    plans: Sequence[Plan] | Callable[[int], Plan],
    *,
    seeds: Sequence[int] = (),
    processes: int = 1,
    progress: Callable[[RehearsalProgress], None] | None = None,
    stop: Callable[[], bool] | None = None,
    runner: Run | None = None,
    worker: Sequence[str] = WORKER,
    limits: RehearsalLimits = LIMITS,
) -> Rehearsal:
    """Make all runs: those of `plans`, or `plans(seed)` of each of `seeds`, made just before it is needed. A single one is made here, and
    so are all of them, one after the other, where `runner` says how. Otherwise a worker makes them, in as many copies of itself at a time
    as there are `processes`; the warm-up that they share is made once. `stop` is asked often; once it is true, runs end early.

    Raises `ValueError` for more than the limits allow, and what `plans` raises. An error in a run is no error of the rehearsal: it
    is in `lost`.
    """
    count = len(seeds) if callable(plans) else len(plans)
    plan_of = (lambda number: plans(seeds[number])) if callable(plans) else plans.__getitem__
    stopped = stop or (lambda: False)
    board = _made(plan_of, _Board(count, progress), stopped, processes=processes, runner=runner, worker=worker, limits=limits)
    return board.rehearsal(range(count), stopped=stopped())


def rehearse_each(
    makers: Sequence[Callable[[int], Plan]],
    seeds: Sequence[int],
    *,
    processes: int = 1,
    progress: Callable[[RehearsalProgress], None] | None = None,
    stop: Callable[[], bool] | None = None,
    runner: Run | None = None,
    worker: Sequence[str] = WORKER,
    limits: RehearsalLimits = LIMITS,
) -> tuple[Rehearsal, ...]:
    """Make the runs of `seeds` once with the plans of each of `makers`, in this order, and return what each of them gave. Where the fleets
    warm up alike, they do so only once. See `rehearse`."""
    size = len(seeds)
    stopped = stop or (lambda: False)
    board = _made(
        lambda number: makers[number // size](seeds[number % size]),
        _Board(size * len(makers), progress),
        stopped,
        processes=processes,
        runner=runner,
        worker=worker,
        limits=limits,
    )
    halted = stopped()
    return tuple(board.rehearsal(range(size * number, size * (number + 1)), stopped=halted) for number in range(len(makers)))


def _made(
    plan_of: Callable[[int], Plan],
    board: "_Board",
    stopped: Callable[[], bool],
    *,
    processes: int,
    runner: Run | None,
    worker: Sequence[str],
    limits: RehearsalLimits,
) -> "_Board":
    count = board.count
    if not 1 <= count <= limits.runs_max:
        raise ValueError(f"{count} runs: must be 1 to {limits.runs_max}")
    if not 1 <= processes <= limits.processes_max:
        raise ValueError(f"{processes} processes: must be 1 to {limits.processes_max}")
    if count == 1 or runner is not None:
        _here(plan_of, board, stopped, runner or _real())
    else:
        _Crew(plan_of, board, stopped, worker, limits).work(processes)
    return board


def _real() -> Run:
    from edgewise.twin.run import run

    return run


class _Board:
    """Where the results of all runs are put, and what is told of them."""

    def __init__(self, count: int, progress: Callable[[RehearsalProgress], None] | None) -> None:
        self.count = count
        self._progress = progress
        self._seeds: dict[int, int] = {}
        self._ended: dict[int, RunResult | LostRun] = {}
        self._under_way: dict[int, Progress] = {}

    def begin(self, number: int, seed: int) -> None:
        self._seeds[number] = seed

    def tell(self, number: int, progress: Progress) -> None:
        self._under_way[number] = progress
        self._say()

    def end(self, number: int, end: Done | Failed) -> None:
        self._under_way.pop(number, None)
        match end:
            case Done(result=result):
                self._ended[number] = result
            case Failed(reason=reason, details=details):
                self._ended[number] = LostRun(seed=self._seeds[number], reason=reason, details=details)
        self._say()

    def _say(self) -> None:
        if self._progress is None:
            return
        whole = [end for end in self._ended.values() if isinstance(end, RunResult)]
        part = list(self._under_way.values())
        shares = sum(min(at.simulated_seconds / at.of_seconds, 1.0) if at.of_seconds else 1.0 for at in part)
        self._progress(
            RehearsalProgress(
                runs=self.count,
                ended=len(self._ended),
                share=(len(self._ended) + shares) / self.count,
                simulated_seconds=sum(end.simulated_seconds for end in whole) + sum(at.simulated_seconds for at in part),
                exchanges=sum(end.exchanges - end.warm_up_exchanges for end in whole) + sum(at.exchanges for at in part),
            )
        )

    def rehearsal(self, numbers: range, *, stopped: bool) -> Rehearsal:
        """Return what the runs of these numbers gave."""
        ends = [self._ended[number] for number in numbers if number in self._ended]
        results = [end for end in ends if isinstance(end, RunResult)]
        whole = len(ends) - sum(result.interrupted for result in results)
        return Rehearsal(
            planned=len(numbers),
            runs=tuple(result for result in results if not result.interrupted),
            partial=tuple(result for result in results if result.interrupted),
            lost=tuple(end for end in ends if isinstance(end, LostRun)),
            interrupted=stopped and whole < len(numbers),
        )


def _here(plan_of: Callable[[int], Plan], board: _Board, stopped: Callable[[], bool], run: Run) -> None:
    for number in range(board.count):
        if stopped():
            return
        plan = plan_of(number)
        board.begin(number, plan.seed)
        board.end(number, attempt(run, plan, partial(board.tell, number), stopped))


class _Worker:
    """The process in which runs are made."""

    def __init__(self, command: Sequence[str], frame_bytes_max: int) -> None:
        self.frames = Frames(frame_bytes_max)
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `end`
        # A group of its own: Ctrl-C is for the process that started it, which asks its worker to end.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, bufsize=0, process_group=0
        )

    @property
    def output(self) -> int:
        if self.process.stdout is None:
            raise OSError("no output")
        return self.process.stdout.fileno()

    def send(self, message: Job | Halt) -> None:
        if self.process.stdin is not None:
            # A worker that is gone shows at its output.
            with contextlib.suppress(BrokenPipeError):
                write_frame(self.process.stdin.fileno(), message)

    def end(self) -> None:
        """End it and its copies at once; harmless when it did already."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def obituary(self) -> Failed:
        """Say how it died, once its output has ended."""
        try:
            status = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        return obituary(status, self.errors)


class _Crew:
    """A worker with some runs at a time; when it dies another one takes its place as long as there is something to do."""

    def __init__(
        self, plan_of: Callable[[int], Plan], board: _Board, stopped: Callable[[], bool], command: Sequence[str], limits: RehearsalLimits
    ) -> None:
        self._plan_of = plan_of
        self._board = board
        self._stopped = stopped
        self._command = command
        self._limits = limits
        self._decoder = msgspec.msgpack.Decoder(Told | Done | Failed)
        self._todo = list(range(board.count))[::-1]
        self._under_way: set[int] = set()

    def work(self, processes: int) -> None:
        """Make all runs, so many at a time."""
        while self._todo and not self._stopped():
            worker = _Worker(self._command, self._limits.frame_bytes_max)
            try:
                for _ in range(min(processes, len(self._todo))):
                    self._give(worker)
                self._oversee(worker)
            finally:
                worker.end()

    def _give(self, worker: _Worker) -> None:
        if self._todo and not self._stopped():
            number = self._todo.pop()
            plan = self._plan_of(number)
            self._board.begin(number, plan.seed)
            self._under_way.add(number)
            worker.send(Job(plan, number))

    def _oversee(self, worker: _Worker) -> None:
        """Take what the worker says, until nothing is under way, it dies, or it had its time after a stop."""
        deadline = None
        with selectors.DefaultSelector() as selector:
            selector.register(worker.output, selectors.EVENT_READ)
            while self._under_way and (deadline is None or time.monotonic() < deadline):
                if deadline is None and self._stopped():
                    worker.send(Halt())
                    deadline = time.monotonic() + self._limits.stop_seconds
                if selector.select(_POLL_SECONDS) and not self._read(worker):
                    return

    def _read(self, worker: _Worker) -> bool:
        """Take what there is; tell whether the worker lives."""
        received = os.read(worker.output, 1 << 20)
        for body in worker.frames.feed(received):
            self._hear(worker, self._decoder.decode(body))
        if not received:
            end = worker.obituary()
            for number in sorted(self._under_way):
                self._board.end(number, end)
            self._under_way.clear()
        return bool(received)

    def _hear(self, worker: _Worker, message: Told | Done | Failed) -> None:
        number = message.number
        if number not in self._under_way:
            return
        match message:
            case Told(progress=progress):
                self._board.tell(number, progress)
            case Done() | Failed():
                self._under_way.discard(number)
                self._board.end(number, message)
                self._give(worker)
