"""Shared parts of the signed repository: reading and signing metadata, and the two online roles that follow every change."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]  # their __all__ is computed
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp  # type: ignore[attr-defined]  # their __all__ is computed

Role = TypeVar("Role", Root, Targets, Snapshot, Timestamp)

_PART: Final = r"[A-Za-z0-9][-A-Za-z0-9._]{0,127}"
_TARGET: Final = re.compile(rf"{_PART}(/{_PART}){{2,3}}")
_FILE: Final = re.compile(r"timestamp\.json|[1-9][0-9]{0,9}\.(root|snapshot|targets|releases|pipeline|rounds)\.json")
_ROOT: Final = re.compile(r"([1-9][0-9]{0,9})\.root\.json")
_END_OF_TIME: Final = datetime(9999, 1, 1, tzinfo=UTC)


class MetadataRefused(Exception):
    """Metadata or a key of the signed repository is refused. `reason` is one CamelCase word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class StaleMetadata(MetadataRefused):
    """The metadata does not follow the current version: somebody else published in between. Fetch, sign again, send again."""

    def __init__(self, message: str) -> None:
        super().__init__("Stale", message)


class RepositoryLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Lifetimes in seconds of each role's metadata, sizes in bytes. `resign_after`: the online roles are signed again after this part of
    their lifetime. `versions_kept` of each role stay for devices that are in the middle of reading. After a
    restore the online roles go on `restored_versions` further."""

    root_lifetime_seconds: float = 10 * 365 * 86400.0
    targets_lifetime_seconds: float = 5 * 365 * 86400.0
    delegated_lifetime_seconds: float = 2 * 365 * 86400.0
    snapshot_lifetime_seconds: float = 14 * 86400.0
    timestamp_lifetime_seconds: float = 3 * 86400.0
    resign_after: float = 1 / 3
    root_bytes_max: int = 512_000
    timestamp_bytes_max: int = 16_384
    snapshot_bytes_max: int = 2_000_000
    targets_bytes_max: int = 5_000_000
    targets_max: int = 20_000
    target_length_max: int = 16_000_000
    signatures_max: int = 32
    root_rotations_max: int = 256
    versions_kept: int = 4
    restored_versions: int = 100_000


LIMITS: Final = RepositoryLimits()


def instant(now: float, lifetime: float = 0.0) -> datetime:
    """Return `now` plus `lifetime` as a whole second in UTC, kept within what a date can hold, whatever a wrong clock says."""
    try:
        return (datetime.fromtimestamp(max(now, 0.0), UTC) + timedelta(seconds=lifetime)).replace(microsecond=0)
    except (OverflowError, ValueError, OSError):
        return _END_OF_TIME


def check_target_path(path: str) -> str:
    """Return `path` when it is a target's: three or four plain parts. Raises `MetadataRefused`."""
    if _TARGET.fullmatch(path) is None:
        raise MetadataRefused("BadTarget", f"{path[:200]!r} is not a target's path such as releases/NAMESPACE/ARTIFACT/VERSION.json")
    return path


def is_repository_file(name: str) -> bool:
    """Tell whether `name` is one that a repository of ours may hold, so that a request for it may be looked up."""
    return _FILE.fullmatch(name) is not None


def new_key() -> str:
    """Return a new Ed25519 private key, PKCS#8 PEM, not encrypted: store it readable by its owner only."""
    return CryptoSigner.generate_ed25519().private_bytes.decode()


def signer_of(key_pem: str) -> CryptoSigner:
    """Read an Ed25519 private key. Raises `MetadataRefused`; the message holds nothing of the key."""
    try:
        key = serialization.load_pem_private_key(key_pem.encode(), None)
    except (ValueError, TypeError) as error:
        raise MetadataRefused("BadKey", "the signing key is damaged, or encrypted") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise MetadataRefused("BadKey", "the signing key is not an Ed25519 key")
    return CryptoSigner(key)


def public_pem(key_pem: str) -> str:
    """Return the public part of a private key, PEM. Raises `MetadataRefused`."""
    key = serialization.load_pem_private_key(signer_of(key_pem).private_bytes, None)
    encoded = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded.decode()


def public_key(pem: str) -> SSlibKey:
    """Read an Ed25519 public key. Raises `MetadataRefused`."""
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, TypeError) as error:
        raise MetadataRefused("BadKey", "the public key is damaged") from error
    if not isinstance(key, Ed25519PublicKey):
        raise MetadataRefused("BadKey", "the public key is not an Ed25519 key")
    return SSlibKey.from_crypto(key)


