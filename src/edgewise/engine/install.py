"""Putting a verified variant's files onto the disk: staged, checked, synced, and only then renamed into place.

A folder below `trees/` is whole: it gets its name after every byte of it is on the disk, and loses it before the first one goes.
Downloads are resumed from `staging/` by hashing again what is there. One pass over the data, bounded memory.
"""

import contextlib
import hashlib
import unicodedata
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from edgewise.engine.limits import EngineLimits
from edgewise.engine.protocol import Failed
from edgewise.engine.trees import MANIFESTS, STAGING, TREES, held, installed_trees, is_whole, remove, set_aside
from edgewise.ports.files import Appender, Files, FilesError, Full, Missing
from edgewise.resources.artifact import Command, File, Probes, Variant
from edgewise.resources.meta import Digest

__all__ = [
    "InstallError",
    "InstallInvalid",
    "InstallTransient",
    "InstallUntrusted",
    "Plan",
    "Progress",
    "Source",
    "failed",
    "installed_trees",
    "plan",
    "remove",
    "stage",
    "tree_of",
]

_TREE_CHARS: Final = 32
_NAME_BYTES_MAX: Final = 255
_CANONICAL: Final = msgspec.msgpack.Encoder(order="deterministic")

Source = Callable[[Digest, int], Iterator[bytes]]
"""Yields a blob's bytes from an offset on. Whatever it raises is passed on."""
Progress = Callable[[int, int], None]
"""Hears how many bytes are in place, of how many."""


class InstallError(Exception):
    """A variant could not be installed. `reason` is one CamelCase word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class InstallInvalid(InstallError):
    """What was signed cannot be installed on any try: a path that is not allowed, or too much of something."""


class InstallUntrusted(InstallError):
    """The bytes are not those that were signed."""


class InstallTransient(InstallError):
    """It may work later: not enough room, or the source ended early."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a variant becomes on the disk. `size` in bytes."""

    tree: str
    files: tuple[File, ...]
    size: int


def failed(error: InstallError | FilesError) -> Failed:
    """Return what the engine is told of an error."""
    match error:
        case InstallInvalid():
            return Failed(kind="invalid", reason=error.reason, message=str(error))
        case InstallUntrusted():
            return Failed(kind="untrusted", reason=error.reason, message=str(error))
        case InstallError():
            return Failed(kind="transient", reason=error.reason, message=str(error))
        case Full():
            return Failed(kind="transient", reason="DiskFull", message=str(error))
        case _:
            return Failed(kind="transient", reason="DiskFailed", message=str(error))


def tree_of(variant: Variant) -> str:
    """Return the name of the folder that a variant is installed in: equal files, command and probes share it."""
    parts: tuple[tuple[File, ...], Command | None, Probes] = (variant.files, variant.command, variant.probes)
    return hashlib.sha256(_CANONICAL.encode(parts)).hexdigest()[:_TREE_CHARS]


def plan(variant: Variant, limits: EngineLimits | None = None) -> Plan:
    """Check a variant's paths and sizes and return what it becomes. Raises `InstallInvalid`."""
    limits = limits or EngineLimits()
    if len(variant.files) > limits.install_files_max:
        raise InstallInvalid("TooManyFiles", f"{len(variant.files)} files, more than {limits.install_files_max}")
    size = sum(file.size for file in variant.files)
    if size > limits.install_bytes_max:
        raise InstallInvalid("TooLarge", f"{size} bytes, more than {limits.install_bytes_max}")
    names: set[str] = set()
    folders: set[str] = set()
    for file in variant.files:
        parts = _checked(file.path)
        folded = [unicodedata.normalize("NFC", part).casefold() for part in parts]
        name = "/".join(folded)
        if name in names:
            raise InstallInvalid("DuplicatePath", f"{file.path!r} is there twice, or differs from another path in case only")
        names.add(name)
        folders.update("/".join(folded[:depth]) for depth in range(1, len(folded)))
    clash = names & folders
    if clash:
        raise InstallInvalid("DuplicatePath", f"{min(clash)!r} is both a file and a folder")
    return Plan(tree=tree_of(variant), files=variant.files, size=size)


def _checked(path: str) -> list[str]:
    parts = path.split("/")
    try:
        long = any(len(part.encode()) > _NAME_BYTES_MAX for part in parts)
    except UnicodeEncodeError:
        long = True
    if long or any(part in {"", ".", ".."} for part in parts) or any(ord(char) < 32 or ord(char) == 127 for char in path) or "\\" in path:
        raise InstallInvalid("PathRefused", f"{path[:200]!r} is not a relative path inside the bundle")
    return parts


def stage(
    files: Files, variant: Variant, tree: str, source: Source, progress: Progress | None = None, *, limits: EngineLimits | None = None
) -> None:
    """Install `variant` as `tree` (see `plan`). On return all of it is on the disk. Raises `InstallError`, `FilesError`, and what `source`
    raises; what was staged stays for the next try."""
    limits = limits or EngineLimits()
    wanted = plan(variant, limits)
    if wanted.tree != tree:
        raise InstallInvalid("WrongTree", f"the variant's tree is {wanted.tree}, not {tree}")
    there = tree in installed_trees(files)
    if there and is_whole(files, tree):
        files.sync_folder(TREES)  # a former try may have failed just when its name was to come to the disk
        if progress is not None:
            progress(wanted.size, wanted.size)
        return
    folder = f"{STAGING}/{tree}"
    files.make_folder(folder)
    folders = _prepare(files, folder, wanted)
    _check_room(files, folder, wanted, limits)
    local = _local_files(files)
    stager = _Stager(files, source, progress, limits, wanted.size)
    for file in wanted.files:
        stager.put(file, f"{folder}/{file.path}", local.get(file.digest))
    for inner in sorted(folders, reverse=True):
        files.sync_folder(inner)
    files.make_folder(TREES)
    files.make_folder(MANIFESTS)
    files.replace(f"{MANIFESTS}/{tree}", _CANONICAL.encode(wanted.files))
    if there:  # what rotted has its name until what is whole takes its place
        set_aside(files, tree)
    files.rename(folder, f"{TREES}/{tree}")


