"""Join and access tokens as documents of internal kinds, named by the first 16 hexadecimal digits of the secret's SHA-256.

The secret itself is never kept. A join token is used up in the transaction of the join itself: two joins with one single-use token cannot
both be written.
"""

from typing import Annotated, Literal

import msgspec

from edgewise.controllers.documents import audit, create, delete_any, uid_of
from edgewise.resources.site import SiteSpec, SiteStatus
from edgewise.store.contract import Key, Transaction, Write

Role = Literal["viewer", "operator", "admin"]


class JoinTokenSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What a join token permits. `digest` is the secret's SHA-256 in hexadecimal. `labels` go to the devices that join with it."""

    digest: str
    expires_at: float
    uses: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1
    site: str = ""
    labels: dict[str, str] = {}
    created_by: str = ""


class JoinTokenStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How often it was used."""

    used: int = 0


class AccessTokenSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Who an operator's token speaks for."""

    digest: str
    name: str
    role: Role
    expires_at: float
    created_by: str = ""


class AccessTokenStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Nothing is observed of an access token."""

    observed_generation: int = 0


class JoinTokenRow(msgspec.Struct, kw_only=True):
    """A join token in the view."""

    key: Key
    uid: str
    generation: int
    revision: int
    status_revision: int
    spec: JoinTokenSpec
    status: JoinTokenStatus


class AccessTokenRow(msgspec.Struct, kw_only=True):
    """An access token in the view."""

    key: Key
    uid: str
    generation: int
    revision: int
    spec: AccessTokenSpec


def token_key(kind: Literal["JoinToken", "AccessToken"], digest: str) -> Key:
    """Return the address of the token whose secret has this SHA-256 (hexadecimal)."""
    return Key(kind, "", digest[:16])


def create_join_token(spec: JoinTokenSpec, *, known_site: bool, user: str, now: float, epoch: int, revision: int) -> Transaction:
    """Return what makes a join token; its site is made with it when there is none of that name yet."""
    key = token_key("JoinToken", spec.digest)
    writes: list[Write] = [create(key, uid_of(key, epoch, revision), spec, JoinTokenStatus())]
    if spec.site and not known_site:
        site = Key("Site", "", spec.site)
        writes.append(create(site, uid_of(site, epoch, revision), SiteSpec(), SiteStatus()))
    message = f"join token {key.name} for site {spec.site or '(none)'}, {spec.uses} uses"
    return Transaction(now=now, writes=tuple(writes), events=(audit(now, user, "CreateJoinToken", message, key),))


def create_access_token(spec: AccessTokenSpec, *, user: str, now: float, epoch: int, revision: int) -> Transaction:
    """Return what makes an access token."""
    key = token_key("AccessToken", spec.digest)
    message = f"access token {key.name} for {spec.name} as {spec.role}"
    return Transaction(
        now=now,
        writes=(create(key, uid_of(key, epoch, revision), spec, AccessTokenStatus()),),
        events=(audit(now, user, "CreateAccessToken", message, key),),
    )


def revoke_access_token(row: AccessTokenRow, *, user: str, now: float) -> Transaction:
    """Return what takes an access token out of use."""
    message = f"access token {row.key.name} of {row.spec.name}"
    return Transaction(now=now, writes=(delete_any(row.key, row.uid),), events=(audit(now, user, "RevokeAccessToken", message, row.key),))
