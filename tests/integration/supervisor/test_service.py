"""An instance's listening socket outlives slots, crashes and supervisors; model servers are told what to do over their control socket."""

import http.client
import json
import socket
import threading
import time
from pathlib import Path

import msgspec
import onnx
import pytest

from edgewise.agent.slots import control_socket_path
from edgewise.engine.protocol import Failed, Finished, Probed, Started, Stopped
from edgewise.resources.artifact import Probe, Probes
from edgewise.resources.traffic import Traffic

SERVER = """
import http.server, os, signal, socket, sys, threading
NAME = os.environ["EDGEWISE_REVISION"]

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/crash":
            os._exit(9)
        body = NAME.encode()
        self.send_response(503 if self.path == "/unwell" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=int(os.environ["EDGEWISE_LISTEN_FD"]))
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print("serving", flush=True)
server.serve_forever(poll_interval=0.02)
"""

MODEL_SERVER = """
import argparse, http.server, os, socket, socketserver, sys, threading, time
parser = argparse.ArgumentParser()
for name in ("--model", "--listen-fd", "--control", "--instance", "--revision", "--threads", "--runtime"):
    parser.add_argument(name)
given = parser.parse_args()
print("threads", given.threads, "runtime", given.runtime, "sketches", os.environ.get("EDGEWISE_SKETCH_INPUTS"), flush=True)
assert os.path.exists(given.model + "/main.py")

class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = given.revision.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

service = http.server.HTTPServer(("", 0), Service, bind_and_activate=False)
service.socket.close()
service.socket = socket.socket(fileno=int(given.listen_fd))
done = threading.Event()

class Control(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ready" else 404)
        self.end_headers()
    def do_POST(self):
        if self.path == "/activate":
            if given.revision == "bad":
                self.send_response(500)
                self.end_headers()
                return
            threading.Thread(target=service.serve_forever, args=(0.01,), daemon=True).start()
        if self.path == "/drain":
            threading.Thread(target=lambda: (service.shutdown(), done.set()), daemon=True).start()
        self.send_response(200)
        self.end_headers()
    def do_PUT(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        known = self.path == "/traffic" and given.revision != "old"
        if known:
            with open(given.control + ".told", "wb") as file:
                file.write(body)
        self.send_response(404 if not known else 400 if given.revision == "bad" else 200)
        self.end_headers()
    def log_message(self, *_):
        pass
    def address_string(self):
        return "control"

class ControlServer(socketserver.UnixStreamServer):
    pass

control = ControlServer(given.control, Control)
threading.Thread(target=control.serve_forever, daemon=True).start()
done.wait()
"""

HEALTHY = Probes(readiness=Probe(http_path="/"))


class Client:
    """Asks again and again, over a new connection each time, and keeps what happened."""

    def __init__(self, address):
        self.host, _, self.port = address.removeprefix("http://").partition(":")
        self.answers, self.failures, self._stop = [], [], threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def ask(self, path="/", timeout=60):
        connection = http.client.HTTPConnection(self.host, int(self.port), timeout=timeout)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def _run(self):
        while not self._stop.is_set():
            try:
                self.answers.append(self.ask())
            except OSError as error:
                self.failures.append(error)
            time.sleep(0.002)

    def end(self):
        self._stop.set()
        self._thread.join()


def test_no_connection_is_lost_when_one_process_replaces_another(supervisor, bundle, helpers):
    supervisor.run()
    slots = supervisor.slots()
    first = slots.start("shop/till", "a", bundle(SERVER, probes=HEALTHY, revision="one"))
    client = Client(first.address)
    try:
        helpers.wait_for(lambda: "one" in client.answers)
        assert slots.probe("shop/till", "a", "readiness", Probe(http_path="/")) == Probed(ok=True)
        unwell = slots.probe("shop/till", "a", "readiness", Probe(http_path="/unwell"))
        assert unwell == Probed(ok=False, message="answered 503")
        assert slots.stop("shop/till", "a", 60) == Stopped(code=0)
        second = slots.start("shop/till", "b", bundle(SERVER, probes=HEALTHY, revision="two"))
        assert second.address == first.address
        helpers.wait_for(lambda: "two" in client.answers)
    finally:
        client.end()
    assert client.failures == []
    assert client.answers == sorted(client.answers), "first only one, then only two"


def test_connections_wait_while_a_crashed_server_is_away(supervisor, bundle, helpers):
    supervisor.run()
    slots = supervisor.slots()
    slots.observe()
    started = slots.start("shop/till", "a", bundle(SERVER, probes=HEALTHY, revision="one"))
    helpers.wait_for(lambda: "serving" in supervisor.log("shop.till"))
    client = Client(started.address)
    client.end()
    with pytest.raises((OSError, http.client.HTTPException)):
        client.ask("/crash")
    helpers.wait_for(lambda: supervisor.exits)
    waiting = []
    thread = threading.Thread(target=lambda: waiting.append(client.ask("/", timeout=60)))
    thread.start()
    time.sleep(0.2)
    assert waiting == []
    slots.start("shop/till", "a", bundle(SERVER, probes=HEALTHY, revision="two"))
    thread.join()
    assert waiting == ["two"]


