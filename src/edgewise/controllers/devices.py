"""The end of a device: everything stops, is replaced elsewhere, and its agent is taken out of use."""

import msgspec

from edgewise.controllers.documents import delete_any, event, put_status
from edgewise.controllers.placements import silent_since
from edgewise.controllers.rows import AgentRow
from edgewise.controllers.view import FleetView
from edgewise.controllers.work import Work
from edgewise.resources.states import AgentLifecycle, Connection
from edgewise.store.contract import Write


def step(view: FleetView, work: Work) -> None:
    """Gather what finishes the devices that are being decommissioned. The instances themselves are stopped by their workloads."""
    for device in sorted(view.leaving):
        if work.full:
            return
        row = view.devices.get(device)
        if row is None or not row.facts.leaving:
            view.leaving.discard(device)
            continue
        agent = view.agents.get(row.spec.agent)
        gone = agent is None or agent.spec.revoked or agent.status.lifecycle is AgentLifecycle.DECOMMISSIONED
        if not gone and not _given_up(view, device, work.now):
            view.leaving.discard(device)
            continue
        writes: list[Write] = [delete_any(instance.key, instance.uid) for _, instance in view.instances_on(device)]
        if not gone and agent is not None and _last(view, agent):
            done = msgspec.structs.replace(agent.status, lifecycle=AgentLifecycle.DECOMMISSIONED, message="was out of reach")
            writes.append(put_status(agent, done))
            work.add(writes, (event(work.now, "Decommissioned", f"agent {agent.key.name} was out of reach and given up", agent.key),))
        elif writes:
            work.add(writes)
        else:
            view.leaving.discard(device)


def _given_up(view: FleetView, device: str, now: float) -> bool:
    """Return whether a device has been out of reach for so long that nobody waits for it to stop by itself."""
    row = view.devices[device]
    due = silent_since(view, device) + view.limits.controllers.decommission_wait_seconds
    if row.status.connection is not Connection.ONLINE and due <= now:
        return True
    # Looked at again then, or when its connection changes.
    view.timers.at(("leaving", device), max(due, now + 1.0))
    return False


def _last(view: FleetView, agent: AgentRow) -> bool:
    """Return whether no device of an agent stays."""
    return all(view.devices[name].facts.leaving for name in agent.spec.devices if name in view.devices)
