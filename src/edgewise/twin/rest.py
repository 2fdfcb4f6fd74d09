"""When a run is at rest: no rollout goes on, every reachable device runs what it should, every workload that can run does."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgewise.controllers.answers import refused_agent
from edgewise.controllers.rows import DeviceRow, InstanceRow
from edgewise.controllers.view import FleetView
from edgewise.resources.states import Connection, DeviceUpdate, InstanceState, RolloutState, UpdateState
from edgewise.twin.observe import OVER

if TYPE_CHECKING:
    from edgewise.twin.world import World

__all__ = ["Rest"]


class Rest:
    """Looks at a world. What was not at rest the last time is looked at first, so that looking often costs little."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._last = ""
        self._dark = ""

    def dark(self) -> str:
        """Return a device whose battery ran out and fills again, or nothing: the run is not over while it is missing."""
        world = self._world
        if self._dark and self._is_dark(self._dark):
            return self._dark
        self._dark = next((name for name in world.devices if self._is_dark(name)), "")
        return self._dark

    def _is_dark(self, name: str) -> bool:
        device = self._world.devices[name]
        return not device.powered and device.power.refills and not device.gone and self._world.is_on(name)

    def reachable(self, name: str) -> bool:
        """Tell whether a device has power and a way to the control plane, and may use it."""
        world = self._world
        if not world.is_on(name) or not world.devices[name].powered or world.network.links[name].blocked:
            return False
        row = world.control.view.devices.get(name)
        agent = world.control.view.agents.get(row.spec.agent) if row is not None else None
        return agent is None or agent.spec.revoked or refused_agent(agent) is None

    def unsettled(self) -> str:
        """Return what is not at rest, in words, or nothing."""
        control = self._world.control
        if not control.up or control.write_seconds:
            return "the control plane is away, or slow"
        if control.view.dirty:
            return "the controllers have work"
        return self._rollout(control.view) or self._device(control.view) or _workload(control.view)

    def _rollout(self, view: FleetView) -> str:
        for rows in view.rollouts.values():
            for row in rows.values():
                if row.status.finished_at is None and row.status.state is not RolloutState.PAUSED and row.status.state not in OVER:
                    return f"rollout {row.key.name} is {row.status.state.value}"
        return ""

    def _device(self, view: FleetView) -> str:
        if self._last:
            why = self._of(view, self._last)
            if why:
                return f"device {self._last} {why}"
        for name in self._world.devices:
            why = self._of(view, name)
            if why:
                self._last = name
                return f"device {name} {why}"
        self._last = ""
        return ""

    def _of(self, view: FleetView, name: str) -> str:
        if not self.reachable(name):
            return ""
        row = view.devices.get(name)
        if row is None or _revoked(view, row):
            return "has not joined"
        instances = view.on_device.get(name)
        if row.spec.decommission or (not instances and row.status.connection is Connection.ONLINE):
            return ""
        if row.status.connection is not Connection.ONLINE:
            return f"is {row.status.connection.value}"
        if row.status.observed_number < view.numbers.get(name, 0):
            return "has not taken over its newest state"
        return self._runs(name, row, instances or {})

    def _runs(self, name: str, row: DeviceRow, instances: Mapping[tuple[str, str], InstanceRow]) -> str:
        ready = self._world.devices[name].ready()
        why = next((why for key, each in instances.items() if (why := _instance("/".join(key), each, ready))), "")
        if why or row.status.update is DeviceUpdate.UP_TO_DATE or any(map(_waits, instances.values())):
            return why
        return f"is {row.status.update.value}"


def _revoked(view: FleetView, row: DeviceRow) -> bool:
    agent = view.agents.get(row.spec.agent)
    return agent is None or agent.spec.revoked


def _instance(name: str, instance: InstanceRow, ready: dict[str, str]) -> str:
    spec, seen = instance.spec, instance.seen
    if not instance.running:
        return f"has not stopped {name}"
    if _waits(instance):
        return ""
    whole = name in ready and seen.ready and seen.revision == spec.revision and seen.update is UpdateState.IDLE
    return "" if whole else f"does not run {name}"


def _waits(instance: InstanceRow) -> bool:
    """Whether only a person can bring an instance any further: refused, or committed and then failing until it was given up."""
    spec, seen = instance.spec, instance.seen
    broken = seen.state is InstanceState.BROKEN and seen.committed == spec.revision and seen.observed_epoch == spec.epoch
    return broken or spec.revision in seen.refused or spec.revision in spec.rejected


def _workload(view: FleetView) -> str:
    """Return the workload that devices are still to be found for. One that was deleted gets none; it is there until its last device has
    stopped it, which one that is lost never does."""
    for key, workload in sorted(view.workloads.items()):
        if workload.unplaced and workload.deleted_at is None:
            return f"workload {key[1]} is to be placed"
    return ""
