"""Ranges, bandwidth, secrets at rest, streams, the repository's files."""

import asyncio
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.control.data import DataError, open_data
from edgewise.control.limits import ControlLimits
from edgewise.control.messages import Refusal
from edgewise.control.repository import open_repository
from edgewise.control.secrets import SecretBox
from edgewise.control.streams import Streams, StreamUnanswered, TooManyStreams
from edgewise.control.transfers import Budget, _span
from edgewise.resources.config import SecretSpec
from edgewise.store.contract import Key
from edgewise.trust.repository import StaleMetadata, add_release
from edgewise.trust.sealing import SealingError, new_at_rest_key


@pytest.mark.parametrize(
    ("text", "span"),
    [
        (b"", (0, 100)),
        (b"bytes=0-", (0, 100)),
        (b"bytes=10-19", (10, 20)),
        (b"bytes=99-", (99, 100)),
        (b"bytes=100-", None),
        (b"bytes=-1", (99, 100)),
        (b"bytes=-200", (0, 100)),
        (b"bytes=-0", None),
        (b"bytes=5-1000", (5, 100)),
        (b"bytes=5-4", (0, 100)),
        (b"bytes=1-2,3-4", (0, 100)),
        (b"bytes=" + b"9" * 30 + b"-", (0, 100)),
        (b"items=1-2", (0, 100)),
    ],
)
def test_a_range_is_within_the_blob(text, span):
    assert _span(text, 100) == span


@given(st.binary(max_size=30), st.integers(0, 1_000))
def test_no_range_is_ever_outside(text, size):
    span = _span(text, size)
    assert span is None or 0 <= span[0] <= span[1] <= size


async def test_a_budget_is_shared():
    budget, began = Budget(1_000_000.0, 100_000), time.monotonic()
    await asyncio.gather(*(budget.take(100_000) for _ in range(4)))
    assert time.monotonic() - began > 0.25


SECRET = Key("Secret", "line-3", "rtsp")


def test_a_secret_opens_only_under_its_key_and_address():
    box, data = SecretBox(new_at_rest_key()), {"password": "hunter2", "user": "cam"}
    spec = box.lock(SECRET, data)
    assert "hunter2" not in str(spec)
    assert box.open(SECRET, spec) == data
    assert (spec.digest, spec.data) == (box.digest(SECRET, dict(reversed(data.items()))), {})
    assert box.digest(SECRET, {**data, "user": "x"}) != spec.digest
    assert SecretBox(new_at_rest_key()).digest(SECRET, data) != spec.digest
    for other in (Key("Secret", "line-4", "rtsp"), Key("Secret", "line-3", "rtsp2")):
        with pytest.raises(SealingError):
            box.open(other, spec)
    with pytest.raises(SealingError):
        SecretBox(new_at_rest_key()).open(SECRET, spec)
    for damaged in ("", "!", spec.encrypted[:-8]):
        with pytest.raises(SealingError):
            box.open(SECRET, SecretSpec(encrypted=damaged))


class Connection:
    agent = "a"
    long_lived = False
    on_lost = None
    gone = False

    def __init__(self) -> None:
        self.dropped = False

    def drop(self) -> None:
        self.dropped = True


def sending(*pieces: bytes, then: float = 0.0):
    queue = list(pieces)

    async def receive():
        if not queue:
            await asyncio.sleep(then)
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.request", "body": queue.pop(0), "more_body": True}

    return receive


async def test_a_stream_holds_no_more_than_its_buffer_and_loses_nothing():
    woken: list[str] = []
    streams = Streams(ControlLimits(stream_buffer_bytes=100), woken.append)
    stream = streams.ask("a", "cam", "n/w", follow=True, tail_lines=10**9)
    assert woken == ["a"]
    assert stream.request.tail_lines == ControlLimits().stream_tail_lines_max
    assert streams.requests("b") == ()
    assert [each.id for each in streams.requests("a")] == [stream.request.id]
    assert streams.requests("a") == (), "each is told once"
    receiving = asyncio.create_task(streams.receive("a", stream.request.id, sending(*[b"x" * 60] * 50), Connection()))
    await streams.wait_opened(stream)
    await asyncio.sleep(0.02)
    assert not receiving.done(), "nobody reads: the device must wait"
    got = [piece async for piece in stream.pieces()]
    await receiving
    assert b"".join(got) == b"x" * 3_000
    assert max(map(len, got)) <= 160


