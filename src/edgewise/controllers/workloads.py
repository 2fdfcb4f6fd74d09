"""A workload's way from its spec to instances: which revision it means, which rollout brings it, where it runs, how it fares."""

import msgspec

from edgewise.controllers.desired import snapshot_key
from edgewise.controllers.documents import create, delete_any, event, put_labelled, put_spec, put_status, uid_of
from edgewise.controllers.judging import evidence_key
from edgewise.controllers.members import Members
from edgewise.controllers.placements import place
from edgewise.controllers.rollouts import due, step, superseded
from edgewise.controllers.rows import RevisionRow, RolloutRow, WorkloadKey, WorkloadRow
from edgewise.controllers.view import FleetView
from edgewise.controllers.work import Work
from edgewise.delivery.templates import Sources, Unready, resolve, template_hash
from edgewise.resources.config import ConfigSpec
from edgewise.resources.meta import Condition
from edgewise.resources.rollout import RolloutSpec, RolloutStatus
from edgewise.resources.workload import Template, WorkloadRevisionSpec, WorkloadSpec
from edgewise.store.contract import EventRow, Key, Write


def reconcile(view: FleetView, key: WorkloadKey, work: Work) -> None:
    """Gather what a workload wants now."""
    row = view.workloads.get(key)
    if row is None or row.deleted_at is not None:
        _remove(view, key, row, view.members.get(key), work)
        return
    members = view.members_of(key)
    before = work.written
    target = _target(view, row)
    rollout = view.active_rollout(key)
    if isinstance(target, Template) and (_begin(view, row, target, rollout, work) or _share(row, rollout, work)):
        return
    place(view, row, members, rollout, work)
    if rollout is not None and work.written == before and not row.unplaced:
        step(view, row, rollout, members, work)
    if work.written == before:
        _status(view, row, members, target, work)
    if work.written == before:
        _prune(view, row, members, work)


def sources_of(view: FleetView, namespace: str, spec: WorkloadSpec) -> Sources:
    """Return what a workload's spec refers to."""
    configs = {}
    if spec.config is not None:
        config = view.configs.get(Key("Config", namespace, spec.config.name))
        if config is not None:
            configs[spec.config.name] = config.digest
    secrets = {}
    for reference in spec.secrets:
        secret = view.secrets.get(Key("Secret", namespace, reference.name))
        if secret is not None:
            secrets[reference.name] = secret.spec.digest
    return Sources(
        aliases=view.artifacts.get((namespace, spec.artifact.name)),
        versions=view.versions.get((namespace, spec.artifact.name), {}),
        configs=configs,
        secrets=secrets,
    )


def resolve_spec(view: FleetView, namespace: str, spec: WorkloadSpec) -> Template | Unready:
    """Return the template that a workload's spec means now, or why it means none."""
    return resolve(spec, sources_of(view, namespace, spec))


def _target(view: FleetView, row: WorkloadRow) -> Template | Unready:
    if row.target is None:
        row.target = resolve_spec(view, row.key.namespace, row.spec)
        row.target_hash = template_hash(row.target) if isinstance(row.target, Template) else ""
    return row.target


# ---- revisions and rollouts ----


def _begin(view: FleetView, row: WorkloadRow, target: Template, rollout: RolloutRow | None, work: Work) -> bool:
    """Gather the revision that the spec means and the rollout to it, in one transaction, where they are not there yet."""
    revisions = view.revisions.get(row.name, {})
    writes: list[Write] = []
    known = revisions.get(row.target_hash)
    number = known.number if known is not None else 1 + max((revision.number for revision in revisions.values()), default=0)
    if known is None:
        writes += _revision(view, row, target, number)
    start = _start(view, row, target, rollout, work)
    writes += start
    status = msgspec.structs.replace(
        row.status,
        observed_generation=row.generation,
        revision=row.target_hash,
        revisions=max(number, row.status.revisions),
    )
    if status != row.status and (writes or status.revision != row.status.revision):
        writes.append(put_status(row, status))
    if not writes:
        return False
    events: tuple[EventRow, ...] = ()
    if start:
        message = f"rolling out version {target.version} of {target.artifact} as revision {row.target_hash}"
        events = (event(work.now, "RolloutStarted", message, row.key),)
    work.add(writes, events)
    return True


