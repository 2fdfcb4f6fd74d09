"""Binary tensors and compressed bodies: what clients send is taken as it is, or refused with a clear error, within bounds."""

import gzip
import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from edgewise.serve.answers import Answer
from edgewise.serve.binary import read_binary, write_binary
from edgewise.serve.classes import top_classes
from edgewise.serve.compression import chosen_encoding, deflate, inflate
from edgewise.serve.conversation import Request
from edgewise.serve.inference import Prepared, infer, prepare
from edgewise.serve.limits import ServeLimits
from edgewise.serve.tensors import TensorRefused, TensorSpec, read_values, write_values

LIMITS = ServeLimits(values_max=1000, tensors_max=3, rank_max=4, body_bytes_max=100_000)
ROW = np.array([[1, 2, 3]], dtype="float32")


def _request(head, tail: bytes = b"", length=None, **headers: str) -> Request:
    raw = head if isinstance(head, bytes) else json.dumps(head).encode()
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    told["inference-header-content-length"] = str(len(raw) if length is None else length)
    return Request(method="POST", path="", body=raw + tail, keep_alive=True, headers=told)


def _x(size: int = 12, **changes) -> dict:
    return {"name": "x", "shape": [1, 3], "datatype": "FP32", "parameters": {"binary_data_size": size}} | changes


def _ask(model, identity, request, limits=LIMITS):
    answer = infer(model, identity, request, limits)
    body = zlib.decompress(answer.body, 47) if answer.encoding else answer.body
    head = json.loads(body[: answer.header_bytes or None])
    if answer.status != 200:
        assert set(head) == {"error"}
        assert len(answer.body) < 1000
    return answer, head, body[answer.header_bytes :] if answer.header_bytes else b""


