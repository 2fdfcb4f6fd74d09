"""The signed repository in the twin: made for a run, and verified on simulated devices by the product's own code.

Nothing about the signatures is modelled: keys are Ed25519 keys from the run's seed, and devices verify with `trust/verify.py`, over their
simulated disk and link, in virtual time. What makes it quick is that reading a file and checking a signature are pure functions, so that
`SharedChecks` does them once for all devices of a run; expiry, versions and what fits together are judged for every device anew.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import Signature, SSlibKey  # type: ignore[attr-defined]  # their __all__ is computed
from tuf.api.metadata import Delegations, Root, Signed, Targets  # type: ignore[attr-defined]  # their __all__ is computed
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from edgewise.engine.identity import ROOT_PATH
from edgewise.engine.resolve import Resolution, Resolved, WantedManifest, resolution
from edgewise.ports.files import Files
from edgewise.ports.randomness import Randomness
from edgewise.resources.artifact import ArtifactVersion
from edgewise.resources.meta import Scalar
from edgewise.trust.repository import (
    RepositoryOptions,
    accept_delegated,
    add_release,
    cosign,
    create_repository,
    delegated_metadata,
    refresh_timestamp,
)
from edgewise.trust.verify import trusted_set
from edgewise.twin.fetching import Resolve
from edgewise.wire.desired import ArtifactTarget

__all__ = ["SharedChecks", "TwinRepository", "digest_of", "key_from", "verifying"]

MANIFEST_BYTES_MAX: Final = 4 * 1024 * 1024
"""As in `AgentLimits`."""
_ROOT_BYTES_MAX: Final = 512_000
_KEPT_MAX: Final = 10_000
"""Files and signatures that `SharedChecks` remembers; beyond it begins anew, which costs time and changes nothing."""


def key_from(chance: Randomness) -> str:
    """Return an Ed25519 private key from the run's randomness, PEM. It guards nothing."""
    key = Ed25519PrivateKey.from_private_bytes(chance.token(32))
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def digest_of(data: bytes) -> str:
    """Return `sha256:…` of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class TwinRepository:
    """A run's signed repository and all its keys, with the product's roles and delegations. `files` are what the control plane serves,
    `root` what a joining device pins, `manifests` what was released, by digest. `now` is the true wall clock."""

    def __init__(self, chance: Randomness, now: float, options: RepositoryOptions | None = None) -> None:
        self.files, self.keys = create_repository(now, options or RepositoryOptions(), lambda: key_from(chance))
        self.root = self.files["1.root.json"]
        self.threshold = (options or RepositoryOptions()).release_threshold
        self.manifests: dict[str, bytes] = {}

    def publish(self, version: ArtifactVersion, now: float) -> None:
        """Sign and publish a version, as an operator and the control plane do together. Raises `ValueError` when its digest is not that of
        its manifest."""
        spec = version.spec
        for body in (msgspec.json.encode(spec.manifest, order="deterministic"), msgspec.json.encode(spec.manifest)):
            if spec.digest == digest_of(body):
                self.manifests[spec.digest] = body
                self.release(spec.target, spec.digest, len(body), now)
                return
        raise ValueError(f"{version.metadata.name} is not what its digest says")

    def release(self, target: str, digest: str, length: int, now: float) -> None:
        """Sign and publish a target. Raises `MetadataRefused`."""
        first, *others = self.keys.releases[: self.threshold]
        metadata = add_release(delegated_metadata(self.files), target, digest, length, first, now)
        for key in others:
            metadata = cosign(metadata, key)
        self.files.update(accept_delegated(self.files, "releases", metadata, self.keys.online, now))

    def keep_fresh(self, now: float) -> None:
        """Sign the online roles again where they are due, as the control plane does every few hours."""
        self.files.update(refresh_timestamp(self.files, self.keys.online, now))

    def file(self, name: str) -> bytes | None:
        """Return what the control plane serves under a name."""
        return self.files.get(name)


class SharedChecks:
    """Reads each file and checks each signature once for all devices. What comes out is what comes out without it: both are functions of
    the bytes and the keys alone."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, bytes], _Read] = {}
        self._verified: set[tuple[str, str, bytes]] = set()

    def trusting(self, root: bytes) -> TrustedMetadataSet:
        """Return a set of trusted metadata over a pinned root, for `resolution`. Raises `RepositoryError`."""
        return _SharedSet(root, self)

    def read(self, role: type[Signed], data: bytes, load: "_Load") -> "_Read":
        """Return what `load` makes of a file, with keys that remember."""
        known = self._read.get((role.type, data))
        if known is None:
            known = load(role, data)
            delegator = known[0].delegations if isinstance(known[0], Targets) else known[0]
            if isinstance(delegator, Root | Delegations):
                delegator.keys = {
                    keyid: _SharedKey(key, self) if isinstance(key, SSlibKey) else key for keyid, key in delegator.keys.items()
                }
            if len(self._read) >= _KEPT_MAX:
                self._read.clear()
            self._read[role.type, data] = known
        return known

    def verify(self, key: SSlibKey, signature: Signature, data: bytes) -> None:
        """Check a signature. Raises `UnverifiedSignatureError`."""
        known = (key.keyval["public"], signature.signature, data)
        if known not in self._verified:
            SSlibKey.verify_signature(key, signature, data)
            if len(self._verified) >= _KEPT_MAX:
                self._verified.clear()
            self._verified.add(known)


