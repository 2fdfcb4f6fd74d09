"""What every blob store must do. A new implementation adds one entry to `MAKERS`."""

import asyncio
import hashlib

import pytest

from edgewise.store.blobs import BlobLimits, FolderBlobs
from edgewise.store.contract import BlobError

MAKERS = {"folder": lambda folder: FolderBlobs(folder, BlobLimits(blob_bytes_max=100_000, chunk_bytes=1000))}


@pytest.fixture(params=sorted(MAKERS))
def blobs(request, tmp_path):
    return MAKERS[request.param](tmp_path / "blobs")


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


async def chunks(data, size=700):
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def put(blobs, data):
    digest = digest_of(data)
    await blobs.put(digest, chunks(data), len(data))
    return digest


async def read(blobs, digest, *span):
    return b"".join([chunk async for chunk in blobs.read(digest, *span)])


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 12_345])
async def test_what_is_put_is_read(blobs, size):
    data = bytes(number % 251 for number in range(size))
    digest = await put(blobs, data)
    assert await read(blobs, digest) == data
    assert await blobs.size(digest) == size
    assert await blobs.digests() == (digest,)


@pytest.mark.parametrize("span", [(0, 0), (0, 1), (1999, 2001), (2000, None), (3500, 9999), (4000, 4000), (5000, 6000)])
async def test_a_part_is_read(blobs, span):
    data = bytes(number % 251 for number in range(4000))
    start, end = span
    assert await read(blobs, await put(blobs, data), *span) == data[start:end]


async def test_no_chunk_is_larger_than_the_limit(blobs):
    digest = await put(blobs, b"x" * 5500)
    assert max([len(chunk) async for chunk in blobs.read(digest)]) == 1000


@pytest.mark.parametrize("span", [(-1, 3), (3, 2), (-2, None)])
async def test_a_span_that_is_none_is_refused(blobs, span):
    digest = await put(blobs, b"data")
    with pytest.raises(BlobError, match="not a range"):
        await read(blobs, digest, *span)


async def test_a_missing_blob(blobs):
    digest = digest_of(b"nothing")
    assert await blobs.size(digest) is None
    with pytest.raises(BlobError, match="no such blob"):
        await read(blobs, digest)
    await blobs.delete(digest)


@pytest.mark.parametrize(
    ("data", "announced", "reason"),
    [
        (b"x" * 2000, 1999, "more than the 1999 bytes"),
        (b"x" * 2000, 2001, "2000 bytes instead of the 2001"),
        (b"y" * 2000, 2000, "have the digest"),
    ],
)
async def test_bytes_that_are_not_the_blob_leave_nothing(blobs, data, announced, reason, tmp_path):
    digest = digest_of(b"x" * 2000)
    with pytest.raises(BlobError, match=reason):
        await blobs.put(digest, chunks(data), announced)
    assert await blobs.size(digest) is None
    assert await blobs.digests() == ()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(("size", "fits"), [(99_999, True), (100_000, True), (100_001, False)])
async def test_the_size_of_a_blob_is_limited(blobs, size, fits):
    if fits:
        await put(blobs, b"x" * size)
    else:
        with pytest.raises(BlobError, match="0 to 100000 bytes"):
            await put(blobs, b"x" * size)


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "sha256:",
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 64 + "\n",
        "sha512:" + "a" * 64,
        "../" + "a" * 64,
        "sha256:../../../../../../../../../../../../../../../../../../etc/passwd",
        "a" * 64,
    ],
)
async def test_what_is_no_digest_is_refused(blobs, digest):
    for call in (blobs.put(digest, chunks(b""), 0), blobs.size(digest), read(blobs, digest), blobs.delete(digest)):
        with pytest.raises(BlobError, match="is not a digest"):
            await call


async def test_storing_it_again_succeeds_without_reading_it(blobs):
    digest = await put(blobs, b"data")

    async def never():
        raise AssertionError("read")
        yield b""

    await blobs.put(digest, never(), 4)
    assert await read(blobs, digest) == b"data"


async def test_many_may_store_the_same_at_once(blobs):
    assert len(set(await asyncio.gather(*(put(blobs, b"z" * 5000) for _ in range(8))))) == 1
    assert len(await blobs.digests()) == 1


async def test_a_deleted_blob_is_gone(blobs):
    first, second = await put(blobs, b"1"), await put(blobs, b"2")
    await blobs.delete(first)
    assert await blobs.size(first) is None
    assert await blobs.digests() == (second,)
    await put(blobs, b"1")
    assert await blobs.digests() == tuple(sorted((first, second)))


async def test_a_source_that_fails_leaves_nothing(blobs, tmp_path):
    async def broken():
        yield b"x" * 1500
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await blobs.put(digest_of(b"x" * 3000), broken(), 3000)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_a_cancelled_put_leaves_nothing(blobs, tmp_path):
    started = asyncio.Event()

    async def slow():
        yield b"x" * 1500
        started.set()
        await asyncio.Event().wait()

    putting = asyncio.create_task(blobs.put(digest_of(b"x" * 3000), slow(), 3000))
    await started.wait()
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
