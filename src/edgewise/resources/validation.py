"""The rules that span several fields, which the types alone cannot say.

Pure: the same rules hold where a person's file is read and where the control plane takes it. `problems` judges a resource that a person
wrote, `manifest_problems` what is about to be signed (see `artifact_rules.py`).
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Final, assert_never

from edgewise.resources._rules import LIMITS, NAME, ValidationLimits, exactly_one, unique
from edgewise.resources.artifact import Artifact, ArtifactVersion
from edgewise.resources.artifact_rules import file_path_problem, manifest_problems, manifest_rules, parameter_name_rules, parameter_problem
from edgewise.resources.config import Config, Secret
from edgewise.resources.device import Agent, Device
from edgewise.resources.errors import Problem
from edgewise.resources.instance import Instance
from edgewise.resources.kinds import BY_TYPE, Resource
from edgewise.resources.quantity import milli, seconds
from edgewise.resources.rollout import Rollout
from edgewise.resources.selector import RUNTIME, Requirement, Selector
from edgewise.resources.site import Site
from edgewise.resources.strategy_rules import strategy_rules
from edgewise.resources.version import version_key
from edgewise.resources.workload import Workload, WorkloadRevision, WorkloadSpec

__all__ = ["LIMITS", "ValidationLimits", "file_path_problem", "label_problem", "manifest_problems", "parameter_problem", "problems"]

BUILT_IN_LABELS: Final = frozenset({"site", "class", "device"})
"""Selectors see these on every device; a person cannot set them as labels."""

_LABEL_KEY: Final = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_COMPARISONS: Final = frozenset({"Gt", "Lt", "Ge", "Le"})


def problems(resource: Resource, limits: ValidationLimits = LIMITS) -> tuple[Problem, ...]:
    """Return everything that is wrong with `resource` beyond what its type already refuses; empty when it is well."""
    return (*_metadata(resource, limits), *_spec(resource, limits))


def _spec(resource: Resource, limits: ValidationLimits) -> Iterator[Problem]:
    match resource:
        case Workload():
            yield from _workload(resource.spec)
        case Artifact():
            yield from _aliases(resource)
        case ArtifactVersion():
            yield from _version(resource, limits)
        case Config():
            yield from _data(resource.spec.data, limits)
        case Secret():
            yield from _data(resource.spec.data, limits)
            if resource.spec.encrypted or resource.spec.digest:
                yield Problem(path="spec.encrypted", message="is set by the control plane", hint="put the secret settings into spec.data")
        case Device():
            yield from _device(resource)
        case Site():
            yield from _site(resource)
        case Agent() | Instance() | Rollout() | WorkloadRevision():
            return
        case _:
            assert_never(resource)


# ---- metadata ----


def _metadata(resource: Resource, limits: ValidationLimits) -> Iterator[Problem]:
    meta, kind = resource.metadata, BY_TYPE[type(resource)]
    if kind.type is not ArtifactVersion and not NAME.fullmatch(meta.name):
        yield Problem(
            path="metadata.name", message=f"{meta.name!r} is not a name", hint="a version behind ':' names artifact versions only"
        )
    if not kind.namespaced and meta.namespace:
        yield Problem(path="metadata.namespace", message=f"a {kind.name} belongs to no namespace", hint="remove this line")
    if kind.namespaced and meta.namespace and not NAME.fullmatch(meta.namespace):
        yield Problem(path="metadata.namespace", message=f"{meta.namespace!r} is not a name: lower-case letters, digits, '-' and '.'")
    if len(meta.labels) > limits.labels_max:
        yield Problem(path="metadata.labels", message=f"{len(meta.labels)} labels, at most {limits.labels_max} are allowed")
    for key, value in meta.labels.items():
        yield from _label(f"metadata.labels.{key}", key, value)
    size = sum(len(key.encode()) + len(value.encode()) for key, value in meta.annotations.items())
    if size > limits.annotation_bytes_max:
        yield Problem(path="metadata.annotations", message=f"{size} bytes, at most {limits.annotation_bytes_max} are allowed")


def _label(path: str, key: str, value: str) -> Iterator[Problem]:
    if not _LABEL_KEY.fullmatch(key):
        yield Problem(path=path, message=f"{key!r} is not a label name: letters, digits, '-', '_' and '.', at most 63 characters")
    if not _LABEL_VALUE.fullmatch(value):
        yield Problem(path=path, message=f"{value!r} is not a label value: letters, digits, '-', '_' and '.', at most 63 characters")


def label_problem(key: str, value: str) -> str | None:
    """Return what is wrong with the label `key=value` of a device, or None."""
    if key in BUILT_IN_LABELS:
        return f"{key!r} is built in and cannot be set as a label"
    return next((problem.message for problem in _label(key, key, value)), None)


# ---- workloads ----


def _workload(spec: WorkloadSpec) -> Iterator[Problem]:
    reference, placement = spec.artifact, spec.placement
    yield from exactly_one("spec.artifact", {"version": reference.version is not None, "alias": reference.alias is not None})
    if reference.alias is not None and not NAME.fullmatch(reference.alias):
        yield Problem(path="spec.artifact.alias", message=f"{reference.alias!r} is not a name: lower-case letters, digits, '-' and '.'")
    chosen = {"everyMatchingDevice": placement.every_matching_device is not None, "replicas": placement.replicas is not None}
    yield from exactly_one("spec.placement", chosen)
    yield from _selector("spec.placement.selector", placement.selector)
    for field, quantity in (("memory", spec.resources.memory), ("cpu", spec.resources.cpu)):
        if quantity is not None and not _positive(quantity):
            yield Problem(path=f"spec.resources.{field}", message="must be more than 0")
    yield from unique("spec.peripherals", "name", (peripheral.name for peripheral in spec.peripherals))
    yield from unique("spec.secrets", "name", (secret.name for secret in spec.secrets))
    for name, value in spec.parameters.items():
        yield from parameter_name_rules(f"spec.parameters.{name}", name)
        if isinstance(value, float) and not math.isfinite(value):
            yield Problem(path=f"spec.parameters.{name}", message=f"{value} is not a finite number")
    yield from strategy_rules("spec.strategy", spec.strategy)
    # An exclusive copy must notice the silence, and stop, well within that time.
    least = 5 if spec.disconnect.exclusive else 1
    if seconds(spec.disconnect.lost_after) < least:
        yield Problem(path="spec.disconnect.lostAfter", message=f"must be at least {least}s")


def _selector(path: str, selector: Selector) -> Iterator[Problem]:
    for index, requirement in enumerate(selector.match_expressions):
        yield from _requirement(f"{path}.matchExpressions[{index}]", requirement)
    for key in selector.match_labels:
        if not key:
            yield Problem(path=f"{path}.matchLabels", message="a label's name must not be empty")


def _requirement(path: str, requirement: Requirement) -> Iterator[Problem]:
    operator, values = requirement.operator, requirement.values
    if not requirement.key:
        yield Problem(path=f"{path}.key", message="must not be empty")
    if operator in {"In", "NotIn"} and not values:
        yield Problem(path=f"{path}.values", message=f"{operator} needs at least one value")
    elif operator in {"Exists", "DoesNotExist"} and values:
        yield Problem(path=f"{path}.values", message=f"{operator} takes no values", hint="remove this line")
    elif operator in _COMPARISONS and len(values) != 1:
        yield Problem(path=f"{path}.values", message=f"{operator} takes exactly one value")
    elif operator in _COMPARISONS and requirement.key.startswith(RUNTIME):
        if not version_key(values[0]):
            yield Problem(path=f"{path}.values[0]", message=f"{values[0]!r} is not a version such as 1.20 or 8.6.2")
    elif operator in _COMPARISONS and not _quantity(values[0]):
        yield Problem(path=f"{path}.values[0]", message=f"{values[0]!r} is not a quantity such as 512Mi or 500m")


# ---- artifacts ----


def _aliases(artifact: Artifact) -> Iterator[Problem]:
    for alias in artifact.spec.aliases:
        if not NAME.fullmatch(alias):
            yield Problem(path=f"spec.aliases.{alias}", message=f"{alias!r} is not a name: lower-case letters, digits, '-' and '.'")


def _version(resource: ArtifactVersion, limits: ValidationLimits) -> Iterator[Problem]:
    spec, manifest = resource.spec, resource.spec.manifest
    if resource.metadata.name != f"{manifest.artifact}:{manifest.version}":
        yield Problem(path="metadata.name", message=f"must be {manifest.artifact}:{manifest.version}, as the manifest says")
    if resource.metadata.namespace not in {"", manifest.namespace}:
        yield Problem(path="metadata.namespace", message=f"must be {manifest.namespace}, as the manifest says")
    target = f"releases/{manifest.namespace}/{manifest.artifact}/{manifest.version}.json"
    if spec.target != target:
        yield Problem(path="spec.target", message=f"must be {target}")
    yield from manifest_rules(manifest, "spec.manifest.", limits)


# ---- the others ----


def _device(device: Device) -> Iterator[Problem]:
    for key in sorted(BUILT_IN_LABELS & device.metadata.labels.keys()):
        hint = {"site": "set spec.site", "class": "set spec.deviceClass"}.get(key, "a device's name is its label already")
        yield Problem(path=f"metadata.labels.{key}", message="is built in and cannot be set as a label", hint=hint)
    for field, name in (("site", device.spec.site), ("deviceClass", device.spec.device_class), ("agent", device.spec.agent)):
        if name and not NAME.fullmatch(name):
            yield Problem(path=f"spec.{field}", message=f"{name!r} is not a name: lower-case letters, digits, '-' and '.'")


def _site(site: Site) -> Iterator[Problem]:
    if not re.fullmatch(r"[A-Za-z0-9_+-]{1,64}(/[A-Za-z0-9_+-]{1,64}){0,2}", site.spec.time_zone):
        yield Problem(path="spec.timeZone", message=f"{site.spec.time_zone!r} is not a time zone such as Europe/Berlin")
    if site.spec.failover_domain and not NAME.fullmatch(site.spec.failover_domain):
        yield Problem(
            path="spec.failoverDomain", message=f"{site.spec.failover_domain!r} is not a name: lower-case letters, digits, '-', '.'"
        )
    if site.spec.link.bandwidth is not None and not _positive(site.spec.link.bandwidth):
        yield Problem(path="spec.link.bandwidth", message="must be more than 0")


def _data(data: Mapping[str, str], limits: ValidationLimits) -> Iterator[Problem]:
    size = sum(len(key.encode()) + len(value.encode(errors="replace")) for key, value in data.items())
    if size > limits.data_bytes_max:
        yield Problem(path="spec.data", message=f"{size} bytes, at most {limits.data_bytes_max} are allowed")


def _quantity(text: str) -> bool:
    try:
        milli(text)
    except ValueError:
        return False
    return True


def _positive(quantity: str | float) -> bool:
    try:
        return milli(quantity) > 0
    except (ValueError, OverflowError):
        return False