async def test_a_reader_that_goes_ends_the_device():
    streams, connection = Streams(ControlLimits(), lambda _agent: None), Connection()
    stream = streams.ask("a", "cam", "n/w", follow=True, tail_lines=1)
    receiving = asyncio.create_task(streams.receive("a", stream.request.id, sending(b"x", then=5), connection))
    await streams.wait_opened(stream)
    streams.close(stream)
    assert connection.dropped
    assert len(streams) == 0
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)


async def test_streams_are_bounded_and_time_out():
    limits = ControlLimits(streams_max=1, stream_open_seconds=0.05)
    streams = Streams(limits, lambda _agent: None)
    stream = streams.ask("a", "cam", "n/w", follow=False, tail_lines=1)
    with pytest.raises(TooManyStreams):
        streams.ask("a", "cam", "n/w", follow=False, tail_lines=1)
    with pytest.raises(StreamUnanswered):
        await streams.wait_opened(stream)
    streams.close(stream)
    with pytest.raises(Refusal):
        await streams.receive("a", stream.request.id, sending(), Connection())


async def test_a_stream_has_an_end():
    streams, connection = Streams(ControlLimits(stream_seconds_max=0.05), lambda _agent: None), Connection()
    stream = streams.ask("a", "cam", "n/w", follow=True, tail_lines=1)
    await streams.receive("a", stream.request.id, sending(b"x", then=30), connection)
    assert connection.dropped


async def test_the_repository_takes_releases_over_and_keeps_itself_fresh(tmp_path):
    now = time.time()
    data = open_data(tmp_path, "x", now)
    data.close()
    repository = open_repository(data.repository, data.keys)
    key = (tmp_path / "offline" / "releases-1.pem").read_text()
    signed = add_release(repository.role("releases"), "releases/n/a/1.json", f"sha256:{'1' * 64}", 5, key, now)
    await repository.accept("releases", signed, now)
    with pytest.raises(StaleMetadata):
        await repository.accept("releases", signed, now)
    assert not await repository.refresh(now)
    assert await repository.refresh(now + 2 * 86_400)
    again = open_repository(data.repository, data.keys)
    for name in ("timestamp.json", "2.releases.json", "1.root.json"):
        assert again.get(name) == repository.get(name)
    assert again.root == repository.root == repository.get("1.root.json")
    assert repository.expiring(now, 86_400.0) == {}
    assert "releases" in repository.expiring(now, 3 * 365 * 86_400.0)


async def test_a_crash_between_the_files_of_a_publication_leaves_the_old_state(tmp_path, monkeypatch):
    from edgewise.control import repository as module

    now = time.time()
    data = open_data(tmp_path, "x", now)
    data.close()
    key = (tmp_path / "offline" / "releases-1.pem").read_text()
    real = module.write_durable
    for survive in range(3):
        opened = open_repository(data.repository, data.keys)
        before = opened.get("timestamp.json")
        signed = add_release(opened.role("releases"), "releases/n/a/1.json", f"sha256:{'1' * 64}", 5, key, now)
        written: list[str] = []

        def dying(path, content, mode, *, written=written, survive=survive):
            if len(written) == survive:
                raise OSError(28, "No space left on device")
            written.append(path.name)
            real(path, content, mode)

        monkeypatch.setattr(module, "write_durable", dying)
        with pytest.raises(OSError):
            await opened.accept("releases", signed, now)
        monkeypatch.setattr(module, "write_durable", real)
        assert opened.get("timestamp.json") == before
        assert open_repository(data.repository, data.keys).get("timestamp.json") == before
    final = open_repository(data.repository, data.keys)
    await final.accept("releases", add_release(final.role("releases"), "releases/n/a/1.json", f"sha256:{'1' * 64}", 5, key, now), now)
    targets = msgspec.json.decode(open_repository(data.repository, data.keys).role("releases"))["signed"]["targets"]
    assert list(targets) == ["releases/n/a/1.json"]


def test_a_damaged_repository_is_said(tmp_path):
    data = open_data(tmp_path, "x", time.time())
    data.close()
    (data.repository / "timestamp.json").write_bytes(b"{")
    repository = open_repository(data.repository, data.keys)
    assert repository.get("timestamp.json") == b"{"
    (data.repository / "1.root.json").unlink()
    with pytest.raises(DataError, match="damaged"):
        open_repository(data.repository, data.keys)
