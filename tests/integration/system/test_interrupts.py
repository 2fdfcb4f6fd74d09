"""Ctrl-C, as a terminal sends it: to everything in the foreground, at once. Commands end quickly, say nothing odd, and leave nothing behind."""

import os
import signal
import subprocess
import time

import psutil
import pytest
from system_artifacts import bundle_release, model_release
from system_fleet import EDGEWISE, alive, until

LOUD = "import itertools, time\nfor number in itertools.count():\n    print('line', number, flush=True)\n    time.sleep(0.1)\n"
INTERRUPTED = 130


class Typed:
    """A command in the foreground of a terminal of its own."""

    def __init__(self, fleet, *words):
        self.words = words
        environment = {**fleet.environment, "PYTHONUNBUFFERED": "1"}
        self.out = fleet.folder / f"{'-'.join(words[:3]).replace('/', '-')}.typed"
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [EDGEWISE, *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment,
                cwd=fleet.folder,
                start_new_session=True,
            )

    @property
    def said(self):
        return self.out.read_text(errors="replace")

    def waits_on(self, port):
        """Whether it has connected to a port."""
        return any(each.raddr and each.raddr.port == port for each in psutil.Process(self.process.pid).net_connections())

    def interrupt(self):
        os.killpg(self.process.pid, signal.SIGINT)

    def ended(self, code):
        started = time.monotonic()
        assert self.process.wait(60) == code, (self.words, self.said)
        assert "Traceback" not in self.said, (self.words, self.said)
        assert "Error" not in self.said, (self.words, self.said)
        return time.monotonic() - started


@pytest.fixture(scope="module")
def busy(fleet):
    """A device with a talkative workload, and a rollout that takes its time."""
    device = fleet.device("d")
    fleet.push(bundle_release(fleet.folder, "loud", 1, LOUD))
    fleet.run("loud", 1, observe="10m")
    until(lambda: device.status("loud").ready, lambda: fleet.tell("loud"))
    return device


def test_commands_that_go_on_for_ever_end_when_interrupted(fleet, busy):
    expected = {
        ("rollout", "watch", "loud"): "loud",
        ("events", "-f"): "Joined",
        ("logs", "d/loud", "-f"): "line",
        ("get", "instances", "-w"): "loud",
        ("get", "devices", "-w", "-o", "json"): "Device",
    }
    typed = {Typed(fleet, *words): word for words, word in expected.items()}
    for one, word in typed.items():
        until(lambda one=one, word=word: word in one.said or one.process.poll() is not None, lambda one=one: f"{one.words}: {one.said}")
    for one in typed:
        one.interrupt()
    for one in typed:
        one.ended(INTERRUPTED)


def test_a_command_that_waits_for_an_answer_ends_when_interrupted(fleet, busy):
    """The control plane hangs."""
    os.kill(fleet.control.pid, signal.SIGSTOP)
    try:
        typed = [
            Typed(fleet, "get", "devices"),
            Typed(fleet, "token", "create", "--site", "lab"),
            Typed(fleet, "rollout", "history", "loud"),
        ]
        for one in typed:
            until(lambda one=one: one.waits_on(fleet.api_port), lambda one=one: one.said)
            one.interrupt()
        for one in typed:
            one.ended(INTERRUPTED)
    finally:
        os.kill(fleet.control.pid, signal.SIGCONT)


def test_a_device_that_is_interrupted_ends_with_all_that_it_runs(fleet, busy):
    busy.stop()
    fleet.push(model_release(fleet.folder, "m", 1))
    fleet.run("m", 1)
    typed = Typed(fleet, "agent", "run", "--data", str(busy.data))
    busy.process = typed.process
    until(lambda: busy.status("m").ready and busy.pids("m") and busy.pids("loud"), lambda: f"{typed.said} {fleet.tell('m')}")
    tree = busy.tree()
    assert len(tree) >= 4
    typed.interrupt()
    typed.ended(0)
    assert not [pid for pid in tree if alive(pid)]
    assert not [pid for pid in fleet.leftovers() if pid != fleet.control.pid]


def test_a_control_plane_that_is_interrupted_ends_cleanly_though_devices_and_people_wait(fleet, busy):
    busy.start()
    watcher = Typed(fleet, "get", "devices", "-w")
    until(lambda: "d " in watcher.said, lambda: watcher.said)
    until(lambda: busy.agent_pid, "the agent")
    os.kill(fleet.control.pid, signal.SIGINT)
    assert fleet.control.wait(60) == 0, fleet.log
    assert "Traceback" not in fleet.log
    watcher.interrupt()
    watcher.ended(INTERRUPTED)
    fleet.up()
    until(lambda: busy.status("loud").ready, "the device's return")


INTERRUPTS_ITSELF = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
"""


def test_a_command_that_is_interrupted_while_it_loads_says_nothing(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTS_ITSELF)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ended = subprocess.run([EDGEWISE, "version"], env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.stdout, ended.stderr) == ("", "")
    assert ended.returncode in {-signal.SIGINT, INTERRUPTED}
