"""Unix sockets at paths of any length.

The kernel takes at most 107 bytes of path. A longer one is reached through `/proc/self/fd/N/NAME`, where N is the open parent folder, so
that only the last part of the path must be short.
"""

# pathlib alone would cost a resident process a third of a megabyte:
# ruff: noqa: PTH101, PTH108

import os
import socket
from collections.abc import Callable
from typing import Final

PATH_BYTES_MAX: Final = 107


def connect_unix(path: str, timeout: float | None) -> socket.socket:
    """Return a stream socket connected to `path`. `timeout` in seconds holds for connecting and stays set. Raises `OSError`."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        _through(path, connection.connect)
    except BaseException:
        connection.close()
        raise
    return connection


def listen_unix(path: str, backlog: int) -> socket.socket:
    """Return a non-blocking socket that listens at `path` (mode 0600), replacing a socket that stood there. The folder must be closed to
    others (0700). Raises `OSError`."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.lexists(path):
            os.unlink(path)
        _through(path, listener.bind)
        # Not by umask, which is the whole process's: another thread may be making files. The folder is what keeps others out until here.
        os.chmod(path, 0o600)
        listener.listen(backlog)
        listener.settimeout(0.0)
    except BaseException:
        listener.close()
        raise
    return listener


def _through(path: str, use: Callable[[str], object]) -> None:
    if len(os.fsencode(path)) <= PATH_BYTES_MAX:
        use(path)
        return
    folder, name = os.path.split(path)
    opened = os.open(folder or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        use(f"/proc/self/fd/{opened}/{name}")
    finally:
        os.close(opened)
