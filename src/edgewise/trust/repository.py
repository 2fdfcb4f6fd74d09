"""The signed repository, publisher's side (TUF, by python-tuf).

Who signs what: `root` and `targets` people with offline keys; `releases` people too, on their own machines (`add_release`); `snapshot` and
`timestamp` the control plane, online; `pipeline` and `rounds` online keys of the control plane that are limited to their paths. The control
plane takes new releases only through `accept_delegated`, which checks what devices will check, so that no mistake reaches them.

A repository is a mapping from file name to bytes (`timestamp.json`, `3.snapshot.json`, `1.root.json`, `4.releases.json`). Functions return
the files that changed, in the order in which they must be written.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import msgspec
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp  # type: ignore[attr-defined]  # their __all__ is computed
from tuf.api.metadata import Role as TufRole  # type: ignore[attr-defined]  # their __all__ is computed

from edgewise.trust import _metadata
from edgewise.trust._metadata import (
    LIMITS,
    MetadataRefused,
    RepositoryLimits,
    StaleMetadata,
    check_target_path,
    instant,
    is_repository_file,
    new_key,
    public_key,
    public_pem,
    root_of,
    signer_of,
    snapshot_of,
    targets_name,
    targets_of,
    timestamp_of,
)

__all__ = [
    "DELEGATIONS",
    "LIMITS",
    "DelegatedRoleName",
    "MetadataRefused",
    "RepositoryKeys",
    "RepositoryLimits",
    "RepositoryOptions",
    "StaleMetadata",
    "accept_delegated",
    "add_release",
    "advance",
    "check_target_path",
    "cosign",
    "create_repository",
    "delegated_metadata",
    "expiries",
    "is_repository_file",
    "new_key",
    "newest_root",
    "obsolete",
    "public_pem",
    "refresh_timestamp",
    "renew_delegated",
]

DelegatedRoleName = Literal["releases", "pipeline", "rounds"]

DELEGATIONS: Final[dict[DelegatedRoleName, tuple[str, ...]]] = {
    "releases": ("releases/*/*/*",),
    "pipeline": ("pipeline/*/*/*",),
    "rounds": ("rounds/*/*",),
}
"""Each delegated role and the only paths that it may sign."""

_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")


class RepositoryOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How many keys to make for the people's roles, and how many of them must sign."""

    root_keys: int = 1
    root_threshold: int = 1
    release_keys: int = 1
    release_threshold: int = 1


class RepositoryKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The private keys of a new repository, each Ed25519 in PKCS#8 PEM. `root`, `targets` and `releases` belong offline, with people;
    `online` (snapshot and timestamp), `pipeline` and `rounds` stay with the control plane."""

    root: tuple[str, ...]
    targets: str
    releases: tuple[str, ...]
    online: str
    pipeline: str
    rounds: str

    def __repr__(self) -> str:
        return "RepositoryKeys(…)"

    def offline_files(self) -> dict[str, str]:
        """Return the people's keys by file name: move these away from the control plane's machine."""
        root = {f"root-{n}.pem": key for n, key in enumerate(self.root, 1)}
        releases = {f"releases-{n}.pem": key for n, key in enumerate(self.releases, 1)}
        return {**root, "targets.pem": self.targets, **releases}

    def online_files(self) -> dict[str, str]:
        """Return the control plane's own keys by file name."""
        return {"online.pem": self.online, "pipeline.pem": self.pipeline, "rounds.pem": self.rounds}


