"""Artifact versions that are made up, for stories, for chaos, and for changes that name what the twin has never seen.

Sizes are real, contents are not there: `publish.py` makes small ones where a run installs for real.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from edgewise.resources.artifact import (
    ArtifactType,
    ArtifactVersion,
    ArtifactVersionSpec,
    Command,
    File,
    Manifest,
    Parameter,
    Probe,
    Probes,
    Profile,
    Variant,
    VariantRequirements,
)
from edgewise.resources.meta import Metadata, Scalar

__all__ = ["MODEL_BYTES", "beating", "like", "made_version", "parameters_for", "version_before", "with_parameters"]

MODEL_BYTES: Final = 5_000_000
"""What a made-up model weighs, bytes."""

_SMALLER: Final = 0.28
"""An int8 model's size, as a share of the fp32 one's."""

_FORMS: Final[tuple[tuple[Literal["fp32", "int8"], float, float, float], ...]] = (("fp32", 1.0, 20.0, 0.0), ("int8", _SMALLER, 8.0, 0.005))
"""Precision, share of the size, milliseconds, loss of quality."""

_BUNDLE_PROBES: Final = Probes(
    start=Probe(http_path="/ready", period_seconds=1.0, failure_threshold=60),
    readiness=Probe(http_path="/ready", period_seconds=5.0),
    liveness=Probe(http_path="/live", period_seconds=10.0),
)
_HEARTBEAT: Final = Probe(heartbeat=True, period_seconds=10.0)
_LAST_NUMBER: Final = re.compile(r"^(.*?)(0*[1-9][0-9]*)([^1-9]*)$")


def made_version(
    namespace: str,
    artifact: str,
    version: str,
    *,
    sort: ArtifactType = "model",
    size: int = MODEL_BYTES,
    parameters: Mapping[str, Parameter] | None = None,
    quality: float = 0.95,
) -> ArtifactVersion:
    """Return a made-up version in two variants: `fp32` of `size` bytes and `int8`, smaller, quicker and slightly worse. A model runs
    on the device's model server, anything else brings a command."""
    variants = tuple(
        Variant(
            name=name,
            files=_files(sort, max(1, int(size * share)), namespace, artifact, version, name),
            runtime="onnxruntime" if sort == "model" else "",
            precision=name,
            requirements=VariantRequirements(runtimes={"onnxruntime": "1.16"} if sort == "model" else {}),
            profile=Profile(latency_p50_ms=latency, latency_p95_ms=2 * latency, quality={"accuracy": round(quality - loss, 4)}),
            command=None if sort == "model" else Command(argv=("${python}", "${bundle}/main.py")),
            probes=Probes() if sort == "model" else _BUNDLE_PROBES,
        )
        for name, share, latency, loss in _FORMS
    )
    manifest = Manifest(
        type=sort, namespace=namespace, artifact=artifact, version=version, variants=variants, parameters=dict(parameters or {})
    )
    return _published(manifest)


def beating(known: ArtifactVersion) -> ArtifactVersion:
    """Return a made-up version that is alive as long as it calls the heartbeat."""
    manifest = known.spec.manifest
    variants = tuple(
        msgspec.structs.replace(variant, probes=msgspec.structs.replace(variant.probes, liveness=_HEARTBEAT))
        for variant in manifest.variants
    )
    return _published(msgspec.structs.replace(manifest, variants=variants))


def like(known: ArtifactVersion, version: str) -> ArtifactVersion:
    """Return a made-up version that differs from `known` in nothing but its name and its contents."""
    manifest = known.spec.manifest
    variants = tuple(
        msgspec.structs.replace(
            variant,
            files=tuple(
                msgspec.structs.replace(file, digest=_digest(manifest.namespace, manifest.artifact, version, variant.name, file.path))
                for file in variant.files
            ),
        )
        for variant in manifest.variants
    )
    return _published(msgspec.structs.replace(manifest, version=version, variants=variants))


def with_parameters(known: ArtifactVersion, parameters: Mapping[str, Parameter]) -> ArtifactVersion:
    """Return a made-up version that declares `parameters` too."""
    manifest = known.spec.manifest
    return _published(msgspec.structs.replace(manifest, parameters={**manifest.parameters, **parameters}))


def parameters_for(values: Mapping[str, Scalar]) -> dict[str, Parameter]:
    """Return declarations that `values` satisfy."""
    declared: dict[str, Parameter] = {}
    for name, value in values.items():
        match value:
            case bool():
                declared[name] = Parameter(type="boolean")
            case int() | float():
                declared[name] = Parameter(type="number")
            case _:
                declared[name] = Parameter(type="string")
    return declared


def version_before(version: str) -> str:
    """Return a version that people would take for the one before `version`: its last number that is not 0, less one."""
    found = _LAST_NUMBER.match(version)
    if found is None:
        return f"before-{version}"[:64].rstrip("-._")
    before, number, after = found.groups()
    return f"{before}{int(number) - 1:0{len(number) if number.startswith('0') else 1}d}{after}"


def _published(manifest: Manifest) -> ArtifactVersion:
    body = msgspec.json.encode(manifest)
    spec = ArtifactVersionSpec(
        manifest=manifest,
        target=f"releases/{manifest.namespace}/{manifest.artifact}/{manifest.version}.json",
        digest=f"sha256:{hashlib.sha256(body).hexdigest()}",
        length=len(body),
    )
    return ArtifactVersion(metadata=Metadata(name=f"{manifest.artifact}:{manifest.version}", namespace=manifest.namespace), spec=spec)


def _files(sort: ArtifactType, size: int, *names: str) -> tuple[File, ...]:
    paths = (("model.onnx", size),) if sort == "model" else (("main.py", min(size, 4_000)), ("data.bin", size))
    return tuple(File(path=path, digest=_digest(*names, path), size=length) for path, length in paths)


def _digest(*parts: str) -> str:
    return f"sha256:{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()}"
