"""The processes that were started here, from the first instruction to the last trace.

A child is over when its leader has ended and nothing of its launch is left: what the leader left behind is killed, because a process nobody
knows of would hold memory, devices and sockets that the next launch needs.
"""

# pathlib and contextlib would load half a megabyte:
# ruff: noqa: SIM105

import os

from edgewise.supervisor.cgroups import Cgroups
from edgewise.supervisor.limits import SupervisorLimits
from edgewise.supervisor.loop import SIGKILL, SIGTERM, Loop, Timer, say
from edgewise.supervisor.spawn import Confinement, Order, SpawnFailed, spawn
from edgewise.supervisor.stale import VARIABLE, Trace, forget_launch, kill_processes, note_launch, started_at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Child:
    """A process and all that came of it. `code` is its exit status, negative for a signal, None while it runs."""

    __slots__ = ("cgroup", "code", "deadline", "on_end", "pid", "rounds", "trace")

    def __init__(self, trace: Trace, cgroup: "str | None", on_end: "Callable[[int], None]") -> None:
        self.trace = trace
        self.pid = trace.pid
        self.cgroup = cgroup
        self.on_end = on_end
        self.code: int | None = None
        self.deadline: Timer | None = None
        self.rounds = 0


class Children:
    """Starts, stops and reaps processes."""

    def __init__(self, loop: Loop, limits: SupervisorLimits, cgroups: "Cgroups | None", boot: str) -> None:
        self._loop = loop
        self._limits = limits
        self._cgroups = cgroups
        self._boot = boot
        self._children: dict[int, Child] = {}

    @property
    def confinement(self) -> str:
        """How limits are kept: `cgroup` or `rlimit`."""
        return "rlimit" if self._cgroups is None else "cgroup"

    def start(self, order: Order, launch_id: str, on_end: "Callable[[int], None]", cgroup: "str | None" = None) -> Child:
        """Start a process; `on_end(code)` is called when nothing of it is left. Raises `SpawnFailed`."""
        order.env[VARIABLE] = launch_id
        # Noted before it exists: there is no instant at which a process runs and nothing says so.
        self._note(Trace(launch_id, 0, 0))
        try:
            pid = spawn(order)
        except SpawnFailed:
            forget_launch(launch_id)
            self._drop_cgroup(cgroup)
            raise
        child = Child(Trace(launch_id, pid, started_at(pid)), cgroup, on_end)
        self._children[pid] = child
        self._note(child.trace)
        return child

    def stop(self, child: Child, grace: float, term_after: float = 0) -> None:
        """Send SIGTERM to the group after `term_after` seconds, SIGKILL to all of it after `grace`. A later, stricter stop wins."""
        if child.code is not None:
            return
        if child.deadline is not None:
            self._loop.cancel(child.deadline)
        if term_after > 0:
            self._loop.later(min(term_after, grace), lambda: self._signal(child, SIGTERM))
        else:
            self._signal(child, SIGTERM)
        child.deadline = self._loop.later(grace, lambda: self.kill(child))

    def kill(self, child: Child) -> None:
        """Kill all of a child at once."""
        if child.code is None:
            if child.cgroup is not None and self._cgroups is not None:
                self._cgroups.kill(child.cgroup)
            self._signal(child, SIGKILL)

    def reap(self) -> None:
        """Take the exit codes of all who ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is not None:
                child.code = os.waitstatus_to_exitcode(status)
                self._loop.cancel(child.deadline)
                self._sweep(child)

    def confine(self, name: str, memory: "int | None", cpu_milli: "int | None") -> Confinement:
        """Return how a workload is to be confined. Raises `OSError`."""
        limits = self._limits
        cgroup, data = None, None
        if self._cgroups is not None:
            cgroup = self._cgroups.create(name, memory, cpu_milli, int(limits.processes_max))
        elif memory is not None:
            data = int(memory * limits.data_factor + limits.data_extra_bytes)
        return Confinement(
            data_bytes=data,
            cgroup=cgroup,
            open_files=int(limits.open_files_max),
            nice=int(limits.workload_nice),
            oom_score=int(limits.workload_oom_score),
        )

    def _note(self, trace: Trace) -> None:
        try:
            note_launch(trace, self._boot)
        except OSError as error:
            # A full disk must not keep workloads from being started again; only what outlives this process would not be found.
            say(f"launch {trace.launch_id} could not be noted: {error}")

    def _sweep(self, child: Child) -> None:
        try:
            os.killpg(child.pid, SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        if child.cgroup is not None and self._cgroups is not None:
            self._cgroups.kill(child.cgroup)
        left = kill_processes([child.trace])
        child.rounds += 1
        if left and child.rounds < self._limits.sweep_rounds_max:
            self._loop.later(self._limits.sweep_seconds, lambda: self._sweep(child))
            return
        if left:
            say(f"{left} processes of launch {child.trace.launch_id} cannot be killed; they hang in the kernel")
        forget_launch(child.trace.launch_id)
        self._drop_cgroup(child.cgroup)
        child.on_end(child.code or 0)

    def _drop_cgroup(self, cgroup: "str | None") -> None:
        if cgroup is not None and self._cgroups is not None:
            self._cgroups.remove(cgroup)

    def _signal(self, child: Child, number: int) -> None:
        if child.code is None:
            try:
                os.killpg(child.pid, number)
            except ProcessLookupError:
                pass
