"""Which form of an artifact version goes to a device: first what the device can run, then what is preferred, by what was measured."""

from typing import Final

from edgewise.delivery.facts import VariantFacts
from edgewise.resources.artifact import VariantRequirements
from edgewise.resources.device import Capacity
from edgewise.resources.quantity import whole
from edgewise.resources.version import version_key
from edgewise.resources.workload import Preference

_PRECISION_ORDER: Final = {"fp32": 0, "bf16": 1, "fp16": 2, "mixed": 3, "": 4, "int8": 5, "int4": 6}
_UNMEASURED: Final = float("inf")


def ranked(variants: tuple[VariantFacts, ...], prefer: Preference) -> tuple[VariantFacts, ...]:
    """Return `variants`, the preferred first. What was measured decides; what was not measured comes after what was, and among the
    unmeasured the higher precision counts as the better quality. Ties end with the name, so the order is always the same."""
    metrics = _common_metrics(variants)

    def key(variant: VariantFacts) -> tuple[float | str, ...]:
        quality = (-_quality(variant, metrics), float(_PRECISION_ORDER[variant.precision]))
        latency = (_latency(variant),)
        size = (float(variant.size),)
        match prefer:
            case "quality":
                order = (*quality, *latency, *size)
            case "latency":
                order = (*latency, *quality, *size)
            case "size":
                order = (*size, *quality, *latency)
            case "energy":
                # Nothing measures energy yet: time spent computing, then bytes moved, is the nearest that was measured.
                order = (*latency, *size, *quality)
        return (*order, variant.name)

    return tuple(sorted(variants, key=key))


def meets(requirements: VariantRequirements, capacity: Capacity) -> bool:
    """Return whether a device is what a variant requires; `unmet_requirement` says what is missing."""
    if requirements.architectures and capacity.architecture not in requirements.architectures:
        return False
    return unmet_requirement(requirements, capacity) is None


def unmet_requirement(requirements: VariantRequirements, capacity: Capacity) -> str | None:
    """Return the first thing that a device lacks for a variant, in words with numbers, or None. Looks at what the device is, not at
    what is free on it."""
    if requirements.architectures and capacity.architecture not in requirements.architectures:
        return f"architecture must be {' or '.join(requirements.architectures)}, is {capacity.architecture or 'unknown'}"
    for runtime, least in sorted(requirements.runtimes.items()):
        present = capacity.runtimes.get(runtime)
        if present is None:
            return f"runtime {runtime}{f' {least}' if least else ''} is not there"
        if version_key(present) < version_key(least):
            return f"runtime {runtime} must be at least {least}, is {present}"
    if requirements.accelerator and not _has_accelerator(requirements.accelerator, capacity):
        there = ", ".join(accelerator.name for accelerator in capacity.accelerators) or "none"
        return f"accelerator {requirements.accelerator} is not there (there: {there})"
    memory = whole(requirements.memory)
    if capacity.memory < memory:
        return f"memory must be at least {amount(memory)}, is {amount(capacity.memory)}"
    return None


def amount(count: int) -> str:
    """Return bytes for people: `512 MiB`."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"


def _common_metrics(variants: tuple[VariantFacts, ...]) -> tuple[str, ...]:
    measured = [set(variant.profile.quality) for variant in variants if variant.profile.quality]
    return tuple(sorted(set.intersection(*measured))) if measured else ()


def _quality(variant: VariantFacts, metrics: tuple[str, ...]) -> float:
    """Return the mean of what was measured of every measured variant; higher is better."""
    values = variant.profile.quality
    if not metrics or not values:
        return -_UNMEASURED
    return sum(values[metric] for metric in metrics) / len(metrics)


def _latency(variant: VariantFacts) -> float:
    profile = variant.profile
    if profile.latency_p95_ms is not None:
        return profile.latency_p95_ms
    return profile.latency_p50_ms if profile.latency_p50_ms is not None else _UNMEASURED


def _has_accelerator(wanted: str, capacity: Capacity) -> bool:
    return any(wanted in (accelerator.name, accelerator.kind) for accelerator in capacity.accelerators)
