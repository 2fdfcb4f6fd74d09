"""The few files that the supervisor keeps: small, read whole, replaced whole."""

# pathlib and contextlib would load half a megabyte:
# ruff: noqa: PTH105, PTH106, PTH108, PTH120, PTH208, SIM105

import os

from edgewise.supervisor.wire import Invalid, decode_object, encode_text

FILE_BYTES_MAX = 256 * 1024


def read_object(path: str) -> "dict[str, object]":
    """Return the object kept at `path`; empty when there is none or it is damaged, as after a power cut on a poor disk."""
    try:
        data = read_start(path, FILE_BYTES_MAX)
        return decode_object(data) if data else {}
    except (OSError, Invalid):
        return {}


def replace_object(path: str, value: "dict[str, object]") -> None:
    """Put `value` in place of what `path` held: the old or the new, whole, after a power cut. Raises `OSError`."""
    beside = f"{path}.new"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        data = encode_text(value)
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(beside, path)
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_start(path: str, limit: int) -> bytes:
    """Return up to `limit` bytes from the start of a file. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while limit > 0:
            part = os.read(descriptor, limit)
            if not part:
                break
            parts.append(part)
            limit -= len(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def remove_quietly(path: str) -> None:
    """Remove a file; no error when that fails."""
    try:
        os.unlink(path)
    except OSError:
        pass


def remove_folder(path: str) -> None:
    """Remove a folder of plain files; no error when that fails."""
    try:
        for name in os.listdir(path):
            remove_quietly(f"{path}/{name}")
        os.rmdir(path)
    except OSError:
        pass
