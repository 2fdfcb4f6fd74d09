"""Tokens: for devices to join with, for people and programs to work with. Their text is answered once and kept nowhere."""

from typing import Annotated, Final

import msgspec
from litestar import Response, delete, get, post
from litestar.handlers import HTTPRouteHandler

from edgewise.control.api.access import may, user_of
from edgewise.control.api.errors import conflict, invalid, not_found
from edgewise.control.api.requests import AnyRequest, answer, duration, read_json
from edgewise.control.services import Services
from edgewise.controllers.documents import audit
from edgewise.controllers.tokens import (
    AccessTokenSpec,
    JoinTokenSpec,
    JoinTokenStatus,
    create_access_token,
    create_join_token,
)
from edgewise.resources.errors import Problem
from edgewise.resources.meta import LabelValue, Name
from edgewise.resources.validation import label_problem
from edgewise.store.contract import ANY, ConflictError, Delete, Document, Key, Transaction
from edgewise.trust.access import Role
from edgewise.trust.authority import authority_hash
from edgewise.trust.tokens import JoinToken, new_secret, repository_hash, secret_digest, write_access_token, write_join_token

JOIN_TOKEN: Final = "JoinToken"  # noqa: S105 - a kind
ACCESS_TOKEN: Final = "AccessToken"  # noqa: S105 - a kind
_API: Final = "/apis/v1alpha1"
_ATTEMPTS: Final = 5
_LABELS_MAX: Final = 50
_PAGE: Final = 500


class NewJoinToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a join token should permit. `ttl` is a duration."""

    site: Name | None = None
    ttl: str = ""
    uses: Annotated[int, msgspec.Meta(ge=1)] = 1
    labels: dict[str, LabelValue] = {}


class NewAccessToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom an access token should speak for."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
    role: Role = "viewer"
    ttl: str = ""


class TokenAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A new token's text, which is never shown again."""

    token: str
    id: str
    expires_at: float


