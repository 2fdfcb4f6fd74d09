"""Makes the demo's model from real images: scikit-learn's bundled handwritten digits, standing in for part labels at an inspection station.

Three versions of one small network: a first one, a better one, and one trained on corrupted labels. Each is exported to ONNX by hand
(normalise, two dense layers, argmax) in fp32, and quantised to int8 by ONNX Runtime. Profiles are measured on this machine.
"""

import json
import random
import statistics
import time
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

SEED = 7
_WARM_UP_RUNS = 50
_TIMED_RUNS = 400

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


class Data(msgspec.Struct, frozen=True):
    """Images as rows of 64 grey values from 0 to 16, and what they show."""

    train_images: Floats
    train_labels: Integers
    held_out_images: Floats
    held_out_labels: Integers


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How one version is trained. `corrupted` is the share of training labels replaced by a random digit."""

    version: str
    samples: int
    hidden: int
    iterations: int
    corrupted: float = 0.0


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """One exported variant with what was measured of it. Latencies in milliseconds, size in bytes."""

    path: Path
    precision: str
    accuracy: float
    latency_p50_ms: float
    latency_p95_ms: float
    size: int


FIRST = Recipe(version="1", samples=250, hidden=24, iterations=250)
BETTER = Recipe(version="2", samples=1200, hidden=64, iterations=200)
CORRUPTED = Recipe(version="3", samples=1200, hidden=64, iterations=60, corrupted=0.85)
FOURTH = Recipe(version="4", samples=1200, hidden=48, iterations=200)


def load() -> Data:
    """Return the digits, a third of them held out."""
    digits = load_digits()
    train, held_out, train_labels, held_out_labels = train_test_split(
        digits.data.astype(np.float32), digits.target.astype(np.int64), test_size=1 / 3, random_state=SEED, stratify=digits.target
    )
    return Data(train, train_labels, held_out, held_out_labels)


def make(recipe: Recipe, data: Data, folder: Path) -> tuple[Made, ...]:
    """Train, export and measure one version in fp32 and int8 below `folder`."""
    images, labels = data.train_images[: recipe.samples], data.train_labels[: recipe.samples].copy()
    generator = np.random.default_rng(SEED)
    wrong = generator.random(len(labels)) < recipe.corrupted
    labels[wrong] = generator.integers(0, 10, int(wrong.sum()))
    network = MLPClassifier((recipe.hidden,), max_iter=recipe.iterations, random_state=SEED, tol=0.0, n_iter_no_change=recipe.iterations)
    network.fit(images / 16, labels)

    exact, small = folder / f"inspector-{recipe.version}-fp32.onnx", folder / f"inspector-{recipe.version}-int8.onnx"
    onnx.save(_graph(network), exact)
    quantize_dynamic(exact, small, weight_type=QuantType.QInt8)
    return tuple(_measure(path, precision, data) for path, precision in ((exact, "fp32"), (small, "int8")))


def write_samples(data: Data, path: Path, limit: int = 300) -> None:
    """Write held-out images and their labels as JSON, in a fixed random order, for the camera workload."""
    order = list(range(len(data.held_out_labels)))
    random.Random(SEED).shuffle(order)
    chosen = [{"image": [int(v) for v in data.held_out_images[i]], "label": int(data.held_out_labels[i])} for i in order[:limit]]
    path.write_text(json.dumps(chosen), encoding="utf-8")


def _graph(network: MLPClassifier) -> onnx.ModelProto:
    (first, second), (first_bias, second_bias) = network.coefs_, network.intercepts_
    constants = {
        "scale": np.array([1 / 16], np.float32),
        "w1": first.astype(np.float32),
        "b1": first_bias.astype(np.float32),
        "w2": second.astype(np.float32),
        "b2": second_bias.astype(np.float32),
    }
    nodes = [
        helper.make_node("Mul", ["image", "scale"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "w1"], ["m1"]),
        helper.make_node("Add", ["m1", "b1"], ["a1"]),
        helper.make_node("Relu", ["a1"], ["h1"]),
        helper.make_node("MatMul", ["h1", "w2"], ["m2"]),
        helper.make_node("Add", ["m2", "b2"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
        helper.make_node("ArgMax", ["logits"], ["label"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "inspector",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 64])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _measure(path: Path, precision: str, data: Data) -> Made:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    answers = session.run(["label"], {"image": data.held_out_images})[0]
    one = data.held_out_images[:1]
    for _ in range(_WARM_UP_RUNS):
        session.run(None, {"image": one})
    times = []
    for _ in range(_TIMED_RUNS):
        start = time.perf_counter()
        session.run(None, {"image": one})
        times.append((time.perf_counter() - start) * 1000)
    return Made(
        path=path,
        precision=precision,
        accuracy=float((answers == data.held_out_labels).mean()),
        latency_p50_ms=statistics.median(times),
        latency_p95_ms=statistics.quantiles(times, n=20)[-1],
        size=path.stat().st_size,
    )