def test_binary_in_and_binary_out(double, identity):
    asked = {"id": "q", "inputs": [_x()], "parameters": {"binary_data_output": True}}
    answer, head, tail = _ask(double, identity, _request(asked, ROW.tobytes()))
    assert answer.content_type == "application/octet-stream"
    assert head["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}}]
    assert (head["id"], head["model_name"], head["model_version"]) == ("q", "double", "7")
    assert np.frombuffer(tail, "float32").tolist() == [2, 4, 6]


@pytest.mark.parametrize(
    ("parameters", "outputs", "binary"),
    [
        ({}, [], False),
        ({"binary_data_output": True}, [], True),
        ({}, [{"name": "y", "parameters": {"binary_data": True}}], True),
        ({"binary_data_output": True}, [{"name": "y", "parameters": {"binary_data": False}}], False),
        ({"binary_data_output": True}, [{"name": "y"}], True),
    ],
)
def test_an_output_says_for_itself_how_it_is_wanted(double, identity, parameters, outputs, binary):
    asked = {"inputs": [_x()], "parameters": parameters, "outputs": outputs}
    answer, head, tail = _ask(double, identity, _request(asked, ROW.tobytes()))
    assert bool(answer.header_bytes) == bool(tail) == binary
    assert ("data" in head["outputs"][0]) == (not binary)


def test_what_json_cannot_carry_goes_through_as_binary_data(double, identity):
    odd = np.array([[np.nan, np.inf, 3e38]], dtype="float32")
    asked = {"inputs": [_x()], "parameters": {"binary_data_output": True}}
    _, _, tail = _ask(double, identity, _request(asked, odd.tobytes()))
    assert np.array_equal(np.frombuffer(tail, "float32"), [np.nan, np.inf, np.inf], equal_nan=True)
    answer, head, _ = _ask(double, identity, _request({"inputs": [_x()]}, odd.tobytes()))
    assert answer.status == 422
    assert "binary data" in head["error"]


def test_no_rows_are_a_batch_too(double, identity):
    asked = {"inputs": [_x(0, shape=[0, 3])], "parameters": {"binary_data_output": True}}
    answer, head, tail = _ask(double, identity, _request(asked))
    assert answer.status == 200
    assert head["outputs"][0]["shape"] == [0, 3]
    assert tail == b""
    plain = _request({"inputs": [{"name": "x", "shape": [0, 3], "datatype": "FP32", "data": []}]})
    assert _ask(double, identity, plain)[1]["outputs"][0] == {"name": "y", "datatype": "FP32", "shape": [0, 3], "data": []}


def test_a_body_without_json_is_the_only_input(double, identity):
    answer, head, tail = _ask(double, identity, _request(b"", ROW.tobytes() * 2, length=0))
    assert head["outputs"][0]["shape"] == [2, 3]
    assert len(tail) == 24
    for size in (1, 11, 13):
        answer, head, _ = _ask(double, identity, _request(b"", b"x" * size, length=0))
        assert answer.status == 400
        assert "bytes" in head["error"]


# ---- sizes that lie ----


@pytest.mark.parametrize(
    ("change", "tail", "words"),
    [
        ({"parameters": {"binary_data_size": 13}}, b"x" * 13, "has 12 bytes"),
        ({"parameters": {"binary_data_size": 11}}, b"x" * 11, "has 12 bytes"),
        ({"parameters": {"binary_data_size": 12}}, b"x" * 11, "not within"),
        ({"parameters": {"binary_data_size": 12}}, b"x" * 13, "13 bytes follow"),
        ({"parameters": {"binary_data_size": 0}}, b"x" * 12, "has 12 bytes"),
        ({"parameters": {"binary_data_size": -12}}, b"x" * 12, "not within"),
        ({"parameters": {"binary_data_size": 2**63}}, b"x" * 12, "not within"),
        ({"parameters": {"binary_data_size": 12.0}}, b"x" * 12, "not within"),
        ({"parameters": {"binary_data_size": True}}, b"x", "not within"),
        ({"parameters": {"binary_data_size": "12"}}, b"x" * 12, "not within"),
        ({"parameters": {"binary_data_size": [12]}}, b"x" * 12, "not an inference request"),
        ({"data": [1, 2, 3]}, b"x" * 12, "both"),
        ({"parameters": {}}, b"x" * 12, "without data"),
        ({"parameters": {}}, b"", "without data"),
        ({"parameters": {"shared_memory_region": "r"}}, b"", "shared memory"),
        ({"shape": [2, 3]}, b"x" * 12, "has 24 bytes"),
        ({"shape": [10**9, 3], "parameters": {"binary_data_size": 12}}, b"x" * 12, "bytes"),
        ({"shape": [0, 3]}, b"x" * 12, "has 0 bytes"),
        ({"datatype": "FP64"}, b"x" * 12, "FP32"),
        ({"name": "z"}, b"x" * 12, "missing"),
    ],
)
def test_sizes_that_lie_are_refused(double, identity, change, tail, words):
    answer, head, _ = _ask(double, identity, _request({"inputs": [_x(**change)]}, tail))
    assert answer.status == 400
    assert words in head["error"]


@pytest.mark.parametrize("length", ["1", "10", "100000", "999999999", "-1", "x", "1e3"])
def test_a_length_of_the_json_that_lies_is_refused(double, identity, length):
    answer, _, _ = _ask(double, identity, _request({"inputs": [_x()]}, ROW.tobytes(), length=length))
    assert answer.status == 400


def test_binary_inputs_need_to_know_where_the_json_ends(double, identity):
    body = json.dumps({"inputs": [_x()]}).encode()
    answer, head, _ = _ask(double, identity, Request(method="POST", path="", body=body, keep_alive=True))
    assert answer.status == 400
    assert "Inference-Header-Content-Length" in head["error"]


def test_what_is_remembered_of_json_changes_no_answer(double):
    plans = {}
    one = {"inputs": [_x()], "parameters": {"binary_data_output": True, "timeout": 5000}}
    for number in range(3):
        prepared = prepare(_request(one, (ROW * number).tobytes()), double, LIMITS, plans)
        assert isinstance(prepared, Prepared)
        assert prepared.inputs["x"].tolist() == (ROW * number).tolist()
        assert prepared.timeout_us == 5000
        assert prepared.wanted[0].binary
    assert len(plans) == 1
    # Other JSON, or other bytes behind it, are looked at anew.
    for request in (_request(one, b"x" * 11), _request({"inputs": [_x(shape=[2, 3])]}, ROW.tobytes())):
        answer = prepare(request, double, LIMITS, plans)
        assert isinstance(answer, Answer)
        assert answer.status == 400
    for number in range(40):
        asked = {"inputs": [_x()], "parameters": {"n": number}}
        assert isinstance(prepare(_request(asked, ROW.tobytes()), double, LIMITS, plans), Prepared)
    assert len(plans) <= 16


# ---- elements ----


def _texts(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def test_texts_have_their_lengths_before_them():
    spec = TensorSpec("x", "BYTES", (-1,))
    array = read_binary(spec, (3,), memoryview(_texts(b"a,b", "ü".encode(), b"")))
    assert array.tolist() == ["a,b", "ü", ""]
    assert write_binary(spec, array) == _texts(b"a,b", "ü".encode(), b"")
    assert read_binary(spec, (0,), memoryview(b"")).tolist() == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "2 elements"),
        (b"\x01\0\0", "ends within"),
        (b"\x05\0\0\0abc", "ends within"),
        (b"\xff\xff\xff\xffabc", "ends within"),
        (_texts(b"a"), "2 elements"),
        (_texts(b"a", b"b", b"c"), "2 elements"),
        (_texts(b"a", b"b") + b"x", "2 elements"),
        (_texts(b"a", b"\xff"), "UTF-8"),
    ],
)
def test_texts_that_lie_are_refused(data, words):
    with pytest.raises(TensorRefused, match=words):
        read_binary(TensorSpec("x", "BYTES", (2,)), (2,), memoryview(data))


