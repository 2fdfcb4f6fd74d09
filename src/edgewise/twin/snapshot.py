"""A running fleet as a twin: what was seen of it, without anything that must stay in it.

snapshot(Seen(…), now) -> TwinFleet. Pure: what the operator API shows goes in, a fleet for `edgewise simulate --fleet` comes out. It is
made field by field, so that what is not named here cannot slip through: no tokens, keys, certificates, addresses, annotations, messages,
of Secrets their names only.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from edgewise.resources.artifact import Artifact, ArtifactVersion
from edgewise.resources.device import Capacity, Device, DeviceHistory
from edgewise.resources.instance import Instance
from edgewise.resources.meta import Metadata, Name
from edgewise.resources.quantity import whole
from edgewise.resources.rollout import Rollout
from edgewise.resources.site import Site
from edgewise.resources.states import Connection, RolloutState
from edgewise.resources.workload import ArtifactReference, NameReference, Template, Workload, WorkloadRevision
from edgewise.twin.fleet import DeviceClass, History, LinkQuality, Running, TakenBack, TwinDevice, TwinFleet, TwinSite

__all__ = ["LIMITS", "Seen", "SnapshotLimits", "snapshot"]

_DAY: Final = 86_400.0
_NO_SITE: Final = "no-site"
_NO_CLASS: Final = "no-class"
_PRIOR_UPDATES: Final = 4.0
"""How many updates' worth of the fleet's own failure rate a device begins with: one failure in one update does not mean that all fail."""


class SnapshotLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a fleet is taken: `versions_per_artifact` are the newest, those that run or have an alias come on top;
    `observed_days_min` is how long a device counts as observed at least, so that one outage in the first hour is not 24 a day."""

    versions_per_artifact: int = 10
    observed_days_min: float = 1.0


