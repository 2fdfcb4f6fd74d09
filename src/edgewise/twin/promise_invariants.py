"""Invariants of what a device does by itself: after a power cut, without a network, during an update, with its disk."""

from typing import TYPE_CHECKING, Final

import msgspec

from edgewise.engine.model import SlotView, State, refused
from edgewise.engine.protocol import Activate, Done, Failed, Observed, Route, Stop
from edgewise.engine.records import Kept
from edgewise.engine.tables import SlotPhase
from edgewise.ports.files import FilesError
from edgewise.resources.instance import InstanceSpec
from edgewise.resources.states import UpdateState
from edgewise.store.contract import Change
from edgewise.twin.device_invariants import hit_by, want_of, well
from edgewise.twin.observers import EngineStep, Observer
from edgewise.wire.report import Lane

if TYPE_CHECKING:
    from edgewise.twin.device import SimDevice
    from edgewise.twin.resident import Resident
    from edgewise.twin.world import World

_SPEC: Final = msgspec.msgpack.Decoder(InstanceSpec)
_URGENT: Final[tuple[Lane, ...]] = ("alerts", "status", "events")
_LOOK_SECONDS: Final = 15.0
_START_SECONDS: Final = 60.0
_TREE_SECONDS: Final = 300.0


class OfflineStart(Observer):
    """offline-start. A minute is the bound: the agent has run for so long without a break, and nothing of the instance was ever started
    since the boot. What waits for a person (broken, refused, exclusive) is left out."""

    every = _LOOK_SECONDS

    def __init__(self) -> None:
        self._out: frozenset[str] = frozenset()
        self._since: dict[str, tuple[Resident, float]] = {}
        self._started: dict[str, tuple[float, set[str]]] = {}

    def began(self, world: "World") -> None:
        """See `Observer`."""
        self._out = hit_by(world, "bit-rot", "disk-error")

    def started(self, world: "World", device: "SimDevice", instance: str, revision: str) -> None:
        """See `Observer`."""
        del world, revision
        up_since, names = self._started.get(device.name, (-1.0, set()))
        if device.up_since is not None and up_since != device.up_since:
            up_since, names = self._started[device.name] = device.up_since, set()
        names.add(instance)

    def ticked(self, world: "World") -> None:
        """See `Observer`."""
        now = world.kernel.now
        for name, device in world.devices.items():
            resident = device.resident
            if resident is None or name in self._out:
                continue
            known = self._since.get(name)
            if known is None or known[0] is not resident:
                self._since[name] = resident, now
            elif now - known[1] >= _START_SECONDS:
                self._look(world, device, resident.state)

    def _look(self, world: "World", device: "SimDevice", state: State) -> None:
        up_since, names = self._started.get(device.name, (-1.0, set()))
        there = names if up_since == device.up_since else set()
        if state.observed_at is None or state.left or state.damage:
            return
        for instance, kept in sorted(state.durable.instances.items()):
            if instance not in there and _should_run(state, instance, kept):
                why = "reachable" if state.online else "offline"
                world.violated("offline-start", device.name, f"{instance} is committed and was not started in {_START_SECONDS:g} s ({why})")


def _should_run(state: State, instance: str, kept: Kept) -> bool:
    if kept.committed is None or kept.broken == kept.committed.revision:
        return False
    if state.durable.document is None:
        return True
    want = want_of(state, instance)
    return want is not None and not want.exclusive and not refused(kept, want, kept.committed.revision)


class HotSwap(Observer):
    """hot-swap. Looks at every stop of a model that takes the traffic and does it well."""

    def __init__(self) -> None:
        self._rotten: frozenset[str] = frozenset()

    def began(self, world: "World") -> None:
        """See `Observer`."""
        self._rotten = hit_by(world, "bit-rot")

    def stepped(self, world: "World", device: "SimDevice", step: EngineStep) -> None:
        """See `Observer`."""
        if device.name in self._rotten:
            return
        for effect in step.effects:
            if isinstance(effect, Stop) and _interrupts(step, effect):
                world.violated("hot-swap", device.name, f"{effect.instance} was stopped before anything had taken over its traffic")


def _interrupts(step: EngineStep, stop: Stop) -> bool:
    before, after = step.before.live.get(stop.instance), step.after.live.get(stop.instance)
    kept, want = step.after.durable.instances.get(stop.instance), want_of(step.after, stop.instance)
    if before is None or after is None or kept is None or kept.committed is None or want is None or want.exclusive:
        return False
    slot = before.slots[stop.slot]
    if not _takes_traffic(slot) or before.uid != want.uid or not well(slot):
        return False
    runs_on = kept.committed.tree in step.after.installed
    return runs_on and not any(name != stop.slot and _takes_traffic(other) for name, other in after.slots.items())


