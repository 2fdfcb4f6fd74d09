"""LiteRT, formerly TensorFlow Lite: `.tflite` files on the CPU (XNNPACK).

A `.tflite` file has fixed shapes and remembers those that it was made with as free. Its interpreter is resized when a request has another
shape than the one before, so clients that keep to one shape pay nothing.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from edgewise.serve.runtimes.contract import InferenceFailed, ModelFailed, Options, line
from edgewise.serve.tensors import Array, TensorSpec

_DATATYPES: Final = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8", "int16": "INT16",
    "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip


class _Interpreted:
    platform = "tensorflow_lite"
    device = "cpu"

    def __init__(self, interpreter: Interpreter) -> None:
        self._interpreter = interpreter
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        self.inputs = tuple(_spec(each) for each in inputs)
        self.outputs = tuple(_spec(each) for each in outputs)
        self._places = {each["name"]: each["index"] for each in (*inputs, *outputs)}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def run(self, inputs: dict[str, Array], outputs: list[str]) -> list[Array]:
        try:
            shapes = {name: array.shape for name, array in inputs.items()}
            if shapes != self._shapes:
                self._resize(shapes)
            for name, array in inputs.items():
                self._interpreter.set_tensor(self._places[name], np.ascontiguousarray(array))
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(self._places[name]) for name in outputs]
        except Exception as error:
            self._shapes = {}
            raise InferenceFailed(line(error)) from error

    def _resize(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self._shapes = {}
        for name, shape in shapes.items():
            self._interpreter.resize_tensor_input(self._places[name], list(shape), strict=True)
        self._interpreter.allocate_tensors()
        self._shapes = shapes


def load(path: Path, options: Options) -> _Interpreted:
    """Load a `.tflite` file."""
    try:
        return _Interpreted(Interpreter(model_path=str(path), num_threads=options.threads))
    except ModelFailed:
        raise
    except Exception as error:
        raise ModelFailed(f"the model does not load: {line(error)}") from error


def _spec(detail: dict[str, Any]) -> TensorSpec:
    datatype = _DATATYPES.get(np.dtype(detail["dtype"]).name)
    if datatype is None:
        raise ModelFailed(f"tensor {detail['name']!r} of the model is {np.dtype(detail['dtype']).name}, which is not served from LiteRT")
    shape = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
    return TensorSpec(detail["name"], datatype, tuple(int(size) for size in shape))
