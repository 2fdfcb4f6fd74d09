"""Run the demo. Exit status 0 only if every step held."""

import argparse
import asyncio
import logging
import shutil
import signal
import sys
import tempfile
import warnings
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape

from demo import faults, steps
from demo.fleet import DemoFailed
from demo.report import Requests, show
from demo.run import Run
from edgewise.client.errors import Error

STEPS = (
    steps.start_control_plane,
    steps.join_devices,
    steps.push_first_model,
    steps.roll_out_first,
    steps.measure_idle,
    steps.roll_out_better,
    faults.roll_out_worse,
    steps.measure_idle_wire,
    faults.survive_without_control_plane,
    faults.fail_over,
    faults.refuse_flipped_byte,
)
INTERRUPTED = 130


def main() -> int:
    """Parse the arguments and run."""
    parser = argparse.ArgumentParser(prog="make demo", description="Show and measure the whole loop with real processes on loopback.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report there")
    parser.add_argument("--keep", action="store_true", help="leave the fleet running and say what to type next")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    console = Console(width=None if sys.stdout.isatty() else 110)
    folder = Path(tempfile.mkdtemp(prefix="edgewise-demo-"))
    run = Run(folder, console)
    try:
        asyncio.run(_demonstrate(run, keep=chosen.keep))
    except KeyboardInterrupt:
        console.print("interrupted; everything is stopped")
        return INTERRUPTED
    finally:
        if chosen.json:
            chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(run.report)))
        if run.report.ok and not chosen.keep:
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if run.report.ok else 1


async def _demonstrate(run: Run, *, keep: bool) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)  # type: ignore[union-attr] # there is one
    try:
        for step in STEPS:
            await step(run)
        sent, answered, dropped = await run.totals("camera.requests.sent", "camera.requests.answered", "camera.requests.dropped")
        run.report.requests = Requests(sent=sent, answered=answered, dropped=dropped)
        run.report.ok = all(step.ok for step in run.report.steps)
    except (DemoFailed, Error, OSError) as error:
        run.console.print(f"[bold red]error:[/] {escape(str(error))}\n  logs and data are kept in {run.folder}")
    finally:
        show(run.report, run.console)
        if keep and run.report.ok:
            _say_what_next(run)
        else:
            await run.close()


def _say_what_next(run: Run) -> None:
    command = Path(sys.executable).with_name("edgewise")
    run.console.print(
        f"The fleet runs on. Try:\n  export EDGEWISE_CONFIG={run.folder}/contexts.json\n"
        f"  {command} get devices -o wide\n  {command} describe workload inspector -n line-3\n  {command} events -f\n"
        f"  {command} logs north-1/camera -n line-3 -f\nStop it with: pkill -f {run.folder.name}",
        highlight=False,
    )


if __name__ == "__main__":
    sys.exit(main())