def _revision(view: FleetView, row: WorkloadRow, target: Template, number: int) -> list[Write]:
    """Make the revision, and keep what it was made from: devices on it keep their config when a newer one goes out."""
    namespace = row.key.namespace
    key = Key("WorkloadRevision", namespace, f"{row.key.name}-{row.target_hash}")
    spec = WorkloadRevisionSpec(workload=row.key.name, hash=row.target_hash, number=number, template=target)
    writes: list[Write] = [create(key, uid_of(key, view.epoch, view.revision), spec)]
    if target.config is not None:
        kept = snapshot_key("ConfigSnapshot", namespace, target.config, target.config_digest)
        if kept not in view.configs:
            data = view.configs[Key("Config", namespace, target.config)].data
            writes.append(create(kept, uid_of(kept, view.epoch, view.revision), ConfigSpec(data=data)))
    for name, digest in zip(target.secrets, target.secret_digests, strict=True):
        kept = snapshot_key("SecretSnapshot", namespace, name, digest)
        if kept not in view.secrets:
            writes.append(create(kept, uid_of(kept, view.epoch, view.revision), view.secrets[Key("Secret", namespace, name)].spec))
    return writes


def _start(view: FleetView, row: WorkloadRow, target: Template, rollout: RolloutRow | None, work: Work) -> list[Write]:
    """Return what begins a rollout to the target, taking over from one that is under way elsewhere."""
    to, stable = row.target_hash, row.status.stable_revision
    if to in row.status.rejected or (rollout.spec.to_revision if rollout is not None else stable) == to:
        return []
    number = 1 + max((known.number for known in view.rollouts.get(row.name, {}).values()), default=0)
    key = Key("Rollout", row.key.namespace, f"{row.key.name}-{number}")
    spec = RolloutSpec(workload=row.key.name, to_revision=to, from_revision=stable, version=target.version, strategy=row.spec.strategy)
    writes: list[Write] = [create(key, uid_of(key, view.epoch, view.revision), spec, RolloutStatus(started_at=work.now))]
    if rollout is not None:
        writes.append(put_status(rollout, superseded(rollout, key.name, work.now)))
    return writes


def _share(row: WorkloadRow, rollout: RolloutRow | None, work: Work) -> bool:
    """Have a rollout under way follow a changed share of the requests: that is no other revision, and no other rollout."""
    wanted = row.spec.strategy.ab
    known = rollout.spec.strategy.ab if rollout is not None else None
    if rollout is None or wanted is None or known is None or rollout.spec.to_revision != row.target_hash or wanted.share == known.share:
        return False
    strategy = msgspec.structs.replace(rollout.spec.strategy, ab=msgspec.structs.replace(known, share=wanted.share))
    message = f"{rollout.key.name}: the new revision gets {wanted.share} of the requests now (before: {known.share})"
    put = put_labelled(rollout, msgspec.structs.replace(rollout.spec, strategy=strategy))
    work.add((put,), (event(work.now, "RolloutShare", message, rollout.key),))
    return True


# ---- status ----


def _status(view: FleetView, row: WorkloadRow, members: Members, target: Template | Unready, work: Work) -> None:
    """Gather the workload's status: at once when it answers a new spec, else not more often than the limit says."""
    status = msgspec.structs.replace(row.status, observed_generation=row.generation, instances=members.running, ready=members.ready)
    condition = _ready(row, members, target)
    before = next((known for known in row.status.conditions if known.type == "Ready"), None)
    unchanged = before is not None and (before.status, before.reason, before.message) == (
        condition.status,
        condition.reason,
        condition.message,
    )
    if not unchanged:
        since = before.since if before is not None and before.status == condition.status else work.now
        others = tuple(known for known in row.status.conditions if known.type != "Ready")
        status = msgspec.structs.replace(status, conditions=(*others, msgspec.structs.replace(condition, since=since)))
    if status == row.status:
        return
    if status.observed_generation != row.status.observed_generation or due(view, row):
        work.add((put_status(row, status),))


