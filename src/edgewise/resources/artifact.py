"""A named line of things to run, and its immutable, signed versions."""

from typing import Annotated, Literal

import msgspec

from edgewise.resources.meta import ApiVersion, Digest, Metadata, Name, Version
from edgewise.resources.quantity import Quantity

ArtifactType = Literal["model", "bundle", "wasm", "image"]
ParameterType = Literal["string", "integer", "number", "boolean"]
Precision = Literal["fp32", "fp16", "bf16", "int8", "int4", "mixed", ""]


class File(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """One regular file of a variant. `path` is relative, with `/`, without `.` or `..` parts. `mode` is 0o644 or 0o755. `size` in
    bytes."""

    path: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    digest: Digest
    size: Annotated[int, msgspec.Meta(ge=0)]
    mode: Literal[0o644, 0o755] = 0o644


class Command(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """What runs: an argument vector, never a shell string. `${python}` stands for the device's interpreter and `${bundle}` for the
    installed
    files; nothing else is replaced."""

    argv: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    environment: dict[str, str] = {}


class Probe(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """How to ask whether an instance is well: exactly one of `http_path` (GET on the instance's own socket, 2xx or 3xx is well),
    `command`
    (exit status 0) or `heartbeat` (the workload must have called the local API within `period_seconds`)."""

    http_path: str | None = None
    command: Command | None = None
    heartbeat: bool = False
    period_seconds: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 10.0
    timeout_seconds: Annotated[float, msgspec.Meta(gt=0, le=600)] = 2.0
    failure_threshold: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 3


class Probes(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """`start` must succeed once before the others count; `readiness` gates traffic and commits; `liveness` restarts."""

    start: Probe | None = None
    readiness: Probe | None = None
    liveness: Probe | None = None


class Parameter(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """A parameter that a workload may set. Bounds are inclusive."""

    type: ParameterType = "string"
    default: str | int | float | bool | None = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    description: str = ""


class VariantRequirements(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """What a device must have for a variant. `runtimes` maps a runtime to its least version."""

    architectures: tuple[str, ...] = ()
    runtimes: dict[str, str] = {}
    memory: Quantity = 0
    disk: Quantity = 0
    accelerator: str = ""


class Profile(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """What was measured of a variant. Latencies in milliseconds, memory and size in bytes; `quality` maps a metric to its value."""

    latency_p50_ms: float | None = None
    latency_p95_ms: float | None = None
    peak_memory: int | None = None
    quality: dict[str, float] = {}
    measured_on: str = ""


class Variant(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """One form of an artifact version, for one sort of device. Models leave `command` empty: the device's model server runs them."""

    name: Name
    files: Annotated[tuple[File, ...], msgspec.Meta(min_length=1)]
    runtime: str = ""
    precision: Precision = ""
    requirements: VariantRequirements = VariantRequirements()
    profile: Profile = Profile()
    command: Command | None = None
    probes: Probes = Probes()


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """What is signed of an artifact version: every byte that a device may run and every command it may be told to run, by digest."""

    type: ArtifactType
    namespace: Name
    artifact: Name
    version: Version
    variants: Annotated[tuple[Variant, ...], msgspec.Meta(min_length=1)]
    parameters: dict[str, Parameter] = {}
    manifest_version: Literal[1] = 1


class ArtifactSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """A line of versions. `aliases` maps a name such as `champion` to a version."""

    type: ArtifactType = "model"
    aliases: dict[str, Version] = {}
    description: str = ""


class ArtifactStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What was seen of a line of versions."""

    observed_generation: int = 0
    latest: str = ""


class Artifact(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="kind", tag="Artifact", forbid_unknown_fields=True):
    """A named line of things to run."""

    metadata: Metadata
    api_version: ApiVersion = "edgewise/v1alpha1"
    spec: ArtifactSpec = ArtifactSpec()
    status: ArtifactStatus = ArtifactStatus()


class ArtifactVersionSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """A published version. `target` is its path in the signed repository (`releases/NAMESPACE/ARTIFACT/VERSION.json`); `digest` and
    `length`
    are those of the manifest's bytes there."""

    manifest: Manifest
    target: str
    digest: Digest
    length: int


class ArtifactVersionStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What was seen of a version."""

    observed_generation: int = 0
    size: int = 0


class ArtifactVersion(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="kind", tag="ArtifactVersion", forbid_unknown_fields=True
):
    """An immutable, signed version, named ARTIFACT:VERSION."""

    metadata: Metadata
    spec: ArtifactVersionSpec
    api_version: ApiVersion = "edgewise/v1alpha1"
    status: ArtifactVersionStatus = ArtifactVersionStatus()
