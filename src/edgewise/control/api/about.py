"""What the API says of itself: health, version, schemas."""

import importlib.metadata
from typing import Final

import msgspec
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from edgewise.control.api.access import may, public
from edgewise.control.api.requests import AnyRequest, answer
from edgewise.control.services import Services
from edgewise.resources.schema import json_schema
from edgewise.wire.version import WIRE_VERSION

_API: Final = "/apis/v1alpha1"


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """Which Edgewise this is. `epoch` is the store's: it grows when a backup is restored."""

    version: str
    wire: int
    epoch: int


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """That the process answers and its store can be read."""

    ok: bool


def about_handlers(services: Services) -> list[HTTPRouteHandler]:
    """Return the handlers of health, version and schemas."""

    @get("/healthz", opt=public(Health), summary="Whether the control plane answers")
    async def healthz() -> Response[bytes]:
        await services.store.recent_events(1)
        return answer(Health(ok=True))

    @get("/version", opt=public(Version), summary="Which Edgewise this is")
    async def version() -> Response[bytes]:
        return answer(Version(version=importlib.metadata.version("edgewise"), wire=WIRE_VERSION, epoch=services.store.epoch))

    @get(f"{_API}/schema", opt=may("get", kind="Schema"), summary="JSON Schema of all kinds")
    async def schema(request: AnyRequest) -> Response[bytes]:
        del request
        return answer(msgspec.json.encode(json_schema()))

    return [healthz, version, schema]
