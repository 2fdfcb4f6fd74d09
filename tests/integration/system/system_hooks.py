"""Loaded by the Python processes of a fleet under test, as `sitecustomize`: stops at a moment, wrong clocks, failing disks, other limits.

The processes run the real code; this only holds them at a moment until the test has killed what it wants to kill, or lies to them about the
world. All orders are files beside this one, so that a process that was killed and started again finds what still holds:

- `break.NAME`: the first process that comes to the moment NAME renames it to `held.NAME` and waits until that is gone. Moments are
  `Download`, `Verify`, `Install` (of the fetch process), `STATE.WORKLOAD` (the engine has just taken up this state of an update) and
  `before-RECORD.WORKLOAD`, `after-RECORD.WORKLOAD` (around the record's way to the disk).
- `clock`: `+SECONDS` or `-SECONDS` beside the true time, or `=SECONDS` since 1970 at the start of the process.
- `disk`: the number of an error that every writing operation of the data folder ends with.
- `lenient`: the control plane publishes whatever is signed, as one would that was taken over by somebody else.
- `repository/NAME`: the control plane serves this in place of that file of the signed repository.
- `limits.json`: limits by room: `agent`, `engine`, `control`, `liveness`.
"""

import json
import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
HOLD_SECONDS_MAX = 300.0


def pause(moment):
    """Hold this thread here, if somebody asked for that."""
    held = HERE / f"held.{moment}"
    try:
        os.rename(HERE / f"break.{moment}", held)  # noqa: PTH104 # as cheap as can be: this is asked at every step
    except OSError:
        return
    end = time.monotonic() + HOLD_SECONDS_MAX
    while held.exists() and time.monotonic() < end:
        time.sleep(0.005)


def _limits(room):
    try:
        return json.loads((HERE / "limits.json").read_text()).get(room, {})
    except OSError:
        return {}


def _bend(limits, room):
    from msgspec.structs import force_setattr

    for name, value in _limits(room).items():
        getattr(limits, name)
        force_setattr(limits, name, value)
    return limits


def shift_clock():
    """Show another time than the true one."""
    try:
        order = (HERE / "clock").read_text()
    except OSError:
        return
    true = time.time
    offset = float(order[1:]) - true() if order.startswith("=") else float(order)
    time.time = lambda: true() + offset


class _FailingDisk:
    """The module `os`, whose writing functions fail while the file `disk` is there."""

    def __getattr__(self, name):
        return getattr(os, name)

    def open(self, path, flags, mode=0o777, *, dir_fd=None):
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            self._fail()
        return os.open(path, flags, mode, dir_fd=dir_fd)

    @staticmethod
    def _fail():
        try:
            number = int((HERE / "disk").read_text())
        except OSError:
            return
        raise OSError(number, os.strerror(number))


def _failing(name):
    def call(self, *arguments, **named):
        self._fail()
        return getattr(os, name)(*arguments, **named)

    return call


for _name in ("write", "fsync", "fdatasync", "rename", "mkdir", "unlink", "ftruncate"):
    setattr(_FailingDisk, _name, _failing(_name))


def _device():
    from edgewise.agent import limits
    from edgewise.engine import recovery
    from edgewise.ports import disk

    shift_clock()
    _bend(limits.LIMITS, "agent")
    plain = recovery.EngineLimits
    recovery.EngineLimits = lambda: _bend(plain(), "engine")
    disk.os = _FailingDisk()


def _hold_the_agent():
    from edgewise.agent.runtime import Runtime

    adopted, persist = Runtime._adopted, Runtime._persist
    seen = {}

    def hold_adopted(runtime, state):
        adopted(runtime, state)
        for name, live in state.live.items():
            if seen.get(name) != live.update.state:
                seen[name] = live.update.state
                pause(f"{live.update.state.value}.{name.partition('/')[2]}")

    def hold_persist(runtime, records):
        moments = [
            f"{type(record).__name__}.{getattr(record, 'instance', '').partition('/')[2]}"
            for record in records
            if hasattr(record, "instance")
        ]
        for moment in moments:
            pause(f"before-{moment}")
        persist(runtime, records)
        for moment in moments:
            pause(f"after-{moment}")

    Runtime._adopted, Runtime._persist = hold_adopted, hold_persist


def _hold_the_fetch():
    from edgewise.agent.fetching import Fetcher

    tell = Fetcher._tell

    def hold_tell(fetcher, stage, done, total):
        news = fetcher._told[0] != stage
        tell(fetcher, stage, done, total)
        if news:
            pause(stage)

    Fetcher._tell = hold_tell


def _control():
    from edgewise.control.api import artifacts
    from edgewise.control.limits import LIMITS
    from edgewise.control.repository import Repository
    from edgewise.controllers import limits, view

    shift_clock()
    _bend(LIMITS, "control")
    view.Limits = lambda: limits.Limits(liveness=_bend(limits.LivenessLimits(), "liveness"))
    problems, get = artifacts.manifest_problems, Repository.get

    def serve(repository, name):
        try:
            return (HERE / "repository" / name).read_bytes()
        except OSError:
            return get(repository, name)

    artifacts.manifest_problems = lambda manifest: () if (HERE / "lenient").exists() else problems(manifest)
    Repository.get = serve


def install():
    """Change what this process is, if it is one of ours."""
    words = sys.orig_argv
    if "edgewise.agent.fetch" in words:
        _device()
        _hold_the_fetch()
    elif "edgewise.agent" in words:
        _device()
        _hold_the_agent()
    elif words[2:3] == ["up"]:
        _control()


install()