def read(role: type[Role], data: bytes, limit: int) -> Metadata[Role]:
    """Parse metadata that must be of `role`; nothing is verified. Raises `MetadataRefused`."""
    if len(data) > limit:
        raise MetadataRefused("TooLarge", f"the metadata has {len(data)} bytes, more than {limit}")
    try:
        metadata = Metadata[Role].from_bytes(data)
    except RepositoryError as error:
        raise MetadataRefused("Malformed", "the bytes are not repository metadata") from error
    if metadata.signed.type != role.type:
        raise MetadataRefused("WrongRole", f"the metadata is {metadata.signed.type}, not {role.type}")
    if len(metadata.signatures) > LIMITS.signatures_max:
        raise MetadataRefused("TooLarge", f"the metadata carries more than {LIMITS.signatures_max} signatures")
    return metadata


def sign(signed: Role, keys: Sequence[str]) -> bytes:
    """Return the metadata signed with each of the keys."""
    metadata = Metadata(signed)
    for key in keys:
        metadata.sign(signer_of(key), append=True)
    return metadata.to_bytes()


def file_of(files: Mapping[str, bytes], name: str) -> bytes:
    """Return a file of the repository. Raises `MetadataRefused`."""
    data = files.get(name)
    if data is None:
        raise MetadataRefused("Incomplete", f"the repository lacks {name}")
    return data


def root_of(files: Mapping[str, bytes]) -> Metadata[Root]:
    """Return the newest root. Raises `MetadataRefused`."""
    versions = [int(match.group(1)) for match in map(_ROOT.fullmatch, files) if match]
    if not versions:
        raise MetadataRefused("Incomplete", "the repository has no root")
    return read(Root, files[f"{max(versions)}.root.json"], LIMITS.root_bytes_max)


def timestamp_of(files: Mapping[str, bytes]) -> Metadata[Timestamp]:
    """Return the current timestamp. Raises `MetadataRefused`."""
    return read(Timestamp, file_of(files, "timestamp.json"), LIMITS.timestamp_bytes_max)


def snapshot_of(files: Mapping[str, bytes]) -> Metadata[Snapshot]:
    """Return the snapshot that the timestamp names. Raises `MetadataRefused`."""
    version = timestamp_of(files).signed.snapshot_meta.version
    return read(Snapshot, file_of(files, f"{version}.snapshot.json"), LIMITS.snapshot_bytes_max)


def targets_of(files: Mapping[str, bytes], role: str) -> Metadata[Targets]:
    """Return the current targets metadata of `targets` or of a delegated role. Raises `MetadataRefused`."""
    return read(Targets, file_of(files, targets_name(files, role)), LIMITS.targets_bytes_max)


def targets_name(files: Mapping[str, bytes], role: str) -> str:
    """Return the file name of the current targets metadata of `role`. Raises `MetadataRefused`."""
    meta = snapshot_of(files).signed.meta.get(f"{role}.json")
    if meta is None:
        raise MetadataRefused("UnknownRole", f"the repository has no role {role!r}")
    return f"{meta.version}.{role}.json"


def online_files(
    metas: dict[str, MetaFile], versions: tuple[int, int], online_key: str, now: float
) -> tuple[tuple[str, bytes], tuple[str, bytes]]:
    """Return snapshot and timestamp of the given versions, in this order, as (name, bytes)."""
    snapshot_version, timestamp_version = versions
    snapshot = sign(Snapshot(version=snapshot_version, expires=instant(now, LIMITS.snapshot_lifetime_seconds), meta=metas), (online_key,))
    timestamp = Timestamp(
        version=timestamp_version,
        expires=instant(now, LIMITS.timestamp_lifetime_seconds),
        snapshot_meta=MetaFile.from_data(snapshot_version, snapshot, ["sha256"]),
    )
    return (f"{snapshot_version}.snapshot.json", snapshot), ("timestamp.json", sign(timestamp, (online_key,)))


def publish(files: Mapping[str, bytes], changed: Mapping[str, tuple[int, bytes]], online_key: str, now: float) -> dict[str, bytes]:
    """Return the new targets files, then a new snapshot over them, then a new timestamp. Write them in this order: whoever reads in
    between sees the old state, whole."""
    old = snapshot_of(files).signed
    metas = dict(old.meta)
    result: dict[str, bytes] = {}
    for role, (version, data) in changed.items():
        metas[f"{role}.json"] = MetaFile.from_data(version, data, ["sha256"])
        result[f"{version}.{role}.json"] = data
    versions = (old.version + 1, timestamp_of(files).signed.version + 1)
    result.update(online_files(metas, versions, online_key, now))
    return result
