"""How documents about workloads change the view: what they refer to, their revisions, instances and rollouts."""

from typing import TYPE_CHECKING, Final

import msgspec

from edgewise.controllers.metrics import WaveMetrics
from edgewise.controllers.rows import (
    AgentRow,
    ContentRow,
    DeviceRow,
    EvidenceRow,
    EvidenceSpec,
    InstanceRow,
    RevisionRow,
    RiskRow,
    RolloutRow,
    SecretRow,
    WorkloadRow,
)
from edgewise.controllers.tokens import JoinTokenRow
from edgewise.delivery.facts import version_facts
from edgewise.delivery.risk import RiskModel, sound
from edgewise.delivery.rollout import Seen
from edgewise.delivery.stages import pace_of, stage_at
from edgewise.delivery.templates import data_digest
from edgewise.resources.artifact import ArtifactSpec, ArtifactVersionSpec
from edgewise.resources.config import ConfigSpec, SecretSpec
from edgewise.resources.instance import InstanceSpec
from edgewise.resources.quantity import seconds
from edgewise.resources.rollout import RolloutSpec, RolloutStatus
from edgewise.resources.states import AnalysisState, InstanceState, RolloutState, UpdateState
from edgewise.resources.workload import WorkloadRevisionSpec, WorkloadSpec, WorkloadStatus
from edgewise.store.contract import Change, Document, Key

if TYPE_CHECKING:
    from edgewise.controllers.view import FleetView

_ARTIFACT: Final = msgspec.msgpack.Decoder(ArtifactSpec)
_VERSION: Final = msgspec.msgpack.Decoder(ArtifactVersionSpec)
_WORKLOAD: Final = msgspec.msgpack.Decoder(WorkloadSpec)
_WORKLOAD_STATUS: Final = msgspec.msgpack.Decoder(WorkloadStatus)
_REVISION: Final = msgspec.msgpack.Decoder(WorkloadRevisionSpec)
_INSTANCE: Final = msgspec.msgpack.Decoder(InstanceSpec)
_SEEN: Final = msgspec.msgpack.Decoder(Seen)
_ROLLOUT: Final = msgspec.msgpack.Decoder(RolloutSpec)
_ROLLOUT_STATUS: Final = msgspec.msgpack.Decoder(RolloutStatus)
_CONFIG: Final = msgspec.msgpack.Decoder(ConfigSpec)
_SECRET: Final = msgspec.msgpack.Decoder(SecretSpec)
_EVIDENCE: Final = msgspec.msgpack.Decoder(EvidenceSpec)
_RISK: Final = msgspec.msgpack.Decoder(RiskModel)
_MEASURED: Final = frozenset({RolloutState.PENDING, RolloutState.PROGRESSING, RolloutState.PAUSED})


def stale(known: "DeviceRow | AgentRow | WorkloadRow | RolloutRow | JoinTokenRow | None", document: Document) -> bool:
    """Return whether a document is no newer than what is known. One transaction may change its spec and then its status: both changes
    carry one revision."""
    if known is None or known.revision < document.revision:
        return False
    if known.revision > document.revision:
        return True
    return known.generation >= document.generation and known.status_revision >= document.status_revision


def artifact(view: "FleetView", change: Change, document: Document | None) -> None:
    key = (change.key.namespace, change.key.name)
    if document is None:
        view.artifacts.pop(key, None)
    else:
        view.artifacts[key] = _ARTIFACT.decode(document.spec).aliases
    _sources_changed(view, change.key.namespace)


def version(view: "FleetView", change: Change, document: Document | None) -> None:
    artifact, _, version = change.key.name.partition(":")
    versions = view.versions.setdefault((change.key.namespace, artifact), {})
    if document is not None:
        spec = _VERSION.decode(document.spec)
        versions[version] = version_facts(spec.manifest, spec.target, spec.digest, spec.length)
    elif not _in_use(view, change.key.namespace, artifact, version):
        versions.pop(version, None)
    view.forget_demands()
    _sources_changed(view, change.key.namespace)


