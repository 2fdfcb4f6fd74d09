"""What is there whether a device has power or not: a control plane and a supervisor that only remember, what was promised, and the time.

It tells the device that does what it must never do: `PromiseBroken`.
"""

import hashlib
from collections.abc import Iterable
from typing import Final, Literal, assert_never

import msgspec

from edgewise.engine import identity
from edgewise.engine.limits import EngineLimits
from edgewise.engine.protocol import Activate, Failed, Finished, Probed, Route, RunningSlot, RunProbe, Start, Started, Stop, Stopped
from edgewise.ports.files import Files
from edgewise.resources.artifact import Command, File, Variant
from edgewise.resources.instance import InstanceStatus
from edgewise.wire.desired import ArtifactTarget, DeviceDesired, InstanceDesired, Position, Traffic
from edgewise.wire.report import DeviceReport, EventReport, FrameReport, InstanceReport, Item, Lane, Report, ReportAnswer

DEVICE: Final = "device"
_BOOT_SECONDS: Final = 4.0
"""After a power cut the time is the next multiple of this: disks that only differ in when the power went are the same then."""
_CRASH_CODE: Final = 3
SMALL: Final = EngineLimits(
    journal_compact_bytes=700,
    outbox_segment_bytes=1_500,
    outbox_telemetry_bytes_max=4_000,
    outbox_reserve_numbers=6,
    install_chunk_bytes=40,
    install_sync_bytes=60,
    install_reserve_bytes=10,
)
"""Limits small enough that a short story reaches them."""

Check = Literal["whole", "committed", "refused", "promised", "numbers", "counts", "damage", "identity", "rest", "outcome", "failed"]
"""What may turn out broken: `whole` (something runs that is not one whole revision), `committed` and `refused` (what was decided was
forgotten), `promised` (an item was lost that the outbox had taken), `numbers` (a number was used twice or would be passed over), `counts`
(produced is not acknowledged + held + dropped), `damage` (a power cut was taken for damage), `identity` (neither the old one nor the new
one), `rest` (the device does not come to rest), `outcome` (it comes to rest elsewhere), `failed` (it raised an error)."""


class PromiseBroken(Exception):
    """The device did what it must never do. `check` names the promise."""

    def __init__(self, check: Check, message: str) -> None:
        super().__init__(f"{check}: {message}")
        self.check = check


# ---- what is delivered ----


def content(revision: str, name: str) -> bytes:
    """Return what a file of a revision holds; `shared` is the same in all."""
    return b"shared" * 12 if name == "shared" else (f"{revision}/{name} " * 9).encode()


def variant(revision: str, *, bundle: bool) -> Variant:
    """Return the one variant of a revision."""
    files = tuple(
        File(path=name, digest=f"sha256:{hashlib.sha256(body).hexdigest()}", size=len(body))
        for name in ("lib/shared", "main")
        for body in [content(revision, name.rsplit("/", maxsplit=1)[-1])]
    )
    return Variant(name="only", files=files, command=Command(argv=("${bundle}/main",)) if bundle else None)


def want(
    revision: str,
    name: str = "ns/app",
    *,
    bundle: bool = False,
    probation_seconds: float = 0.5,
    deadline_seconds: float = 600.0,
    rejected: tuple[str, ...] = (),
    beside: Traffic | None = None,
) -> InstanceDesired:
    """Return an instance of a revision as the control plane desires it; `beside`: held next to the committed one."""
    kind: Literal["bundle", "model"] = "bundle" if bundle else "model"
    return InstanceDesired(
        name=name,
        uid=f"uid-{name}",
        epoch=1,
        revision=revision,
        artifact=ArtifactTarget(target=f"releases/{revision}", digest=f"sha256:{'0' * 64}", length=1, type=kind, variant="only"),
        probation_seconds=probation_seconds,
        deadline_seconds=deadline_seconds,
        rejected=rejected,
        hold=beside is not None,
        traffic=beside,
    )


def document(n: int, *instances: InstanceDesired, decommission: bool = False) -> DeviceDesired:
    """Return the `n`-th desired state."""
    return DeviceDesired(device=DEVICE, uid="uid-device", position=Position(1, n), instances=instances, decommission=decommission)