def _takes_traffic(slot: SlotView) -> bool:
    model = slot.release is not None and slot.release.type == "model"
    return model and slot.phase is SlotPhase.UP and slot.active and slot.ready and not slot.fatal


class ShadowAnswersNobody(Observer):
    """shadow-never-serves. Looks at what is told to slots and model servers while a candidate is held beside what serves."""

    def __init__(self) -> None:
        self._rotten: frozenset[str] = frozenset()

    def began(self, world: "World") -> None:
        """See `Observer`."""
        self._rotten = hit_by(world, "bit-rot")

    def stepped(self, world: "World", device: "SimDevice", step: EngineStep) -> None:
        """See `Observer`."""
        if device.name in self._rotten:
            return
        for effect in step.effects:
            if isinstance(effect, Activate | Route) and _answers(step, effect):
                world.violated(
                    "shadow-never-serves", device.name, f"{effect.instance}: a candidate that is only to be compared answers requests"
                )


def _answers(step: EngineStep, effect: Activate | Route) -> bool:
    live, kept = step.after.live.get(effect.instance), step.after.durable.instances.get(effect.instance)
    want = want_of(step.after, effect.instance)
    if live is None or kept is None or kept.committed is None or kept.candidate is None or want is None or not want.hold:
        return False
    if want.traffic is None or want.traffic.mode == "split" or kept.committed.revision in {kept.candidate.revision, kept.broken}:
        return False
    if not kept.candidate.type == kept.committed.type == "model" or kept.committed.tree not in step.after.installed:
        return False
    if isinstance(effect, Route):
        return effect.traffic.mode == "split"
    return live.update.state is UpdateState.PROBATION and live.slots[effect.slot].revision == kept.candidate.revision


class OnlyGiven(Observer):
    """only-given. Remembers every revision that the control plane ever wrote for a device, restored backups or not."""

    def __init__(self) -> None:
        self._given: dict[tuple[str, str], set[str]] = {}

    def wrote(self, world: "World", changes: tuple[Change, ...]) -> None:
        """See `Observer`."""
        del world
        for change in changes:
            if change.key.kind == "Instance" and change.document is not None:
                spec = _SPEC.decode(change.document.spec)
                self._given.setdefault((spec.device, f"{change.key.namespace}/{spec.workload}"), set()).add(spec.revision)

    def lived(self, world: "World", what: str) -> None:
        """See `Observer`. What was written as the control plane died, it finds as it starts."""
        if what == "started":
            for device, rows in world.control.view.on_device.items():
                for (namespace, workload), row in rows.items():
                    self._given.setdefault((device, f"{namespace}/{workload}"), set()).add(row.spec.revision)

    def started(self, world: "World", device: "SimDevice", instance: str, revision: str) -> None:
        """See `Observer`."""
        if revision not in self._given.get((device.name, instance), ()):
            world.violated("only-given", device.name, f"{instance} started {revision}, which nobody gave to this device")


class WrittenKept(Observer):
    """written-kept. Compares what a start of the agent finds with what was in the journal when it was last told of."""

    def __init__(self) -> None:
        self._rotten: frozenset[str] = frozenset()
        self._committed: dict[tuple[str, int], dict[str, str]] = {}
        self._refused: dict[tuple[str, int], dict[str, set[str]]] = {}

    def began(self, world: "World") -> None:
        """See `Observer`."""
        self._rotten = hit_by(world, "bit-rot")

    def committed(self, world: "World", device: "SimDevice", instance: str, revision: str) -> None:
        """See `Observer`."""
        del world
        self._committed.setdefault((device.name, device.hardware), {})[instance] = revision

    def refused(self, world: "World", device: "SimDevice", instance: str, revision: str) -> None:
        """See `Observer`."""
        del world
        self._refused.setdefault((device.name, device.hardware), {}).setdefault(instance, set()).add(revision)

    def stepped(self, world: "World", device: "SimDevice", step: EngineStep) -> None:
        """See `Observer`."""
        durable = step.after.durable
        if step.before.observed_at is None and isinstance(step.event, Observed) and device.name not in self._rotten:
            self._look(world, device, step.before)
        if durable is step.before.durable:
            return
        key = (device.name, device.hardware)
        for of_device in (self._committed.get(key, {}), self._refused.get(key, {})):
            for instance in [name for name in of_device if name not in durable.instances]:
                del of_device[instance]
        if _cleared(step.after) > _cleared(step.before):
            self._refused.pop(key, None)

    def _look(self, world: "World", device: "SimDevice", state: State) -> None:
        key = (device.name, device.hardware)
        for instance, revision in self._committed.get(key, {}).items():
            kept = state.durable.instances.get(instance)
            if kept is None or kept.committed is None or kept.committed.revision != revision:
                there = kept.committed.revision if kept is not None and kept.committed is not None else "nothing"
                world.violated("written-kept", device.name, f"{instance} had committed {revision}; after a start {there} is committed")
        for instance, revisions in self._refused.get(key, {}).items():
            kept = state.durable.instances.get(instance)
            for revision in sorted(revisions - (set(kept.refused) if kept is not None else set())):
                world.violated("written-kept", device.name, f"{instance} had refused {revision}; a start has forgotten it")


