"""Where workloads run before a change and after it: replicas begin where a snapshot has them, and a selector lets devices come and go.

held(workload, fleet) -> the workload as it is placed at first, or None
moves(fleet, before, after) -> what an operator should know of devices that come and go without a rollout
"""

from typing import Final

import msgspec

from edgewise.delivery.facts import Attributes
from edgewise.resources.selector import Requirement, Selector, matches
from edgewise.resources.workload import Workload
from edgewise.twin.expected import workload_key
from edgewise.twin.fleet import TwinFleet
from edgewise.twin.suiting import facts_of

__all__ = ["held", "moves"]

_NAMES_MAX: Final = 3


def held(workload: Workload, fleet: TwinFleet) -> Workload | None:
    """Return a workload with replicas, bound to the devices on which the fleet has them; None where there is nothing to keep. Devices
    that were out of reach come last: what they had may run elsewhere by now."""
    placement = workload.spec.placement
    key = workload_key(workload)
    there = [device for device in fleet.devices if not device.unschedulable and any(one.workload == key for one in device.instances)]
    if not placement.replicas or not there:
        return None
    there.sort(key=lambda device: device.history.offline)
    names = tuple(device.name for device in there[: placement.replicas])
    selector = msgspec.structs.replace(
        placement.selector,
        match_expressions=(*placement.selector.match_expressions, Requirement(key="device", operator="In", values=names)),
    )
    bound = msgspec.structs.replace(placement, replicas=len(names), selector=selector)
    return msgspec.structs.replace(workload, spec=msgspec.structs.replace(workload.spec, placement=bound))


def moves(fleet: TwinFleet, before: Workload, after: Workload) -> tuple[str, ...]:
    """Return in words on how many devices a workload ends, or begins, because of its selector or its replicas."""
    key, was, now = workload_key(after), before.spec.placement, after.spec.placement
    if was.replicas is not None and now.replicas is not None and was.replicas != now.replicas:
        return (f"{key} has {now.replicas} replicas instead of {was.replicas}",)
    if was.every_matching_device is None or now.every_matching_device is None:
        return ()
    selected, known = _selected(fleet, now.selector), _selected(fleet, was.selector)
    going = [device.name for device in fleet.devices if device.name in known - selected]
    coming = [device.name for device in fleet.devices if device.name in selected - known]
    said = []
    if going:
        said.append(f"{key} ends on {_told(going)}: it does not select them any more")
    if coming:
        said.append(f"{key} begins on {_told(coming)}: it selects them now")
    return tuple(said)


def _selected(fleet: TwinFleet, selector: Selector) -> set[str]:
    classes = {sort.name: sort for sort in fleet.classes}
    return {device.name for device in fleet.devices if matches(selector, Attributes(facts_of(device, classes)))}


def _told(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES_MAX]) + (" …" if len(names) > _NAMES_MAX else "")
    return f"{len(names)} device{'s' * (len(names) != 1)} ({shown})"