def certificates(serial: int) -> identity.Certificates:
    """Return the `serial`-th certificates that the authority gives."""
    body = f"-----BEGIN CERTIFICATE-----\n{serial}\n-----END CERTIFICATE-----\n"
    return identity.Certificates(agent=DEVICE, certificate=body, authority=body)


# ---- the world ----


class World:
    """The control plane, what runs, what was promised, and the time."""

    def __init__(self, limits: EngineLimits = SMALL) -> None:
        self.limits = limits
        self.phase = -1
        self.time = 100.0
        self.booted = 0.0
        self.quiet = 8.0
        self.tokens = 0
        # the control plane
        self.online = True
        self.document: DeviceDesired | None = None
        self.bad: frozenset[str] = frozenset()
        self.kept: dict[tuple[str, Lane, int], bytes] = {}
        self.digest = 0
        self.marks: dict[tuple[str, Lane], int] = {}
        self.statuses: dict[str, InstanceReport] = {}
        self.decommissioned = False
        self.issued = 0
        self.told: identity.DeviceKeys | None = None
        # the device's supervisor and its workloads
        self.running: dict[tuple[str, str], RunningSlot] = {}
        self.launches = 0
        self.feed: tuple[tuple[Lane, EventReport | FrameReport], ...] = ()
        # what the device gave to understand
        self.forgotten = False
        self.promised: set[bytes] = set()
        self.delivered: set[bytes] = set()
        self.dropped = 0
        self.refused: set[str] = set()
        self.committed: dict[str, str] = {}
        self.attempted: dict[str, str] = {}
        self.certificates: identity.Certificates | None = None
        self.certificates_attempted: identity.Certificates | None = None

    def copy(self) -> "World":
        """Return another world that goes its own way from here; what the containers hold is immutable."""
        other = object.__new__(World)
        other.__dict__.update({name: value.copy() if isinstance(value, dict | set) else value for name, value in self.__dict__.items()})
        return other

    def key(self) -> tuple[object, ...]:
        """Return what tells two worlds apart for all that may follow."""
        return (
            self.phase,
            self.time,
            self.booted,
            self.tokens,
            self.online,
            self.document.position.n if self.document else 0,
            self.digest.to_bytes(16, "big"),
            sorted(self.marks.items()),
            self.decommissioned,
            self.issued,
            self.told is None,
            [(*key, slot.revision, slot.active, slot.exit_code) for key, slot in sorted(self.running.items())],
            len(self.feed),
            self.forgotten,
            sorted(self.promised),
            self.dropped,
            sorted(self.refused),
            sorted(self.committed.items()),
            sorted(self.attempted.items()),
            self.certificates,
            self.certificates_attempted,
        )

    def say(self, *instances: InstanceDesired, bad: Iterable[str] = (), decommission: bool = False) -> None:
        """Desire something else from now on. What is `bad` does not work."""
        n = self.document.position.n + 1 if self.document else 1
        self.document, self.bad = document(n, *instances, decommission=decommission), frozenset(bad)

    # ---- randomness ----

    def token(self, size: int) -> bytes:
        """See `Randomness.token`."""
        self.tokens += 1
        return self.tokens.to_bytes(size, "big")

    def uniform(self, low: float, high: float) -> float:
        """See `Randomness.uniform`."""
        return (low + high) / 2

    # ---- the control plane ----

    def receive(self, report: Report) -> ReportAnswer:
        """Keep what is reported. Raises `PromiseBroken`."""
        marks: dict[Lane, int] = {}
        for lane, items in report.lanes.items():
            mark = self.marks.get((report.incarnation, lane), 0)
            for number, item in enumerate(items.items, items.first):
                self._keep((report.incarnation, lane, number), item, mark)
            marks[lane] = self.marks[report.incarnation, lane] = max(mark, items.first + len(items.items) - 1)
        return ReportAnswer(marks=marks, time=self.time)

    def _keep(self, key: tuple[str, Lane, int], item: Item, mark: int) -> None:
        body = key_of(item)
        known = self.kept.get(key)
        if known is not None and known != body:
            raise PromiseBroken("numbers", f"number {key[2]} of {key[1]} was used twice")
        if known is not None:
            return
        if key[2] <= mark and body in self.delivered:
            return  # it came under an earlier incarnation, and only the device's knowledge of that was lost
        if key[2] <= mark:
            raise PromiseBroken("numbers", f"number {key[2]} of {key[1]} would be passed over: the mark is {mark}")
        self.kept[key] = body
        self.digest ^= int.from_bytes(
            hashlib.blake2b(b"%s %s %d " % (key[0].encode(), key[1].encode(), key[2]) + body).digest()[:16], "big"
        )
        self.promised.discard(body)
        self.delivered.add(body)
        if isinstance(item, InstanceReport):
            self.statuses[item.name] = item
        if isinstance(item, DeviceReport) and item.decommissioned:
            self.decommissioned = True

    def promise(self, items: Iterable[Item]) -> None:
        """Note what the outbox took."""
        self.promised.update({key_of(item) for item in items} - self.delivered)

    def check_promises(self) -> None:
        """See that all that was promised arrived, but for what was dropped over budget. Raises `PromiseBroken`."""
        if len(self.promised) > self.dropped:
            raise PromiseBroken("promised", f"{len(self.promised)} never arrived, {self.dropped} were dropped: {sorted(self.promised)}")

    def status(self, name: str = "ns/app") -> InstanceStatus:
        """Return what the control plane knows of an instance."""
        return self.statuses[name].status

    # ---- the supervisor ----

    def power_cut(self) -> None:
        """End all that runs. Some time passes until the device has booted again."""
        self.running.clear()
        self.time = self.booted = (self.time // _BOOT_SECONDS + 1.0) * _BOOT_SECONDS

    def acknowledge(self, launch_id: str) -> None:
        """Forget the exit of a launch."""
        self.running = {key: slot for key, slot in self.running.items() if slot.launch_id != launch_id or slot.exit_code is None}

    def works(self) -> list[RunningSlot]:
        """Return what runs."""
        return [slot for slot in self.running.values() if slot.exit_code is None]

    def start(self, disk: Files, effect: Start) -> Started | Failed:
        """Start a slot, when that may be. Raises `PromiseBroken`, `FilesError`."""
        launch = effect.launch
        there = self.running.get((effect.instance, effect.slot))
        if there is not None and there.exit_code is None:
            raise PromiseBroken("whole", f"{effect.instance} {effect.slot}: started while it runs")
        if launch.revision in self.refused and self.committed.get(effect.instance) != launch.revision:
            raise PromiseBroken("refused", f"{launch.revision} is refused and was started")
        for file in variant(launch.revision, bundle=launch.driver == "process").files:
            expected = content(launch.revision, file.path.rsplit("/", maxsplit=1)[-1])
            if disk.read(f"trees/{launch.tree}/{file.path}", 1 << 20) != expected:
                raise PromiseBroken("whole", f"{launch.revision}: {file.path} is not whole")
        self.launches += 1
        slot = RunningSlot(
            instance=effect.instance,
            slot=effect.slot,
            launch_id=f"launch-{self.launches}",
            revision=launch.revision,
            exit_code=_CRASH_CODE if launch.revision in self.bad and launch.driver == "process" else None,
        )
        self.running[effect.instance, effect.slot] = slot
        return Started(launch_id=slot.launch_id)

    def supervise(self, effect: Stop | Activate | Route | RunProbe) -> Stopped | Finished | Probed | Failed:
        """Stop a slot, let one slot of an instance serve and no other, or ask whether it works."""
        match effect:
            case Stop():
                self.running.pop((effect.instance, effect.slot), None)
                return Stopped(code=0)
            case RunProbe():
                there = self.running.get((effect.instance, effect.slot))
                return Probed(ok=there is not None and there.exit_code is None and there.revision not in self.bad)
            case Route():
                there = self.running.get((effect.instance, effect.slot))
                well = there is not None and there.exit_code is None
                return Finished() if well else Failed(kind="transient", reason="NotRunning", message="nothing runs there")
            case Activate():
                for key, slot in sorted(self.running.items()):
                    if key[0] == effect.instance:
                        self.running[key] = msgspec.structs.replace(slot, active=key[1] == effect.slot)
                return Finished()
            case _:
                assert_never(effect)


def key_of(item: Item) -> bytes:
    """Return what tells two items apart."""
    return msgspec.json.encode(item)
