"""Blobs in a folder: `sha256/ab/abcdef…`, written whole or not at all.

A blob is written to `incoming/`, hashed on the way, synced, then renamed to its place and its folder synced: whatever has its place is
complete, and is there after a power cut. Names come from digests alone; links are never followed. The folder belongs to one process.
"""

import asyncio
import contextlib
import hashlib
import os
import re
import secrets
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import msgspec

from edgewise.store.contract import BlobError, Digest

P = ParamSpec("P")
T = TypeVar("T")

_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_NAME: Final = re.compile(r"[0-9a-f]{64}")
_FLAGS: Final = os.O_NOFOLLOW | os.O_CLOEXEC


class BlobLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a blob store. `blob_bytes_max`: one blob. `chunk_bytes`: what one reading yields at most, and about what is hashed and
    written at once."""

    blob_bytes_max: int = 16_000_000_000
    chunk_bytes: int = 256 * 1024


class FolderBlobs:
    """A `BlobStore` in `folder`, which is made with mode 0700 when it is not there. What an earlier process left half written is
    removed. Raises `BlobError` when the folder cannot be used."""

    def __init__(self, folder: str | os.PathLike[str], limits: BlobLimits | None = None) -> None:
        self._limits = limits or BlobLimits()
        self._blobs = Path(folder) / "sha256"
        self._incoming = Path(folder) / "incoming"
        try:
            for place in (Path(folder), self._blobs, self._incoming):
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in self._incoming.iterdir():
                left.unlink()
            _sync_folder(Path(folder))
        except OSError as error:
            raise BlobError(f"the blob folder {folder} cannot be used: {error.strerror}") from error

    def _place(self, digest: Digest) -> Path:
        match = _DIGEST.fullmatch(digest)
        if match is None:
            raise BlobError(f"{digest[:80]!r} is not a digest")
        return self._blobs / match[1][:2] / match[1]

    async def put(self, digest: Digest, chunks: AsyncIterator[bytes], size: int) -> None:
        """See `BlobStore.put`. `chunks` is not read when the blob is there already."""
        place = self._place(digest)
        if not 0 <= size <= self._limits.blob_bytes_max:
            raise BlobError(f"{digest}: a blob has 0 to {self._limits.blob_bytes_max} bytes, not {size}")
        if await asyncio.to_thread(_is_whole, place, digest, size, self._limits.chunk_bytes):
            return
        try:
            incoming = _Incoming(self._incoming / secrets.token_hex(16))
        except OSError as error:
            raise _failed(digest, error) from error
        try:
            await self._receive(incoming, digest, chunks, size)
            await _on_disk(digest, incoming.finish, place)
        finally:
            await asyncio.to_thread(incoming.discard)

    async def _receive(self, incoming: "_Incoming", digest: Digest, chunks: AsyncIterator[bytes], size: int) -> None:
        gathered: list[bytes] = []
        held = 0
        received = 0
        async for chunk in chunks:
            received += len(chunk)
            if received > size:
                raise BlobError(f"{digest}: more than the {size} bytes that were announced")
            gathered.append(chunk)
            held += len(chunk)
            if held >= self._limits.chunk_bytes:
                await _on_disk(digest, incoming.write, gathered)
                gathered, held = [], 0
        await _on_disk(digest, incoming.write, gathered)
        if received < size:
            raise BlobError(f"{digest}: {received} bytes instead of the {size} that were announced")
        if incoming.digest != digest:
            raise BlobError(f"{digest}: the bytes have the digest {incoming.digest}")

    async def size(self, digest: Digest) -> int | None:
        """See `BlobStore.size`."""
        return await asyncio.to_thread(_size, self._place(digest))

    async def read(self, digest: Digest, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """See `BlobStore.read`. `end` beyond the blob's is its end."""
        place = self._place(digest)
        if start < 0 or (end is not None and end < start):
            raise BlobError(f"{digest}: {start} to {end} is not a range")
        try:
            descriptor = os.open(place, os.O_RDONLY | _FLAGS)
        except OSError as error:
            raise _failed(digest, error) from error
        try:
            while end is None or start < end:
                length = self._limits.chunk_bytes if end is None else min(self._limits.chunk_bytes, end - start)
                chunk = await _on_disk(digest, os.pread, descriptor, length, start)
                if not chunk:
                    return
                start += len(chunk)
                yield chunk
        finally:
            os.close(descriptor)

    async def delete(self, digest: Digest) -> None:
        """See `BlobStore.delete`."""
        await _on_disk(digest, _delete, self._place(digest))

    async def digests(self) -> tuple[Digest, ...]:
        """See `BlobStore.digests`."""
        try:
            return await asyncio.to_thread(_digests, self._blobs)
        except OSError as error:
            raise BlobError(f"the blob folder cannot be read: {error.strerror}") from error


async def _on_disk(digest: Digest, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Run `function` in a thread; the disk's errors are the blob's."""
    try:
        return await asyncio.to_thread(function, *arguments, **named)
    except OSError as error:
        raise _failed(digest, error) from error


def _failed(digest: Digest, error: OSError) -> BlobError:
    if isinstance(error, FileNotFoundError):
        return BlobError(f"{digest}: there is no such blob")
    return BlobError(f"{digest}: {error.strerror}")


class _Incoming:
    """A blob on its way in. Raises `OSError`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # A cancelled `put` leaves its thread at work: the file must not be closed under it.
        self._lock = threading.Lock()
        self._hash = hashlib.sha256()
        self._file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600), "wb", buffering=0)

    @property
    def digest(self) -> Digest:
        """The digest of what was written."""
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, chunks: list[bytes]) -> None:
        """Hash and write `chunks`."""
        with self._lock:
            data = memoryview(b"".join(chunks))
            self._hash.update(data)
            while data:
                data = data[self._file.write(data) :]

    def finish(self, place: Path) -> None:
        """Sync what was written and put it in its place."""
        with self._lock:
            os.fsync(self._file.fileno())
            self._file.close()
        if not place.parent.is_dir():
            place.parent.mkdir(mode=0o700, exist_ok=True)
            _sync_folder(place.parent.parent)
        self._path.rename(place)
        _sync_folder(place.parent)

    def discard(self) -> None:
        """Leave nothing, unless it has its place."""
        with self._lock:
            self._file.close()
        with contextlib.suppress(OSError):  # what cannot be removed now is removed at the next start
            self._path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size(place: Path) -> int | None:
    try:
        return place.stat(follow_symlinks=False).st_size
    except OSError:
        return None


def _is_whole(place: Path, digest: Digest, size: int, chunk_bytes: int) -> bool:
    """Whether the blob is there, undamaged."""
    if _size(place) != size:
        return False
    found = hashlib.sha256()
    try:
        with os.fdopen(os.open(place, os.O_RDONLY | _FLAGS), "rb", buffering=0) as file:
            while chunk := file.read(chunk_bytes):
                found.update(chunk)
    except OSError:
        return False  # it cannot be read, so it is written anew
    return f"sha256:{found.hexdigest()}" == digest


def _delete(place: Path) -> None:
    try:
        place.unlink()
    except FileNotFoundError:
        return
    _sync_folder(place.parent)


def _digests(blobs: Path) -> tuple[Digest, ...]:
    return tuple(
        sorted(
            f"sha256:{entry.name}"
            for folder in blobs.iterdir()
            if folder.is_dir()
            for entry in folder.iterdir()
            if _NAME.fullmatch(entry.name)
        )
    )
