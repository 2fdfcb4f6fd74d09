"""Deleting: what may go at once, what has to end first, and what others still need."""

from collections.abc import Callable
from typing import Final

from edgewise.control.api.access import User
from edgewise.control.api.errors import ApiError, conflict
from edgewise.control.api.shown import found, shown, words
from edgewise.control.services import Services
from edgewise.controllers.documents import audit
from edgewise.controllers.rows import AgentRow
from edgewise.controllers.view import FleetView
from edgewise.resources.kinds import Kind, Resource
from edgewise.resources.states import AgentLifecycle
from edgewise.store.contract import ConflictError, Delete, Document, Key, Put, Transaction, Write

_MADE_BY_CONTROLLERS: Final = frozenset({"Instance", "WorkloadRevision", "Rollout"})


async def delete_resource(services: Services, user: User, kind: Kind, key: Key) -> Resource:
    """Delete what is at `key`; return what it was. A workload is marked, stops everywhere, and is then gone. Raises `ApiError`."""
    if kind.name in _MADE_BY_CONTROLLERS:
        raise ApiError(405, "NotAllowed", f"{kind.name} is made by the control plane and goes with what it belongs to")
    document = await found(services.store, key)
    reason = _needed(services.runner.view, key)
    if reason is not None:
        raise conflict(f"{words(key)} cannot be deleted: {reason}", shown(document))
    now = services.clock.wall()
    write, verb = _write(kind, document, now)
    if write is None:
        return shown(document)
    event = audit(now, user.name, verb, words(key), key)
    try:
        written = await services.runner.commit(Transaction(now=now, writes=(write,), events=(event,)))
    except ConflictError as error:
        raise conflict(f"{words(key)} changed meanwhile: look at it again") from error
    after = next((change.document for change in written.changes if change.key == key), None)
    return shown(after if after is not None else document)


def _write(kind: Kind, document: Document, now: float) -> tuple[Write | None, str]:
    if kind.name != "Workload":
        return Delete(key=document.key, expect=document.generation, uid=document.uid), "Delete"
    if document.deleted_at is not None:
        return None, "Delete"
    marked = Put(
        key=document.key,
        spec=document.spec,
        labels=document.labels,
        annotations=document.annotations,
        expect=document.generation,
        uid=document.uid,
        deleted_at=now,
    )
    return marked, "Delete"


def _needed(view: FleetView, key: Key) -> str | None:
    """Return why something may not go yet, or None."""
    check = _NEEDED.get(key.kind)
    return check(view, key) if check is not None else None


def _site(view: FleetView, key: Key) -> str | None:
    return _some("devices stand there", [name for name, row in view.devices.items() if row.spec.site == key.name])


def _device(view: FleetView, key: Key) -> str | None:
    row = view.agent_of(key.name)
    return f"agent {row.key.name} speaks for it: decommission it first" if row is not None and _enrolled(row) else None


def _agent(view: FleetView, key: Key) -> str | None:
    row = view.agents.get(key.name)
    return "it is enrolled: revoke it, or decommission its device" if row is not None and _enrolled(row) else None


def _enrolled(row: AgentRow) -> bool:
    return not row.spec.revoked and row.status.lifecycle is AgentLifecycle.ENROLLED


def _artifact(view: FleetView, key: Key) -> str | None:
    return _some("versions are published", list(view.versions.get((key.namespace, key.name), {})))


def _version(view: FleetView, key: Key) -> str | None:
    return _some("it is used by the revisions of", _users(view, key))


def _users(view: FleetView, key: Key) -> list[str]:
    artifact, _, version = key.name.partition(":")
    return [
        row.workload
        for (namespace, _), rows in view.revisions.items()
        if namespace == key.namespace
        for row in rows.values()
        if row.template.artifact == artifact and row.template.version == version
    ]


def _some(what: str, names: list[str]) -> str | None:
    if not names:
        return None
    shown_names = sorted(set(names))
    return f"{what}: {', '.join(shown_names[:5])}{' …' if len(shown_names) > 5 else ''}"


_NEEDED: Final[dict[str, Callable[[FleetView, Key], str | None]]] = {
    "Site": _site,
    "Device": _device,
    "Agent": _agent,
    "Artifact": _artifact,
    "ArtifactVersion": _version,
}
"""What others still need, by kind. Kinds that are not here may go at any time."""
