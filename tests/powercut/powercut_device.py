"""A whole device in one thread: the real engine, journal, outbox, installer and identity over a simulated disk, with a supervisor and a
control plane that only remember.

The world outlives power cuts; `Device` is what runs between two of them.
"""

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Iterator

import msgspec
from powercut_disk import SimDisk

from edgewise.engine import identity, install
from edgewise.engine.journal import open_journal
from edgewise.engine.limits import EngineLimits
from edgewise.engine.machine import handle, next_wake, recover, snapshot
from edgewise.engine.outbox import LANES, open_outbox
from edgewise.engine.protocol import (
    Activate,
    Cancel,
    ContactChanged,
    Desired,
    Done,
    Effect,
    Emit,
    Event,
    Exited,
    Failed,
    Fetch,
    Fetched,
    FetchProgress,
    Finished,
    Forget,
    Now,
    Observed,
    Persist,
    Probed,
    Remove,
    RunningSlot,
    RunProbe,
    Start,
    Started,
    Stop,
    Stopped,
    StorageFailed,
    StorageRecovered,
    Tick,
)
from edgewise.engine.records import Cleared, Committed, Gone, Refused
from edgewise.ports.files import FilesError, Full, ReadOnly
from edgewise.resources.artifact import Command, File, Variant
from edgewise.wire.desired import ArtifactTarget, DeviceDesired, InstanceDesired, Position
from edgewise.wire.report import DeviceReport, InstanceReport, Report, ReportAnswer

DEVICE = "device"
tried: dict[str, int] = {}
"""How many power cuts each scenario was put through: printed at the end of the run."""
SMALL = EngineLimits(
    journal_compact_bytes=700,
    outbox_segment_bytes=1_500,
    outbox_telemetry_bytes_max=4_000,
    outbox_reserve_numbers=6,
    install_chunk_bytes=40,
    install_sync_bytes=60,
    install_reserve_bytes=10,
)


def content(revision: str, name: str) -> bytes:
    """What a file of a revision holds; `shared` is the same in all."""
    return b"shared" * 12 if name == "shared" else (f"{revision}/{name} " * 9).encode()


def variant(revision: str, *, bundle: bool) -> Variant:
    names = ("lib/shared", "main")
    files = tuple(
        File(path=name, digest=f"sha256:{hashlib.sha256(body).hexdigest()}", size=len(body))
        for name in names
        for body in [content(revision, name.split("/")[-1])]
    )
    return Variant(name="only", files=files, command=Command(argv=("${bundle}/main",)) if bundle else None)


def want(revision: str, name: str = "ns/app", *, bundle: bool = False, **fields: object) -> InstanceDesired:
    target = ArtifactTarget(
        target=f"releases/{revision}", digest=f"sha256:{'0' * 64}", length=1, type="bundle" if bundle else "model", variant="only"
    )
    return InstanceDesired(name=name, uid=f"uid-{name}", epoch=1, revision=revision, artifact=target, **fields)  # type: ignore[arg-type]


def is_bundle(artifact: ArtifactTarget) -> bool:
    return artifact.type == "bundle"


class Broken(AssertionError):
    """The device did what it must never do."""


class World:
    """What is there whether the device has power or not: the control plane, what runs, what was promised, and the time."""

    def __init__(self, limits: EngineLimits = SMALL) -> None:
        self.limits = limits
        self.document: DeviceDesired | None = None
        self.time = 100.0
        self.quiet = 8.0
        self.boots = 0
        self.tokens = 0
        self.launches = 0
        self.online = True
        self.bad: set[str] = set()
        self.running: dict[tuple[str, str], RunningSlot] = {}
        self.kept: dict[tuple[str, str, int], object] = {}
        self.marks: dict[tuple[str, str], int] = {}
        self.statuses: dict[str, InstanceReport] = {}
        self.decommissioned = False
        self.forgotten = False
        self.promised: set[str] = set()
        self.delivered: set[str] = set()
        self.dropped = 0
        self.refused: set[str] = set()
        self.committed: dict[str, str] = {}
        self.attempted: dict[str, str] = {}
        self.identity: identity.Certificates | None = None
        self.starts: list[str] = []

    def copy(self) -> "World":
        """Return another world that goes its own way from here; what the containers hold is immutable."""
        other = World(self.limits)
        other.__dict__.update(
            {name: value.copy() if isinstance(value, dict | set | list) else value for name, value in self.__dict__.items()}
        )
        return other

    # ---- ports ----

    def token(self, size: int) -> bytes:
        self.tokens += 1
        return self.tokens.to_bytes(size, "big")

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2

    # ---- the control plane ----

    def receive(self, report: Report) -> ReportAnswer:
        marks = {}
        for lane, items in report.lanes.items():
            mark = self.marks.get((report.incarnation, lane), 0)
            for number, item in enumerate(items.items, items.first):
                known = self.kept.get((report.incarnation, lane, number))
                if known is not None and known != item:
                    raise Broken(f"number {number} of {lane} was used twice")
                if number <= mark and known is None:
                    raise Broken(f"number {number} of {lane} would be passed over: the mark is {mark}")
                if known is None:
                    self.kept[report.incarnation, lane, number] = item
                    self._effect(item)
            marks[lane] = self.marks[report.incarnation, lane] = max(mark, items.first + len(items.items) - 1)
        return ReportAnswer(marks=marks, time=self.time)

    def _effect(self, item: object) -> None:
        self.promised.discard(_key(item))
        self.delivered.add(_key(item))
        if isinstance(item, InstanceReport):
            self.statuses[item.name] = item
        if isinstance(item, DeviceReport) and item.decommissioned:
            self.decommissioned = True

    # ---- the supervisor ----

    def power_cut(self) -> None:
        self.running.clear()

    def start(self, disk: SimDisk, effect: Start) -> Started | Failed:
        launch = effect.launch
        if (effect.instance, effect.slot) in self.running and self.running[effect.instance, effect.slot].exit_code is None:
            raise Broken(f"{effect.instance} {effect.slot}: started while it runs")
        if launch.revision in self.refused and self.committed.get(effect.instance) != launch.revision:
            raise Broken(f"{launch.revision} is refused and was started")
        whole = variant(launch.revision, bundle=launch.driver == "process")
        for file in whole.files:
            if disk.read(f"trees/{launch.tree}/{file.path}", 1 << 20) != content(launch.revision, file.path.split("/")[-1]):
                raise Broken(f"{launch.revision}: {file.path} is not whole")
        self.launches += 1
        launch_id = f"launch-{self.launches}"
        self.starts.append(launch.revision)
        self.running[effect.instance, effect.slot] = RunningSlot(
            instance=effect.instance, slot=effect.slot, launch_id=launch_id, revision=launch.revision
        )
        return Started(launch_id=launch_id)

    def activate(self, effect: Activate) -> Finished:
        for key, slot in list(self.running.items()):
            if key[0] == effect.instance:
                self.running[key] = msgspec.structs.replace(slot, active=key[1] == effect.slot)
        return Finished()


