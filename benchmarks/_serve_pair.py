"""Two model servers that share a listening socket, as two slots of a device do, and a client that notices everything."""

import contextlib
import json
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import msgspec

from benchmarks._serve_servers import running, wait_for


class Slot(msgspec.Struct, frozen=True):
    """One server process."""

    process: subprocess.Popen
    control: Path
    revision: str

    def order(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Say something on the control socket."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(str(self.control))
            sock.sendall(f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
            got = b"".join(iter(lambda: sock.recv(65536), b""))
        return int(got[9:12]), got.partition(b"\r\n\r\n")[2]

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        lines = self.order("GET", "/metrics")[1].decode().splitlines()
        return sum(float(line.rsplit(maxsplit=1)[1]) for line in lines if line.split("{")[0].split()[0] == name)


class Slots:
    """Holds the listening socket and starts servers that share it."""

    def __init__(self, folder: Path, listener: socket.socket, stack: contextlib.ExitStack) -> None:
        self.address = listener.getsockname()
        self._folder, self._listener, self._stack = folder, listener, stack
        self._count = 0

    def start(self, tree: Path, revision: str) -> Slot:
        """Start a server and wait until it is ready."""
        self._count += 1
        control = self._folder / f"{self._count}.sock"
        argv = [sys.executable, "-m", "edgewise.serve", "--model", str(tree), "--listen-fd", str(self._listener.fileno())]
        argv += ["--control", str(control), "--instance", "default/m", "--revision", revision, "--threads", "1"]
        slot = Slot(self._stack.enter_context(running(argv, pass_fds=[self._listener.fileno()])), control, revision)
        wait_for(slot.process, lambda: slot.order("GET", "/ready")[0] == 200)
        return slot


@contextlib.contextmanager
def slots() -> Iterator[Slots]:
    """Offer a listening socket and a place for servers, which end with it."""
    with (
        tempfile.TemporaryDirectory(prefix="ew") as folder,
        socket.create_server(("127.0.0.1", 0), backlog=512) as listener,
        contextlib.ExitStack() as stack,
    ):
        yield Slots(Path(folder), listener, stack)


class Seen(msgspec.Struct):
    """What a client saw: when each request was sent and how long it took (seconds), how many got no answer or an error, and how many
    answers were not of one revision throughout."""

    taken: list[tuple[float, float]] = []
    dropped: int = 0
    mixed: int = 0

    def between(self, begin: float, end: float) -> list[float]:
        """Return how long the requests took that were sent in a span of time."""
        return sorted(seconds for at, seconds in self.taken if begin <= at < end)


def p50(seconds: list[float]) -> float:
    """Return the median."""
    return median(seconds)


def p99(seconds: list[float]) -> float:
    """Return the 99th percentile of what is sorted."""
    return seconds[int(len(seconds) * 0.99)]


class Client:
    """Sends the same request over and over on some connections that it keeps, and with `fresh` on as many that it opens anew for each, at a
    pace that leaves the server room. Never sends anything twice."""

    def __init__(self, address: tuple[str, int], data: bytes, *, kept: int, fresh: int = 0, pause: float = 0.004) -> None:
        self.seen = Seen()
        self.stopping = False
        self._address, self._data, self._pause = address, data, pause
        self._lines = [_Line(keep=number < kept) for number in range(kept + fresh)]
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Go on until `stopping`."""
        while not self.stopping:
            now = time.perf_counter()
            for line in self._lines:
                if not line.asked_at and now >= line.due:
                    self._ask(line)
            for key, _ in self._selector.select(0.0005):
                self._receive(key.data)
        for line in self._lines:
            self._close(line)
        self._selector.close()

    def _ask(self, line: "_Line") -> None:
        try:
            line.asked_at = time.perf_counter()
            if line.sock is None:
                line.sock = socket.create_connection(self._address, timeout=30)
                line.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._selector.register(line.sock, selectors.EVENT_READ, line)
            line.got = b""
            line.sock.sendall(self._data)
        except OSError:
            self._drop(line)

    def _receive(self, line: "_Line") -> None:
        assert line.sock is not None
        try:
            chunk = line.sock.recv(262_144)
        except OSError:
            chunk = b""
        if not chunk:
            if line.asked_at:
                self._drop(line)
            else:
                self._close(line)  # an idle connection that a drained server closed: nothing was asked on it
            return
        line.got += chunk
        head, _, body = line.got.partition(b"\r\n\r\n")
        fields = dict(each.lower().split(b": ", 1) for each in head.split(b"\r\n")[1:] if b": " in each)
        if b"content-length" not in fields or len(body) < int(fields[b"content-length"]):
            return
        now = time.perf_counter()
        self.seen.taken.append((line.asked_at, now - line.asked_at))
        if not head.startswith(b"HTTP/1.1 200"):
            self.seen.dropped += 1
        elif json.loads(body[: int(fields.get(b"inference-header-content-length", len(body)))])["model_version"] != (
            fields[b"edgewise-revision"].decode()
        ):
            self.seen.mixed += 1
        line.asked_at, line.due = 0.0, now + self._pause
        if fields.get(b"connection") == b"close" or not line.keep:
            self._close(line)

    def _drop(self, line: "_Line") -> None:
        self.seen.dropped += 1
        line.asked_at, line.due = 0.0, time.perf_counter() + self._pause
        self._close(line)

    def _close(self, line: "_Line") -> None:
        if line.sock is not None:
            self._selector.unregister(line.sock)
            line.sock.close()
            line.sock = None


class _Line:
    def __init__(self, *, keep: bool) -> None:
        self.keep = keep
        self.sock: socket.socket | None = None
        self.got = b""
        self.asked_at = self.due = 0.0
