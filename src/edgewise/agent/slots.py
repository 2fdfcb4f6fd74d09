"""How the engine's effects on slots are carried out: the drivers, and the blocking client to the supervisor that owns the processes.

`process` runs the command that was signed with the variant; `model` runs the device's model server over the variant's files and speaks to
it over the slot's control socket. The supervisor only knows argument vectors.
"""

# pathlib alone would cost the resident agent a third of a megabyte:
# ruff: noqa: PTH100, PTH103, PTH108, PTH112, PTH118, PTH120

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Callable
from typing import Final

import msgspec

from edgewise.agent.local_http import LocalHttpError, get_status, status_over_unix
from edgewise.agent.supervisor_link import (
    Acknowledged,
    AcknowledgeExit,
    ActivateSlot,
    CommandEnded,
    ExitSeen,
    ForgetInstance,
    LinkLimits,
    ObserveSlots,
    ProbeSlot,
    ReportHealthy,
    SetAgent,
    ShowStatus,
    SlotSeen,
    SlotsSeen,
    SlotStarted,
    SlotStopped,
    StartSlot,
    StopAll,
    StopSlot,
    SupervisorGone,
    SupervisorLink,
    SupervisorRefused,
    SupervisorStatus,
)
from edgewise.engine.protocol import Exited, Failed, Finished, Launch, Probed, ProbeKind, RunningSlot, Slot, Started, Stopped
from edgewise.ports.unix import PATH_BYTES_MAX
from edgewise.resources.artifact import Command, Probe
from edgewise.resources.traffic import Traffic

__all__ = ["Slots", "SlotsLimits", "SupervisorGone", "api_socket_path", "control_socket_path", "instance_folder"]

SERVICE_VARIABLE: Final = "EDGEWISE_SERVICE"
"""A signed environment that sets this asks for the instance's listening socket."""

SKETCH_VARIABLE: Final = "EDGEWISE_SKETCH_INPUTS"
"""The agent's own environment may forbid model servers to sketch their inputs, by `0`."""

_FOLDER_BYTES_MAX: Final = 200
_THREADS_MAX: Final = 64
_UNKNOWN_PLACE: Final = 404
_INVALID_ERRNOS: Final = frozenset(
    {errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.E2BIG, errno.EISDIR, errno.ELOOP, errno.EINVAL}
)


class SlotsLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds, and the share of a stop's grace that a model server has to drain before it gets a SIGTERM."""

    control_seconds_max: float = 5.0
    activate_seconds_max: float = 30.0
    drain_share: float = 0.7
    link: LinkLimits = LinkLimits()


def instance_folder(instance: str) -> str:
    """Return the name of an instance (NAMESPACE/WORKLOAD) on the disk: `NAMESPACE.WORKLOAD`. Names may have dots themselves, so a namespace
    with one is joined by `_`, which no name has; names too long for a file system end in a digest."""
    namespace, _, workload = instance.partition("/")
    folder = f"{namespace}{'_' if '.' in namespace else '.'}{workload}"
    if len(folder) > _FOLDER_BYTES_MAX:
        folder = f"{folder[:120]}-{_digest(instance)[:32]}"
    return folder


def api_socket_path(data_folder: str, instance: str) -> str:
    """Return where the local workload API of an instance listens; a short name where the plain one would be too long for the kernel."""
    return _short_enough(os.path.join(os.path.abspath(data_folder), "run", "api"), f"{instance_folder(instance)}.sock")


def control_socket_path(data_folder: str, instance: str, slot: Slot) -> str:
    """Return where the model server of a slot listens for its orders."""
    return _short_enough(os.path.join(os.path.abspath(data_folder), "run", "control"), f"{instance_folder(instance)}.{slot}.sock")


def _short_enough(folder: str, name: str) -> str:
    path = os.path.join(folder, name)
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        return path
    return os.path.join(folder, f"{_digest(name)[:16]}.sock")


def _digest(text: str) -> str:
    import hashlib  # rarely needed, and a tenth of a megabyte

    return hashlib.sha256(text.encode()).hexdigest()


