import onnx
import pytest
from onnx import TensorProto, helper

from edgewise.serve.inference import Identity
from edgewise.serve.limits import ServeLimits
from edgewise.serve.model import Model


def _save(path, nodes, inputs, outputs, constants=()):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        list(constants),
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


@pytest.fixture(scope="session")
def save_model():
    """Write a model: nodes, inputs and outputs as (name, type, shape), constants."""
    return _save


@pytest.fixture(scope="session")
def double(tmp_path_factory) -> Model:
    """y = x + x for any batch of 3 values."""
    node = helper.make_node("Add", ["x", "x"], ["y"])
    value = (TensorProto.FLOAT, ["n", 3])
    return Model(_save(tmp_path_factory.mktemp("double") / "model.onnx", [node], [("x", *value)], [("y", *value)]))


@pytest.fixture(scope="session")
def echo(tmp_path_factory):
    """Models that answer what they are given, one per ONNX type."""
    made: dict[int, Model] = {}

    def make(kind: int) -> Model:
        if kind not in made:
            node = helper.make_node("Identity", ["x"], ["y"])
            path = tmp_path_factory.mktemp("echo") / "model.onnx"
            made[kind] = Model(_save(path, [node], [("x", kind, ["n"])], [("y", kind, ["n"])]))
        return made[kind]

    return make


@pytest.fixture(scope="session")
def identity() -> Identity:
    return Identity(instance="line-3/double", name="double", versions=("7", "double-abc"), revision="double-abc")


@pytest.fixture
def limits() -> ServeLimits:
    return ServeLimits(values_max=12, tensors_max=3, rank_max=4)
