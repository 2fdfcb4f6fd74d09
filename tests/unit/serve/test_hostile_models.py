"""Model files that were made to do harm: each ends in one clear line, and nothing of the device is read."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgewise.serve.model import Model
from edgewise.serve.runtimes.contract import ModelFailed

WEIGHTS = np.ones(4, np.float32)


def save(path, nodes, initializers=(), *, domain=""):
    value = (TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", *value)],
        [helper.make_tensor_value_info("y", *value)],
        list(initializers),
    )
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())
    return path


def weights(dims, location=None, raw=b"", length=16):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=raw)
    if location is not None:
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
    return tensor


ADD = [helper.make_node("Add", ["x", "w"], ["y"])]


def is_refused(path):
    with pytest.raises(ModelFailed) as caught:
        Model(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_beside_the_model_are_read(tmp_path):
    (tmp_path / "weights.bin").write_bytes(WEIGHTS.tobytes())
    model = Model(save(tmp_path / "m.onnx", ADD, [weights([4], "weights.bin")]))
    assert model.run({"x": np.zeros((1, 4), np.float32)}, ["y"])[0].tolist() == [[1, 1, 1, 1]]


@pytest.mark.parametrize("location", ["../secret.bin", "{folder}/secret.bin", "a/../../secret.bin", "link.bin", "missing.bin", ""])
def test_weights_outside_the_tree_are_not_read(tmp_path, location):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    (tree / "link.bin").symlink_to("../secret.bin")
    is_refused(save(tree / "m.onnx", ADD, [weights([4], location.format(folder=tmp_path))]))


def test_weights_that_end_too_early_are_refused(tmp_path):
    (tmp_path / "weights.bin").write_bytes(WEIGHTS.tobytes()[:8])
    is_refused(save(tmp_path / "m.onnx", ADD, [weights([4], "weights.bin")]))


@pytest.mark.parametrize("dims", [[2**40, 2**20], [2**62, 2**62], [-4], [1000]])
def test_weights_that_lie_about_their_size_are_refused(tmp_path, dims):
    is_refused(save(tmp_path / "m.onnx", ADD, [weights(dims, raw=WEIGHTS.tobytes())]))


def test_a_tensor_larger_than_any_memory_is_refused(tmp_path):
    size = helper.make_tensor("s", TensorProto.INT64, [2], [2**31, 2**20])
    nodes = [
        helper.make_node("Constant", [], ["s"], value=size),
        helper.make_node("ConstantOfShape", ["s"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["r"], keepdims=0),
        helper.make_node("Add", ["x", "r"], ["y"]),
    ]
    is_refused(save(tmp_path / "m.onnx", nodes))


@pytest.mark.parametrize(
    ("nodes", "domain"),
    [
        (
            [
                helper.make_node("Add", ["x", "b"], ["a"]),
                helper.make_node("Add", ["a", "x"], ["b"]),
                helper.make_node("Relu", ["a"], ["y"]),
            ],
            "",
        ),
        ([helper.make_node("Evil", ["x"], ["y"], domain="com.evil")], "com.evil"),
        ([helper.make_node("Relu", ["nowhere"], ["y"])], ""),
        ([], ""),
    ],
)
def test_graphs_that_cannot_run_are_refused(tmp_path, nodes, domain):
    is_refused(save(tmp_path / "m.onnx", nodes, domain=domain))
