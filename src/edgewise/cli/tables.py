"""Which columns each kind has. One table per kind; `wide` columns come with `-o wide` only."""

from collections.abc import Callable
from typing import Any, Final

import msgspec

from edgewise.cli.words import age, cpu, labels, moment, size, span
from edgewise.resources.artifact import Artifact, ArtifactVersion
from edgewise.resources.config import Config, Secret
from edgewise.resources.device import Agent, Device
from edgewise.resources.instance import Instance
from edgewise.resources.kinds import Kind, Resource
from edgewise.resources.rollout import Rollout
from edgewise.resources.site import Site
from edgewise.resources.states import UpdateState
from edgewise.resources.workload import ArtifactReference, Placement, Workload, WorkloadRevision

Cell = Callable[[Any, float], str]


class Column(msgspec.Struct, frozen=True):
    """One column: its title, and what stands in it for a resource at a time (seconds since the Unix epoch)."""

    title: str
    cell: Cell
    wide: bool = False


def columns(kind: Kind, *, wide: bool, namespaces: bool) -> tuple[Column, ...]:
    """Return the columns of a kind."""
    own = tuple(column for column in _COLUMNS[kind.type] if wide or not column.wide)
    front = (_NAMESPACE,) if namespaces and kind.namespaced else ()
    return (*front, _NAME, *own, _AGE, *((_LABELS,) if wide else ()))


def artifact_of(reference: ArtifactReference) -> str:
    """Return `NAME:VERSION` or `NAME@ALIAS`."""
    return f"{reference.name}:{reference.version}" if reference.version is not None else f"{reference.name}@{reference.alias}"


def placement_of(placement: Placement) -> str:
    """Return where a workload runs, in one word."""
    return "every" if placement.replicas is None else str(placement.replicas)


def connection_of(device: Device) -> str:
    """Return the connection, and what keeps new instances away."""
    words = [device.status.connection.value]
    if device.spec.decommission:
        words.append("Decommissioned")
    elif device.spec.unschedulable:
        words.append("Cordoned")
    return ",".join(words)


def lifecycle_of(agent: Agent) -> str:
    """Return the lifecycle, or what overrides it."""
    return "Quarantined" if agent.spec.quarantined else "Revoked" if agent.spec.revoked else agent.status.lifecycle.value


def update_of(instance: Instance) -> str:
    """Return where an update stands, and of which revision it speaks."""
    status = instance.status
    if status.update is UpdateState.IDLE or not status.update_revision:
        return status.update.value
    words = f"{status.update.value} {status.update_revision[:7]}"
    return f"{words}, again within {span(status.retry_seconds)}" if status.retry_seconds else words


def wave_of(rollout: Rollout) -> str:
    """Return `wave/waves`."""
    return f"{rollout.status.wave}/{rollout.status.waves}" if rollout.status.waves else "-"


def members_of(rollout: Rollout) -> str:
    """Return `done/all`, as kubectl's READY."""
    counts = rollout.status.members
    total = counts.pending + counts.updating + counts.succeeded + counts.failed + counts.unreached
    return f"{counts.succeeded}/{total}"


def or_dash(text: str) -> str:
    """Return `text`, or `-` when it is empty."""
    return text or "-"


_NAMESPACE: Final = Column("NAMESPACE", lambda each, _: each.metadata.namespace)
_NAME: Final = Column("NAME", lambda each, _: each.metadata.name)
_AGE: Final = Column("AGE", lambda each, now: age(each.metadata.created_at, now) + (",Deleting" if each.metadata.deleted_at else ""))
_LABELS: Final = Column("LABELS", lambda each, _: labels(each.metadata.labels))

