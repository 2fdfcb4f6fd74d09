"""Versions of runtimes and artifacts, compared by their numbers."""

from functools import lru_cache


@lru_cache(maxsize=4096)
def version_key(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, to compare with: `1.20.1+cpu` is (1, 20, 1), and `1.20.0` is the same as `1.20`. Empty when
    there is no number."""
    numbers: list[int] = []
    for part in version.replace("-", ".").replace("+", ".").split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits[:9]))
    while len(numbers) > 1 and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)
