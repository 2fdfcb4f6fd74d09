"""The examples of sources, and the client that workloads ask models with, against a real server."""

import importlib.util
import socket
import threading
from collections import Counter
from pathlib import Path

import msgspec
import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from edgewise import workload
from edgewise.client.publishing import ReleaseFile
from edgewise.model_client import ModelClient, Refused, Tensor, Unavailable
from edgewise.workload import Service

EXAMPLES = Path(__file__).parents[3] / "examples"
SETTINGS = {
    "camera": ({"rate": 60}, (3, 96, 96), "camera.latency"),
    "vibration": ({"threshold": -1.0}, (256,), "vibration.score"),
    "audio": ({"quiet": 0.02}, (8000,), "audio.loudness"),
}


class Enough(Exception):
    """The example has run for long enough."""


@pytest.fixture
def server(supervisor, tmp_path):
    """Start a server whose model answers the mean of each row of `x`."""

    def start(shape) -> str:
        tree = tmp_path / "tree"
        tree.mkdir()
        nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("ReduceMean", ["f"], ["y"], axes=[1], keepdims=1)]
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])]
        outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])]
        graph = helper.make_graph(nodes, "g", inputs, outputs)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(tree / "model.onnx"))
        supervisor.start(tree).activate()
        return f"http://127.0.0.1:{supervisor.port}"

    return start


@pytest.mark.parametrize("name", SETTINGS)
def test_a_source_asks_the_model(server, supervisor, monkeypatch, name):
    more, shape, metric = SETTINGS[name]
    address = server(shape)
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / name / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    seen: Counter[str] = Counter()
    values: dict[str, list[float]] = {}

    def measured(of: str, value: float = 1.0, **_: object) -> None:
        seen[of] += 1
        values.setdefault(of, []).append(value)
        if seen[metric] == 45:
            raise Enough

    monkeypatch.setattr(workload, "service", lambda asked: Service(asked, address, "m-1", ready=True))
    monkeypatch.setattr(workload, "parameters", lambda: {"model": "m", "input": "x"} | more)
    monkeypatch.setattr(workload, "metric", measured)
    monkeypatch.setattr(workload, "count", measured)
    monkeypatch.setattr(workload, "heartbeat", lambda: seen.update(["heartbeat"]))
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    clients: list[ModelClient] = []

    def client(*arguments: object, **settings: object) -> ModelClient:
        clients.append(ModelClient(*arguments, **{**settings, "seconds": 60.0}))
        return clients[-1]

    monkeypatch.setattr(module, "ModelClient", client)
    with pytest.raises(Enough):
        module.main()
    clients[0].close()
    assert seen["heartbeat"] >= 44
    assert not [each for each in seen if each.endswith("dropped")]
    if name == "vibration":
        assert seen["vibration.windows.unusual"] == 44
        assert all(abs(score) < 1e-4 for score in values[metric])  # windows come without their mean
    if name == "audio":
        assert 30 <= seen["audio.windows.silent"] < 45  # whistles are rare, and asked about
        assert max(values[metric]) > 0.1


def test_tensors_go_and_come_back(server):
    client = ModelClient(server((4,)), "m")
    answer = client.ask({"x": Tensor.of("FP32", (2, 4), [1, 2, 3, 4, 0, 0, 0, 4])}, request_id="r")
    assert answer.revision == "m-1"
    assert answer.outputs["y"].shape == (2, 1)
    assert list(answer.outputs["y"].values()) == [2.5, 1.0]
    with pytest.raises(Refused, match="FP32") as refused:
        client.ask({"x": Tensor.of("INT8", (1, 4), [1, 2, 3, 4])})
    assert refused.value.status == 400
    assert list(client.ask({"x": Tensor.of("FP32", (1, 4), [1, 1, 1, 1])}).outputs["y"].values()) == [1.0]
    client.close()
    with pytest.raises(ValueError, match="FP16"):
        Tensor.of("FP16", (1,), [1])


def test_a_request_on_a_connection_that_was_closed_meanwhile_is_sent_again():
    head = b'{"outputs":[{"name":"y","datatype":"INT8","shape":[1],"parameters":{"binary_data_size":1}}]}'
    whole = (
        b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\ninference-header-content-length: %d\r\n\r\n" % (len(head) + 1, len(head)) + head + b"\7"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)

        def serve() -> None:
            for _ in range(2):  # one answer on each connection, which is then closed without a word
                sock, _ = listener.accept()
                with sock:
                    sock.recv(65536)
                    sock.sendall(whole)

        thread = threading.Thread(target=serve)
        thread.start()
        client = ModelClient(f"http://127.0.0.1:{listener.getsockname()[1]}", "m", seconds=60)
        for _ in range(2):
            assert list(client.ask({"x": Tensor("INT8", (1,), b"\1")}).outputs["y"].values()) == [7]
        thread.join()
        client.close()
    with pytest.raises(Unavailable):
        client.ask({"x": Tensor("INT8", (1,), b"\1")})


@pytest.mark.parametrize("name", SETTINGS)
def test_a_source_can_be_published(name):
    content = yaml.safe_load((EXAMPLES / name / "artifact.yaml").read_text())
    release = msgspec.convert(content, ReleaseFile)
    assert release.name == name
    assert (EXAMPLES / name / release.variants[0].path).is_file()
    assert set(SETTINGS[name][0]) <= set(release.parameters)
