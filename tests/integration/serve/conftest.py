import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import time
import types
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

SLOW = Path(__file__).with_name("slow_server.py")


def wait_until(condition, seconds: float = 60.0, what: str = "the condition"):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"{what} did not come true within {seconds} s")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path) -> None:
        super().__init__("localhost", timeout=60)
        self.path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self.path)


class Running:
    """One server process, as its supervisor sees it."""

    def __init__(self, argv, listener: socket.socket, control: Path, gate: Path | None = None) -> None:
        self.control = control
        self.gate = gate
        self.process = subprocess.Popen(
            argv, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def order(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None):
        connection = UnixConnection(self.control)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def is_alive(self) -> bool:
        assert self.process.poll() is None, self.process.stderr.read()
        with contextlib.suppress(OSError):  # its socket is there a moment before it listens
            return self.order("GET", "/v2/health/live")[0] == 200
        return False

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.process.stderr.read()
        with contextlib.suppress(OSError):
            return self.order("GET", "/ready")[0] == 200
        return False

    def activate(self):
        wait_until(self.is_ready, what="the server's readiness")
        assert self.order("POST", "/activate") == (200, {"state": "active"})
        return self

    def drain(self) -> None:
        status, content = self.order("POST", "/drain")
        assert (status, content["state"]) == (200, "draining")

    def release(self) -> None:
        """Let inferences that take until they are released come to their end."""
        Path(f"{self.gate}.go").touch()

    def metric(self, name: str) -> float:
        """Return the sum of a metric's values, over all its labels."""
        with contextlib.closing(UnixConnection(self.control)) as connection:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        return sum(float(line.rsplit(maxsplit=1)[1]) for line in lines if line.split("{")[0].split()[0] == name)

    def wait_for(self, name: str, value: int, prefix: str = "edgewise_serve_") -> None:
        """Wait until a metric has a value. The connections asked on are not counted."""
        with contextlib.closing(UnixConnection(self.control)) as connection:

            def read() -> float:
                connection.request("GET", "/metrics")
                text = connection.getresponse().read().decode()
                named = (f"{prefix}{name} ", f"{prefix}{name}{{")
                found = next((line for line in text.splitlines() if line.startswith(named)), "0 0")
                return float(found.split()[1]) - (name == "connections")

            read()  # by the next answer the server has seen that connections closed before this one have ended
            wait_until(lambda: read() == value, what=f"{name} at {value}")

    def ended(self, seconds: float = 60.0) -> int:
        return self.process.wait(seconds)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)
        self.process.stderr.close()


class Supervisor:
    """Holds the listening socket, as the device's supervisor does, and starts servers that share it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.servers: list[Running] = []
        self.sockets: list[socket.socket] = []

    def start(self, tree: Path, revision: str = "m-1", *more: str, control: Path | None = None) -> Running:
        control = control or self.folder / f"{len(self.servers)}.sock"
        argv = [sys.executable, "-m", "edgewise.serve", "--model", str(tree), "--listen-fd", str(self.listener.fileno())]
        argv += ["--control", str(control), "--instance", "default/m", "--revision", revision, "--threads", "1", *more]
        return self._add(Running(argv, self.listener, control))

    def start_slow(self, *, loaded: bool = True, **limits) -> Running:
        gate, control = self.folder / f"gate-{len(self.servers)}", self.folder / f"slow-{len(self.servers)}.sock"
        if loaded:
            gate.touch()
        argv = [sys.executable, str(SLOW), str(self.listener.fileno()), str(control), str(gate), json.dumps(limits)]
        return self._add(Running(argv, self.listener, control, gate))

    def stuck(self):
        """Return something with a control socket that takes everything and answers nothing."""
        listener = socket.socket(socket.AF_UNIX)
        control = self.folder / f"stuck-{len(self.sockets)}.sock"
        listener.bind(str(control))
        listener.listen()
        self.sockets.append(listener)
        return types.SimpleNamespace(control=control)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def socket(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        self.sockets.append(sock)
        return sock

    def _add(self, server: Running) -> Running:
        self.servers.append(server)
        return server

    def close(self) -> None:
        for server in self.servers:
            server.kill()
        for sock in self.sockets:
            sock.close()
        self.listener.close()


@pytest.fixture
def supervisor(tmp_path_factory):
    # The control socket's path must be short, whatever the test is called.
    made = Supervisor(tmp_path_factory.mktemp("s"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def tree(tmp_path_factory) -> Path:
    """A tree with a model that adds each value to itself."""
    folder = tmp_path_factory.mktemp("tree")
    value = (TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", *value)],
        [helper.make_tensor_value_info("y", *value)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(folder / "model.onnx"))
    return folder


def infer_body(data=(1, 2, 3, 4), **changes) -> bytes:
    data = list(data)
    return json.dumps({"inputs": [{"name": "x", "shape": [1, len(data)], "datatype": "FP32", "data": data} | changes]}).encode()


@pytest.fixture(scope="session")
def bodies():
    """Make the body of an inference request."""
    return infer_body


@pytest.fixture(scope="session")
def wait():
    return wait_until


@pytest.fixture(scope="session")
def slow_body():
    def make(seconds: float) -> bytes:
        return json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [seconds]}]}).encode()

    return make
