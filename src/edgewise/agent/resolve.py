"""From a target's name to a variant that may run here: signatures, then the manifest, then what was declared. Short-lived process only."""

import hashlib
from collections.abc import Mapping

import msgspec

from edgewise.agent.errors import Refused
from edgewise.agent.http import Client
from edgewise.agent.limits import LIMITS, AgentLimits
from edgewise.resources.artifact import Manifest, Variant
from edgewise.resources.artifact_rules import manifest_problems, parameter_problem
from edgewise.resources.meta import Scalar
from edgewise.trust.verify import FetchMissing, Untrusted, verified_target
from edgewise.wire.desired import ArtifactTarget

_NOT_FOUND = 404


class NotRunnable(Exception):
    """Signed, but it cannot run here as asked. `reason` is one CamelCase word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """What the signatures vouch for. `parameters` are complete: defaults filled in."""

    variant: Variant
    parameters: dict[str, Scalar]


class Resolver:
    """Believes the pinned `root` and nothing else. `cache` is a folder for the repository's metadata; `now` the time to judge it by."""

    def __init__(self, client: Client, root: bytes, cache: str, now: float, limits: AgentLimits = LIMITS) -> None:
        self._client = client
        self._root = root
        self._cache = cache
        self._now = now
        self._limits = limits

    def resolve(self, artifact: ArtifactTarget, parameters: Mapping[str, Scalar]) -> Resolved:
        """Return what `artifact` stands for. Raises `Untrusted`, `NotRunnable`, `LinkError`, and `OSError` for the cache's disk."""
        digest, length = verified_target(self._cache, self._root, self._metadata, artifact.target, self._now)
        if digest != artifact.digest:
            raise Untrusted("Mismatch", f"{artifact.target} was signed as {digest}, but {artifact.digest} is asked for")
        if length > self._limits.manifest_bytes_max:
            raise NotRunnable("ManifestTooLarge", f"the manifest has {length} bytes, the limit is {self._limits.manifest_bytes_max}")
        data = self._manifest(digest, length)
        manifest = _read(data, artifact)
        variant = next((each for each in manifest.variants if each.name == artifact.variant), None)
        if variant is None:
            known = ", ".join(each.name for each in manifest.variants)
            raise NotRunnable("NoSuchVariant", f"{artifact.target} has no variant {artifact.variant!r}; it has: {known}")
        return Resolved(variant=variant, parameters=_complete(manifest, parameters))

    def _metadata(self, name: str, limit: int) -> bytes:
        try:
            return self._client.request("GET", f"/v1/repository/{name}", body_limit=limit).body
        except Refused as error:
            if error.status == _NOT_FOUND:
                raise FetchMissing(name) from error
            raise

    def _manifest(self, digest: str, length: int) -> bytes:
        data = self._client.request("GET", f"/v1/blobs/{digest}", body_limit=self._limits.manifest_bytes_max).body
        if len(data) != length or f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise Untrusted("Mismatch", f"the manifest that was served is not {digest}")
        return data


def _read(data: bytes, artifact: ArtifactTarget) -> Manifest:
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
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
