"""Invariants of a fleet at rest, and that it comes to rest."""

import copy
from typing import TYPE_CHECKING, Final

from edgewise.controllers.gateway import refresh
from edgewise.controllers.reconcile import Changed, handle
from edgewise.controllers.rows import InstanceRow
from edgewise.controllers.view import FleetView
from edgewise.store.contract import Change, Put, Transaction
from edgewise.twin.device_invariants import hit_by
from edgewise.twin.observers import Observer

if TYPE_CHECKING:
    from edgewise.twin.world import World

_LOOK_SECONDS: Final = 300.0
_NAMED_MAX: Final = 3


class PlanIsStable(Observer):
    """plan-is-stable. Fills another view from the documents, as a start of the control plane does, and lets it decide."""

    every = _LOOK_SECONDS

    def ticked(self, world: "World") -> None:
        """See `Observer`."""
        if world.at_rest() and not world.control.view.stirred:
            self._look(world)

    def ended(self, world: "World") -> None:
        """See `Observer`."""
        self.ticked(world)

    def _look(self, world: "World") -> None:
        live = world.control.view
        view = FleetView(live.epoch, live.presence.started_at, live.limits)
        for document in world.vault.documents():
            view.apply(Change(revision=document.revision, key=document.key, document=document))
        for mark in world.vault.marks():
            view.apply_mark(mark)
        view.presence = copy.deepcopy(live.presence)
        view.loaded(world.vault.revision)
        refresh(view)
        decision = handle(Changed(), view, world.kernel.wall)
        planned = [_told(each) for each in decision.transactions if each.writes]
        if planned:
            world.violated("plan-is-stable", "control plane", f"planning anew at rest would write {'; '.join(planned[:_NAMED_MAX])}")


def _told(transaction: Transaction) -> str:
    return ", ".join(
        f"{write.key.kind} {write.key.name} ({'spec' if isinstance(write, Put) else type(write).__name__})"
        for write in transaction.writes[:_NAMED_MAX]
    )


class NoneTooMany(Observer):
    """none-too-many. Counts devices with a living process; clones and hardware that was replaced share a name with others. What is known
    nowhere any more (after a restored backup) has until the next look to stop."""

    every = _LOOK_SECONDS

    def __init__(self) -> None:
        self._out: frozenset[str] = frozenset()
        self._before: frozenset[str] = frozenset()

    def began(self, world: "World") -> None:
        """See `Observer`."""
        self._out = hit_by(world, "cloned")

    def ticked(self, world: "World") -> None:
        """See `Observer`."""
        if not world.at_rest() or world.control.view.stirred:
            self._before = frozenset()
            return
        there: dict[str, list[str]] = {}
        for name, device in world.devices.items():
            if world.reachable(name) and name not in self._out:
                for instance in sorted({process.instance for process in device.supervisor.processes}):
                    there.setdefault(instance, []).append(name)
        found: set[str] = set()
        for instance, names in sorted(there.items()):
            namespace, _, workload = instance.partition("/")
            row = world.control.view.workloads.get((namespace, workload))
            replicas = row.spec.placement.replicas if row is not None else 0
            if replicas is None or len(names) <= replicas:
                continue
            found.add(instance)
            if row is not None or instance in self._before:
                world.violated("none-too-many", instance, f"at rest it runs on {', '.join(names)}, and has {replicas} replicas")
        self._before = frozenset(found)

    def ended(self, world: "World") -> None:
        """See `Observer`."""
        self.ticked(world)


class TruthIsTold(Observer):
    """truth-is-told."""

    def ended(self, world: "World") -> None:
        """See `Observer`."""
        if world.settled_at is None:
            return
        view = world.control.view
        for name, device in world.devices.items():
            if not world.reachable(name) or not device.up or device.gone:
                continue
            serves = {each.instance: each.revision for each in device.running() if each.ready}
            for (namespace, workload), row in sorted(view.on_device.get(name, {}).items()):
                self._look(world, name, row, serves.get(f"{namespace}/{workload}", ""))

    def _look(self, world: "World", device: str, row: InstanceRow, serves: str) -> None:
        if row.running and row.seen.ready and row.seen.revision != serves:
            told = f"the control plane believes that it serves {row.seen.revision}, it serves {serves or 'nothing'}"
            world.violated("truth-is-told", device, f"{row.key.name}: {told}")


class Converges(Observer):
    """converges. The bound is the scenario's `settle`."""

    def ended(self, world: "World") -> None:
        """See `Observer`."""
        if world.settled_at is None and world.kernel.now >= world.bound:
            why = world.unsettled()
            if why:
                world.violated("converges", "fleet", f"not at rest {world.plan.scenario.settle} after the faults: {why}")