def _in_use(view: "FleetView", namespace: str, artifact: str, version: str) -> bool:
    """Return whether a revision names a version: what devices run is rendered, whoever removed the document."""
    return any(
        row.template.artifact == artifact and row.template.version == version
        for (place, _), rows in view.revisions.items()
        if place == namespace
        for row in rows.values()
    )


def _sources_changed(view: "FleetView", namespace: str) -> None:
    for key, row in view.workloads.items():
        if key[0] == namespace:
            row.target = None
            view.dirty.add(key)


def config(view: "FleetView", change: Change, document: Document | None) -> None:
    if document is None:
        view.configs.pop(change.key, None)
    else:
        known = view.configs.get(change.key)
        if known is not None and known.revision >= document.revision:
            return
        data = _CONFIG.decode(document.spec).data
        view.configs[change.key] = ContentRow(key=change.key, data=data, digest=data_digest(data), revision=document.revision)
    if change.key.kind == "Config":
        _sources_changed(view, change.key.namespace)


def secret(view: "FleetView", change: Change, document: Document | None) -> None:
    if document is None:
        view.secrets.pop(change.key, None)
    else:
        known = view.secrets.get(change.key)
        if known is not None and known.revision >= document.revision:
            return
        original = change.key if change.key.kind == "Secret" else Key("Secret", change.key.namespace, change.key.name.rpartition(".")[0])
        view.secrets[change.key] = SecretRow(
            key=change.key, original=original, spec=_SECRET.decode(document.spec), revision=document.revision
        )
    if change.key.kind == "Secret":
        _sources_changed(view, change.key.namespace)


def workload(view: "FleetView", change: Change, document: Document | None) -> None:
    key = (change.key.namespace, change.key.name)
    before = view.workloads.get(key)
    view.shortest_patience = None
    if document is None:
        if before is not None and before.revision < change.revision:
            del view.workloads[key]
            view.dirty.add(key)
        return
    if stale(before, document):
        return
    same = before is not None and before.generation == document.generation and before.uid == document.uid
    row = view.workloads[key] = WorkloadRow(
        key=document.key,
        uid=document.uid,
        generation=document.generation,
        revision=document.revision,
        status_revision=document.status_revision,
        labels=document.labels,
        annotations=document.annotations,
        deleted_at=document.deleted_at,
        spec=before.spec if same and before is not None else _WORKLOAD.decode(document.spec),
        status=_WORKLOAD_STATUS.decode(document.status) if document.status else WorkloadStatus(),
    )
    if same and before is not None:
        row.target, row.target_hash, row.requests = before.target, before.target_hash, before.requests
        if before.status.stable_revision == row.status.stable_revision:
            row.unplaced, row.short, row.exhausted, row.left_out = before.unplaced, before.short, before.exhausted, before.left_out
    if before is not None and (before.spec.disconnect != row.spec.disconnect or before.spec.strategy != row.spec.strategy):
        view.unrendered.update(view.members[key].instances if key in view.members else ())
    view.dirty.add(key)


def revision(view: "FleetView", change: Change, document: Document | None) -> None:
    if document is None:
        for key, rows in view.revisions.items():
            if key[0] == change.key.namespace:
                for name in [name for name, row in rows.items() if row.key == change.key]:
                    del rows[name]
        return
    spec = _REVISION.decode(document.spec)
    key = (change.key.namespace, spec.workload)
    known = view.revisions.setdefault(key, {})
    known[spec.hash] = RevisionRow(
        key=document.key,
        uid=document.uid,
        generation=document.generation,
        revision=document.revision,
        workload=spec.workload,
        hash=spec.hash,
        number=spec.number,
        template=spec.template,
    )
    view.dirty.add(key)


def instance(view: "FleetView", change: Change, document: Document | None) -> None:
    if document is None:
        _instance_removed(view, change)
        return
    row, before = _instance_row(view, change, document)
    if row is None:
        return
    key, device = (row.key.namespace, row.spec.workload), row.spec.device
    view.members_of(key).put(row, view.reach)
    view.on_device.setdefault(device, {})[key] = row
    if before is not None and before.spec is row.spec:
        view.stirred.setdefault(key, view.now + view.limits.controllers.settle_seconds)
        if before.seen.refused != row.seen.refused:
            view.mark_workload(key, device)
        return
    _room_changed(view, device)
    view.unrendered.add(device)
    view.mark_workload(key, device)
    if before is None:
        _look_at_patience(view, device)
    if before is not None and (before.spec.revision != row.spec.revision or before.spec.variant != row.spec.variant):
        view.mark_device(device)


