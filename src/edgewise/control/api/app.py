"""The operator API as one ASGI application."""

import importlib.metadata

from litestar import Litestar, Response, get
from litestar.datastructures import State
from litestar.exceptions import HTTPException

from edgewise.control.api.about import about_handlers
from edgewise.control.api.access import guard, public
from edgewise.control.api.actions import action_handlers
from edgewise.control.api.artifacts import artifact_handlers
from edgewise.control.api.errors import ApiError, on_any_error, on_api_error, on_http_error, on_store_error
from edgewise.control.api.evidence import evidence_handlers
from edgewise.control.api.observing import observing_handlers
from edgewise.control.api.openapi import document, openapi_config
from edgewise.control.api.placing import placing_handlers
from edgewise.control.api.requests import AnyRequest, answer
from edgewise.control.api.resources import resource_handlers
from edgewise.control.api.tokens import token_handlers
from edgewise.control.api.watching import Watches
from edgewise.control.services import Services
from edgewise.resources.kinds import KINDS
from edgewise.store.contract import StoreError


def build_api(services: Services) -> Litestar:
    """Return the application. It refuses whatever the guard does not allow."""
    watches = Watches(services.limits.watches_max)

    @get("/openapi.json", opt=public(), summary="This document")
    async def openapi(request: AnyRequest) -> Response[bytes]:
        return answer(document(request.app))

    handlers = [
        *resource_handlers(services, watches, KINDS),
        *action_handlers(services),
        *evidence_handlers(services),
        *placing_handlers(services),
        *token_handlers(services),
        *artifact_handlers(services),
        *observing_handlers(services, watches),
        *about_handlers(services),
        openapi,
    ]
    return Litestar(
        route_handlers=handlers,
        guards=[guard],
        state=State({"services": services}),
        openapi_config=openapi_config(importlib.metadata.version("edgewise")),
        exception_handlers={
            ApiError: on_api_error,
            HTTPException: on_http_error,
            StoreError: on_store_error,
            Exception: on_any_error,
        },
        request_max_body_size=services.limits.api_body_bytes_max,
        debug=False,
        logging_config=None,
    )
