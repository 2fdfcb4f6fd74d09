"""Many runs in several processes: order, death, interruption."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from edgewise.twin.fleet import DeviceClass, TwinDevice, TwinFleet, TwinSite
from edgewise.twin.plan import Plan
from edgewise.twin.rehearsal import LIMITS, RehearsalLimits, rehearse
from edgewise.twin.result import Progress, RunResult
from edgewise.twin.scenario import Scenario
from edgewise.twin.worker import Done, Failed, Frames, Job, thinned

FLEET = TwinFleet(
    sites=(TwinSite(name="hall"),),
    classes=(DeviceClass(name="box"),),
    devices=(TwinDevice(name="box-1", site="hall", device_class="box"),),
)

WORKER = """
import os, signal, sys, time
sys.path[:0] = {path!r}
from edgewise.twin.result import Progress, RunResult
from edgewise.twin.nursery import serve
from edgewise.twin.worker import Warming

def result(plan, interrupted=False):
    return RunResult(seed=plan.seed, trace_hash=f"{{plan.seed:032x}}", simulated_seconds=60.0, device_hours=0.1, exchanges=7, events=9,
                     devices=len(plan.fleet.devices), interrupted=interrupted)

def run(plan, *, progress=None, stop=None):
    print("a stray word on standard output")
    match plan.scenario.name:
        case "first-waits" if plan.seed == 1:
            while not os.path.exists(plan.scenario.description):
                time.sleep(0.01)
        case "first-waits":
            open(plan.scenario.description, "w").close()
        case "dies" if plan.seed == 3:
            print("last words", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        case "breaks" if plan.seed == 2:
            raise ZeroDivisionError("no such luck")
        case "endless" if plan.seed != 1:
            progress(Progress(seed=plan.seed, simulated_seconds=1.0, of_seconds=60.0, exchanges=1))
            while not stop():
                time.sleep(0.01)
            return result(plan, interrupted=True)
        case "deaf":
            if plan.scenario.description:
                with open(plan.scenario.description, "w") as place:
                    print(os.getpid(), os.getppid(), file=place)
            progress(Progress(seed=plan.seed, simulated_seconds=1.0, of_seconds=60.0, exchanges=1))
            time.sleep(600)
    progress(Progress(seed=plan.seed, simulated_seconds=60.0, of_seconds=60.0, exchanges=7))
    return result(plan)

class World:
    def close(self):
        pass

def warm(plan, *, progress=None, stop=None):
    with open(plan.scenario.description, "a") as place:
        print("warm", plan.scenario.name, os.getpid(), file=place)
    if plan.scenario.name == "cold":
        raise ZeroDivisionError("no such luck")
    if plan.scenario.name == "warms-forever":
        progress(Progress(seed=plan.seed, simulated_seconds=1.0, of_seconds=60.0, exchanges=0))
        while not stop():
            time.sleep(0.01)
    return World()

def carry_on(world, plan, *, progress=None, stop=None):
    with open(plan.scenario.description, "a") as place:
        print("run", plan.scenario.name, os.getppid(), file=place)
    return result(plan, interrupted=stop())

def key(plan):
    return plan.scenario.name.encode() if plan.scenario.name in ("shared", "other", "cold", "warms-forever") else None

if "--no-copies" in sys.argv:
    def refused():
        raise BlockingIOError("no more processes")
    os.fork = refused
serve(run, Warming(key, warm, carry_on))
"""


@pytest.fixture
def worker(tmp_path):
    path = tmp_path / "worker.py"
    path.write_text(WORKER.format(path=sys.path))
    return (sys.executable, "-P", str(path))


def plan(seed, scenario="calm", description=""):
    return Plan(seed=seed, fleet=FLEET, scenario=Scenario(name=scenario, description=description))


def ended(plan, *, progress=None, stop=None):
    return RunResult(
        seed=plan.seed, trace_hash="00", simulated_seconds=60.0, device_hours=0.1, exchanges=7, events=9, devices=len(plan.fleet.devices)
    )


def seeds(results):
    return [result.seed for result in results]


def test_one_process_makes_all_runs_here():
    told = []
    done = rehearse([plan(5), plan(3)], processes=1, runner=ended, progress=told.append)
    assert seeds(done.runs) == [5, 3]
    assert (done.planned, done.interrupted, done.lost, done.partial) == (2, False, (), ())
    assert (told[-1].ended, told[-1].share, told[-1].exchanges, told[-1].simulated_seconds) == (2, 1.0, 14, 120.0)


def test_plans_can_be_made_seed_by_seed():
    made = []

    def plan_of(seed):
        made.append(seed)
        return plan(seed)

    assert seeds(rehearse(plan_of, seeds=(2, 4), runner=ended).runs) == [2, 4]
    assert made == [2, 4]


def test_an_error_in_a_run_is_told_with_its_seed_and_place():
    def broken(plan, *, progress=None, stop=None):
        raise KeyError("gone")

    done = rehearse([plan(5)], runner=broken)
    assert not done.runs
    assert [(lost.seed, lost.reason) for lost in done.lost] == [(5, "KeyError: 'gone'")]
    assert "in broken" in done.lost[0].details


def test_results_of_workers_are_in_the_order_of_the_plans(worker, tmp_path):
    # The first run ends only after another one has.
    plans = [plan(seed, "first-waits", str(tmp_path / "another")) for seed in (1, 2, 3)]
    done = rehearse(plans, processes=2, worker=worker)
    assert seeds(done.runs) == [1, 2, 3]
    assert [result.devices for result in done.runs] == [1, 1, 1]
    assert done.runs[2] == msgspec.structs.replace(ended(plans[2]), trace_hash=f"{3:032x}")


def test_a_worker_that_dies_is_told_and_replaced(worker):
    done = rehearse([plan(seed, "dies") for seed in (1, 2, 3, 4, 5)], processes=2, worker=worker)
    assert seeds(done.runs) == [1, 2, 4, 5]
    assert [(lost.seed, lost.reason) for lost in done.lost] == [(3, "its process ended by signal 9 (out of memory?)")]
    assert "last words" in done.lost[0].details
    assert not done.interrupted


def test_an_error_in_a_worker_ends_only_its_run(worker):
    done = rehearse([plan(seed, "breaks") for seed in (1, 2, 3)], processes=2, worker=worker)
    assert seeds(done.runs) == [1, 3]
    assert [(lost.seed, lost.reason) for lost in done.lost] == [(2, "ZeroDivisionError: no such luck")]


def test_workers_that_cannot_start_end_the_rehearsal():
    done = rehearse([plan(1), plan(2)], processes=2, worker=(sys.executable, "-c", "import sys; sys.exit(4)"))
    assert [(lost.seed, lost.reason) for lost in done.lost] == [(seed, "its process ended with exit status 4") for seed in (1, 2)]


def test_stopping_keeps_what_was_done_and_takes_what_is_partial(worker):
    whole = []

    def stop():
        return bool(whole)

    def progress(at):
        if at.ended:
            whole.append(at)

    plans = [plan(seed, "endless") for seed in (1, 2, 3, 4)]
    limits = RehearsalLimits(stop_seconds=60)
    done = rehearse(plans, processes=2, worker=worker, stop=stop, progress=progress, limits=limits)
    assert done.interrupted
    assert seeds(done.runs) == [1]
    assert seeds(done.partial) == [2]
    assert done.planned == 4


def test_a_run_that_does_not_stop_is_ended(worker):
    told = []
    limits = RehearsalLimits(stop_seconds=0.2)
    plans = [plan(1, "deaf"), plan(2, "deaf")]
    done = rehearse(plans, processes=2, worker=worker, stop=lambda: len(told) >= 2, progress=told.append, limits=limits)
    assert done.interrupted
    assert (done.runs, done.partial, done.lost) == ((), (), ())


def test_one_process_stops_between_runs():
    done_runs = []

    def run(plan, *, progress=None, stop=None):
        done_runs.append(plan.seed)
        return ended(plan)

    done = rehearse([plan(1), plan(2)], runner=run, stop=lambda: bool(done_runs))
    assert done.interrupted
    assert seeds(done.runs) == [1]


def test_a_stop_after_the_last_run_interrupted_nothing():
    done_runs = []

    def run(plan, *, progress=None, stop=None):
        done_runs.append(plan.seed)
        return ended(plan)

    assert not rehearse([plan(1)], runner=run, stop=lambda: bool(done_runs)).interrupted


@pytest.mark.parametrize(("count", "processes"), [(0, 1), (LIMITS.runs_max + 1, 1), (1, 0), (1, LIMITS.processes_max + 1)])
def test_more_than_the_limits_allow_is_refused(count, processes):
    with pytest.raises(ValueError, match="must be 1 to"):
        rehearse([plan(1)] * count, processes=processes, runner=ended)


def test_runs_that_warm_up_alike_share_it(worker, tmp_path):
    place = tmp_path / "said"
    plans = [plan(seed, name, str(place)) for name in ("shared", "other") for seed in (1, 2, 3)]
    done = rehearse([*plans, plan(9)], processes=2, worker=worker)
    assert seeds(done.runs) == [1, 2, 3, 1, 2, 3, 9]
    said = [line.split() for line in place.read_text().splitlines()]
    assert [line[:2] for line in said if line[0] == "warm"] == [["warm", "shared"], ["warm", "other"]]
    assert sum(line[:2] == ["run", "shared"] for line in said) == sum(line[:2] == ["run", "other"] for line in said) == 3
    assert len({line[2] for line in said}) == 1  # every run is a copy of the one process that warmed up


def test_where_no_copy_can_be_made_runs_are_made_one_after_the_other(worker):
    done = rehearse([plan(seed, "breaks") for seed in (1, 2, 3)], processes=2, worker=(*worker, "--no-copies"))
    assert seeds(done.runs) == [1, 3]
    assert [(lost.seed, lost.reason) for lost in done.lost] == [(2, "ZeroDivisionError: no such luck")]


def test_a_warm_up_that_breaks_is_not_tried_again(worker, tmp_path):
    place = tmp_path / "said"
    done = rehearse([plan(seed, "cold", str(place)) for seed in (1, 2, 3)], processes=2, worker=worker)
    assert [(lost.seed, lost.reason) for lost in done.lost] == [(seed, "ZeroDivisionError: no such luck") for seed in (1, 2, 3)]
    assert len(place.read_text().splitlines()) == 1


def test_stopping_in_the_warm_up_gives_partial_results(worker, tmp_path):
    told = []
    plans = [plan(seed, "warms-forever", str(tmp_path / "said")) for seed in (1, 2, 3)]
    limits = RehearsalLimits(stop_seconds=60)
    done = rehearse(plans, processes=2, worker=worker, stop=lambda: bool(told), progress=told.append, limits=limits)
    assert done.interrupted
    assert seeds(done.partial) == [1, 2]


def test_all_processes_die_with_the_one_that_started_them(worker, tmp_path):
    # The parent is killed in the middle of runs that never end by themselves.
    parent = tmp_path / "parent.py"
    parent.write_text(
        f"""
import sys
sys.path[:0] = {sys.path!r}
import edgewise.twin.rehearsal as rehearsal
from edgewise.twin.plan import Plan
import msgspec
plans = msgspec.msgpack.decode(open({str(tmp_path / "plans")!r}, "rb").read(), type=list[Plan])
rehearsal.rehearse(plans, processes=2, worker={worker!r})
"""
    )
    places = [tmp_path / "one", tmp_path / "two"]
    plans = [plan(number, "deaf", str(place)) for number, place in enumerate(places, start=1)]
    (tmp_path / "plans").write_bytes(msgspec.msgpack.encode(plans))
    process = subprocess.Popen([sys.executable, str(parent)])
    try:
        processes = {int(word) for place in places for word in written(place).split()}
    finally:
        process.kill()
        process.wait(timeout=10)
    assert len(processes) == 3  # two runs, and the worker that they are copies of
    gone(processes)


def test_a_worker_that_is_killed_takes_its_runs_with_it(worker, tmp_path):
    place = tmp_path / "processes"

    def progress(at):
        if not killed:
            run, parent = map(int, written(place).split())
            killed.extend([run, parent])
            os.kill(parent, signal.SIGKILL)

    killed = []
    plans = [plan(1, "deaf", str(place)), plan(2)]
    done = rehearse(plans, processes=1, worker=worker, progress=progress)
    assert [(lost.seed, lost.reason) for lost in done.lost] == [(1, "its process ended by signal 9 (out of memory?)")]
    assert seeds(done.runs) == [2]
    gone(killed)


def written(place):
    deadline = time.monotonic() + 60
    while not (place.exists() and place.read_text().endswith("\n")):
        assert time.monotonic() < deadline, "nothing runs"
        time.sleep(0.01)
    return place.read_text()


def gone(processes):
    deadline = time.monotonic() + 60
    while any(alive(number) for number in processes):
        assert time.monotonic() < deadline, "processes live on"
        time.sleep(0.02)


def alive(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_frames_come_whole_from_any_pieces():
    bodies = [b"", b"a", b"bc" * 300]
    stream = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    frames = Frames(600)
    got = []
    for at in range(0, len(stream), 7):
        got += frames.feed(stream[at : at + 7])
    assert got == bodies


@pytest.mark.parametrize(("size", "fits"), [(599, True), (600, True), (601, False)])
def test_frames_have_a_limit(size, fits):
    frames = Frames(600)
    stream = size.to_bytes(4, "big") + b"x" * size
    if fits:
        assert frames.feed(stream) == [b"x" * size]
    else:
        with pytest.raises(ValueError, match="at most 600"):
            frames.feed(stream[:4])


def test_plans_and_results_cross_as_messagepack():
    job = Job(plan(1))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(job), type=Job) == job
    for message in (Done(ended(plan(1))), Failed("a", "b")):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=Done | Failed) == message


def test_progress_is_passed_on_every_half_percent():
    told = []
    tell = thinned(told.append)
    for second in range(10_001):
        tell(Progress(seed=1, simulated_seconds=float(second), of_seconds=10_000.0))
    assert 195 <= len(told) <= 202
    assert told[0].simulated_seconds == 0.0
