"""What the folder looks like, and what becomes of damage in it."""

import hashlib
import os

import pytest

from edgewise.store.blobs import FolderBlobs
from edgewise.store.contract import BlobError

DATA = b"model" * 1000
HEX = hashlib.sha256(DATA).hexdigest()
DIGEST = f"sha256:{HEX}"


async def chunks(data):
    yield data


def place(folder):
    return folder / "sha256" / HEX[:2] / HEX


async def read(blobs):
    return b"".join([chunk async for chunk in blobs.read(DIGEST)])


@pytest.mark.parametrize("damaged", [DATA[:-1], DATA[:-1] + b"?", DATA + b"?", b""])
async def test_a_damaged_blob_is_replaced(tmp_path, damaged):
    blobs = FolderBlobs(tmp_path)
    await blobs.put(DIGEST, chunks(DATA), len(DATA))
    place(tmp_path).write_bytes(damaged)
    await blobs.put(DIGEST, chunks(DATA), len(DATA))
    assert await read(blobs) == DATA


async def test_a_damaged_blob_is_not_replaced_by_worse(tmp_path):
    blobs = FolderBlobs(tmp_path)
    await blobs.put(DIGEST, chunks(DATA), len(DATA))
    place(tmp_path).write_bytes(b"damaged")
    with pytest.raises(BlobError):
        await blobs.put(DIGEST, chunks(DATA[:-1] + b"?"), len(DATA))
    assert place(tmp_path).read_bytes() == b"damaged"


async def test_everything_is_private_and_survives_a_restart(tmp_path):
    folder = tmp_path / "new" / "blobs"
    await FolderBlobs(folder).put(DIGEST, chunks(DATA), len(DATA))
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_dir()} == {0o700}
    assert place(folder).stat().st_mode & 0o777 == 0o600
    assert await FolderBlobs(folder).digests() == (DIGEST,)


async def test_what_a_dead_process_left_is_removed_and_strangers_are_not_listed(tmp_path):
    blobs = FolderBlobs(tmp_path)
    (tmp_path / "incoming" / "half").write_bytes(b"half")
    place(tmp_path).parent.mkdir()
    place(tmp_path).with_name("stranger").write_bytes(b"?")
    (tmp_path / "sha256" / "note").write_bytes(b"?")
    assert await blobs.digests() == ()
    FolderBlobs(tmp_path)
    assert list((tmp_path / "incoming").iterdir()) == []


async def test_links_are_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * len(DATA))
    blobs = FolderBlobs(tmp_path / "blobs")
    place(tmp_path / "blobs").parent.mkdir()
    place(tmp_path / "blobs").symlink_to(secret)
    with pytest.raises(BlobError):
        await read(blobs)
    await blobs.put(DIGEST, chunks(DATA), len(DATA))
    assert secret.read_bytes() == b"x" * len(DATA)
    assert await read(blobs) == DATA


async def test_a_disk_that_fails_is_told(tmp_path, monkeypatch):
    blobs = FolderBlobs(tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(BlobError, match="No space left"):
            await blobs.put(DIGEST, chunks(DATA), len(DATA))
    assert await blobs.size(DIGEST) is None
    assert list((tmp_path / "incoming").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BlobError, match="cannot be used"):
        FolderBlobs(tmp_path / "file")
