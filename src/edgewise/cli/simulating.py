"""Making the runs of a rehearsal for a person who waits: a progress bar, and Ctrl-C that keeps what is done."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from edgewise.cli import output

if TYPE_CHECKING:
    from edgewise.twin.plan import Plan
    from edgewise.twin.rehearsal import Rehearsal, RehearsalProgress
    from edgewise.twin.worker import Run

INTERRUPTED: Final = 130
"""What a shell reports for a program that was ended with Ctrl-C."""


def rehearsed(
    makers: "Sequence[Callable[[int], Plan]]", seeds: Sequence[int], *, processes: int, what: str, runner: "Run | None" = None
) -> "tuple[Rehearsal, ...]":
    """Make the runs of `seeds` with the plans of each of `makers`, telling how far they are on standard error. `what` says whose they
    are. The first Ctrl-C ends them early and keeps what is done, the second ends the command."""
    from edgewise.twin.rehearsal import rehearse_each

    began = time.monotonic()
    with stoppable() as stop, _told(what, len(seeds) * len(makers)) as progress:
        made = rehearse_each(makers, seeds, processes=processes, progress=progress, stop=stop, runner=runner)
    _say_how_fast(made, time.monotonic() - began)
    return made


@contextmanager
def stoppable() -> "Iterator[Callable[[], bool]]":
    """Turn the first Ctrl-C into a word that is asked for; the second is a `KeyboardInterrupt`."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return

    def heard(number: int, frame: object) -> None:  # noqa: ARG001 - what a signal handler is given
        asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, heard)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _told(what: str, runs: int) -> "Iterator[Callable[[RehearsalProgress], None] | None]":
    """Show a bar on a terminal; elsewhere say only what begins."""
    if not sys.stderr.isatty():
        output.note(f"simulating {what}")
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[runs]}  {task.fields[simulated]} simulated  {task.fields[speed]} exchanges/s "),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
        transient=True,
        speed_estimate_period=30,
    )
    began = time.monotonic()
    with bar:
        task = bar.add_task(what, total=1.0, runs=f"0/{runs}", simulated="0 s", speed="0")

        def show(at: "RehearsalProgress") -> None:
            told = _fields(at, time.monotonic() - began)
            bar.update(task, completed=at.share, runs=told["runs"], simulated=told["simulated"], speed=told["speed"])

        yield show


def _fields(at: "RehearsalProgress", seconds: float) -> dict[str, str]:
    from edgewise.twin.units import amount, duration

    speed = amount(at.exchanges / seconds) if seconds > 0 else "0"
    return {"runs": f"{at.ended}/{at.runs}", "simulated": duration(at.simulated_seconds), "speed": speed}


def _say_how_fast(made: "Sequence[Rehearsal]", seconds: float) -> None:
    from edgewise.twin.units import amount, duration

    whole, partial = [result for each in made for result in each.runs], [result for each in made for result in each.partial]
    results = [*whole, *partial]
    if any(each.interrupted for each in made):
        of = "those" if whole else f"{len(partial)} that had begun" if partial else "nothing"
        planned = sum(each.planned for each in made)
        output.note(f"interrupted: {len(whole)} of {planned} runs were done; what follows is of {of}")
    exchanges = sum(result.exchanges - result.warm_up_exchanges for result in results)
    simulated = sum(result.simulated_seconds for result in results)
    speed = f", {amount(exchanges / seconds)} exchanges/s" if seconds > 0 else ""
    output.note(f"{len(results)} run{'s' * (len(results) != 1)} in {duration(seconds)}: {duration(simulated)} simulated{speed}")
