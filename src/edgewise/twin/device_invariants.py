"""Invariants of what happens on devices."""

from typing import TYPE_CHECKING, Final

from edgewise.engine.install import tree_of
from edgewise.engine.model import SlotView, State
from edgewise.engine.protocol import ContactChanged, Desired, Observed, Start, Stop, Tick
from edgewise.engine.tables import SlotPhase
from edgewise.ports.files import FilesError
from edgewise.resources.artifact import Variant
from edgewise.twin.observers import EngineStep, Observer
from edgewise.wire.desired import InstanceDesired

if TYPE_CHECKING:
    from edgewise.twin.device import SimDevice
    from edgewise.twin.world import World

_LOOK_SECONDS: Final = 30.0


def hit_by(world: "World", *kinds: str) -> frozenset[str]:
    """Return the devices that a fault of these kinds hits at some time of the run."""
    return frozenset(name for fault in world.faults if fault.rule.fault in kinds for name in fault.devices)


class WholeRevision(Observer):
    """whole-revision. Files that rot at rest are beyond what a start looks at: devices with `bit-rot` are left out."""

    def __init__(self) -> None:
        self._rotten: frozenset[str] = frozenset()

    def began(self, world: "World") -> None:
        """See `Observer`."""
        self._rotten = hit_by(world, "bit-rot")

    def started(self, world: "World", device: "SimDevice", instance: str, revision: str) -> None:
        """See `Observer`."""
        variants = variants_of(world, instance, revision)
        if not variants or device.name in self._rotten:
            return
        trees = {process.tree for process in device.supervisor.processes if (process.instance, process.revision) == (instance, revision)}
        try:
            whole = any(device.whole(variant) and tree_of(variant) in trees for variant in variants)
        except FilesError:
            return  # the disk does not answer: nothing can be said
        if not whole:
            world.violated("whole-revision", device.name, f"{instance} started {revision}, whose files are not those that were signed")


def variants_of(world: "World", instance: str, revision: str) -> tuple[Variant, ...]:
    """Return the signed variants of a revision; none when the control plane does not know it (any more)."""
    namespace, _, workload = instance.partition("/")
    row = world.control.view.revisions.get((namespace, workload), {}).get(revision)
    if row is None:
        return ()
    wanted = (namespace, row.template.artifact, row.template.version)
    for manifest in world.published.manifests.values():
        if (manifest.namespace, manifest.artifact, manifest.version) == wanted:
            return manifest.variants
    return ()


class OneAtATime(Observer):
    """one-at-a-time."""

    def started(self, world: "World", device: "SimDevice", instance: str, revision: str) -> None:
        """See `Observer`."""
        del revision
        self._look(world, device, instance)

    def committed(self, world: "World", device: "SimDevice", instance: str, revision: str) -> None:
        """See `Observer`."""
        del revision
        self._look(world, device, instance)

    def ready(self, world: "World", device: "SimDevice", instance: str, version: str, *, ready: bool) -> None:
        """See `Observer`."""
        del version, ready
        self._look(world, device, instance)

    def _look(self, world: "World", device: "SimDevice", instance: str) -> None:
        alive = [process for process in device.supervisor.processes if process.instance == instance]
        taking = sum(process.active for process in alive if process.model)
        plain = sum(not process.model for process in alive)
        if taking > 1 or plain > 1:
            what = "slots take the traffic" if taking > 1 else "processes run side by side"
            world.violated("one-at-a-time", device.name, f"{max(taking, plain)} {what} of {instance}")


class RefusedStaysAway(Observer):
    """refused-stays-away. What a device refused is forgotten with its hardware, with the instance, and when a person clears it. Judged when
    a start is decided: one that is under way may come after the refusal."""

    def __init__(self) -> None:
        self._refused: dict[tuple[str, int, str, str], dict[str, int]] = {}
        self._rotten: frozenset[str] = frozenset()

    def began(self, world: "World") -> None:
        """See `Observer`."""
        self._rotten = hit_by(world, "bit-rot", "cloned")

    def refused(self, world: "World", device: "SimDevice", instance: str, revision: str) -> None:
        """See `Observer`."""
        del world
        state = device.state
        if state is not None:
            self._refused.setdefault(_place(device, state, instance), {})[revision] = _cleared(state)

    def stepped(self, world: "World", device: "SimDevice", step: EngineStep) -> None:
        """See `Observer`."""
        for effect in step.effects:
            if isinstance(effect, Start) and device.name not in self._rotten:
                self._look(world, device, step.after, effect.instance, effect.launch.revision)

    def _look(self, world: "World", device: "SimDevice", state: State, instance: str, revision: str) -> None:
        since = self._refused.get(_place(device, state, instance), {}).get(revision)
        kept = state.durable.instances.get(instance)
        runs_it = kept is not None and kept.committed is not None and kept.committed.revision == revision
        if since is not None and since >= _cleared(state) and not runs_it:
            world.violated("refused-stays-away", device.name, f"{instance} started {revision}, which this device refused")


