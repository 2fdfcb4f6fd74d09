"""Attacks on the signed repository: what the adversary does, and what a device must answer.

Section 1.5.2 of the TUF specification lists the threats; there is at least one attack for each.
"""

import json
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp  # type: ignore[attr-defined]  # computed

from edgewise.twin.adversary import NAMESPACE, RELEASED, Adversary, signer_of
from edgewise.twin.trust import key_from
from edgewise.twin.versions import made_version

__all__ = ["ATTACKS", "Attack"]

_DAY: Final = 86_400.0

Move = Callable[[Adversary], object]
"""What people or the adversary do."""


class Attack(msgspec.Struct, frozen=True, kw_only=True):
    """One attack. `threat` is the specification's name of it. Each of `moves` is followed by a look of the same device, which must answer
    what stands beside it. `stolen`: the online keys were stolen, so people replace them before all is well again."""

    threat: str
    moves: tuple[tuple[Move, str], ...]
    stolen: bool = False


def _both(*moves: Move) -> Move:
    return lambda a: [move(a) for move in moves]


def _nothing(_: Adversary) -> None:
    """Let the device see the repository as it is."""


def _update(a: Adversary) -> None:
    """People release version 2, and it is let through."""
    a.release("2")
    a.honest()
    a.want("2")


def _first_state(a: Adversary) -> None:
    a.served = dict(a.states[0])


def _first_state_with_new_timestamp(a: Adversary) -> None:
    first = Metadata[Timestamp].from_bytes(a.states[0]["timestamp.json"]).signed
    a.timestamp_over(first.snapshot_meta)


def _first_releases(a: Adversary) -> None:
    first = Metadata[Snapshot].from_bytes(a.states[0]["2.snapshot.json"]).signed
    a.snapshot_over(lambda metas: metas.update({"releases.json": first.meta["releases.json"]}))


def _root_again(a: Adversary) -> None:
    a.served["2.root.json"] = a.served["1.root.json"]


def _hold_back(a: Adversary) -> None:
    """People release version 2, and the device sees nothing of it."""
    a.release("2")


def _days(days: float) -> Move:
    def later(a: Adversary) -> None:
        a.now += days * _DAY

    return later


def _want_new(a: Adversary) -> None:
    a.want("2")


def _keep_fresh(a: Adversary) -> None:
    """With the online key: sign an old state again, days after people released version 2."""
    a.now += 10 * _DAY
    a.snapshot_over(lambda _metas: None)


def _unsigned_release(a: Adversary) -> None:
    name = a.name_of("releases")
    metadata = json.loads(a.served[name])
    metadata["signed"]["targets"][a.wanted.target]["hashes"]["sha256"] = "e" * 64
    a.served[name] = json.dumps(metadata, separators=(",", ":")).encode()
    a.wanted = msgspec.structs.replace(a.wanted, digest="sha256:" + "e" * 64)


def _evil_release(keys: Callable[[Adversary], Sequence[str]], role: str = "releases") -> Move:
    """With the online key and `keys`: release what nobody wrote, and tell the device to run it."""

    def mount(a: Adversary) -> None:
        body = msgspec.json.encode(made_version(NAMESPACE, "evil", "1").spec.manifest)
        target = f"releases/{NAMESPACE}/evil/1.json"
        file = TargetFile.from_data(target, body, ["sha256"])
        version = a.snapshot.meta[f"{role}.json"].version + 1

        def change(signed: Targets) -> None:
            signed.version = version
            signed.targets[target] = file

        a.slip_in(role, a.resign(a.name_of(role), change, keys(a)), version)
        digest = f"sha256:{file.hashes['sha256']}"
        a.manifests[digest] = body
        a.wanted = msgspec.structs.replace(a.wanted, target=target, digest=digest, length=len(body))

    return mount


def _evil_root(a: Adversary) -> None:
    """With one root key of the two that it takes: put keys of one's own in place of all others."""
    own = key_from(a.chance)

    def change(root: Root) -> None:
        root.version = 2
        for role in ("targets", "snapshot", "timestamp"):
            for keyid in tuple(root.roles[role].keyids):
                root.revoke_key(keyid, role)
            root.add_key(signer_of(own).public_key, role)

    a.served["2.root.json"] = a.resign("1.root.json", change, [a.keys.root[0], own])


