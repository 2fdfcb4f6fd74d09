"""The model that BentoML runs: ONNX Runtime in a service, as its documentation has it. Runs in BentoML's environment."""

import os
from typing import Annotated

import bentoml
import numpy as np
import onnxruntime as ort

SHAPE = tuple(int(each) for each in os.environ["EDGEWISE_BENCH_SHAPE"].split(","))


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Onnx:
    """One ONNX model."""

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = 1, 1
        path = os.environ["EDGEWISE_BENCH_MODEL"]
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    @bentoml.api
    def predict(self, x: Annotated[np.ndarray, bentoml.validators.DType("float32")]) -> np.ndarray:
        return self._session.run(None, {"x": x})[0]

    @bentoml.api
    def raw(self, data: bytes, /) -> bytes:
        return self._session.run(None, {"x": np.frombuffer(data, dtype="float32").reshape(SHAPE)})[0].tobytes()