def test_the_port_stays_the_same_when_the_supervisor_comes_back(supervisor, bundle, helpers):
    supervisor.run()
    address = supervisor.slots().start("shop/till", "a", bundle(SERVER, probes=HEALTHY)).address
    other = supervisor.slots().start("shop/other", "a", bundle(SERVER, probes=HEALTHY)).address
    assert address != other
    supervisor.kill()
    supervisor.run()
    slots = supervisor.slots()
    assert slots.start("shop/other", "a", bundle(SERVER, probes=HEALTHY)).address == other
    assert slots.start("shop/till", "a", bundle(SERVER, probes=HEALTHY)).address == address


def test_a_port_is_held_from_the_start_on_and_connections_wait_until_something_serves(supervisor, bundle, helpers):
    """Another device of this machine, whose workload has the same name, would otherwise take it, and clients would ask the wrong one."""
    supervisor.run()
    address = supervisor.slots().start("shop/till", "a", bundle(SERVER, probes=HEALTHY)).address
    supervisor.kill()
    supervisor.run()
    with socket.socket() as neighbour:
        neighbour.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        assert not bound(neighbour, int(address.rpartition(":")[2]))
    waiting = Client(address)
    slots = supervisor.slots()
    assert slots.start("shop/till", "a", bundle(SERVER, probes=HEALTHY, revision="back")).address == address
    helpers.wait_for(lambda: waiting.answers, what="an answer")
    waiting.end()
    assert (set(waiting.answers), waiting.failures) == ({"back"}, [])
    slots.stop("shop/till", "a", 60)
    slots.forget("shop/till")
    with pytest.raises(ConnectionRefusedError):
        waiting.ask()


def test_a_port_that_is_taken_at_the_start_keeps_nobody_from_starting(supervisor, bundle, helpers):
    (supervisor.data / "supervisor").mkdir(parents=True)
    (port,) = supervisor.ports.free(1)
    with socket.create_server(("127.0.0.1", port)):
        (supervisor.data / "supervisor/ports.json").write_text(f'{{"shop.till":{port},"shop.odd":"x"}}')
        supervisor.run()
    assert supervisor.slots().start("shop/till", "a", bundle(SERVER, probes=HEALTHY)).address == f"http://127.0.0.1:{port}"


def bound(one, port):
    try:
        one.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def test_another_port_is_taken_when_the_old_one_is_not_free(supervisor, bundle, helpers):
    supervisor.run()
    address = supervisor.slots().start("shop/till", "a", bundle(SERVER, probes=HEALTHY)).address
    supervisor.kill()
    port = int(address.rpartition(":")[2])
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        helpers.wait_for(lambda: bound(squatter, port), what="the old server's end")
        squatter.listen()
        supervisor.run()
        assert supervisor.slots().start("shop/till", "a", bundle(SERVER, probes=HEALTHY)).address not in ("", address)


@pytest.fixture
def model_slots(supervisor, tmp_path, helpers):
    program = tmp_path / "model_server.py"
    program.write_text(MODEL_SERVER)
    supervisor.run()
    return supervisor.slots(model_server=(helpers.python, str(program)))


def ready(slots, slot):
    return lambda: slots.probe("shop/eye", slot, "readiness", Probe(http_path="/whatever")).ok


def test_model_servers_swap_without_a_lost_connection(supervisor, bundle, helpers, model_slots):
    slots = model_slots
    first = slots.start("shop/eye", "a", bundle("", driver="model", revision="one"))
    assert isinstance(first, Started)
    helpers.wait_for(ready(slots, "a"))
    assert slots.activate("shop/eye", "a") == Finished()
    client = Client(first.address)
    try:
        helpers.wait_for(lambda: "one" in client.answers)
        slots.start("shop/eye", "b", bundle("", driver="model", revision="two"))
        helpers.wait_for(ready(slots, "b"))
        time.sleep(0.1)
        assert set(client.answers) == {"one"}, "nothing is served before activation"
        assert slots.activate("shop/eye", "b") == Finished()
        assert slots.stop("shop/eye", "a", 60) == Stopped(code=0), "drained, not signalled"
        count = len(client.answers)
        helpers.wait_for(lambda: len(client.answers) > count + 5)
        assert client.answers[-1] == "two"
    finally:
        client.end()
    assert client.failures == []
    assert [(one.slot, one.active) for one in slots.observe()] == [("b", True)]


def test_a_model_server_is_told_its_runtime_and_its_share_of_processors(supervisor, bundle, helpers, model_slots, monkeypatch):
    monkeypatch.setenv("EDGEWISE_SKETCH_INPUTS", "0")
    launch = bundle("", driver="model", cpu_milli=500)
    launch = msgspec.structs.replace(launch, variant=msgspec.structs.replace(launch.variant, runtime="openvino"))
    model_slots.start("shop/eye", "a", launch)
    helpers.wait_for(lambda: "threads 1 runtime openvino sketches 0\n" in supervisor.log("shop.eye"))


