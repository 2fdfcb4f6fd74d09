"""Hunt for bugs with fresh seeds of the digital twin until stopped, over all processors, or cut the power everywhere.

python -m benchmarks.soak                     chaos runs under seeds that nobody has tried, until Ctrl-C
python -m benchmarks.soak --first 7 --runs 9  those of the seeds 7 to 15
python -m benchmarks.soak power-cuts          every power cut, every second one during recovery, every failed disk operation

What does not hold is told at once, with the command that makes the run again. The end, or Ctrl-C, prints the sum; the exit status is 1 if
anything did not hold.
"""

import argparse
import itertools
import secrets
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import msgspec

from edgewise.twin.chaos import chaos_plan
from edgewise.twin.diskfaults import run_disk_faults
from edgewise.twin.powercuts import SCENARIOS, run_power_cuts
from edgewise.twin.rehearsal import usable_processors
from edgewise.twin.run import run

SAY_SECONDS = 10.0
DEATHS_MAX = 10
FIRST_MAX = 10**9
WORKER = (sys.executable, "-m", "benchmarks.soak", "worker")


class Task(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing to do: the run of a seed, or all cuts, or all faults, of a power-cut scenario."""

    seed: int | None = None
    cuts: str = ""
    faults: str = ""

    def __str__(self):
        return (
            f"seed {self.seed}"
            if self.seed is not None
            else f"power cuts of {self.cuts!r}"
            if self.cuts
            else f"disk faults of {self.faults!r}"
        )


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one thing gave. `broken`: what did not hold; `replay`: how to do it again."""

    device_hours: float = 0.0
    exchanges: int = 0
    power_cuts: int = 0
    recovered: int = 0
    bricked: int = 0
    mixed: int = 0
    disk_faults: int = 0
    died: bool = False
    broken: tuple[str, ...] = ()
    replay: str = ""


def done(task):
    """Do a task. Whatever goes wrong in it is what is looked for."""
    try:
        return _run(task.seed) if task.seed is not None else _cuts(task.cuts) if task.cuts else _faults(task.faults)
    except Exception as error:  # noqa: BLE001 - see above
        return Outcome(broken=(f"failed: {type(error).__name__}: {error}",), replay=_replay(task))


def _run(seed):
    result = run(chaos_plan(seed))
    broken = tuple(f"{each.invariant} at {each.at:.3f} s, {each.subject}: {each.message}" for each in result.violations)
    return Outcome(device_hours=result.device_hours, exchanges=result.exchanges, broken=broken, replay=_replay(Task(seed=seed)))


def _cuts(name):
    result = run_power_cuts([each for each in SCENARIOS if each.name == name], second=1.0)
    broken = tuple(str(failure) for failure in result.failures)
    return Outcome(
        power_cuts=result.cuts,
        recovered=result.recovered,
        bricked=result.bricked,
        mixed=result.mixed,
        broken=broken,
        replay=_replay(Task(cuts=name)),
    )


def _faults(name):
    result = run_disk_faults([each for each in SCENARIOS if each.name == name], share=1.0)
    broken = tuple(str(failure) for failure in result.failures)
    return Outcome(
        power_cuts=result.cuts,
        recovered=result.cuts - len(broken),
        disk_faults=result.faults,
        broken=broken,
        replay=_replay(Task(faults=name)),
    )


def _replay(task):
    if task.seed is not None:
        return f"edgewise simulate --chaos --seed {task.seed}"
    return f'make soak ARGS="power-cuts --only {(task.cuts or task.faults)!r}"'


def work():
    """Do what comes by lines on the standard input; answer each by a line."""
    decoder = msgspec.json.Decoder(Task)
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(msgspec.json.encode(done(decoder.decode(line))) + b"\n")
        sys.stdout.buffer.flush()


class Worker:
    """A process that does one task at a time. In a group of its own: Ctrl-C is for the process that started it."""

    def __init__(self):
        self.process = subprocess.Popen(WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0)
        self.task = None

    def give(self, task):
        self.task = task
        self.process.stdin.write(msgspec.json.encode(task) + b"\n")
        self.process.stdin.flush()

    def take(self):
        """Return what came of its task; a process that died is told as such."""
        line = self.process.stdout.readline()
        if line:
            return msgspec.json.decode(line, type=Outcome)
        return Outcome(died=True, broken=(f"its process ended with {self.process.wait()}",), replay=_replay(self.task))

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Sum:
    """What all tasks gave."""

    def __init__(self):
        self.began = self.said = time.monotonic()
        self.tasks = self.exchanges = self.power_cuts = self.disk_faults = self.broken = self.died = 0
        self.recovered = self.bricked = self.mixed = 0
        self.device_hours = 0.0

    def add(self, task, outcome):
        self.tasks += 1
        self.died += outcome.died
        self.device_hours += outcome.device_hours
        self.exchanges += outcome.exchanges
        self.power_cuts += outcome.power_cuts
        self.recovered += outcome.recovered
        self.bricked += outcome.bricked
        self.mixed += outcome.mixed
        if outcome.power_cuts:
            print(f"{task}: {outcome.power_cuts:,} tried, {outcome.recovered:,} recovered from", flush=True)
        self.disk_faults += outcome.disk_faults
        if outcome.broken:
            self.broken += 1
            more = f" (and {len(outcome.broken) - 1} more)" if len(outcome.broken) > 1 else ""
            print(f"{task}: {outcome.broken[0]}{more}\n    replay it: {outcome.replay}", flush=True)

    def __str__(self):
        seconds = max(1e-9, time.monotonic() - self.began)
        parts = [f"{self.tasks} done in {seconds:.0f} s"]
        if self.exchanges:
            hourly = self.device_hours * 3600.0 / seconds
            parts.append(f"{self.device_hours:,.0f} device-hours ({hourly:,.0f} per wall hour), {self.exchanges:,} exchanges")
        if self.power_cuts:
            parts.append(f"{self.power_cuts:,} power cuts tried, {self.disk_faults:,} failed disk operations")
            parts.append(f"{self.recovered:,} recovered from, {self.bricked} bricked, {self.mixed} mixed")
        return f"{', '.join(parts)}: {self.broken} with violations"


def soak(tasks: Iterator[Task], processes: int) -> Sum:
    """Do all tasks, or as many as there is time for until Ctrl-C."""
    total, selector, workers = Sum(), selectors.DefaultSelector(), []

    def begin(worker):
        task = next(tasks, None)
        if task is None:
            return worker.end()
        if worker.process.poll() is not None:
            worker.end()
            worker = Worker()
        workers.append(worker)
        worker.give(task)
        selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
        return None

    try:
        for _ in range(processes):
            begin(Worker())
        while workers:
            for key, _ in selector.select(SAY_SECONDS):
                worker = key.data
                outcome = worker.take()
                selector.unregister(worker.process.stdout)
                workers.remove(worker)
                total.add(worker.task, outcome)
                begin(worker)
            if total.died >= DEATHS_MAX:
                print(f"{total.died} processes died: something else is wrong", file=sys.stderr)
                break
            if time.monotonic() - total.said > SAY_SECONDS:
                total.said = time.monotonic()
                print(f"  {total}; now: {', '.join(str(worker.task) for worker in workers)}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print(file=sys.stderr)
    finally:
        for worker in workers:
            worker.end()
        selector.close()
    return total


def main():
    """Return 1 when anything did not hold."""
    parser = argparse.ArgumentParser(prog="make soak", description="Hunt for bugs with the digital twin until stopped.")
    parser.add_argument("what", nargs="?", choices=("seeds", "power-cuts", "worker"), default="seeds", help="default: seeds")
    parser.add_argument("--first", type=int, help="the first seed (default: one that nobody has tried)")
    parser.add_argument("--runs", type=int, help="how many seeds (default: until stopped)")
    parser.add_argument("--only", metavar="NAME", help=f"one of the power-cut scenarios: {', '.join(each.name for each in SCENARIOS)}")
    parser.add_argument("--processes", type=int, default=usable_processors(), help="how many processes (default: one per processor)")
    chosen = parser.parse_args()
    if chosen.what == "worker":
        work()
        return 0
    if chosen.what == "power-cuts":
        names = [each.name for each in SCENARIOS if chosen.only in (None, each.name)]
        if not names:
            parser.error(f"no power-cut scenario called {chosen.only!r}")
        tasks = iter([*(Task(faults=name) for name in names), *(Task(cuts=name) for name in names)])
    else:
        first = secrets.randbelow(FIRST_MAX) if chosen.first is None else chosen.first
        print(f"seeds from {first} on", flush=True)
        tasks = map(Task, itertools.count(first) if chosen.runs is None else range(first, first + chosen.runs))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have programs in the background ignore it
    total = soak(tasks, chosen.processes)
    print(total)
    return 1 if total.broken else 0


if __name__ == "__main__":
    sys.exit(main())
