"""What the rule modules share: limits, names, and the two commonest rules."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from edgewise.resources.errors import Problem


class ValidationLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one resource may hold: numbers of entries, bytes of text."""

    labels_max: int = 64
    annotation_bytes_max: int = 262_144
    data_bytes_max: int = 1_000_000
    files_max: int = 10_000
    path_bytes_max: int = 512
    parameters_max: int = 200
    argument_bytes_max: int = 65_536


LIMITS: Final = ValidationLimits()

NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,126}[a-z0-9])?")


def exactly_one(path: str, chosen: Mapping[str, bool]) -> Iterator[Problem]:
    """Exactly one of `chosen` must be given."""
    given = [name for name, is_given in chosen.items() if is_given]
    names = list(chosen)
    words = f"{', '.join(names[:-1])} or {names[-1]}"
    if not given:
        yield Problem(path=path, message=f"needs exactly one of {words}")
    elif len(given) > 1:
        yield Problem(path=path, message=f"has {' and '.join(given)}; exactly one of {words} is allowed")


def unique(path: str, field: str, values: Iterable[str]) -> Iterator[Problem]:
    """No two entries may have the same value of `field`."""
    for value, count in Counter(values).items():
        if count > 1:
            yield Problem(path=path, message=f"{count} entries have the {field} {value!r}")