def test_a_model_server_that_does_not_activate(supervisor, bundle, helpers, model_slots):
    slots = model_slots
    slots.start("shop/eye", "a", bundle("", driver="model", revision="bad"))
    helpers.wait_for(ready(slots, "a"))
    answer = slots.activate("shop/eye", "a")
    assert isinstance(answer, Failed)
    assert (answer.kind, answer.reason) == ("transient", "NotActivated")
    assert [one.active for one in slots.observe()] == [False]


SPLIT = Traffic(mode="split", share=0.25, sticky="x-session")


def test_a_model_server_is_told_what_its_candidate_is_to_see(supervisor, bundle, helpers, model_slots):
    slots, control = model_slots, {slot: control_socket_path(str(supervisor.data), "shop/eye", slot) for slot in ("a", "b")}
    slots.start("shop/eye", "a", bundle("", driver="model", revision="one"))
    helpers.wait_for(ready(slots, "a"))
    assert slots.route("shop/eye", "a", "b", "two", SPLIT) == Finished()
    told = {"mode": "split", "share": 0.25, "sticky": "x-session", "revision": "two", "target": control["b"]}
    assert json.loads(Path(f"{control['a']}.told").read_bytes()) == told


@pytest.mark.parametrize(
    ("revision", "traffic", "answer"),
    [("bad", SPLIT, "NotRouted"), ("bad", Traffic(), "NotRouted"), ("old", SPLIT, "NotRouted"), ("old", Traffic(), None)],
)
def test_a_model_server_that_does_not_take_it(supervisor, bundle, helpers, model_slots, revision, traffic, answer):
    slots = model_slots
    slots.start("shop/eye", "a", bundle("", driver="model", revision=revision))
    helpers.wait_for(ready(slots, "a"))
    found = slots.route("shop/eye", "a", "b", "two", traffic)
    assert (found.reason if isinstance(found, Failed) else None) == answer


def test_a_candidate_sees_a_share_of_what_real_model_servers_are_asked(supervisor, bundle, helpers, tmp_path):
    supervisor.run()
    slots = supervisor.slots()
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 1])
    for slot, revision, operation in (("a", "one", "Neg"), ("b", "two", "Abs")):
        launch = bundle(f"# {revision}", driver="model", revision=revision)
        out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 1])
        graph = onnx.helper.make_graph([onnx.helper.make_node(operation, ["x"], ["y"])], "g", [value], [out])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, str(supervisor.data / "trees" / launch.tree / "model.onnx"))
        started = slots.start("shop/eye", slot, launch)
        helpers.wait_for(ready(slots, slot))
    assert slots.activate("shop/eye", "a") == Finished()
    body = json.dumps({"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [2]}]})

    def asked(count):
        host, _, port = started.address.removeprefix("http://").partition(":")
        connection, found = http.client.HTTPConnection(host, int(port), timeout=60), []
        for _ in range(count):
            connection.request("POST", "/v2/models/eye/infer", body)
            answer = connection.getresponse()
            found.append((answer.headers["edgewise-revision"], json.loads(answer.read())["outputs"][0]["data"]))
        connection.close()
        return found

    assert slots.route("shop/eye", "a", "b", "two", Traffic(mode="split", share=0.5)) == Finished()
    found = asked(20)
    assert dict(found) == {"one": [-2], "two": [2]}
    assert 9 <= [revision for revision, _ in found].count("two") <= 11
    assert slots.route("shop/eye", "a", "b", "two", Traffic()) == Finished()
    assert asked(10) == [("one", [-2])] * 10
    assert slots.route("shop/eye", "a", "b", "two", Traffic(mode="split")) == Finished()
    assert asked(3) == [("two", [2])] * 3
    assert slots.stop("shop/eye", "b", 60) == Stopped(code=0)
    assert asked(10) == [("one", [-2])] * 10


def test_nobody_is_told_where_nothing_runs(model_slots):
    found = model_slots.route("shop/eye", "a", "b", "two", SPLIT)
    assert isinstance(found, Failed)
    assert (found.kind, found.reason) == ("transient", "NotRunning")


def test_a_model_server_that_is_adopted_keeps_its_control_socket(supervisor, bundle, helpers, model_slots):
    model_slots.start("shop/eye", "a", bundle("", driver="model", revision="one"))
    helpers.wait_for(ready(model_slots, "a"))
    model_slots.close()
    slots = supervisor.slots()
    slots.observe()
    assert ready(slots, "a")()
    assert slots.activate("shop/eye", "a") == Finished()
    assert slots.stop("shop/eye", "a", 60) == Stopped(code=0)


def test_a_model_server_that_hangs_is_stopped_all_the_same(supervisor, bundle, helpers, tmp_path):
    program = tmp_path / "hangs.py"
    program.write_text("import time\ntime.sleep(600)\n")
    supervisor.run()
    slots = supervisor.slots(model_server=(helpers.python, "-S", str(program)))
    slots.start("shop/eye", "a", bundle("", driver="model"))
    probed = slots.probe("shop/eye", "a", "readiness", Probe(timeout_seconds=0.5))
    assert not probed.ok
    assert slots.stop("shop/eye", "a", 60) == Stopped(code=-15)
