"""The signed repository, device's side: tells whether a target is what the fleet's people released.

python-tuf's set of trusted metadata does the checking: signatures and thresholds up from the pinned root, expiry, versions that never go
back. What is here is the order in which a client asks (section 5 of the TUF specification), what it keeps on the device's disk, and the
bounds. `verification` neither waits nor knows a network, so that the digital twin runs it as it is; `verified_target` is for callers that
can wait. Time is the caller's: pass the later of the wall clock and a persisted floor, so that turning back a clock brings nothing expired
to life.
"""

import re
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Final, cast

import msgspec
from securesystemslib.signer import Key  # type: ignore[attr-defined]  # their __all__ is computed
from tuf.api.exceptions import (
    BadVersionNumberError,
    EqualVersionNumberError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Delegations, MetaFile, Root, TargetFile, Targets  # type: ignore[attr-defined]  # their __all__ is computed
from tuf.api.serialization import DeserializationError
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from edgewise.ports.files import Files, FilesError
from edgewise.trust._metadata import LIMITS, MetadataRefused, check_target_path, instant

__all__ = ["FOLDER", "Fetch", "FetchMissing", "Untrusted", "Verification", "Wanted", "trusted_set", "verification", "verified_target"]


class Untrusted(Exception):
    """The repository, as it was served, vouches for no such target. `reason` is one of `Expired`, `RolledBack`, `BadSignature`, `Mismatch`,
    `Malformed`, `UnknownTarget`, `Refused`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class FetchMissing(Exception):
    """Whoever serves the repository has no such file. For a next root that is the normal answer; for others it comes out of
    `verified_target` as it is, like any error of the network."""


class Wanted(msgspec.Struct, frozen=True):
    """A file of the repository that is asked for, and how many bytes it may have."""

    name: str
    limit: int


Fetch = Callable[[str, int], bytes]
"""Return the file of that name, at most so many bytes. Raises `FetchMissing`, or whatever else goes wrong on a network."""

Verification = Generator[Wanted, bytes | None, tuple[str, int]]
"""Asks for files, is sent each one's bytes (None: there is no such file), and returns (`sha256:…`, length in bytes) of the target."""

FOLDER: Final = "repository"
"""Where a device caches metadata, below its data folder."""

_REASONS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (ExpiredMetadataError, "Expired"),
    (BadVersionNumberError, "RolledBack"),
    (UnsignedMetadataError, "BadSignature"),
    (LengthOrHashMismatchError, "Mismatch"),
    (DeserializationError, "Malformed"),
    (RepositoryError, "Refused"),
)
"""First match wins."""

_SCHEMES: Final = frozenset({("ed25519", "ed25519")})
"""The only kinds of keys that count, whatever else this process's TUF library could verify."""

_DELEGATIONS_MAX: Final = 8
_ROLE: Final = re.compile(r"[a-z][a-z0-9-]{0,63}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def verified_target(
    files: Files, root: bytes, fetch: Fetch, target_path: str, now: float, *, prefixes: tuple[str, ...] = ("releases/",)
) -> tuple[str, int]:
    """Return (`sha256:…`, length in bytes) of a target that the repository vouches for, as `verification` does; `fetch` waits.

    One process at a time: callers hold a lock on the cache. Raises what `verification` and `fetch` raise."""
    steps = verification(files, root, target_path, now, prefixes=prefixes)
    data: bytes | None = None
    while True:
        try:
            wanted = steps.send(data)
        except StopIteration as ended:
            found: tuple[str, int] = ended.value
            return found
        try:
            data = fetch(wanted.name, wanted.limit)
        except FetchMissing:
            data = None


def trusted_set(root: bytes) -> TrustedMetadataSet:
    """Return python-tuf's set of trusted metadata over a pinned root. Raises `RepositoryError`."""
    return TrustedMetadataSet(root, EnvelopeType.METADATA)


