"""A model server whose model does as the test says: `x` is how many seconds an inference takes; one below 0 takes until it is released. Not a
test.

Arguments: listening descriptor, control socket, file that must exist before the model is loaded (with `.go` behind its name: the file that
releases inferences), limits as JSON.
"""

import json
import socket
import sys
import time
from pathlib import Path

import numpy as np

from edgewise.serve.inference import Identity
from edgewise.serve.limits import ServeLimits
from edgewise.serve.server import Server
from edgewise.serve.tensors import TensorSpec


class SlowModel:
    inputs = (TensorSpec("x", "FP32", (1,)),)
    outputs = (TensorSpec("y", "FP32", (1,)),)
    load_seconds = 0.0
    platform, runtime, device = "sleep", "sleep", "cpu"
    answers_rows_alone = False

    def run(self, inputs, outputs):
        seconds = float(inputs["x"][0])
        while seconds < 0 and not Path(f"{sys.argv[3]}.go").exists():
            time.sleep(0.005)
        time.sleep(max(0.0, seconds))
        return [np.zeros(1, dtype="float32") for _ in outputs]


def load():
    while not Path(sys.argv[3]).exists():
        time.sleep(0.01)
    return SlowModel()


control = socket.socket(socket.AF_UNIX)
control.bind(sys.argv[2])
control.listen()
identity = Identity(instance="default/slow", name="m", versions=("slow-1",), revision="slow-1")
raise SystemExit(Server((socket.socket(fileno=int(sys.argv[1])), control), identity, load, ServeLimits(**json.loads(sys.argv[4]))).run())
