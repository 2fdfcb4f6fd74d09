"""The API's OpenAPI document: Litestar knows the paths, msgspec the shapes of what goes in and out."""

from typing import Any, Final

import msgspec
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from litestar.router import Router
from litestar.routes import HTTPRoute

from edgewise.control.api.access import GIVES, TAKES
from edgewise.control.api.errors import ErrorEnvelope

Schema = dict[str, Any]
"""An OpenAPI document: JSON by nature, so no type of ours."""

_REF: Final = "#/components/schemas/{name}"


def openapi_config(version: str) -> OpenAPIConfig:
    """Return how Litestar is to describe the paths. Its own pages are put where the guard refuses them."""
    return OpenAPIConfig(
        title="Edgewise operator API",
        version=version,
        openapi_router=Router("/_paths", route_handlers=[], include_in_schema=False),
        components=Components(security_schemes={"token": SecurityScheme(type="http", scheme="bearer")}),
        security=[{"token": []}],
    )


def document(app: Litestar) -> bytes:
    """Return the OpenAPI document in JSON."""
    schema: Schema = app.openapi_schema.to_schema()
    operations = [(path, method, handler) for path, method, handler in _operations(app) if path in schema["paths"]]
    shapes = [shape for _, _, handler in operations for shape in (handler.opt.get(TAKES), handler.opt.get(GIVES)) if shape is not None]
    unique = list(dict.fromkeys((ErrorEnvelope, *shapes)))
    references, components = msgspec.json.schema_components(unique, ref_template=_REF)
    where = dict(zip(unique, references, strict=True))
    schema["components"]["schemas"] = components
    for path, method, handler in operations:
        operation = schema["paths"][path][method]
        takes, gives = handler.opt.get(TAKES), handler.opt.get(GIVES)
        if takes is not None:
            operation["requestBody"] = {"required": True, "content": _json(where[takes])}
        answers = {str(handler.status_code): {"description": "Done", **({"content": _json(where[gives])} if gives else {})}}
        operation["responses"] = {**answers, "default": {"description": "Refused", "content": _json(where[ErrorEnvelope])}}
    return msgspec.json.encode(schema)


def _operations(app: Litestar) -> list[tuple[str, str, HTTPRouteHandler]]:
    return [
        (route.path_format, method.lower(), handler)
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for method, (handler, _) in route.route_handler_map.items()
        if method != "OPTIONS"
    ]


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}
