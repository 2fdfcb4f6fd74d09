"""What an inference request is answered with."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgewise.serve import tensors
from edgewise.serve.conversation import Request
from edgewise.serve.inference import infer
from edgewise.serve.limits import LIMITS
from edgewise.serve.model import Model
from edgewise.serve.runtimes.choose import find_model
from edgewise.serve.runtimes.contract import ModelFailed
from edgewise.serve.tensors import TensorRefused, TensorSpec, check_shape, read_values, write_values, zeros


def _input(data=None, **changes) -> dict:
    return {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3] if data is None else data} | changes


@pytest.fixture
def ask(double, identity, limits):
    def ask(body, model: Model = double):
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = infer(model, identity, Request(method="POST", path="", body=raw, keep_alive=True), limits)
        content = json.loads(answer.body)
        if answer.status != 200:
            assert set(content) == {"error"}
            assert content["error"]
        return answer.status, content

    return ask


def test_an_answer_carries_its_version_and_values(ask):
    assert ask({"id": "q1", "inputs": [_input()]}) == (
        200,
        {
            "model_name": "double",
            "model_version": "7",
            "id": "q1",
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [2.0, 4.0, 6.0]}],
        },
    )


def test_data_may_be_flat_or_nested(ask):
    flat = ask({"inputs": [_input([1, 2, 3, 4, 5, 6], shape=[2, 3])]})
    assert flat == ask({"inputs": [_input([[1, 2, 3], [4, 5, 6]], shape=[2, 3])]})
    assert flat == ask(b'{"inputs":[{"name":"x","shape":[2,3],"datatype":"FP32","data": [\n[1, 2,3 ],[4,5,6]] }]}')
    assert flat[1]["outputs"][0]["data"] == [2, 4, 6, 8, 10, 12]


def test_outputs_may_be_chosen_and_unknown_fields_are_passed_over(ask):
    assert ask({"inputs": [_input()], "outputs": [{"name": "y"}], "parameters": {"a": 1}, "more": {"x": []}})[0] == 200


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "z"}, "'x' missing"),
        ({"shape": [3]}, "shape"),
        ({"shape": [1, 4], "data": [1, 2, 3, 4]}, "shape"),
        ({"shape": [0, 3], "data": [1]}, "none fits"),
        ({"shape": [0, 10**9, 3], "data": []}, "shape"),
        ({"shape": [-1, 3]}, "shape"),
        ({"shape": [1.0, 3]}, "int"),
        ({"shape": [True, 3]}, "int"),
        ({"shape": [10**30, 3]}, "values"),
        ({"shape": [5, 3], "data": [0.0] * 15}, "more than 12 values"),
        ({"shape": [1] * 5}, "4 dimensions"),
        ({"datatype": "FP64"}, "FP32"),
        ({"datatype": "x" * 1000}, "FP32"),
        ({"data": [1, 2]}, "3 values"),
        ({"data": [1, 2, 3, 4]}, "3 values"),
        ({"data": []}, "3 values"),
        ({"data": [[[1, 2, 3]]]}, "nested"),
        ({"data": [[1, 2], [3]]}, "inhomogeneous"),
        ({"data": ["1", "2", "3"]}, "FP32"),
        ({"data": [1, None, 3]}, "FP32"),
        ({"data": [True, False, True]}, "FP32"),
        ({"data": [1e300, 2, 3]}, "FP32"),
        ({"data": "abc"}, "nested"),
        ({"data": {"0": 1}}, "nested"),
        ({"data": 5}, "nested"),
        ({"parameters": {"binary_data_size": 12}}, "binary"),
    ],
)
def test_a_wrong_input_is_refused(ask, change, words):
    status, content = ask({"inputs": [_input(**change)]})
    assert status == 400
    assert words in content["error"]
    assert len(content["error"]) < 1000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"inputs": []}',
        b'{"inputs": {}}',
        b'{"inputs": [' + b"[" * 100_000,
        b'{"a": ' + b'{"a": ' * 100_000,
        b"[" * 1_000_000,
        b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
        b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[NaN,1,2]}]}',
        b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[Infinity,1,2]}]}',
        b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1e999,1,2]}]}',
        b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,1,2]},{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,1,2]}]}',
        b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32"}]}',
        b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,1,2]}],"outputs":[{"name":"z"}]}',
        b'{"inputs":[{"name":"x","shape":[1,3],"datatype":"FP32","data":[1,1,2]}],"outputs":[{"name":"y"},{"name":"y"}]}',
    ],
)
def test_a_wrong_body_is_refused(ask, body):
    assert ask(body)[0] == 400


def test_an_answer_that_json_cannot_carry_is_an_error_not_a_null(ask):
    status, content = ask({"inputs": [_input([3e38, 0, 0])]})
    assert status == 422
    assert "not finite" in content["error"]


@pytest.mark.parametrize(("rows", "status"), [(3, 200), (4, 200), (5, 400)])
def test_values_are_bounded(ask, rows, status):
    assert ask({"inputs": [_input([0.5] * 3 * rows, shape=[rows, 3])]})[0] == status


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda x: (
            st.lists(x, max_size=4) | st.dictionaries(st.sampled_from(["name", "inputs", "data", "shape", "datatype"]), x, max_size=4)
        ),
        max_leaves=20,
    )
)
def test_no_json_breaks_it(ask, content):
    assert ask({"inputs": [_input(content)]})[0] in {200, 400}
    assert ask({"inputs": [_input(shape=content)]})[0] in {200, 400}
    assert ask({"inputs": content})[0] == 400


# ---- datatypes ----


@pytest.mark.parametrize(
    ("kind", "datatype", "good", "bad"),
    [
        (TensorProto.BOOL, "BOOL", [True, False], [[1, 0], ["true", "x"]]),
        (TensorProto.UINT8, "UINT8", [0, 255], [[0, 256], [-1, 0], [1.5, 2]]),
        (TensorProto.INT8, "INT8", [-128, 127], [[-129, 0], [128, 0]]),
        (TensorProto.INT16, "INT16", [-32768, 32767], [[0, 32768]]),
        (TensorProto.UINT16, "UINT16", [0, 65535], [[0, 65536]]),
        (TensorProto.INT32, "INT32", [-(2**31), 2**31 - 1], [[0, 2**31]]),
        (TensorProto.UINT32, "UINT32", [0, 2**32 - 1], [[0, 2**32]]),
        (TensorProto.INT64, "INT64", [-(2**63), 2**63 - 1], [[0, 2**63], [0, 10**40], [True, False]]),
        (TensorProto.UINT64, "UINT64", [0, 2**64 - 1], [[0, 2**64]]),
        (TensorProto.FLOAT16, "FP16", [0.5, -2], [[0, 70000], ["a", "b"]]),
        (TensorProto.FLOAT, "FP32", [0.5, 3e38], [[0, 4e38]]),
        (TensorProto.DOUBLE, "FP64", [0.1, 1e308], [[None, 1]]),
        (TensorProto.STRING, "BYTES", ["a,b", "ü"], [[1, 2], ["a"], ["a", "b", "c"]]),
    ],
)
def test_every_datatype(ask, echo, kind, datatype, good, bad):
    model = echo(kind)
    status, content = ask({"inputs": [_input(good, shape=[2], datatype=datatype)]}, model)
    assert status == 200
    assert content["outputs"] == [
        {"name": "y", "datatype": datatype, "shape": [2], "data": pytest.approx(good) if datatype.startswith("FP") else good}
    ]
    for data in bad:
        assert ask({"inputs": [_input(data, shape=[2], datatype=datatype)]}, model)[0] == 400, data


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), st.data())
def test_arrays_come_back_as_they_went(shape, data):
    spec = TensorSpec("x", "INT32", shape)
    count = int(np.prod(shape))
    values = data.draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=count, max_size=count))
    array = np.array(values).reshape(shape)
    assert write_values(spec, read_values(spec, shape, json.dumps(values).encode())) == values
    assert write_values(spec, read_values(spec, shape, json.dumps(array.tolist(), indent=1).encode())) == values


def test_an_input_of_unknown_rank_takes_any_shape():
    spec = TensorSpec("x", "FP32", ())
    check_shape(spec, (2, 3), "FP32")
    assert read_values(spec, (), b"[5]").shape == ()
    with pytest.raises(TensorRefused):
        check_shape(spec, (-1,), "FP32")


def test_large_data_of_floats_is_read_in_any_form(identity, double):
    """Data of some size is parsed in one go where it can be: what comes of it is the same."""
    limits = LIMITS
    array = np.arange(3000, dtype="float32").reshape(1000, 3)
    answers = []
    for data in (array.ravel().tolist(), array.astype(int).ravel().tolist(), array.tolist()):
        body = json.dumps({"inputs": [_input(data, shape=[1000, 3])]}).encode()
        answer = infer(double, identity, Request(method="POST", path="", body=body, keep_alive=True), limits)
        assert answer.status == 200
        answers.append(json.loads(answer.body)["outputs"][0]["data"])
    assert answers[0] == answers[1] == answers[2] == (array * 2).ravel().tolist()
    flat = array.ravel().tolist()
    for data in (flat[:-1], [*flat, 1.0], [*flat[:-1], "1"], [*flat[:-1], True], [*flat[:-1], None], [*flat[:-1], 1e300], [[flat]]):
        body = json.dumps({"inputs": [_input(data, shape=[1000, 3])]}).encode()
        assert infer(double, identity, Request(method="POST", path="", body=body, keep_alive=True), limits).status == 400


def test_deep_data_is_counted_only_so_far():
    assert tensors._depth(b"[" * 10_000) == 65


def test_dummy_inputs_fit():
    assert zeros(TensorSpec("x", "FP32", (-1, 3, -1)), 32).shape == (1, 3, 32)
    assert zeros(TensorSpec("x", "BYTES", (-1,)), 32).tolist() == [""]


# ---- models ----


def test_a_model_is_found_and_loaded(double, tmp_path):
    assert double.inputs == (TensorSpec("x", "FP32", (-1, 3)),)
    assert double.load_seconds > 0
    with pytest.raises(ModelFailed, match="exactly one"):
        find_model(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"x")
    (tmp_path / "readme.txt").write_bytes(b"x")
    assert find_model(tmp_path) == (tmp_path / "model.onnx", "onnxruntime")
    (tmp_path / "other.onnx").write_bytes(b"x")
    with pytest.raises(ModelFailed, match="it holds 2"):
        find_model(tmp_path)
    with pytest.raises(ModelFailed, match="cannot be read"):
        find_model(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 1000])
def test_a_damaged_model_does_not_load(tmp_path, content):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelFailed) as failed:
        Model(tmp_path / "model.onnx")
    assert "\n" not in str(failed.value)


def test_a_model_that_fails_its_first_inference_does_not_load(save_model, tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
    sizes = [helper.make_tensor("s", TensorProto.INT64, [2], [7, 11])]
    path = save_model(tmp_path / "m.onnx", nodes, [("x", TensorProto.FLOAT, ["n", 5])], [("y", TensorProto.FLOAT, [7, 11])], sizes)
    with pytest.raises(ModelFailed, match="does not answer"):
        Model(path)


def test_a_model_that_needs_a_large_input_is_warmed_up_with_one(save_model, tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
    sizes = [helper.make_tensor("s", TensorProto.INT64, [2], [-1, 32])]
    path = save_model(tmp_path / "m.onnx", nodes, [("x", TensorProto.FLOAT, ["n", "k"])], [("y", TensorProto.FLOAT, ["m", 32])], sizes)
    assert Model(path).inputs == (TensorSpec("x", "FP32", (-1, -1)),)


def test_an_input_that_the_runtime_refuses_is_422(save_model, tmp_path, ask):
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
    sizes = [helper.make_tensor("s", TensorProto.INT64, [2], [-1, 1])]
    fine = save_model(tmp_path / "m.onnx", nodes, [("x", TensorProto.FLOAT, ["n"])], [("y", TensorProto.FLOAT, ["m", 1])], sizes)
    sizes = [helper.make_tensor("s", TensorProto.INT64, [1], [1])]
    path = save_model(tmp_path / "one.onnx", nodes, [("x", TensorProto.FLOAT, ["n"])], [("y", TensorProto.FLOAT, [1])], sizes)
    assert ask({"inputs": [_input([1, 2], shape=[2])]}, Model(fine))[0] == 200
    status, content = ask({"inputs": [_input([1, 2], shape=[2])]}, Model(path))
    assert status == 422
    assert "cannot run" in content["error"]


def test_a_model_without_tensor_inputs_or_outputs_is_refused(save_model, tmp_path):
    sequence = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [sequence],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFailed, match="no output that is a tensor"):
        Model(tmp_path / "m.onnx")


def test_the_default_limits_are_bounded_together():
    assert LIMITS.waiting_requests_max * LIMITS.body_bytes_max >= LIMITS.buffered_bytes_max