def test_flags_are_bytes_of_0_or_1():
    spec = TensorSpec("x", "BOOL", (3,))
    assert read_binary(spec, (3,), memoryview(b"\0\1\1")).tolist() == [False, True, True]
    with pytest.raises(TensorRefused, match="neither 0 nor 1"):
        read_binary(spec, (3,), memoryview(b"\0\1\2"))


@given(
    st.sampled_from(["UINT8", "INT16", "UINT32", "INT64", "FP16", "FP32", "FP64", "BF16"]), st.integers(0, 5), st.integers(0, 7), st.data()
)
def test_numbers_come_back_as_they_went_wherever_they_lie(datatype, count, before, data):
    spec = TensorSpec("x", datatype, (-1,))
    raw = data.draw(st.binary(min_size=8 * count, max_size=8 * count))[
        : count * {"UINT8": 1, "FP32": 4, "UINT32": 4, "INT64": 8, "FP64": 8}.get(datatype, 2)
    ]
    array = read_binary(spec, (count,), memoryview(b"\0" * before + raw)[before:])
    assert array.flags.aligned
    assert write_binary(spec, array) == raw


@pytest.mark.parametrize(("value", "bits"), [(1.0, 0x3F80), (-2.0, 0xC000), (1.00390625, 0x3F80), (1.01171875, 0x3F82), (0.1, 0x3DCD)])
def test_bf16_is_rounded_to_even(value, bits):
    spec = TensorSpec("x", "BF16", (1,))
    array = read_values(spec, (1,), json.dumps([value]).encode())
    assert array.tolist() == [bits]
    assert write_values(spec, array) == [np.array([bits << 16], "uint32").view("float32")[0]]


def test_the_highest_values_are_told_with_their_places():
    spec = TensorSpec("y", "FP32", (-1, 4))
    told, array = top_classes(spec, np.array([[1.5, 5, 5, -4], [0, 0, 0, 9]], "float32"), 2)
    assert (told.datatype, array.tolist()) == ("BYTES", [["5.000000:1", "5.000000:2"], ["9.000000:3", "0.000000:0"]])
    assert top_classes(TensorSpec("y", "INT8", (3,)), np.array([1, 7, 3], "int8"), 1)[1].tolist() == ["7:1"]
    for broken, count in ((spec, 5), (TensorSpec("y", "BYTES", (4,)), 1)):
        with pytest.raises(TensorRefused):
            top_classes(broken, np.zeros((1, 4), "float32"), count)


@pytest.mark.parametrize("count", [-1, 1.5, "1"])
def test_a_count_of_classes_that_is_none_is_refused(double, identity, count):
    asked = {"inputs": [_x()], "outputs": [{"name": "y", "parameters": {"classification": count}}]}
    assert _ask(double, identity, _request(asked, ROW.tobytes()))[0].status == 400


def test_large_binary_inputs_may_have_more_values_than_json(echo, identity):
    model = echo(TensorProto.UINT8)
    asked = {"inputs": [{"name": "x", "shape": [5000], "datatype": "UINT8", "parameters": {"binary_data_size": 5000}}]}
    binary = asked | {"parameters": {"binary_data_output": True}}
    assert _ask(model, identity, _request(binary, b"\7" * 5000))[0].status == 200
    assert _ask(model, identity, _request(asked, b"\7" * 5000))[0].status == 422  # as JSON these are too many


