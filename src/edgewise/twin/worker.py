"""A process that makes runs for a rehearsal: `python -P -m edgewise.twin.worker`. Frames of MessagePack on standard input and output, each
behind its length in four bytes; nothing is pickled.

It ends when its standard input does, also in the middle of a run, so that no worker outlives the process that started it.
"""

import os
import threading
import traceback
from queue import SimpleQueue
from typing import Final, Protocol

import msgspec

from edgewise.twin.plan import Plan
from edgewise.twin.result import Progress, ProgressCall, RunResult, StopCall

__all__ = ["Done", "Failed", "Frames", "Halt", "Job", "Run", "Told", "attempt", "serve", "thinned", "write_frame"]

_SHARE_STEP: Final = 0.005
"""How far a run comes between two words on it."""


class Run(Protocol):
    """What makes one run: `edgewise.twin.run.run`."""

    def __call__(self, plan: Plan, *, progress: ProgressCall | None = None, stop: StopCall | None = None) -> RunResult:
        """Return what `plan` leads to."""
        ...


class Job(msgspec.Struct, frozen=True, tag="job"):
    """To a worker: make this run."""

    plan: Plan


class Halt(msgspec.Struct, frozen=True, tag="halt"):
    """To a worker: end the run early."""


class Told(msgspec.Struct, frozen=True, tag="told"):
    """From a worker: how far it is."""

    progress: Progress


class Done(msgspec.Struct, frozen=True, tag="done"):
    """From a worker: what the run gave."""

    result: RunResult


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """From a worker: the run broke off with an error. `details` is where."""

    reason: str
    details: str = ""


class Frames:
    """Takes frames out of a stream of bytes."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._held = bytearray()

    def feed(self, received: bytes) -> list[bytes]:
        """Return the frames that are whole now. Raises `ValueError` when one is too big."""
        self._held += received
        whole = []
        while len(self._held) >= 4:
            size = int.from_bytes(self._held[:4], "big")
            if size > self._bytes_max:
                raise ValueError(f"a frame of {size} bytes; at most {self._bytes_max} are taken")
            if len(self._held) < 4 + size:
                break
            whole.append(bytes(self._held[4 : 4 + size]))
            del self._held[: 4 + size]
        return whole


def write_frame(descriptor: int, message: msgspec.Struct) -> None:
    """Write `message` as one frame. Raises `OSError`."""
    body = msgspec.msgpack.encode(message)
    rest = memoryview(len(body).to_bytes(4, "big") + body)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def attempt(run: Run, plan: Plan, progress: ProgressCall, stop: StopCall) -> Done | Failed:
    """Make one run; an error in it is an answer, so that other runs go on."""
    try:
        return Done(run(plan, progress=thinned(progress), stop=stop))
    except Exception as error:  # noqa: BLE001 - whatever breaks a run is told with its seed
        return Failed(f"{type(error).__name__}: {error}", traceback.format_exc())


def thinned(progress: ProgressCall) -> ProgressCall:
    """Pass on only what is half a percent further than what was passed on before."""
    last = -1.0

    def told(at: Progress) -> None:
        nonlocal last
        share = at.simulated_seconds / at.of_seconds if at.of_seconds else 1.0
        if share >= last + _SHARE_STEP:
            last = share
            progress(at)

    return told


def serve(run: Run, frame_bytes_max: int = 1 << 30) -> None:
    """Make the runs that standard input asks for until it ends."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what a run prints by mistake is no answer
    jobs: SimpleQueue[Plan] = SimpleQueue()
    halted = threading.Event()
    threading.Thread(target=_listen, args=(jobs, halted, frame_bytes_max), daemon=True).start()

    def told(at: Progress) -> None:
        write_frame(answers, Told(at))

    while True:
        write_frame(answers, attempt(run, jobs.get(), told, halted.is_set))


def _listen(jobs: "SimpleQueue[Plan]", halted: threading.Event, frame_bytes_max: int) -> None:
    decoder = msgspec.msgpack.Decoder(Job | Halt)
    frames = Frames(frame_bytes_max)
    while received := os.read(0, 1 << 20):
        for body in frames.feed(received):
            match decoder.decode(body):
                case Job(plan=plan):
                    jobs.put(plan)
                case Halt():
                    halted.set()
    os._exit(0)


def main() -> None:
    """Serve the real thing."""
    from edgewise.twin.run import run

    serve(run)


if __name__ == "__main__":
    main()
