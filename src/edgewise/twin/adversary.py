"""An adversarial repository, for tests: a real one, with somebody between it and a device who serves what they like.

`attacks.py` holds what they do and what a device must answer. What they can never make a device answer is `EVIL`: that something may run
which people did not release.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]  # their __all__ is computed
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp  # type: ignore[attr-defined]  # the same
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet

from edgewise.engine.resolve import NotRunnable, Resolved, WantedManifest, resolution
from edgewise.ports.files import Files
from edgewise.ports.randomness import Randomness
from edgewise.resources.artifact import ArtifactVersion
from edgewise.trust.repository import RepositoryOptions
from edgewise.trust.rotation import RootChange, rotate_root
from edgewise.trust.verify import FetchMissing, Untrusted, Wanted, trusted_set
from edgewise.twin.kernel import Kernel, Ticket
from edgewise.twin.link import Answered, Broken, Exchange, Outcome, Refused, Request
from edgewise.twin.trust import MANIFEST_BYTES_MAX, TwinRepository, key_from
from edgewise.twin.versions import made_version
from edgewise.wire.desired import ArtifactTarget

__all__ = ["EVIL", "NAMESPACE", "RELEASED", "Adversary", "HostileLink", "Silent", "signer_of"]

RELEASED: Final = "released"
"""The device found what people released under the name that it was asked for, and nothing else."""
EVIL: Final = "evil"
"""The device would run what nobody released. Never."""

_DAY: Final = 86_400.0
_DEADLINE_SECONDS: Final = 30.0
_MORE_THAN_ANY_LIMIT: Final = bytes(6_000_000)
NAMESPACE: Final = "default"
_ARTIFACT: Final = "inspector"
_OPTIONS: Final = RepositoryOptions(root_keys=3, root_threshold=2, release_keys=3, release_threshold=2)

Role = TypeVar("Role", Root, Targets, Snapshot, Timestamp)


class Silent(Exception):
    """Nothing came, or too slowly, until the caller gave up."""


class Adversary:
    """Stands between a device and the repository of its fleet, which has released version 1 of an artifact.

    `served` and `manifests` are what the device gets, by name and digest; `endless` names never end, `silent` names never come. `wanted` is
    what the device is told to run. `now` is the device's time. `states` are the repository as it was after each release. `chance` makes
    all keys."""

    def __init__(self, chance: Randomness, now: float, options: RepositoryOptions = _OPTIONS) -> None:
        self.chance = chance
        self.now = now
        self.repository = TwinRepository(chance, now, options)
        self.root = self.repository.root
        self.keys = self.repository.keys
        self.released: dict[str, ArtifactVersion] = {}
        self.states: list[dict[str, bytes]] = []
        self.endless: set[str] = set()
        self.silent: set[str] = set()
        self.release("1")
        self.honest()
        self.want("1")

    # ---- what people do ----

    def release(self, version: str) -> None:
        """People release a version. Devices are served it only once the adversary lets it through."""
        made = made_version(NAMESPACE, _ARTIFACT, version)
        self.repository.publish(made, self.now)
        self.released[version] = made
        self.states.append(dict(self.repository.files))

    def replace_online_key(self) -> None:
        """People replace the online key, which was stolen, and publish."""
        change = RootChange(online_key=key_from(self.chance))
        root_keys = self.keys.root[: _OPTIONS.root_threshold]
        self.repository.files.update(rotate_root(self.repository.files, root_keys, self.keys.online, change, self.now))

    # ---- what the adversary does ----

    def honest(self) -> None:
        """Serve the repository as it is."""
        self.served = dict(self.repository.files)
        self.manifests = dict(self.repository.manifests)
        self.endless.clear()
        self.silent.clear()

    def want(self, version: str, **changed: object) -> None:
        """Tell the device to run a version that was released, with `changed` fields in what it is told."""
        spec = self.released[version].spec
        target = ArtifactTarget(target=spec.target, digest=spec.digest, length=spec.length, type=spec.manifest.type, variant="fp32")
        self.wanted = msgspec.structs.replace(target, **changed)

    def resign(self, name: str, change: Callable[[Role], object], keys: Sequence[str]) -> bytes:
        """Return a served file with a change made to it, signed by `keys` and nobody else."""
        signed: Role = Metadata[Role].from_bytes(self.served[name]).signed
        change(signed)
        return _signed(signed, keys)

    def slip_in(self, role: str, data: bytes, version: int) -> None:
        """With the online key: serve `data` as the current metadata of a role."""
        self.served[f"{version}.{role}.json"] = data
        self.snapshot_over(lambda metas: metas.update({f"{role}.json": MetaFile.from_data(version, data, ["sha256"])}))

    def snapshot_over(self, change: Callable[[dict[str, MetaFile]], object], step: int = 1) -> None:
        """With the online key: serve a new snapshot over changed roles and a timestamp over it, `step` versions further."""
        snapshot = self.snapshot
        metas = dict(snapshot.meta)
        change(metas)
        version, expires = snapshot.version + step, instant(self.now, 10 * _DAY)
        data = _signed(Snapshot(version=version, expires=expires, meta=metas), [self.keys.online])
        self.served[f"{version}.snapshot.json"] = data
        self.timestamp_over(MetaFile.from_data(version, data, ["sha256"]), step)

    def timestamp_over(self, snapshot: MetaFile, step: int = 1) -> None:
        """With the online key: serve a new timestamp over a snapshot."""
        version = self.timestamp.version + step
        stamp = Timestamp(version=version, expires=instant(self.now, 2 * _DAY), snapshot_meta=snapshot)
        self.served["timestamp.json"] = _signed(stamp, [self.keys.online])

    def name_of(self, role: str) -> str:
        """Return the name of the served file that holds a role of the served snapshot."""
        return f"{self.snapshot.meta[f'{role}.json'].version}.{role}.json"

    @property
    def timestamp(self) -> Timestamp:
        """The served timestamp."""
        return Metadata[Timestamp].from_bytes(self.served["timestamp.json"]).signed

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that the served timestamp names."""
        return Metadata[Snapshot].from_bytes(self.served[f"{self.timestamp.snapshot_meta.version}.snapshot.json"]).signed

    # ---- what the device sees ----

    def get(self, wanted: Wanted | WantedManifest) -> bytes | None:
        """Return what the device gets; None when there is no such file. Raises `Silent`."""
        match wanted:
            case Wanted(name=name, limit=limit):
                found = self.served.get(name)
            case WantedManifest(digest=name, limit=limit):
                found = self.manifests.get(name)
        if name in self.silent:
            raise Silent(name)
        return b" " * (limit + 1) if name in self.endless else found

    def look(self, files: Files, trusting: Callable[[bytes], TrustedMetadataSet] = trusted_set) -> str:
        """Have a device with this disk look for what it is told to run; return `RELEASED`, `EVIL`, the reason of a refusal, `Missing` or
        `Silent`."""
        steps = resolution(files, self.root, self.wanted, {}, self.now, manifest_bytes_max=MANIFEST_BYTES_MAX, trusting=trusting)
        data: bytes | None = None
        try:
            while True:
                data = self.get(steps.send(data))
        except StopIteration as ended:
            return self.judge(ended.value)
        except (Untrusted, NotRunnable) as error:
            return error.reason
        except FetchMissing:
            return "MetadataMissing"
        except Silent:
            return "Unreachable"

    def judge(self, resolved: Resolved) -> str:
        """Tell whether people released this under the name that was asked for."""
        true = next((each.spec.manifest for each in self.released.values() if each.spec.target == self.wanted.target), None)
        return RELEASED if true is not None and resolved.variant in true.variants else EVIL