# ---- compressed ----


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "raw"])
def test_compressed_bodies_are_taken(double, identity, encoding):
    plain = _request({"inputs": [_x()]}, ROW.tobytes())
    if encoding == "raw":  # what some send as deflate
        stream = zlib.compressobj(wbits=-15)
        body = stream.compress(plain.body) + stream.flush()
    else:
        body = deflate(plain.body, encoding.removeprefix("x-"))
    headers = plain.headers | {"content-encoding": encoding.replace("raw", "deflate")}
    request = Request(method="POST", path="", body=body, keep_alive=True, headers=headers)
    assert _ask(double, identity, request)[0].status == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize(("size", "status"), [(99_999, None), (100_000, None), (100_001, 413), (50_000_000, 413)])
def test_bombs_are_refused_within_the_limit(encoding, size, status):
    plain = inflate(deflate(b" " * size, encoding), encoding, LIMITS)
    assert (plain.status if isinstance(plain, Answer) else None) == status
    if status is None:
        assert len(plain) == size


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_damaged_compressed_bodies_are_refused(encoding):
    whole = deflate(b"hello" * 100, encoding)
    for body in (b"", whole[:-1], whole[:5], whole + b"x", whole + whole, b"hello", b"\0" * 50, whole[:10] + b"\xff" * 10 + whole[20:]):
        answer = inflate(body, encoding, LIMITS)
        assert isinstance(answer, Answer)
        assert answer.status == 400


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        ("", ""),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        (" GZIP ;q=0.5", "gzip"),
        ("gzip, identity", "gzip"),
        ("gzip, deflate", ""),
        ("gzip, deflate, br, zstd", ""),
        ("*", ""),
        ("identity", ""),
        ("gzip;q=0", ""),
        ("gzip;q=0.5, identity", ""),
        ("gzip;q=0.5, deflate, identity;q=0", "deflate"),
        ("gzip, deflate, *;q=0", "gzip"),
        ("gzip;q=x", ""),
        ("br", ""),
        (",,;;=", ""),
    ],
)
def test_answers_are_compressed_for_those_who_ask(accepted, chosen):
    assert chosen_encoding(accepted) == chosen


def test_large_answers_are_compressed_and_small_ones_are_not(double, identity):
    for rows, encoding in ((1, ""), (100, "gzip")):
        array = np.ones((rows, 3), "float32")
        asked = {"inputs": [_x(array.nbytes, shape=[rows, 3])], "parameters": {"binary_data_output": True}}
        answer, head, tail = _ask(double, identity, _request(asked, array.tobytes(), accept_encoding="gzip"))
        assert answer.encoding == encoding
        assert answer.body.startswith(b"\x1f\x8b") == bool(encoding)
        assert len(tail) == head["outputs"][0]["parameters"]["binary_data_size"] == array.nbytes


# ---- anything ----

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["x", "y", "FP32", "BYTES"]),
    lambda x: (
        st.lists(x, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["name", "inputs", "outputs", "data", "shape", "datatype", "parameters", "binary_data_size", "id", "classification"]
            ),
            x,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON, JSON, st.binary(max_size=30), st.integers(-2, 200), st.sampled_from(["", "gzip", "deflate"]))
def test_nothing_that_comes_breaks_it(double, identity, whole, part, tail, shift, encoding):
    for head in (
        whole,
        {"inputs": part},
        {"inputs": [_x() | part if isinstance(part, dict) else part]},
        {"inputs": [_x()], "outputs": part},
    ):
        raw = json.dumps(head).encode()
        request = _request(raw, tail, length=len(raw) + shift, content_encoding=encoding)
        assert _ask(double, identity, request)[0].status in {200, 400, 413, 422}
        assert _ask(double, identity, _request(raw, tail))[0].status in {200, 400, 413, 422}


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["gzip", "deflate"]))
def test_no_compressed_bytes_break_it(body, encoding):
    made = inflate(body, encoding, LIMITS)
    assert isinstance(made, bytes | Answer)
    assert inflate(gzip.compress(body), "gzip", LIMITS) == body
