"""Verbs: what people do to rollouts, devices and agents besides applying specs."""

from collections.abc import Callable
from typing import Final

import msgspec
from litestar import Response, get, patch, post
from litestar.handlers import HTTPRouteHandler

from edgewise.control.api.access import may, user_of
from edgewise.control.api.errors import conflict, invalid, not_found
from edgewise.control.api.requests import AnyRequest, answer, read_json
from edgewise.control.api.resources import ResourceList
from edgewise.control.api.shown import found, key_for, shown, words
from edgewise.control.services import Services
from edgewise.controllers.actions import clear_rejected
from edgewise.controllers.documents import audit
from edgewise.resources.device import Agent, AgentSpec, Device, DeviceSpec
from edgewise.resources.errors import Problem
from edgewise.resources.kinds import Resource
from edgewise.resources.meta import LabelValue
from edgewise.resources.rollout import Rollout, RolloutAction, RolloutSpec
from edgewise.resources.validation import label_problem
from edgewise.resources.workload import Workload
from edgewise.store.codec import decode, encode
from edgewise.store.contract import ConflictError, Document, Key, Put, Transaction

_API: Final = "/apis/v1alpha1"
_ATTEMPTS: Final = 5
_LABELS_MAX: Final = 50

Edit = Callable[[Resource], msgspec.Struct]
"""Return a resource's new spec. Raises `ApiError` when the verb does not fit."""


class LabelChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Labels to set and to remove."""

    set: dict[str, LabelValue] = {}
    remove: tuple[str, ...] = ()


def action_handlers(services: Services) -> list[HTTPRouteHandler]:
    """Return the handlers of verbs."""
    rollouts: tuple[RolloutAction, ...] = ("pause", "resume", "promote", "abort")
    return [
        *(_rollout_action(services, action) for action in rollouts),
        _history(services),
        _labels(services),
        _edit(services, "devices", "Device", "decommission", _decommission),
        _edit(services, "devices", "Device", "clear-refused", _clear_refused),
        _clear_rejected(services),
        _edit(services, "agents", "Agent", "revoke", _revoke),
        _edit(services, "agents", "Agent", "approve", _approve),
    ]


def _rollout_action(services: Services, action: RolloutAction) -> HTTPRouteHandler:
    path = f"{_API}/namespaces/{{namespace:str}}/rollouts/{{name:str}}/{action}"

    @post(
        path,
        opt=may(action, kind="Rollout", gives=Rollout),
        status_code=200,
        summary=f"{action.title()} a workload's rollout",
        operation_id=f"{action}Rollout",
    )
    async def act(request: AnyRequest) -> Response[bytes]:
        namespace, workload = request.path_params["namespace"], request.path_params["name"]
        row = services.runner.view.active_rollout((namespace, workload))
        if row is None:
            raise not_found(f"no rollout of workload {workload[:128]} in namespace {namespace[:128]} is under way")
        return answer(await edit_spec(services, user_of(request).name, row.key, action.title(), lambda it: _acted(action, it)))

    return act


def _acted(action: RolloutAction, resource: Resource) -> RolloutSpec:
    if not isinstance(resource, Rollout):
        raise not_found("there is no such rollout")
    spec = resource.spec
    match action:
        case "pause":
            return msgspec.structs.replace(spec, paused=True)
        case "resume":
            return msgspec.structs.replace(spec, paused=False)
        case "promote":
            return msgspec.structs.replace(spec, promote=spec.promote + 1, paused=False)
        case "abort":
            return msgspec.structs.replace(spec, abort=True)


def _history(services: Services) -> HTTPRouteHandler:
    path = f"{_API}/namespaces/{{namespace:str}}/rollouts/{{name:str}}/history"

    @get(path, opt=may("list", kind="Rollout", gives=ResourceList), summary="A workload's rollouts, oldest first")
    async def history(request: AnyRequest) -> Response[bytes]:
        namespace, workload = request.path_params["namespace"], request.path_params["name"]
        rows = services.runner.view.rollouts.get((namespace, workload), {})
        revision = services.store.revision
        documents = [await services.store.get(row.key) for row in sorted(rows.values(), key=lambda row: row.number)]
        items = [shown(document) for document in documents if document is not None]
        return answer(ResourceList(kind="RolloutList", items=items, revision=revision))

    return history


def _clear_rejected(services: Services) -> HTTPRouteHandler:
    path = f"{_API}/namespaces/{{namespace:str}}/workloads/{{name:str}}/clear-refused"

    @post(
        path,
        opt=may("clear-refused", kind="Instance", gives=Workload),
        status_code=200,
        summary="Let revisions that were taken back be tried again",
    )
    async def act(request: AnyRequest) -> Response[bytes]:
        key = key_for("Workload", request.path_params["namespace"], request.path_params["name"])
        document = await found(services.store, key)
        for _ in range(_ATTEMPTS):
            view, now = services.runner.view, services.clock.wall()
            transaction = clear_rejected(view, (key.namespace, key.name), user_of(request).name, now)
            if transaction is None:
                return answer(shown(document))
            try:
                await services.runner.commit(transaction)
            except ConflictError as error:
                await services.runner.conflicted(error)
                continue
            return answer(shown(await found(services.store, key)))
        raise conflict(f"{words(key)} changes too often to be written")

    return act


def _labels(services: Services) -> HTTPRouteHandler:
    @patch(
        f"{_API}/devices/{{name:str}}/labels",
        opt=may("label", kind="Device", takes=LabelChange, gives=Device),
        summary="Set and remove labels of a device",
    )
    async def label(request: AnyRequest) -> Response[bytes]:
        change = await read_json(request, LabelChange)
        for name, value in change.set.items():
            wrong = label_problem(name, value)
            if wrong:
                raise invalid(Problem(path=f"set.{name}", message=wrong))
        key = key_for("Device", "", request.path_params["name"])
        return answer(await _edit_labels(services, user_of(request).name, key, change))

    return label


def _edit(services: Services, plural: str, kind: str, verb: str, edit: Edit) -> HTTPRouteHandler:
    @post(
        f"{_API}/{plural}/{{name:str}}/{verb}",
        opt=may(verb, kind=kind, gives=Resource),  # type: ignore[arg-type]  # the table below names verbs of the access table only
        status_code=200,
        summary=f"{verb} one of {plural}",
        operation_id=f"{verb}{kind}",
    )
    async def act(request: AnyRequest) -> Response[bytes]:
        key = key_for(kind, "", request.path_params["name"])
        after = await edit_spec(services, user_of(request).name, key, verb.title().replace("-", ""), edit)
        services.polls.wake(key.name)
        return answer(after)

    return act


def _decommission(resource: Resource) -> DeviceSpec:
    if not isinstance(resource, Device):
        raise not_found("there is no such device")
    return msgspec.structs.replace(resource.spec, decommission=True)


def _clear_refused(resource: Resource) -> DeviceSpec:
    if not isinstance(resource, Device):
        raise not_found("there is no such device")
    return msgspec.structs.replace(resource.spec, cleared_refusals=resource.spec.cleared_refusals + 1)


def _revoke(resource: Resource) -> AgentSpec:
    if not isinstance(resource, Agent):
        raise not_found("there is no such agent")
    return msgspec.structs.replace(resource.spec, revoked=True)


def _approve(resource: Resource) -> AgentSpec:
    """Let an agent in, a quarantined one too: an operator has decided which of the two devices is real."""
    if not isinstance(resource, Agent):
        raise not_found("there is no such agent")
    if resource.spec.revoked:
        raise conflict(f"agent {resource.metadata.name} was revoked: let it join again with a new token", resource)
    return msgspec.structs.replace(resource.spec, approved=True, quarantined=False)


async def edit_spec(services: Services, user: str, key: Key, verb: str, edit: Edit) -> Resource:
    """Change a spec by compare-and-set, with its audit record; return the resource as it is then. Raises `ApiError`."""
    for _ in range(_ATTEMPTS):
        document = await found(services.store, key)
        spec = encode(edit(decode(document)))
        try:
            return await _put(services, (user, verb), document, spec, document.labels)
        except ConflictError as error:
            await services.runner.conflicted(error)
    raise conflict(f"{words(key)} changes too often to be written")


async def _edit_labels(services: Services, user: str, key: Key, change: LabelChange) -> Resource:
    for _ in range(_ATTEMPTS):
        document = await found(services.store, key)
        labels = {name: value for name, value in {**document.labels, **change.set}.items() if name not in change.remove}
        if len(labels) > _LABELS_MAX:
            raise invalid(Problem(path="set", message=f"{len(labels)} labels, at most {_LABELS_MAX} are allowed"))
        try:
            return await _put(services, (user, "Label"), document, document.spec, labels)
        except ConflictError as error:
            await services.runner.conflicted(error)
    raise conflict(f"{words(key)} changes too often to be written")


async def _put(services: Services, did: tuple[str, str], document: Document, spec: bytes, labels: dict[str, str]) -> Resource:
    """Write a document's spec and labels with the audit record of who did what (`did`)."""
    now = services.clock.wall()
    put = Put(
        key=document.key,
        spec=spec,
        labels=labels,
        annotations=document.annotations,
        expect=document.generation,
        uid=document.uid,
        deleted_at=document.deleted_at,
    )
    event = audit(now, *did, words(document.key), document.key)
    written = await services.runner.commit(Transaction(now=now, writes=(put,), events=(event,)))
    after = next((each.document for each in written.changes if each.key == document.key), None)
    return shown(after if after is not None else document)
