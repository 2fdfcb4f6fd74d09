"""Paths of simulated disks, by the rules of the real one."""

from functools import lru_cache
from typing import Final

from edgewise.ports.files import PathRefused

PATH_BYTES_MAX: Final = 4096


@lru_cache(maxsize=4096)
def parts_of(path: str) -> tuple[str, ...]:
    """Split a path into names. Raises `PathRefused` unless it stays inside."""
    if len(path.encode(errors="surrogatepass")) > PATH_BYTES_MAX or "\0" in path or path.startswith("/"):
        raise PathRefused(path[:200], "not a path inside the data folder")
    parts = tuple(part for part in path.split("/") if part)
    if "." in parts or ".." in parts:
        raise PathRefused(path[:200], "not a path inside the data folder")
    return parts


def file_parts_of(path: str) -> tuple[str, ...]:
    """Do the same for a path that must name something below the data folder."""
    parts = parts_of(path)
    if not parts:
        raise PathRefused(path, "names no file")
    return parts