class TokenShown(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What may be known of a token that exists."""

    id: str
    expires_at: float
    name: str = ""
    role: str = ""
    site: str = ""
    uses: int = 0
    used: int = 0
    created_by: str = ""


class TokenList(msgspec.Struct, frozen=True, kw_only=True):
    """All tokens of one kind."""

    items: tuple[TokenShown, ...]


def token_handlers(services: Services) -> list[HTTPRouteHandler]:
    """Return the handlers of tokens."""
    limits = services.limits

    @post(
        f"{_API}/jointokens",
        opt=may("create", kind=JOIN_TOKEN, takes=NewJoinToken, gives=TokenAnswer),
        status_code=201,
        summary="Create a join token",
    )
    async def create_join(request: AnyRequest) -> Response[bytes]:
        wanted = await read_json(request, NewJoinToken)
        lifetime = duration(wanted.ttl, "ttl", limits.token_seconds_max) if wanted.ttl else limits.join_token_seconds_default
        _check_join(wanted, limits.join_token_uses_max)
        secret = new_secret(services.randomness.token(32))
        now, user = services.clock.wall(), user_of(request).name
        spec = JoinTokenSpec(
            digest=secret_digest(secret),
            expires_at=now + lifetime,
            uses=wanted.uses,
            site=wanted.site or "",
            labels=wanted.labels,
            created_by=user,
        )
        await _keep(services, spec, user)
        authority, root = authority_hash(services.keys.root_cert_pem), repository_hash(services.repository.root)
        text = write_join_token(JoinToken(services.gateway_addresses, authority, root, secret))
        return answer(TokenAnswer(token=text, id=spec.digest[:16], expires_at=spec.expires_at), 201)

    @post(
        f"{_API}/accesstokens",
        opt=may("create", kind=ACCESS_TOKEN, takes=NewAccessToken, gives=TokenAnswer),
        status_code=201,
        summary="Create an access token",
    )
    async def create_access(request: AnyRequest) -> Response[bytes]:
        wanted = await read_json(request, NewAccessToken)
        lifetime = duration(wanted.ttl, "ttl", limits.token_seconds_max) if wanted.ttl else limits.access_token_seconds_default
        text, spec = await make_access_token(services, wanted.name, wanted.role, lifetime, user_of(request).name)
        return answer(TokenAnswer(token=text, id=spec.digest[:16], expires_at=spec.expires_at), 201)

    @get(f"{_API}/jointokens", opt=may("list", kind=JOIN_TOKEN, gives=TokenList), summary="List join tokens")
    async def list_join(request: AnyRequest) -> Response[bytes]:
        del request
        return answer(TokenList(items=tuple([_join_shown(each) for each in await _all(services, JOIN_TOKEN)])))

    @get(f"{_API}/accesstokens", opt=may("list", kind=ACCESS_TOKEN, gives=TokenList), summary="List access tokens")
    async def list_access(request: AnyRequest) -> Response[bytes]:
        del request
        return answer(TokenList(items=tuple([_access_shown(each) for each in await _all(services, ACCESS_TOKEN)])))

    @delete(
        f"{_API}/jointokens/{{token:str}}",
        opt=may("delete", kind=JOIN_TOKEN, gives=TokenShown),
        status_code=200,
        summary="Revoke a join token",
    )
    async def delete_join(request: AnyRequest) -> Response[bytes]:
        return await _revoke(services, request, JOIN_TOKEN)

    @delete(
        f"{_API}/accesstokens/{{token:str}}",
        opt=may("revoke", kind=ACCESS_TOKEN, gives=TokenShown),
        status_code=200,
        summary="Revoke an access token",
    )
    async def delete_access(request: AnyRequest) -> Response[bytes]:
        return await _revoke(services, request, ACCESS_TOKEN)

    return [create_join, create_access, list_join, list_access, delete_join, delete_access]


async def make_access_token(services: Services, name: str, role: Role, lifetime: float, user: str) -> tuple[str, AccessTokenSpec]:
    """Make and store an access token; return its text, which is kept nowhere, and what is stored."""
    text = write_access_token(services.randomness.token(32))
    now = services.clock.wall()
    spec = AccessTokenSpec(digest=secret_digest(text), name=name, role=role, expires_at=now + lifetime, created_by=user)
    epoch, revision = services.store.epoch, services.store.revision
    await services.runner.commit(create_access_token(spec, user=user, now=now, epoch=epoch, revision=revision))
    return text, spec


def _check_join(wanted: NewJoinToken, uses_max: int) -> None:
    if wanted.uses > uses_max:
        raise invalid(Problem(path="uses", message=f"{wanted.uses} uses, at most {uses_max} are allowed"))
    if len(wanted.labels) > _LABELS_MAX:
        raise invalid(Problem(path="labels", message=f"{len(wanted.labels)} labels, at most {_LABELS_MAX} are allowed"))
    for key, value in wanted.labels.items():
        wrong = label_problem(key, value)
        if wrong:
            raise invalid(Problem(path=f"labels.{key}", message=wrong))


async def _all(services: Services, kind: str) -> list[Document]:
    documents: list[Document] = []
    after = ""
    while True:
        page = await services.store.list(kind, "", limit=_PAGE, after=after)
        documents += page.documents
        after = page.next
        if not after:
            return documents


def _join_shown(document: Document) -> TokenShown:
    spec = msgspec.msgpack.decode(document.spec, type=JoinTokenSpec)
    used = msgspec.msgpack.decode(document.status, type=JoinTokenStatus).used if document.status else 0
    return TokenShown(
        id=document.key.name, expires_at=spec.expires_at, site=spec.site, uses=spec.uses, used=used, created_by=spec.created_by
    )


def _access_shown(document: Document) -> TokenShown:
    spec = msgspec.msgpack.decode(document.spec, type=AccessTokenSpec)
    return TokenShown(id=document.key.name, expires_at=spec.expires_at, name=spec.name, role=spec.role, created_by=spec.created_by)


async def _revoke(services: Services, request: AnyRequest, kind: str) -> Response[bytes]:
    key = Key(kind, "", request.path_params["token"])
    document = await services.store.get(key)
    if document is None:
        raise not_found(f"there is no token {key.name}")
    now, user = services.clock.wall(), user_of(request).name
    event = audit(now, user, f"Revoke{kind}", f"token {key.name}", key)
    await services.runner.commit(
        Transaction(now=now, writes=(Delete(key=key, expect=ANY, uid=document.uid, missing_ok=True),), events=(event,))
    )
    return answer(_access_shown(document) if kind == ACCESS_TOKEN else _join_shown(document))


async def _keep(services: Services, spec: JoinTokenSpec, user: str) -> None:
    """Keep a join token, with the site that it names where that is new. Two tokens for a new site may come at once."""
    for _ in range(_ATTEMPTS):
        view, now = services.runner.view, services.clock.wall()
        known = spec.site in view.sites
        try:
            await services.runner.commit(
                create_join_token(spec, known_site=known, user=user, now=now, epoch=view.epoch, revision=services.store.revision)
            )
        except ConflictError as error:
            await services.runner.conflicted(error)
        else:
            return
    raise conflict("the site changes too often for a token to be written")
