"""The control plane's data folder: what is in it, how it comes to be, and who may hold which key.

    edgewise.json   format of the folder, the fleet's name
    offline/        keys of people: move them to another machine (README.txt there says how)
    online/         keys that the control plane works with
    repository/     the signed repository's metadata
    store.db        documents, events, telemetry
    blobs/          artifacts by digest
    lock            held by the running process

The first start makes all keys in `.first-start/`, marks that folder complete, and then moves its entries into place. Killed at any moment,
the next start either throws the half-made folder away or finishes moving: keys are never mixed.
"""

import fcntl
import os
import shutil
from pathlib import Path
from typing import Final

import msgspec

from edgewise.resources.decoding import UNREADABLE
from edgewise.trust.authority import Authority, Issuer, create_authority
from edgewise.trust.repository import create_repository
from edgewise.trust.sealing import new_at_rest_key

_STAGING: Final = ".first-start"
_COMPLETE: Final = "complete"
_MARKER: Final = "edgewise.json"
_FORMAT: Final = 1
_KEY_BYTES_MAX: Final = 65_536

_README: Final = """These keys belong to people, not to this machine. Whoever holds them decides what every device of the fleet runs.

  authority-root.key  signs the issuing key; needed again only to replace that key
  root-*.pem          names every other key of the signed repository; needed to replace one
  targets.pem         says which key may sign releases; needed to change that
  releases-*.pem      signs artifacts: `edgewise artifact push` uses it on the machine of the person who releases

Move this folder to an encrypted medium, and the releases key to the machine of those who release; then remove it here. The control plane
runs without it. As long as it lies here, whoever captures this machine can sign software for your devices.
"""


class DataError(Exception):
    """The data folder cannot be used. The message says what is wrong and what to do."""


