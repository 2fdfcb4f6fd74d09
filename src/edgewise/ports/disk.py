"""The real disk: `Files` below one folder.

Every path is walked from the folder's own descriptor, one name at a time, without following links, so that neither `..` nor a link that
a workload planted leads out of it.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from edgewise.ports.files import Damaged, Entry, FilesError, Full, Missing, PathRefused, ReadOnly

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_PATH_BYTES_MAX: Final = 4096
_NEW: Final = ".new"

_ERRORS: Final[dict[int, type[FilesError]]] = {
    errno.ENOENT: Missing,
    errno.ENOSPC: Full,
    errno.EDQUOT: Full,
    errno.EROFS: ReadOnly,
    errno.EACCES: ReadOnly,
    errno.EPERM: ReadOnly,
    errno.ELOOP: PathRefused,
    errno.ENOTDIR: PathRefused,
    errno.EISDIR: PathRefused,
    errno.ENAMETOOLONG: PathRefused,
}


@contextmanager
def _mapped(path: str) -> Iterator[None]:
    """Turn the operating system's errors into the port's."""
    try:
        yield
    except OSError as error:
        raise _ERRORS.get(error.errno or 0, Damaged)(path, error.strerror or str(error)) from error


def _parts(path: str) -> list[str]:
    """Split a path into names. Raises `PathRefused` unless it stays inside."""
    if len(path.encode(errors="surrogatepass")) > _PATH_BYTES_MAX or "\0" in path or path.startswith("/"):
        raise PathRefused(path[:200], "not a path inside the data folder")
    parts = [part for part in path.split("/") if part]
    if any(part in {".", ".."} for part in parts):
        raise PathRefused(path[:200], "not a path inside the data folder")
    return parts


class DiskFiles:
    """`Files` below `folder`, which must exist. `quota_bytes` limits what the files in it may hold in all."""

    def __init__(self, folder: str, quota_bytes: int | None = None) -> None:
        with _mapped(""):
            self._root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._quota = quota_bytes

    def close(self) -> None:
        """Give the folder's descriptor back."""
        os.close(self._root)

    # ---- reading ----

    def read(self, path: str, limit: int) -> bytes:
        """See `Files.read`."""
        with self._open(path) as file:
            size = os.fstat(file).st_size
            if size > limit:
                raise Damaged(path, f"{size} bytes, more than {limit}")
            data = _read_up_to(file, limit + 1)
        if len(data) > limit:
            raise Damaged(path, f"more than {limit} bytes")
        return data

    def read_at(self, path: str, offset: int, size: int) -> bytes:
        """See `Files.read_at`."""
        with self._open(path) as file:
            os.lseek(file, offset, os.SEEK_SET)
            return _read_up_to(file, size)

    def list(self, folder: str) -> tuple[Entry, ...]:
        """See `Files.list`."""
        with _mapped(folder):
            try:
                descriptor = self._walk(_parts(folder))
            except FileNotFoundError:
                return ()
            try:
                with os.scandir(descriptor) as entries:
                    found = [_entry(entry) for entry in entries]
            finally:
                os.close(descriptor)
        return tuple(sorted(found, key=lambda entry: entry.name))

    def free_bytes(self) -> int:
        """See `Files.free_bytes`."""
        with _mapped(""):
            state = os.fstatvfs(self._root)
        free = state.f_bavail * state.f_frsize
        return free if self._quota is None else max(0, min(free, self._quota - self.used_bytes()))

    def used_bytes(self) -> int:
        """Return how many bytes all files hold."""
        with _mapped(""):
            return _used(os.dup(self._root))

    # ---- writing ----

    def make_folder(self, path: str) -> None:
        """See `Files.make_folder`."""
        with _mapped(path):
            descriptor = os.dup(self._root)
            try:
                for part in _parts(path):
                    try:
                        os.mkdir(part, 0o700, dir_fd=descriptor)
                        os.fsync(descriptor)
                    except FileExistsError:
                        pass
                    inner = os.open(part, _FOLDER, dir_fd=descriptor)
                    os.close(descriptor)
                    descriptor = inner
            finally:
                os.close(descriptor)

    def replace(self, path: str, data: bytes, mode: int = 0o600) -> None:
        """See `Files.replace`."""
        self.check_quota(path, len(data))
        with self._parent(path) as (folder, name):
            new = f".{name}{_NEW}"
            _unlink(new, folder)
            try:
                file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, mode, dir_fd=folder)
                try:
                    os.fchmod(file, mode)
                    _write(file, data)
                    os.fsync(file)
                finally:
                    os.close(file)
                os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                _unlink(new, folder)
                raise
            os.fsync(folder)

    def appender(self, path: str, mode: int = 0o600) -> "DiskAppender":
        """See `Files.appender`."""
        with self._parent(path) as (folder, name):
            try:
                file = os.open(name, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | _FILE, mode, dir_fd=folder)
                os.fchmod(file, mode)
                made = os.dup(folder)
            except FileExistsError:
                file, made = os.open(name, os.O_RDWR | os.O_APPEND | _FILE, dir_fd=folder), None
            try:
                _regular(file, path)
            except PathRefused:
                os.close(file)
                raise
            return DiskAppender(self, path, file, made)

    def rename(self, source: str, target: str) -> None:
        """See `Files.rename`."""
        with self._parent(source) as (old, old_name), self._parent(target) as (new, new_name):
            os.rename(old_name, new_name, src_dir_fd=old, dst_dir_fd=new)
            os.fsync(new)
            os.fsync(old)

    def sync_folder(self, path: str) -> None:
        """See `Files.sync_folder`."""
        with _mapped(path):
            descriptor = self._walk(_parts(path))
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def remove(self, path: str) -> None:
        """See `Files.remove`."""
        try:
            with self._parent(path) as (folder, name):
                _remove(name, folder)
        except Missing:
            return

    def check_quota(self, path: str, more: int) -> None:
        """Raise `Full` when `more` bytes would go over the quota."""
        if self._quota is not None and self.used_bytes() + more > self._quota:
            raise Full(path, f"the quota of {self._quota} bytes is used up")

    # ---- walking ----

    def _walk(self, parts: Sequence[str]) -> int:
        """Return a descriptor of the folder, which the caller closes."""
        descriptor = os.dup(self._root)
        for part in parts:
            try:
                inner = os.open(part, _FOLDER, dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = inner
        return descriptor

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        parts = _parts(path)
        if not parts:
            raise PathRefused(path, "names no file")
        with _mapped(path):
            descriptor = self._walk(parts[:-1])
            try:
                yield descriptor, parts[-1]
            finally:
                os.close(descriptor)

    @contextmanager
    def _open(self, path: str) -> Iterator[int]:
        with self._parent(path) as (folder, name):
            file = os.open(name, os.O_RDONLY | _FILE, dir_fd=folder)
            try:
                _regular(file, path)
                yield file
            finally:
                os.close(file)


class DiskAppender:
    """See `Appender`. A file that this made becomes durable by name, too, with the first `sync`."""

    def __init__(self, files: DiskFiles, path: str, file: int, made_in: int | None) -> None:
        self._files, self._path, self._file, self._made_in = files, path, file, made_in
        self._size = os.fstat(file).st_size
        self._failed = False

    @property
    def size(self) -> int:
        """See `Appender.size`."""
        return self._size

    def append(self, data: bytes) -> None:
        """See `Appender.append`."""
        self._files.check_quota(self._path, len(data))
        with _mapped(self._path):
            try:
                _write(self._file, data)
            except OSError:
                self._size = os.fstat(self._file).st_size
                raise
        self._size += len(data)

    def sync(self) -> None:
        """See `Appender.sync`."""
        if self._failed:
            raise Damaged(self._path, "an earlier sync failed")
        self._failed = True
        with _mapped(self._path):
            os.fdatasync(self._file)
            if self._made_in is not None:
                os.fsync(self._made_in)
                os.close(self._made_in)
                self._made_in = None
        self._failed = False

    def truncate(self, size: int) -> None:
        """See `Appender.truncate`."""
        with _mapped(self._path):
            os.ftruncate(self._file, size)
            self._size = size

    def close(self) -> None:
        """See `Appender.close`."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._made_in is not None:
            os.close(self._made_in)
            self._made_in = None


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _read_up_to(file: int, size: int) -> bytes:
    data = os.read(file, size)
    if not data or len(data) == size:
        return data
    chunks, left = [data], size - len(data)
    while left and (data := os.read(file, left)):
        chunks.append(data)
        left -= len(data)
    return b"".join(chunks)


def _regular(file: int, path: str) -> None:
    if not stat.S_ISREG(os.fstat(file).st_mode):
        raise PathRefused(path, "not a regular file")


def _entry(entry: "os.DirEntry[str]") -> Entry:
    if entry.is_symlink():
        return Entry(name=entry.name, kind="link")
    if entry.is_dir(follow_symlinks=False):
        return Entry(name=entry.name, kind="folder")
    if entry.is_file(follow_symlinks=False):
        return Entry(name=entry.name, kind="file", size=entry.stat(follow_symlinks=False).st_size)
    return Entry(name=entry.name, kind="other")


def _unlink(name: str, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return


def _remove(name: str, folder: int) -> None:
    """Remove a file, link or folder, never what a link points to."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError) as error:
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise error from None
        inner = os.open(name, _FOLDER, dir_fd=folder)
        try:
            with os.scandir(inner) as entries:
                names = [entry.name for entry in entries]
            for below in names:
                _remove(below, inner)
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=folder)


def _used(folder: int) -> int:
    """Return the bytes of all files below a folder, and close it."""
    total = 0
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
        for entry in found:
            try:
                if entry.is_dir(follow_symlinks=False):
                    total += _used(os.open(entry.name, _FOLDER, dir_fd=folder))
                elif entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue  # removed meanwhile
    finally:
        os.close(folder)
    return total
