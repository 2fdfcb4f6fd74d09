"""Kubernetes quantities (`512Mi`, `500m`, `2`) and durations (`30s`, `2m`), checked as text and computed as whole numbers."""

import re
from functools import lru_cache
from typing import Annotated, Final

import msgspec

_QUANTITY: Final = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$(?!\n)"
_DURATION: Final = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$(?!\n)"

Quantity = Annotated[str, msgspec.Meta(pattern=_QUANTITY, description="A Kubernetes quantity, such as 512Mi or 500m.")] | int | float
Duration = Annotated[str, msgspec.Meta(pattern=_DURATION, description="A duration, such as 500ms, 30s, 2m, 1h or 7d.")]
Percentage = Annotated[str, msgspec.Meta(pattern=r"^(100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?)%$(?!\n)", description="A percentage, such as 25%.")]
CountOrPercentage = Annotated[int, msgspec.Meta(ge=1)] | Percentage

# Exact factors in thousandths, so that `500m` and `0.5` are the same whole number.
_MILLI_FACTORS: Final = {
    "": 1000,
    "m": 1,
    "k": 10**6,
    "M": 10**9,
    "G": 10**12,
    "T": 10**15,
    "Ki": 1000 * 2**10,
    "Mi": 1000 * 2**20,
    "Gi": 1000 * 2**30,
    "Ti": 1000 * 2**40,
}
_SECOND_FACTORS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@lru_cache(maxsize=4096)
def milli(quantity: Quantity) -> int:
    """Return `quantity` in thousandths of its unit, rounded up (milli-CPUs, thousandths of a byte).

    Raises `ValueError` when it is not a quantity or is negative.
    """
    if isinstance(quantity, int | float):
        if quantity < 0:
            raise ValueError(f"{quantity} is negative")
        return _ceil(quantity * 1000)
    if not re.match(_QUANTITY, quantity):
        raise ValueError(f"{quantity!r} is not a quantity such as 512Mi or 500m")
    number = quantity.rstrip("mkKMGTi")
    whole, _, fraction = number.partition(".")
    factor = _MILLI_FACTORS[quantity[len(number) :]]
    scaled: int = int(whole + fraction) * factor
    divisor: int = 10 ** len(fraction)
    return -(-scaled // divisor)


def whole(quantity: Quantity) -> int:
    """Return `quantity` in its unit as a whole number, rounded up: bytes for `512Mi`."""
    return -(-milli(quantity) // 1000)


@lru_cache(maxsize=1024)
def seconds(duration: Duration) -> float:
    """Return `duration` in seconds. Raises `ValueError` when it is not a duration."""
    match = re.match(r"^([0-9.]+)(ms|s|m|h|d)$", duration)
    if match is None or not re.match(_DURATION, duration):
        raise ValueError(f"{duration!r} is not a duration such as 30s or 2m")
    return float(match[1]) * _SECOND_FACTORS[match[2]]


def fraction(amount: float | Percentage) -> float:
    """Return a number as it is, and a percentage as a part of 1: 0.02 for `2%`."""
    return float(amount[:-1]) / 100 if isinstance(amount, str) else float(amount)


def share_of(amount: CountOrPercentage, total: int) -> int:
    """Return how many of `total` are meant by a count or a percentage; a percentage is rounded up, so `1%` of 3 is 1."""
    if isinstance(amount, int):
        return min(amount, total)
    return min(total, _ceil(float(amount[:-1]) * total / 100 - 1e-9))


def _ceil(value: float) -> int:
    floor = int(value)
    return floor + (value > floor)