def _place(device: "SimDevice", state: State, instance: str) -> tuple[str, int, str, str]:
    kept, document = state.durable.instances.get(instance), state.durable.document
    wanted = next((want.uid for want in document.instances if want.name == instance), "") if document is not None else ""
    return device.name, device.hardware, instance, wanted or (kept.uid if kept is not None else "")


def _cleared(state: State) -> int:
    return state.durable.document.cleared_refusals if state.durable.document is not None else 0


class HealthyRunsOn(Observer):
    """healthy-runs-on. Looks at every stop of a slot that served what the device is to run."""

    def stepped(self, world: "World", device: "SimDevice", step: EngineStep) -> None:
        """See `Observer`."""
        if not isinstance(step.event, ContactChanged | Tick | Desired):
            return
        for effect in step.effects:
            if isinstance(effect, Stop) and _served(step, effect):
                what = type(step.event).__name__
                world.violated("healthy-runs-on", device.name, f"{what} stopped {effect.instance}, which ran well and is wanted")


def _served(step: EngineStep, stop: Stop) -> bool:
    """Whether a stop hits what served well before and after is wanted no less."""
    before, after = want_of(step.before, stop.instance), want_of(step.after, stop.instance)
    live, kept = step.before.live.get(stop.instance), step.before.durable.instances.get(stop.instance)
    if before is None or after is None or live is None or kept is None or kept.committed is None or before.exclusive:
        return False
    slot, wanted = live.slots[stop.slot], kept.committed.revision
    same = before.revision == after.revision == wanted and before.uid == after.uid and wanted not in after.rejected
    return same and slot.revision == wanted and slot.active and slot.ready and slot.phase is SlotPhase.UP and well(slot)


def want_of(state: State, instance: str) -> InstanceDesired | None:
    """Return what a device is to run of an instance; None when it is to stop it, or does not know it."""
    document = state.durable.document
    if document is None or document.decommission:
        return None
    return next((want for want in document.instances if want.name == instance and want.desired == "Running"), None)


def well(slot: SlotView) -> bool:
    """Whether all that is known of a slot is good. What must send heartbeats may be late with them at any time."""
    heartbeat = slot.release is not None and any(
        probe is not None and probe.heartbeat
        for probe in (slot.release.variant.probes.start, slot.release.variant.probes.readiness, slot.release.variant.probes.liveness)
    )
    return not heartbeat and all(view.failures == 0 for view in slot.probes.values())


class ExclusiveOnce(Observer):
    """exclusive-once. Counts devices with a living process. Other hardware and clones share a name, so their devices are left out."""

    def __init__(self) -> None:
        self._out: frozenset[str] = frozenset()
        self._most: dict[tuple[str, str], int] = {}

    def began(self, world: "World") -> None:
        """See `Observer`."""
        self._out = hit_by(world, "cloned", "replaced")

    def started(self, world: "World", device: "SimDevice", instance: str, revision: str) -> None:
        """See `Observer`."""
        del revision
        namespace, _, name = instance.partition("/")
        row = world.control.view.workloads.get((namespace, name))
        if row is None or not row.spec.disconnect.exclusive or row.spec.placement.replicas is None or device.name in self._out:
            return
        allowed = self._most[namespace, name] = max(row.spec.placement.replicas, self._most.get((namespace, name), 0))
        running = [each.name for each in world.devices.values() if any(one.instance == instance for one in each.supervisor.processes)]
        if len(set(running) - self._out) > allowed:
            world.violated("exclusive-once", instance, f"it runs on {', '.join(running)} at the same time, and has {allowed} replicas")


class ItemsAddUp(Observer):
    """items-add-up. Nobody can count what a disk at fault said: devices with faults of the disk are left out."""

    every = _LOOK_SECONDS

    def __init__(self) -> None:
        self._out: frozenset[str] = frozenset()

    def began(self, world: "World") -> None:
        """See `Observer`."""
        self._out = hit_by(world, "bit-rot")

    def ticked(self, world: "World") -> None:
        """See `Observer`."""
        for device in world.devices.values():
            if device.name in self._out:
                continue
            for lane, counts in device.counts().items():
                if counts.produced != counts.acknowledged + counts.held + counts.dropped:
                    told = f"{counts.produced} produced, {counts.acknowledged} acknowledged, {counts.held} held, {counts.dropped} dropped"
                    world.violated("items-add-up", device.name, f"{lane}: {told}")

    def ended(self, world: "World") -> None:
        """See `Observer`."""
        self.ticked(world)


class JournalReadable(Observer):
    """journal-readable. Files that rot at rest do look damaged, and should."""

    def __init__(self) -> None:
        self._rotten: frozenset[str] = frozenset()

    def began(self, world: "World") -> None:
        """See `Observer`."""
        self._rotten = hit_by(world, "bit-rot")

    def stepped(self, world: "World", device: "SimDevice", step: EngineStep) -> None:
        """See `Observer`."""
        if isinstance(step.event, Observed) and step.before.damage and device.name not in self._rotten:
            world.violated("journal-readable", device.name, step.before.damage)
