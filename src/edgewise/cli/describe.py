"""`describe`: everything about one resource, as text that people read from top to bottom."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, assert_never

import msgspec

from edgewise.cli.causes import explained, risk_lines
from edgewise.cli.evidence import evidence, strategy_words
from edgewise.cli.output import as_yaml, painted, table
from edgewise.cli.tables import (
    artifact_of,
    connection_of,
    lifecycle_of,
    members_of,
    or_dash,
    placement_of,
    update_of,
    wave_of,
)
from edgewise.cli.words import age, cpu, labels, moment, size, span
from edgewise.resources.artifact import Artifact, ArtifactVersion
from edgewise.resources.config import Config, Secret
from edgewise.resources.device import Agent, Capacity, Device
from edgewise.resources.instance import Instance, InstanceStatus
from edgewise.resources.kinds import BY_TYPE, Resource
from edgewise.resources.meta import Condition
from edgewise.resources.rollout import MemberCounts, Rollout
from edgewise.resources.selector import Selector
from edgewise.resources.site import Site
from edgewise.resources.workload import Workload, WorkloadRevision

if TYPE_CHECKING:
    from edgewise.client.answers import DevicePlan
    from edgewise.client.fleet import Client

_EVENTS_SHOWN: Final = 10
_FAILURES_SHOWN: Final = 20
_ROWS_MAX: Final = 200
Lines = list[str]
Pairs = Sequence[tuple[str, str]]


async def described(client: "Client", resource: Resource, now: float) -> str:
    """Return everything about `resource`, with what belongs to it."""
    lines = _head(resource, now)
    match resource:
        case Workload():
            lines += await _workload(client, resource, now)
        case Device():
            lines += await _device(client, resource, now)
        case Rollout():
            lines += await _rollout(client, resource, now)
        case Instance():
            lines += _instance(resource, now)
        case ArtifactVersion():
            lines += _version(resource)
        case Agent():
            lines += _agent(resource)
        case Artifact():
            lines += await _artifact(client, resource, now)
        case Site() | Config() | WorkloadRevision():
            lines += ["Spec:", *_indented(as_yaml(msgspec.to_builtins(resource.spec)))]
        case Secret():
            lines += ["Keys:", *(f"  {key}" for key in resource.status.keys or ("<none>",))]
        case _:
            assert_never(resource)
    lines += await _events(client, resource, now)
    return "\n".join(lines) + "\n"


def _head(resource: Resource, now: float) -> Lines:
    meta, kind = resource.metadata, BY_TYPE[type(resource)]
    pairs = [("Name", meta.name), ("Kind", kind.name)]
    if kind.namespaced:
        pairs.append(("Namespace", meta.namespace))
    pairs += [("Labels", labels(meta.labels)), ("Created", f"{moment(meta.created_at)} ({age(meta.created_at, now)} ago)")]
    if meta.annotations:
        pairs.append(("Annotations", labels(meta.annotations)))
    if meta.deleted_at is not None:
        pairs.append(("Deleted", f"{moment(meta.deleted_at)}, waiting for what depends on it"))
    return [*_pairs(pairs), *_pairs([("Generation", _generation(resource))])]


def _generation(resource: Resource) -> str:
    observed = getattr(resource.status, "observed_generation", None)
    if observed in {None, 0, resource.metadata.generation}:
        return str(resource.metadata.generation)
    return f"{resource.metadata.generation} (the control plane has taken over {observed})"


# ---- workloads ----


async def _workload(client: "Client", workload: Workload, now: float) -> Lines:
    spec, status, namespace = workload.spec, workload.status, workload.metadata.namespace
    place = "every matching device" if spec.placement.replicas is None else f"{placement_of(spec.placement)} replicas"
    pairs = [
        ("Artifact", artifact_of(spec.artifact)),
        ("Placement", f"{place}, {selector_words(spec.placement.selector)}, prefer {spec.placement.prefer}"),
        ("Resources", f"memory {spec.resources.memory or '-'}, cpu {spec.resources.cpu or '-'}"),
        ("Parameters", labels({key: str(value) for key, value in spec.parameters.items()})),
        ("Strategy", strategy_words(spec.strategy)),
        ("Disconnect", _disconnect(workload)),
        ("Revision", f"{or_dash(status.revision)} (stable: {or_dash(status.stable_revision)}, made so far: {status.revisions})"),
        ("Rejected", ", ".join(status.rejected) or "<none>"),
        ("Instances", f"{status.ready} ready of {status.instances}"),
    ]
    lines = [*_pairs(pairs), *_conditions(status.conditions, now)]
    instances = [each for each in await client.list(Instance, namespace=namespace) if each.spec.workload == workload.metadata.name]
    lines += ["", "Instances:", *_instances(instances, now, column="device")]
    plan = await client.placement(workload.metadata.name, namespace=namespace)
    lines += ["", "Placement:", *([f"  {plan.message}"] if plan.message else placement_table(plan.devices, indent="  ").splitlines())]
    rollouts = await client.rollout_history(workload.metadata.name, namespace=namespace)
    lines += ["", "Rollouts:"]
    lines += _table(
        ["NAME", "STATE", "VERSION", "WAVE", "DONE", "FAILED", "AGE", "MESSAGE"],
        [
            [
                each.metadata.name,
                each.status.state.value,
                or_dash(each.spec.version),
                wave_of(each),
                members_of(each),
                str(each.status.members.failed),
                age(each.metadata.created_at, now),
                each.status.message,
            ]
            for each in rollouts[-5:]
        ],
    )
    failures = sorted(rollouts[-1].status.failures.items()) if rollouts else []
    if failures:
        lines += ["", f"Failures of {rollouts[-1].metadata.name}:", *_failures(failures)]
    return lines


def _failures(failures: Sequence[tuple[str, str]]) -> Lines:
    lines = [f"  {device}: {reason}" for device, reason in failures[:_FAILURES_SHOWN]]
    if len(failures) > _FAILURES_SHOWN:
        lines.append(f"  … and {len(failures) - _FAILURES_SHOWN} more: edgewise get rollouts -o yaml lists all")
    return lines or ["  <none>"]


def placement_table(plan: "Sequence[DevicePlan]", indent: str) -> str:
    """Return per device which variant it gets, or what it lacks: chosen ones first."""
    ordered = sorted(plan, key=lambda each: (not each.chosen, each.device))
    rows = [
        [each.device, "yes" if each.chosen else "no", or_dash(each.variant), each.reason or ("runs there now" if each.current else "")]
        for each in ordered
    ]
    return "".join(f"{indent}{line.strip()}\n" for line in _table(["DEVICE", "CHOSEN", "VARIANT", "REASON"], rows))


def selector_words(selector: Selector) -> str:
    """Return a selector in words."""
    words = [f"{key}={value}" for key, value in sorted(selector.match_labels.items())]
    for each in selector.match_expressions:
        values = f" {', '.join(each.values)}" if each.values else ""
        words.append(f"{each.key} {each.operator}{values}")
    return " and ".join(words) or "any device"


def _disconnect(workload: Workload) -> str:
    spec = workload.spec.disconnect
    words = [f"lost after {spec.lost_after}", "replaced elsewhere" if spec.replace else "never replaced"]
    return ", ".join([*words, "exclusive"] if spec.exclusive else words)


# ---- devices ----


async def _device(client: "Client", device: Device, now: float) -> Lines:
    spec, status = device.spec, device.status
    behind = status.desired_number - status.observed_number
    pairs = [
        ("Site", or_dash(spec.site)),
        ("Class", or_dash(spec.device_class)),
        ("Agent", f"{or_dash(spec.agent)}, version {or_dash(status.agent_version)}"),
        ("Connection", f"{painted(connection_of(device))}, last change {age(status.last_seen, now)} ago"),
        ("Health", painted(status.health.value)),
        ("Update", painted(status.update.value) + (f" ({behind} changes not yet taken over)" if behind > 0 else "")),
    ]
    lines = [*_pairs(pairs), *_conditions(status.conditions, now), "", "Capacity:", *_pairs(_capacity(status.capacity), "  ")]
    instances = [each for each in await client.list(Instance, all_namespaces=True) if each.spec.device == device.metadata.name]
    lines += ["", "Instances:", *_instances(instances, now, column="workload")]
    refused = [(each, revision) for each in instances for revision in each.status.refused]
    lines += ["", "Refused revisions:"]
    for each, revision in refused:
        message = f": {each.status.message}" if each.status.message else ""
        lines.append(f"  {each.metadata.namespace}/{each.spec.workload} {revision}{message}")
    return lines if refused else [*lines, "  <none>"]


def _capacity(capacity: Capacity) -> Pairs:
    accelerators = ", ".join(
        f"{each.name} ({each.kind}, {size(each.memory)}{' shared' if each.shared_memory else ''})" for each in capacity.accelerators
    )
    return [
        ("Architecture", or_dash(capacity.architecture)),
        ("CPU", cpu(capacity.cpu_milli)),
        ("Memory", f"{size(capacity.memory)} usable of {size(capacity.memory_nominal)}"),
        ("Disk", size(capacity.disk)),
        ("Accelerators", accelerators or "<none>"),
        ("Runtimes", ", ".join(f"{name} {version}" for name, version in sorted(capacity.runtimes.items())) or "<none>"),
        ("Peripherals", ", ".join(capacity.peripherals) or "<none>"),
        ("System", f"{or_dash(capacity.os)}, kernel {or_dash(capacity.kernel)}"),
    ]


def _agent(agent: Agent) -> Lines:
    status = agent.status
    return _pairs(
        [
            ("Lifecycle", painted(lifecycle_of(agent))),
            ("Devices", ", ".join(agent.spec.devices) or "<none>"),
            ("Joined", moment(status.joined_at)),
            ("Certificate", f"{or_dash(status.certificate_serial)}, ends {moment(status.certificate_not_after)}"),
            ("Message", or_dash(status.message)),
        ]
    )


# ---- rollouts, instances, versions ----


async def _rollout(client: "Client", rollout: Rollout, now: float) -> Lines:
    spec, status = rollout.spec, rollout.status
    counts = status.members
    ended = status.finished_at if status.finished_at is not None else now
    pairs = [
        ("Workload", spec.workload),
        ("From", or_dash(spec.from_revision)),
        ("To", f"{spec.to_revision} (version {or_dash(spec.version)})"),
        ("State", painted(status.state.value) + (", paused by a person" if spec.paused else "")),
        ("Message", or_dash(status.message)),
        ("Strategy", strategy_words(spec.strategy)),
        ("Wave", f"{wave_of(rollout)}{f', {status.phase}' if status.phase else ''}"),
        (
            "Members",
            _members(counts),
        ),
        ("Touched", f"{status.touched} devices: {', '.join(status.touched_devices) or '-'}"),
        ("Took", span(max(0.0, ended - status.started_at)) if status.started_at else "-"),
        ("Analysis", painted(status.analysis.value) + (f", winner: {status.winner}" if status.winner else "")),
        ("Compared with", ", ".join(status.controls) or "-"),
    ]
    lines = [*_pairs(pairs), "", "Metrics:"]
    lines += _table(
        ["METRIC", "STATE", "MEAN", "SAMPLES", "BEFORE", "SAMPLES"],
        [
            [
                each.metric,
                each.state.value,
                "-" if each.mean is None else f"{each.mean:.4g}",
                str(each.samples),
                "-" if each.old is None else f"{each.old.value:.4g}",
                "-" if each.old is None else str(each.old.samples),
            ]
            for each in status.verdicts
        ],
    )
    lines += ["", "Evidence:", *(evidence(rollout) or ["  <none>"])]
    if status.left_out:
        lines += ["", "Not in this wave:", *_failures(sorted(status.left_out.items()))]
    lines += ["", "Failures:", *_failures(sorted(status.failures.items()))]
    if status.explanations:
        lines += ["", "Likely causes:", *explained(status.explanations)]
    if status.risk is not None:
        lines += ["", "Predicted risk:", *risk_lines(status.risk)]
    members = [
        each
        for each in await client.list(Instance, namespace=rollout.metadata.namespace)
        if each.spec.rollout == rollout.metadata.name or each.spec.workload == spec.workload
    ]
    return [*lines, "", "Members:", *_instances(members, now, column="device")]


def _members(counts: MemberCounts) -> str:
    words = (("succeeded", "done"), ("updating", "updating"), ("pending", "waiting"), ("failed", "failed"), ("unreached", "unreached"))
    return ", ".join(f"{getattr(counts, field)} {word}" for field, word in words)


def _instance(instance: Instance, now: float) -> Lines:
    spec, status = instance.spec, instance.status
    return _pairs(
        [
            ("Workload", spec.workload),
            ("Device", spec.device),
            ("Wanted", f"{spec.desired}, revision {spec.revision}, variant {spec.variant}, epoch {spec.epoch}"),
            ("State", painted(status.state.value) + (", ready" if status.ready else ", not ready")),
            ("Runs", f"revision {or_dash(status.revision)}, variant {or_dash(status.variant)}, slot {or_dash(status.slot)}"),
            ("Update", update_of(instance)),
            ("Traffic", _traffic(status)),
            ("Committed", f"{or_dash(status.committed)} (kept beside it: {or_dash(status.previous)})"),
            ("Refused", ", ".join(status.refused) or "<none>"),
            ("Restarts", str(status.restarts) + ("" if status.exit_code is None else f", last exit code {status.exit_code}")),
            ("Address", or_dash(status.address)),
            ("Started", f"{moment(status.started_at)} ({age(status.started_at, now)} ago)"),
            ("Reason", or_dash(": ".join(part for part in (status.reason, status.message) if part))),
        ]
    )


def _traffic(status: InstanceStatus) -> str:
    traffic = status.traffic
    if traffic is None:
        return "<none>"
    share, candidate = f"{traffic.share * 100:.4g} %", f"revision {status.update_revision}"
    match traffic.mode:
        case "none":
            return f"{candidate} waits, warm"
        case "shadow":
            return f"{candidate} sees copies of {share} of the requests"
        case "split":
            how = f", by {traffic.sticky}" if traffic.sticky else ""
            return f"{candidate} answers {share} of the requests{how}"


async def _artifact(client: "Client", artifact: Artifact, now: float) -> Lines:
    meta = artifact.metadata
    lines = _pairs(
        [
            ("Type", artifact.spec.type),
            ("Latest", or_dash(artifact.status.latest)),
            ("Aliases", labels(artifact.spec.aliases)),
            ("Description", or_dash(artifact.spec.description)),
        ]
    )
    versions = [each for each in await client.list(ArtifactVersion, namespace=meta.namespace) if each.spec.manifest.artifact == meta.name]
    rows = [
        [
            each.spec.manifest.version,
            ", ".join(variant.name for variant in each.spec.manifest.variants),
            size(each.status.size),
            age(each.metadata.created_at, now),
        ]
        for each in sorted(versions, key=lambda each: each.metadata.created_at)
    ]
    return [*lines, "", "Versions:", *_table(["VERSION", "VARIANTS", "SIZE", "AGE"], rows)]


def _version(version: ArtifactVersion) -> Lines:
    manifest = version.spec.manifest
    lines = _pairs([("Type", manifest.type), ("Target", version.spec.target), ("Digest", version.spec.digest)])
    lines += ["", "Variants:"]
    lines += _table(
        ["NAME", "RUNTIME", "PRECISION", "FILES", "SIZE", "NEEDS", "P95"],
        [
            [
                each.name,
                or_dash(each.runtime),
                or_dash(each.precision),
                str(len(each.files)),
                size(sum(file.size for file in each.files)),
                _needs(each.requirements.memory, each.requirements.runtimes, each.requirements.architectures),
                "-" if each.profile.latency_p95_ms is None else f"{each.profile.latency_p95_ms:.3g} ms",
            ]
            for each in manifest.variants
        ],
    )
    lines += ["", "Parameters:"]
    declared = [f"  {name}: {parameter.type}, default {parameter.default}" for name, parameter in sorted(manifest.parameters.items())]
    return [*lines, *(declared or ["  <none>"])]


def _needs(memory: str | float, runtimes: dict[str, str], architectures: tuple[str, ...]) -> str:
    words = [f"memory {memory}"] if memory else []
    words += [f"{name} {version}".strip() for name, version in sorted(runtimes.items())]
    return ", ".join([*words, *architectures]) or "-"


# ---- shared ----


def _instances(instances: Sequence[Instance], now: float, column: str) -> Lines:
    name: Callable[[Instance], str] = (
        (lambda each: each.spec.device) if column == "device" else (lambda each: f"{each.metadata.namespace}/{each.spec.workload}")
    )
    rows = [
        [
            name(each),
            each.status.state.value,
            "yes" if each.status.ready else "no",
            or_dash(each.status.revision),
            or_dash(each.status.variant or each.spec.variant),
            update_of(each),
            str(each.status.restarts),
            age(each.status.started_at, now) if each.status.started_at else "-",
            each.status.message,
        ]
        for each in sorted(instances, key=name)
    ]
    lines = _table([column.upper(), "STATE", "READY", "REVISION", "VARIANT", "UPDATE", "RESTARTS", "UP", "MESSAGE"], rows[:_ROWS_MAX])
    return [*lines, f"  … and {len(rows) - _ROWS_MAX} more: edgewise get instances lists all"] if len(rows) > _ROWS_MAX else lines


def _conditions(conditions: Sequence[Condition], now: float) -> Lines:
    if not conditions:
        return []
    rows = [[each.type, each.status, each.reason, age(each.since, now), each.message] for each in conditions]
    return ["", "Conditions:", *_table(["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"], rows)]


async def _events(client: "Client", resource: Resource, now: float) -> Lines:
    meta = resource.metadata
    known = await client.events(about=f"{BY_TYPE[type(resource)].name}/{meta.namespace}/{meta.name}", limit=_EVENTS_SHOWN)
    rows = [[age(each.at, now), each.type, each.reason, each.source, each.message] for each in known]
    return ["", "Events:", *_table(["AGE", "TYPE", "REASON", "SOURCE", "MESSAGE"], rows)]


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Lines:
    return [f"  {line}" for line in table(titles, rows, cut=False).splitlines()] if rows else ["  <none>"]


def _pairs(pairs: Pairs, indent: str = "") -> Lines:
    return [f"{indent}{title + ':':<14} {value}" for title, value in pairs]


def _indented(text: str) -> Lines:
    return [f"  {line}" for line in text.splitlines()]
