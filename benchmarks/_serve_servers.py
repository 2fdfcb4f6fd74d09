"""Start model servers to measure: Edgewise's own, and the bare endpoint beside it."""

import contextlib
import http.client
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import psutil

_START_SECONDS = 60.0


class Started(msgspec.Struct, frozen=True):
    """A server that answers at `address`."""

    address: tuple[str, int]
    pid: int

    def resident_mb(self) -> float:
        """Return the resident memory of the server with all its processes, in MB; what they share counts once (PSS)."""
        process = psutil.Process(self.pid)
        return sum(each.memory_full_info().pss for each in (process, *process.children(recursive=True))) / 1e6


@contextlib.contextmanager
def edgewise_server(tree: Path, *, threads: int = 1) -> Iterator[Started]:
    """Serve a tree's model as `m`, as a device's supervisor does."""
    with tempfile.TemporaryDirectory(prefix="ew") as folder, socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        control = Path(folder, "c.sock")
        argv = [sys.executable, "-m", "edgewise.serve", "--model", str(tree), "--listen-fd", str(listener.fileno())]
        argv += ["--control", str(control), "--instance", "default/m", "--revision", "m-1", "--threads", str(threads)]
        with running(argv, pass_fds=[listener.fileno()]) as process:
            wait_for(process, lambda: _order(control, "GET", "/ready"))
            wait_for(process, lambda: _order(control, "POST", "/activate"))
            yield Started(listener.getsockname(), process.pid)


@contextlib.contextmanager
def bare_server(tree: Path, shape: tuple[int, ...], *, threads: int = 1) -> Iterator[Started]:
    """Serve a tree's model without a protocol."""
    sizes = ",".join(str(each) for each in shape)
    argv = [sys.executable, "-m", "benchmarks._serve_bare", str(tree / "model.onnx"), str(threads), sizes]
    with running(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        address = ("127.0.0.1", int(process.stdout.readline()))
        wait_for(process, lambda: bool(socket.create_connection(address).close() or True))
        yield Started(address, process.pid)


@contextlib.contextmanager
def running(argv: Sequence[str], **options) -> Iterator[subprocess.Popen]:
    """Run a process, and end it and its children behind."""
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)] if process.poll() is None else []
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.terminate()
        for each in psutil.wait_procs(family, timeout=10)[1]:
            each.kill()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


def wait_for(process: subprocess.Popen, ready: Callable[[], bool]) -> None:
    """Wait until a server that starts is ready."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}")
        with contextlib.suppress(OSError, http.client.HTTPException):
            if ready():
                return
        time.sleep(0.02)
    raise RuntimeError("the server was not ready in time")


def answers(address: tuple[str, int], path: str, status: int | None = None) -> bool:
    """Whether a server answers, with this status if one is given."""
    with contextlib.closing(http.client.HTTPConnection(*address, timeout=5)) as connection:
        connection.request("GET", path)
        got = connection.getresponse().status
        return status is None or got == status


def _order(control: Path, method: str, path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(control))
        sock.sendall(f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode())
        return sock.recv(65536).startswith(b"HTTP/1.1 200")