def _key(item: object) -> str:
    return msgspec.json.encode(item).decode()


class Device:
    """One run of the agent, from its start to the next power cut, crash, or rest."""

    def __init__(self, world: World, disk: SimDisk) -> None:
        self.world, self.disk = world, disk
        world.boots += 1
        self.queue: deque[Event] = deque()
        self.deferred: deque[Event] = deque()
        self.failures = 0
        self.ended = False
        self.fetches: list[Fetch] = []
        self.journal_damage = ""

    def boot(self) -> None:
        found = identity.read_certificates(self.disk)
        if found is not None and self.world.identity not in (None, found):
            raise Broken("the identity is neither the old one nor the new one")
        opened = open_journal(self.disk, self.world.limits)
        if opened.damage:
            raise Broken(f"a power cut was taken for damage: {opened.damage}")
        self.journal = opened.journal
        self.outbox = open_outbox(self.disk, self.world, f"session-{self.world.boots}", self.world.limits)
        self.state = recover(opened.records, DEVICE, self.world.limits, opened.damage)
        for name, revision in list(self.world.committed.items()):
            kept = self.state.durable.instances.get(name)
            found_revision = kept.committed.revision if kept and kept.committed else ""
            if found_revision not in (revision, self.world.attempted.get(name)):
                raise Broken(f"{name}: the committed revision {revision} was forgotten")
            self.world.committed[name] = found_revision
        self.world.attempted.clear()
        self.queue.append(
            Observed(
                slots=tuple(self.world.running.values()), installed=install.installed_trees(self.disk), boot_id=f"boot-{self.world.boots}"
            )
        )
        self.queue.append(ContactChanged(online=self.world.online, last_contact=self.world.time))

    def run(self, until: float = 400.0, stop: Callable[[], bool] = lambda: False) -> None:
        """Go on until nothing more happens within `until` seconds of virtual time, or `stop`."""
        end = self.world.time + until
        for _ in range(3_000):
            if self.ended or stop() or not self._turn(end):
                return
        raise Broken(f"the device does not come to rest: {self.world.time=}, {next_wake(self.state)=}")

    def _turn(self, end: float) -> bool:
        if self.deferred and self.failures and self.world.time >= self.retry_at:
            self.failures, self.queue = 0, deque([*self.deferred, *self.queue])
            self.deferred.clear()
        if self.queue:
            self.offer(self.queue.popleft())
            return True
        document, known = self.world.document, self.state.durable.document
        if self.world.online and document is not None and (known is None or known.position != document.position) and not self.deferred:
            self.offer(Desired(document=document))
            return True
        return self._sleep(end)

    def _sleep(self, end: float) -> bool:
        wake = next_wake(self.state)
        at = min((time for time in (wake, self.retry_at if self.deferred else None) if time is not None), default=None)
        if at is None or at > end:
            return False
        self.world.time = max(self.world.time, at)
        if wake is not None and wake <= self.world.time:
            self.offer(Tick())
        return True

    def offer(self, event: Event) -> None:
        now = Now(wall=1e9 + self.world.time, monotonic=self.world.time)
        state, effects = handle(self.state, event, now)
        records = [record for effect in effects if isinstance(effect, Persist) for record in effect.records]
        if records:
            if effects and not isinstance(effects[0], Persist):
                raise Broken("records come first")
            for record in records:
                if isinstance(record, Committed | Gone):
                    self.world.attempted[record.instance] = record.revision if isinstance(record, Committed) else ""
            try:
                self.journal.append(tuple(records))
            except FilesError as error:
                self.storage_failed(event, error)
                return
            for record in records:
                self.note(record)
        self.state = state
        for effect in effects:
            self.carry(effect)
        if records and self.journal.wants_compaction:
            with contextlib.suppress(FilesError):  # tried again after the next record
                self.journal.compact(snapshot(self.state))
        self.outbox.flush()
        if self.outbox.problem is None:
            self.world.promised.update({_key(effect.item) for effect in effects if isinstance(effect, Emit)} - self.world.delivered)
        self.send()

    def storage_failed(self, event: Event, error: FilesError) -> None:
        self.failures += 1
        self.retry_at = self.world.time + 5.0
        if not isinstance(event, Tick | StorageFailed | StorageRecovered):
            self.deferred.append(event)
        if isinstance(error, Full):
            self.outbox.make_room()
        kind = "full" if isinstance(error, Full) else "read-only" if isinstance(error, ReadOnly) else "damaged"
        self.offer(StorageFailed(kind=kind, message=str(error)))

    retry_at = 0.0

    def note(self, record: object) -> None:
        match record:
            case Committed():
                self.world.committed[record.instance] = record.revision
            case Refused():
                self.world.refused.add(record.revision)
            case Cleared():
                self.world.refused.clear()
            case Gone():
                self.world.committed.pop(record.instance, None)
            case _:
                return

    def send(self) -> None:
        if not self.world.online:
            return
        for _ in range(20):
            if self.outbox.empty:
                return
            report = self.outbox.next_report()
            if not report.lanes:
                return
            self.outbox.acknowledge(self.world.receive(report))

    # ---- effects ----

    def carry(self, effect: Effect) -> None:
        match effect:
            case Persist():
                return
            case Emit():
                self.outbox.append(effect.lane, effect.item)
            case Fetch():
                self.queue.append(FetchProgress(id=effect.id, stage="Verify", tree=""))
                self.queue.append(Done(id=effect.id, result=self.fetch(effect)))
            case Cancel():
                return
            case Start():
                try:
                    started = self.world.start(self.disk, effect)
                except FilesError as error:
                    raise Broken(f"{effect.launch.revision}: {error}") from error
                self.queue.append(Done(id=effect.id, result=started))
                if effect.launch.revision in self.world.bad and effect.launch.driver == "process":
                    self.queue.append(self.crash(effect))
            case Stop():
                self.world.running.pop((effect.instance, effect.slot), None)
                self.queue.append(Done(id=effect.id, result=Stopped(code=0)))
            case Activate():
                self.queue.append(Done(id=effect.id, result=self.world.activate(effect)))
            case RunProbe():
                slot = self.world.running.get((effect.instance, effect.slot))
                ok = slot is not None and slot.revision not in self.world.bad
                self.queue.append(Done(id=effect.id, result=Probed(ok=ok)))
            case Remove():
                self.queue.append(Done(id=effect.id, result=self.remove(effect)))
            case Forget():
                while not self.outbox.empty:
                    self.send()
                identity.remove_identity(self.disk)
                self.world.forgotten = True
                self.ended = True

    def crash(self, effect: Start) -> Exited:
        slot = self.world.running.pop((effect.instance, effect.slot))
        return Exited(instance=effect.instance, slot=effect.slot, launch_id=slot.launch_id, code=3)

    def fetch(self, effect: Fetch) -> Fetched | Failed:
        if not self.world.online:
            return Failed(kind="transient", reason="Unreachable", message="no network")
        found = variant(effect.revision, bundle=is_bundle(effect.artifact))
        tree = install.plan(found, self.world.limits).tree
        blobs = {file.digest: content(effect.revision, file.path.split("/")[-1]) for file in found.files}

        def source(digest: str, offset: int) -> Iterator[bytes]:
            for at in range(offset, len(blobs[digest]), 50):
                yield blobs[digest][at : at + 50]

        try:
            install.stage(self.disk, found, tree, source, limits=self.world.limits)
        except (FilesError, install.InstallError) as error:
            return install.failed(error)
        return Fetched(tree=tree, variant=found, parameters={})

    def remove(self, effect: Remove) -> Finished | Failed:
        try:
            install.remove(self.disk, effect.keep_trees, tuple(name.replace("/", ".") for name in effect.instances))
        except FilesError as error:
            return install.failed(error)
        return Finished()

    # ---- checks ----

    def check_counts(self) -> None:
        for name in LANES:
            counts = self.outbox.counts()[name]
            self.world.dropped += counts.dropped
            if counts.produced != counts.acknowledged + counts.held + counts.dropped:
                raise Broken(f"{name}: {counts}")


def document(n: int, *instances: InstanceDesired, **fields: object) -> DeviceDesired:
    return DeviceDesired(device=DEVICE, uid="uid-device", position=Position(1, n), instances=instances, **fields)  # type: ignore[arg-type]