def create_repository(
    now: float,
    options: RepositoryOptions = RepositoryOptions(),  # noqa: B008 - frozen
    make_key: Callable[[], str] = new_key,
) -> tuple[dict[str, bytes], RepositoryKeys]:
    """Make an empty repository and all its keys. `make_key` is for the twin, whose keys come from its seed. Raises `MetadataRefused` for
    thresholds that cannot be met."""
    for count, threshold in ((options.root_keys, options.root_threshold), (options.release_keys, options.release_threshold)):
        if not 1 <= threshold <= count <= LIMITS.signatures_max // 2:
            raise MetadataRefused("BadThreshold", f"{threshold} of {count} keys cannot be asked for")
    keys = RepositoryKeys(
        root=tuple(make_key() for _ in range(options.root_keys)),
        targets=make_key(),
        releases=tuple(make_key() for _ in range(options.release_keys)),
        online=make_key(),
        pipeline=make_key(),
        rounds=make_key(),
    )
    files = {"1.root.json": _metadata.sign(_new_root(keys, options.root_threshold, now), keys.root)}
    targets = Targets(
        version=1, expires=instant(now, LIMITS.targets_lifetime_seconds), delegations=_new_delegations(keys, options.release_threshold)
    )
    signed: dict[str, tuple[Targets, tuple[str, ...]]] = {"targets": (targets, (keys.targets,))}
    for name, signers in (("releases", keys.releases), ("pipeline", (keys.pipeline,)), ("rounds", (keys.rounds,))):
        signed[name] = Targets(version=1, expires=instant(now, LIMITS.delegated_lifetime_seconds)), signers
    metas: dict[str, MetaFile] = {}
    for name, (role, signers) in signed.items():
        data = _metadata.sign(role, signers)
        files[f"1.{name}.json"] = data
        metas[f"{name}.json"] = MetaFile.from_data(1, data, ["sha256"])
    files.update(_metadata.online_files(metas, (1, 1), keys.online, now))
    return files, keys


def add_release(  # noqa: PLR0917 - what is released, then by whom and when
    releases_metadata: bytes,
    target_path: str,
    digest: str,
    length: int,
    release_key: str,
    now: float,
    trusted_keys: Sequence[str] = (),
) -> bytes:
    """Return the next version of a delegated role's metadata with one more target, signed with `release_key` (PEM). Runs on the
    operator's machine: the metadata came from the control plane and is believed only when this key or one of `trusted_keys` (public PEM)
    signed it, so that a captured control plane cannot have an operator sign what nobody meant. `digest` is `sha256:…` of the target.
    Raises `MetadataRefused`, also when the path is there with other content: versions are immutable."""
    metadata = _own_metadata(releases_metadata, release_key, trusted_keys)
    path, targets = check_target_path(target_path), dict(metadata.signed.targets)
    match = _DIGEST.fullmatch(digest)
    if match is None or not 0 <= length <= LIMITS.target_length_max:
        raise MetadataRefused("BadTarget", f"a target has a sha256 digest and at most {LIMITS.target_length_max} bytes")
    target = TargetFile(length, {"sha256": match.group(1)}, path)
    if targets.setdefault(path, target) != target:
        raise MetadataRefused("Immutable", f"{path} was released with other content: choose another version")
    if len(targets) > LIMITS.targets_max:
        raise MetadataRefused("TooLarge", f"a role has at most {LIMITS.targets_max} targets")
    return _next(metadata.signed, targets, release_key, now)


def renew_delegated(metadata: bytes, key: str, now: float, trusted_keys: Sequence[str] = ()) -> bytes:
    """Return the next version of a delegated role's metadata with the same targets and a new expiry. Raises `MetadataRefused`."""
    current = _own_metadata(metadata, key, trusted_keys)
    return _next(current.signed, dict(current.signed.targets), key, now)


def cosign(metadata: bytes, key: str) -> bytes:
    """Return the metadata with one more signature, for roles that ask for several. Look at what you sign. Raises `MetadataRefused`."""
    parsed = _metadata.read(Targets, metadata, LIMITS.targets_bytes_max)
    parsed.sign(signer_of(key), append=True)
    return parsed.to_bytes()