_Read = tuple[Signed, bytes, dict[str, Signature]]
_Load = Callable[..., _Read]


class _SharedKey(SSlibKey):
    """A key that checks a signature once."""

    def __init__(self, key: SSlibKey, checks: SharedChecks) -> None:
        super().__init__(key.keyid, key.keytype, key.scheme, key.keyval, key.unrecognized_fields)
        self._checks = checks

    def verify_signature(self, signature: Signature, data: bytes) -> None:
        """See `Key.verify_signature`."""
        self._checks.verify(self, signature, data)


class _SharedSet(TrustedMetadataSet):
    """python-tuf's set of trusted metadata, which reads files through `SharedChecks`."""

    def __init__(self, root: bytes, checks: SharedChecks) -> None:
        self._checks = checks
        super().__init__(root, EnvelopeType.METADATA)

    def _load_trusted_root(self, data: bytes) -> None:
        load = self._load_data

        def shared(role: type[Signed], data: bytes, delegator: Root | Targets | None = None, role_name: str | None = None) -> _Read:
            signed, payload, signatures = self._checks.read(role, data, load)
            if delegator is not None:
                delegator.verify_delegate(role_name or role.type, payload, signatures)
            return signed, payload, signatures

        self._load_data = shared  # type: ignore[assignment]  # theirs is generic in the role
        super()._load_trusted_root(data)


def verifying(
    manifests: Mapping[str, bytes], checks: SharedChecks | None = None, *, manifest_bytes_max: int = MANIFEST_BYTES_MAX
) -> Resolve:
    """Return a `Resolve` for devices that verify: each believes the root that it pinned when it joined, which is on its disk. `manifests`
    are those, by digest, whose bytes a link does not carry."""
    trusting = checks.trusting if checks is not None else trusted_set

    def resolve(files: Files, artifact: ArtifactTarget, parameters: Mapping[str, Scalar], now: float) -> Resolution:
        root = files.read(ROOT_PATH, _ROOT_BYTES_MAX)
        steps = resolution(files, root, artifact, parameters, now, manifest_bytes_max=manifest_bytes_max, trusting=trusting)
        data: bytes | None = None
        while True:
            try:
                wanted = steps.send(data)
            except StopIteration as ended:
                resolved: Resolved = ended.value
                return resolved
            data = yield wanted
            if data == b"" and isinstance(wanted, WantedManifest):
                data = manifests.get(wanted.digest)

    return resolve
