"""Real supervisors in folders of their own, and what tests need to talk about them."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgewise.agent.slots import Slots, SlotsLimits
from edgewise.agent.supervisor_link import LinkLimits, ShowStatus, SupervisorGone, SupervisorLink, SupervisorStatus
from edgewise.engine.protocol import Exited, Launch
from edgewise.resources.artifact import Command, File, Probes, Variant
from edgewise.supervisor.launch import supervisor_argv

DIGEST = "sha256:" + "0" * 64


def wait_for(condition, seconds=60.0, what="the condition"):
    """Return the first true value of `condition()`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come within {seconds} s")
        time.sleep(0.01)


def alive(pid):
    """Whether a process lives, zombies not counted."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Supervisor:
    """One data folder and the supervisor that runs on it."""

    def __init__(self, data, ports):
        self.data = data
        self.ports = ports
        self.process = None
        self.exits = []
        self._open = []

    def run(self, *limits, agent=(), argv=None):
        """Start it and wait until it answers."""
        with (self.data.parent / "supervisor.err").open("ab") as errors:
            self.process = subprocess.Popen(
                argv or [*supervisor_argv(str(self.data), agent, (*self.ports.limits, *limits)), *([] if agent else ["--"])],
                stderr=errors,
                env={**os.environ, "A_SECRET_OF_THE_PARENT": "yes"},
            )
        wait_for(self._answers, what="the supervisor's first answer")
        return self

    def _answers(self):
        if self.process.poll() is not None:
            raise AssertionError(f"the supervisor ended with {self.process.returncode}: {self.errors}")
        try:
            link = SupervisorLink(str(self.data))
        except SupervisorGone:
            return False
        link.ask(ShowStatus(), SupervisorStatus)
        link.close()
        return True

    @property
    def errors(self):
        return (self.data.parent / "supervisor.err").read_text()

    @property
    def pid(self):
        return self.process.pid

    def link(self, **arguments):
        link = SupervisorLink(str(self.data), **arguments)
        self._open.append(link)
        return link

    def slots(self, **arguments):
        """A fresh client; exits it is told of are added to `exits`."""
        limits = SlotsLimits(link=LinkLimits(answer_seconds_max=60))
        arguments = {"device": "device-1", "on_exit": self.exits.append, "limits": limits, **arguments}
        slots = Slots(str(self.data), **arguments)
        self._open.append(slots)
        return slots

    def status(self):
        link = SupervisorLink(str(self.data))
        try:
            return link.ask(ShowStatus(), SupervisorStatus)
        finally:
            link.close()

    def log(self, folder):
        """All that an instance printed, oldest first."""
        files = sorted((self.data / "logs" / folder).glob("current.log*"), key=lambda path: (len(path.name), path.name), reverse=True)
        return "".join(path.read_text(errors="replace") for path in files)

    def kill(self):
        """Take it away without a chance to do anything."""
        self.process.kill()
        self.process.wait()

    def end(self):
        for one in self._open:
            one.close()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise


@pytest.fixture
def supervisor(tmp_path, port_blocks):
    one = Supervisor(tmp_path / "data", port_blocks())
    yield one
    one.end()
    one.ports.give_back()


@pytest.fixture
def bundle(supervisor):
    """Make the launch of a Python program: `bundle(source, …)`."""

    def make(source, *, environment=None, probes=None, driver="process", revision="r1", argv=None, **fields):
        tree = f"tree{abs(hash(source)):x}"
        folder = supervisor.data / "trees" / tree
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "main.py").write_text(source)
        command = Command(argv=argv or ("${python}", "-S", "-u", "${bundle}/main.py"), environment=environment or {})
        variant = Variant(
            name="plain",
            files=(File(path="main.py", digest=DIGEST, size=len(source)),),
            command=None if driver == "model" else command,
            probes=probes or Probes(),
        )
        return Launch(driver=driver, revision=revision, tree=tree, variant=variant, **{"parameters": {"threshold": 0.8}, **fields})

    return make


@pytest.fixture
def helpers():
    class Helpers:
        python = sys.executable
        wait_for = staticmethod(wait_for)
        alive = staticmethod(alive)
        exited = Exited

        @staticmethod
        def numbers(supervisor, folder, *names):
            """Wait until a workload printed each name with a number behind it, and return the numbers."""

            def printed():
                found = [re.search(rf"{name} (\d+)\n", supervisor.log(folder)) for name in names]
                return all(found) and [int(match[1]) for match in found]

            return wait_for(printed)

    return Helpers
