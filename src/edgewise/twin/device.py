"""A simulated device: it outlives starts of its agent, power cuts and hardware, and runs the engine, journal, outbox and link decisions.

`Surroundings` is what all devices of a run share. A `SimDevice` begins without power and without an identity: after `power_on` it boots,
joins with its token, polls, and does as it is told. Read on in `resident.py` for what runs on it.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Final, Literal

import msgspec

from edgewise.engine.identity import (
    IdentityDamaged,
    read_certificates,
)
from edgewise.engine.install import plan
from edgewise.engine.lane_state import LaneCounts
from edgewise.engine.model import State
from edgewise.engine.protocol import Launch
from edgewise.engine.segments import SegmentError
from edgewise.ports.files import Damaged, Files, FilesError, Full, Missing, ReadOnly
from edgewise.resources.artifact import Variant
from edgewise.twin.clocks import DeviceClock
from edgewise.twin.disk import ENDLESS, Crash, PowerCut, RecordingDisk, TwinDisk
from edgewise.twin.energy import Power
from edgewise.twin.enrolling import Joining
from edgewise.twin.fleet import DeviceClass, TwinDevice
from edgewise.twin.kernel import Ticket
from edgewise.twin.link import Link
from edgewise.twin.plain import PlainDisk
from edgewise.twin.resident import Resident
from edgewise.twin.supervised import Supervisor
from edgewise.twin.surroundings import Contents, Surroundings, Watch
from edgewise.twin.workloads import Process
from edgewise.wire.enrolment import JoinAnswer, RenewAnswer
from edgewise.wire.report import Lane

__all__ = ["Contents", "Running", "SimDevice", "Surroundings", "Watch"]

_ENCODER: Final = msgspec.msgpack.Encoder()
_JOINED: Final = msgspec.msgpack.Decoder(JoinAnswer)
_RENEWED: Final = msgspec.msgpack.Decoder(RenewAnswer)
_AGENT_FIRST_SECONDS: Final = 1.0
_AGENT_AGAIN_SECONDS_MAX: Final = 60.0
_AGENT_STEADY_SECONDS: Final = 60.0
_SUPERVISOR_AGAIN_SECONDS: Final = 2.0
_OFF_SECONDS: Final = 2.0
_FETCH_BUSY: Final = 0.3
_JOIN_PAUSE_SECONDS_MAX: Final = 30.0
_FOLDERS: Final = ("journal", "outbox", "trees", "staging", "manifests", "instances", "identity")
_READ_MAX: Final = 1 << 30


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """A process that lives, for those who look on."""

    instance: str
    slot: str
    revision: str
    version: str
    tree: str
    ready: bool
    active: bool


class SimDevice:
    """One device. `name` names it for good; `key`, `agent` (after it joined) and `disk` change with its hardware."""

    __slots__ = (
        "_again",
        "_disk_fault",
        "_joining",
        "_power_ticket",
        "_ready",
        "_wanted",
        "around",
        "boots",
        "capacity",
        "chance",
        "clock",
        "device",
        "disk",
        "gone",
        "hardware",
        "launches",
        "link",
        "modelled",
        "power",
        "powered",
        "resident",
        "sort",
        "supervisor",
        "token",
        "up_since",
    )

    def __init__(self, around: Surroundings, device: TwinDevice, sort: DeviceClass, link: Link, *, token: str, skew: float = 0.0) -> None:
        self.around, self.device, self.sort, self.link, self.token = around, device, sort, link, token
        self.capacity = device.capacity or sort.capacity
        self.chance = around.kernel.stream("device", device.name)
        self.clock = DeviceClock(around.kernel, sort.clock_drift_ppm * self.chance.uniform(-1.0, 1.0), skew)
        self.power = Power(around.kernel, sort)
        self.disk: TwinDisk = around.make_disk(device.name, self.capacity.disk or ENDLESS)
        self.supervisor = Supervisor(self)
        self.resident: Resident | None = None
        self.modelled: dict[str, int] = {}
        self.boots = self.hardware = self.launches = 0
        self.powered = self.gone = self._wanted = False
        self.up_since: float | None = None
        self._again = _AGENT_FIRST_SECONDS
        self._disk_fault: Literal["", "full", "error", "read-only"] = ""
        self._joining: Joining | None = None
        self._power_ticket: Ticket | None = None
        self._ready: tuple[tuple[str, str], ...] = ()

    # ---- who it is ----

    @property
    def name(self) -> str:
        """Its name."""
        return self.device.name

    @property
    def key(self) -> str:
        """The name of its key: other hardware, other key."""
        return f"{self.device.name}-key-{self.hardware}"

    @property
    def boot_id(self) -> str:
        """The name of this boot."""
        return f"{self.device.name}-{self.hardware}-{self.boots}"

    @property
    def agent(self) -> str:
        """The identity that it shows; empty while no agent runs, or before it joined."""
        return self.resident.agent if self.resident is not None else ""

    @property
    def joined(self) -> bool:
        """Whether it has an identity on its disk."""
        try:
            return read_certificates(self.disk, self.around.limits) is not None
        except IdentityDamaged:
            return True
        except FilesError:
            return False

    # ---- power ----

    def power_on(self) -> None:
        """Boot: after the class's `boot_seconds` the supervisor and the agent start."""
        self._wanted = True
        if self.powered or not self.power.enough():
            self._watch_power()
            return
        self.powered = True
        self.boots += 1
        self.clock.boot()
        self.power.draw(0.0)
        self.note("boot", self.boot_id)
        self.around.watch.power(self, on=True)
        self._watch_power()
        self.around.kernel.after(self.sort.boot_seconds / self.power.speed, partial(self._booted, self.boots))

    def power_off(self, crash: str | None = None) -> None:
        """Lose power, for good unless `power_on` comes. `crash` says what becomes of unsynced writes (`FaultRule.crash`); None: a clean
        shutdown."""
        self._wanted = False
        self._off(crash)

    def _off(self, crash: str | None) -> None:
        if not self.powered:
            return
        self.powered = False
        self.note("off", crash or "clean")
        self._stop_agent(clean=crash is None)
        self.supervisor.end()
        self.up_since = None
        self.power.draw(None)
        way = Crash.ALL if crash is None else Crash.named(crash, self.chance)
        self.disk = self.disk.crash(way, self.chance)
        self._apply_fault()
        self.changed()
        self.around.watch.power(self, on=False)

    def reboot(self) -> None:
        """Shut down cleanly and boot again."""
        self._off(None)
        self._wanted = True
        self.around.kernel.after(_OFF_SECONDS, self._on_if_wanted)

    def _on_if_wanted(self) -> None:
        if self._wanted:
            self.power_on()

    def _booted(self, boot: int) -> None:
        if self.powered and self.boots == boot:
            self._start_supervisor()

    def _start_supervisor(self) -> None:
        self.supervisor = Supervisor(self)
        self.up_since = self.around.kernel.now
        self._again = _AGENT_FIRST_SECONDS
        self._start_agent()

    def kill_supervisor(self) -> None:
        """Kill -9 the supervisor: agent and workloads end with it, and all start again."""
        if self.up_since is None:
            return
        self.note("kill", "supervisor")
        self._stop_agent(clean=False)
        self.supervisor.end()
        self.up_since = None
        self.changed()
        self.around.kernel.after(_SUPERVISOR_AGAIN_SECONDS, partial(self._booted, self.boots))

    def kill_agent(self) -> None:
        """Kill -9 the agent: workloads run on, and the supervisor starts it again."""
        if self.resident is None:
            return
        self.note("kill", "agent")
        self._stop_agent(clean=False)
        self._agent_again()

    def _stop_agent(self, *, clean: bool) -> None:
        if self.resident is not None:
            self.resident.end(clean=clean)
            self.resident = None
        self._end_joining()

    def _end_joining(self) -> None:
        if self._joining is not None:
            self._joining.end()
            self._joining = None

    def _agent_again(self) -> None:
        pause, self._again = self._again, min(2.0 * self._again, _AGENT_AGAIN_SECONDS_MAX)
        self.around.kernel.after(pause, partial(self._start_agent_of, self.boots, self.supervisor))

    def _start_agent_of(self, boot: int, supervisor: Supervisor) -> None:
        if self.powered and self.boots == boot and supervisor is self.supervisor and self.up_since is not None:
            self._start_agent()

    def _start_agent(self) -> None:
        if self.resident is None and not self.gone and self._joining is None:
            self.guarded(self._begin)

    def _begin(self) -> None:
        try:
            if self._missing_identity():
                self._joining = Joining(self)
                self._joining.ask()
                return
            resident = Resident(self, self.around.link_limits)
        except (FilesError, SegmentError, IdentityDamaged) as error:
            self._end_joining()
            self.note("agent", f"cannot start: {type(error).__name__}")
            self._agent_again()
            return
        self.resident = resident
        if resident.damage:
            self.note("damage", resident.damage)
        resident.begin()

    def _missing_identity(self) -> bool:
        try:
            return read_certificates(self.disk, self.around.limits) is None
        except IdentityDamaged:
            return False

    def guarded(self, call: Callable[[], None]) -> None:
        """Do something that may find the power gone."""
        try:
            call()
        except PowerCut:
            self._off("any")
            self.around.watch.cut(self)

    # ---- identity ----

    def enrolled(self) -> None:
        """Begin to work with the identity that joining has just brought."""
        self._joining = None
        self._start_agent()

    def left(self) -> None:
        """Forget everything: the device was decommissioned."""
        self.gone = True
        self.resident = None
        self.supervisor.end()
        self.changed()

    def replace_hardware(self, token: str) -> None:
        """Put other hardware in its place, under the same name: empty disk, new key, joining anew with `token`."""
        self._off("dropped")
        self.hardware += 1
        self.token = token
        self.gone = False
        self.disk = self.around.make_disk(self.name, self.capacity.disk or ENDLESS)
        self.modelled = {}
        self._disk_fault = ""
        self.power = Power(self.around.kernel, self.sort)
        self.clock.correct()
        self.note("hardware", self.key)
        self.power_on()

    # ---- other faults ----

    def disk_full(self, *, on: bool) -> None:
        """Let the disk be full."""
        self._set_fault("full" if on else "")

    def disk_error(self, *, on: bool) -> None:
        """Let reads and writes fail with an I/O error."""
        self._set_fault("error" if on else "")

    def read_only(self, *, on: bool) -> None:
        """Let the disk take no writes."""
        self._set_fault("read-only" if on else "")

    def _set_fault(self, fault: Literal["", "full", "error", "read-only"]) -> None:
        self._disk_fault = fault
        self._apply_fault()

    def _apply_fault(self) -> None:
        fault, disk = self._disk_fault, self.disk
        if isinstance(disk, RecordingDisk):
            disk.full, disk.broken, disk.read_only = fault == "full", fault == "error", fault == "read-only"
        elif isinstance(disk, PlainDisk):
            disk.fault = {"": None, "full": Full, "error": Damaged, "read-only": ReadOnly}[fault]

    def sync_failure(self) -> None:
        """Let the next sync of a file fail."""
        if isinstance(self.disk, RecordingDisk):
            self.disk.failing_syncs += 1

    def bit_rot(self) -> None:
        """Let a bit of a file at rest turn, or a file be cut short."""
        if isinstance(self.disk, RecordingDisk):
            rot = self.disk.rot(self.chance)
            self.note("rot", rot.path if rot is not None else "nothing")

    def set_clock(self, seconds: float | None) -> None:
        """Let the wall clock jump by `seconds`; None: to 1970."""
        if seconds is None:
            self.clock.reset()
        else:
            self.clock.shift(seconds)

    def set_battery(self, share: float | None) -> None:
        """Let the battery hold that share, under a dark sky; None: the sun is back."""
        self.power.set_battery(share)
        self._watch_power()

    def heat(self, celsius: float | None) -> None:
        """Make it hotter than usual by so many degrees; None: as usual."""
        self.power.heat(celsius)

    def disturb(self, instance: str, how: Literal["crash", "hang", "leak"]) -> None:
        """Disturb what runs of an instance ("": everything)."""
        self.supervisor.disturb(instance, how)

    def _watch_power(self) -> None:
        """Look again when the battery may have run out, or filled."""
        seconds = self.power.look_again()
        if seconds is None:
            return
        if self._power_ticket is not None:
            self._power_ticket.cancel()
        self._power_ticket = self.around.kernel.after(seconds, self._look_at_power)

    def _look_at_power(self) -> None:
        self._power_ticket = None
        enough = self.power.enough()
        if self.powered and not enough:
            self.note("battery", "empty")
            self._off("any")
        elif self._wanted and not self.powered and enough:
            self.power_on()
            return
        self._watch_power()

    # ---- for what it runs ----

    def process(self, instance: str, slot: str, launch: Launch) -> Process:
        """Make the process of a launch."""
        self.launches += 1
        now = self.around.kernel.now
        version = self.around.version_of(instance, launch.revision)
        behaviour = self.around.behaviours.of(self.name, self.device.device_class, instance, version, launch.variant.name)
        process = Process(instance, slot, f"{self.boots}-{self.launches}", launch, version=version, behaviour=behaviour)
        process.started_at = now
        process.loads_at = now + behaviour.start_seconds / self.power.speed
        return process

    def changed(self) -> None:
        """Take note of a change in what runs: who is ready, and how much power it takes."""
        now = self.around.kernel.now
        if self.powered:
            fetching = self.resident is not None and self.resident.fetching
            busy = sum(each.behaviour.busy for each in self.supervisor.processes if each.well)
            self.power.draw(busy + _FETCH_BUSY * fetching)
        ready = tuple(sorted({(each.instance, each.version) for each in self.supervisor.processes if each.serves(now)}))
        if ready != self._ready:
            before, self._ready = self._ready, ready
            for instance, version in before:
                if (instance, version) not in ready:
                    self.around.watch.ready(self, instance, version, ready=False)
            for instance, version in ready:
                if (instance, version) not in before:
                    self.around.watch.ready(self, instance, version, ready=True)
        if self.resident is not None:
            self.resident.look_again()

    def room(self) -> int:
        """Return how many bytes a modelled install may still take."""
        if self._disk_fault == "full":
            return 0
        return (self.capacity.disk or ENDLESS) - sum(self.modelled.values())

    def keep_modelled(self, trees: tuple[str, ...]) -> None:
        """Forget the room of all but these trees."""
        if self.modelled:
            self.modelled = {name: size for name, size in self.modelled.items() if name in trees or name.startswith("sha256:")}

    def note(self, kind: str, text: str = "") -> None:
        """Add a line about this device to the trace."""
        self.around.kernel.note(kind, self.name, text)

    # ---- what invariants look at ----

    @property
    def up(self) -> bool:
        """Whether it has booted, and its supervisor runs."""
        return self.up_since is not None

    @property
    def state(self) -> State | None:
        """The engine's state; None while no agent runs."""
        return self.resident.state if self.resident is not None else None

    @property
    def energy_watt_hours(self) -> float:
        """What it has drawn so far."""
        return self.power.used

    @property
    def incarnation(self) -> str:
        """The numbering of its outbox."""
        return self.resident.outbox.incarnation if self.resident is not None else ""

    def counts(self) -> dict[Lane, LaneCounts]:
        """Return what became of each lane's items; empty while no agent runs."""
        return self.resident.outbox.counts() if self.resident is not None else {}

    def ready(self) -> dict[str, str]:
        """Return the instances that serve, and their artifact versions."""
        return dict(self._ready)

    def running(self) -> tuple[Running, ...]:
        """Return the processes that live."""
        now = self.around.kernel.now
        return tuple(
            Running(
                instance=each.instance,
                slot=each.slot,
                revision=each.revision,
                version=each.version,
                tree=each.tree,
                ready=each.serves(now),
                active=each.active,
            )
            for each in self.supervisor.processes
        )

    def refused(self) -> dict[str, tuple[str, ...]]:
        """Return the refused revisions by instance."""
        state = self.state
        if state is None:
            return {}
        return {name: tuple(sorted(kept.refused)) for name, kept in sorted(state.durable.instances.items()) if kept.refused}

    def whole(self, variant: Variant) -> bool:
        """Whether a variant is installed, every file as it was signed (by name where installs are modelled)."""
        tree = plan(variant, self.around.limits).tree
        if self.around.profile.install != "real":
            return any(entry.name == tree for entry in self.disk.list("trees"))
        return all(_digest(self.disk, f"trees/{tree}/{file.path}") == file.digest for file in variant.files)


def _digest(disk: Files, path: str) -> str:
    try:
        return f"sha256:{hashlib.sha256(disk.read(path, _READ_MAX)).hexdigest()}"
    except Missing:
        return ""
