"""The signed repository, device's side: tells whether a target is what the fleet's people released.

python-tuf's client does the checking: signatures and thresholds up from the pinned root, expiry, versions that never go back, delegations
that are limited to their paths. Time is the caller's: pass the later of the wall clock and a persisted floor, so that turning back a clock
brings nothing expired to life.
"""

import os
from collections.abc import Callable, Iterator
from typing import Final

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import TargetFile  # type: ignore[attr-defined]  # their __all__ is computed
from tuf.api.serialization import DeserializationError
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from edgewise.trust._metadata import LIMITS, MetadataRefused, check_target_path, instant


class Untrusted(Exception):
    """The repository, as it was served, vouches for no such target. `reason` is one of `Expired`, `RolledBack`, `BadSignature`, `Mismatch`,
    `Malformed`, `UnknownTarget`, `Refused`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class FetchMissing(Exception):
    """Whoever serves the repository has no such file. For a next root that is the normal answer; for others it comes out of
    `verified_target` as it is, like any error of the network."""


Fetch = Callable[[str, int], bytes]
"""Return the file of that name, at most so many bytes. Raises `FetchMissing`, or whatever else goes wrong on a network."""

_REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (ExpiredMetadataError, "Expired"),
    (BadVersionNumberError, "RolledBack"),
    (UnsignedMetadataError, "BadSignature"),
    (LengthOrHashMismatchError, "Mismatch"),
    (DeserializationError, "Malformed"),
    (RepositoryError, "Refused"),
)
"""First match wins."""

_BASE: Final = "repository:/"
_NOT_FOUND: Final = 404


def verified_target(
    folder: str | os.PathLike[str],
    root: bytes,
    fetch: Fetch,
    target_path: str,
    now: float,
    *,
    prefixes: tuple[str, ...] = ("releases/",),
) -> tuple[str, int]:
    """Return (`sha256:…`, length in bytes) of a target that the repository vouches for, believing nothing but the pinned `root`.

    `folder` caches metadata between calls (which is what notices a roll-back) and may be removed at any time. Only targets below
    `prefixes` are looked up: the control plane holds the keys of `pipeline/` and `rounds/`, so whoever asks must want those.
    Raises `Untrusted`, `OSError` for the cache's disk, and what `fetch` raises."""
    try:
        check_target_path(target_path)
    except MetadataRefused as error:
        raise Untrusted("UnknownTarget", str(error)) from error
    if not target_path.startswith(prefixes):
        raise Untrusted("UnknownTarget", f"{target_path} is not below {' or '.join(prefixes)}")
    os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103 - the cache's own folder; the short-lived process owns it
    target = _look_up(os.fspath(folder), root, fetch, target_path, now)
    if target is None:
        raise Untrusted("UnknownTarget", f"nobody released {target_path}")
    digest = target.hashes.get("sha256")
    if digest is None or not 0 <= target.length <= LIMITS.target_length_max:
        raise Untrusted("Refused", f"{target_path} has no sha256 digest, or too many bytes")
    return f"sha256:{digest}", target.length


def _look_up(folder: str, root: bytes, fetch: Fetch, target_path: str, now: float) -> TargetFile | None:
    fetcher = _Fetcher(fetch)
    try:
        updater = Updater(folder, _BASE, fetcher=fetcher, config=_config(), bootstrap=root)
        _set_time(updater, now)
        return updater.get_targetinfo(target_path)
    except DownloadLengthMismatchError as error:
        raise Untrusted("Mismatch", str(error)) from error
    except DownloadError as error:
        if fetcher.failure is None:
            raise
        raise fetcher.failure from error
    except (RepositoryError, ValueError) as error:
        reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), "Malformed")
        raise Untrusted(reason, f"the repository is not to be trusted: {error}") from error


def _config() -> UpdaterConfig:
    return UpdaterConfig(
        max_root_rotations=LIMITS.root_rotations_max,
        max_delegations=8,
        root_max_length=LIMITS.root_bytes_max,
        timestamp_max_length=LIMITS.timestamp_bytes_max,
        snapshot_max_length=LIMITS.snapshot_bytes_max,
        targets_max_length=LIMITS.targets_bytes_max,
    )


def _set_time(updater: Updater, now: float) -> None:
    """python-tuf takes the time once, when its trusted set is made, from the machine's clock, and checks no expiry before the first
    refresh. The attribute is public, the set that holds it is not: if either ever goes, this fails rather than trust the clock."""
    trusted = updater._trusted_set  # noqa: SLF001 - the only way to pass the time without changing it for the whole process
    if not hasattr(trusted, "reference_time"):
        raise Untrusted("Refused", "this python-tuf does not let the time be set")
    trusted.reference_time = instant(now)


class _Fetcher(FetcherInterface):
    """Hands python-tuf what `fetch` returns, and keeps the error that `fetch` raised."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch_file = fetch
        self.failure: Exception | None = None

    def download_bytes(self, url: str, max_length: int) -> bytes:
        name = url.removeprefix(_BASE).removeprefix("/")
        try:
            data = self._fetch_file(name, max_length)
        except FetchMissing as error:
            self.failure = error
            raise DownloadHTTPError(f"there is no {name}", _NOT_FOUND) from error
        except Exception as error:
            self.failure = error
            raise DownloadError(f"{name} could not be fetched") from error
        if len(data) > max_length:
            raise DownloadLengthMismatchError(f"{name} has more than {max_length} bytes")
        return data

    def _fetch(self, url: str) -> Iterator[bytes]:
        raise DownloadError(f"{url}: only whole files are fetched here")