def _prepare(files: Files, folder: str, wanted: Plan) -> set[str]:
    """Make the folders, and remove whatever a former try or somebody else left there that does not belong."""
    folders = {folder}
    for file in wanted.files:
        parts = file.path.split("/")
        folders.update(f"{folder}/{'/'.join(parts[:depth])}" for depth in range(1, len(parts)))
    names = {f"{folder}/{file.path}": file for file in wanted.files}
    for inner in sorted(folders):
        files.make_folder(inner)
        for entry in files.list(inner):
            path = f"{inner}/{entry.name}"
            planned = names.get(path)
            fits_file = planned is not None and entry.kind == "file" and entry.size <= planned.size
            if not fits_file and not (entry.kind == "folder" and path in folders):
                files.remove(path)
    return folders


def _check_room(files: Files, folder: str, wanted: Plan, limits: EngineLimits) -> None:
    there = _sizes(files, folder)
    missing = sum(max(0, file.size - there.get(f"{folder}/{file.path}", 0)) for file in wanted.files)
    free = files.free_bytes()
    if missing + limits.install_reserve_bytes > free:
        needed = f"{missing} bytes and {limits.install_reserve_bytes} in reserve"
        raise InstallTransient("DiskFull", f"not enough room: {needed} are needed, {free} are free")


def _sizes(files: Files, folder: str) -> dict[str, int]:
    result: dict[str, int] = {}
    for entry in files.list(folder):
        path = f"{folder}/{entry.name}"
        result.update(_sizes(files, path) if entry.kind == "folder" else {path: entry.size})
    return result


def _local_files(files: Files) -> dict[Digest, str]:
    """Return where the installed trees hold which contents, in whole ones rather than in others."""
    found: dict[Digest, str] = {}
    for tree in sorted(installed_trees(files), key=lambda tree: is_whole(files, tree)):
        found.update({file.digest: f"{TREES}/{tree}/{file.path}" for file in held(files, tree)})
    return found


class _Stager:
    """Puts one file after another in place, counting bytes."""

    def __init__(self, files: Files, source: Source, progress: Progress | None, limits: EngineLimits, total: int) -> None:
        self._files, self._source, self._progress, self._limits, self._total = files, source, progress, limits, total
        self._done = 0

    def put(self, file: File, path: str, local: str | None) -> None:
        """Bring one file in place, from what is staged, an installed tree, or the source."""
        before = self._done
        for again in (False, True):
            self._done = before
            appender = self._files.appender(path, file.mode)
            try:
                if again:
                    appender.truncate(0)
                resumed = self._fill(file, path, appender, None if again else local)
                if resumed is None:
                    self._sync(path, appender)
                    return
            except InstallUntrusted:
                self._files.remove(path)
                raise
            finally:
                appender.close()
            if again or not resumed:
                break
        self._files.remove(path)
        raise InstallUntrusted("WrongDigest", f"{file.path}: what came is not what was signed ({file.digest})")

    def _fill(self, file: File, path: str, appender: Appender, local: str | None) -> bool | None:
        """Write what is missing. Returns None when the digest is right, else whether bytes of before were part of it."""
        digest = hashlib.sha256()
        resumed = False
        for chunk in self._read(path, appender.size):
            digest.update(chunk)
            self._count(len(chunk))
            resumed = True
        if local is not None and not resumed and file.size:
            resumed = True  # a local copy that turns out wrong is fetched instead
            self._write(file, path, appender, digest, self._read(local, file.size))
        elif appender.size < file.size:
            self._write(file, path, appender, digest, self._source(file.digest, appender.size))
            if appender.size < file.size:
                self._sync(path, appender)
                raise InstallTransient("EndedEarly", f"{file.path}: {appender.size} of {file.size} bytes came")
        return None if f"sha256:{digest.hexdigest()}" == file.digest else resumed

    def _write(self, file: File, path: str, appender: Appender, digest: "hashlib._Hash", chunks: Iterator[bytes]) -> None:
        unsynced = 0
        for chunk in chunks:
            if appender.size + len(chunk) > file.size:
                raise InstallUntrusted("WrongSize", f"{file.path}: more than the {file.size} bytes that were signed")
            digest.update(chunk)
            appender.append(chunk)
            self._count(len(chunk))
            unsynced += len(chunk)
            if unsynced >= self._limits.install_sync_bytes:
                self._sync(path, appender)
                unsynced = 0

    def _sync(self, path: str, appender: Appender) -> None:
        """Sync a staged file, or do away with it: after a failed sync the system takes for clean what is not on the disk, so that it would
        read well, be synced without an error at the next try, and be gone after a power cut."""
        try:
            appender.sync()
        except FilesError:
            with contextlib.suppress(FilesError):
                self._files.remove(path)
            raise

    def _read(self, path: str, size: int) -> Iterator[bytes]:
        offset = 0
        while offset < size:
            try:
                chunk = self._files.read_at(path, offset, min(self._limits.install_chunk_bytes, size - offset))
            except Missing:
                return
            if not chunk:
                return
            offset += len(chunk)
            yield chunk

    def _count(self, size: int) -> None:
        self._done += size
        if self._progress is not None:
            self._progress(self._done, self._total)
