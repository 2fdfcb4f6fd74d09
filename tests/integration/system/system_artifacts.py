"""What the devices of a system test run: tiny models that say which version they are, and small Python programs."""

import os
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgewise.client.publishing import Release, VariantSource
from edgewise.resources.artifact import Command, Parameter, Probe, Probes

PYTHON = "${python}"
MAIN = "${bundle}/main.py"

SERVER = """
import http.server, os, signal, socket, threading

VERSION = float(os.environ["VERSION"])

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"%r" % VERSION
        self.send_response(200)
        self.send_header("edgewise-revision", os.environ["EDGEWISE_REVISION"])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass

class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = socket.socket(fileno=int(os.environ["EDGEWISE_LISTEN_FD"]))

server = Server()
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever(poll_interval=0.02)
server.server_close()
"""
"""Answers its version at any path, on the socket of its instance; told to end, it answers what it has accepted."""

COUNTER = """
import os, time
from pathlib import Path
from edgewise import workload

home = Path.home()

def read(name):
    try:
        return int((home / name).read_text())
    except (OSError, ValueError):
        return 0

def write(name, number):
    (home / "new").write_text(str(number))
    (home / "new").rename(home / name)

counted = told = read("counted")
while True:
    time.sleep(0.01)
    if counted < read("goal"):
        counted += 1
        write("counted", counted)
        workload.count("parts")
    elif told < counted:
        try:
            workload.flush()
        except workload.Unavailable:
            continue
        told = counted
        write("told", told)
"""
"""Counts up to the number in the file `goal` of its folder, keeps its count in `counted`, and says in `told` what it has told the agent."""

IDLE = "import time\nwhile True:\n    time.sleep(60)\n"


def model(version: float, *, endless: bool = False) -> onnx.ModelProto:
    """Return a model whose `y` is its `x` plus `version`; an `endless` one never comes to an answer."""
    constant = numpy_helper.from_array(np.array([version], "float32"), "version")
    nodes = [helper.make_node("Add", ["x", "version"], ["y"])]
    initializers = [constant]
    if endless:
        nodes, initializers = _endless(constant)
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
        initializers,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def _endless(constant: onnx.TensorProto) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """A loop of 2^62 rounds."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["before", "version"], ["after"])],
        "round",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, ["n"]),
        ],
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []), helper.make_tensor_value_info("after", TensorProto.FLOAT, ["n"])],
    )
    rounds = helper.make_tensor("rounds", TensorProto.INT64, [], [2**62])
    true = helper.make_tensor("true", TensorProto.BOOL, [], [True])
    return [helper.make_node("Loop", ["rounds", "true", "x"], ["y"], body=body)], [constant, rounds, true]


def model_release(
    folder: Path, name: str, version: int, *, content: bytes | None = None, probes: Probes | None = None, pad: int = 0
) -> Release:
    """Return the release of a model that answers with its version. `content` takes the place of the model, `pad` adds a file of random bytes."""
    tree = folder / f"{name}-{version}"
    tree.mkdir()
    (tree / "model.onnx").write_bytes(content if content is not None else model(version).SerializeToString())
    if pad:
        (tree / "pad.bin").write_bytes(os.urandom(pad))
    variant = VariantSource(name="onnx", path=str(tree), runtime="onnxruntime", probes=probes or Probes())
    return Release(name=name, version=str(version), type="model", variants=(variant,))


def bundle_release(
    folder: Path,
    name: str,
    version: int,
    program: str = IDLE,
    *,
    probes: Probes | None = None,
    environment: dict[str, str] | None = None,
    parameters: dict[str, Parameter] | None = None,
    pad: int = 0,
) -> Release:
    """Return the release of a program in Python."""
    tree = folder / f"{name}-{version}"
    tree.mkdir()
    (tree / "main.py").write_text(program)
    if pad:
        (tree / "pad.bin").write_bytes(os.urandom(pad))
    command = Command(argv=(PYTHON, MAIN), environment={"VERSION": str(version), **(environment or {})})
    variant = VariantSource(name="python", path=str(tree), command=command, probes=probes or Probes())
    return Release(name=name, version=str(version), type="bundle", variants=(variant,), parameters=parameters or {})


def server_release(folder: Path, name: str, version: int, **options) -> Release:
    """Return the release of a program that answers with its version."""
    probe = Probe(http_path="/", period_seconds=1.0, failure_threshold=240)
    return bundle_release(folder, name, version, SERVER, probes=options.pop("probes", Probes(start=probe)), **options)
