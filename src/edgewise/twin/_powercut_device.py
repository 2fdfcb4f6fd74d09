"""A whole device in one thread: the real engine, journal, outbox, installer and identity over a recording disk.

The world outlives power cuts; a `Device` is what runs between two of them.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, assert_never

from edgewise.engine import identity, install
from edgewise.engine.journal import open_journal
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
    Remove,
    RunProbe,
    Start,
    Started,
    Stop,
    StorageFailed,
    StorageRecovered,
    Tick,
)
from edgewise.engine.records import Cleared, Committed, Gone, Record, Refused
from edgewise.engine.turns import storage_kind
from edgewise.ports.files import FilesError, Full
from edgewise.twin._powercut_world import DEVICE, PromiseBroken, World, certificates, content, variant
from edgewise.twin.disk import RecordingDisk

_TURNS_MAX: Final = 3_000
_REPORTS_MAX: Final = 20
_RETRY_SECONDS: Final = 5.0
_WALL: Final = 1e9
KEYS: Final = identity.DeviceKeys(key="-----BEGIN PRIVATE KEY-----", sealing_key=b"k" * 32)
"""The keys that the device makes when it joins."""


class Device:
    """One run of the agent, from its start to the next power cut, crash, or rest."""

    def __init__(self, world: World, disk: RecordingDisk) -> None:
        self.world, self.disk = world, disk
        self.queue: deque[Event] = deque()
        self.deferred: deque[Event] = deque()
        self.failures = 0
        self.retry_at = self.renew_at = 0.0
        self.connected = world.online
        self.opened = self.ended = False

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
        self.opened = True
        self.state = recover(opened.records, DEVICE, self.world.limits, opened.damage)
        self._compare()
        running = tuple(slot for _, slot in sorted(self.world.running.items()))
        self.queue.append(Observed(slots=running, installed=install.installed_trees(self.disk), boot_id="boot"))
        self.queue.append(ContactChanged(online=self.world.online, last_contact=self.world.time))

    def _identified(self) -> bool:
        """Find out who this is, or join. Returns False for a device that was told to forget it."""
        world = self.world
        try:
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

    def _compare(self) -> None:
        """See that nothing that was committed is forgotten; what a cut hit while it was being written may be there or not."""
        world = self.world
        for name, revision in sorted(world.committed.items()):
            kept = self.state.durable.instances.get(name)
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
            if self.ended or stop() or not self._turn(end):
                return
        raise PromiseBroken("rest", f"the device does not come to rest: it is {self.world.time}, the next wake {next_wake(self.state)}")

    def _turn(self, end: float) -> bool:
        world = self.world
        if self.deferred and self.failures and world.time >= self.retry_at:
            self.failures, self.queue = 0, deque([*self.deferred, *self.queue])
            self.deferred.clear()
        if self.queue:
            self.offer(self.queue.popleft())
            return True
        if world.online != self.connected:
            self.connected = world.online
            self.offer(ContactChanged(online=world.online, last_contact=world.time))
            return True
        known = self.state.durable.document
        if (
            world.online
            and world.document is not None
            and (known is None or known.position != world.document.position)
            and not self.deferred
        ):
            self.offer(Desired(document=world.document))
            return True
        if world.feed:
            self._take_in()
            return True
        if world.online and world.certificates != certificates(world.issued) and world.time >= self.renew_at:
            self._renew()
            return True
        return self._sleep(end) or self._send_again()

    def _take_in(self) -> None:
        """Take one item that a workload gives."""
        (lane, item), *rest = self.world.feed
        self.world.feed = tuple(rest)
        self.outbox.append(lane, item)
        self.outbox.flush()
        if self.outbox.problem is None and lane != "telemetry":  # that lane is synced lazily
            self.world.promise((item,))
        self.send()

    def _renew(self) -> None:
        try:
            self._certified(lambda one: identity.renew(self.disk, one))
        except FilesError:
            self.renew_at = self.world.time + _RETRY_SECONDS

    def _sleep(self, end: float) -> bool:
        wake = next_wake(self.state)
        retry = self.retry_at if self.deferred else None
        renew = self.renew_at if self.renew_at > self.world.time else None
        at = min((time for time in (wake, retry, renew) if time is not None), default=None)
        if at is None or at > end:
            return False
        self.world.time = max(self.world.time, at)
        if wake is not None and wake <= self.world.time:
            self.offer(Tick())
        return True

    def offer(self, event: Event) -> None:
        """Let the engine take one step, and carry out what it decides."""
        now = Now(wall=_WALL + self.world.time, monotonic=self.world.time)
        state, effects = handle(self.state, event, now)
        records = [record for effect in effects if isinstance(effect, Persist) for record in effect.records]
        if records:
            if not isinstance(effects[0], Persist):
                raise PromiseBroken("committed", "records come first")
            for record in records:
                if isinstance(record, Committed | Gone):
                    self.world.attempted[record.instance] = record.revision if isinstance(record, Committed) else ""
            try:
                self.journal.append(tuple(records))
            except FilesError as error:
                self._storage_failed(event, error)
                return
            for record in records:
                self._note(record)
        self.state = state
        for effect in effects:
            self._carry(effect)
        if records and self.journal.wants_compaction:
            with contextlib.suppress(FilesError):  # tried again after the next record
                self.journal.compact(snapshot(self.state))
        self.outbox.flush()
        if self.outbox.problem is None:
            self.world.promise(effect.item for effect in effects if isinstance(effect, Emit))
        self.send()

    def _storage_failed(self, event: Event, error: FilesError) -> None:
        self.failures += 1
        self.retry_at = self.world.time + _RETRY_SECONDS
        if not isinstance(event, Tick | StorageFailed | StorageRecovered):
            self.deferred.append(event)
        if isinstance(error, Full):
            self.outbox.make_room()
        self.offer(StorageFailed(kind=storage_kind(error), message=str(error)))

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

    def send(self) -> None:
        """Report all there is, while there is a connection."""
        if not self.world.online:
            return
        for _ in range(_REPORTS_MAX):
            if self.outbox.empty:
                return
            report = self.outbox.next_report()
            if not report.lanes:
                return
            self.outbox.acknowledge(self.world.receive(report))

    def _send_again(self) -> bool:
        """Report at rest what an error of the disk left. Returns whether that helped."""
        if not self.world.online or self.outbox.empty:
            return False
        self.outbox.flush()
        self.send()
        return self.outbox.empty

    # ---- effects ----

    def _carry(self, effect: Effect) -> None:
        match effect:
            case Persist() | Cancel():
                return
            case Emit():
                self.outbox.append(effect.lane, effect.item)
            case Fetch():
                self.queue.append(FetchProgress(id=effect.id, stage="Verify", tree=""))
                self.queue.append(Done(id=effect.id, result=self._fetch(effect)))
            case Start():
                self.queue.append(Done(id=effect.id, result=self._start(effect)))
                if effect.launch.revision in self.world.bad and effect.launch.driver == "process":
                    self.queue.append(self._crash(effect))
            case Stop() | Activate() | RunProbe():
                self.queue.append(Done(id=effect.id, result=self.world.supervise(effect)))
            case Remove():
                self.queue.append(Done(id=effect.id, result=self._remove(effect)))
            case Forget():
                self._forget()
            case _:
                assert_never(effect)

    def _start(self, effect: Start) -> Started | Failed:
        try:
            return self.world.start(self.disk, effect)
        except FilesError as error:
            raise PromiseBroken("whole", f"{effect.launch.revision}: {error}") from error

    def _crash(self, effect: Start) -> Exited:
        slot = self.world.running.pop((effect.instance, effect.slot))
        return Exited(instance=effect.instance, slot=effect.slot, launch_id=slot.launch_id, code=3)

    def _fetch(self, effect: Fetch) -> Fetched | Failed:
        if not self.world.online:
            return Failed(kind="transient", reason="Unreachable", message="no network")
        found = variant(effect.revision, bundle=effect.artifact.type == "bundle")
        tree = install.plan(found, self.world.limits).tree
        blobs = {file.digest: content(effect.revision, file.path.rsplit("/", maxsplit=1)[-1]) for file in found.files}

        def source(digest: str, offset: int) -> Iterator[bytes]:
            for at in range(offset, len(blobs[digest]), 50):
                yield blobs[digest][at : at + 50]

        try:
            install.stage(self.disk, found, tree, source, limits=self.world.limits)
        except (FilesError, install.InstallError) as error:
            return install.failed(error)
        return Fetched(tree=tree, variant=found, parameters={})

    def _remove(self, effect: Remove) -> Finished | Failed:
        try:
            install.remove(self.disk, effect.keep_trees, tuple(name.replace("/", ".") for name in effect.instances))
        except FilesError as error:
            return install.failed(error)
        return Finished()

    def _forget(self) -> None:
        while not self.outbox.empty:
            self.send()
        identity.remove_identity(self.disk)
        self.world.forgotten = self.ended = True

    # ---- checks ----

    def check_counts(self) -> None:
        """See that every item is accounted for. Raises `PromiseBroken`."""
        if not self.opened:
            return
        dropped = 0
        for name in LANES:
            counts = self.outbox.counts()[name]
            dropped += counts.dropped
            if counts.produced != counts.acknowledged + counts.held + counts.dropped:
                raise PromiseBroken("counts", f"{name}: {counts}")
        self.world.dropped = max(self.world.dropped, dropped)
