"""The signed repository in the twin: made for a run, and verified on simulated devices by the product's own code.

Nothing about the signatures is modelled: keys are Ed25519 keys from the run's seed, and devices verify with `trust/verify.py`, over their
simulated disk and link, in virtual time. What makes it quick is that reading a file and checking a signature are pure functions, so that
`SharedChecks` does them once for all devices of a run; expiry, versions and what fits together are judged for every device anew.
"""

import hashlib
from collections.abc import Callable
from typing import Final

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import Signature, SSlibKey  # type: ignore[attr-defined]  # their __all__ is computed
from tuf.api.metadata import Delegations, Root, Signed, Targets  # type: ignore[attr-defined]  # their __all__ is computed
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from edgewise.engine.install import failed
from edgewise.engine.protocol import Failed
from edgewise.engine.resolve import NotRunnable, Resolution, Resolved, WantedManifest, unresolved
from edgewise.ports.files import FilesError
from edgewise.ports.randomness import Randomness
from edgewise.resources.artifact import ArtifactVersion
from edgewise.trust.repository import (
    RepositoryOptions,
    accept_delegated,
    add_release,
    cosign,
    create_repository,
    delegated_metadata,
    refresh_timestamp,
)
from edgewise.trust.verify import FetchMissing, Untrusted, Wanted
from edgewise.twin.kernel import Kernel
from edgewise.twin.link import Answered, Broken, Exchange, Link, Outcome, Refused, Request

__all__ = ["Resolving", "SharedChecks", "TwinRepository", "digest_of", "key_from"]

_NOT_FOUND: Final = 404
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

    def answer(self, request: Request) -> Answered | Refused:
        """Answer a request for a file of the repository or for a manifest."""
        found = self.files.get(request.path) if request.purpose == "repository" else self.manifests.get(request.path)
        return Refused(status=_NOT_FOUND, reason="NotFound") if found is None else Answered(body=found, size=len(found))


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


class Resolving:
    """One device's `resolution` over its link. `asks` says who asks. `done` is called once, never from within the constructor, unless it is
    abandoned: with what may run, or with what the engine is told."""

    def __init__(self, kernel: Kernel, link: Link, asks: Request, steps: Resolution, done: Callable[[Resolved | Failed], None]) -> None:
        self._link = link
        self._asks = asks
        self._steps = steps
        self._done = done
        self._limit = 0
        self._begins = kernel.after(0.0, lambda: self._go_on(None))
        self._exchange: Exchange | None = None

    def abandon(self) -> None:
        """End it: `done` is not called any more."""
        self._begins.cancel()
        if self._exchange is not None:
            self._exchange.abandon()
        self._steps.close()

    def _go_on(self, data: bytes | None) -> None:
        try:
            wanted = self._steps.send(data)
        except StopIteration as ended:
            self._done(ended.value)
        except (Untrusted, NotRunnable, FetchMissing) as error:
            self._done(unresolved(error))
        except FilesError as error:
            self._done(failed(error))
        else:
            self._ask(wanted)

    def _ask(self, wanted: Wanted | WantedManifest) -> None:
        match wanted:
            case Wanted(name=name, limit=limit):
                request = msgspec.structs.replace(self._asks, purpose="repository", path=name)
            case WantedManifest(digest=name, limit=limit):
                request = msgspec.structs.replace(self._asks, purpose="blob", path=name)
        self._limit = limit
        self._exchange = self._link.send(request, self._answered)

    def _answered(self, outcome: Outcome) -> None:
        match outcome:
            case Answered() if max(len(outcome.body), outcome.size) > self._limit:
                self._end("ProtocolBroken", f"the answer has more than {self._limit} bytes")
            case Answered():
                self._go_on(outcome.body)
            case Refused(status=404):
                self._go_on(None)
            case Refused():
                self._end("Refused", f"the control plane answers {outcome.status} {outcome.reason}")
            case Broken():
                self._end("Unreachable" if outcome.kind == "lost" else "ProtocolBroken", f"the connection was {outcome.kind}")

    def _end(self, reason: str, message: str) -> None:
        self._steps.close()
        self._done(Failed(kind="transient", reason=reason, message=message))
