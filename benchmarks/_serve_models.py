"""The models that servers are measured with: a tiny one, and a convolutional one of 5 MB."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TINY = "tiny"
CNN = "cnn"
SHAPES = {TINY: (1, 16), CNN: (1, 3, 96, 96)}
_WIDTHS = (24, 48, 96, 192, 288)


def save_models(folder: Path) -> dict[str, Path]:
    """Write both models, each in a folder of its own; return their folders by name."""
    made = {}
    for name, make in ((TINY, _tiny), (CNN, _cnn)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        onnx.save(make(), str(folder / name / "model.onnx"))
        made[name] = folder / name
    return made


def _tiny() -> onnx.ModelProto:
    """Sixteen numbers to four classes."""
    weights = _weights("w", (16, 4))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["y"])]
    return _model(nodes, [weights], (16,), 4)


def _cnn() -> onnx.ModelProto:
    """A picture of 96 by 96 to ten classes: five 3 by 3 convolutions with stride 2, then one 1 by 1, then the mean of each channel."""
    nodes, constants, before, channels = [], [], "x", 3
    for index, width in enumerate(_WIDTHS):
        constants += [_weights(f"w{index}", (width, channels, 3, 3)), _weights(f"b{index}", (width,))]
        conv = ["Conv", [before, f"w{index}", f"b{index}"], [f"c{index}"]]
        nodes += [
            helper.make_node(*conv, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", [f"c{index}"], [f"r{index}"]),
        ]
        before, channels = f"r{index}", width
    constants += [_weights("w", (1664, channels, 1, 1)), _weights("out", (1664, 10))]
    nodes += [
        helper.make_node("Conv", [before, "w"], ["c"], kernel_shape=[1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "out"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y"]),
    ]
    return _model(nodes, constants, (3, 96, 96), 10)


def _weights(name: str, shape: tuple[int, ...]) -> onnx.TensorProto:
    random = np.random.default_rng(7)
    return numpy_helper.from_array((random.standard_normal(shape) * 0.05).astype("float32"), name)


def _model(nodes: list, constants: list, shape: tuple[int, ...], classes: int) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", classes])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
