"""Artifact versions as a run serves them: their manifests, sizes and, where installs are real, small contents made from their names."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Final, Literal

import msgspec

from edgewise.resources.artifact import ArtifactVersion, File, Manifest, Variant

__all__ = ["Published", "contents_of"]

_SMALL_BYTES: Final = 600


def contents_of(label: str, size: int) -> bytes:
    """Return `size` bytes that depend on nothing but `label`."""
    block = hashlib.sha256(label.encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Published:
    """What the control plane serves of artifact versions. A `device.Contents`. `install` is the profile's; `release` signs what is
    added, where signatures are verified."""

    def __init__(self, install: Literal["real", "modelled"], release: Callable[[ArtifactVersion], None] | None = None) -> None:
        self._release = release
        self._real = install == "real"
        # What was published for real may have been written in another way: a signature is checked against the bytes that the run has.
        self._digested = self._real or release is not None
        self._manifests: dict[str, Manifest] = {}
        self._contents: dict[str, bytes] = {}
        self._sizes: dict[str, int] = {}
        self._names: dict[str, tuple[str, str, str]] = {}
        self.files: dict[str, bytes] = {}
        """The manifests' bytes, by their path in the signed repository."""

    def add(self, version: ArtifactVersion) -> ArtifactVersion:
        """Serve a version; return it as it is to be put into the store. Where installs are real its files are small ones, made for the
        run."""
        manifest = version.spec.manifest
        if self._real:
            manifest = msgspec.structs.replace(manifest, variants=tuple(self._small(variant, manifest) for variant in manifest.variants))
        else:
            for variant in manifest.variants:
                for file in variant.files:
                    self._sizes[file.digest] = file.size
        body = msgspec.json.encode(manifest, order="deterministic")
        digest = _digest(body) if self._digested else version.spec.digest
        length = len(body) if self._digested else version.spec.length
        self._manifests[digest] = manifest
        self._names[digest] = (manifest.namespace, manifest.artifact, manifest.version)
        self._sizes[digest] = length
        self._contents[digest] = body
        self.files[version.spec.target] = body
        spec = msgspec.structs.replace(version.spec, manifest=manifest, digest=digest, length=length)
        added = msgspec.structs.replace(version, spec=spec)
        if self._release is not None:
            self._release(added)
        return added

    def _small(self, variant: Variant, manifest: Manifest) -> Variant:
        return msgspec.structs.replace(variant, files=tuple(self._small_file(file, variant, manifest) for file in variant.files))

    def _small_file(self, file: File, variant: Variant, manifest: Manifest) -> File:
        label = f"{manifest.namespace}/{manifest.artifact}:{manifest.version}/{variant.name}/{file.path}/{file.digest}"
        data = contents_of(label, min(file.size, _SMALL_BYTES))
        digest = _digest(data)
        self._contents[digest] = data
        self._sizes[digest] = len(data)
        return msgspec.structs.replace(file, digest=digest, size=len(data))

    # ---- device.Contents ----

    def manifest(self, digest: str) -> Manifest | None:
        """Return the manifest with this digest."""
        return self._manifests.get(digest)

    def content(self, digest: str) -> bytes:
        """Return a file's or a manifest's bytes. Raises `KeyError` for what was not published, or exists in name only."""
        return self._contents[digest]

    # ---- the control plane ----

    def size(self, digest: str) -> int | None:
        """Return what a blob weighs, or None."""
        return self._sizes.get(digest)

    @property
    def manifests(self) -> Mapping[str, Manifest]:
        """All manifests by digest."""
        return self._manifests
