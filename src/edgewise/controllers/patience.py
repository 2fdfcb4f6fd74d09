"""How long an agent may be silent before its devices count as Offline."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgewise.controllers.rows import DeviceRow, WorkloadRow
from edgewise.resources.quantity import seconds

if TYPE_CHECKING:
    from edgewise.controllers.view import FleetView


def devices_of(view: "FleetView", agent: str) -> Iterable[DeviceRow]:
    """Return the devices that an agent speaks for. One whose hardware was replaced has another agent now."""
    row = view.agents.get(agent)
    known = (view.devices.get(name) for name in row.spec.devices) if row is not None else ()
    return (device for device in known if device is not None and device.spec.agent == agent)


def patience(view: "FleetView", agent: str) -> float:
    """Return how long an agent may be silent, in seconds: less than usual where a workload asks to be replaced sooner than that."""
    least = view.limits.liveness.offline_after_seconds
    if shortest(view) >= least:
        return least  # what nobody asks for need not be looked for on every device
    for device in devices_of(view, agent):
        for workload in view.on_device.get(device.key.name, ()):
            row = view.workloads.get(workload)
            if row is not None and _impatient(row):
                least = min(least, seconds(row.spec.disconnect.lost_after))
    return least


def shortest(view: "FleetView") -> float:
    """Return how long any agent may be silent at the least, in seconds; infinity where no workload asks for anything."""
    if view.shortest_patience is None:
        view.shortest_patience = min(
            (seconds(row.spec.disconnect.lost_after) for row in view.workloads.values() if _impatient(row)), default=math.inf
        )
    return view.shortest_patience


def _impatient(row: WorkloadRow) -> bool:
    return row.spec.disconnect.replace and row.spec.placement.replicas is not None


def deadline(view: "FleetView", agent: str, since: float) -> float:
    """Return when an agent that was heard last at `since` is silent for too long: at the next whole second, so that the deadlines of a
    large fleet come together and are looked at together."""
    return float(math.ceil(since + patience(view, agent)))
