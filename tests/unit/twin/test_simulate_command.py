"""`edgewise simulate`: what is wanted, what is told, exit codes. Runs are made up: what real ones give is for others to test."""

import errno
import io
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest

from edgewise.cli import main
from edgewise.twin.picture import Picture
from edgewise.twin.rehearsal import rehearse_each
from edgewise.twin.report import Comparison, Report
from edgewise.twin.result import Progress

CHANGE = """
apiVersion: edgewise/v1alpha1
kind: Workload
metadata: {name: inspector}
spec:
  artifact: {name: inspector, version: "7"}
  placement: {everyMatchingDevice: {}}
"""


@pytest.fixture
def plans(monkeypatch, made_run):
    """Makes every run a made-up one, here; returns the plans that were asked for."""
    asked = []

    def run(plan, *, progress=None, stop=None, sink=None):
        asked.append(plan)
        if progress is not None:
            progress(Progress(seed=plan.seed, simulated_seconds=10.0, of_seconds=100.0, exchanges=5))
        if sink is not None:
            sink("0.000000 first line")
            sink("1.000000 second line")
        return plans.result(plan)

    class plans:  # noqa: N801 - a place for settings
        pass

    plans.asked = asked
    plans.result = lambda plan: made_run(plan.seed)
    monkeypatch.setattr("edgewise.twin.run.run", run)
    here = lambda *what, **how: rehearse_each(*what, **{**how, "runner": how["runner"] or run})  # noqa: E731 - what it says
    monkeypatch.setattr("edgewise.twin.rehearsal.rehearse_each", here)
    return plans


