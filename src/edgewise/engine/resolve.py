"""From a target's name to a variant that may run here: signatures, then the manifest, then what was declared. Short-lived process only:
the resident agent never loads this.

`resolution` asks for what it needs and is sent it, so that a device and its twin run the same code over different networks.
"""

import hashlib
from collections.abc import Callable, Generator, Mapping

import msgspec
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet

from edgewise.engine.protocol import Failed
from edgewise.ports.files import Files
from edgewise.resources.artifact import Manifest, Variant
from edgewise.resources.artifact_rules import manifest_problems, parameter_problem
from edgewise.resources.decoding import UNREADABLE
from edgewise.resources.meta import Scalar
from edgewise.trust.verify import FetchMissing, Untrusted, Wanted, trusted_set, verification
from edgewise.wire.desired import ArtifactTarget


class NotRunnable(Exception):
    """Signed, but it cannot run here as asked. `reason` is one CamelCase word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """What the signatures vouch for. `parameters` are complete: defaults filled in."""

    variant: Variant
    parameters: dict[str, Scalar]


class WantedManifest(msgspec.Struct, frozen=True):
    """A manifest that is asked for by its digest, and how many bytes it may have."""

    digest: str
    limit: int


Resolution = Generator[Wanted | WantedManifest, bytes | None, Resolved]
"""Asks for files and is sent each one's bytes; None when whoever was asked has no such file."""


def resolution(
    files: Files,
    root: bytes,
    artifact: ArtifactTarget,
    parameters: Mapping[str, Scalar],
    now: float,
    *,
    manifest_bytes_max: int,
    trusting: Callable[[bytes], TrustedMetadataSet] = trusted_set,
) -> Resolution:
    """Find out what `artifact` stands for, believing the pinned `root` and nothing else. `files` caches the repository's metadata; `now` is
    the time to judge it by. Raises `Untrusted`, `NotRunnable`, `FetchMissing`, and `FilesError` when the cache cannot be written."""
    digest, length = yield from verification(files, root, artifact.target, now, trusting=trusting)
    if digest != artifact.digest:
        raise Untrusted("Mismatch", f"{artifact.target} was signed as {digest}, but {artifact.digest} is asked for")
    if length > manifest_bytes_max:
        raise NotRunnable("ManifestTooLarge", f"the manifest has {length} bytes, the limit is {manifest_bytes_max}")
    data = yield WantedManifest(digest, manifest_bytes_max)
    if data is None:
        raise FetchMissing(digest)
    if len(data) != length or f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
        raise Untrusted("Mismatch", f"the manifest that was served is not {digest}")
    manifest = _read(data, artifact)
    variant = next((each for each in manifest.variants if each.name == artifact.variant), None)
    if variant is None:
        known = ", ".join(each.name for each in manifest.variants)
        raise NotRunnable("NoSuchVariant", f"{artifact.target} has no variant {artifact.variant!r}; it has: {known}")
    return Resolved(variant=variant, parameters=_complete(manifest, parameters))


def unresolved(error: Untrusted | NotRunnable | FetchMissing) -> Failed:
    """Return what the engine is told of an error of `resolution`."""
    match error:
        case Untrusted():
            return Failed(kind="untrusted", reason=error.reason, message=str(error))
        case NotRunnable():
            return Failed(kind="invalid", reason=error.reason, message=str(error))
        case FetchMissing():
            return Failed(kind="transient", reason="MetadataMissing", message=f"the control plane has no {error}")


def _read(data: bytes, artifact: ArtifactTarget) -> Manifest:
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except UNREADABLE as error:
        raise NotRunnable("ManifestUnreadable", f"{artifact.target}: {error}") from error
    problems = manifest_problems(manifest)
    if problems:
        raise NotRunnable("ManifestInvalid", f"{artifact.target}: {problems[0]}")
    path = f"{manifest.namespace}/{manifest.artifact}/{manifest.version}.json"
    if artifact.target.partition("/")[2] != path:
        raise Untrusted("Mismatch", f"{artifact.target} holds the manifest of {path}")
    if manifest.type != artifact.type:
        raise NotRunnable("WrongType", f"{artifact.target} is a {manifest.type}, not a {artifact.type}")
    return manifest


def _complete(manifest: Manifest, parameters: Mapping[str, Scalar]) -> dict[str, Scalar]:
    for name, value in parameters.items():
        problem = parameter_problem(name, value, manifest.parameters)
        if problem is not None:
            raise NotRunnable("ParameterRefused", f"parameter {name}: {problem}")
    defaults = {name: declared.default for name, declared in manifest.parameters.items() if declared.default is not None}
    return {**defaults, **parameters}
