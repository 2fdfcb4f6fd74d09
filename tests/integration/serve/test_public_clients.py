"""Clients that others wrote, unmodified, each in an environment of its own, talk to the model server."""

import json
import os
import subprocess
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

CLIENTS = Path(__file__).parents[2] / "clients"
ENVIRONMENTS = Path(os.environ.get("EDGEWISE_CLIENTS", Path(__file__).parents[3] / ".venv/clients"))
TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
    "BF16": TensorProto.BFLOAT16,
}


def _python(name: str) -> str:
    python = ENVIRONMENTS / name / "bin/python"
    if not (python.parent.parent / ".installed").is_file():
        message = f"the client {name} is not installed: make clients"
        if os.environ.get("EDGEWISE_REQUIRE_ALL") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return str(python)


def _talk(client: str, *arguments: str) -> dict:
    argv = [_python(client), str(CLIENTS / f"{client}_client.py"), *arguments]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=100, env={"PATH": os.environ["PATH"]}, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.fixture
def server(supervisor, tmp_path):
    """Start a server whose model answers each input, of these datatypes, as it came."""

    def start(*datatypes: str) -> str:
        tree = tmp_path / "tree"
        tree.mkdir()
        ends = [(each, TYPES[each], ["n"]) for each in datatypes]
        graph = helper.make_graph(
            [helper.make_node("Identity", [f"x_{each}"], [f"y_{each}"]) for each in datatypes],
            "g",
            [helper.make_tensor_value_info(f"x_{each}", *rest) for each, *rest in ends],
            [helper.make_tensor_value_info(f"y_{each}", *rest) for each, *rest in ends],
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(tree / "model.onnx"))
        supervisor.start(tree, revision="m-1").activate()
        return f"127.0.0.1:{supervisor.port}"

    return start


def test_triton_client(server):
    _python("triton")
    every = [each for each in TYPES if each != "BF16"]
    told = _talk("triton", server(*every), "m", "m-1")
    assert sorted(told["datatypes"]) == sorted(every)
    assert told["asked"] >= 28


def test_triton_client_with_bf16(server):
    _python("triton")
    assert _talk("triton", server("BF16", "FP32"), "m", "m-1")["datatypes"] == ["BF16", "FP32"]


def test_kserve_client(server):
    _python("kserve")
    every = [each for each in TYPES if each != "BF16"]
    assert _talk("kserve", f"http://{server(*every)}", "m")["datatypes"] == every
