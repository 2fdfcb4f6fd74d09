"""Join tokens and access tokens."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.trust.tokens import (
    LIMITS,
    JoinToken,
    TokenError,
    is_access_token,
    new_secret,
    read_join_token,
    repository_hash,
    same,
    secret_digest,
    write_access_token,
    write_join_token,
)

HASH = "sha256:" + "0123456789abcdef" * 4
ROOT = "sha256:" + "fedcba9876543210" * 4
SECRET = "s" * 43


def _token(**changes) -> JoinToken:
    return JoinToken(("https://control.example:7421",), HASH, ROOT, SECRET)._replace(**changes)


@pytest.mark.parametrize(
    "addresses",
    [("https://a",), ("https://10.0.0.1:7421", "https://[::1]:7421"), tuple(f"https://h{n}" for n in range(LIMITS.addresses_max))],
)
def test_a_token_comes_back_as_it_was(addresses):
    token = _token(addresses=addresses)
    text = write_join_token(token)
    assert "\n" not in text
    assert read_join_token(f"  {text}\n") == token


@pytest.mark.parametrize(
    "changes",
    [
        {"addresses": ()},
        {"addresses": tuple(f"https://h{n}" for n in range(LIMITS.addresses_max + 1))},
        {"addresses": ("http://a",)},
        {"addresses": ("https://user:pass@a",)},
        {"addresses": ("https://a/path",)},
        {"addresses": ("https://a b",)},
        {"authority_hash": "sha256:short"},
        {"authority_hash": HASH.upper()},
        {"repository_hash": "sha256:short"},
        {"repository_hash": ""},
        {"secret": "short"},
        {"secret": "s" * 129},
        {"secret": "with space in it....."},
    ],
)
def test_bad_parts_are_neither_written_nor_read(changes):
    with pytest.raises(TokenError):
        write_join_token(_token(**changes))
    token = _token(**changes)
    body = json.dumps({"a": token.addresses, "h": token.authority_hash, "r": token.repository_hash, "s": token.secret}).encode()
    with pytest.raises(TokenError):
        read_join_token("ewj1." + base64.urlsafe_b64encode(body).decode())


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"a":1,"h":"","r":"","s":""}', b"[" * 3000, b"\xff", b'{"a":[1],"h":"x","r":"z","s":"y"}', b'{"r":"x"}']
)
def test_damaged_bodies_are_refused(body):
    with pytest.raises(TokenError):
        read_join_token("ewj1." + base64.urlsafe_b64encode(body).decode())


def test_a_token_that_names_no_repository_root_is_refused():
    body = json.dumps({"a": ["https://a"], "h": HASH, "s": SECRET}).encode()
    with pytest.raises(TokenError, match="root of the signed repository"):
        read_join_token("ewj1." + base64.urlsafe_b64encode(body).decode())


def test_a_root_is_named_by_its_sha256():
    assert repository_hash(b"abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert read_join_token(write_join_token(_token(repository_hash=repository_hash(b"abc")))).repository_hash == repository_hash(b"abc")


@given(st.text(max_size=200))
def test_any_other_text_is_refused_and_never_repeated(text):
    for candidate in (text, "ewj1." + text):
        with pytest.raises(TokenError) as refused:
            read_join_token(candidate)
        assert len(text) < 12 or text not in str(refused.value)


@pytest.mark.parametrize("size", [LIMITS.text_characters_max - 1, LIMITS.text_characters_max, LIMITS.text_characters_max + 1, 10**6])
def test_the_text_is_bounded(size):
    with pytest.raises(TokenError) as refused:
        read_join_token("ewj1." + "A" * (size - 5))
    assert ("at most" in str(refused.value)) == (size > LIMITS.text_characters_max)


def test_a_cut_token_is_refused():
    text = write_join_token(_token())
    for cut in range(len(text) - 4, 0, -7):
        with pytest.raises(TokenError):
            read_join_token(text[:cut])


def test_a_token_does_not_print_its_secret():
    assert SECRET not in repr(_token())


def test_access_tokens():
    text = write_access_token(bytes(range(32)))
    assert is_access_token(text)
    assert text == "ewo1_" + new_secret(bytes(range(32)))
    for other in (text[:-1], text + "A", "ewo2_" + text[5:], "", text + "\n"):
        assert not is_access_token(other)
    for size in (31, 33, 0):
        with pytest.raises(TokenError):
            write_access_token(bytes(size))


def test_digests_are_sha256_and_compare():
    assert secret_digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert same(secret_digest("a"), secret_digest("a"))
    assert not same(secret_digest("a"), secret_digest("b"))
    assert secret_digest("\ud800") != secret_digest("a")  # what a hostile header may hold
