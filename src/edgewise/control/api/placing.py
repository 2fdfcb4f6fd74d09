"""Where a workload would run, device by device, in the controllers' words."""

import msgspec
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from edgewise.control.api.access import may
from edgewise.control.api.applying import DevicePlan, sources_of
from edgewise.control.api.errors import ApiError
from edgewise.control.api.requests import AnyRequest, answer
from edgewise.control.api.shown import found, key_for, shown
from edgewise.control.services import Services
from edgewise.controllers.placements import explain
from edgewise.controllers.view import FleetView
from edgewise.delivery.templates import Unready, resolve
from edgewise.resources.workload import Workload
from edgewise.store.contract import Key

_PATH = "/apis/v1alpha1/namespaces/{namespace:str}/workloads/{name:str}/placement"


class PlacementAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of each device. `message` says why there is nothing to place yet."""

    devices: tuple[DevicePlan, ...]
    message: str = ""


def placing_handlers(services: Services) -> list[HTTPRouteHandler]:
    """Return the handlers of placement."""

    @get(
        _PATH,
        opt=may("get", kind="Placement", gives=PlacementAnswer),
        summary="Which devices a workload runs on, and why not on the others",
    )
    async def placement(request: AnyRequest) -> Response[bytes]:
        key = key_for("Workload", request.path_params["namespace"], request.path_params["name"])
        workload = shown(await found(services.store, key))
        if not isinstance(workload, Workload):
            raise ApiError(500, "Internal", "the document is not a workload")
        devices, message = _explained(services.runner.view, key, workload)
        return answer(PlacementAnswer(devices=devices, message=message))

    return [placement]


def plan_of(services: Services, key: Key, workload: Workload) -> tuple[DevicePlan, ...]:
    """Return what would become of each device if `workload` were applied; empty when it refers to what is not there."""
    return _explained(services.runner.view, key, workload)[0]


def _explained(view: FleetView, key: Key, workload: Workload) -> tuple[tuple[DevicePlan, ...], str]:
    template = resolve(workload.spec, sources_of(view, key.namespace, workload))
    if isinstance(template, Unready):
        return (), template.message
    every = workload.spec.placement.replicas is None
    rows = explain(view, key.namespace, key.name, workload.spec, template)
    devices = tuple(
        DevicePlan(
            device=row.device,
            variant=row.variant,
            reason=row.reason,
            chosen=row.running or (every and bool(row.variant) and not row.reason),
            current=row.running,
        )
        for row in rows
    )
    return devices, ""
