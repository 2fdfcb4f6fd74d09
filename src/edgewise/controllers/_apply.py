"""How each kind of document changes the view. One function per kind; the table is at the end."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from edgewise.controllers._apply_workloads import (
    artifact,
    config,
    evidence,
    instance,
    revision,
    risk,
    rollout,
    secret,
    stale,
    version,
    workload,
)
from edgewise.controllers.rows import EVIDENCE, RISK, AgentRow, DeviceRow
from edgewise.controllers.tokens import AccessTokenRow, AccessTokenSpec, JoinTokenRow, JoinTokenSpec, JoinTokenStatus
from edgewise.delivery.facts import DeviceFacts
from edgewise.resources.device import AgentSpec, AgentStatus, DeviceSpec, DeviceStatus
from edgewise.resources.site import SiteSpec
from edgewise.resources.states import Connection
from edgewise.store.contract import Change, Document

if TYPE_CHECKING:
    from edgewise.controllers.view import FleetView

_SITE: Final = msgspec.msgpack.Decoder(SiteSpec)
_DEVICE: Final = msgspec.msgpack.Decoder(DeviceSpec)
_DEVICE_STATUS: Final = msgspec.msgpack.Decoder(DeviceStatus)
_AGENT: Final = msgspec.msgpack.Decoder(AgentSpec)
_AGENT_STATUS: Final = msgspec.msgpack.Decoder(AgentStatus)
_JOIN_TOKEN: Final = msgspec.msgpack.Decoder(JoinTokenSpec)
_JOIN_TOKEN_STATUS: Final = msgspec.msgpack.Decoder(JoinTokenStatus)
_ACCESS_TOKEN: Final = msgspec.msgpack.Decoder(AccessTokenSpec)

_TOMBSTONES_MAX: Final = 8_192


def apply_change(view: "FleetView", change: Change) -> None:
    """Take over one change, unless a newer one of the same document was taken over already."""
    apply = _TABLE.get(change.key.kind)
    if apply is None or view.removed.get(change.key, 0) > change.revision:
        view.revision = max(view.revision, change.revision)
        return
    if change.document is None:
        # What was written before the removal may still come.
        view.removed[change.key] = change.revision
        if len(view.removed) > _TOMBSTONES_MAX:
            del view.removed[next(iter(view.removed))]
    view.revision = max(view.revision, change.revision)
    apply(view, change, change.document)


def _site(view: "FleetView", change: Change, document: Document | None) -> None:
    if document is None:
        view.sites.pop(change.key.name, None)
    else:
        view.sites[change.key.name] = _SITE.decode(document.spec)


def _device(view: "FleetView", change: Change, document: Document | None) -> None:
    name = change.key.name
    before = view.devices.get(name)
    if document is None:
        if before is not None and before.revision < change.revision:
            del view.devices[name]
            view.leaving.discard(name)
            view.unrendered.discard(name)
            view.numbers.pop(name, None)
            view.contents.pop(name, None)
            _device_changed(view, name, before, None)
        return
    if stale(before, document):
        return
    spec = before.spec if before is not None and before.generation == document.generation else _DEVICE.decode(document.spec)
    same_status = before is not None and before.status_revision == document.status_revision and before.uid == document.uid
    status = before.status if same_status and before is not None else _device_status(view, document)
    facts = DeviceFacts(
        name=name,
        capacity=status.capacity,
        site=spec.site,
        device_class=spec.device_class,
        labels=view.shared.of(("labels", *sorted(document.labels.items())), document.labels),
        unschedulable=spec.unschedulable,
        leaving=spec.decommission or document.deleted_at is not None,
        online=status.connection is Connection.ONLINE,
    )
    row = DeviceRow(
        key=document.key,
        uid=document.uid,
        generation=document.generation,
        revision=document.revision,
        status_revision=document.status_revision,
        labels=facts.labels,
        annotations=document.annotations or _NOTHING,
        spec=spec,
        status=status,
        facts=facts,
    )
    if before is not None and before.facts == facts:
        row.facts, row.room = before.facts, before.room
    view.devices[name] = row
    _device_changed(view, name, before, row)


_NOTHING: Final[dict[str, str]] = {}


def _device_status(view: "FleetView", document: Document) -> DeviceStatus:
    status = _DEVICE_STATUS.decode(document.status) if document.status else DeviceStatus()
    capacity = view.shared.of(("capacity", msgspec.msgpack.encode(status.capacity)), status.capacity)
    version = view.shared.of(("text", status.agent_version), status.agent_version)
    abilities = view.shared.of(("abilities", status.capabilities), status.capabilities)
    return msgspec.structs.replace(status, capacity=capacity, agent_version=version, capabilities=abilities)


def _device_changed(view: "FleetView", name: str, before: DeviceRow | None, row: DeviceRow | None) -> None:
    if row is not None and row.facts.leaving:
        view.leaving.add(name)
    appeared = row is not None and row.facts.online and (before is None or not before.facts.online)
    if row is not None and appeared and view.live and row.spec.agent not in view.presence.watched:
        # It is called Online without having been heard here, as after a join: from now on it has to be.
        view.presence.returned.add(row.spec.agent)
    if before is None or row is None or before.generation != row.generation or before.uid != row.uid:
        view.unrendered.add(name)
    if before is not None and row is not None and before.facts is row.facts:
        return
    moved = before is None or row is None or (before.facts.online, before.facts.site) != (row.facts.online, row.facts.site)
    for key in view.on_device.get(name, ()):
        if moved:
            view.members[key].look(name, view.reach)
        view.dirty.add(key)
    view.mark_device(name)


def _agent(view: "FleetView", change: Change, document: Document | None) -> None:
    name = change.key.name
    before = view.agents.get(name)
    if document is None:
        if before is not None and before.revision < change.revision:
            del view.agents[name]
            view.unrendered.update(before.spec.devices)
            for forgotten in (view.marks, view.sessions):
                forgotten.pop(name, None)
        return
    if stale(before, document):
        return
    row = view.agents[name] = AgentRow(
        key=document.key,
        uid=document.uid,
        generation=document.generation,
        revision=document.revision,
        status_revision=document.status_revision,
        labels=document.labels or _NOTHING,
        annotations=document.annotations or _NOTHING,
        spec=_AGENT.decode(document.spec),
        status=_AGENT_STATUS.decode(document.status) if document.status else AgentStatus(),
    )
    if before is not None and before.spec.quarantined and not row.spec.quarantined:
        # A person decided which device is real: what was seen before must not quarantine it again at once.
        view.sessions.pop(name, None)
    if before is None or before.spec != row.spec or before.status.quarantines != row.status.quarantines:
        view.unrendered.update(row.spec.devices)
    view.leaving.update(device for device in row.spec.devices if device in view.devices and view.devices[device].facts.leaving)


def _join_token(view: "FleetView", change: Change, document: Document | None) -> None:
    name = change.key.name
    if document is None:
        view.join_tokens.pop(name, None)
        return
    known = view.join_tokens.get(name)
    if stale(known, document):
        return
    view.join_tokens[name] = JoinTokenRow(
        key=document.key,
        uid=document.uid,
        generation=document.generation,
        revision=document.revision,
        status_revision=document.status_revision,
        spec=_JOIN_TOKEN.decode(document.spec),
        status=_JOIN_TOKEN_STATUS.decode(document.status) if document.status else JoinTokenStatus(),
    )


def _access_token(view: "FleetView", change: Change, document: Document | None) -> None:
    if document is None:
        view.access_tokens.pop(change.key.name, None)
        return
    view.access_tokens[change.key.name] = AccessTokenRow(
        key=document.key,
        uid=document.uid,
        generation=document.generation,
        revision=document.revision,
        spec=_ACCESS_TOKEN.decode(document.spec),
    )


_TABLE: Final[dict[str, Callable[["FleetView", Change, Document | None], None]]] = {
    "Site": _site,
    "Device": _device,
    "Agent": _agent,
    "Artifact": artifact,
    "ArtifactVersion": version,
    "Config": config,
    "ConfigSnapshot": config,
    "Secret": secret,
    "SecretSnapshot": secret,
    "Workload": workload,
    "WorkloadRevision": revision,
    "Instance": instance,
    "Rollout": rollout,
    EVIDENCE: evidence,
    RISK: risk,
    "JoinToken": _join_token,
    "AccessToken": _access_token,
}