class _About(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `edgewise.json`."""

    format: int
    name: str
    created_at: float


class OnlineKeys(msgspec.Struct, frozen=True, kw_only=True):
    """What the control plane works with. All keys in PEM but `at_rest` (32 bytes). `issuing_certs_pem`: today's issuing certificate first,
    then earlier ones whose certificates are still believed."""

    root_cert_pem: str
    issuing_key_pem: str
    issuing_certs_pem: tuple[str, ...]
    online_pem: str
    pipeline_pem: str
    rounds_pem: str
    at_rest: bytes

    def __repr__(self) -> str:
        return "OnlineKeys(…)"

    def issuer(self) -> Issuer:
        """Return the authority at work."""
        return Issuer(self.issuing_key_pem, self.issuing_certs_pem[0], self.root_cert_pem)


class DataFolder:
    """An opened, locked data folder. Close it to let another process have it."""

    def __init__(self, path: Path, lock: int, keys: OnlineKeys, about: _About, *, first_start: bool) -> None:
        self.path = path
        self.keys = keys
        self.name = about.name
        self.first_start = first_start
        self._lock = lock

    @property
    def store(self) -> Path:
        """Where the store's database is."""
        return self.path / "store.db"

    @property
    def blobs(self) -> Path:
        """Where the blobs are."""
        return self.path / "blobs"

    @property
    def repository(self) -> Path:
        """Where the signed repository's files are."""
        return self.path / "repository"

    @property
    def run(self) -> Path:
        """Where files of the running process are; emptied at every start."""
        return self.path / "run"

    def note(self, name: str) -> None:
        """Remember durably that `name` happened."""
        write_durable(self.path / name, b"")

    def noted(self, name: str) -> bool:
        """Tell whether `name` was noted."""
        return (self.path / name).exists()

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def open_data(path: Path, name: str, now: float) -> DataFolder:
    """Open the data folder at `path`, making it first if needed. Raises `DataError`."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        lock = _take_lock(path / "lock")
    except OSError as error:
        raise DataError(f"the data folder {path} cannot be used: {error.strerror}") from error
    try:
        first = _ensure(path, name, now)
        about = _read_about(path)
        folder = DataFolder(path, lock, _read_keys(path / "online"), about, first_start=first)
        shutil.rmtree(folder.run, ignore_errors=True)
        folder.run.mkdir(mode=0o700)
        folder.blobs.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        os.close(lock)
        raise DataError(f"the data folder {path} cannot be used: {error.filename}: {error.strerror}") from error
    except BaseException:
        os.close(lock)
        raise
    return folder


def write_durable(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Put `data` in place of what `path` held: after a power cut the old content or the new, whole; durable on return."""
    temporary = path.with_name(f".{path.name}.new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        os.fchmod(handle, mode)
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Return once the names in `path` are on the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _take_lock(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise DataError(f"another control plane is running on {path.parent}: stop it first, or choose another folder") from None
    return handle


def _ensure(path: Path, name: str, now: float) -> bool:
    """Bring the folder to be whole; return whether this was its first start."""
    staging = path / _STAGING
    if (staging / _COMPLETE).exists():
        _move_into_place(path, staging)
        return True
    if staging.exists():
        shutil.rmtree(staging)
    if (path / _MARKER).exists():
        return False
    if (path / "store.db").exists() or (path / "online").exists():
        raise DataError(f"{path} holds data of a control plane but no {_MARKER}: restore it from a backup, whole")
    _make(staging, name, now)
    _move_into_place(path, staging)
    return True


def _make(staging: Path, name: str, now: float) -> None:
    for folder in (staging, staging / "offline", staging / "online", staging / "repository"):
        folder.mkdir(mode=0o700)
    authority = create_authority(name, now)
    files, keys = create_repository(now)
    contents: dict[str, bytes] = {
        **{f"offline/{file}": text.encode() for file, text in keys.offline_files().items()},
        "offline/authority-root.key": authority.root_key_pem.encode(),
        "offline/README.txt": _README.encode(),
        **{f"online/{file}": text.encode() for file, text in keys.online_files().items()},
        **_authority_files(authority),
        "online/at-rest.key": new_at_rest_key(),
        **{f"repository/{file}": data for file, data in files.items()},
        _MARKER: msgspec.json.encode(_About(format=_FORMAT, name=name, created_at=now)),
    }
    for file, data in contents.items():
        write_durable(staging / file, data)
    sync_folder(staging)
    write_durable(staging / _COMPLETE, b"")


def _authority_files(authority: Authority) -> dict[str, bytes]:
    return {
        "online/authority-root.crt": authority.root_cert_pem.encode(),
        "online/issuing.key": authority.issuing_key_pem.encode(),
        "online/issuing.crt": authority.issuing_cert_pem.encode(),
    }


def _move_into_place(path: Path, staging: Path) -> None:
    for entry in sorted(staging.iterdir()):
        if entry.name != _COMPLETE:
            entry.rename(path / entry.name)
    sync_folder(path)
    shutil.rmtree(staging)
    sync_folder(path)


def _read_about(path: Path) -> _About:
    try:
        about = msgspec.json.decode(_read(path / _MARKER), type=_About)
    except UNREADABLE as error:
        raise DataError(f"{path / _MARKER} is damaged: {error}") from error
    if about.format > _FORMAT:
        raise DataError(f"{path} was made by a newer Edgewise (format {about.format}, this one knows {_FORMAT}): upgrade")
    return about


def _read_keys(online: Path) -> OnlineKeys:
    earlier = sorted(online.glob("issuing-*.crt"), reverse=True)
    return OnlineKeys(
        root_cert_pem=_read(online / "authority-root.crt").decode(),
        issuing_key_pem=_read(online / "issuing.key").decode(),
        issuing_certs_pem=tuple(_read(file).decode() for file in (online / "issuing.crt", *earlier)),
        online_pem=_read(online / "online.pem").decode(),
        pipeline_pem=_read(online / "pipeline.pem").decode(),
        rounds_pem=_read(online / "rounds.pem").decode(),
        at_rest=_read(online / "at-rest.key"),
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_KEY_BYTES_MAX + 1)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: restore the data folder from a backup, whole") from None
    if len(data) > _KEY_BYTES_MAX:
        raise DataError(f"{path} is larger than any file of its kind")
    return data
