"""Limits by cgroup v2, where this process may make cgroups (systemd's `Delegate=yes`, or root).

The own cgroup is split: this process and the agent move to its part `supervisor`, each slot gets a part of its own with `memory.max`,
`cpu.max` and `pids.max`. Where that cannot be done, rlimits must do (see `SupervisorLimits.data_factor`).
"""

# pathlib and contextlib would load half a megabyte:
# ruff: noqa: PTH103, PTH106, SIM105

import os

from edgewise.supervisor.files import read_start
from edgewise.supervisor.loop import say

_CONTROLLERS = ("memory", "pids", "cpu")
_CPU_PERIOD_MICROSECONDS = 100_000


class Cgroups:
    """The cgroups below ours."""

    def __init__(self, base: str, controllers: "tuple[str, ...]") -> None:
        self._base = base
        self._controllers = controllers

    def create(self, name: str, memory: "int | None", cpu_milli: "int | None", processes: int) -> str:
        """Make a cgroup with these limits and return its folder. Bytes, thousandths of a core. Raises `OSError`."""
        folder = f"{self._base}/{name}"
        os.makedirs(folder, exist_ok=True)
        if memory is not None:
            _write(f"{folder}/memory.max", str(memory))
            _write_if_there(f"{folder}/memory.oom.group", "1")
        if cpu_milli is not None and "cpu" in self._controllers:
            _write(f"{folder}/cpu.max", f"{max(1000, cpu_milli * _CPU_PERIOD_MICROSECONDS // 1000)} {_CPU_PERIOD_MICROSECONDS}")
        if "pids" in self._controllers:
            _write(f"{folder}/pids.max", str(processes))
        return folder

    def kill(self, folder: str) -> None:
        """Kill whatever is in a cgroup (Linux 5.14; before that the caller's own search must do)."""
        _write_if_there(f"{folder}/cgroup.kill", "1")

    def remove(self, folder: str) -> None:
        """Remove a cgroup whose processes are gone; no error when that fails."""
        try:
            os.rmdir(folder)
        except OSError:
            pass


def find_cgroups(mount: str = "/sys/fs/cgroup", own: str = "/proc/self/cgroup") -> "Cgroups | None":
    """Split our cgroup and return what can be made below it, or None where this cannot be done."""
    try:
        path = next(line[3:] for line in read_start(own, 65536).decode().splitlines() if line.startswith("0::"))
        base = f"{mount}{path.removesuffix('/supervisor').rstrip('/')}"
        there = read_start(f"{base}/cgroup.controllers", 4096).decode().split()
    except (OSError, StopIteration):
        return None
    if "memory" not in there or not os.access(f"{base}/cgroup.procs", os.W_OK):
        return None
    return _split(base, there)


def _split(base: str, there: "list[str]") -> "Cgroups | None":
    try:
        os.makedirs(f"{base}/supervisor", exist_ok=True)
        _write(f"{base}/supervisor/cgroup.procs", str(os.getpid()))
    except OSError:
        return None
    enabled = []
    for controller in _CONTROLLERS:
        try:
            if controller in there:
                _write(f"{base}/cgroup.subtree_control", f"+{controller}")
                enabled.append(controller)
        except OSError as error:
            say(f"cgroup controller {controller} cannot be used: {error}")
    if "memory" not in enabled:
        _write_if_there(f"{base}/cgroup.procs", str(os.getpid()))
        try:
            os.rmdir(f"{base}/supervisor")
        except OSError:
            pass
        return None
    return Cgroups(base, tuple(enabled))


def _write(path: str, value: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)


def _write_if_there(path: str, value: str) -> None:
    try:
        _write(path, value)
    except OSError:
        pass
