"""A load generator: many TLS connections in one process, each with one request in flight, each with a client certificate of its own.

It knows just enough HTTP/1.1 to take answers apart: status line, Content-Length, Retry-After. It runs beside the server on another core, so
what it can do is printed with each result by measuring a bare server the same way.
"""

import _ssl
import asyncio
import ctypes
import gc
import os
import resource
import ssl
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvloop

from benchmarks._fleet import Fleet, status_report
from edgewise.wire.report import LaneItems, Report
from edgewise.wire.version import CONTENT_TYPE

T = TypeVar("T")
Address = tuple[str, int]
OnAnswer = Callable[["Caller", int, bytes], None]

_PEM_END = "-----END CERTIFICATE-----\n"
_ENCODER = msgspec.msgpack.Encoder()


class Counts(msgspec.Struct, kw_only=True):
    """What happened while measuring: how many answers by status, connections lost, latencies of what was answered with 200, seconds, and
    the CPU seconds of the server and of this process."""

    statuses: dict[int, int] = {}
    lost: int = 0
    latencies: list[float] = []
    seconds: float = 0.0
    server_cpu: float = 0.0
    load_cpu: float = 0.0

    @property
    def answered(self) -> int:
        """How many 200s."""
        return self.statuses.get(200, 0)

    @property
    def per_second(self) -> float:
        """200s per second."""
        return self.answered / self.seconds

    def describe(self) -> str:
        """Say what else there was."""
        others = [f"{count} with {status}" for status, count in sorted(self.statuses.items()) if status != 200]
        return ", ".join([*others, *([f"{self.lost} connections lost"] if self.lost else [])]) or "nothing but 200"


class _Identity:
    """What stands in for an `ssl.SSLContext` when one agent connects: a context that all agents share is given that agent's certificate
    right before OpenSSL copies it for the connection. Thousands of contexts would cost more time than the connections."""

    __slots__ = ("_context", "_number", "_show")

    def __init__(self, context: ssl.SSLContext, show: Callable[[int], None], number: int) -> None:
        self._context = context
        self._show = show
        self._number = number

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """See `ssl.SSLContext`."""
        self._show(self._number)
        return self._context.wrap_bio(*arguments, **options)


def _loader(context: ssl.SSLContext, fleet: Fleet) -> Callable[[int], None]:
    """Return what loads an agent's certificate and key into a context."""

    def load(number: int) -> None:
        handle = os.memfd_create("identity", os.MFD_CLOEXEC)
        try:
            os.write(handle, (fleet.chains[number] + fleet.key_pem).encode())
            context.load_cert_chain(f"/proc/self/fd/{handle}")
        finally:
            os.close(handle)

    return load


def _replacer(context: ssl.SSLContext, chains: Sequence[str]) -> Callable[[int], None] | None:
    """Return what puts another agent's certificate into a context and leaves key and chain alone; None where that cannot be done.

    Python can only load all of it together, and reading the key takes OpenSSL longer than the handshake; so the certificates are read here,
    before anything is measured. `SSL_CTX *` is the first field of CPython's context object. What is read stays in memory until the end.
    """
    try:
        openssl = ctypes.CDLL(_ssl.__file__)
        read, use = openssl.d2i_X509, openssl.SSL_CTX_use_certificate
    except (AttributeError, OSError):  # OpenSSL is built into the interpreter
        return None
    read.restype, use.argtypes = ctypes.c_void_p, (ctypes.c_void_p, ctypes.c_void_p)
    pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__)
    certificates: list[int] = []
    for chain in chains:
        leaf = ssl.PEM_cert_to_DER_cert(chain[: chain.index(_PEM_END) + len(_PEM_END)])
        certificates.append(read(None, ctypes.byref(ctypes.c_char_p(leaf)), ctypes.c_long(len(leaf))))

    def show(number: int) -> None:
        if use(pointer, certificates[number]) != 1:
            raise ssl.SSLError("OpenSSL does not take an agent's certificate")

    return show


class Caller(asyncio.Protocol):
    """One agent's connection."""

    def __init__(self, number: int, on_answer: OnAnswer) -> None:
        self.number = number
        self.sent_at = 0.0
        self.retry_after = 0.0
        self.lost = False
        self._on_answer = on_answer
        self._buffer = b""
        self._write: Callable[[bytes], None]
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport  # type: ignore[assignment]  # a stream's
        self._write = self._transport.write

    def send(self, request: bytes) -> None:
        """Send a request; the one before must have been answered."""
        self.sent_at = time.perf_counter()
        self._write(request)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._buffer:
            data = self._buffer + data
        head_end = data.find(b"\r\n\r\n")
        if head_end < 0:
            self._buffer = data
            return
        at = data.find(b"content-length: ", 0, head_end)
        body_end = head_end + 4 + (int(data[at + 16 : data.index(b"\r\n", at)]) if at >= 0 else 0)
        if len(data) < body_end:
            self._buffer = data
            return
        self._buffer = b""
        at = data.find(b"retry-after: ", 0, head_end)
        self.retry_after = float(data[at + 13 : data.index(b"\r\n", at)]) if at >= 0 else 0.0
        self._on_answer(self, int(data[9:12]), data[head_end + 4 : body_end])

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's signature
        """See `asyncio.Protocol`."""
        self.lost = True

    def close(self) -> None:
        """Drop the connection."""
        self._transport.abort()


class Agents:
    """Makes connections as the agents of a fleet."""

    def __init__(self, fleet: Fleet, address: Address) -> None:
        self._address = address
        context = self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # What devices check costs devices time, not the server: here it would be this one process's.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        load = _loader(context, fleet)
        load(0)
        self._show = _replacer(context, fleet.chains) or load

    async def connect(self, number: int, on_answer: OnAnswer) -> Caller:
        """Connect as one agent."""
        identity: Any = _Identity(self._context, self._show, number)
        _, caller = await asyncio.get_running_loop().create_connection(
            lambda: Caller(number, on_answer), *self._address, ssl=identity, server_hostname="127.0.0.1", ssl_handshake_timeout=120.0
        )
        return caller

    async def connect_all(self, numbers: Sequence[int], on_answer: OnAnswer, at_once: int = 64) -> list[Caller]:
        """Connect as these agents, `at_once` at a time."""
        gate = asyncio.Semaphore(at_once)

        async def one(number: int) -> Caller:
            async with gate:
                return await self.connect(number, on_answer)

        return list(await asyncio.gather(*(one(number) for number in numbers)))


class Reporter:
    """What one agent sends: one change of its instance's status after another, numbered."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._number = 0
        self._head = f"POST /v1/report HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: ".encode()

    def next(self) -> bytes:
        """Return the next request."""
        self._number += 1
        items = LaneItems(first=self._number, items=(status_report(self._name, self._number),))
        body = _ENCODER.encode(Report(incarnation="0f9a3c5d7e1b2a48", session="8d1c6b0e4f2a9375", lanes={"status": items}))
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)


def poll_request(after: str, wait: int) -> bytes:
    """Return a request for desired state."""
    position = f"after={after}&" if after else ""
    return f"GET /v1/desired?{position}wait={wait} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()


def run(body: Coroutine[Any, Any, T]) -> T:
    """Run a load with as many files as are allowed, and without the garbage collector looking through it again and again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        return uvloop.run(body)
    finally:
        gc.enable()
        gc.unfreeze()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds that a process has used, all threads together."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")
