"""Changing the repository's keys: of the root and the roles that it names, and of the delegated roles.

A new root is signed by the old root's keys and by its own, so that devices that pinned any earlier root follow, version by version. After
a rotation of the online key, old timestamps and snapshots no longer count; after one of a delegated role, its metadata is signed anew.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from tuf.api.metadata import Role as TufRole  # type: ignore[attr-defined]  # their __all__ is computed
from tuf.api.metadata import Root, Targets  # type: ignore[attr-defined]  # their __all__ is computed

from edgewise.trust import _metadata
from edgewise.trust._metadata import LIMITS, MetadataRefused, instant, root_of, signer_of, targets_of
from edgewise.trust.repository import DelegatedRoleName

_ONLINE: Final = ("snapshot", "timestamp")


class RootChange(msgspec.Struct, frozen=True, kw_only=True):
    """What changes with a new root; None stays as it is. All are private keys in PEM. `root_keys` replaces all root keys, `threshold` how
    many of them must sign, `targets_key` and `online_key` replace theirs."""

    root_keys: tuple[str, ...] | None = None
    threshold: int | None = None
    targets_key: str | None = None
    online_key: str | None = None

    def __repr__(self) -> str:
        return "RootChange(…)"


def rotate_root(files: Mapping[str, bytes], root_keys: Sequence[str], online_key: str, change: RootChange, now: float) -> dict[str, bytes]:
    """Return the files of the repository under a new root, in the order in which to write them. `root_keys` are today's root keys (as many
    as its threshold asks for), `online_key` today's. With an empty change the root only gets a new expiry. Raises `MetadataRefused`."""
    old = root_of(files)
    new = root_of(files)  # a second copy, to be changed
    new.signed.version += 1
    new.signed.expires = instant(now, LIMITS.root_lifetime_seconds)
    signers = tuple(change.root_keys or root_keys)
    if change.root_keys is not None:
        threshold = change.threshold or new.signed.roles["root"].threshold
        _replace(new.signed, "root", change.root_keys, threshold)
    elif change.threshold is not None:
        new.signed.roles["root"].threshold = change.threshold
    if change.targets_key is not None:
        _replace(new.signed, "targets", (change.targets_key,), 1)
    if change.online_key is not None:
        for role in _ONLINE:
            _replace(new.signed, role, (change.online_key,), 1)
    data = _metadata.sign(new.signed, tuple(dict.fromkeys((*root_keys, *signers))))
    _check_root(old.signed, data)
    result = {f"{new.signed.version}.root.json": data}
    changed = {} if change.targets_key is None else {"targets": _signed_again(files, "targets", (change.targets_key,), now)}
    if changed or change.online_key is not None:
        result.update(_metadata.publish(files, changed, change.online_key or online_key, now))
    return result


def rotate_delegation(
    files: Mapping[str, bytes],
    role: DelegatedRoleName,
    new_keys: Sequence[str],
    threshold: int,
    *,
    targets_key: str,
    online_key: str,
    now: float,
) -> dict[str, bytes]:
    """Return the files of the repository with other keys (private PEM) for a delegated role; its targets stay and are signed anew. Look at
    what they are first: a stolen key may have signed some. Raises `MetadataRefused`."""
    if not 1 <= threshold <= len(new_keys) <= LIMITS.signatures_max // 2:
        raise MetadataRefused("BadThreshold", f"{threshold} of {len(new_keys)} keys cannot be asked for")
    targets = targets_of(files, "targets").signed
    delegations = targets.delegations
    if delegations is None or delegations.roles is None or role not in delegations.roles:
        raise MetadataRefused("UnknownRole", f"nothing is delegated to {role!r}")
    for keyid in tuple(delegations.roles[role].keyids):
        targets.revoke_key(keyid, role)
    for key in new_keys:
        targets.add_key(signer_of(key).public_key, role)
    delegations.roles[role].threshold = threshold
    targets.version += 1
    targets.expires = instant(now, LIMITS.targets_lifetime_seconds)
    changed = {"targets": (targets.version, _metadata.sign(targets, (targets_key,))), role: _signed_again(files, role, new_keys, now)}
    _check_targets_key(root_of(files).signed, changed["targets"][1])
    return _metadata.publish(files, changed, online_key, now)


def _replace(root: Root, role: str, keys: Sequence[str], threshold: int) -> None:
    for keyid in tuple(root.roles[role].keyids):
        root.revoke_key(keyid, role)
    root.roles[role] = TufRole([], threshold)
    for key in keys:
        root.add_key(signer_of(key).public_key, role)


def _signed_again(files: Mapping[str, bytes], role: str, keys: Sequence[str], now: float) -> tuple[int, bytes]:
    signed = targets_of(files, role).signed
    signed.version += 1
    lifetime = LIMITS.targets_lifetime_seconds if role == "targets" else LIMITS.delegated_lifetime_seconds
    signed.expires = instant(now, lifetime)
    return signed.version, _metadata.sign(signed, keys)


def _check_root(old: Root, data: bytes) -> None:
    new = _metadata.read(Root, data, LIMITS.root_bytes_max)
    result = new.signed.get_root_verification_result(old, new.signed_bytes, new.signatures)
    if not result.verified:
        missing = result.first.missing or result.second.missing
        raise MetadataRefused("BadThreshold", f"the new root lacks {missing} signatures of the old or the new root keys")


def _check_targets_key(root: Root, data: bytes) -> None:
    targets = _metadata.read(Targets, data, LIMITS.targets_bytes_max)
    if not root.get_verification_result("targets", targets.signed_bytes, targets.signatures).verified:
        raise MetadataRefused("WrongKey", "the targets key is not the one that the root names")
