"""Secrets: sealed to a device, encrypted at rest."""

import pytest
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.trust import sealing
from edgewise.trust.keys import new_sealing_key
from edgewise.trust.sealing import LIMITS, SealingError, decrypt_at_rest, encrypt_at_rest, new_at_rest_key, seal, secret_context, unseal

PRIVATE, PUBLIC = new_sealing_key()
CONTEXT = secret_context("uid-1", "line-3", "rtsp")


def test_the_suite_is_that_of_rfc_9180_a_2_1():
    """Appendix A.2.1, base mode, sequence number 0."""
    private = X25519PrivateKey.from_private_bytes(bytes.fromhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb"))
    enc = "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a"
    ct = "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28"
    opened = openssl.hpke._decrypt_with_aad(sealing._SUITE, bytes.fromhex(enc + ct), private, info=b"Ode on a Grecian Urn", aad=b"Count-0")
    assert opened == b"Beauty is truth, truth beauty"


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=2000), st.binary(max_size=200))
def test_what_is_sealed_opens_under_the_same_key_and_context_only(plaintext, context):
    sealed = seal(PUBLIC, plaintext, context)
    assert unseal(PRIVATE, sealed, context) == plaintext
    with pytest.raises(SealingError):
        unseal(PRIVATE, sealed, context + b"x")
    with pytest.raises(SealingError):
        unseal(new_sealing_key()[0], sealed, context)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_changed_byte_is_noticed(data):
    key = bytes(32)
    for made, opening in (
        (seal(PUBLIC, b"secret", CONTEXT), lambda x: unseal(PRIVATE, x, CONTEXT)),
        (encrypt_at_rest(key, b"secret", CONTEXT), lambda x: decrypt_at_rest(key, x, CONTEXT)),
    ):
        at = data.draw(st.integers(0, len(made) - 1))
        bit = data.draw(st.integers(0, 7))
        changed = bytearray(made)
        changed[at] ^= 1 << bit
        with pytest.raises(SealingError):
            opening(bytes(changed))
        with pytest.raises(SealingError):
            opening(made[:at])


def test_sealing_twice_looks_different():
    assert seal(PUBLIC, b"x", CONTEXT) != seal(PUBLIC, b"x", CONTEXT)
    assert b"plain" not in seal(PUBLIC, b"plain", CONTEXT)


@given(
    st.tuples(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8)),
    st.tuples(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8)),
)
def test_contexts_are_shared_by_no_two_secrets(one, two):
    assert (secret_context(*one) == secret_context(*two)) == (one == two)
    assert secret_context("a", "bc", "d") != secret_context("ab", "c", "d")


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_keys_of_another_size_are_refused(size):
    with pytest.raises(SealingError):
        seal(bytes(size), b"x", CONTEXT)
    with pytest.raises(SealingError):
        unseal(bytes(size), seal(PUBLIC, b"x", CONTEXT), CONTEXT)
    with pytest.raises(SealingError):
        encrypt_at_rest(bytes(size), b"x", CONTEXT)


def test_a_public_key_of_low_order_is_refused():
    with pytest.raises(SealingError):
        seal(bytes(32), b"x", CONTEXT)


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_sizes_are_bounded(extra):
    plaintext, context = bytes(LIMITS.plaintext_bytes_max + extra), bytes(LIMITS.context_bytes_max + extra)
    if extra > 0:
        for arguments in ((plaintext, b""), (b"", context)):
            with pytest.raises(SealingError):
                seal(PUBLIC, *arguments)
            with pytest.raises(SealingError):
                encrypt_at_rest(bytes(32), *arguments)
    else:
        assert unseal(PRIVATE, seal(PUBLIC, plaintext, context), context) == plaintext
        assert decrypt_at_rest(bytes(32), encrypt_at_rest(bytes(32), plaintext, context), context) == plaintext


def test_at_rest_is_bound_to_key_and_context():
    key = new_at_rest_key()
    encrypted = encrypt_at_rest(key, b"secret", CONTEXT)
    assert decrypt_at_rest(key, encrypted, CONTEXT) == b"secret"
    with pytest.raises(SealingError):
        decrypt_at_rest(new_at_rest_key(), encrypted, CONTEXT)
    with pytest.raises(SealingError):
        decrypt_at_rest(key, encrypted, secret_context("uid-1", "line-3", "other"))
