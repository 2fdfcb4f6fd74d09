"""From a workload's spec to the immutable template of a revision, and why that may be impossible."""

import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec

from edgewise.delivery.facts import VersionFacts
from edgewise.resources.artifact_rules import parameter_problem
from edgewise.resources.workload import Template, WorkloadSpec

_ENCODER: Final = msgspec.msgpack.Encoder(order="deterministic")
HASH_DIGITS: Final = 12


class Unready(msgspec.Struct, frozen=True, kw_only=True):
    """Why a workload has no revision to run: a condition's reason and message."""

    reason: str
    message: str


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """What a workload's spec refers to, in its namespace. `aliases` are those of its artifact (None: there is no such artifact), `versions`
    its versions by name, `configs` and `secrets` the digests of the contents by name."""

    aliases: Mapping[str, str] | None
    versions: Mapping[str, VersionFacts]
    configs: Mapping[str, str]
    secrets: Mapping[str, str]


def resolve(spec: WorkloadSpec, sources: Sources) -> Template | Unready:
    """Return the template that `spec` means now, or why it means none."""
    reference = spec.artifact
    version = reference.version
    if version is None:
        alias = reference.alias or ""
        if sources.aliases is None:
            return Unready(reason="ArtifactNotFound", message=f"there is no artifact {reference.name}")
        version = sources.aliases.get(alias)
        if version is None:
            known = ", ".join(sorted(sources.aliases)) or "none"
            return Unready(reason="AliasNotFound", message=f"artifact {reference.name} has no alias {alias!r}; it has: {known}")
    facts = sources.versions.get(version)
    if facts is None:
        known = ", ".join(sorted(sources.versions)) or "none"
        return Unready(reason="ArtifactNotFound", message=f"there is no version {version} of artifact {reference.name}; there are: {known}")
    problem = _missing(spec, sources) or _parameters(spec, facts)
    return problem if problem is not None else _template(spec, facts, sources)


def _missing(spec: WorkloadSpec, sources: Sources) -> Unready | None:
    if spec.config is not None and spec.config.name not in sources.configs:
        return Unready(reason="ConfigNotFound", message=f"there is no config {spec.config.name}")
    for secret in spec.secrets:
        if secret.name not in sources.secrets:
            return Unready(reason="SecretNotFound", message=f"there is no secret {secret.name}")
    return None


def _parameters(spec: WorkloadSpec, facts: VersionFacts) -> Unready | None:
    problems = [(name, parameter_problem(name, value, facts.parameters)) for name, value in sorted(spec.parameters.items())]
    wrong = "; ".join(f"parameters.{name}: {problem}" for name, problem in problems if problem is not None)
    return Unready(reason="InvalidParameters", message=wrong) if wrong else None


def _template(spec: WorkloadSpec, facts: VersionFacts, sources: Sources) -> Template:
    return Template(
        artifact=facts.artifact,
        version=facts.version,
        manifest_digest=facts.digest,
        resources=spec.resources,
        peripherals=spec.peripherals,
        parameters=dict(sorted(spec.parameters.items())),
        config=spec.config.name if spec.config is not None else None,
        config_digest=sources.configs[spec.config.name] if spec.config is not None else "",
        secrets=tuple(secret.name for secret in spec.secrets),
        secret_digests=tuple(sources.secrets[secret.name] for secret in spec.secrets),
    )


def template_hash(template: Template) -> str:
    """Return the revision's hash: equal templates are the same revision."""
    return hashlib.sha256(_ENCODER.encode(template)).hexdigest()[:HASH_DIGITS]


def data_digest(data: Mapping[str, str]) -> str:
    """Return what stands for the contents of a config."""
    return "sha256:" + hashlib.sha256(_ENCODER.encode(dict(data))).hexdigest()