def _cleared(state: State) -> int:
    return state.durable.document.cleared_refusals if state.durable.document is not None else 0


class ItemsOutlive(Observer):
    """items-outlive. Counts what an urgent lane had on its disk when the step before was over, and what a start of the agent finds. Where
    a disk takes nothing items wait in memory: devices with faults of the disk are left out."""

    def __init__(self) -> None:
        self._out: frozenset[str] = frozenset()
        self._produced: dict[tuple[str, int], dict[Lane, int]] = {}

    def began(self, world: "World") -> None:
        """See `Observer`."""
        self._out = hit_by(world, "bit-rot", "sync-failure", "disk-full", "disk-error", "disk-read-only")

    def stepped(self, world: "World", device: "SimDevice", step: EngineStep) -> None:
        """See `Observer`."""
        resident, key = device.resident, (device.name, device.hardware)
        if resident is None or device.name in self._out or resident.outbox.problem is not None:
            return
        counts = resident.outbox.counts()
        now = {lane: counts[lane].produced for lane in _URGENT}
        if isinstance(step.event, Observed) and step.before.observed_at is None:
            for lane, before in self._produced.get(key, {}).items():
                if now[lane] < before:
                    world.violated("items-outlive", device.name, f"{lane}: {before} items were written down, a start knows of {now[lane]}")
        self._produced[key] = now


class RefusedForCause(Observer):
    """refused-for-cause. Looks at what a device decides when it hears that something failed which may work later."""

    def stepped(self, world: "World", device: "SimDevice", step: EngineStep) -> None:
        """See `Observer`."""
        result = step.event.result if isinstance(step.event, Done) else None
        if not isinstance(result, Failed) or result.kind == "invalid" or step.after.durable is step.before.durable:
            return
        for instance, kept in step.after.durable.instances.items():
            before = step.before.durable.instances.get(instance)
            for revision, refusal in kept.refused.items():
                fresh = before is None or revision not in before.refused
                if fresh and refusal.reason == result.reason:
                    world.violated("refused-for-cause", device.name, f"{instance} refuses {revision} because of {refusal.reason}")


class SaysWhy(Observer):
    """says-why. Looks at what a device last told of an update that it tries again."""

    def stepped(self, world: "World", device: "SimDevice", step: EngineStep) -> None:
        """See `Observer`."""
        for name, live in step.after.live.items():
            told = live.reported
            if live.update.state is not UpdateState.FAILED or live.update.retry_at is None or told is None:
                continue
            if not told.reason or told.retry_seconds <= 0:
                world.violated("says-why", device.name, f"{name} tries {live.update.revision} again without a word why, or when")


class TreesGo(Observer):
    """trees-go. Nobody can tidy up on a disk that does not answer or takes nothing: such devices are left out."""

    every = _LOOK_SECONDS

    def __init__(self) -> None:
        self._out: frozenset[str] = frozenset()
        self._since: dict[tuple[str, str], tuple[Resident, float]] = {}

    def began(self, world: "World") -> None:
        """See `Observer`."""
        self._out = hit_by(world, "bit-rot", "disk-error", "disk-read-only")

    def ticked(self, world: "World") -> None:
        """See `Observer`."""
        now, before = world.kernel.now, self._since
        self._since = {}
        for name, device in world.devices.items():
            resident = device.resident
            if resident is None or name in self._out or resident.state.fetching or resident.state.observed_at is None:
                continue
            for tree in _spare(device, resident.state):
                known = before.get((name, tree))
                if known is None or known[0] is not resident:
                    known = (resident, now)
                self._since[name, tree] = known
                if now - known[1] >= _TREE_SECONDS:
                    world.violated("trees-go", name, f"{tree} is needed by nobody, and still there after {_TREE_SECONDS:g} s")
                    self._since[name, tree] = (resident, now)


def _spare(device: "SimDevice", state: State) -> list[str]:
    """Return the trees that no instance runs, returns to, tries or fetches."""
    needed: set[str] = set()
    for kept in state.durable.instances.values():
        needed.update(release.tree for release in (kept.committed, kept.previous, kept.candidate) if release is not None)
    for live in state.live.values():
        needed.update(slot.release.tree for slot in live.slots.values() if slot.release is not None)
        if live.update.state is not UpdateState.IDLE:
            needed.add(live.update.tree)
    try:
        return sorted({entry.name for entry in device.disk.list("trees")} - needed)
    except FilesError:
        return []