@pytest.fixture
def type_(monkeypatch, tmp_path):
    """Types a command in an empty folder; returns exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "change.yaml").write_text(CHANGE)

    def typed(*words):
        out, err = io.StringIO(), io.StringIO()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            code = main.run(["simulate", *words])
        return code, out.getvalue(), err.getvalue()

    return typed


def test_the_ready_scenarios_are_listed_either_way(type_):
    code, out, _ = type_("scenarios")
    assert code == 0
    assert out.splitlines()[1].startswith("calm ")
    assert "battery-night" in out
    assert type_("--list-scenarios") == (0, out, "")
    listed = json.loads(type_("scenarios", "-o", "json")[1])
    assert {"name", "description"} == set(listed[0])


def test_without_a_file_it_is_the_built_in_story_in_twenty_runs(type_, plans):
    code, out, err = type_("--processes", "1", "--fleet", "4")
    assert code == 0
    assert [plan.seed for plan in plans.asked] == list(range(1, 21))
    assert {len(plan.fleet.devices) for plan in plans.asked} == {4}
    assert "Rehearsal: the built-in story" in out
    assert "this is the built-in story" in out
    assert "20 runs, seeds 1 to 20" in out
    assert err.startswith("simulating 20 runs of the built-in story\n20 runs in ")


def test_a_change_is_rehearsed_in_its_namespace(type_, plans):
    code, out, _ = type_("-f", "change.yaml", "--fleet", "3", "--runs", "2", "--processes", "1", "-n", "line-3", "--scenario", "partition")
    assert code == 0
    assert "Rehearsal: line-3/inspector 6 to 7" in out
    assert [act.apply.metadata.namespace for act in plans.asked[0].acts] == ["line-3"]
    assert plans.asked[0].scenario.name == "partition"
    assert plans.asked[0].profile.install == "modelled"


def test_the_report_is_json_too(type_, plans):
    _, out, _ = type_("--fleet", "3", "--runs", "2", "--processes", "1", "-o", "json")
    report = msgspec.json.decode(out, type=Report)
    assert report.about.devices == 3
    assert [run.trace_hash for run in report.runs] == [f"{1:032x}", f"{2:032x}"]


def test_a_seed_alone_makes_one_run_and_prints_its_hash(type_, plans):
    code, out, _ = type_("--seed", "17", "--fleet", "3")
    assert code == 0
    assert [plan.seed for plan in plans.asked] == [17]
    assert f"trace hash {17:032x}" in out


def test_seeds_go_on_from_the_first(type_, plans):
    type_("--seed", "17", "--runs", "3", "--fleet", "3", "--processes", "1")
    assert [plan.seed for plan in plans.asked] == [17, 18, 19]


@pytest.mark.parametrize(("text", "numbers"), [("3,17", (3, 17)), ("17,3,3", (3, 17)), ("none", ())])
def test_only_some_faults_can_be_kept(type_, plans, text, numbers):
    assert type_("--seed", "1", "--fleet", "3", "--scenario", "flapping", "--only", text)[0] == 0
    assert plans.asked[0].only == numbers


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--only", "1,99"), "--only names 99: the run with seed 1 has faults 1 to 2"),
        (("--only", "0"), "--only names 0"),
        (("--acts", "2,7"), "--acts names 7: the run with seed 1 has acts 1 to 2"),
        (("-f", "change.yaml", "--only", "1"), "--only names 1: the run with seed 1 has no faults"),
        (("-f", "change.yaml", "--acts", "2"), "--acts names 2: the run with seed 1 has acts 1 only"),
    ],
)
def test_numbers_that_the_run_does_not_have_are_refused(type_, plans, words, said):
    code, out, err = type_("--seed", "1", "--fleet", "3", *words)
    assert (code, out, plans.asked) == (1, "", [])
    assert said in err


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        ("nowhere/change.svg", "nowhere/change.svg: there is no folder nowhere"),
        ("folder.png", "folder.png: is a folder"),
        ("change.pdf", "a picture is an .svg or a .png"),
    ],
)
def test_a_picture_that_cannot_be_written_is_told_before_the_runs(type_, plans, tmp_path, picture, said):
    (tmp_path / "folder.png").mkdir()
    code, out, err = type_("--seed", "1", "--fleet", "3", "--picture", picture)
    assert (code, out, plans.asked) == (1, "", [])
    assert said in err


def test_a_fleet_that_is_none_says_what_one_is(type_):
    for fleet in ("nowhere.json", "-5", "1e3"):
        code, _, err = type_("--fleet", fleet)
        assert code == 1
        assert (
            f"cannot read the fleet {fleet}: No such file or directory (a fleet is a file of edgewise twin snapshot -o, or a number" in err
        )


def test_descriptions_of_scenarios_are_wrapped_on_a_terminal(type_, monkeypatch):
    monkeypatch.setattr("edgewise.cli.output.is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    lines = type_("scenarios")[1].splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)


def test_a_full_disk_under_the_output_is_no_defect(monkeypatch):
    def full(text):
        raise OSError(errno.ENOSPC, "No space left on device")

    err = io.StringIO()
    monkeypatch.setattr("edgewise.cli.output.out", full)
    monkeypatch.setattr(sys, "stderr", err)
    assert main.run(["simulate", "scenarios"]) == 1
    assert err.getvalue() == "error: the output cannot be written: No space left on device\n  make room there, or write it elsewhere\n"


def test_only_some_acts_can_be_kept(type_, plans):
    assert type_("--seed", "1", "--fleet", "3", "--acts", "2")[0] == 0
    assert [act.apply.spec.artifact.version for act in plans.asked[0].acts] == ["3"]


def test_exact_is_everything(type_, plans):
    type_("--seed", "1", "--fleet", "3", "--exact")
    assert (plans.asked[0].profile.disk, plans.asked[0].profile.install, plans.asked[0].profile.invariants) == ("recording", "real", "all")


def test_chaos_needs_nothing_but_seeds(type_, plans):
    code, out, _ = type_("--chaos", "--runs", "2", "--processes", "1")
    assert code == 0
    assert "Rehearsal: random fleets and changes" in out
    assert "a fleet of its own in every run" in out
    assert plans.asked[0].fleet != plans.asked[1].fleet


def test_two_ways_are_put_side_by_side_under_the_same_seeds(type_, plans, tmp_path, made_run):
    (tmp_path / "other.yaml").write_text(CHANGE.replace('"7"', '"8"'))
    plans.result = lambda plan: made_run(plan.seed, pace=1.5 if plan.acts[0].apply.spec.artifact.version == "8" else 1.0)
    words = ("-f", "change.yaml", "--compare", "other.yaml", "--fleet", "3", "--runs", "10", "--processes", "1")
    code, out, _ = type_(*words)
    assert code == 0
    assert "A: default/inspector 6 to 7 (change.yaml)" in out
    assert "B: default/inspector 7 to 8 (other.yaml)" in out
    assert "✓" in out
    assert [plan.seed for plan in plans.asked] == [*range(1, 11), *range(1, 11)]
    comparison = msgspec.json.decode(type_(*words, "-o", "json")[1], type=Comparison)
    assert next(row.better for row in comparison.rows if row.figure == "change takes") == "first"


def test_the_trace_is_written_line_by_line(type_, plans, tmp_path):
    assert type_("--seed", "1", "--fleet", "3", "--trace", "trace.txt")[0] == 0
    assert (tmp_path / "trace.txt").read_text() == "0.000000 first line\n1.000000 second line\n"
    code, _, err = type_("--seed", "1", "--fleet", "3", "--trace", "nowhere/trace.txt")
    assert code == 1
    assert "the trace cannot be written" in err


def test_pictures_are_written_where_they_are_wanted(type_, plans, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("edgewise.twin.picture.draw", lambda results, report: drawn.append(report) or Picture(svg=b"<?xml", png=b"\x89PNG"))
    assert type_("--seed", "1", "--fleet", "3", "--picture", "story.svg")[2].endswith("picture: story.svg\n")
    assert (tmp_path / "story.svg").read_bytes() == b"<?xml"
    code, _, err = type_("-f", "change.yaml", "--compare", "change.yaml", "--seed", "1", "--fleet", "3", "--picture", "both")
    assert code == 0
    assert "picture: both-a.svg, both-a.png\n" in err
    assert (tmp_path / "both-b.png").read_bytes() == b"\x89PNG"
    assert [len(report.runs) for report in drawn] == [1, 1, 1]


def test_a_picture_that_cannot_be_is_told_before_the_runs(type_, plans, monkeypatch):
    assert type_("--fleet", "3", "--picture", "story.jpg")[0] == 1
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    code, _, err = type_("--fleet", "3", "--picture", "story.svg")
    assert code == 1
    assert "pip install 'edgewise[twin]'" in err
    assert plans.asked == []


def test_an_invariant_that_does_not_hold_fails_with_the_command_that_shows_it(type_, plans, made_run, violation):
    plans.result = lambda plan: made_run(plan.seed, violations=[violation, violation] if plan.seed == 3 else ())
    code, out, err = type_("-f", "change.yaml", "--fleet", "4", "--scenario", "flapping", "--runs", "4", "--processes", "1", "-n", "a-b")
    assert code == 1
    assert "in 1 of 4 runs the invariant one-revision-whole did not hold" in out
    assert "invariants did not hold in 1 of 4 runs" in err
    assert "one-revision-whole at 77.000 s, device-3: two revisions run in slot a (and 1 more)" in err
    command = replay(err)
    assert command == "edgewise simulate -f change.yaml -n a-b --fleet 4 --scenario flapping --seed 3"
    before = plans.asked[2]
    assert type_(*shlex.split(command)[2:])[0] == 1
    assert msgspec.msgpack.encode(plans.asked[-1]) == msgspec.msgpack.encode(before)


@pytest.mark.parametrize(
    "words",
    [
        ("--chaos", "--seed", "5"),
        ("--chaos", "--seed", "5", "--only", "2", "--acts", "none"),
        ("--fleet", "3", "--exact", "--seed", "5", "--acts", "2"),
        ("-f", "a change.yaml", "--fleet", "2", "--seed", "5"),
    ],
)
def test_the_command_that_replays_makes_the_same_plan(type_, plans, made_run, violation, tmp_path, words):
    (tmp_path / "a change.yaml").write_text(CHANGE)
    plans.result = lambda plan: made_run(plan.seed, violations=[violation])
    _, _, err = type_(*words)
    assert type_(*shlex.split(replay(err))[2:])[0] == 1
    first, second = plans.asked
    assert msgspec.msgpack.encode(first) == msgspec.msgpack.encode(second)


def replay(err):
    return next(line for line in err.splitlines() if "replay it: " in line).partition("replay it: ")[2]


def test_shrinking_finds_the_fault_that_does_it(type_, plans, made_run, violation):
    # Fault 2 alone is to blame, whatever else happens.
    def result(plan):
        guilty = plan.only is None or 2 in plan.only
        return made_run(plan.seed, violations=[violation] if guilty else ())

    plans.result = result
    code, _, err = type_("--seed", "1", "--fleet", "3", "--shrink")
    assert code == 1
    assert "looking for fewer faults that break one-revision-whole" in err
    assert "1 of 4 faults and 0 of 2 acts do it" in err
    assert err.splitlines()[-1].endswith("--seed 1 --only 2 --acts none")


def test_a_run_that_gives_nothing_is_an_error_with_its_seed(type_, plans, made_run):
    def result(plan):
        if plan.seed == 2:
            raise RuntimeError("boom")
        return made_run(plan.seed)

    plans.result = result
    code, out, err = type_("--fleet", "3", "--runs", "3", "--processes", "1")
    assert code == 1
    assert "1 of 3 runs gave no result (seed 2): RuntimeError: boom" in out
    assert "error: the run with seed 2 gave no result: RuntimeError: boom" in err
    assert "Rehearsal" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--only", "3"), "--seed"),
        (("--only", "x", "--seed", "1"), "--only takes numbers"),
        (("--acts", "1", "--seed", "1", "--runs", "2"), "--seed"),
        (("--trace", "t", "--runs", "2"), "--trace is of one run"),
        (("--compare", "change.yaml"), "-f"),
        (("--chaos", "-f", "change.yaml"), "--chaos makes up everything"),
        (("--chaos", "--scenario", "partition"), "--chaos makes up everything"),
        (("--fleet", "fleet.json", "--classes", "c.yaml"), "--classes is for a fleet that is made up"),
        (("scenario",), "only scenarios"),
        (("--runs", "0"), "--runs"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(type_, plans, words, told):
    code, out, err = type_(*words)
    assert (code, out) == (2, "")
    assert told in err
    assert plans.asked == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--scenario", "partiton"), "did you mean 'partition'"),
        (("--fleet", "nowhere.json"), "nowhere.json"),
        (("--fleet", "0"), "0 devices"),
        (("-f", "nowhere.yaml"), "nowhere.yaml"),
        (("--classes", "nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_what_is_not_there_is_told(type_, plans, words, told):
    code, _, err = type_(*words)
    assert code == 1
    assert told in err
    assert "defect" not in err


INTERRUPTING = """
import os, signal, sys
from edgewise.cli import main
from edgewise.twin import rehearsal
from edgewise.twin.result import RunResult

