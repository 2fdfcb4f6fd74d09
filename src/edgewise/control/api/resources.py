"""Reading, listing, watching, applying and deleting resources: the same five handlers for every kind, made from the table of kinds."""

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import msgspec
from litestar import Response, delete, get, put
from litestar.handlers import HTTPRouteHandler
from litestar.response import Stream

from edgewise.control.api.access import may, user_of
from edgewise.control.api.applying import Applied, apply, not_applied
from edgewise.control.api.deleting import delete_resource
from edgewise.control.api.errors import conflict, invalid
from edgewise.control.api.placing import plan_of
from edgewise.control.api.requests import AnyRequest, answer, flag, label_selector, number, read_json
from edgewise.control.api.shown import counted, found, key_for, shown
from edgewise.control.api.watching import Watches, watch_resources
from edgewise.control.services import Services
from edgewise.resources.errors import Problem
from edgewise.resources.kinds import Kind, Resource
from edgewise.resources.workload import Workload
from edgewise.store.contract import Page, StoreError

API: Final = "/apis/v1alpha1"


class ResourceList(msgspec.Struct, frozen=True, kw_only=True):
    """One page of a list. Watching from the first page's `revision` misses nothing."""

    kind: str
    items: Sequence[Resource]
    revision: int
    next: str = msgspec.field(default="", name="continue")


def resource_handlers(services: Services, watches: Watches, kinds: Sequence[Kind]) -> list[HTTPRouteHandler]:
    """Return the handlers of all `kinds`."""
    handlers: list[HTTPRouteHandler] = []
    for kind in kinds:
        one = f"{API}/namespaces/{{namespace:str}}/{kind.plural}" if kind.namespaced else f"{API}/{kind.plural}"
        handlers.append(_lister(services, watches, kind, f"{API}/{kind.plural}", kind.name))
        if kind.namespaced:
            handlers.append(_lister(services, watches, kind, one, f"{kind.name}InNamespace"))
        handlers += [_getter(services, kind, one), _applier(services, kind, one), _deleter(services, kind, one)]
    return handlers


def _lister(services: Services, watches: Watches, kind: Kind, path: str, name: str) -> HTTPRouteHandler:
    async def list_or_watch(request: AnyRequest) -> Response[bytes] | Stream:
        namespace = request.path_params.get("namespace")
        labels = label_selector(request)
        if flag(request, "watch"):
            after = number(request, "after", services.store.revision, 0, 1 << 62)
            return watches.stream(watch_resources(services, kind.name, namespace, labels, after))
        page = await _page(services, request, kind, namespace, labels)
        items = counted(services.runner.view, [shown(document) for document in page.documents])
        return answer(ResourceList(kind=f"{kind.name}List", items=items, revision=page.revision, next=page.next))

    opt = may("list", kind=kind.name, watch=True, gives=ResourceList)
    return _Route(get, path, f"list{name}", opt, f"List or watch {kind.plural}").made(list_or_watch)


async def _page(services: Services, request: AnyRequest, kind: Kind, namespace: str | None, labels: dict[str, str]) -> Page:
    limits = services.limits
    limit = number(request, "limit", limits.list_items_default, 1, limits.list_items_max)
    try:
        return await services.store.list(kind.name, namespace, labels or None, limit, request.query_params.get("continue", ""))
    except (StoreError, ValueError) as error:
        if not request.query_params.get("continue"):
            raise
        raise invalid(Problem(path="continue", message="is not from a former page of this list")) from error


def _getter(services: Services, kind: Kind, path: str) -> HTTPRouteHandler:
    async def get_one(request: AnyRequest) -> Response[bytes]:
        key = key_for(kind.name, request.path_params.get("namespace", ""), request.path_params["name"])
        return answer(counted(services.runner.view, [shown(await found(services.store, key))])[0])

    opt = may("get", kind=kind.name, gives=kind.type)
    return _Route(get, f"{path}/{{name:str}}", f"get{kind.name}", opt, f"Get one of {kind.plural}").made(get_one)


def _applier(services: Services, kind: Kind, path: str) -> HTTPRouteHandler:
    async def apply_one(request: AnyRequest) -> Response[bytes]:
        if not kind.applied:
            raise not_applied(kind.name)
        namespace, name = request.path_params.get("namespace", ""), request.path_params["name"]
        resource = _placed(await read_json(request, kind.type), namespace, name)
        key = key_for(kind.name, namespace, name)
        dry_run = flag(request, "dryRun")
        applied = await apply(services, user_of(request), key, resource, dry_run=dry_run)
        if dry_run and isinstance(resource, Workload):
            applied = msgspec.structs.replace(applied, placement=plan_of(services, key, resource))
        return answer(applied, 201 if applied.result == "created" and not dry_run else 200)

    opt = may("create", "update", kind=kind.name, takes=kind.type, gives=Applied)
    return _Route(put, f"{path}/{{name:str}}", f"apply{kind.name}", opt, f"Create or replace one of {kind.plural}").made(apply_one)


def _deleter(services: Services, kind: Kind, path: str) -> HTTPRouteHandler:
    async def delete_one(request: AnyRequest) -> Response[bytes]:
        key = key_for(kind.name, request.path_params.get("namespace", ""), request.path_params["name"])
        return answer(await delete_resource(services, user_of(request), kind, key))

    opt = may("delete", kind=kind.name, gives=kind.type)
    return _Route(delete, f"{path}/{{name:str}}", f"delete{kind.name}", opt, f"Delete one of {kind.plural}").made(delete_one)


class _Route(msgspec.Struct, frozen=True):
    """One route: how it is called, where, by which name, who may, and what it does in words."""

    decorator: Callable[..., Any]
    path: str
    name: str
    opt: dict[str, Any]
    summary: str

    def made(self, function: Callable[..., Any]) -> HTTPRouteHandler:
        function.__name__ = self.name
        handler = self.decorator(self.path, opt=self.opt, operation_id=self.name, summary=self.summary, status_code=200)(function)
        return cast("HTTPRouteHandler", handler)


def _placed(resource: Resource, namespace: str, name: str) -> Resource:
    """Return the resource with the namespace of its path. Raises `ApiError` when it names another, or another name."""
    meta = resource.metadata
    if meta.name != name:
        raise invalid(Problem(path="metadata.name", message=f"is {meta.name}, but the path names {name}"))
    if meta.namespace and meta.namespace != namespace:
        raise invalid(Problem(path="metadata.namespace", message=f"is {meta.namespace}, but the path names {namespace or 'none'}"))
    if meta.deleted_at is not None:
        raise conflict(f"{name} is being deleted: read it again")
    return msgspec.structs.replace(resource, metadata=msgspec.structs.replace(meta, namespace=namespace))
