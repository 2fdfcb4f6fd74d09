"""Asking things on the same machine over HTTP/1.1: one request, one connection, only the status matters."""

import socket
import time
from typing import Final

from edgewise.ports.unix import connect_unix

HEAD_BYTES_MAX: Final = 16 * 1024


class LocalHttpError(Exception):
    """Nobody listens, the answer came too late, or was no HTTP."""


def get_status(address: str, path: str, seconds: float) -> int:
    """Return the status of `GET path` at `http://HOST:PORT`. `seconds` bounds the whole exchange. Raises `LocalHttpError`."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    deadline = time.monotonic() + seconds
    try:
        with socket.create_connection((host, int(port)), timeout=seconds) as connection:
            return _exchange(connection, "GET", path, deadline)
    except (OSError, ValueError) as error:
        raise LocalHttpError(f"{address}{path}: {error}") from error


def status_over_unix(socket_path: str, method: str, path: str, seconds: float, body: bytes = b"") -> int:
    """Return the status of `METHOD path` at a Unix socket, with a JSON `body` if there is one. `seconds` bounds the whole exchange. Raises
    `LocalHttpError`."""
    deadline = time.monotonic() + seconds
    try:
        with connect_unix(socket_path, seconds) as connection:
            return _exchange(connection, method, path, deadline, body)
    except (OSError, ValueError) as error:
        raise LocalHttpError(f"{method} {path}: {error}") from error


def _exchange(connection: socket.socket, method: str, path: str, deadline: float, body: bytes = b"") -> int:
    if not path.startswith("/") or any(ord(letter) <= 32 or ord(letter) >= 127 for letter in path):
        raise ValueError(f"{path[:100]!r} is not a path")
    length = "" if method == "GET" else f"Content-Length: {len(body)}\r\n"
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}Connection: close\r\n\r\n"
    connection.sendall(head.encode("ascii") + body)
    seen = b""
    while b"\r\n" not in seen:
        connection.settimeout(_left(deadline))
        data = connection.recv(4096)
        if not data:
            raise ValueError("the connection ended before an answer")
        seen += data
        if len(seen) > HEAD_BYTES_MAX:
            raise ValueError("the answer's head is too long")
    version, _, rest = seen.partition(b"\r\n")[0].partition(b" ")
    if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
        raise ValueError("the answer is no HTTP")
    return int(rest[:3])


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no answer in time")
    return left
