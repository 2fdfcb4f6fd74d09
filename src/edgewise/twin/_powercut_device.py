"""A whole device in one thread: the real turns, engine, journal, outbox, uplink, installer and identity over a recording disk.

The world outlives power cuts; a `Device` is what runs between two of them. What a process of its own does for the agent, or the supervisor,
comes a moment later, when reports may have gone out in between.
"""

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Final, assert_never

from edgewise.engine import identity, install, machine, recovery, resident, trees
from edgewise.engine.backoff import Backoff
from edgewise.engine.journal import open_journal
from edgewise.engine.limits import LinkLimits
from edgewise.engine.model import State
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
    Remove,
    Result,
    Route,
    RunProbe,
    Start,
    Started,
    Stop,
)
from edgewise.engine.records import Cleared, Committed, Gone, Record, Refused
from edgewise.engine.turns import TICK_SECONDS_MIN, Turns
from edgewise.engine.uplink import Uplink, Wait
from edgewise.ports.files import FilesError
from edgewise.resources.device import Capacity
from edgewise.twin._powercut_world import DEVICE, PromiseBroken, World, certificates, content, variant
from edgewise.twin.disk import RecordingDisk
from edgewise.wire.desired import Position
from edgewise.wire.report import DeviceReport, Item

_TURNS_MAX: Final = 3_000
_STARTS_MAX: Final = 20
_AGAIN_SECONDS: Final = 1.0
_RENEW_AGAIN_SECONDS: Final = 5.0
_FEED_SECONDS: Final = 0.1
_CONTACT_SECONDS: Final = 0.1
_SECONDS: Final[dict[type[Effect], float]] = {Fetch: 0.4, Start: 0.03, Remove: 0.03, Stop: 0.2, Activate: 0.0, Route: 0.0, RunProbe: 0.0}
"""How long it takes until an effect is carried out."""
_LINKS: Final = LinkLimits()
_MOMENT_SECONDS: Final = 0.001
_NEVER: Final = float("inf")
_WALL: Final = 1e9
_CAPACITY: Final = Capacity(architecture="aarch64", cpu_milli=4000, memory=1 << 30, disk=1 << 30)
KEYS: Final = identity.DeviceKeys(key="-----BEGIN PRIVATE KEY-----", sealing_key=b"k" * 32)
"""The keys that the device makes when it joins."""


_Job = tuple[float, int, Callable[[], None]]


