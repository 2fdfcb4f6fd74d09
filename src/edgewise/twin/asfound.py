"""Puts the fleet of a run into the state in which it was found: replicas on the devices that had them, devices cordoned that were."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from edgewise.resources.workload import Workload
from edgewise.store.contract import Change
from edgewise.twin.placing import held

if TYPE_CHECKING:
    from edgewise.twin.world import World

__all__ = ["AsFound"]


class AsFound:
    """What people do for a world until it is as it was found."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._held: list[Workload] = []
        self.cordoned = {device.name for device in world.plan.fleet.devices if device.unschedulable}
        """Devices that are still to be cordoned, once they joined."""

    def placed(self, workload: Workload) -> Workload:
        """Return a workload as it is placed at first: its replicas bound to the devices that had them, until `let_go`."""
        first = held(workload, self._world.plan.fleet)
        if first is None:
            return workload
        self._held.append(workload)
        return first

    def let_go(self) -> bool:
        """Let the controllers place what was bound so far; tell whether there was something."""
        bound, self._held = self._held, []
        for workload in bound:
            self._world.people.apply(workload)
        return bool(bound)

    def wrote(self, changes: Iterable[Change]) -> None:
        """Cordon devices that joined, if they are to be."""
        for change in changes:
            name = change.key.name
            if change.key.kind == "Device" and name in self.cordoned and change.document is not None:
                self.cordoned.discard(name)
                self._world.kernel.after(0.0, self._cordon_call(name))

    def _cordon_call(self, name: str) -> Callable[[], None]:
        world = self._world

        def call() -> None:
            if world.control.up:
                world.people.device("cordon", name)
            else:
                world.kernel.after(world.limits.retry_seconds, call)

        return call