def verification(
    files: Files,
    root: bytes,
    target_path: str,
    now: float,
    *,
    prefixes: tuple[str, ...] = ("releases/",),
    trusting: Callable[[bytes], TrustedMetadataSet] = trusted_set,
) -> Verification:
    """Verify one target, believing nothing but the pinned `root`.

    `FOLDER` in `files` caches metadata between calls (which is what notices a roll-back) and may be removed at any time. Only targets below
    `prefixes` are looked up: the control plane holds the keys of `pipeline/` and `rounds/`, so whoever asks must want those. `trusting`
    makes the set that checks. Raises `Untrusted`, `FetchMissing`, and `FilesError` when the cache cannot be written."""
    _check_asked(target_path, prefixes)
    try:
        trusted = trusting(root)
        _set_time(trusted, now)
        target = yield from _Client(files, trusted).look_up(target_path)
    except (RepositoryError, ValueError) as error:
        reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), "Malformed")
        raise Untrusted(reason, f"the repository is not to be trusted: {error}") from error
    if target is None:
        raise Untrusted("UnknownTarget", f"nobody released {target_path}")
    digest = target.hashes.get("sha256")
    if digest is None or _SHA256.fullmatch(digest) is None or not 0 <= target.length <= LIMITS.target_length_max:
        raise Untrusted("Refused", f"{target_path} has no sha256 digest, or too many bytes")
    return f"sha256:{digest}", target.length


def _check_asked(target_path: str, prefixes: tuple[str, ...]) -> None:
    try:
        check_target_path(target_path)
    except MetadataRefused as error:
        raise Untrusted("UnknownTarget", str(error)) from error
    if not target_path.startswith(prefixes):
        raise Untrusted("UnknownTarget", f"{target_path} is not below {' or '.join(prefixes)}")


def _set_time(trusted: TrustedMetadataSet, now: float) -> None:
    """python-tuf takes the time from the machine's clock when the set is made, and checks no expiry before the first timestamp. If the
    attribute ever goes, this fails rather than trust the clock."""
    if not hasattr(trusted, "reference_time"):
        raise Untrusted("Refused", "this python-tuf does not let the time be set")
    trusted.reference_time = instant(now)


