"""Who may do what on the API: the one place where it is decided.

Every handler says in its `opt` what is done to which kind (`may`). The guard looks up the bearer token, asks `trust.access.decide`, and
denies whatever says nothing. A new handler without `may` is therefore a 403 until someone decides otherwise.
"""

from typing import Any, Final

import msgspec
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from edgewise.control.api.errors import ApiError
from edgewise.control.services import Services
from edgewise.controllers.tokens import AccessTokenSpec, token_key
from edgewise.trust.access import Role, Verb, decide
from edgewise.trust.tokens import is_access_token, same, secret_digest

TAKES: Final = "takes"
GIVES: Final = "gives"
"""In a handler's `opt`: the types of its request's and its answer's body, for the OpenAPI document."""
_ACCESS: Final = "access"
_USER: Final = "edgewise.user"
_SPEC: Final = msgspec.msgpack.Decoder(AccessTokenSpec)
_HEADER_MAX: Final = 256


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Who a request comes from."""

    name: str
    role: Role


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """What a handler does: all `verbs`, to `kind`. `watch`: with `?watch=true` it watches instead. `public`: anybody may, without a
    token."""

    verbs: tuple[Verb, ...] = ()
    kind: str = ""
    watch: bool = False
    public: bool = False


def may(*verbs: Verb, kind: str, watch: bool = False, takes: object = None, gives: object = None) -> dict[str, Any]:
    """Return the `opt` of a handler that does `verbs` to `kind`. `takes` and `gives` are the types of the bodies."""
    return {_ACCESS: Access(verbs=verbs, kind=kind, watch=watch), TAKES: takes, GIVES: gives}


def public(gives: object = None) -> dict[str, Any]:
    """Return the `opt` of a handler that anybody may call: it must tell nothing about the fleet."""
    return {_ACCESS: Access(public=True), GIVES: gives}


def user_of(connection: ASGIConnection[Any, Any, Any, Any]) -> User:
    """Return who the guard found."""
    user = connection.scope.get(_USER)
    if not isinstance(user, User):
        raise ApiError(401, "Unauthorized", "no access token was given")
    return user


async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Let a request through, or refuse it. Raises `ApiError`."""
    access = handler.opt.get(_ACCESS)
    if isinstance(access, Access) and access.public:
        return
    user = await _authenticate(connection)
    connection.scope[_USER] = user  # type: ignore[typeddict-unknown-key]  # an extension of ours
    if not isinstance(access, Access) or not access.verbs:
        raise ApiError(403, "Denied", "nobody may do this")
    watching = access.watch and connection.query_params.get("watch") == "true"
    for verb in ("watch",) if watching else access.verbs:
        decision = decide(user.role, verb, access.kind)
        if not decision.allowed:
            raise ApiError(403, "Denied", decision.reason)


async def _authenticate(connection: ASGIConnection[Any, Any, Any, Any]) -> User:
    services: Services = connection.app.state.services
    scheme, _, text = connection.headers.get("authorization", "")[:_HEADER_MAX].partition(" ")
    text = text.strip()
    if scheme.lower() != "bearer" or not text:
        raise ApiError(401, "Unauthorized", "no access token was given: send Authorization: Bearer TOKEN")
    digest = secret_digest(text)
    document = await services.store.get(token_key("AccessToken", digest)) if is_access_token(text) else None
    if document is None:
        raise ApiError(401, "Unauthorized", "the access token is not known here, or was revoked")
    spec = _SPEC.decode(document.spec)
    if not same(spec.digest, digest):
        raise ApiError(401, "Unauthorized", "the access token is not known here, or was revoked")
    if spec.expires_at <= services.clock.wall():
        raise ApiError(401, "Unauthorized", "the access token has expired: ask an admin for another")
    return User(name=spec.name, role=spec.role)
