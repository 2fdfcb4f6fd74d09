"""Selectors: Kubernetes' node-affinity operators over labels and typed capacity."""

from collections.abc import Mapping
from typing import Final, Literal, TypeVar

import msgspec

from edgewise.resources.quantity import milli
from edgewise.resources.version import version_key

RUNTIME: Final = "runtime."
"""What the keys of runtimes begin with. Their values are versions."""

_WANTED: Final[dict[str, str]] = {"Exists": "be set", "DoesNotExist": "not be set"}
"""What the operators without values ask for, in words."""

T = TypeVar("T", int, tuple[int, ...])

Operator = Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Ge", "Le"]


class Requirement(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """One condition. `key` is a label, or a typed capacity: `capacity.cpu`, `capacity.memory`, `capacity.disk`, `capacity.architecture`,
    `runtime.NAME`. `Gt, Lt, Ge, Le` take one value and compare quantities, or versions of runtimes (`1.10` is later than `1.9`)."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()


class Selector(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """All conditions must hold. An empty selector matches everything."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[Requirement, ...] = ()


def unmet(selector: Selector, labels: Mapping[str, str]) -> str | None:
    """Return the first condition that `labels` do not meet, in words, or None when all hold."""
    for key, value in sorted(selector.match_labels.items()):
        if labels.get(key) != value:
            return f"{key} must be {value}, is {labels.get(key, 'not set')}"
    for requirement in selector.match_expressions:
        if not _holds(requirement, labels.get(requirement.key)):
            wanted = _WANTED.get(requirement.operator) or " ".join(("be", requirement.operator, *requirement.values))
            return f"{requirement.key} must {wanted}, is {labels.get(requirement.key, 'not set')}"
    return None


def matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Return whether `labels` meet every condition of `selector`."""
    return unmet(selector, labels) is None


def _holds(requirement: Requirement, value: str | None) -> bool:
    match requirement.operator:
        case "In":
            return value is not None and value in requirement.values
        case "NotIn":
            return value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" | "Ge" | "Le":
            return value is not None and _compares(requirement, value)


def _compares(requirement: Requirement, value: str) -> bool:
    try:
        wanted = requirement.values[0]
        if requirement.key.startswith(RUNTIME):
            return _ordered(requirement.operator, _version(value), _version(wanted))
        return _ordered(requirement.operator, milli(value), milli(wanted))
    except (ValueError, IndexError):
        return False


def _version(text: str) -> tuple[int, ...]:
    key = version_key(text)
    if not key:
        raise ValueError(text)
    return key


def _ordered(operator: Operator, left: T, right: T) -> bool:
    match operator:
        case "Gt":
            return left > right
        case "Lt":
            return left < right
        case "Ge":
            return left >= right
        case _:
            return left <= right
