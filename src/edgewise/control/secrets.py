"""Secrets while the control plane keeps them: encrypted under a key that is not in the store, bound to their address."""

import base64
import hashlib
import hmac
from typing import Final

import msgspec

from edgewise.resources.config import SecretSpec
from edgewise.resources.decoding import UNREADABLE
from edgewise.store.contract import Key
from edgewise.trust.sealing import SealingError, decrypt_at_rest, encrypt_at_rest

_DATA: Final = msgspec.msgpack.Decoder(dict[str, str])
_ENCODER: Final = msgspec.msgpack.Encoder(order="deterministic")


class SecretBox:
    """Encrypts and opens secrets with the at-rest key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def lock(self, key: Key, data: dict[str, str]) -> SecretSpec:
        """Return the spec to store for a secret with `data`. The digest is keyed: it tells that something changed, and nothing of what.
        Raises `SealingError` when there is too much of it."""
        plain = _ENCODER.encode(data)
        encrypted = encrypt_at_rest(self._key, plain, _context(key))
        return SecretSpec(encrypted=base64.b64encode(encrypted).decode(), digest=self.digest(key, data))

    def digest(self, key: Key, data: dict[str, str]) -> str:
        """Return the keyed digest of `data` at `key`."""
        return hmac.new(self._key, b"digest\x00" + _context(key) + _ENCODER.encode(data), hashlib.sha256).hexdigest()

    def open(self, key: Key, spec: SecretSpec) -> dict[str, str]:
        """Return the data of a stored secret; `key` is the address that it was stored under first. Raises `SealingError`."""
        try:
            encrypted = base64.b64decode(spec.encrypted, validate=True)
            return _DATA.decode(decrypt_at_rest(self._key, encrypted, _context(key)))
        except (ValueError, *UNREADABLE) as error:
            raise SealingError("the stored secret is damaged") from error


def _context(key: Key) -> bytes:
    parts = (key.namespace.encode(), key.name.encode())
    return b"secret" + b"".join(len(part).to_bytes(2) + part for part in parts)
