"""OpenVINO: its own IR (`.xml` with `.bin`), and ONNX files where it is asked for. On a GPU or NPU of Intel's where there is one."""

from pathlib import Path
from typing import Final

import openvino as ov

from edgewise.serve.runtimes.contract import InferenceFailed, ModelFailed, Options, line
from edgewise.serve.tensors import Array, TensorSpec

_DATATYPES: Final = {
    "boolean": "BOOL", "u8": "UINT8", "u16": "UINT16", "u32": "UINT32", "u64": "UINT64", "i8": "INT8", "i16": "INT16", "i32": "INT32",
    "i64": "INT64", "f16": "FP16", "f32": "FP32", "f64": "FP64",
}  # fmt: skip


class _Compiled:
    platform = "openvino"

    def __init__(self, model: ov.CompiledModel, device: str) -> None:
        self.device = device.partition(".")[0].lower()
        self.inputs = tuple(_spec(port) for port in model.inputs)
        self.outputs = tuple(_spec(port) for port in model.outputs)
        self._ports = {spec.name: at for at, spec in enumerate(self.outputs)}
        self._request = model.create_infer_request()

    def run(self, inputs: dict[str, Array], outputs: list[str]) -> list[Array]:
        try:
            found = self._request.infer(inputs, share_inputs=True, share_outputs=False)
            return [found[self._ports[name]] for name in outputs]
        except Exception as error:
            raise InferenceFailed(line(error)) from error


def load(path: Path, options: Options) -> _Compiled:
    """Load an `.xml` or `.onnx` file."""
    try:
        core = ov.Core()
        device = next((each for each in core.available_devices if each.startswith("GPU")), "CPU")
        settings = {"PERFORMANCE_HINT": "LATENCY"}
        if device == "CPU":
            settings["INFERENCE_NUM_THREADS"] = str(options.threads)
        elif options.cache is not None:  # kernels take a while to build
            settings["CACHE_DIR"] = str(options.cache)
        return _Compiled(core.compile_model(str(path), device, settings), device)
    except ModelFailed:
        raise
    except Exception as error:
        raise ModelFailed(f"the model does not load: {line(error)}") from error


def _spec(port: ov.ConstOutput) -> TensorSpec:
    datatype = _DATATYPES.get(port.element_type.get_type_name())
    name = port.any_name
    if datatype is None:
        raise ModelFailed(f"tensor {name!r} of the model is {port.element_type.get_type_name()}, which the protocol does not carry")
    shape = port.partial_shape
    if shape.rank.is_dynamic:
        return TensorSpec(name, datatype, ())
    return TensorSpec(name, datatype, tuple(-1 if size.is_dynamic else size.get_length() for size in shape))