def _ready(row: WorkloadRow, members: Members, target: Template | Unready) -> Condition:
    if isinstance(target, Unready):
        return Condition(type="Ready", status="False", reason=target.reason, message=target.message)
    if row.target_hash in row.status.rejected:
        stable = row.status.stable_revision
        message = f"revision {row.target_hash} was taken back; {f'{stable} runs on' if stable else 'nothing may run'}"
        return Condition(type="Ready", status="False", reason="RevisionRejected", message=message)
    replicas = row.spec.placement.replicas
    if row.short and replicas is not None:
        placed = members.running - len(members.lost)
        message = f"{placed} of {replicas} replicas are placed; no other device fits (see: edgewise describe workload {row.key.name})"
        return Condition(type="Ready", status="False", reason="TooFewDevices", message=message)
    if members.ready < members.running:
        return Condition(type="Ready", status="False", reason="NotReady", message=f"{members.ready} of {members.running} are ready")
    return Condition(type="Ready", status="True", reason="Ready")


# ---- the end, and history ----


def _remove(view: FleetView, key: WorkloadKey, row: WorkloadRow | None, members: Members | None, work: Work) -> None:
    """Stop everything of a workload that was deleted; when its devices say that nothing is left, its documents go."""
    if members is not None and members.instances:
        for device, instance in sorted(members.instances.items()):
            if work.full:
                return
            if device not in view.devices:
                work.add((delete_any(instance.key, instance.uid),))
            elif instance.running:
                work.add((put_spec(instance, msgspec.structs.replace(instance.spec, desired="Stopped", hold=False)),))
        return
    for kind in (view.rollouts, view.revisions):
        for known in kind.get(key, {}).values():
            if not work.full:
                work.add((delete_any(known.key, known.uid),))
    if row is not None and not work.full:
        kept = [delete_any(evidence_key(key), "")] if key in view.evidence else []
        writes: list[Write] = [
            delete_any(row.key, row.uid),
            *kept,
            *_unreferenced(view, key[0], leaving=set(view.revisions.get(key, {})), of=key),
        ]
        work.add(writes, (event(work.now, "Deleted", f"workload {key[0]}/{key[1]} is gone from every device", row.key),))


def _prune(view: FleetView, row: WorkloadRow, members: Members, work: Work) -> None:
    """Forget old history: rollouts that are over, and revisions that nothing needs."""
    limits = view.limits.controllers
    rollouts = view.rollouts.get(row.name, {})
    if len(rollouts) > limits.rollouts_kept:
        over = sorted((known for known in rollouts.values() if known.status.finished_at is not None), key=lambda known: known.number)
        work.add([delete_any(known.key, known.uid) for known in over[: max(0, len(over) - limits.rollouts_kept)]])
    revisions = view.revisions.get(row.name, {})
    if len(revisions) <= limits.revisions_kept:
        return
    used = {row.target_hash, row.status.stable_revision, *(instance.spec.revision for instance in members.instances.values())}
    for rollout in rollouts.values():
        used |= {rollout.spec.to_revision, rollout.spec.from_revision}
    spare: list[RevisionRow] = sorted((known for known in revisions.values() if known.hash not in used), key=lambda known: known.number)
    old = spare[: max(0, len(spare) - limits.revisions_kept)]
    if old:
        leaving = {known.hash for known in old}
        work.add([*(delete_any(known.key, known.uid) for known in old), *_unreferenced(view, row.key.namespace, leaving, row.name)])


def _unreferenced(view: FleetView, namespace: str, leaving: set[str], of: WorkloadKey) -> list[Write]:
    """Return the removal of kept configs and secrets that only the leaving revisions of one workload refer to."""
    kept: set[Key] = set()
    gone: set[Key] = set()
    for key, revisions in view.revisions.items():
        if key[0] == namespace:
            for revision in revisions.values():
                (gone if key == of and revision.hash in leaving else kept).update(_snapshots(namespace, revision.template))
    there = view.configs.keys() | view.secrets.keys()
    return [delete_any(key, "") for key in sorted((gone - kept) & there)]


def _snapshots(namespace: str, template: Template) -> set[Key]:
    keys = {
        snapshot_key("SecretSnapshot", namespace, name, digest)
        for name, digest in zip(template.secrets, template.secret_digests, strict=True)
    }
    if template.config is not None:
        keys.add(snapshot_key("ConfigSnapshot", namespace, template.config, template.config_digest))
    return keys