def _other_manifest(a: Adversary) -> None:
    a.manifests[a.wanted.digest] = a.manifests[a.released["1"].spec.digest]


def _other_digest(a: Adversary) -> None:
    """Tell the device, as a captured control plane can, that version 2 has the digest of version 1."""
    a.want("2", digest=a.released["1"].spec.digest)


def _changed_manifest(a: Adversary) -> None:
    a.manifests[a.wanted.digest] = a.manifests[a.wanted.digest].replace(b"model.onnx", b"modem.onnx")


def _old_file_under_new_name(role: str) -> Move:
    def mount(a: Adversary) -> None:
        newest = "timestamp" if role == "snapshot" else "snapshot"
        version = a.timestamp.snapshot_meta.version if newest == "timestamp" else int(a.name_of(role).partition(".")[0])
        a.served[f"{version}.{role}.json"] = a.states[0][f"{version - 1}.{role}.json"]

    return mount


def _fast_forward(a: Adversary) -> None:
    a.snapshot_over(lambda metas: metas.update({name: MetaFile(meta.version) for name, meta in metas.items()}), step=2_000_000_000)


def _key_replaced(a: Adversary) -> None:
    a.replace_online_key()
    a.honest()


def _without_role(a: Adversary) -> None:
    a.snapshot_over(lambda metas: metas.pop("releases.json"))


def _endless(name: Callable[[Adversary], str]) -> Move:
    return lambda a: a.endless.add(name(a))


def _slow(name: Callable[[Adversary], str]) -> Move:
    return lambda a: a.silent.add(name(a))


def _gone(name: Callable[[Adversary], str]) -> Move:
    return lambda a: a.served.pop(name(a))


def _garbage(a: Adversary) -> None:
    a.served["timestamp.json"] = b"<html>log in to use the network</html>"


def _other_fleet(a: Adversary) -> None:
    a.served = dict(Adversary(a.chance, a.now).served)


def _all_online(a: Adversary) -> Sequence[str]:
    return (a.keys.online, a.keys.pipeline, a.keys.rounds)


def _snapshot_name(a: Adversary) -> str:
    return f"{a.timestamp.snapshot_meta.version}.snapshot.json"


_FIRST: Final = (_nothing, RELEASED)
_SECOND: Final = (_update, RELEASED)

