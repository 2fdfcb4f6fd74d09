"""Secrets, sealed to the device that needs them (HPKE) and encrypted where the control plane keeps them.

Sealing is HPKE (RFC 9180) in base mode with X25519, HKDF-SHA256 and ChaCha20-Poly1305, by pyca/cryptography; the context goes in as `info`,
so that what was sealed for one device, namespace and name opens as nothing else. Whoever holds a device's public key can seal: sealing
hides, it does not vouch for who wrote the secret. Both forms begin with a version byte.
"""

import os
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

_VERSION: Final = b"\x01"
_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32
_REST_LABEL: Final = b"edgewise at rest\x00"


class SealingError(Exception):
    """Something cannot be sealed, or does not open: wrong key, wrong context, or damaged. Nothing of the content is in the message."""


class SealingLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of plaintext in one piece, and of one context."""

    plaintext_bytes_max: int = 1_000_000
    context_bytes_max: int = 4_096


LIMITS: Final = SealingLimits()


def secret_context(device_uid: str, namespace: str, name: str) -> bytes:
    """Return the context of a Secret sealed to a device. Parts are length-prefixed: no two triples share one."""
    parts = [part.encode() for part in ("edgewise secret", device_uid, namespace, name)]
    return b"".join(len(part).to_bytes(2) + part for part in parts)


def seal(public_raw: bytes, plaintext: bytes, context: bytes) -> bytes:
    """Return `plaintext` so that only the holder of the X25519 private key opens it, given the same context. Raises `SealingError`."""
    _check(plaintext, context, LIMITS.plaintext_bytes_max)
    try:
        return _VERSION + _SUITE.encrypt(plaintext, X25519PublicKey.from_public_bytes(public_raw), info=context)
    except ValueError as error:
        raise SealingError("the public sealing key is not an X25519 key of 32 bytes") from error


def unseal(private_raw: bytes, sealed: bytes, context: bytes) -> bytes:
    """Open what `seal` returned. Raises `SealingError`."""
    _check(sealed, context, LIMITS.plaintext_bytes_max + 256)
    if sealed[:1] != _VERSION:
        raise SealingError("the secret was sealed in a form that is not known here")
    try:
        return _SUITE.decrypt(sealed[1:], X25519PrivateKey.from_private_bytes(private_raw), info=context)
    except (ValueError, InvalidTag) as error:
        raise SealingError("the secret does not open: sealed to another device or name, or damaged") from error


def new_at_rest_key() -> bytes:
    """Return a new key of 32 bytes for `encrypt_at_rest`. Keep it out of the store that it protects, readable by its owner only."""
    return os.urandom(_KEY_BYTES)


def encrypt_at_rest(key: bytes, plaintext: bytes, context: bytes) -> bytes:
    """Return `plaintext` encrypted (ChaCha20-Poly1305, random nonce) and bound to `context`. Raises `SealingError`."""
    _check(plaintext, context, LIMITS.plaintext_bytes_max)
    nonce = os.urandom(_NONCE_BYTES)
    return _VERSION + nonce + _cipher(key).encrypt(nonce, plaintext, _REST_LABEL + context)


def decrypt_at_rest(key: bytes, encrypted: bytes, context: bytes) -> bytes:
    """Open what `encrypt_at_rest` returned. Raises `SealingError`."""
    _check(encrypted, context, LIMITS.plaintext_bytes_max + 256)
    if encrypted[:1] != _VERSION:
        raise SealingError("the content was encrypted in a form that is not known here")
    nonce, body = encrypted[1 : 1 + _NONCE_BYTES], encrypted[1 + _NONCE_BYTES :]
    try:
        return _cipher(key).decrypt(nonce, body, _REST_LABEL + context)
    except (ValueError, InvalidTag) as error:
        raise SealingError("the content does not open: another key or name, or damaged") from error


def _cipher(key: bytes) -> ChaCha20Poly1305:
    if len(key) != _KEY_BYTES:
        raise SealingError(f"the key must have {_KEY_BYTES} bytes")
    return ChaCha20Poly1305(key)


def _check(data: bytes, context: bytes, limit: int) -> None:
    if len(data) > limit:
        raise SealingError(f"at most {LIMITS.plaintext_bytes_max} bytes can be sealed")
    if len(context) > LIMITS.context_bytes_max:
        raise SealingError(f"a context has at most {LIMITS.context_bytes_max} bytes")
