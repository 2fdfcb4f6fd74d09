"""The only way the device touches its disk.

Paths are relative to one data folder, with `/`, and never leave it (`PathRefused`). Every operation says what a power cut may leave:
the recording implementation in the tests cuts at each of them, so code above may rely on nothing that is not promised here.
"""

from typing import Literal, Protocol

import msgspec


class FilesError(Exception):
    """An operation on the device's disk failed. `path` is relative to the data folder."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class Missing(FilesError):
    """There is no such file or folder."""


class Full(FilesError):
    """The disk or its quota is full (ENOSPC, EDQUOT)."""


class ReadOnly(FilesError):
    """The file system does not take writes (EROFS, EACCES, EPERM)."""


class Damaged(FilesError):
    """The device answered with an I/O error (EIO), or a file is larger than the limit it was read with."""


class PathRefused(FilesError):
    """The path would leave the data folder, or goes through a link."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a folder. `size` in bytes, 0 for folders. Links are reported as such and never followed."""

    name: str
    kind: Literal["file", "folder", "link", "other"]
    size: int = 0


class Appender(Protocol):
    """An open file that only grows, or is cut at its end."""

    @property
    def size(self) -> int:
        """Bytes in the file now."""
        ...

    def append(self, data: bytes) -> None:
        """Write `data` at the end. After a power cut before `sync`, any prefix of what was not synced may be there, or garbage of
        its length.
        When this raises, the file may hold a part of `data`: truncate before going on."""
        ...

    def sync(self) -> None:
        """Return once all that was appended is on the disk (fdatasync). When this raises `Damaged`, nothing unsynced may be
        believed: reopen
        the file and read it again, never call `sync` again in the hope that it now works."""
        ...

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes. Durable after the next `sync`."""
        ...

    def close(self) -> None:
        """Close without syncing."""
        ...


class Files(Protocol):
    """The device's disk below one data folder. All operations raise `FilesError`."""

    def read(self, path: str, limit: int) -> bytes:
        """Return the whole file. Raises `Damaged` when it holds more than `limit` bytes, `Missing` when it is not there."""
        ...

    def read_at(self, path: str, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer at the end of the file."""
        ...

    def list(self, folder: str) -> tuple[Entry, ...]:
        """Return the entries of `folder`, sorted by name; empty when there is no such folder."""
        ...

    def make_folder(self, path: str) -> None:
        """Make `path` and the folders above it, mode 0700, durable on return. No error when it is there."""
        ...

    def replace(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """Put `data` in place of whatever `path` held: after a power cut the old content or the new, whole; durable on return.
        Parent folders
        must be there."""
        ...

    def appender(self, path: str, mode: int = 0o600) -> Appender:
        """Open `path` for appending, making it when it is not there. The file's own existence is durable after the first `sync`."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Move a file or folder, replacing a file or empty folder at `target`: after a power cut at one of the two places, whole if its
        content was synced before; durable on return."""
        ...

    def sync_folder(self, path: str) -> None:
        """Return once the names in `path` (made, renamed, removed) are on the disk."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file, link or folder with all below it. No error when it is not there. After a power cut any part may be left."""
        ...

    def free_bytes(self) -> int:
        """Return how many bytes the data folder may still take."""
        ...