class _Client:
    """One look-up: a fresh set of trusted metadata each time, so that all that it reads belongs together."""

    def __init__(self, files: Files, trusted: TrustedMetadataSet) -> None:
        self._files = files
        self._trusted = trusted
        self._folders: set[str] = set()

    def look_up(self, target_path: str) -> Generator[Wanted, bytes | None, TargetFile | None]:
        """Bring the top roles up to date, then follow the delegations to the target."""
        _check_keys(self._trusted.root)
        yield from self._roots()
        yield from self._timestamp()
        yield from self._snapshot()
        return (yield from self._walk(target_path))

    def _roots(self) -> Generator[Wanted, bytes | None, None]:
        """Follow the roots one by one up to the newest. More than the bound are refused: going on with one in the middle would be to
        trust keys that were replaced since."""
        first = self._trusted.root.version + 1
        for version in range(first, first + LIMITS.root_rotations_max + 1):
            name = f"{version}.root.json"
            if not self._cached(f"root_history/{name}", LIMITS.root_bytes_max, self._trusted.update_root):
                data = yield from self._ask(name, LIMITS.root_bytes_max)
                if data is None:
                    return
                self._trusted.update_root(data)
                self._keep(f"root_history/{name}", data)
            _check_keys(self._trusted.root)
        raise Untrusted("Refused", f"there are more than {LIMITS.root_rotations_max} roots after the pinned one")

    def _timestamp(self) -> Generator[Wanted, bytes | None, None]:
        self._cached("timestamp.json", LIMITS.timestamp_bytes_max, self._trusted.update_timestamp)
        data = yield from self._require("timestamp.json", LIMITS.timestamp_bytes_max)
        try:
            self._trusted.update_timestamp(data)
        except EqualVersionNumberError:
            return  # the one that is trusted already stays
        self._keep("timestamp.json", data)

    def _snapshot(self) -> Generator[Wanted, bytes | None, None]:
        # The cached one was verified when it was kept: it need not be the one that the timestamp names to guard against a roll-back.
        if self._cached("snapshot.json", LIMITS.snapshot_bytes_max, partial(self._trusted.update_snapshot, trusted=True)):
            return
        meta = self._trusted.timestamp.snapshot_meta
        data = yield from self._require(self._name("snapshot", meta), _limit(meta, LIMITS.snapshot_bytes_max))
        self._trusted.update_snapshot(data)
        self._keep("snapshot.json", data)

    def _targets(self, role: str, delegator: str) -> Generator[Wanted, bytes | None, Targets]:
        update = partial(self._trusted.update_delegated_targets, role_name=role, delegator_name=delegator)
        if not self._cached(f"{role}.json", LIMITS.targets_bytes_max, update):
            meta = self._trusted.snapshot.meta.get(f"{role}.json")
            if meta is None:
                raise RepositoryError(f"{role} is delegated to, but not part of the snapshot")
            data = yield from self._require(self._name(role, meta), _limit(meta, LIMITS.targets_bytes_max))
            update(data)
            self._keep(f"{role}.json", data)
        targets = cast("Targets", self._trusted[role])
        if targets.delegations is not None:
            _check_keys(targets.delegations)
        return targets

    def _walk(self, target_path: str) -> Generator[Wanted, bytes | None, TargetFile | None]:
        """Ask the roles that may sign the path, in order of trust (pre-order, depth first, section 5.6.7 of the specification)."""
        to_visit, visited = [("targets", "root")], set[str]()
        while to_visit and len(visited) <= _DELEGATIONS_MAX:
            role, delegator = to_visit.pop()
            if role in visited:
                continue
            targets = yield from self._targets(role, delegator)
            target: TargetFile | None = targets.targets.get(target_path)
            if target is not None:
                return target
            visited.add(role)
            children: list[tuple[str, str]] = []
            for child, terminating in targets.delegations.get_roles_for_target(target_path) if targets.delegations else ():
                children.append((_checked_role(child), role))
                if terminating:
                    to_visit = []
                    break
            to_visit.extend(reversed(children))
        return None

    # ---- the network and the cache ----

    def _ask(self, name: str, limit: int) -> Generator[Wanted, bytes | None, bytes | None]:
        data = yield Wanted(name, limit)
        if data is not None and len(data) > limit:
            raise Untrusted("Mismatch", f"{name} has more than {limit} bytes")
        return data

    def _require(self, name: str, limit: int) -> Generator[Wanted, bytes | None, bytes]:
        data = yield from self._ask(name, limit)
        if data is None:
            raise FetchMissing(name)
        return data

    def _name(self, role: str, meta: MetaFile) -> str:
        return f"{meta.version}.{role}.json" if self._trusted.root.consistent_snapshot else f"{role}.json"

    def _cached(self, name: str, limit: int, update: Callable[[bytes], object]) -> bool:
        """Load what the cache holds and tell whether it counts as it is. Whatever is wrong with it, the network is asked instead."""
        try:
            update(self._files.read(f"{FOLDER}/{name}", limit))
        except (FilesError, RepositoryError, ValueError):
            return False
        return True

    def _keep(self, name: str, data: bytes) -> None:
        path = f"{FOLDER}/{name}"
        folder = path.rpartition("/")[0]
        if folder not in self._folders:
            self._files.make_folder(folder)
            self._folders.add(folder)
        self._files.replace(path, data)


def _limit(meta: MetaFile, most: int) -> int:
    return most if meta.length is None else min(meta.length, most)


def _check_keys(delegator: Root | Delegations) -> None:
    keys: Iterable[Key] = delegator.keys.values()
    strange = sorted({f"{key.keytype}/{key.scheme}" for key in keys if (key.keytype, key.scheme) not in _SCHEMES})
    if strange:
        raise Untrusted("Refused", f"keys of the kind {', '.join(strange)[:200]} do not count here")


def _checked_role(name: str) -> str:
    """Return the name, which becomes that of a file in the cache; python-tuf refuses the names of the top roles."""
    if _ROLE.fullmatch(name) is None:
        raise Untrusted("Refused", f"{name[:64]!r} is no name for a delegated role")
    return name