def _look_at_patience(view: "FleetView", device: str) -> None:
    """Look soon: a new instance may bear a shorter silence of its device than what was there before."""
    agent = view.agent_of(device)
    if agent is not None and agent.key.name in view.presence.watched:
        view.timers.sooner(("agent", agent.key.name), view.now)


def _instance_row(view: "FleetView", change: Change, document: Document) -> tuple[InstanceRow | None, InstanceRow | None]:
    workload, device = split_instance(view, change.key, document)
    before = view.on_device.get(device, {}).get((change.key.namespace, workload))
    if before is not None and (before.revision, before.generation) >= (document.revision, document.generation):
        return None, before
    if before is not None and before.uid == document.uid and before.generation == document.generation:
        spec = before.spec
    else:
        spec = _instance_spec(view, document)
    seen = _seen(view, document)
    row = InstanceRow(key=document.key, uid=document.uid, generation=document.generation, revision=document.revision, spec=spec, seen=seen)
    return row, before


def split_instance(view: "FleetView", key: Key, document: Document | None) -> tuple[str, str]:
    """Return workload and device of an instance named WORKLOAD.DEVICE; both may hold dots, so what is known decides."""
    head, dot, tail = key.name.partition(".")
    while dot:
        if (key.namespace, head) in view.on_device.get(tail, ()):
            return head, tail
        more, dot, tail = tail.partition(".")
        head = f"{head}.{more}"
    if document is None:
        return "", ""
    spec = _INSTANCE.decode(document.spec)
    return spec.workload, spec.device


def _instance_spec(view: "FleetView", document: Document) -> InstanceSpec:
    spec = _INSTANCE.decode(document.spec)
    texts = (spec.workload, spec.device, spec.revision, spec.variant, spec.rollout)
    workload, device, revision, variant, rollout = (view.shared.of(("text", text), text) for text in texts)
    rejected = view.shared.of(("rejected", *spec.rejected), spec.rejected)
    traffic = view.shared.of(("traffic", spec.traffic), spec.traffic) if spec.traffic is not None else None
    return msgspec.structs.replace(
        spec, workload=workload, device=device, revision=revision, variant=variant, rollout=rollout, rejected=rejected, traffic=traffic
    )


_UNREMARKABLE: Final = Seen()


def _seen(view: "FleetView", document: Document) -> Seen:
    if not document.status:
        return _UNREMARKABLE
    seen = _SEEN.decode(document.status)
    if seen.message and not (seen.refused or seen.update is UpdateState.FAILED or seen.state is InstanceState.BROKEN):
        seen = msgspec.structs.replace(seen, message="")
    return view.shared.of(("seen", *msgspec.structs.astuple(seen)), seen)


def _instance_removed(view: "FleetView", change: Change) -> None:
    workload, device = split_instance(view, change.key, None)
    key = (change.key.namespace, workload)
    before = view.on_device.get(device, {}).get(key)
    if before is None or before.revision > change.revision:
        return
    del view.on_device[device][key]
    if not view.on_device[device]:
        del view.on_device[device]
    members = view.members[key]
    members.remove(device)
    if not members.instances and key not in view.workloads:
        del view.members[key]
    _room_changed(view, device)
    view.unrendered.add(device)
    view.mark_workload(key, device)
    view.mark_device(device)
    if device in view.devices and view.devices[device].facts.leaving:
        view.leaving.add(device)


def _room_changed(view: "FleetView", device: str) -> None:
    row = view.devices.get(device)
    if row is not None:
        row.room = None