def run(plan, *, progress=None, stop=None):
    if plan.seed == {at}:
        for _ in range({times}):
            os.kill(os.getpid(), signal.SIGINT)
    assert stop() == (plan.seed == {at})
    return RunResult(seed=plan.seed, trace_hash="00", simulated_seconds=60.0, device_hours=0.1, exchanges=7, events=9, devices=1,
                     interrupted=stop())

rehearse_each = rehearsal.rehearse_each
rehearsal.rehearse_each = lambda *what, **how: rehearse_each(*what, **{{**how, "runner": run}})
sys.exit(main.run(["simulate", "--fleet", "2", "--runs", "5"]))
"""


def interrupted(tmp_path, at, times):
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTING.format(at=at, times=times))
    return subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path)


@pytest.mark.parametrize(("at", "whole", "said"), [(3, 2, "INTERRUPTED: 2 of 5 runs"), (1, 0, "INTERRUPTED: 0 of 5 runs (figures are of")])
def test_ctrl_c_keeps_what_is_done_and_says_so(tmp_path, at, whole, said):
    done = interrupted(tmp_path, at, 1)
    assert done.returncode == 130, done.stderr
    assert said in " ".join(done.stdout.split())
    assert f"interrupted: {whole} of 5 runs were done" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_ctrl_c_leaves_no_process_behind(tmp_path):
    # Three hundred devices warm up for seconds: the word comes in the middle of that.
    command = "import sys; from edgewise.cli import main; sys.exit(main.run(sys.argv[1:]))"
    words = [sys.executable, "-c", command, "simulate", "--fleet", "300", "--runs", "4", "--processes", "2"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True)
    try:
        until(lambda: len(in_session(process.pid)) > 1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=100)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    assert "interrupted: 0 of 4 runs were done" in err
    assert "Traceback" not in out + err
    until(lambda: not in_session(process.pid))


def in_session(number):
    """Return the processes of a session that live."""
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session, *_ = place.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z" and int(session) == number:
            found.append(int(place.parent.name))
    return found


def until(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_second_ctrl_c_ends_the_command(tmp_path):
    done = interrupted(tmp_path, 2, 2)
    assert done.returncode == 130
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_ctrl_c_is_as_before_afterwards(type_, plans):
    assert threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    type_("--seed", "1", "--fleet", "3")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_terminal_sees_a_bar(tmp_path, made_run):
    # A pseudo-terminal as standard error of a process of its own.
    leader, follower = os.openpty()
    script = tmp_path / "script.py"
    script.write_text(INTERRUPTING.format(at=-1, times=0))
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=follower, env=environment, cwd=tmp_path)
    os.close(follower)
    seen = b""
    try:
        while chunk := read(leader):
            seen += chunk
        process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    assert process.returncode == 0, seen
    assert b"exchanges/s" in seen
    assert b"5/5" in seen


def read(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""  # the other end is closed
