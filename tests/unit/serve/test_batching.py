"""Requests that run together: which, how many, and that no answer changes."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgewise.serve.batching import Batches, Turn, joined, parted
from edgewise.serve.conversation import Request
from edgewise.serve.inference import Prepared
from edgewise.serve.limits import ServeLimits
from edgewise.serve.model import Model


def turn(serial, rows=1, width=2, **inputs):
    arrays = inputs or {"x": np.full((rows, width), serial, np.float32)}
    prepared = Prepared(inputs=arrays, wanted=(), id="")
    return Turn(serial, Request(method="POST", path="/", body=b"", keep_alive=True), prepared, 0.0, 0.0, 0.0)


def grown(rows, **limits):
    batches = Batches(ServeLimits(**{"batch_rows_max": 32} | limits), allowed=True)
    for size in range(1, rows):
        batches.took(size, 0.0)
    assert batches.requests_max == rows
    return batches


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 3)), max_size=30), st.integers(1, 16))
def test_every_request_runs_once_with_its_like_in_batches_that_are_not_too_large(asked, most):
    turns = [turn(serial, rows, width) for serial, (rows, width) in enumerate(asked)]
    groups = grown(most).groups(turns)
    assert sorted(one.serial for group in groups for one in group) == list(range(len(turns)))
    for group in groups:
        assert len({one.prepared.inputs["x"].shape[1] for one in group}) == 1
        assert len(group) == 1 or sum(one.prepared.rows for one in group) <= most
    assert [group[0].serial for group in groups] == sorted(group[0].serial for group in groups)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_each_request_gets_its_own_rows_back(rows):
    turns = [turn(serial, count) for serial, count in enumerate(rows)]
    together = joined(turns)
    for one, arrays in zip(turns, parted([together["x"], together["x"] * 2], turns), strict=True):
        assert arrays[0].tolist() == one.prepared.inputs["x"].tolist()
        assert arrays[1].tolist() == (one.prepared.inputs["x"] * 2).tolist()


def test_outputs_of_another_length_are_nobodys():
    turns = [turn(0), turn(1)]
    assert parted([np.zeros((3, 2))], turns) is None
    assert parted([np.zeros((2, 2)), np.float32(1)], turns) is None
    assert parted([np.float32(1)], turns[:1]) == [[np.float32(1)]]


def test_a_batch_grows_while_it_is_quick_and_halves_when_it_is_not():
    batches = grown(8, batch_seconds_max=0.02)
    batches.took(4, 0.001)
    assert batches.requests_max == 8, "a batch that was not full says nothing of a larger one"
    batches.took(8, 0.021)
    assert batches.requests_max == 4
    batches.took(4, 0.02)
    assert batches.requests_max == 5
    for _ in range(5):
        batches.took(batches.requests_max, 1.0)
    assert batches.requests_max == 1


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_batch_is_bounded(most):
    batches = Batches(ServeLimits(batch_rows_max=most), allowed=True)
    for _ in range(5):
        batches.took(batches.requests_max, 0.0)
    assert batches.requests_max == most


def test_a_model_that_mixes_rows_gets_each_request_alone():
    batches = Batches(ServeLimits(), allowed=False)
    batches.took(1, 0.0)
    assert batches.requests_max == 1
    assert [len(group) for group in batches.groups([turn(0), turn(1)])] == [1, 1]


def test_what_has_no_common_rows_runs_alone():
    odd = turn(1, x=np.zeros((2, 2)), y=np.zeros((3, 2)))
    scalar = turn(2, x=np.float32(1))
    empty = turn(3, rows=0)
    assert [len(group) for group in grown(8).groups([odd, odd, scalar, scalar, empty, empty])] == [1] * 6


def save(path, nodes, shape=("n", 4), outputs=("y",), kind=TensorProto.FLOAT):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, kind, shape) for name in outputs],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


@pytest.mark.parametrize(
    ("nodes", "shape", "alone"),
    [
        ([helper.make_node("Relu", ["x"], ["y"])], ("n", 4), True),
        ([helper.make_node("Softmax", ["x"], ["y"], axis=1)], ("n", 4), True),
        ([helper.make_node("Relu", ["x"], ["y"])], ("n", "m", 3), True),
        ([helper.make_node("Softmax", ["x"], ["y"], axis=0)], ("n", 4), False),
        ([helper.make_node("CumSum", ["x", "zero"], ["y"])], ("n", 4), False),
        ([helper.make_node("RandomNormalLike", ["x"], ["y"])], ("n", 4), False),
        ([helper.make_node("Relu", ["x"], ["y"])], (1, 4), False),
    ],
)
def test_whether_rows_are_answered_alone_is_tried(tmp_path, nodes, shape, alone):
    if nodes[0].op_type == "CumSum":
        nodes = [helper.make_node("Constant", [], ["zero"], value=helper.make_tensor("z", TensorProto.INT64, [], [0])), *nodes]
    assert Model(save(tmp_path / "m.onnx", nodes, shape)).answers_rows_alone is alone
