"""`edgewise simulate` as it is typed: real runs, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgewise.twin.story import NAMESPACE

EDGEWISE = str(Path(sys.executable).with_name("edgewise"))


def simulate(folder, *words, code=0, hash_seed="0"):
    """Type it and wait for its end; return (standard output, standard error)."""
    done = subprocess.run(
        [EDGEWISE, "simulate", *words], capture_output=True, text=True, cwd=folder, env=environment(hash_seed), timeout=110, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def environment(hash_seed="0"):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("EDGEWISE_")}
    return kept | {"NO_COLOR": "1", "PYTHONHASHSEED": hash_seed}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Two runs of the built-in story in two workers."""
    out, _ = simulate(tmp_path_factory.mktemp("report"), "--fleet", "3", "--runs", "2", "--processes", "2", "-o", "json")
    return json.loads(out)


def test_the_story_goes_as_it_is_told(report):
    states = [run["rollouts"] for run in report["runs"]]
    assert states == [{f"{NAMESPACE}/inspector 2": "Succeeded", f"{NAMESPACE}/inspector 3": "RolledBack"}] * 2
    assert report["figures"]["changeSeconds"]["p50"] > 0
    assert any(f"{NAMESPACE}/inspector 3 was rolled back" in sentence for sentence in report["words"])


def test_a_seed_gives_the_same_run_in_any_process_under_any_hash_seed(report, tmp_path):
    out, _ = simulate(tmp_path, "--fleet", "3", "--seed", "2", "-o", "json", hash_seed="12345")
    alone = json.loads(out)
    assert alone["runs"] == [report["runs"][1]]
    assert alone["trace_hash"] == report["runs"][1]["trace_hash"]


def test_a_trace_and_a_picture_are_written_beside_the_table(report, tmp_path):
    out, err = simulate(tmp_path, "--fleet", "3", "--seed", "2", "--trace", "trace.txt", "--picture", "story", hash_seed="7")
    assert f"trace hash {report['runs'][1]['trace_hash']}" in out
    assert "picture: story.svg, story.png" in err
    assert (tmp_path / "story.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "trace.txt").read_text().splitlines()) > 100


def test_ctrl_c_gives_what_there_is(tmp_path):
    # A run that takes minutes is interrupted once its trace grows.
    process = subprocess.Popen(
        [EDGEWISE, "simulate", "--fleet", "1500", "--seed", "1", "--trace", "trace.txt"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment(),
    )
    try:
        until(process, lambda: (tmp_path / "trace.txt").exists() and (tmp_path / "trace.txt").stat().st_size > 0)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, err
    assert "INTERRUPTED: 0 of 1 runs" in out
    assert "interrupted: 0 of 1 runs were done" in err
    assert "Traceback" not in err


def until(process, check, seconds=60):
    """Return what `check` returns once it is true; the process must still run."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)
