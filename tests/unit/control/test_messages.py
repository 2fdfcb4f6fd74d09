"""Bodies are bounded before they are read further, unpacked no further than allowed, and decoded within a depth."""

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from edgewise.control.limits import ControlLimits
from edgewise.control.messages import Disconnected, Refusal, busy, decoded, read_body, unpacked
from edgewise.wire.report import Report

LIMITS = ControlLimits()


def scope(**headers: str) -> dict:
    return {"headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]}


def status_of(call) -> int:
    try:
        call()
    except Refusal as refused:
        return refused.status
    return 200


def receiver(*pieces: bytes, end: bool = True):
    messages = [{"type": "http.request", "body": piece, "more_body": i < len(pieces) - 1 or not end} for i, piece in enumerate(pieces)]
    if not end:
        messages.append({"type": "http.disconnect"})
    taken: list[int] = []

    async def receive():
        taken.append(1)
        return messages[len(taken) - 1]

    receive.taken = taken
    return receive


@pytest.mark.parametrize("size", [99, 100])
async def test_a_body_up_to_the_limit_is_read(size):
    assert await read_body(scope(), receiver(b"x" * size), 100) == b"x" * size
    assert await read_body(scope(), receiver(b"x" * (size - 1), b"y"), 100) == b"x" * (size - 1) + b"y"


async def test_one_byte_over_is_refused():
    with pytest.raises(Refusal, match="larger than 100") as refused:
        await read_body(scope(), receiver(b"x" * 101), 100)
    assert (refused.value.status, refused.value.close) == (413, True)
    with pytest.raises(Refusal):
        await read_body(scope(), receiver(b"x" * 100, b"y"), 100)


async def test_a_declared_length_is_refused_before_anything_is_read():
    receive = receiver(b"")
    for length in ("101", "9" * 30, "-1", "x"):
        with pytest.raises(Refusal):
            await read_body(scope(content_length=length), receive, 100)
    assert not receive.taken


async def test_reading_stops_at_the_limit():
    receive = receiver(*[b"x" * 60] * 50)
    with pytest.raises(Refusal):
        await read_body(scope(), receive, 100)
    assert len(receive.taken) == 2


async def test_a_connection_that_goes_is_no_body():
    with pytest.raises(Disconnected):
        await read_body(scope(), receiver(b"x", end=False), 100)


@given(st.binary(max_size=5_000))
def test_what_was_packed_is_unpacked(data):
    assert unpacked(scope(content_encoding="zstd"), zstandard.compress(data), 5_000) == data
    assert unpacked(scope(), data, 0) is data


@pytest.mark.parametrize("size", [999, 1_000, 1_001])
def test_no_more_is_unpacked_than_allowed(size):
    packed = zstandard.compress(b"x" * size)
    if size <= 1_000:
        assert len(unpacked(scope(content_encoding="zstd"), packed, 1_000)) == size
    else:
        with pytest.raises(Refusal) as refused:
            unpacked(scope(content_encoding="zstd"), packed, 1_000)
        assert refused.value.status == 413


@given(st.binary(max_size=200))
def test_nothing_makes_unpacking_fail_otherwise(data):
    assert status_of(lambda: unpacked(scope(content_encoding="zstd"), data, 1_000)) in {200, 400, 413}


def test_a_huge_window_is_refused():
    """A frame may ask for gigabytes to be held while it is unpacked."""
    frame = b"\x28\xb5\x2f\xfd" + b"\x00" + b"\xff" + b"\x01\x00\x00"
    with pytest.raises(Refusal) as refused:
        unpacked(scope(content_encoding="zstd"), frame, 4_194_304)
    assert refused.value.status == 400


@pytest.mark.parametrize("depth", [10, 500, 100_000, 3_000_000])
def test_depth_is_bounded(depth):
    decoder = msgspec.msgpack.Decoder(Report)
    body = b"\x83\xabincarnation\xa1i\xa7session\xa1s\xa5extra" + b"\x91" * depth + b"\xc0"
    assert status_of(lambda: decoded(decoder, body)) == (200 if depth <= 500 else 400)


def test_text_that_is_no_utf_8_is_refused():
    body = b"\x82\xabincarnation\xa1\xb3\xa7session\xa1s"
    assert status_of(lambda: decoded(msgspec.msgpack.Decoder(Report), body)) == 400


@given(st.binary(max_size=300))
def test_whatever_is_sent_decodes_or_is_refused(data):
    assert status_of(lambda: decoded(msgspec.msgpack.Decoder(Report), data)) in {200, 400}


def test_those_who_are_shed_come_back_at_different_moments():
    waits = {busy(LIMITS, "x").retry_after for _ in range(50)}
    assert len(waits) > 40
    assert all(LIMITS.retry_seconds_min <= wait <= LIMITS.retry_seconds_max for wait in waits)
    assert all(30 <= busy(LIMITS, "x", retry_after=30.0).retry_after <= 60 for _ in range(20))
