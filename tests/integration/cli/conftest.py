"""A real control plane on loopback, and the real command line against it."""

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgewise.cli import main
from edgewise.client.context import choose_context, read_contexts
from edgewise.client.fleet import Client

EDGEWISE = str(Path(sys.executable).with_name("edgewise"))


class Fleet:
    """One control plane and everything typed at it."""

    def __init__(self, folder):
        self.folder = folder
        self.contexts = folder / "contexts.json"
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("EDGEWISE_")}
        self.environment |= {"EDGEWISE_CONFIG": str(self.contexts), "NO_COLOR": "1", "HOME": str(folder)}
        self.process = None
        self.facts = {}

    def up(self, *more):
        command = [EDGEWISE, "up", "--data", str(self.folder / "control"), "--api-port", "0", "--gateway-port", "0"]
        command += ["--gateway-host", "127.0.0.1", "-o", "json", *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.environment)
        line = read_line(self.process, 60)
        assert line, self.process.communicate(timeout=60)
        self.facts = json.loads(line)
        return self.facts

    def down(self, number=signal.SIGINT):
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err

    def type(self, *words, stdin=b"", code=0):
        """Run one command in this process, which spares the interpreter's start; return (standard output, standard error)."""
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("EDGEWISE_")]:
                patch.delenv(name)
            for name in ("EDGEWISE_CONFIG", "NO_COLOR", "HOME"):
                patch.setenv(name, self.environment[name])
            patch.chdir(self.folder)
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            returned = main.run(words)
        out, err = out.getvalue(), err.getvalue()
        assert returned == code, f"edgewise {' '.join(words)}: {returned}\n{out}\n{err}"
        assert "Traceback" not in err
        return out, err

    def spawn(self, *words, code=0):
        """Run one command as a process of its own, to its end; return (standard output, standard error)."""
        done = subprocess.run([EDGEWISE, *words], capture_output=True, env=self.environment, cwd=self.folder, timeout=60, check=False)
        assert done.returncode == code, done
        assert b"Traceback" not in done.stderr
        return done.stdout.decode(), done.stderr.decode()

    def start(self, *words):
        environment = self.environment | {"PYTHONUNBUFFERED": "1"}
        return subprocess.Popen([EDGEWISE, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=self.folder)

    def client(self, namespace=""):
        _, context = choose_context(read_contexts(self.contexts))
        client = Client(context)
        client.namespace = namespace or context.namespace
        return client

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate(timeout=60)


def read_line(process, seconds):
    """Return the next line of a process's output, or b'' when it ended or time is up."""
    line = []
    reader = threading.Thread(target=lambda: line.append(process.stdout.readline()), daemon=True)
    reader.start()
    reader.join(seconds)
    return line[0] if line else b""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    try:
        fleet.up()
        yield fleet
    finally:
        fleet.close()


@pytest.fixture
def own_fleet(tmp_path):
    fleet = Fleet(tmp_path)
    yield fleet
    fleet.close()


@pytest.fixture
def tools():
    class Tools:
        pass

    Tools.read_line = staticmethod(read_line)
    Tools.until = staticmethod(until)
    return Tools


def until(check, seconds=60):
    """Return what `check` returns once it is true."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(AssertionError):
            found = check()
            if found:
                return found
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


@pytest.fixture
def run():
    return asyncio.run
