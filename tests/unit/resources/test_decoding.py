"""Whatever msgspec raises over bytes that are not what they should be is among what callers catch."""

import msgspec
import pytest

from edgewise.resources.decoding import UNREADABLE


class Named(msgspec.Struct):
    name: str
    parts: "tuple[Named, ...]" = ()


DEEP = 100_000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x81\xa4name\xa1\xb3",
        b"\x81\xa4name\x01",
        b"\x81\xa1\xb3\x01",
        b"\x82\xa4name\xa1n\xa5parts" + b"\x91\x82\xa4name\xa1n\xa5parts" * DEEP,
    ],
    ids=["nothing", "no-type", "no-utf-8", "no-text", "no-utf-8-in-a-key", "deep"],
)
def test_messagepack(data: bytes) -> None:
    with pytest.raises(UNREADABLE):
        msgspec.msgpack.decode(data, type=Named)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b'{"name": "\xb3"}', b'{"name": 1}', b'{"\xb3": 1}', b'{"name": "n", "parts": [' * DEEP],
    ids=["nothing", "cut", "no-utf-8", "no-text", "no-utf-8-in-a-key", "deep"],
)
def test_json(data: bytes) -> None:
    with pytest.raises(UNREADABLE):
        msgspec.json.decode(data, type=Named)
