"""Suits a made-up fleet to a change: whoever rehearses on devices that do not exist means devices that the change is for.

suited(fleet, workloads) -> (fleet, assumptions): sites, classes, runtimes, peripherals and labels that the workloads select are given to
the fleet where it has none, and each thing given is said in words. And says of any fleet what in it does not suit: misfits, batteries.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from edgewise.delivery.facts import Attributes, DeviceFacts, room_of, version_facts
from edgewise.delivery.placement import Offer, judge, request_of
from edgewise.delivery.variants import ranked
from edgewise.resources.artifact import ArtifactVersion
from edgewise.resources.device import Capacity
from edgewise.resources.quantity import milli
from edgewise.resources.selector import RUNTIME, Requirement, Selector, matches
from edgewise.resources.version import version_key
from edgewise.resources.workload import Workload
from edgewise.twin.expected import workload_key
from edgewise.twin.fleet import DeviceClass, TakenBack, TwinDevice, TwinFleet

__all__ = ["batteries", "facts_of", "misfits", "suited", "taken_back"]

_ABSENT: Final = frozenset({"NotIn", "DoesNotExist"})
_GIVEN: Final = "yes"
_FLEXIBLE: Final = ("site", "class", "device")


def facts_of(device: TwinDevice, classes: dict[str, DeviceClass]) -> DeviceFacts:
    """Return what placement knows of a device that is connected."""
    sort = classes.get(device.device_class)
    return DeviceFacts(
        name=device.name,
        capacity=device.capacity or (sort.capacity if sort is not None else Capacity()),
        site=device.site,
        device_class=device.device_class,
        labels=device.labels,
        unschedulable=device.unschedulable,
        online=True,
    )


def suited(fleet: TwinFleet, workloads: Sequence[Workload]) -> tuple[TwinFleet, tuple[str, ...]]:
    """Return the made-up `fleet` with what `workloads` select, and what was given to it, in words."""
    said: list[str] = []
    fleet = _named(fleet, workloads, said)
    fleet = _equipped(fleet, workloads, said)
    fleet = _labelled(fleet, workloads, said)
    return fleet, tuple(said)


def _requirements(selector: Selector) -> list[Requirement]:
    return [
        *(Requirement(key=key, operator="In", values=(value,)) for key, value in sorted(selector.match_labels.items())),
        *selector.match_expressions,
    ]


# ---- names of sites, classes, devices ----


def _named(fleet: TwinFleet, workloads: Sequence[Workload], said: list[str]) -> TwinFleet:
    wanted = {key: _new_names(key, workloads, _there(key, fleet)) for key in _FLEXIBLE}
    heaviest = sorted(fleet.classes, key=lambda sort: (-sort.weight, sort.name))
    sites = _renamed((site.name for site in fleet.sites), wanted["site"])
    classes = _renamed((sort.name for sort in heaviest), wanted["class"])
    devices = _renamed((device.name for device in fleet.devices), wanted["device"])
    for word, names in (("sites", sites), ("classes", classes), ("devices", devices)):
        if names:
            said.append(f"some of the made-up {word} are called {', '.join(names.values())}, as the change selects them")
    if not (sites or classes or devices):
        return fleet
    return msgspec.structs.replace(
        fleet,
        sites=tuple(msgspec.structs.replace(site, name=sites.get(site.name, site.name)) for site in fleet.sites),
        classes=tuple(msgspec.structs.replace(sort, name=classes.get(sort.name, sort.name)) for sort in fleet.classes),
        devices=tuple(
            msgspec.structs.replace(
                device,
                name=devices.get(device.name, device.name),
                site=sites.get(device.site, device.site),
                device_class=classes.get(device.device_class, device.device_class),
            )
            for device in fleet.devices
        ),
    )


def _there(key: str, fleet: TwinFleet) -> set[str]:
    if key == "site":
        return {site.name for site in fleet.sites}
    return {sort.name for sort in fleet.classes} if key == "class" else {device.name for device in fleet.devices}


def _new_names(key: str, workloads: Sequence[Workload], there: set[str]) -> list[str]:
    names: dict[str, None] = {}
    for workload in workloads:
        for requirement in _requirements(workload.spec.placement.selector):
            if requirement.key == key and requirement.operator == "In" and not there.intersection(requirement.values):
                names.update(dict.fromkeys(requirement.values))
    return list(names)


def _renamed(names: Iterable[str], wanted: list[str]) -> dict[str, str]:
    return dict(zip(names, wanted, strict=False))


# ---- runtimes and peripherals ----


def _equipped(fleet: TwinFleet, workloads: Sequence[Workload], said: list[str]) -> TwinFleet:
    runtimes: dict[str, str] = {}
    peripherals: dict[str, None] = {}
    there = {name for sort in fleet.classes for name in sort.capacity.peripherals}
    for workload in workloads:
        by_key: dict[str, list[Requirement]] = {}
        for requirement in _requirements(workload.spec.placement.selector):
            if requirement.key.startswith(RUNTIME) and requirement.operator not in _ABSENT:
                by_key.setdefault(requirement.key, []).append(requirement)
        for key, requirements in by_key.items():
            name, met = key.removeprefix(RUNTIME), Selector(match_expressions=tuple(requirements))
            present = [sort.capacity.runtimes[name] for sort in fleet.classes if name in sort.capacity.runtimes]
            value = _version(requirements)
            if value is not None and not any(matches(met, {key: version}) for version in present):
                runtimes[name] = value
        peripherals.update(dict.fromkeys(item.name for item in workload.spec.peripherals if item.name not in there))
    if runtimes:
        said.append(f"all made-up devices have the runtime {_listed(runtimes)}, as the change selects it")
    if peripherals:
        said.append(f"all made-up devices have the peripheral {', '.join(peripherals)}, as the change needs it")
    if not (runtimes or peripherals):
        return fleet
    classes = tuple(
        msgspec.structs.replace(
            sort,
            capacity=msgspec.structs.replace(
                sort.capacity,
                runtimes={**sort.capacity.runtimes, **runtimes},
                peripherals=(*sort.capacity.peripherals, *peripherals),
            ),
        )
        for sort in fleet.classes
    )
    return msgspec.structs.replace(fleet, classes=classes)


def _listed(runtimes: dict[str, str]) -> str:
    return ", ".join(name if version == _GIVEN else f"{name} {version}" for name, version in runtimes.items())


# ---- labels ----


def _labelled(fleet: TwinFleet, workloads: Sequence[Workload], said: list[str]) -> TwinFleet:
    """Give labels: where several workloads ask for what no single device can have, each gets a part of the fleet."""
    classes = {sort.name: sort for sort in fleet.classes}
    facts = [facts_of(device, classes) for device in fleet.devices]
    wanted: list[tuple[Workload, dict[str, str]]] = []
    for workload in workloads:
        selector = workload.spec.placement.selector
        if any(matches(selector, Attributes(one)) for one in facts):
            continue
        labels = _labels(selector)
        if labels and all(labels != other for _, other in wanted):
            wanted.append((workload, labels))
    if not wanted:
        return fleet
    devices = tuple(
        msgspec.structs.replace(device, labels=_given(device, one, wanted, index))
        for index, (device, one) in enumerate(zip(fleet.devices, facts, strict=True))
    )
    fleet = msgspec.structs.replace(fleet, devices=devices)
    for workload, labels in wanted:
        count = sum(matches(workload.spec.placement.selector, Attributes(facts_of(device, classes))) for device in devices)
        text = ", ".join(f"{key}={value}" for key, value in labels.items())
        if count:
            said.append(f"{_few(count, len(devices))} made-up devices have the labels {text}, so that {workload_key(workload)} runs there")
    return fleet


def _few(count: int, total: int) -> str:
    return f"all {total}" if count == total else f"{count} of {total}"


def _given(device: TwinDevice, facts: DeviceFacts, wanted: list[tuple[Workload, dict[str, str]]], index: int) -> dict[str, str]:
    """Return the labels of a device: those of the workload whose turn it is, and of the others as far as they bear each other."""
    labels = dict(device.labels)
    accepted: list[Selector] = []
    turn = index % len(wanted)
    for workload, more in (*wanted[turn:], *wanted[:turn]):
        selector = workload.spec.placement.selector
        if any(labels.get(key, value) != value for key, value in more.items()):
            continue
        tried = {**labels, **more}
        seen = Attributes(msgspec.structs.replace(facts, labels=tried))
        if matches(selector, seen) and all(matches(other, seen) for other in accepted):
            labels = tried
            accepted.append(selector)
    return labels


def _labels(selector: Selector) -> dict[str, str]:
    """Return labels that meet what `selector` asks of labels, as far as that is possible."""
    by_key: dict[str, list[Requirement]] = {}
    for requirement in _requirements(selector):
        if requirement.key not in _FLEXIBLE and not requirement.key.startswith(("capacity.", RUNTIME)):
            by_key.setdefault(requirement.key, []).append(requirement)
    labels: dict[str, str] = {}
    for key, requirements in by_key.items():
        if all(requirement.operator in _ABSENT for requirement in requirements):
            continue
        value = _value(requirements)
        if value is not None:
            labels[key] = value
    return labels


def _value(requirements: Sequence[Requirement]) -> str | None:
    """Return a value that meets all `requirements` (of one key), or None when none was found."""
    tried = [value for requirement in requirements if requirement.operator == "In" for value in requirement.values]
    numbers: list[int] = []
    for requirement in requirements:
        if requirement.operator in {"Gt", "Ge", "Lt", "Le"}:
            tried.extend(requirement.values)
            numbers.extend(milli(value) for value in requirement.values)
    tried.extend(_text(number) for bound in numbers for number in (bound + 1000, bound // 2, bound + 1, max(bound - 1, 0)))
    if numbers:
        tried.append(_text((min(numbers) + max(numbers)) // 2))
    return _first(requirements, tried)


def _version(requirements: Sequence[Requirement]) -> str | None:
    """Return a version that meets all `requirements` (of one runtime), or None when none was found."""
    tried = [value for requirement in requirements for value in requirement.values]
    for key in [version_key(value) for value in tried]:
        above, below = (*key[:-1], key[-1] + 1) if key else (), (*key[:-1], key[-1] - 1) if key and key[-1] else ()
        tried.extend(".".join(map(str, numbers)) for numbers in (above, (*key, 1), below) if numbers)
    return _first(requirements, tried)


def _first(requirements: Sequence[Requirement], tried: Iterable[str]) -> str | None:
    selector = Selector(match_expressions=tuple(requirements))
    key = requirements[0].key
    return next((value for value in (*tried, _GIVEN, f"{_GIVEN}-2") if matches(selector, {key: value})), None)


def _text(thousandths: int) -> str:
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"


# ---- what a reader must know of the fleet ----


def misfits(fleet: TwinFleet, workload: Workload, version: ArtifactVersion) -> list[str]:
    """Say when no device of the fleet can run `version` of a workload, or fewer than it wants, and why one of the others cannot."""
    spec, manifest = workload.spec, version.spec.manifest
    facts = version_facts(manifest, version.spec.target, version.spec.digest, version.spec.length)
    variants = ranked(facts.variants, spec.placement.prefer)
    request = request_of(spec.placement.selector, spec.resources, spec.peripherals, variants, connected=True)
    classes = {sort.name: sort for sort in fleet.classes}
    wanted = spec.placement.replicas or 1
    found, reason = 0, "the fleet has no devices" if not fleet.devices else ""
    for device in fleet.devices:
        one = facts_of(device, classes)
        offer = judge(request, one, room_of(one.capacity, ()))
        if isinstance(offer, Offer):
            found += 1
            if found >= wanted:
                return []
        else:
            reason = f"{device.name}: {offer.reason}"
    why = f" ({reason})" if reason else ""
    if not found:
        return [f"no device of the fleet can run {workload_key(workload)}{why}"]
    return [f"only {found} of the {wanted} replicas of {workload_key(workload)} have a device that can run them{why}"]


def taken_back(fleet: TwinFleet, workload: Workload, version: str) -> list[str]:
    """Say when the fleet would not even begin with `version` of a workload, because a rollout took that back."""
    spec = workload.spec
    wanted = TakenBack(
        workload=workload_key(workload),
        artifact=spec.artifact.name,
        version=version,
        resources=spec.resources,
        peripherals=spec.peripherals,
        parameters=spec.parameters,
        config=spec.config.name if spec.config is not None else "",
    )
    if wanted not in fleet.taken_back:
        return []
    until = "the fleet does not try it again until `edgewise rollout retry`"
    return [f"{wanted.workload} {version} was taken back before: {until}; what is said here would come of it then"]


def batteries(fleet: TwinFleet) -> str:
    """Say on how many devices a dark sky tells."""
    powered = {sort.name for sort in fleet.classes if sort.energy.battery_watt_hours > 0}
    count = sum(1 for device in fleet.devices if device.device_class in powered)
    if not count:
        return "no device of the fleet has a battery: the scenario's nights change nothing"
    return f"{count} of the {len(fleet.devices)} devices run{'s' * (count == 1)} on a battery: only there does the scenario's night tell"
