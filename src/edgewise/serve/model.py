"""One ONNX model in memory: loading it, finding out what it takes, warming it up, running it."""

import time
from pathlib import Path
from typing import Final

import onnxruntime as ort

from edgewise.serve.tensors import Array, TensorSpec, datatype_of, zeros

_WARM_SIZES: Final = (1, 32, 224)
"""What free dimensions other than the first are set to for the first inference, until one works."""
_FATAL: Final = 4


class ModelFailed(Exception):
    """The model does not load, or does not answer its first inference. One line."""


class InferenceFailed(Exception):
    """The runtime could not run the model on this input. One line."""


def find_model(tree: Path) -> Path:
    """Return the path of the tree's only `*.onnx` file. Raises `ModelFailed`."""
    try:
        found = [each for each in tree.iterdir() if each.suffix == ".onnx" and each.is_file()]
    except OSError as error:
        raise ModelFailed(f"the model's folder cannot be read: {error.strerror}") from error
    if len(found) != 1:
        raise ModelFailed(f"the model's folder must hold exactly one .onnx file, it holds {len(found)}")
    return found[0]


class Model:
    """A loaded, warmed-up model. `run` is called by one thread. Raises `ModelFailed`."""

    def __init__(self, path: Path, threads: int) -> None:
        started = time.monotonic()
        try:
            self._session = ort.InferenceSession(str(path), _options(threads), providers=["CPUExecutionProvider"])
            self.inputs = tuple(_spec(each) for each in self._session.get_inputs())
            self.outputs = tuple(_spec(each) for each in self._session.get_outputs() if datatype_of(each.type))
        except ModelFailed:
            raise
        except Exception as error:
            raise ModelFailed(f"the model does not load: {_line(error)}") from error
        if not self.outputs:
            raise ModelFailed("the model has no output that is a tensor")
        self._warm_up()
        self.load_seconds = time.monotonic() - started

    def run(self, inputs: dict[str, Array], outputs: list[str]) -> list[Array]:
        """Return the named outputs for inputs of the right types and shapes. Raises `InferenceFailed`."""
        try:
            return list(self._session.run(outputs, inputs))
        except Exception as error:
            raise InferenceFailed(_line(error)) from error

    def _warm_up(self) -> None:
        names = [each.name for each in self.outputs]
        failure = ""
        for size in _WARM_SIZES:
            try:
                self.run({each.name: zeros(each, size) for each in self.inputs}, names)
            except InferenceFailed as error:
                failure = failure or str(error)
            else:
                return
        raise ModelFailed(f"the model does not answer: {failure}")


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
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


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]