def rollout(view: "FleetView", change: Change, document: Document | None) -> None:
    if document is None:
        for key, rows in view.rollouts.items():
            if key[0] == change.key.namespace and rows.pop(change.key.name, None) is not None:
                view.dirty.add(key)
        return
    spec = _ROLLOUT.decode(document.spec)
    key = (change.key.namespace, spec.workload)
    rows = view.rollouts.setdefault(key, {})
    before = rows.get(change.key.name)
    if stale(before, document):
        return
    row = rows[change.key.name] = RolloutRow(
        key=document.key,
        uid=document.uid,
        generation=document.generation,
        revision=document.revision,
        status_revision=document.status_revision,
        created_at=document.created_at,
        labels=document.labels,
        annotations=document.annotations,
        spec=spec,
        status=_ROLLOUT_STATUS.decode(document.status) if document.status else RolloutStatus(),
    )
    if before is None or (before.status.state, before.status.wave) != (row.status.state, row.status.wave):
        _wave_changed(view, key)
    elif row.status.finished_at is None:
        _measure(view, key, row)
    view.dirty.add(key)


def _wave_changed(view: "FleetView", key: tuple[str, str]) -> None:
    """Look at all devices again: new ones may get another revision now."""
    view.mark_workload(key)
    active = view.active_rollout(key)
    if active is not None:
        track(view, active)
        return
    view.metrics.pop(f"{key[0]}/{key[1]}", None)
    if key in view.members:
        view.members[key].track("", 0.0, view.reach)


def track(view: "FleetView", rollout: RolloutRow) -> None:
    """Count the members towards where the rollout goes: forward, or back."""
    key = (rollout.key.namespace, rollout.spec.workload)
    back = rollout.status.state is RolloutState.ROLLING_BACK
    _measure(view, key, rollout)
    members = view.members.get(key)
    if members is not None:
        to = rollout.spec.from_revision if back and rollout.spec.from_revision else rollout.spec.to_revision
        members.track(to, seconds(pace_of(rollout.spec.strategy).device_deadline), view.reach)


def _measure(view: "FleetView", key: tuple[str, str], rollout: RolloutRow) -> None:
    """Count what the open wave is judged by, and nothing when there is none."""
    name, spec, status = f"{key[0]}/{key[1]}", rollout.spec, rollout.status
    stage = stage_at(spec, status.wave)
    if not stage.metrics or status.state not in _MEASURED:
        view.metrics.pop(name, None)
        return
    known = view.metrics.get(name)
    if known is None or (known.revision, known.wave) != (spec.to_revision, status.wave):
        kept = view.evidence.get(key)
        known = view.metrics[name] = WaveMetrics(
            spec.to_revision,
            status.wave,
            frozenset(metric.metric for metric in stage.metrics),
            compared=frozenset(metric.metric for metric in stage.metrics if metric.direction is not None),
            old_revision=spec.from_revision,
            paired=stage.paired,
            stored=kept.stored if kept is not None and not view.live else b"",
            before=known,
        )
    if not stage.paired:
        # A wave that was judged is over; its devices may not undo what it showed.
        known.compare_with(frozenset(status.controls) if status.analysis is not AnalysisState.SUCCESSFUL else frozenset())


def evidence(view: "FleetView", change: Change, document: Document | None) -> None:
    key = (change.key.namespace, change.key.name)
    if document is None:
        view.evidence.pop(key, None)
        return
    known = view.evidence.get(key)
    if known is not None and known.uid == document.uid and known.generation >= document.generation:
        return
    stored = _EVIDENCE.decode(document.spec).stored
    view.evidence[key] = EvidenceRow(key=document.key, uid=document.uid, generation=document.generation, stored=stored)
    rollout = view.active_rollout(key)
    if not view.live and rollout is not None:
        # Documents come in any order while a view is filled: what was begun without it begins again.
        view.metrics.pop(f"{key[0]}/{key[1]}", None)
        _measure(view, key, rollout)


def risk(view: "FleetView", change: Change, document: Document | None) -> None:
    known = view.risk
    if document is None:
        view.risk = None
    elif known is None or known.uid != document.uid or known.generation < document.generation:
        model = sound(_RISK.decode(document.spec))
        view.risk = RiskRow(key=change.key, uid=document.uid, generation=document.generation, model=model)
