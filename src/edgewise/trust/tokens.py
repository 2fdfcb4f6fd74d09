"""The texts that people carry: join tokens for devices, access tokens for operators. Standard library only.

A join token reads `ewj1.` and base64url JSON `{"a": [addresses], "h": authority hash, "r": repository root's hash, "s": secret}`. An access
token reads `ewo1_` and 32 random bytes in base64url. The control plane keeps `secret_digest` of either, never the text.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

_JOIN_PREFIX: Final = "ewj1."
_ACCESS_PREFIX: Final = "ewo1_"
_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{16,128}")
_ADDRESS: Final = re.compile(r"https://(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9]([-A-Za-z0-9.]{0,251}[A-Za-z0-9])?)(:[0-9]{1,5})?/?")
_ACCESS: Final = re.compile(r"ewo1_[A-Za-z0-9_-]{43}")


class TokenError(ValueError):
    """The text is not a token. The message never repeats the text."""


class TokenLimits(NamedTuple):
    """Limits of tokens: characters of the whole text, number of addresses, bytes of randomness in a secret."""

    text_characters_max: int = 4096
    addresses_max: int = 8
    secret_bytes: int = 32


LIMITS: Final = TokenLimits()


class JoinToken(NamedTuple):
    """What a device needs to join: where to, whom to believe, and the proof that it may. `addresses` are `https://HOST[:PORT]`;
    `authority_hash` is that of the root certificate, `repository_hash` that of the signed repository's root metadata."""

    addresses: tuple[str, ...]
    authority_hash: str
    repository_hash: str
    secret: str

    def __repr__(self) -> str:
        return (
            f"JoinToken(addresses={self.addresses!r}, authority_hash={self.authority_hash!r},"
            f" repository_hash={self.repository_hash!r}, secret=…)"
        )


def new_secret(random: bytes) -> str:
    """Return a secret as text, from 32 random bytes. Raises `TokenError` when there are not 32."""
    if len(random) != LIMITS.secret_bytes:
        raise TokenError(f"a secret is made from {LIMITS.secret_bytes} random bytes, not {len(random)}")
    return base64.urlsafe_b64encode(random).rstrip(b"=").decode()


def write_join_token(token: JoinToken) -> str:
    """Return the token's text, one line. Raises `TokenError` when a part is not what it must be."""
    _check(token)
    parts = {"a": list(token.addresses), "h": token.authority_hash, "r": token.repository_hash, "s": token.secret}
    body = json.dumps(parts, separators=(",", ":"))
    text = _JOIN_PREFIX + base64.urlsafe_b64encode(body.encode()).rstrip(b"=").decode()
    if len(text) > LIMITS.text_characters_max:
        raise TokenError(f"the token would be longer than {LIMITS.text_characters_max} characters")
    return text


def read_join_token(text: str) -> JoinToken:
    """Read a token; white space around it is ignored. Raises `TokenError`."""
    text = text.strip() if len(text) <= 2 * LIMITS.text_characters_max else text
    if len(text) > LIMITS.text_characters_max:
        raise TokenError(f"a join token has at most {LIMITS.text_characters_max} characters")
    if not text.startswith(_JOIN_PREFIX):
        raise TokenError(f"a join token begins with {_JOIN_PREFIX!r}")
    encoded = text[len(_JOIN_PREFIX) :]
    try:
        body = base64.b64decode(encoded.encode("ascii") + b"=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        parts = json.loads(body)
    except (ValueError, binascii.Error, RecursionError) as error:
        raise TokenError("the join token is damaged: was it copied whole?") from error
    match parts:
        case {"a": [*addresses], "h": str(authority), "r": str(repository), "s": str(secret)} if all(
            isinstance(each, str) for each in addresses
        ):
            token = JoinToken(tuple(addresses), authority, repository, secret)
        case {"a": _, "h": _, "s": _} if "r" not in parts:
            raise TokenError("the join token does not name the root of the signed repository: make a new token")
        case _:
            raise TokenError("the join token lacks a part: was it made by another version?")
    _check(token)
    return token


def write_access_token(random: bytes) -> str:
    """Return an operator's token from 32 random bytes. Raises `TokenError` when there are not 32."""
    return _ACCESS_PREFIX + new_secret(random)


def is_access_token(text: str) -> bool:
    """Tell whether `text` has the form of an operator's token."""
    return _ACCESS.fullmatch(text) is not None


def repository_hash(root: bytes) -> str:
    """Return how a join token names the root metadata of the signed repository: `sha256:` and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(root).hexdigest()}"


def secret_digest(text: str) -> str:
    """Return what may be kept of a secret or access token: its sha256 as 64 hexadecimal digits. The texts carry 256 bits of randomness,
    so a fast hash is enough."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def same(one: str, other: str) -> bool:
    """Compare two digests or secrets in constant time."""
    return hmac.compare_digest(one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass"))


def _check(token: JoinToken) -> None:
    addresses: Sequence[str] = token.addresses
    if not 1 <= len(addresses) <= LIMITS.addresses_max:
        raise TokenError(f"a join token has 1 to {LIMITS.addresses_max} addresses")
    for address in addresses:
        if _ADDRESS.fullmatch(address) is None:
            raise TokenError("an address in a join token is https://HOST or https://HOST:PORT")
    if _HASH.fullmatch(token.authority_hash) is None:
        raise TokenError("the authority's hash in a join token is sha256: and 64 hexadecimal digits")
    if _HASH.fullmatch(token.repository_hash) is None:
        raise TokenError("the repository root's hash in a join token is sha256: and 64 hexadecimal digits")
    if _SECRET.fullmatch(token.secret) is None:
        raise TokenError("the secret in a join token is 16 to 128 letters, digits, '-' and '_'")
