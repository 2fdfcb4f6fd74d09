"""A disk that loses nothing, for a hundred thousand devices in one process: small and fast, without power cuts.

All files of a disk are in one flat mapping from path to content. The folders of a disk are a set that all disks with the same folders
share; paths are shared as well.
"""

import sys
from functools import lru_cache
from typing import Final

from edgewise.ports.files import Damaged, Entry, FilesError, Full, Missing, PathRefused
from edgewise.twin._paths import file_parts_of, parts_of
from edgewise.twin.disk import ENDLESS, Crash
from edgewise.twin.kernel import Stream

_NO_FOLDERS: Final[frozenset[str]] = frozenset()


@lru_cache(maxsize=65_536)
def _clean(path: str) -> str:
    """Return a path in its one form, shared by all disks."""
    return sys.intern("/".join(parts_of(path)))


@lru_cache(maxsize=65_536)
def _file(path: str) -> tuple[str, str]:
    """Return a file's path in its one form, and its folder."""
    *above, _ = file_parts_of(path)
    return _clean(path), sys.intern("/".join(above))


@lru_cache(maxsize=65_536)
def _joined(folders: frozenset[str], path: str) -> frozenset[str]:
    """Return the folders with one more: the same set for all disks that have the same."""
    return _shared(tuple(sorted({*folders, path})))


@lru_cache(maxsize=65_536)
def _shared(folders: tuple[str, ...]) -> frozenset[str]:
    return frozenset(folders)


class PlainFile:
    """A file that was opened for appending; its own `Appender`, which saves a second object per open file."""

    __slots__ = ("_disk", "data")

    def __init__(self, disk: "PlainDisk", data: bytes) -> None:
        self._disk, self.data = disk, data

    def __len__(self) -> int:
        return len(self.data)

    @property
    def size(self) -> int:
        """See `Appender.size`."""
        return len(self.data)

    def append(self, data: bytes) -> None:
        """See `Appender.append`."""
        self._disk.grown(len(data))
        self.data += data

    def sync(self) -> None:
        """See `Appender.sync`."""
        self._disk.changing("")

    def truncate(self, size: int) -> None:
        """See `Appender.truncate`."""
        self._disk.grown(0, size - len(self.data))
        self.data = self.data[:size].ljust(size, b"\0")

    def close(self) -> None:
        """See `Appender.close`."""


