"""The signed repository as the control plane serves it: files on the disk, the same in memory, and the changes that keep it fresh.

Files are written in the order in which `trust` hands them out, the timestamp last: whoever reads in between, and whoever starts after a
crash in between, finds the old state, whole. Files that the timestamp does not lead to yet are overwritten by the next publication.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from edgewise.control.data import DataError, OnlineKeys, write_durable
from edgewise.trust.repository import (
    LIMITS,
    DelegatedRoleName,
    MetadataRefused,
    accept_delegated,
    advance,
    delegated_metadata,
    expiries,
    is_repository_file,
    newest_root,
    obsolete,
    refresh_timestamp,
)


class Repository:
    """The repository's files. Belongs to one event loop; changes are made one after the other, off the loop."""

    def __init__(self, folder: Path, files: dict[str, bytes], keys: OnlineKeys) -> None:
        self._folder = folder
        self._files = files
        self._online_key = keys.online_pem
        self._changing = asyncio.Lock()
        self._root = newest_root(files)

    @property
    def root(self) -> bytes:
        """The newest root metadata: what a joining device pins."""
        return self._root

    def get(self, name: str) -> bytes | None:
        """Return a file, or None."""
        return self._files.get(name)

    def role(self, role: DelegatedRoleName) -> bytes:
        """Return the current metadata of a delegated role, to be signed on."""
        return delegated_metadata(self._files, role)

    async def accept(self, role: DelegatedRoleName, metadata: bytes, now: float) -> None:
        """Publish new metadata of a delegated role. Durable on return. Raises `MetadataRefused`."""
        async with self._changing:
            changed = await asyncio.to_thread(accept_delegated, self._files, role, metadata, self._online_key, now)
            await self._write(changed)

    async def refresh(self, now: float) -> bool:
        """Sign timestamp and snapshot again when they are due; return whether they were. Raises `MetadataRefused`, `OSError`."""
        async with self._changing:
            changed = await asyncio.to_thread(refresh_timestamp, self._files, self._online_key, now)
            await self._write(changed)
            return bool(changed)

    async def advance(self, now: float) -> None:
        """Go on far above all versions that devices can have seen: these files come from a backup. Raises `MetadataRefused`, `OSError`."""
        async with self._changing:
            await self._write(await asyncio.to_thread(advance, self._files, self._online_key, now))

    def expiring(self, now: float, within: float) -> dict[str, float]:
        """Return the roles that only people can renew and that expire within so many seconds, and when."""
        return {role: at for role, at in expiries(self._files).items() if role not in {"timestamp", "snapshot"} and at < now + within}

    async def _write(self, changed: Mapping[str, bytes]) -> None:
        if changed:
            await asyncio.to_thread(_write_files, self._folder, changed)
            files = {**self._files, **changed}
            old = obsolete(files)
            self._files = {name: data for name, data in files.items() if name not in old}
            self._root = newest_root(self._files)
            await asyncio.to_thread(_remove_files, self._folder, old)


def open_repository(folder: Path, keys: OnlineKeys) -> Repository:
    """Read the repository at `folder`. Raises `DataError`."""
    try:
        files = {file.name: _read(file) for file in folder.iterdir() if is_repository_file(file.name)}
        return Repository(folder, files, keys)
    except (OSError, MetadataRefused) as error:
        raise DataError(f"the signed repository in {folder} is damaged: {error}: restore it from a backup") from error


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(LIMITS.targets_bytes_max + 1)
    if len(data) > LIMITS.targets_bytes_max:
        raise MetadataRefused("TooLarge", f"{path.name} is larger than {LIMITS.targets_bytes_max} bytes")
    return data


def _write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        write_durable(folder / name, data, 0o644)


def _remove_files(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)