LIMITS: Final = SnapshotLimits()


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What was read of a fleet, in any order. `secret_names` are NAMESPACE/NAME: Secrets themselves are not wanted here, nor are Configs,
    tokens and Agents. `wanted` are versions (NAMESPACE/ARTIFACT:VERSION) to keep whatever the limits say."""

    sites: tuple[Site, ...] = ()
    devices: tuple[Device, ...] = ()
    instances: tuple[Instance, ...] = ()
    workloads: tuple[Workload, ...] = ()
    revisions: tuple[WorkloadRevision, ...] = ()
    rollouts: tuple[Rollout, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    versions: tuple[ArtifactVersion, ...] = ()
    secret_names: tuple[str, ...] = ()
    wanted: frozenset[str] = frozenset()


_Key = tuple[str, str]
_Templates = dict[tuple[str, str, str], Template]


def snapshot(seen: Seen, now: float, limits: SnapshotLimits = LIMITS) -> TwinFleet:
    """Return the fleet that was seen at `now` (seconds since the Unix epoch). Devices that are being decommissioned are left out. The same
    input in any order gives the same fleet."""
    templates: _Templates = {(each.metadata.namespace, each.spec.workload, each.spec.hash): each.spec.template for each in seen.revisions}
    devices = sorted((each for each in seen.devices if _stays(each)), key=lambda each: each.metadata.name)
    workloads = tuple(_workload(each, templates) for each in sorted(seen.workloads, key=_key_of) if each.metadata.deleted_at is None)
    there = {_key_of(each) for each in workloads}
    instances = [each for each in seen.instances if (each.metadata.namespace, each.spec.workload) in there]
    running = _running(instances, templates)
    classes, class_of = _classes(devices)
    past = _Past(seen, instances)
    return TwinFleet(
        taken_at=now,
        sites=_sites(seen.sites, devices),
        classes=classes,
        devices=tuple(
            TwinDevice(
                name=each.metadata.name,
                site=each.spec.site or _NO_SITE,
                device_class=class_of[each.metadata.name].name,
                labels=dict(sorted(each.metadata.labels.items())),
                capacity=_override(each, class_of[each.metadata.name]),
                history=_history(each, past, now, limits),
                instances=running.get(each.metadata.name, ()),
                unschedulable=each.spec.unschedulable,
            )
            for each in devices
        ),
        artifacts=tuple(_artifact(each) for each in sorted(seen.artifacts, key=_key_of)),
        versions=_versions(seen, workloads, running, limits),
        workloads=workloads,
        taken_back=tuple(_taken_back(seen, templates)),
        secret_names=tuple(sorted({*seen.secret_names, *_secrets(workloads)})),
    )


def _stays(device: Device) -> bool:
    return not device.spec.decommission and device.metadata.deleted_at is None


def _key_of(resource: Workload | Artifact) -> _Key:
    return resource.metadata.namespace, resource.metadata.name


def _named(metadata: Metadata) -> Metadata:
    """Return what a twin may know of the envelope: not the annotations, which may hold anything."""
    return Metadata(name=metadata.name, namespace=metadata.namespace, labels=dict(sorted(metadata.labels.items())))


# ---- places and machines ----


def _sites(sites: Iterable[Site], devices: Iterable[Device]) -> tuple[TwinSite, ...]:
    """Return all sites at which a device stands, the links as people described them: latency is not measured, so it is the usual one."""
    known = {each.metadata.name: each for each in sites}
    found = []
    for name in sorted({device.spec.site for device in devices}):
        site = known.get(name)
        if site is None:
            found.append(TwinSite(name=name or _NO_SITE))
            continue
        described, usual = site.spec.link, LinkQuality()
        bandwidth = float(whole(described.bandwidth)) if described.bandwidth is not None else usual.bandwidth
        link = LinkQuality(bandwidth=bandwidth, metered=described.metered)
        found.append(TwinSite(name=name, link=link, failover_domain=site.spec.failover_domain))
    return tuple(found)


def _capacity(device: Device) -> Capacity:
    """Return what a device has, without its network."""
    known = device.status.capacity
    return msgspec.structs.replace(
        known,
        runtimes=dict(sorted(known.runtimes.items())),
        accelerators=tuple(sorted(known.accelerators, key=lambda each: (each.name, each.kind, each.memory))),
        peripherals=tuple(sorted(known.peripherals)),
        network={},
    )


def _class_name(device: Device) -> str:
    """Return the declared class as a name; what a device called itself may be anything printable."""
    declared = device.spec.device_class
    try:
        return msgspec.convert(declared, Name)
    except msgspec.ValidationError:
        pass
    name = "".join(char if char.isascii() and char.isalnum() else "-" for char in declared.lower()).strip("-")[:100].strip("-")
    return name or _NO_CLASS


def _classes(devices: Iterable[Device]) -> tuple[tuple[DeviceClass, ...], dict[str, DeviceClass]]:
    """Return the classes, each with the capacity that most of its devices have, and the class of each device."""
    groups: dict[str, Counter[bytes]] = defaultdict(Counter)
    names: dict[str, str] = {}
    for device in devices:
        names[device.metadata.name] = _class_name(device)
        groups[names[device.metadata.name]][msgspec.json.encode(_capacity(device))] += 1
    classes = {}
    for name, capacities in sorted(groups.items()):
        usual = min(capacities.items(), key=lambda item: (-item[1], item[0]))[0]
        weight = float(capacities.total())
        classes[name] = DeviceClass(name=name, capacity=msgspec.json.decode(usual, type=Capacity), weight=weight)
    return tuple(classes.values()), {device: classes[name] for device, name in names.items()}


def _override(device: Device, sort: DeviceClass) -> Capacity | None:
    capacity = _capacity(device)
    return capacity if capacity != sort.capacity else None


# ---- what runs ----


def _workload(workload: Workload, templates: _Templates) -> Workload:
    """Return a workload as it was last good: where its newest revision is still on its way, or was taken back, the one before."""
    spec, status = workload.spec, workload.status
    space, name = _key_of(workload)
    stable = templates.get((space, name, status.stable_revision))
    if stable is not None and status.stable_revision != status.revision:
        spec = msgspec.structs.replace(
            spec,
            artifact=ArtifactReference(name=stable.artifact, version=stable.version),
            resources=stable.resources,
            peripherals=stable.peripherals,
            parameters=stable.parameters,
            config=NameReference(name=stable.config) if stable.config is not None else None,
            secrets=tuple(NameReference(name=secret) for secret in stable.secrets),
        )
    return Workload(metadata=_named(workload.metadata), spec=spec)


def _taken_back(seen: Seen, templates: _Templates) -> Iterator[TakenBack]:
    for each in sorted(seen.workloads, key=_key_of):
        space, name = _key_of(each)
        for revision in each.status.rejected:
            template = templates.get((space, name, revision))
            if template is not None and each.metadata.deleted_at is None:
                yield TakenBack(
                    workload=f"{space}/{name}",
                    artifact=template.artifact,
                    version=template.version,
                    resources=template.resources,
                    peripherals=template.peripherals,
                    parameters=template.parameters,
                    config=template.config or "",
                )


def _running(instances: Iterable[Instance], templates: _Templates) -> dict[str, tuple[Running, ...]]:
    found: dict[str, list[Running]] = defaultdict(list)
    for each in instances:
        status, space, workload = each.status, each.metadata.namespace, each.spec.workload

        def version(revision: str, space: str = space, workload: str = workload) -> str:
            template = templates.get((space, workload, revision))
            return template.version if template is not None else ""

        held = {version(status.revision), version(status.committed), ""}
        refused = {version(revision) for revision in status.refused} - held
        found[each.spec.device].append(
            Running(
                workload=f"{space}/{workload}",
                version=version(status.revision),
                committed=version(status.committed),
                previous=version(status.previous),
                # A version of which another revision runs (another config, say) is not refused as such.
                refused=tuple(sorted(refused)),
            )
        )
    return {device: tuple(sorted(running, key=lambda each: each.workload)) for device, running in sorted(found.items())}


def _artifact(artifact: Artifact) -> Artifact:
    return Artifact(metadata=_named(artifact.metadata), spec=msgspec.structs.replace(artifact.spec, description=""))


def _versions(
    seen: Seen, workloads: Iterable[Workload], running: Mapping[str, tuple[Running, ...]], limits: SnapshotLimits
) -> tuple[ArtifactVersion, ...]:
    """Return the versions that run, have an alias, are asked for, or are new; oldest first, as the newest is what others are like."""
    artifact_of = {_key_of(each): each.spec.artifact.name for each in workloads}
    wanted = {*seen.wanted}
    for each in workloads:
        wanted.add(f"{each.metadata.namespace}/{each.spec.artifact.name}:{each.spec.artifact.version}")
    for artifact in seen.artifacts:
        space, name = _key_of(artifact)
        wanted |= {f"{space}/{name}:{version}" for version in artifact.spec.aliases.values()}
    for one in {one for each in running.values() for one in each}:
        space, _, name = one.workload.partition("/")
        wanted |= {f"{space}/{artifact_of[space, name]}:{version}" for version in (one.version, one.committed, one.previous)}
    lines: dict[_Key, list[ArtifactVersion]] = defaultdict(list)
    for version in sorted(seen.versions, key=lambda each: (each.metadata.created_at, each.metadata.name)):
        lines[version.metadata.namespace, version.spec.manifest.artifact].append(version)
    kept = []
    for (space, _), line in sorted(lines.items()):
        newest = len(line) - limits.versions_per_artifact
        kept += [each for number, each in enumerate(line) if number >= newest or f"{space}/{each.metadata.name}" in wanted]
    return tuple(ArtifactVersion(metadata=_named(each.metadata), spec=each.spec) for each in kept)


def _secrets(workloads: Iterable[Workload]) -> Iterator[str]:
    for each in workloads:
        yield from (f"{each.metadata.namespace}/{secret.name}" for secret in each.spec.secrets)


# ---- the past ----


class _Past:
    """How often updates failed that were well on most other devices: those of rollouts that succeeded. What took a version back
    everywhere was the version, not the device."""

    def __init__(self, seen: Seen, instances: Iterable[Instance]) -> None:
        good = [each for each in seen.rollouts if each.status.state is RolloutState.SUCCEEDED]
        touched = sum(each.status.touched for each in good)
        self._rate = min(1.0, sum(each.status.members.failed for each in good) / touched) if touched else 0.0
        self._updates: Counter[str] = Counter()
        self._failed: dict[str, set[tuple[str, str, str]]] = defaultdict(set)
        works = {(each.metadata.namespace, each.spec.workload, each.spec.to_revision) for each in good}
        counts = Counter((each.metadata.namespace, each.spec.workload) for each in good)
        for rollout in good:
            key = (rollout.metadata.namespace, rollout.spec.workload, rollout.spec.to_revision)
            for device in rollout.status.failures:
                self._failed[device].add(key)
        for instance in instances:
            space, workload, device = instance.metadata.namespace, instance.spec.workload, instance.spec.device
            self._updates[device] += counts[space, workload]
            self._failed[device] |= {(space, workload, revision) for revision in instance.status.refused} & works

    def update_failures(self, device: str) -> float:
        """Return the share of a device's updates that fail for its own reasons."""
        failed = len(self._failed.get(device, ()))
        updates = max(self._updates[device], failed)
        return round(min(1.0, (failed + _PRIOR_UPDATES * self._rate) / (updates + _PRIOR_UPDATES)), 4)


def _history(device: Device, past: _Past, now: float, limits: SnapshotLimits) -> History:
    known: DeviceHistory = device.status.history
    offline = device.status.connection is Connection.OFFLINE
    days = max((now - known.since) / _DAY, limits.observed_days_min) if known.since else 0.0
    over = known.outages - offline
    lengths = {"outage_seconds": round(known.offline_seconds / over, 1)} if over > 0 else {}
    return History(
        outages_per_day=round(known.outages / days, 4) if days else 0.0,
        restarts_per_day=round(known.restarts / days, 4) if days else 0.0,
        update_failures=past.update_failures(device.metadata.name),
        offline=offline,
        **lengths,
    )
