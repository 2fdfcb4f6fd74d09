"""What a running server tells its agent, and labels that come later."""

import base64
import contextlib
import http.server
import json
import socketserver
import threading

import datasketches
import pytest

from edgewise import workload


class Agent(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """The local workload API, as far as a model server uses it."""

    daemon_threads = True

    def __init__(self, path) -> None:
        self.told, self.headers, self.port = [], [], 0
        super().__init__(str(path), _Handler)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.told += body["summaries"]
        self.server.headers.append((self.path, self.headers["Edgewise-Revision"]))
        self._answer({"accepted": len(body["summaries"])})

    def do_GET(self) -> None:
        address = f"http://127.0.0.1:{self.server.port}"
        self._answer({"name": self.path.rpartition("/")[2], "address": address, "revision": "m-1", "ready": True})

    def _answer(self, content) -> None:
        answer = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


@pytest.fixture
def agent(tmp_path, monkeypatch):
    agent = Agent(tmp_path / "api.sock")
    thread = threading.Thread(target=agent.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("EDGEWISE_API", str(tmp_path / "api.sock"))
    monkeypatch.setenv("EDGEWISE_REVISION", "m-1")
    yield agent
    agent.shutdown()
    thread.join()
    agent.server_close()


def post(connection, path, body):
    connection.request("POST", path, json.dumps(body))
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def infer(connection, request, values):
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, len(values)], "data": values}
    return post(connection, "/v2/models/m/infer", {"id": request, "inputs": [tensor]})


def test_a_server_tells_its_agent_what_it_measured_and_says_the_rest_at_its_end(supervisor, tree, agent):
    server = supervisor.start(tree).activate()
    with contextlib.closing(supervisor.connect()) as connection:
        status, answer = infer(connection, "frame-1", [1.0, 2.0, 3.0, 4.0])
        assert (status, answer["id"]) == (200, "frame-1")
        feedback = [{"id": "frame-1", "label": 3}, {"id": "frame-2", "label": 3}]
        status, said = post(connection, "/v2/models/m/feedback", {"feedback": feedback})
        assert (status, said["accepted"], said["refused"][0]["reason"]) == (200, 1, "UnknownRequest")
    server.drain()
    assert server.ended() == 0
    told = {one["name"]: one for one in agent.told}
    assert agent.headers[0] == ("/v1/metrics", "m-1")
    assert (told["model.accuracy"]["count"], told["model.accuracy"]["sum"]) == (1, 1.0)
    assert told["model.server.errors"]["count"] == 1
    assert told["model.server.errors"].get("sum", 0) == 0
    duration = told["model.server.request.duration"]
    assert (duration["count"], duration["unit"], sum(duration["buckets"])) == (1, "s", 1)
    sketch = told["model.input.x.0"]
    kll = datasketches.kll_floats_sketch.deserialize(base64.b64decode(sketch["sketch"]))
    assert (kll.n, kll.get_max_value(), sketch["sketchType"]) == (1, 1.0, "kll-float")


def test_a_workload_says_later_what_was_right(supervisor, tree, agent):
    agent.port = supervisor.port
    server = supervisor.start(tree).activate()
    with contextlib.closing(supervisor.connect()) as connection:
        assert infer(connection, "frame-1", [1.0, 2.0, 3.0, 4.0])[0] == 200
        assert infer(connection, "frame-2", [1.0, 2.0, 3.0, 4.0])[0] == 200
    workload.label("m", "frame-1", 3)
    workload.label("m", "frame-2", 0)
    with pytest.raises(workload.Denied, match="has its label"):
        workload.label("m", "frame-1", 3)
    with pytest.raises(workload.NotFound, match="no request"):
        workload.label("m", "frame-3", 3)
    with pytest.raises(workload.Denied, match="not feedback"):
        workload.label("m", "", 3)
    server.drain()
    assert server.ended() == 0
    supervisor.listener.close()
    with pytest.raises(workload.Unavailable):
        workload.label("m", "frame-1", 3)
    told = {one["name"]: one for one in agent.told}
    assert (told["model.accuracy"]["count"], told["model.accuracy"]["sum"]) == (2, 1.0)
