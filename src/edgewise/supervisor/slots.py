"""The slots: which workload process runs where, how it ended, who waits for its end.

A slot is `running`, `stopping` or `exited`. The exit of a process that nobody asked to end is kept until the agent has acknowledged it, has
started something else in the slot or has stopped it; so an agent that was away, or died at the wrong moment, loses nothing.
"""

# pathlib and contextlib would load half a megabyte:
# ruff: noqa: PTH103

import os
import time

from edgewise.supervisor.children import Child, Children
from edgewise.supervisor.files import remove_folder
from edgewise.supervisor.limits import SupervisorLimits
from edgewise.supervisor.listeners import Listeners
from edgewise.supervisor.logs import LogFile, LogPipe
from edgewise.supervisor.loop import Loop, say
from edgewise.supervisor.spawn import Order, SpawnFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class SlotRefused(Exception):
    """A request about a slot cannot be carried out. `reason` is one CamelCase word, `number` an errno or 0."""

    def __init__(self, reason: str, message: str, number: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.number = number


class Launch:
    """What to start in a slot. `cwd` is relative to the data folder."""

    __slots__ = ("argv", "cpu_milli", "cwd", "env", "folder", "instance", "listen", "memory", "note", "revision", "slot")

    def __init__(
        self,
        *,
        instance: str,
        slot: str,
        folder: str,
        revision: str,
        argv: "list[str]",
        env: "dict[str, str]",
        cwd: str,
        listen: bool,
        memory: "int | None",
        cpu_milli: "int | None",
        note: "dict[str, str]",
    ) -> None:
        self.instance = instance
        self.slot = slot
        self.folder = folder
        self.revision = revision
        self.argv = argv
        self.env = env
        self.cwd = cwd
        self.listen = listen
        self.memory = memory
        self.cpu_milli = cpu_milli
        self.note = note


class SlotEntry:
    """One slot that is not empty. `child` is None once it exited; `waiting` are called with the exit code when a stop is complete."""

    __slots__ = ("active", "address", "child", "code", "launch", "launch_id", "log", "pid", "pipe", "started", "stopping", "waiting")

    def __init__(self, launch: Launch, launch_id: str, address: str, *, log: LogFile, pipe: LogPipe, child: Child) -> None:
        self.launch = launch
        self.launch_id = launch_id
        self.address = address
        self.log = log
        self.pipe = pipe
        self.child: Child | None = child
        self.pid = child.pid
        self.started = time.monotonic()
        self.code: int | None = None
        self.active = False
        self.stopping = False
        self.waiting: list[Callable[[int], None]] = []

    def shown(self) -> "dict[str, object]":
        """Return the slot as `observe` answers it."""
        launch = self.launch
        return {
            "instance": launch.instance,
            "slot": launch.slot,
            "launch_id": self.launch_id,
            "revision": launch.revision,
            "pid": self.pid,
            "exit_code": self.code,
            "active": self.active,
            "address": self.address,
            "runs_for": None if self.child is None else round(time.monotonic() - self.started, 3),
            "note": launch.note,
        }


class SlotTable:
    """All slots. `on_exit` is called for every process that ended by itself."""

    def __init__(
        self, loop: Loop, limits: SupervisorLimits, children: Children, listeners: Listeners, on_exit: "Callable[[SlotEntry], None]"
    ) -> None:
        self._loop = loop
        self._limits = limits
        self._children = children
        self._listeners = listeners
        self._on_exit = on_exit
        self._slots: dict[tuple[str, str], SlotEntry] = {}
        self._logs: dict[str, LogFile] = {}

    def shown(self) -> "list[dict[str, object]]":
        """Return all slots as `observe` answers them."""
        return [entry.shown() for entry in self._slots.values()]

    @property
    def running(self) -> int:
        """How many slots have a process."""
        return sum(entry.child is not None for entry in self._slots.values())

    def start(self, launch: Launch) -> SlotEntry:
        """Start a process in an empty slot. Raises `SlotRefused`."""
        key = (launch.instance, launch.slot)
        before = self._slots.get(key)
        if before is not None and before.child is not None:
            raise SlotRefused("Occupied", f"slot {launch.slot} of {launch.instance} runs already")
        if before is None and len(self._slots) >= self._limits.slots_max:
            raise SlotRefused("TooManySlots", f"{len(self._slots)} slots are the limit")
        launch_id = os.urandom(8).hex()
        try:
            os.makedirs(launch.cwd, mode=0o700, exist_ok=True)
            listen, address = self._listeners.open(launch.folder) if launch.listen else (-1, "")
            confinement = self._children.confine(launch_id, launch.memory, launch.cpu_milli)
            log = self._log(launch.folder)
            pipe = LogPipe(self._loop, log, self._limits)
        except OSError as error:
            raise SlotRefused("NoResources", f"the process cannot be prepared: {error}") from error
        order = Order(launch.argv, dict(launch.env), launch.cwd, output=pipe.writer, listen=listen, confinement=confinement)
        try:
            child = self._children.start(order, launch_id, lambda code: self._ended(key, launch_id, code), confinement.cgroup)
        except (SpawnFailed, OSError) as error:
            pipe.close()
            number = error.number if isinstance(error, SpawnFailed) else 0
            raise SlotRefused("NotStarted", f"{launch.argv[0]} cannot be started: {error}", number) from error
        log.mark(f"revision {launch.revision} started in slot {launch.slot}")
        pipe.started()
        entry = self._slots[key] = SlotEntry(launch, launch_id, address, log=log, pipe=pipe, child=child)
        return entry

    def stop(self, instance: str, slot: str, grace: float, term_after: float, done: "Callable[[int | None], None]") -> None:
        """Stop a slot and empty it; `done(code)` when nothing of it is left, with None when there was nothing."""
        entry = self._slots.get((instance, slot))
        if entry is None or entry.child is None:
            self._slots.pop((instance, slot), None)
            done(None if entry is None else entry.code)
            return
        entry.waiting.append(done)
        entry.stopping = True
        self._children.stop(entry.child, grace, term_after)

    def activate(self, instance: str, slot: str) -> None:
        """Remember that this slot takes the instance's traffic. Raises `SlotRefused`."""
        entry = self._running(instance, slot)
        for other in self._slots.values():
            if other.launch.instance == instance:
                other.active = False
        entry.active = True

    def acknowledge(self, launch_id: str) -> None:
        """Forget the exit of a launch. No error when there is none."""
        for key, entry in list(self._slots.items()):
            if entry.launch_id == launch_id and entry.child is None:
                del self._slots[key]

    def forget(self, instance: str, folder: str) -> None:
        """Forget all of an instance. Raises `SlotRefused` while it runs."""
        mine = [key for key, entry in self._slots.items() if entry.launch.instance == instance]
        if any(self._slots[key].child is not None for key in mine):
            raise SlotRefused("Occupied", f"{instance} still runs")
        for key in mine:
            del self._slots[key]
        self._listeners.forget(folder)
        log = self._logs.pop(folder, None)
        if log is not None:
            log.close()
        remove_folder(f"logs/{folder}")

    def probe_order(self, instance: str, slot: str, argv: "list[str]", env: "dict[str, str]", output: int) -> Order:
        """Return how to run a command beside a slot's process. Raises `SlotRefused`."""
        launch = self._running(instance, slot).launch
        limits = self._limits
        try:
            confinement = self._children.confine(os.urandom(8).hex(), launch.memory, launch.cpu_milli)
        except OSError as error:
            raise SlotRefused("NoResources", f"the command cannot be prepared: {error}", error.errno or 0) from error
        confinement.open_files = int(limits.open_files_max)
        inherited = {name: value for name, value in launch.env.items() if name != "EDGEWISE_LISTEN_FD"}
        return Order(argv, {**inherited, **env}, launch.cwd, output=output, confinement=confinement)

    def _running(self, instance: str, slot: str) -> SlotEntry:
        entry = self._slots.get((instance, slot))
        if entry is None or entry.child is None:
            raise SlotRefused("NotRunning", f"slot {slot} of {instance} does not run")
        return entry

    def _log(self, folder: str) -> LogFile:
        log = self._logs.get(folder)
        if log is None:
            log = self._logs[folder] = LogFile(folder, self._limits)
        return log

    def _ended(self, key: "tuple[str, str]", launch_id: str, code: int) -> None:
        entry = self._slots.get(key)
        if entry is None or entry.launch_id != launch_id:
            say(f"launch {launch_id} ended, but its slot is not known")
            return
        entry.pipe.close()
        entry.log.mark(f"revision {entry.launch.revision} in slot {entry.launch.slot} {_ending(code)}")
        entry.child = None
        entry.active = False
        entry.code = code
        if entry.stopping:
            del self._slots[key]
            for done in entry.waiting:
                done(code)
        else:
            self._on_exit(entry)


def _ending(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
