"""What a device's supervisor does: it owns the processes, outlives starts of the agent, and keeps exits until they are acknowledged."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from edgewise.engine.protocol import Exited, Failed, Finished, Heartbeat, Launch, Probed, Route, RunningSlot, Slot, Started, Stopped
from edgewise.ports.files import FilesError
from edgewise.resources.artifact import Probe
from edgewise.twin.workloads import CRASH_CODE, KILLED_CODE, Passing, Process, Seen

if TYPE_CHECKING:
    from edgewise.twin.device import SimDevice

_STOP_SECONDS: Final = 0.2
_PORT_FIRST: Final = 40_000


class Supervisor:
    """One device's processes, between two starts of the supervisor."""

    __slots__ = ("_device", "_ended", "_processes")

    def __init__(self, device: "SimDevice") -> None:
        self._device = device
        self._ended = False
        self._processes: tuple[Process, ...] = ()

    @property
    def processes(self) -> tuple[Process, ...]:
        """Those that live."""
        return tuple(each for each in self._processes if each.code is None)

    def observe(self) -> tuple[RunningSlot, ...]:
        """Return every slot that runs, or whose exit was not acknowledged."""
        return tuple(
            RunningSlot(
                instance=each.instance,
                slot=_slot(each.slot),
                launch_id=each.launch_id,
                revision=each.revision,
                exit_code=each.code,
                active=each.active,
                address=_address(each.instance),
            )
            for each in self._processes
        )

    def acknowledge(self, launch_id: str) -> None:
        """Forget an exit."""
        self._processes = tuple(each for each in self._processes if each.launch_id != launch_id or each.code is None)

    def find(self, instance: str, slot: str) -> Process | None:
        """Return what is in a slot."""
        return next((each for each in self._processes if each.instance == instance and each.slot == slot), None)

    def launched(self, launch_id: str) -> Process | None:
        """Return the process of a launch."""
        for each in self._processes:
            if each.launch_id == launch_id:
                return each
        return None

    def start(self, instance: str, slot: Slot, launch: Launch) -> Started | Failed:
        """Start an empty slot."""
        device = self._device
        there = self.find(instance, slot)
        if there is not None and there.alive:
            return Failed(kind="transient", reason="SlotTaken", message=f"slot {slot} of {instance} is not empty")
        try:
            whole = any(entry.name == launch.tree for entry in device.disk.list("trees"))
        except FilesError as error:
            return Failed(kind="transient", reason="DiskFailed", message=str(error))
        if not whole:
            return Failed(kind="transient", reason="TreeMissing", message=f"the installed files {launch.tree} are not there")
        self._processes = tuple(each for each in self._processes if each is not there)
        process = device.process(instance, slot, launch)
        self._processes = (*self._processes, process)
        device.note("start", f"{instance} {slot} {launch.revision}")
        device.around.watch.started(device, instance, launch.revision)
        self._plan(process)
        device.changed()
        return Started(launch_id=process.launch_id, address=_address(instance))

    def stop(self, instance: str, slot: Slot, grace_seconds: float, done: Callable[[Stopped], None]) -> None:
        """Stop a slot; `done` comes when nothing of it is left."""
        process = self.find(instance, slot)
        if process is None or process.code is not None:
            self._processes = tuple(each for each in self._processes if each is not process)
            done(Stopped(code=process.code if process is not None else None))
            return
        process.stopping = True
        seconds = grace_seconds if process.hung else min(grace_seconds, _STOP_SECONDS / self._device.power.speed)
        self._device.changed()
        self._device.around.kernel.after(seconds, partial(self._stopped, process, done))

    def _stopped(self, process: Process, done: Callable[[Stopped], None]) -> None:
        if self._ended:
            return
        code = KILLED_CODE if process.hung else process.code or 0
        process.code = code
        self._processes = tuple(each for each in self._processes if each is not process)
        self._device.note("stopped", f"{process.instance} {process.slot} {process.revision}")
        done(Stopped(code=code))

    def activate(self, instance: str, slot: Slot) -> Finished | Failed:
        """Let a slot take its instance's traffic."""
        process = self.find(instance, slot)
        if process is None or not process.alive:
            return Failed(kind="transient", reason="NotRunning", message=f"slot {slot} of {instance} does not run")
        if process.hung:
            return Failed(kind="transient", reason="NoAnswer", message="the model server did not answer: time-out")
        for each in self._processes:
            if each.instance == instance:
                each.active = each is process
        self._device.changed()
        return Finished()

    def route(self, effect: Route) -> Finished | Failed:
        """Tell the model server of a slot what of its traffic another one is to see."""
        process = self.find(effect.instance, effect.slot)
        if process is None or not process.alive:
            return Failed(kind="transient", reason="NotRunning", message=f"no model server runs in slot {effect.slot} of {effect.instance}")
        if process.hung:
            return Failed(kind="transient", reason="NoAnswer", message="the model server did not answer: time-out")
        process.passes_on = Passing(effect.to, effect.revision, effect.traffic) if effect.traffic.mode != "none" else None
        self._device.changed()
        return Finished()

    def seen_by(self, process: Process) -> Seen:
        """Return which of its instance's requests a process sees. What serves keeps to itself what its candidate does not take."""
        if not process.model:
            return Seen(1.0)
        for each in self._processes:
            if each.instance != process.instance or not each.active or each.passes_on is None:
                continue
            slot, revision, traffic = each.passes_on
            candidate = self.find(each.instance, slot)
            if candidate is None or candidate.revision != revision or not candidate.well:
                break
            if candidate is process:
                return Seen(traffic.share, copies=traffic.mode == "shadow")
            if each is process and traffic.mode == "split":
                return Seen(1.0 - traffic.share)
        return Seen(1.0 if process.active else 0.0)

    def probe(self, instance: str, slot: Slot, probe: Probe) -> tuple[Probed, float]:
        """Return what a probe says, and after how many seconds."""
        process = self.find(instance, slot)
        if process is None:
            return Probed(ok=False, message="nothing runs in this slot"), 0.0
        kernel = self._device.around.kernel
        ok, message, seconds = process.probed(probe, kernel.now, self._device.chance)
        return Probed(ok=ok, message=message), seconds

    def disturb(self, instance: str, how: str) -> None:
        """Have the processes of an instance ("": all) crash, hang, or leak until they are killed."""
        for process in self.processes:
            if instance not in ("", process.instance):
                continue
            if how == "hang":
                self._turn_bad(process)
            elif how == "leak":
                self._device.around.kernel.after(process.behaviour.fails_after_seconds, partial(self._exit, process, KILLED_CODE))
            else:
                self._exit(process, CRASH_CODE)

    def end(self) -> None:
        """End with all processes: the supervisor died, or the power is gone."""
        self._ended = True
        for process in self._processes:
            if process.code is None:
                process.code = KILLED_CODE
        self._processes = ()

    # ---- what processes do by themselves ----

    def _plan(self, process: Process) -> None:
        kernel, behaviour = self._device.around.kernel, process.behaviour
        if behaviour.fails == "crashes-at-start":
            kernel.at((process.started_at + process.loads_at) / 2, partial(self._exit, process, CRASH_CODE))
            return
        if not process.model:
            kernel.at(process.loads_at, partial(self._loaded, process))
        if process.beat_period is not None:
            kernel.at(process.loads_at, partial(self._beat, process))
        bad_at = process.loads_at + behaviour.fails_after_seconds
        match behaviour.fails:
            case "crashes":
                kernel.at(bad_at, partial(self._exit, process, CRASH_CODE))
            case "leaks":
                kernel.at(bad_at, partial(self._exit, process, KILLED_CODE))
            case "hangs" | "probe-fails":
                kernel.at(bad_at, partial(self._turn_bad, process))
            case _:
                return

    def _loaded(self, process: Process) -> None:
        if process.alive and not self._ended:
            self._device.changed()

    def _beat(self, process: Process) -> None:
        """Call the heartbeat of the local API, now and from now on."""
        if not process.alive or self._ended:
            return
        resident = self._device.resident
        if process.beats and resident is not None:
            resident.give(Heartbeat(instance=process.instance))
        seconds = process.beat_seconds(self._device.chance)
        if seconds is not None:
            self._device.around.kernel.after(seconds, partial(self._beat, process))

    def _turn_bad(self, process: Process) -> None:
        if not process.alive or self._ended:
            return
        process.turned_at = self._device.around.kernel.now
        if process.behaviour.fails == "probe-fails":
            process.failing = True
        else:
            process.hung = True
        self._device.note("bad", f"{process.instance} {process.slot} {process.revision} {'fails' if process.failing else 'hangs'}")
        self._device.changed()

    def _exit(self, process: Process, code: int) -> None:
        if not process.alive or self._ended:
            return
        if process.stopping:  # its stop is under way and will say so
            process.hung = False
            return
        process.code = code
        process.active = False
        self._device.note("exit", f"{process.instance} {process.slot} {process.revision} {code}")
        self._device.changed()
        if self._device.resident is not None:
            self._device.resident.give(Exited(instance=process.instance, slot=_slot(process.slot), launch_id=process.launch_id, code=code))


def _slot(name: str) -> Slot:
    return "a" if name == "a" else "b"


def _address(instance: str) -> str:
    return f"http://127.0.0.1:{_PORT_FIRST + sum(instance.encode()) % 10_000}"
