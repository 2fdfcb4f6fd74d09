"""What every runtime of the model server does alike."""

import importlib

import numpy as np
import pytest

from edgewise.serve.model import Model
from edgewise.serve.runtimes.choose import RUNTIMES, find_model, loading
from edgewise.serve.runtimes.contract import InferenceFailed, ModelFailed, Options
from edgewise.serve.tensors import TensorSpec

ONE = np.array([[1, 2, 3, 4]], np.float32)


def save_onnx(folder, datatype="FLOAT"):
    onnx = pytest.importorskip("onnx")
    kind = getattr(onnx.TensorProto, datatype)
    value = (kind, ["n", 4])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "x"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", *value)],
        [onnx.helper.make_tensor_value_info("y", *value)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "model.onnx"))
    return folder / "model.onnx"


def save_openvino(folder):
    openvino = pytest.importorskip("openvino")
    source = save_onnx(folder)
    model = openvino.Core().read_model(str(source))
    model.outputs[0].get_tensor().set_names({"y"})
    openvino.save_model(model, str(folder / "model.xml"), compress_to_fp16=False)
    source.unlink()
    return folder / "model.xml"


def save_litert(folder):
    pytest.importorskip("ai_edge_litert")
    schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    flatbuffers = importlib.import_module("flatbuffers")

    def tensor(name):
        made = schema.TensorT()
        made.name, made.type, made.buffer, made.shape, made.shapeSignature = name, schema.TensorType.FLOAT32, 0, [1, 4], [-1, 4]
        return made

    add, operator, graph, model = schema.OperatorCodeT(), schema.OperatorT(), schema.SubGraphT(), schema.ModelT()
    add.builtinCode = add.deprecatedBuiltinCode = schema.BuiltinOperator.ADD
    add.version = 1
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 0], [1]
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [tensor("x"), tensor("y")], [0], [1], [operator]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [add], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    (folder / "model.tflite").write_bytes(builder.Output())
    return folder / "model.tflite"


MAKERS = {"onnxruntime": save_onnx, "openvino": save_openvino, "litert": save_litert}


@pytest.fixture(params=RUNTIMES)
def runtime(request):
    return request.param


@pytest.fixture
def path(runtime, tmp_path):
    return MAKERS[runtime](tmp_path)


def test_the_file_says_which_runtime_runs_it(runtime, path):
    assert find_model(path.parent) == (path, runtime)
    assert find_model(path.parent, runtime) == (path, runtime)


def test_a_model_tells_what_it_takes_and_answers(runtime, path):
    model = Model(path, runtime)
    assert model.inputs == (TensorSpec("x", "FP32", (-1, 4)),)
    assert [(one.name, one.datatype) for one in model.outputs] == [("y", "FP32")]
    assert (model.runtime, model.device) == (runtime, "cpu")
    assert model.platform
    (answer,) = model.run({"x": ONE}, ["y"])
    assert (answer.dtype, answer.tolist()) == (np.dtype("float32"), [[2, 4, 6, 8]])


def test_shapes_may_change_from_one_inference_to_the_next(runtime, path):
    model = Model(path, runtime)
    for rows in (3, 1, 7, 7, 1):
        (answer,) = model.run({"x": np.repeat(ONE, rows, axis=0)}, ["y"])
        assert answer.tolist() == [[2, 4, 6, 8]] * rows


def test_what_was_answered_stays_when_the_next_is(runtime, path):
    model = Model(path, runtime)
    (first,) = model.run({"x": ONE}, ["y"])
    model.run({"x": ONE * 100}, ["y"])
    assert first.tolist() == [[2, 4, 6, 8]]


def test_an_input_may_be_read_only_and_may_not_be_contiguous(runtime, path):
    model = Model(path, runtime)
    frozen = np.frombuffer(ONE.tobytes(), np.float32).reshape(1, 4)
    assert not frozen.flags.writeable
    assert model.run({"x": frozen}, ["y"])[0].tolist() == [[2, 4, 6, 8]]
    wide = np.arange(16, dtype=np.float32).reshape(2, 8)[:, ::2]
    assert model.run({"x": wide}, ["y"])[0].tolist() == (wide * 2).tolist()
    assert frozen.tolist() == ONE.tolist()


def test_what_is_not_finite_passes_through(runtime, path):
    (answer,) = Model(path, runtime).run({"x": np.array([[np.nan, np.inf, -np.inf, 0]], np.float32)}, ["y"])
    assert np.isnan(answer[0, 0])
    assert answer[0, 1:].tolist() == [np.inf, -np.inf, 0]


@pytest.mark.parametrize("shape", [(1, 3), (4,), (1, 1, 4)])
def test_an_input_that_does_not_fit_fails_alone(runtime, path, shape):
    model = Model(path, runtime)
    if shape != (1, 1, 4) or runtime != "onnxruntime":  # which may broadcast what its shape does not forbid
        with pytest.raises(InferenceFailed):
            model.run({"x": np.zeros(shape, np.float32)}, ["y"])
    assert model.run({"x": ONE}, ["y"])[0].tolist() == [[2, 4, 6, 8]]


@pytest.mark.parametrize("keep", [0, 1, 8, 0.5, 0.95])
def test_a_file_that_was_cut_is_told_in_one_line(runtime, path, keep):
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(ModelFailed) as caught:
        Model(path, runtime)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_rubbish_is_told_in_one_line(runtime, path):
    path.write_bytes(bytes(range(256)) * 64)
    with pytest.raises(ModelFailed, match="does not load"):
        Model(path, runtime)


def test_a_file_that_is_not_there_is_told(runtime, path):
    path.unlink()
    with pytest.raises(ModelFailed):
        loading(runtime)(path, Options())


def test_openvino_runs_an_onnx_file_when_it_is_asked_to(tmp_path):
    pytest.importorskip("openvino")
    path, runtime = find_model(save_onnx(tmp_path).parent, "openvino")
    assert Model(path, runtime).run({"x": ONE}, ["y"])[0].tolist() == [[2, 4, 6, 8]]


def test_a_runtime_that_is_not_known_or_does_not_run_such_files_is_told(tmp_path):
    save_onnx(tmp_path)
    with pytest.raises(ModelFailed, match="no runtime 'sklearn'"):
        find_model(tmp_path, "sklearn")
    with pytest.raises(ModelFailed, match=r"litert does not run \.onnx"):
        find_model(tmp_path, "litert")


def test_a_runtime_that_is_not_installed_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    monkeypatch.delitem(__import__("sys").modules, "edgewise.serve.runtimes.openvino", raising=False)
    with pytest.raises(ModelFailed, match=r"install edgewise\[openvino\]"):
        loading("openvino")