class Device:
    """One run of the agent, from its start to the next power cut, crash, or rest: the shell, the engine and the clock of its turns."""

    def __init__(self, world: World, disk: RecordingDisk) -> None:
        self.world, self.disk = world, disk
        self.queue: deque[Event] = deque()
        self.jobs: list[_Job] = []
        self.numbers = count()
        self.inventory = resident.Inventory()
        self.position = Position(0, 0)
        self.emitted: list[Item] = []
        self.renew_at = self.feed_at = 0.0
        self.report_at = _NEVER
        self.connected: bool | None = None
        self.contact_at = world.time + _CONTACT_SECONDS
        self.opened = self.forgetting = self.ended = False

    def wall(self) -> float:
        """See `Clock.wall`."""
        return _WALL + self.world.time

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self.world.time - self.world.booted

    # ---- starting ----

    def boot(self) -> None:
        """Start, joining when that was not done. Raises `PromiseBroken`, `FilesError`."""
        if not self._identified():
            self.ended = True
            return
        opened = open_journal(self.disk, self.world.limits)
        if opened.damage:
            raise PromiseBroken("damage", f"a power cut was taken for damage: {opened.damage}")
        self.journal = opened.journal
        self.outbox = open_outbox(self.disk, self.world, "session", self.world.limits)
        state = recovery.recover(opened.records, DEVICE, self.world.limits, damage=opened.damage)
        self.turns: Turns[State] = Turns(self, state, self, self, _LINKS)
        self.uplink = Uplink(self.outbox, self, Backoff(self.world, _LINKS.backoff_first_seconds, _LINKS.backoff_seconds_max), _LINKS)
        self.position = resident.position(state)
        self.opened = True
        self._compare(state)
        running = tuple(slot for _, slot in sorted(self.world.running.items()))
        self.queue.append(Observed(slots=running, installed=trees.whole_trees(self.disk), boot_id="boot"))
        self._tell_inventory(state)

    def _identified(self) -> bool:
        """Find out who this is, or join. Returns False for a device that was told to forget it."""
        world = self.world
        try:
            identity.mend(self.disk)
            keys, found = identity.read_keys(self.disk), identity.read_certificates(self.disk)
            whole = identity.read_identity(self.disk)
        except identity.IdentityDamaged as error:
            raise PromiseBroken("identity", str(error)) from error
        if world.told is not None and keys != world.told and not world.decommissioned:
            raise PromiseBroken("identity", "the keys that the control plane was told of are gone")
        if found is None and world.decommissioned:
            world.forgotten = True
            return False
        if found not in (world.certificates, world.certificates_attempted) or (found is None) != (whole is None):
            raise PromiseBroken("identity", "the identity is neither the old one nor the new one")
        world.certificates, world.certificates_attempted = found, None
        if found is None:
            identity.begin_anew(self.disk)
            if keys is None:
                identity.write_keys(self.disk, KEYS)
            world.told = KEYS
            self._certified(lambda one: identity.complete_join(self.disk, one, b"root"))
        return True

    def _certified(self, keep: Callable[[identity.Certificates], None]) -> None:
        self.world.issued = max(self.world.issued, 1)
        self.world.certificates_attempted = certificates(self.world.issued)
        keep(self.world.certificates_attempted)
        self.world.certificates, self.world.certificates_attempted = self.world.certificates_attempted, None

    def _compare(self, state: State) -> None:
        """See that nothing that was committed is forgotten; what a cut hit while it was being written may be there or not."""
        world = self.world
        for name, revision in sorted(world.committed.items()):
            kept = state.durable.instances.get(name)
            found = kept.committed.revision if kept and kept.committed else ""
            if found not in (revision, world.attempted.get(name)):
                raise PromiseBroken("committed", f"{name}: the committed revision {revision} was forgotten, {found or 'none'} is there")
            world.committed[name] = found
        world.attempted.clear()

    # ---- running ----

    def run(self, until: float = 400.0, stop: Callable[[], bool] = lambda: False) -> None:
        """Go on until nothing more happens within `until` seconds of virtual time, or `stop`. Raises `PromiseBroken`."""
        end = self.world.time + until
        for _ in range(_TURNS_MAX):
            if self.ended or stop() or not self._go_on(end):
                return
        raise PromiseBroken("rest", f"the device does not come to rest: it is {self.world.time}, the next wake {self.turns.wake()}")

    def _go_on(self, end: float) -> bool:
        """Do the next thing. Returns False when nothing is left to do before `end`."""
        world = self.world
        if self.queue:
            self.turns.turn(self.queue.popleft())
        elif self.connected and world.document is not None and self.position != world.document.position:
            self.position = world.document.position
            self.queue.append(Desired(document=world.document))
        elif self.forgetting and self.outbox.empty:
            self._forget()
        else:
            return self._sleep(end)
        return True

    def _contact(self) -> None:
        """Notice that the control plane answers, or that it does not any more."""
        self.contact_at = self.world.time
        self.connected = self.world.online
        self.queue.append(ContactChanged(online=self.connected, last_contact=self.monotonic()))
        if self.connected:
            self.uplink.hurry()
            self._wake_uplink()

    def _sleep(self, end: float) -> bool:
        """Wait for what comes next, and do it."""
        world = self.world
        wake = self.turns.wake()
        ahead: tuple[tuple[float, Callable[[], None]], ...] = (
            (_NEVER if wake is None else max(wake + world.booted, world.time + TICK_SECONDS_MIN), partial(self.turns.turn, None)),
            (self.jobs[0][0] if self.jobs else _NEVER, self._work),
            (_NEVER if world.online == self.connected else self.contact_at, self._contact),
            (self.report_at if self.connected and world.online else _NEVER, self._report),
            (self.feed_at if world.feed else _NEVER, self._take_in),
            (self.renew_at if world.online and world.certificates != certificates(world.issued) else _NEVER, self._renew),
        )
        at, call = min(ahead, key=lambda one: one[0])
        if at > end:
            return False
        world.time = round(max(world.time, at), 6)  # sums of the same times in another order are the same time
        call()
        return True

    def _work(self) -> None:
        heapq.heappop(self.jobs)[2]()

    def _take_in(self) -> None:
        """Take one item that a workload gives."""
        (lane, item), *rest = self.world.feed
        self.world.feed = tuple(rest)
        self.feed_at = self.world.time + _FEED_SECONDS
        self.outbox.append(lane, item)
        self.outbox.flush()
        if self.outbox.problem is None and lane != "telemetry":  # that lane is synced lazily
            self.world.promise((item,))
        self._wake_uplink()

    def _renew(self) -> None:
        try:
            self._certified(lambda one: identity.renew(self.disk, one))
        except FilesError:
            self.renew_at = self.world.time + _RENEW_AGAIN_SECONDS

    def _wake_uplink(self) -> None:
        self.report_at = min(self.report_at, self.world.time)

    def _report(self) -> None:
        """Send what may be sent now, one report after another."""
        while True:
            decided = self.uplink.next()
            if isinstance(decided, Wait):
                self.report_at = _NEVER if decided.seconds is None else self.world.time + max(decided.seconds, _MOMENT_SECONDS)
                return
            self.uplink.answered(self.world.receive(decided.report))

    def _tell_inventory(self, state: State) -> None:
        report = DeviceReport(device=DEVICE, capacity=_CAPACITY, agent_version="1", boot_id="boot")
        if self.inventory.news(report, state):
            self.outbox.append("status", report)
            self.outbox.flush()
            self._wake_uplink()

    # ---- the turns (`Engine` and `Shell`) ----

    def handle(self, state: State, event: Event, now: Now) -> tuple[State, list[Effect]]:
        """See `engine.turns.Engine`."""
        return machine.handle(state, event, now)

    def next_wake(self, state: State) -> float | None:
        """See `engine.turns.Engine`."""
        return machine.next_wake(state)

    def persist(self, records: tuple[Record, ...]) -> None:
        """See `engine.turns.Shell`."""
        for record in records:
            if isinstance(record, Committed | Gone):
                self.world.attempted[record.instance] = record.revision if isinstance(record, Committed) else ""
        resident.persist(self.journal, records, self.outbox.make_room, self.turns.state)
        for record in records:
            self._note(record)

    def _note(self, record: Record) -> None:
        world = self.world
        match record:
            case Committed():
                world.committed[record.instance] = record.revision
            case Refused():
                world.refused.add(record.revision)
            case Cleared():
                world.refused.clear()
            case Gone():
                world.committed.pop(record.instance, None)
            case _:
                return

    def adopted(self, state: State) -> None:
        """See `engine.turns.Shell`."""
        if self.inventory.outdated(state):
            self._tell_inventory(state)

    def taken(self, event: Event, state: State) -> None:
        """See `engine.turns.Shell`."""
        self.outbox.flush()
        if self.outbox.problem is None:
            self.world.promise(self.emitted)
        if self.emitted:
            self._wake_uplink()
        self.emitted.clear()
        self.world.acknowledge(resident.exit_known(event))
        if isinstance(event, Observed):
            for launch_id in resident.exits_found(event.slots):
                self.world.acknowledge(launch_id)
        resident.compacted(self.journal, state)

    def crashed(self, event: Event, error: Exception) -> None:  # noqa: ARG002 - the port's signature
        """See `engine.turns.Shell`. A defect of the engine is what is looked for."""
        raise error

    def trouble(self, message: str, error: FilesError | None) -> None:
        """See `engine.turns.Shell`."""

    def relieved(self, message: str) -> None:
        """See `engine.turns.Shell`."""

    # ---- effects ----

    def carry(self, effect: Effect) -> None:
        """See `engine.turns.Shell`."""
        match effect:
            case Persist() | Cancel():
                return
            case Emit():
                self.outbox.append(effect.lane, effect.item)
                self.emitted.append(effect.item)
            case Fetch() | Start() | Stop() | Activate() | Route() | RunProbe() | Remove():
                job: _Job = (self.world.time + _SECONDS[type(effect)], next(self.numbers), partial(self._carry_out, effect))
                heapq.heappush(self.jobs, job)
            case Forget():
                self.forgetting = True
            case _:
                assert_never(effect)

    def _carry_out(self, effect: Fetch | Start | Stop | Activate | Route | RunProbe | Remove) -> None:
        match effect:
            case Fetch():
                result: Result = self._fetch(effect)
            case Start():
                result = self._start(effect)
            case Stop() | Activate() | Route() | RunProbe():
                result = self.world.supervise(effect)
            case Remove():
                result = self._remove(effect)
            case _:
                assert_never(effect)
        self.queue.append(Done(id=effect.id, result=result))
        if isinstance(result, Started) and isinstance(effect, Start):
            code = self.world.running[effect.instance, effect.slot].exit_code
            if code is not None:
                self.queue.append(Exited(instance=effect.instance, slot=effect.slot, launch_id=result.launch_id, code=code))

    def _start(self, effect: Start) -> Started | Failed:
        try:
            return self.world.start(self.disk, effect)
        except FilesError as error:
            raise PromiseBroken("whole", f"{effect.launch.revision}: {error}") from error

    def _fetch(self, effect: Fetch) -> Fetched | Failed:
        if not self.world.online:
            return Failed(kind="transient", reason="Unreachable", message="no network")
        found = variant(effect.revision, bundle=effect.artifact.type == "bundle")
        tree = install.plan(found, self.world.limits).tree
        blobs = {file.digest: content(effect.revision, file.path.rsplit("/", maxsplit=1)[-1]) for file in found.files}

        def source(digest: str, offset: int) -> Iterator[bytes]:
            for at in range(offset, len(blobs[digest]), 50):
                yield blobs[digest][at : at + 50]

        self.queue.append(FetchProgress(id=effect.id, stage="Verify", tree=tree))
        try:
            install.stage(self.disk, found, tree, source, limits=self.world.limits)
        except (FilesError, install.InstallError) as error:
            return install.failed(error)
        return Fetched(tree=tree, variant=found, parameters={})

    def _remove(self, effect: Remove) -> Finished | Failed:
        try:
            trees.remove(self.disk, effect.keep_trees, tuple(name.replace("/", ".") for name in effect.instances))
        except FilesError as error:
            return install.failed(error)
        return Finished()

    def _forget(self) -> None:
        self.outbox.close()
        self.journal.close()
        identity.forget(self.disk)
        self.world.forgotten = self.ended = True

    # ---- checks ----

    def check_counts(self) -> None:
        """See that every item is accounted for, and that none is left where it could go. Raises `PromiseBroken`."""
        if not self.opened:
            return
        dropped = 0
        for name in LANES:
            counts = self.outbox.counts()[name]
            dropped += counts.dropped
            if counts.produced != counts.acknowledged + counts.held + counts.dropped:
                raise PromiseBroken("counts", f"{name}: {counts}")
        self.world.dropped = max(self.world.dropped, dropped)
        if self.world.online and not self.ended and not self.outbox.empty:
            raise PromiseBroken("rest", f"items stay in the outbox: {self.outbox.counts()}")


def started(world: World, disk: RecordingDisk) -> Device:
    """Return a device that has started; an agent that cannot is started again, as the supervisor does. Raises `PromiseBroken`."""
    problem: FilesError | None = None
    for _ in range(_STARTS_MAX):
        device = Device(world, disk)
        try:
            device.boot()
        except FilesError as error:
            problem = error
            world.time += _AGAIN_SECONDS
        else:
            return device
    raise PromiseBroken("failed", f"the agent does not start: {problem}")