def accept_delegated(
    files: Mapping[str, bytes], role: DelegatedRoleName, new_bytes: bytes, online_key: str, now: float
) -> dict[str, bytes]:
    """Check new metadata of a delegated role as devices will, and return the changed files: it, a new snapshot, a new timestamp. Raises
    `MetadataRefused` (`StaleMetadata` when its version is not the next one)."""
    new = _metadata.read(Targets, new_bytes, LIMITS.targets_bytes_max)
    known = _verified_signatures(targets_of(files, "targets"), role, new)
    new.signatures = {keyid: signature for keyid, signature in new.signatures.items() if keyid in known}
    new.unrecognized_fields = {}
    current = targets_of(files, role).signed
    if new.signed.version != current.version + 1:
        raise StaleMetadata(f"{role} is at version {current.version}, so the next is {current.version + 1}, not {new.signed.version}")
    if new.signed.is_expired(instant(now)):
        raise MetadataRefused("Expired", f"the new {role} metadata expired at {new.signed.expires:%Y-%m-%d %H:%M} UTC")
    if new.signed.delegations is not None:
        raise MetadataRefused("Delegates", f"{role} may not delegate further")
    _check_targets(role, current, new.signed)
    return _metadata.publish(files, {role: (new.signed.version, new.to_bytes())}, online_key, now)


def refresh_timestamp(files: Mapping[str, bytes], online_key: str, now: float, *, force: bool = False) -> dict[str, bytes]:
    """Sign the timestamp again, and the snapshot when it is old too; empty when neither is due and it is not forced. Call it at start and
    then every few hours."""
    timestamp, snapshot = timestamp_of(files).signed, snapshot_of(files).signed
    if _due(snapshot, LIMITS.snapshot_lifetime_seconds, now):
        return _metadata.publish(files, {}, online_key, now)
    if not (force or _due(timestamp, LIMITS.timestamp_lifetime_seconds, now)):
        return {}
    fresh = Timestamp(
        version=timestamp.version + 1,
        expires=instant(now, LIMITS.timestamp_lifetime_seconds),
        snapshot_meta=timestamp.snapshot_meta,
    )
    return {"timestamp.json": _metadata.sign(fresh, (online_key,))}


def advance(files: Mapping[str, bytes], online_key: str, now: float) -> dict[str, bytes]:
    """Sign snapshot and timestamp with versions far above the current ones: after a restore from a backup, devices have seen higher
    versions than the backup knows, and would take the next ones for a roll-back. Raises `MetadataRefused`."""
    snapshot, timestamp = snapshot_of(files).signed, timestamp_of(files).signed
    versions = (snapshot.version + LIMITS.restored_versions, timestamp.version + LIMITS.restored_versions)
    return dict(_metadata.online_files(dict(snapshot.meta), versions, online_key, now))


def delegated_metadata(files: Mapping[str, bytes], role: DelegatedRoleName = "releases") -> bytes:
    """Return the current bytes of a delegated role, as an operator needs them for `add_release`. Raises `MetadataRefused`."""
    return _metadata.file_of(files, targets_name(files, role))


def newest_root(files: Mapping[str, bytes]) -> bytes:
    """Return the newest root's bytes: what a joining device pins. Raises `MetadataRefused`."""
    return files[f"{root_of(files).signed.version}.root.json"]


def expiries(files: Mapping[str, bytes]) -> dict[str, float]:
    """Return when each role expires, in seconds since the Unix epoch, so that people are told in time."""
    signed: dict[str, Root | Timestamp | Snapshot | Targets] = {
        "root": root_of(files).signed,
        "timestamp": timestamp_of(files).signed,
        "snapshot": snapshot_of(files).signed,
    }
    for name in snapshot_of(files).signed.meta:
        role = name.removesuffix(".json")
        signed[role] = targets_of(files, role).signed
    return {role: each.expires.timestamp() for role, each in signed.items()}