class PlainDisk:
    """`Files` in memory. `fault`, while it is set, is raised by every changing operation (and, when it is `Damaged`, by reading as well).
    `capacity` in bytes."""

    __slots__ = ("_files", "_folders", "_used", "capacity", "fault")

    def __init__(self, capacity: int = ENDLESS) -> None:
        self._files: dict[str, bytes | PlainFile] = {}
        self._folders = _NO_FOLDERS
        self._used = 0
        self.capacity = capacity
        self.fault: type[FilesError] | None = None

    def crash(self, how: Crash, chance: Stream | None = None) -> "PlainDisk":
        """Return this disk: it loses nothing."""
        del how, chance
        return self

    # ---- reading ----

    def read(self, path: str, limit: int) -> bytes:
        """See `Files.read`."""
        data = self._content(path)
        if len(data) > limit:
            raise Damaged(path, f"more than {limit} bytes")
        return data

    def read_at(self, path: str, offset: int, size: int) -> bytes:
        """See `Files.read_at`."""
        return self._content(path)[offset : offset + size]

    def _content(self, path: str) -> bytes:
        if self.fault is Damaged:
            raise Damaged(path, "made to fail")
        name, folder = _file(path)
        data = self._files.get(name)
        if data is None:
            self._in_folder(folder, path)
            raise PathRefused(path, "a folder") if name in self._folders else Missing(path, "no such file")
        return data if isinstance(data, bytes) else data.data

    def list(self, folder: str) -> tuple[Entry, ...]:
        """See `Files.list`."""
        if self.fault is Damaged:
            raise Damaged(folder, "made to fail")
        name = _clean(folder)
        if name and name not in self._folders:
            self._no_file_above(name, folder)
            return ()
        start = f"{name}/" if name else ""
        length = len(start)
        found = [
            Entry(name=path[length:], kind="file", size=len(data))
            for path, data in self._files.items()
            if path.startswith(start) and "/" not in path[length:]
        ]
        found += [Entry(name=path[length:], kind="folder") for path in self._folders if path.startswith(start) and "/" not in path[length:]]
        return tuple(sorted(found, key=lambda entry: entry.name))

    def free_bytes(self) -> int:
        """See `Files.free_bytes`."""
        if self.fault is Full:
            return 0
        return ENDLESS if self.capacity >= ENDLESS else max(0, self.capacity - self.used_bytes())

    def used_bytes(self) -> int:
        """See `TwinDisk.used_bytes`."""
        return self._used

    # ---- changing ----

    def make_folder(self, path: str) -> None:
        """See `Files.make_folder`."""
        name = _clean(path)
        if not name or name in self._folders:
            return
        self._no_file_above(name, path)
        self.changing(path, 1)
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            self._folders = _joined(self._folders, sys.intern("/".join(parts[:depth])))

    def replace(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """See `Files.replace`."""
        del mode
        name, folder = _file(path)
        self._in_folder(folder, path)
        if name in self._folders:
            raise PathRefused(path, "a folder")
        self.changing(path, len(data))
        self._used += len(data) - len(self._files.get(name, b""))
        self._files[name] = data

    def appender(self, path: str, mode: int = 0o600) -> PlainFile:
        """See `Files.appender`."""
        del mode
        name, folder = _file(path)
        found = self._files.get(name)
        if found is None:
            self._in_folder(folder, path)
            if name in self._folders:
                raise PathRefused(path, "a folder")
            self.changing(path, 1)
            found = b""
        if isinstance(found, bytes):
            found = self._files[name] = PlainFile(self, found)
        return found

    def rename(self, source: str, target: str) -> None:
        """See `Files.rename`."""
        old, old_folder = _file(source)
        new, new_folder = _file(target)
        self._in_folder(old_folder, source)
        self._in_folder(new_folder, target)
        is_folder = old in self._folders
        if not is_folder and old not in self._files:
            raise Missing(source, "no such file")
        if old == new:
            return
        if (new in self._folders) != is_folder and (new in self._folders or new in self._files):
            raise PathRefused(target, "something else is in the way")
        if is_folder and (new.startswith(f"{old}/") or self.list(target)):
            raise PathRefused(target, "something else is in the way")
        self.changing(source)
        if not is_folder:
            self._used -= len(self._files.get(new, b""))
            self._files[new] = self._files.pop(old)
            return
        start, length = f"{old}/", len(old)
        for path in [path for path in self._files if path.startswith(start)]:
            self._files[sys.intern(new + path[length:])] = self._files.pop(path)
        moved = (sys.intern(new + path[length:]) if path == old or path.startswith(start) else path for path in self._folders)
        self._folders = _shared(tuple(sorted(moved)))

    def sync_folder(self, path: str) -> None:
        """See `Files.sync_folder`."""
        name = _clean(path)
        if name and name not in self._folders:
            self._no_file_above(name, path)
            raise Missing(path, "no such folder")
        self.changing(path)

    def remove(self, path: str) -> None:
        """See `Files.remove`."""
        name, folder = _file(path)
        if name in self._files:
            self.changing(path)
            self._used -= len(self._files.pop(name))
            return
        if name not in self._folders:
            self._no_file_above(folder, path)
            return
        self.changing(path)
        start = f"{name}/"
        for inner in [inner for inner in self._files if inner.startswith(start)]:
            self._used -= len(self._files.pop(inner))
        self._folders = _shared(tuple(sorted(inner for inner in self._folders if inner != name and not inner.startswith(start))))

    # ---- inside ----

    def grown(self, more: int, by: int | None = None) -> None:
        """Let an open file grow by `by` bytes, which are `more` unless that is given, or raise what it is to fail with."""
        self.changing("", more)
        self._used += more if by is None else by

    def changing(self, path: str, more: int = 0) -> None:
        """Raise what a changing operation is to fail with."""
        if self.fault is not None and (self.fault is not Full or more):
            raise self.fault(path, "made to fail")
        if more and self._used + more > self.capacity:
            raise Full(path, "no room left")

    def _in_folder(self, folder: str, path: str) -> None:
        if folder and folder not in self._folders:
            self._no_file_above(folder, path)
            raise Missing(path, "no such folder")

    def _no_file_above(self, name: str, path: str) -> None:
        while name:
            if name in self._files:
                raise PathRefused(path, "a file is in the way")
            name = name.rpartition("/")[0]