class HostileLink:
    """The adversary as a device's `Link`, for `repository` and manifests."""

    def __init__(self, kernel: Kernel, adversary: Adversary) -> None:
        self._kernel = kernel
        self._adversary = adversary

    def send(self, request: Request, done: Callable[[Outcome], None]) -> Exchange:
        """See `Link.send`."""
        adversary, name = self._adversary, request.path
        found = (adversary.served if request.purpose == "repository" else adversary.manifests).get(name)
        outcome: Outcome
        if name in adversary.silent:
            return _Answering(self._kernel.after(_DEADLINE_SECONDS, lambda: done(Broken(kind="lost"))))
        if name in adversary.endless:
            outcome = Answered(body=_MORE_THAN_ANY_LIMIT)
        elif found is None:
            outcome = Refused(status=404, reason="NotFound")
        else:
            outcome = Answered(body=found, size=len(found))
        return _Answering(self._kernel.after(0.03, lambda: done(outcome)))


class _Answering:
    def __init__(self, ticket: Ticket) -> None:
        self._ticket = ticket

    def abandon(self) -> None:
        self._ticket.cancel()


def instant(now: float, lifetime: float) -> datetime:
    """Return a time as metadata writes it."""
    return (datetime.fromtimestamp(now, UTC) + timedelta(seconds=lifetime)).replace(microsecond=0)


def signer_of(pem: str) -> CryptoSigner:
    """Return the signer of a key that `key_from` made."""
    key = serialization.load_pem_private_key(pem.encode(), None)
    assert isinstance(key, Ed25519PrivateKey)  # noqa: S101 - see above
    return CryptoSigner(key)


def _signed(signed: Role, keys: Sequence[str]) -> bytes:
    metadata = Metadata(signed)
    for pem in keys:
        metadata.sign(signer_of(pem), append=True)
    return metadata.to_bytes()
