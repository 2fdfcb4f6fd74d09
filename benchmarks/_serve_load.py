"""A load generator for model servers: a few connections, one request in flight on each, canned bytes out, whole answers in.

One thread and epoll, in a process beside the server's. What it can do is far more than any of the servers measured.
"""

import json
import selectors
import socket
import time
from statistics import median

import msgspec
import numpy as np


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: answers per second, the median latency and the 99th percentile in seconds."""

    per_second: float
    p50: float
    p99: float


class Failed(Exception):
    """The server answered something else than 200, or not at all."""


def request(path: str, body: bytes, headers: dict[str, str], host: str = "bench") -> bytes:
    """Return a POST as bytes."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def json_request(path: str, array: np.ndarray) -> bytes:
    """Return an inference request whose input and outputs are JSON."""
    tensor = {"name": "x", "shape": list(array.shape), "datatype": "FP32", "data": array.ravel().tolist()}
    return request(path, json.dumps({"inputs": [tensor]}).encode(), {"Content-Type": "application/json"})


def binary_request(path: str, array: np.ndarray) -> bytes:
    """Return an inference request whose input and outputs are binary tensors."""
    data = array.astype("float32").tobytes()
    tensor = {"name": "x", "shape": list(array.shape), "datatype": "FP32", "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return request(path, head + data, {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))})


def measure(address: tuple[str, int], data: bytes, *, connections: int, seconds: float) -> Load:
    """Send `data` over and over on so many connections. Raises `Failed`."""
    callers = [_Caller(address, data) for _ in range(connections)]
    selector = selectors.DefaultSelector()
    try:
        for caller in callers:
            selector.register(caller.sock, selectors.EVENT_READ, caller)
            caller.ask()
        started = time.perf_counter()
        until = started + seconds
        latencies: list[float] = []
        while (now := time.perf_counter()) < until:
            events = selector.select(10.0)
            if not events:
                raise Failed("no answer within 10 s")
            for key, _ in events:
                if key.data.receive():
                    latencies.append(time.perf_counter() - key.data.asked_at)
                    key.data.ask()
        if not latencies:
            raise Failed("nothing was answered")
        latencies.sort()
        return Load(per_second=len(latencies) / (now - started), p50=median(latencies), p99=latencies[int(len(latencies) * 0.99)])
    finally:
        for caller in callers:
            caller.sock.close()
        selector.close()


class _Caller:
    def __init__(self, address: tuple[str, int], data: bytes) -> None:
        self.sock = socket.create_connection(address, timeout=30)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.asked_at = 0.0
        self._data = data
        self._got = b""
        self._whole = 0

    def ask(self) -> None:
        self._got, self._whole = b"", 0
        self.asked_at = time.perf_counter()
        self.sock.sendall(self._data)

    def receive(self) -> bool:
        """Read once; return whether the answer is whole."""
        chunk = self.sock.recv(262_144)
        if not chunk:
            raise Failed(f"the connection was closed: {self._got[:300]!r}")
        self._got = self._got + chunk if self._got else chunk
        if not self._whole:
            end = self._got.find(b"\r\n\r\n")
            if end < 0:
                return False
            if not self._got.startswith(b"HTTP/1.1 200"):
                raise Failed(repr(self._got[:500]))
            head = self._got[:end].lower()
            at = head.index(b"content-length:") + 15
            self._whole = end + 4 + int(head[at : head.find(b"\r", at) if head.find(b"\r", at) > 0 else end])
        return len(self._got) >= self._whole