ATTACKS: Final[dict[str, Attack]] = {
    "unsigned-release": Attack(threat="arbitrary installation", moves=((_unsigned_release, "Mismatch"),)),
    "changed-manifest": Attack(threat="arbitrary installation", moves=(_FIRST, (_changed_manifest, "Mismatch"))),
    "captured-control-plane": Attack(
        threat="arbitrary installation", moves=(_FIRST, (_evil_release(_all_online), "BadSignature")), stolen=True
    ),
    "another-fleet": Attack(threat="arbitrary installation", moves=((_other_fleet, "BadSignature"),)),
    "roll-back": Attack(threat="rollback", moves=(_FIRST, _SECOND, (_first_state, "RolledBack"))),
    "roll-back-of-the-snapshot": Attack(
        threat="rollback", moves=(_FIRST, _SECOND, (_first_state_with_new_timestamp, "RolledBack")), stolen=True
    ),
    "roll-back-of-the-releases": Attack(threat="rollback", moves=(_FIRST, _SECOND, (_first_releases, "RolledBack")), stolen=True),
    "roll-back-of-the-root": Attack(threat="rollback", moves=(_FIRST, (_root_again, "RolledBack"))),
    "vanished-role": Attack(threat="rollback", moves=(_FIRST, (_without_role, "Refused")), stolen=True),
    "fast-forward": Attack(
        threat="fast-forward", moves=(_FIRST, (_fast_forward, RELEASED), (_nothing, RELEASED), (_key_replaced, RELEASED)), stolen=True
    ),
    "fast-forward-left-alone": Attack(
        threat="fast-forward", moves=(_FIRST, (_fast_forward, RELEASED), (_update, "RolledBack")), stolen=True
    ),
    "freeze": Attack(
        threat="indefinite freeze",
        moves=(_FIRST, (_hold_back, RELEASED), (_want_new, "UnknownTarget"), (_days(2.9), "UnknownTarget"), (_days(0.1), "Expired")),
    ),
    "freeze-of-a-new-device": Attack(threat="indefinite freeze", moves=((_days(3), "Expired"),)),
    "freeze-by-the-control-plane": Attack(
        threat="indefinite freeze",
        moves=(_FIRST, (_hold_back, RELEASED), (_keep_fresh, RELEASED), (_want_new, "UnknownTarget")),
        stolen=True,
    ),
    "endless-timestamp": Attack(threat="endless data", moves=(_FIRST, (_endless(lambda _: "timestamp.json"), "Mismatch"))),
    "endless-root": Attack(threat="endless data", moves=(_FIRST, (_endless(lambda _: "2.root.json"), "Mismatch"))),
    "endless-snapshot": Attack(threat="endless data", moves=((_endless(_snapshot_name), "Mismatch"),)),
    "endless-releases": Attack(threat="endless data", moves=((_endless(lambda a: a.name_of("releases")), "Mismatch"),)),
    "endless-manifest": Attack(threat="endless data", moves=(_FIRST, (_endless(lambda a: a.wanted.digest), "Mismatch"))),
    "slow-timestamp": Attack(threat="slow retrieval", moves=(_FIRST, (_slow(lambda _: "timestamp.json"), "Unreachable"))),
    "slow-root": Attack(threat="slow retrieval", moves=(_FIRST, (_slow(lambda _: "2.root.json"), "Unreachable"))),
    "slow-manifest": Attack(threat="slow retrieval", moves=(_FIRST, (_slow(lambda a: a.wanted.digest), "Unreachable"))),
    "pipeline-overreach": Attack(
        threat="extraneous dependencies",
        moves=(_FIRST, (_evil_release(lambda a: [a.keys.pipeline], "pipeline"), "UnknownTarget")),
        stolen=True,
    ),
    "rounds-overreach": Attack(
        threat="extraneous dependencies", moves=(_FIRST, (_evil_release(lambda a: [a.keys.rounds], "rounds"), "UnknownTarget")), stolen=True
    ),
    "mixed-snapshot": Attack(threat="mix-and-match", moves=((_update, RELEASED), (_old_file_under_new_name("snapshot"), RELEASED))),
    "mixed-snapshot-for-a-new-device": Attack(
        threat="mix-and-match", moves=((_both(_update, _old_file_under_new_name("snapshot")), "Mismatch"),)
    ),
    "mixed-releases": Attack(threat="mix-and-match", moves=(_FIRST, (_both(_update, _old_file_under_new_name("releases")), "Mismatch"))),
    "other-manifest": Attack(threat="wrong software installation", moves=(_SECOND, (_other_manifest, "Mismatch"))),
    "other-digest": Attack(threat="wrong software installation", moves=(_SECOND, (_other_digest, "Mismatch")), stolen=True),
    "mirror-without-timestamp": Attack(threat="malicious mirrors", moves=(_FIRST, (_gone(lambda _: "timestamp.json"), "MetadataMissing"))),
    "mirror-without-releases": Attack(threat="malicious mirrors", moves=((_gone(lambda a: a.name_of("releases")), "MetadataMissing"),)),
    "mirror-of-garbage": Attack(threat="malicious mirrors", moves=(_FIRST, (_garbage, "Malformed"))),
    "one-release-key": Attack(
        threat="key compromise",
        moves=(_FIRST, (_evil_release(lambda a: [a.keys.releases[0], *_all_online(a)]), "BadSignature")),
        stolen=True,
    ),
    "one-release-key-twice": Attack(
        threat="key compromise", moves=(_FIRST, (_evil_release(lambda a: [a.keys.releases[0]] * 2), "BadSignature")), stolen=True
    ),
    "one-root-key": Attack(threat="key compromise", moves=(_FIRST, (_evil_root, "BadSignature"))),
}
"""By name. After each of them all is well again once the adversary is gone and people have replaced the online keys that it stole."""
