"""A process that makes runs for a rehearsal: `python -P -m edgewise.twin.worker`. Frames of MessagePack on standard input and output, each
behind its length in four bytes; nothing is pickled.

It warms a fleet up once and makes every run of it in a copy of itself (`nursery.py`). It ends when its standard input does, and its
copies with it, so that no process outlives the one that started it.
"""

import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from edgewise.twin.plan import Plan
from edgewise.twin.result import Progress, ProgressCall, RunResult, StopCall

if TYPE_CHECKING:
    from edgewise.twin.world import World

__all__ = ["Done", "Failed", "Frames", "Halt", "Job", "Run", "Told", "Warming", "attempt", "broken", "frame", "thinned", "write_frame"]

_SHARE_STEP: Final = 0.005
"""How far a run comes between two words on it."""


class Run(Protocol):
    """What makes one run: `edgewise.twin.run.run`."""

    def __call__(self, plan: Plan, *, progress: ProgressCall | None = None, stop: StopCall | None = None) -> RunResult:
        """Return what `plan` leads to."""
        ...


class Warm(Protocol):
    """What warms a fleet up: `edgewise.twin.run.warmed`."""

    def __call__(self, plan: Plan, *, progress: ProgressCall | None = None, stop: StopCall | None = None) -> "World":
        """Return a world that may begin `plan`."""
        ...


class CarryOn(Protocol):
    """What makes the rest of a run: `edgewise.twin.run.carry_on`."""

    def __call__(self, world: "World", plan: Plan, *, progress: ProgressCall | None = None, stop: StopCall | None = None) -> RunResult:
        """Return what `plan` leads to in a world that is warmed up for it."""
        ...


@dataclass(frozen=True)
class Warming:
    """How runs share their warm-up. `key`: plans for which it is the same may; None: this one may not."""

    key: Callable[[Plan], bytes | None]
    warm: Warm
    carry_on: CarryOn


class Job(msgspec.Struct, frozen=True, tag="job"):
    """To a worker: make this run. `number` names it in the answers."""

    plan: Plan
    number: int = 0


class Halt(msgspec.Struct, frozen=True, tag="halt"):
    """To a worker: end all runs early."""


class Told(msgspec.Struct, frozen=True, tag="told"):
    """From a worker: how far a run is."""

    progress: Progress
    number: int = 0


class Done(msgspec.Struct, frozen=True, tag="done"):
    """From a worker: what a run gave."""

    result: RunResult
    number: int = 0


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """From a worker: a run broke off with an error. `details` is where."""

    reason: str
    details: str = ""
    number: int = 0


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


def frame(body: bytes) -> bytes:
    """Return a message's bytes as one frame."""
    return len(body).to_bytes(4, "big") + body


def write_frame(descriptor: int, message: msgspec.Struct) -> None:
    """Write `message` as one frame. Raises `OSError`."""
    rest = memoryview(frame(msgspec.msgpack.encode(message)))
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def attempt(run: Run, plan: Plan, progress: ProgressCall, stop: StopCall, number: int = 0) -> Done | Failed:
    """Make one run; an error in it is an answer, so that other runs go on."""
    try:
        return Done(run(plan, progress=thinned(progress), stop=stop), number)
    except Exception as error:  # noqa: BLE001 - whatever breaks a run is told with its seed
        return broken(error, number)


def broken(error: Exception, number: int) -> Failed:
    """Say what broke a run."""
    return Failed(f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)), number)


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


def main() -> None:
    """Serve the real thing."""
    from edgewise.twin.nursery import serve
    from edgewise.twin.run import carry_on, run, warm_up_key, warmed

    serve(run, Warming(warm_up_key, warmed, carry_on))


if __name__ == "__main__":
    main()