def obsolete(files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the names of files that may be removed: all but the roots, the timestamp and the last versions of each role."""
    versions: dict[str, list[int]] = {}
    for name in files:
        number, _, role = name.partition(".")
        if is_repository_file(name) and number.isdigit() and role != "root.json":
            versions.setdefault(role, []).append(int(number))
    return tuple(f"{n}.{role}" for role, numbers in versions.items() for n in sorted(numbers)[: -LIMITS.versions_kept])


# ---- parts ----


def _new_root(keys: RepositoryKeys, threshold: int, now: float) -> Root:
    signers = {"root": keys.root, "targets": (keys.targets,), "snapshot": (keys.online,), "timestamp": (keys.online,)}
    roles = {name: TufRole([], threshold if name == "root" else 1) for name in signers}
    root = Root(version=1, expires=instant(now, LIMITS.root_lifetime_seconds), roles=roles, consistent_snapshot=True)
    for name, privates in signers.items():
        for private in privates:
            root.add_key(signer_of(private).public_key, name)
    return root


def _new_delegations(keys: RepositoryKeys, release_threshold: int) -> Delegations:
    signers: dict[DelegatedRoleName, tuple[str, ...]] = {"releases": keys.releases, "pipeline": (keys.pipeline,), "rounds": (keys.rounds,)}
    publics = {name: [signer_of(each).public_key for each in privates] for name, privates in signers.items()}
    roles = {
        name: DelegatedRole(
            name=name,
            keyids=[key.keyid for key in publics[name]],
            threshold=release_threshold if name == "releases" else 1,
            terminating=True,
            paths=list(paths),
        )
        for name, paths in DELEGATIONS.items()
    }
    return Delegations(
        keys={key.keyid: key for each in publics.values() for key in each}, roles={str(name): role for name, role in roles.items()}
    )


def _own_metadata(data: bytes, key: str, trusted_keys: Sequence[str]) -> Metadata[Targets]:
    metadata = _metadata.read(Targets, data, LIMITS.targets_bytes_max)
    for public in (signer_of(key).public_key, *map(public_key, trusted_keys)):
        signature = metadata.signatures.get(public.keyid)
        if signature is None:
            continue
        try:
            public.verify_signature(signature, metadata.signed_bytes)
        except Exception as error:
            raise MetadataRefused("BadSignature", "the current metadata's signature is wrong: do not sign on top of it") from error
        return metadata
    raise MetadataRefused("WrongKey", "the current metadata was not signed by this key, nor by one that is trusted here")


def _next(current: Targets, targets: dict[str, TargetFile], key: str, now: float) -> bytes:
    expires = instant(now, LIMITS.delegated_lifetime_seconds)
    data = _metadata.sign(Targets(version=current.version + 1, expires=expires, targets=targets), (key,))
    if len(data) > LIMITS.targets_bytes_max:
        raise MetadataRefused("TooLarge", f"the metadata would have more than {LIMITS.targets_bytes_max} bytes")
    return data


def _verified_signatures(delegator: Metadata[Targets], role: DelegatedRoleName, new: Metadata[Targets]) -> frozenset[str]:
    try:
        result = delegator.signed.get_verification_result(role, new.signed_bytes, new.signatures)
    except (ValueError, RepositoryError) as error:
        raise MetadataRefused("UnknownRole", f"nothing is delegated to {role!r}") from error
    if not result.verified:
        raise MetadataRefused("BadSignature", f"{role} was signed by {len(result.signed)} of the {result.threshold} keys that it needs")
    return frozenset(result.signed)


def _check_targets(role: DelegatedRoleName, current: Targets, new: Targets) -> None:
    if len(new.targets) > LIMITS.targets_max:
        raise MetadataRefused("TooLarge", f"a role has at most {LIMITS.targets_max} targets")
    delegated = DelegatedRole(name=role, keyids=[], threshold=1, terminating=True, paths=list(DELEGATIONS[role]))
    for path, target in new.targets.items():
        if not delegated.is_delegated_path(check_target_path(path)):
            raise MetadataRefused("OutsideDelegation", f"{role} may not sign {path}")
        if set(target.hashes) != {"sha256"} or not 0 <= target.length <= LIMITS.target_length_max:
            raise MetadataRefused("BadTarget", f"{path} needs exactly a sha256 digest and at most {LIMITS.target_length_max} bytes")
        if current.targets.get(path, target) != target:
            raise MetadataRefused("Immutable", f"{path} was released with other content")


def _due(signed: Timestamp | Snapshot, lifetime: float, now: float) -> bool:
    return signed.expires.timestamp() - now < lifetime * (1 - LIMITS.resign_after)
