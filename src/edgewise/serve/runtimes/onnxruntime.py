"""ONNX Runtime, on the best of the execution providers that it was built with and that this device bears out."""

import ctypes
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort

from edgewise.serve.runtimes.contract import InferenceFailed, ModelFailed, Options, line
from edgewise.serve.tensors import BF16, Array, TensorSpec, datatype_of

_FATAL: Final = 4
_BFLOAT16: Final = 16  # onnx.TensorProto.BFLOAT16
_TENSOR: Final = "tensor(bfloat16)"
_CPU: Final = "CPUExecutionProvider"
_PREFERRED: Final = {
    "TensorrtExecutionProvider": "tensorrt",
    "CUDAExecutionProvider": "cuda",
    "OpenVINOExecutionProvider": "openvino",
    _CPU: "cpu",
}
"""The fastest first. What a provider cannot run, the next one does."""


class _Session:
    platform = "onnxruntime_onnx"

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self.device = _PREFERRED.get(session.get_providers()[0], "cpu")
        self.inputs = tuple(_spec(each) for each in session.get_inputs())
        self.outputs = tuple(_spec(each) for each in session.get_outputs() if datatype_of(each.type))
        self._halves = frozenset(each.name for each in (*self.inputs, *self.outputs) if each.datatype == BF16)

    def run(self, inputs: dict[str, Array], outputs: list[str]) -> list[Array]:
        try:
            if self._halves:
                return self._run_values(inputs, outputs)
            return list(self._session.run(outputs, inputs))
        except Exception as error:
            raise InferenceFailed(line(error)) from error

    def _run_values(self, inputs: dict[str, Array], outputs: list[str]) -> list[Array]:
        """Run on the runtime's own values: numpy has no BF16, so its arrays hold the bits."""
        values = {
            name: ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _BFLOAT16)
            if name in self._halves
            else ort.OrtValue.ortvalue_from_numpy(array)
            for name, array in inputs.items()
        }
        return [
            _bits(value) if value.data_type() == _TENSOR else value.numpy() for value in self._session.run_with_ort_values(outputs, values)
        ]


def _bits(value: ort.OrtValue) -> Array:
    shape = tuple(value.shape())
    array: Array = np.empty(shape, dtype="uint16")
    if array.size:
        ctypes.memmove(array.ctypes.data, value.data_ptr(), array.nbytes)
    return array


def load(path: Path, options: Options) -> _Session:
    """Load a `.onnx` file."""
    try:
        return _Session(ort.InferenceSession(str(path), _options(options), providers=_providers(options)))
    except ModelFailed:
        raise
    except Exception as error:
        raise ModelFailed(f"the model does not load: {line(error)}") from error


def _providers(options: Options) -> list[str | tuple[str, dict[str, Any]]]:
    built = set(ort.get_available_providers())
    settings: dict[str, dict[str, Any]] = {}
    if options.cache is not None:  # it takes minutes to build an engine
        settings["TensorrtExecutionProvider"] = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(options.cache)}
    return [(name, settings[name]) if name in settings else name for name in _PREFERRED if name in built]


def _options(asked: Options) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = asked.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL  # failures are raised; what the runtime prints besides would only repeat them
    options.enable_cpu_mem_arena = False  # an arena keeps the largest request's memory for ever
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others need the processor too
    return options


def _spec(node: ort.NodeArg) -> TensorSpec:
    datatype = datatype_of(node.type)
    if datatype is None:
        raise ModelFailed(f"input {node.name!r} of the model is {node.type}, which cannot come with a request")
    return TensorSpec(node.name, datatype, tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape))
