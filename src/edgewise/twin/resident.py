"""One run of a simulated device's agent, from its start until it is killed: the real engine, journal, outbox and link decisions.

It has one alarm for everything that time brings, so that an idle device costs nothing but its polls and its reports.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, assert_never

from edgewise.engine import machine, recovery, resident
from edgewise.engine.adoption import TAKEN_BACK
from edgewise.engine.identity import IdentityDamaged, forget, read_certificates
from edgewise.engine.install import failed
from edgewise.engine.journal import open_journal
from edgewise.engine.limits import LinkLimits
from edgewise.engine.model import SlotView, State
from edgewise.engine.outbox import open_outbox
from edgewise.engine.probes import probe_of
from edgewise.engine.protocol import (
    Activate,
    Cancel,
    ContactChanged,
    Done,
    Effect,
    Emit,
    Event,
    Fetch,
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
    Stop,
)
from edgewise.engine.records import Committed, Record
from edgewise.engine.records import Refused as RefusedRecord
from edgewise.engine.tables import SlotPhase
from edgewise.engine.trees import remove as remove_trees
from edgewise.engine.trees import whole_trees
from edgewise.engine.turns import TICK_SECONDS_MIN, Turns
from edgewise.ports.files import FilesError
from edgewise.twin.admitting import expiry_in
from edgewise.twin.calls import Calls
from edgewise.twin.fetching import Fetching
from edgewise.twin.kernel import Ticket
from edgewise.twin.probing import Held
from edgewise.twin.workloads import Process
from edgewise.wire.report import DeviceReport, FrameReport, Series
from edgewise.wire.version import CAPABILITIES

if TYPE_CHECKING:
    from edgewise.twin.device import SimDevice

AGENT_VERSION: Final = "twin"
_START_SECONDS: Final = 0.03
_NEVER: Final = float("inf")


class Resident:
    """An agent that runs. Raises `FilesError`, `IdentityDamaged`, `SegmentNewer` when it cannot even start. Its own times are the device's
    monotonic ones."""

    __slots__ = (
        "_calls",
        "_ended",
        "_fetches",
        "_forgetting",
        "_frame_at",
        "_frame_from",
        "_fresh",
        "_held",
        "_inventory",
        "_queue",
        "_ticket",
        "_turns",
        "agent",
        "busy",
        "damage",
        "device",
        "journal",
        "not_after",
        "outbox",
    )

    def __init__(self, device: "SimDevice", limits: LinkLimits) -> None:
        around, clock, chance = device.around, device.clock, device.chance
        self.device = device
        self.look_at_identity()
        opened = open_journal(device.disk, around.limits)
        self.journal, self.damage = opened.journal, opened.damage
        self.outbox = open_outbox(device.disk, chance, f"{device.name}-{chance.token(6).hex()}", around.limits)
        state = recovery.recover(opened.records, device.name, around.limits, damage=opened.damage)
        self._turns: Turns[State] = Turns(self, state, self, clock, limits)
        self._calls = Calls(device, self, state, limits)
        self._queue: list[Event] | None = None
        self._fetches: dict[int, Fetching] | None = None
        self._held: tuple[Held, ...] = ()
        self.busy = self._ended = self._fresh = False
        self._ticket: Ticket | None = None
        self._inventory = resident.Inventory()
        self._frame_from = clock.wall()
        self._frame_at = _NEVER
        if around.profile.report_seconds > 0:
            self._frame_at = clock.monotonic() + chance.uniform(0.0, 1.0) * around.profile.report_seconds
        self._forgetting = -_NEVER

    # ---- life ----

    @property
    def state(self) -> State:
        """The engine's present state."""
        return self._turns.state

    def begin(self) -> None:
        """Look at what runs, say what the device has, and begin to talk."""
        device = self.device
        running = device.supervisor.observe()
        self.give(Observed(slots=running, installed=whole_trees(device.disk), boot_id=device.boot_id))
        for launch_id in resident.exits_found(running):
            device.supervisor.acknowledge(launch_id)
        self._tell_inventory(self.state)
        self.outbox.flush()
        self._calls.wake_uplink()

    def _tell_inventory(self, state: State) -> None:
        device = self.device
        report = DeviceReport(
            device=device.name,
            capacity=device.capacity,
            agent_version=AGENT_VERSION,
            boot_id=device.boot_id,
            capabilities=CAPABILITIES,
        )
        if self._inventory.news(report, state):
            self.outbox.append("status", report)

    def end(self, *, clean: bool = False) -> None:
        """Die; `clean`: having written down that all is in order."""
        if self._ended:
            return
        self._ended = True
        self._calls.end()
        for fetch in (self._fetches or {}).values():
            fetch.stop()
        if self._ticket is not None:
            self._ticket.cancel()
        if clean:
            try:
                self.outbox.flush()
                self.outbox.close()
                self.journal.close()
            except FilesError:
                return

    def look_at_identity(self) -> None:
        """Read whom to show, and until when. A damaged identity must not keep a device from its work: then it runs on, and is trusted by
        nobody."""
        try:
            held = read_certificates(self.device.disk, self.device.around.limits)
        except IdentityDamaged:
            held = None
        self.agent, self.not_after = (held.agent, expiry_in(held.certificate)) if held is not None else ("", 0.0)

    def floor(self) -> float:
        """Return the time to judge signatures by: the later of the clock and what the control plane last said."""
        return max(self.device.clock.wall(), self._calls.learnt)

    def guarded(self, call: Callable[[], None]) -> None:
        """Do something that may find the power gone."""
        self.device.guarded(call)

    # ---- the engine ----

    def give(self, event: Event) -> None:
        """Hand an event to the engine, at once or after the one it is busy with."""
        if self._ended:
            return
        if self._queue is None:
            self._queue = [event]
        else:
            self._queue.append(event)
        if not self.busy:
            self.guarded(self._pump)

    def _pump(self) -> None:
        self.busy = True
        try:
            while self._queue and not self._ended:
                self._turns.turn(self._queue.pop(0))
            self._queue = None
        finally:
            self.busy = False
        self.alarm()

    def handle(self, state: State, event: Event, now: Now) -> tuple[State, list[Effect]]:
        """See `engine.turns.Engine`."""
        after, effects = machine.handle(state, event, now)
        self.device.around.watch.stepped(self.device, event, state, after, effects)
        return after, effects

    def next_wake(self, state: State) -> float | None:
        """See `engine.turns.Engine`."""
        device = self.device
        if not device.around.skip_probes:
            return machine.next_wake(state)
        left_out, times = [], []
        for slot in (slot for live in state.live.values() for slot in live.slots.values()):
            if slot.phase is SlotPhase.UP and slot.ready:
                process = device.supervisor.launched(slot.launch_id)
                if process is not None and (process.turned_at or process.steady(device.around.kernel.now)):
                    left_out.append(slot.launch_id)
                    times += self._probes_of(slot, process)
        wake = machine.next_wake(state, left_out)
        return min(times if wake is None else (wake, *times), default=None)

    def _probes_of(self, slot: SlotView, process: Process) -> list[float]:
        """Return when the probes of a process that turned bad are due, as if none before had been left out."""
        if not process.turned_at:
            return []
        clock, device = self.device.clock, self.device
        turned, times = clock.monotonic() - (device.around.kernel.now - process.turned_at), []
        for kind, view in slot.probes.items():
            probe = probe_of(slot, kind, device.around.limits)
            if probe is not None and not view.job:
                times.append(view.due + max(0, math.ceil((turned - view.due) / probe.period_seconds)) * probe.period_seconds)
        return times

    def persist(self, records: tuple[Record, ...]) -> None:
        """See `engine.turns.Shell`."""
        resident.persist(self.journal, records, self.outbox.make_room, self.state)
        for record in records:
            if isinstance(record, Committed):
                self.device.note("commit", f"{record.instance} {record.revision}")
                self.device.around.watch.committed(self.device, record.instance, record.revision)
            elif isinstance(record, RefusedRecord):
                self.device.note("refuse", f"{record.instance} {record.revision} {record.refusal.reason}")
                self.device.around.watch.refused(self.device, record.instance, record.revision)
                if record.refusal.reason != TAKEN_BACK:
                    self.device.around.watch.failed(self.device, record.instance, record.revision)

    def adopted(self, state: State) -> None:
        """See `engine.turns.Shell`."""
        if self._inventory.outdated(state):
            self._tell_inventory(state)
            self._fresh = True

    def taken(self, event: Event, state: State) -> None:
        """See `engine.turns.Shell`."""
        if self._fresh:
            self._fresh = False
            self.outbox.flush()
            self._calls.wake_uplink()
        known = resident.exit_known(event)
        if known:
            self.device.supervisor.acknowledge(known)
        resident.compacted(self.journal, state)

    def crashed(self, event: Event, error: Exception) -> None:
        """See `engine.turns.Shell`. In the twin a defect of the engine ends the run."""
        self.device.around.watch.crashed(self.device, event, error)

    def trouble(self, message: str, error: FilesError | None) -> None:
        """See `engine.turns.Shell`."""
        self.device.note("disk", f"{message}: {type(error).__name__}")

    def relieved(self, message: str) -> None:
        """See `engine.turns.Shell`."""
        self.device.note("disk", message)

    # ---- effects ----

    def carry(self, effect: Effect) -> None:
        """See `engine.turns.Shell`."""
        match effect:
            case Emit():
                self.outbox.append(effect.lane, effect.item)
                self._fresh = True
            case Fetch() | Cancel() | Remove():
                self._carry_installation(effect)
            case Start() | Stop() | Activate() | Route() | RunProbe():
                self._carry_slot(effect)
            case Forget():
                self._forgetting = self.device.clock.monotonic()
            case Persist():
                return
            case _:
                assert_never(effect)

    def _carry_installation(self, effect: Fetch | Cancel | Remove) -> None:
        match effect:
            case Fetch():
                self.device.around.versions[effect.instance, effect.revision] = _version(effect.artifact.target)
                self._later(0.0, partial(self._fetch, effect))
            case Cancel():
                found = (self._fetches or {}).get(effect.id)
                if found is not None:
                    found.cancel()
            case Remove():
                self._later(0.0, partial(self._remove, effect))
            case _:
                assert_never(effect)

    def _carry_slot(self, effect: Start | Stop | Activate | Route | RunProbe) -> None:
        device = self.device
        match effect:
            case Start():
                self._later(_START_SECONDS / device.power.speed, partial(self._start, effect))
            case Stop():
                device.supervisor.stop(effect.instance, effect.slot, effect.grace_seconds, partial(self._done, effect.id))
            case Activate():
                self._done(effect.id, device.supervisor.activate(effect.instance, effect.slot))
            case Route():
                self._done(effect.id, device.supervisor.route(effect))
            case RunProbe():
                if not device.around.skip_probes or not self._hold(effect):
                    self._probe(effect)
            case _:
                assert_never(effect)

    def _probe(self, effect: RunProbe) -> None:
        probed, seconds = self.device.supervisor.probe(effect.instance, effect.slot, effect.probe)
        if seconds:
            self._later(seconds, partial(self._done, effect.id, probed))
        else:
            self._done(effect.id, probed)

    def _hold(self, effect: RunProbe) -> bool:
        """Leave the answer to a probe open whose next answers are known, instead of giving each. Returns False when they are not."""
        now, live = self.device.around.kernel.now, self.state.live.get(effect.instance)
        process = self.device.supervisor.find(effect.instance, effect.slot)
        if live is None or process is None:
            return False
        held = Held(effect, process, now)
        if held.passes(now, waited_for=not live.slots[effect.slot].ready):
            self._held = (*(each for each in self._held if each.process.alive), held)
            return True
        if held.fails(now):
            seconds = held.loaded_after(now, live.slots[effect.slot], self.device.around.limits)
            self._later(seconds, partial(self._probe, effect))
            return True
        return False

    def _answer_held(self) -> None:
        """Answer the probes of processes that turned bad, when each would have been asked next."""
        now = self.device.around.kernel.now
        for held in self._held:
            if held.process.turned_at:
                self._later(held.next_after(now), partial(self._probe, held.effect))
        self._held = tuple(held for held in self._held if not held.process.turned_at)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        self.device.around.kernel.after(seconds, partial(self._if_alive, call))

    def _if_alive(self, call: Callable[[], None]) -> None:
        if not self._ended:
            self.guarded(call)

    def _done(self, effect: int, result: Result) -> None:
        self.give(Done(id=effect, result=result))

    def _start(self, effect: Start) -> None:
        self._done(effect.id, self.device.supervisor.start(effect.instance, effect.slot, effect.launch))

    def _fetch(self, effect: Fetch) -> None:
        fetching = Fetching(self, effect)
        self._fetches = {**(self._fetches or {}), effect.id: fetching}
        self.device.changed()
        fetching.begin()

    def fetched(self, effect: int) -> None:
        """Forget a fetch that ended."""
        left = {number: each for number, each in (self._fetches or {}).items() if number != effect}
        self._fetches = left or None
        self.device.changed()

    @property
    def fetching(self) -> bool:
        """Whether a fetch is under way."""
        return self._fetches is not None

    def _remove(self, effect: Remove) -> None:
        device = self.device
        try:
            remove_trees(device.disk, effect.keep_trees, tuple(name.replace("/", ".") for name in effect.instances))
        except FilesError as error:
            self._done(effect.id, failed(error))
            return
        device.keep_modelled(effect.keep_trees)
        self._done(effect.id, Finished())

    # ---- time ----

    def alarm(self) -> None:
        """Be woken when the next thing is due. An alarm that is earlier than needed stays: it costs less than a new one."""
        if self._ended:
            return
        clock = self.device.clock
        now = clock.monotonic()
        at = min(self._calls.due(now), self._frame_at)
        wake = self._turns.wake()
        if wake is not None and wake < at:
            at = min(at, max(wake, now + TICK_SECONDS_MIN))
        if self._forgetting > 0:
            at = min(at, now + resident.FORGET_POLL_SECONDS)
        if at == _NEVER:
            return
        when = clock.when(at)
        if self._ticket is not None:
            if self._ticket.call is not None and self._ticket.at <= when:
                return
            self._ticket.cancel()
        self._ticket = self.device.around.kernel.at(when, self._rang)

    def _rang(self) -> None:
        self.guarded(self._look)

    def _look(self) -> None:
        clock = self.device.clock
        now = clock.monotonic()
        self._calls.listen(now)
        wake = self._turns.wake()
        if wake is not None and wake <= now:
            self.busy = True
            try:
                self._turns.turn(None)
            finally:
                self.busy = False
            if self._queue:
                self._pump()
        if self._ended:
            return
        if self._frame_at <= now:
            self.busy = True  # the alarm is set once, below
            try:
                self._frame(now)
            finally:
                self.busy = False
            if self._queue:
                self._pump()
        self._calls.look(now)
        limits = self.device.around.link_limits
        if self._forgetting > 0 and resident.may_forget(self._forgetting, now, limits, told=self.outbox.empty):
            self._forget()
            return
        self.alarm()

    def look_again(self) -> None:
        """Take note that something happened to a process."""
        if self._held:
            self._answer_held()
        self._turns.look_again()
        if not self.busy:
            self.alarm()

    def tell(self, changed: ContactChanged | None) -> None:
        """Hand what the links saw to the engine."""
        if changed is not None:
            self.give(changed)

    # ---- metrics ----

    def _frame(self, now: float) -> None:
        device = self.device
        self._frame_at = now + device.around.profile.report_seconds
        series: list[Series] = []
        for process in device.supervisor.processes:
            series += process.measured(device.around.kernel.now, device.chance, device.supervisor.seen_by(process))
        wall = device.clock.wall()
        start, self._frame_from = self._frame_from, wall
        if series:
            frame = FrameReport(
                device=device.name, boot_id=device.boot_id, start=min(start, wall), end=wall, monotonic=now, series=tuple(series)
            )
            self.outbox.append("telemetry", frame)
            self.outbox.flush()
            self._calls.wake_uplink()

    # ---- the end ----

    def _forget(self) -> None:
        device = self.device
        device.note("forget")
        self.end(clean=True)
        try:
            forget(device.disk)
        except FilesError:
            device.note("disk", "not everything could be removed")
        device.left()


def _version(target: str) -> str:
    """Return the version that a target (`releases/NAMESPACE/ARTIFACT/VERSION.json`) is of."""
    return target.rpartition("/")[2].removesuffix(".json")