_COLUMNS: Final[dict[type[Resource], tuple[Column, ...]]] = {
    Site: (
        Column("TIME-ZONE", lambda each, _: each.spec.time_zone),
        Column("DEVICES", lambda each, _: str(each.status.devices)),
        Column("METERED", lambda each, _: str(each.spec.link.metered).lower(), wide=True),
        Column("FAILOVER", lambda each, _: each.spec.failover_domain or each.metadata.name, wide=True),
    ),
    Device: (
        Column("SITE", lambda each, _: or_dash(each.spec.site)),
        Column("CLASS", lambda each, _: or_dash(each.spec.device_class)),
        Column("CONNECTION", lambda each, _: connection_of(each)),
        Column("HEALTH", lambda each, _: each.status.health.value),
        Column("UPDATE", lambda each, _: each.status.update.value),
        Column("ARCH", lambda each, _: or_dash(each.status.capacity.architecture), wide=True),
        Column("CPU", lambda each, _: cpu(each.status.capacity.cpu_milli), wide=True),
        Column("MEMORY", lambda each, _: size(each.status.capacity.memory), wide=True),
        Column("DISK", lambda each, _: size(each.status.capacity.disk), wide=True),
        Column("AGENT", lambda each, _: or_dash(each.status.agent_version), wide=True),
        Column("LAST-SEEN", lambda each, now: age(each.status.last_seen, now), wide=True),
    ),
    Agent: (
        Column("LIFECYCLE", lambda each, _: lifecycle_of(each)),
        Column("DEVICES", lambda each, _: str(len(each.spec.devices))),
        Column("CERTIFICATE-ENDS", lambda each, _: moment(each.status.certificate_not_after)),
        Column("MESSAGE", lambda each, _: or_dash(each.status.message), wide=True),
    ),
    Artifact: (
        Column("TYPE", lambda each, _: each.spec.type),
        Column("LATEST", lambda each, _: or_dash(each.status.latest)),
        Column("ALIASES", lambda each, _: labels(each.spec.aliases)),
    ),
    ArtifactVersion: (
        Column("TYPE", lambda each, _: each.spec.manifest.type),
        Column("VARIANTS", lambda each, _: ",".join(variant.name for variant in each.spec.manifest.variants)),
        Column("SIZE", lambda each, _: size(sum(file.size for variant in each.spec.manifest.variants for file in variant.files))),
        Column("DIGEST", lambda each, _: each.spec.digest[:19], wide=True),
    ),
    Workload: (
        Column("ARTIFACT", lambda each, _: artifact_of(each.spec.artifact)),
        Column("PLACE", lambda each, _: placement_of(each.spec.placement)),
        Column("READY", lambda each, _: f"{each.status.ready}/{each.status.instances}"),
        Column("REVISION", lambda each, _: or_dash(each.status.revision)),
        Column("STABLE", lambda each, _: or_dash(each.status.stable_revision)),
        Column("SELECTOR", lambda each, _: labels(each.spec.placement.selector.match_labels), wide=True),
    ),
    WorkloadRevision: (
        Column("WORKLOAD", lambda each, _: each.spec.workload),
        Column("NUMBER", lambda each, _: str(each.spec.number)),
        Column("ARTIFACT", lambda each, _: f"{each.spec.template.artifact}:{each.spec.template.version}"),
    ),
    Instance: (
        Column("STATE", lambda each, _: each.status.state.value),
        Column("READY", lambda each, _: "yes" if each.status.ready else "no"),
        Column("REVISION", lambda each, _: or_dash(each.status.revision)),
        Column("UPDATE", lambda each, _: update_of(each)),
        Column("RESTARTS", lambda each, _: str(each.status.restarts)),
        Column("VARIANT", lambda each, _: or_dash(each.status.variant or each.spec.variant), wide=True),
        Column("ADDRESS", lambda each, _: or_dash(each.status.address), wide=True),
        Column("REASON", lambda each, _: or_dash(each.status.reason), wide=True),
    ),
    Rollout: (
        Column("STATE", lambda each, _: each.status.state.value),
        Column("VERSION", lambda each, _: or_dash(each.spec.version)),
        Column("WAVE", lambda each, _: wave_of(each)),
        Column("DONE", lambda each, _: members_of(each)),
        Column("FAILED", lambda each, _: str(each.status.members.failed)),
        Column("ANALYSIS", lambda each, _: each.status.analysis.value),
        Column("FROM", lambda each, _: or_dash(each.spec.from_revision), wide=True),
        Column("TO", lambda each, _: each.spec.to_revision, wide=True),
        Column("MESSAGE", lambda each, _: or_dash(each.status.message), wide=True),
    ),
    Config: (Column("KEYS", lambda each, _: str(len(each.spec.data))),),
    Secret: (Column("KEYS", lambda each, _: str(len(each.status.keys))),),
}