class Slots:
    """What runs on this device. Every method blocks and may be called from any thread. Raises `SupervisorGone` when the supervisor ended:
    the agent should then end too (its parent is dead).

    `on_exit` is called from the link's thread for every process that ended by itself, but only after `observe` was called once, and never
    for an exit that `observe` already told of. Call `acknowledge` once the exit is in the journal; until then the supervisor keeps it."""

    def __init__(
        self,
        data_folder: str,
        *,
        device: str,
        on_exit: Callable[[Exited], None],
        on_gone: Callable[[], None] | None = None,
        limits: SlotsLimits | None = None,
        model_server: tuple[str, ...] = (sys.executable, "-m", "edgewise.serve"),
    ) -> None:
        self._data = os.path.abspath(data_folder)
        self._device = device
        self._limits = limits or SlotsLimits()
        self._on_exit = on_exit
        self._model_server = model_server
        self._lock = threading.Lock()
        self._held: list[ExitSeen] | None = []
        self._seen: dict[tuple[str, str], SlotSeen] = {}
        self._link = SupervisorLink(self._data, self._exited, on_gone, self._limits.link)

    def observe(self) -> tuple[RunningSlot, ...]:
        """Return every slot that runs or whose exit was not acknowledged. From now on exits are told."""
        answer = self._link.ask(ObserveSlots(subscribe=True), SlotsSeen)
        known = {seen.launch_id for seen in answer.slots if seen.exit_code is not None}
        with self._lock:
            self._seen = {(seen.instance, seen.slot): seen for seen in answer.slots}
            held, self._held = self._held or [], None
        for exit_seen in held:
            if exit_seen.launch_id not in known:
                self._tell(exit_seen)
        return tuple(_running_slot(seen) for seen in answer.slots)

    def start(self, instance: str, slot: Slot, launch: Launch) -> Started | Failed:
        """Start an empty slot. `Failed`: `invalid` when the command cannot run here, `transient` when the device lacks something now."""
        tree = os.path.join(self._data, "trees", launch.tree)
        if not os.path.isdir(tree):
            return Failed(kind="transient", reason="TreeMissing", message=f"the installed files {launch.tree} are not there")
        order = self._order(instance, slot, launch, tree)
        if order is None:
            return Failed(kind="invalid", reason="NoCommand", message=f"variant {launch.variant.name} has no command to run")
        control = order.note.get("control", "")
        if control:
            os.makedirs(os.path.dirname(control), mode=0o700, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(control)
        try:
            answer = self._link.ask(order, SlotStarted)
        except SupervisorRefused as refused:
            kind: Final = "invalid" if refused.number in _INVALID_ERRNOS else "transient"
            return Failed(kind=kind, reason=refused.reason, message=str(refused))
        seen = SlotSeen(
            instance=instance,
            slot=slot,
            launch_id=answer.launch_id,
            revision=launch.revision,
            pid=answer.pid,
            address=answer.address,
            note=order.note,
        )
        with self._lock:
            self._seen[instance, slot] = seen
        return Started(launch_id=answer.launch_id, address=answer.address)

    def stop(self, instance: str, slot: Slot, grace_seconds: float) -> Stopped:
        """Drain and terminate a slot, kill it after `grace_seconds`. Returns when no process of it is left, at once when none was."""
        term_after = grace_seconds * self._limits.drain_share if self._drain(instance, slot) else 0.0
        answer = self._link.ask(
            StopSlot(instance=instance, slot=slot, grace=grace_seconds, term_after=term_after), SlotStopped, grace_seconds
        )
        with self._lock:
            self._seen.pop((instance, slot), None)
        return Stopped(code=answer.code)

    def activate(self, instance: str, slot: Slot) -> Finished | Failed:
        """Let a slot take the instance's traffic. A model server is told so; for a process this is only remembered."""
        seen = self._slot(instance, slot)
        if seen is None or seen.exit_code is not None:
            return Failed(kind="transient", reason="NotRunning", message=f"slot {slot} of {instance} does not run")
        control = seen.note.get("control", "")
        if control:
            try:
                status = status_over_unix(control, "POST", "/activate", self._limits.activate_seconds_max)
            except LocalHttpError as error:
                return Failed(kind="transient", reason="NoAnswer", message=f"the model server did not answer: {error}")
            if not _is_well(status):
                return Failed(kind="transient", reason="NotActivated", message=f"the model server answered {status}")
        try:
            self._link.ask(ActivateSlot(instance=instance, slot=slot), Acknowledged)
        except SupervisorRefused as refused:
            return Failed(kind="transient", reason=refused.reason, message=str(refused))
        return Finished()

    def route(self, instance: str, slot: Slot, to: Slot, revision: str, traffic: Traffic) -> Finished | Failed:
        """Tell the model server of a slot what of its traffic the one in `to`, which runs `revision`, is to see from now on. A model
        server of
        a time before there was such a thing passes nothing on, which it may be told, and nothing else."""
        seen = self._slot(instance, slot)
        control = seen.note.get("control", "") if seen is not None and seen.exit_code is None else ""
        if not control:
            return Failed(kind="transient", reason="NotRunning", message=f"no model server runs in slot {slot} of {instance}")
        order = {"mode": traffic.mode, "share": traffic.share, "sticky": traffic.sticky, "revision": revision}
        order["target"] = control_socket_path(self._data, instance, to)
        try:
            status = status_over_unix(control, "PUT", "/traffic", self._limits.control_seconds_max, msgspec.json.encode(order))
        except LocalHttpError as error:
            return Failed(kind="transient", reason="NoAnswer", message=f"the model server did not answer: {error}")
        if status == _UNKNOWN_PLACE and traffic.mode == "none":
            return Finished()
        if not _is_well(status):
            return Failed(kind="transient", reason="NotRouted", message=f"the model server answered {status}")
        return Finished()

    def probe(self, instance: str, slot: Slot, kind: ProbeKind, probe: Probe) -> Probed:
        """Run one HTTP or command probe once, within `probe.timeout_seconds`. A model server is asked at its control socket whatever
        `http_path` says."""
        seen = self._slot(instance, slot)
        if seen is None or seen.exit_code is not None:
            return Probed(ok=False, message="nothing runs in this slot")
        if probe.command is not None:
            return self._probe_command(seen, probe.command, probe.timeout_seconds)
        if probe.heartbeat:
            return Probed(ok=False, message=f"a {kind} probe by heartbeat is not asked, it is waited for")
        control = seen.note.get("control", "")
        try:
            if control:
                status = status_over_unix(control, "GET", "/ready", probe.timeout_seconds)
            elif seen.address:
                status = get_status(seen.address, probe.http_path or "/", probe.timeout_seconds)
            else:
                return Probed(ok=False, message="the instance has no listening socket to ask")
        except LocalHttpError as error:
            return Probed(ok=False, message=str(error))
        return Probed(ok=_is_well(status), message="" if _is_well(status) else f"answered {status}")

    def address_of(self, instance: str) -> str:
        """Return where the instance's service listens (`http://127.0.0.1:PORT`), or an empty text."""
        with self._lock:
            return next((seen.address for (name, _), seen in self._seen.items() if name == instance and seen.address), "")

    def acknowledge(self, launch_id: str) -> None:
        """Let the supervisor forget the exit of `launch_id`, because it is in the journal."""
        self._link.ask(AcknowledgeExit(launch_id=launch_id), Acknowledged)

    def forget(self, instance: str) -> None:
        """Nothing of the instance is wanted any more: its listening socket, port and logs go. Its slots must be stopped. Raises
        `SupervisorRefused` when they are not."""
        self._link.ask(ForgetInstance(instance=instance, folder=instance_folder(instance)), Acknowledged)

    def report_healthy(self) -> None:
        """Tell the supervisor that this agent works."""
        self._link.ask(ReportHealthy(), Acknowledged)

    def set_agent(self, argv: tuple[str, ...], version: str) -> None:
        """Have the supervisor replace this agent by another version, on trial. This agent gets a SIGTERM soon after."""
        self._link.ask(SetAgent(argv=argv, version=version), Acknowledged)

    def stop_workloads(self, grace_seconds: float = 10.0) -> None:
        """Stop every slot, all at the same time. Supervisor and agent go on."""
        stops = [
            threading.Thread(target=self._stop_quietly, args=(seen.instance, seen.slot, grace_seconds), name="stop", daemon=True)
            for seen in self._link.ask(ObserveSlots(), SlotsSeen).slots
        ]
        for stop in stops:
            stop.start()
        for stop in stops:
            stop.join()

    def stop_all(self, grace_seconds: float = 10.0) -> None:
        """End workloads, agent and supervisor (the device was decommissioned)."""
        self._link.ask(StopAll(grace=grace_seconds), Acknowledged)

    def status(self) -> SupervisorStatus:
        """Return how agent and supervisor fare."""
        return self._link.ask(ShowStatus(), SupervisorStatus)

    def close(self) -> None:
        """End the connection; everything runs on."""
        self._link.close()

    def _order(self, instance: str, slot: Slot, launch: Launch, tree: str) -> StartSlot | None:
        cwd = os.path.join(self._data, "instances", instance_folder(instance), slot)
        note = {"driver": launch.driver, "tree": launch.tree}
        signed = launch.variant.command
        listen = launch.driver == "model" or _serves(launch)
        env = _base_environment(cwd)
        match launch.driver:
            case "process":
                if signed is None:
                    return None
                argv = tuple(_filled(part, tree) for part in signed.argv)
                env |= {name: _filled(value, tree) for name, value in signed.environment.items()}
            case "model":
                control = control_socket_path(self._data, instance, slot)
                note["control"] = control
                argv = (*self._model_server, "--model", tree, "--listen-fd", "3", "--control", control)
                argv += ("--instance", instance, "--revision", launch.revision)
                if launch.variant.runtime:
                    argv += ("--runtime", launch.variant.runtime)
                if launch.cpu_milli is not None:
                    argv += ("--threads", str(max(1, min(-(-launch.cpu_milli // 1000), os.cpu_count() or 1, _THREADS_MAX))))
                env["EDGEWISE_CONTROL"] = control
                if SKETCH_VARIABLE in os.environ:
                    env[SKETCH_VARIABLE] = os.environ[SKETCH_VARIABLE]
        env |= {
            "EDGEWISE_API": api_socket_path(self._data, instance),
            "EDGEWISE_INSTANCE": instance,
            "EDGEWISE_DEVICE": self._device,
            "EDGEWISE_REVISION": launch.revision,
            "EDGEWISE_SLOT": slot,
            "EDGEWISE_PARAMETERS": msgspec.json.encode(launch.parameters).decode(),
            "EDGEWISE_BUNDLE": tree,
        }
        if listen:
            env["EDGEWISE_LISTEN_FD"] = "3"
        return StartSlot(
            instance=instance,
            slot=slot,
            folder=instance_folder(instance),
            revision=launch.revision,
            argv=argv,
            env=env,
            cwd=cwd,
            listen=listen,
            memory=launch.memory,
            cpu_milli=launch.cpu_milli,
            note=note,
        )

    def _probe_command(self, seen: SlotSeen, command: Command, seconds: float) -> Probed:
        tree = os.path.join(self._data, "trees", seen.note.get("tree", ""))
        order = ProbeSlot(
            instance=seen.instance,
            slot=seen.slot,
            argv=tuple(_filled(part, tree) for part in command.argv),
            env={name: _filled(value, tree) for name, value in command.environment.items()},
            timeout=seconds,
        )
        try:
            ended = self._link.ask(order, CommandEnded, seconds)
        except SupervisorRefused as refused:
            return Probed(ok=False, message=str(refused))
        if ended.code is None:
            return Probed(ok=False, message=f"the command took longer than {seconds:g} s")
        return Probed(ok=ended.code == 0, message="" if ended.code == 0 else f"exit status {ended.code}: {ended.output[-500:]}".strip())

    def _drain(self, instance: str, slot: Slot) -> bool:
        seen = self._slot(instance, slot)
        control = seen.note.get("control", "") if seen is not None else ""
        if not control:
            return False
        try:
            return _is_well(status_over_unix(control, "POST", "/drain", self._limits.control_seconds_max))
        except LocalHttpError:
            return False

    def _stop_quietly(self, instance: str, slot: Slot, grace_seconds: float) -> None:
        with contextlib.suppress(SupervisorGone, SupervisorRefused):
            self.stop(instance, slot, grace_seconds)

    def _slot(self, instance: str, slot: Slot) -> SlotSeen | None:
        with self._lock:
            return self._seen.get((instance, slot))

    def _exited(self, seen: ExitSeen) -> None:
        with self._lock:
            if self._held is not None:
                self._held.append(seen)
                return
        self._tell(seen)

    def _tell(self, seen: ExitSeen) -> None:
        with self._lock:
            known = self._seen.get((seen.instance, seen.slot))
            if known is not None and known.launch_id == seen.launch_id:
                self._seen[seen.instance, seen.slot] = msgspec.structs.replace(known, exit_code=seen.code)
        self._on_exit(Exited(instance=seen.instance, slot=seen.slot, launch_id=seen.launch_id, code=seen.code))


def _running_slot(seen: SlotSeen) -> RunningSlot:
    return RunningSlot(
        instance=seen.instance,
        slot=seen.slot,
        launch_id=seen.launch_id,
        revision=seen.revision,
        exit_code=seen.exit_code,
        active=seen.active,
        address=seen.address,
        runs_for=seen.runs_for,
    )


def _serves(launch: Launch) -> bool:
    probes = launch.variant.probes
    asked = any(probe is not None and probe.http_path is not None for probe in (probes.start, probes.readiness, probes.liveness))
    command = launch.variant.command
    return asked or (command is not None and SERVICE_VARIABLE in command.environment)


def _base_environment(cwd: str) -> dict[str, str]:
    # Bytecode is not written because the installed files are shared and must stay as they were signed.
    return {
        "HOME": cwd,
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _filled(text: str, tree: str) -> str:
    return text.replace("${python}", sys.executable).replace("${bundle}", tree)


def _is_well(status: int) -> bool:
    return 200 <= status < 400
