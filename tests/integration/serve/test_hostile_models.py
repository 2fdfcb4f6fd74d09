"""A model that harms the process that runs it: the process stays answerable, or ends, and says so."""

import onnx
from onnx import TensorProto, helper


def endless():
    """Return the node of a loop that ends with its 2^62nd turn."""
    flag, number = TensorProto.BOOL, TensorProto.FLOAT
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Abs", ["in"], ["out"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", flag, []),
            helper.make_tensor_value_info("in", number, ["n", 4]),
        ],
        [helper.make_tensor_value_info("go_on", flag, []), helper.make_tensor_value_info("out", number, ["n", 4])],
    )
    return [
        helper.make_node("Constant", [], ["turns"], value=helper.make_tensor("t", TensorProto.INT64, [], [2**62])),
        helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("b", flag, [], [True])),
        helper.make_node("Loop", ["turns", "yes", "x"], ["y"], body=body),
    ]


def test_a_model_that_never_answers_never_becomes_ready_and_can_be_stopped(supervisor, tmp_path, wait):
    value = (TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(endless(), "g", [helper.make_tensor_value_info("x", *value)], [helper.make_tensor_value_info("y", *value)])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(tmp_path / "m.onnx"))
    server = supervisor.start(tmp_path)
    wait(server.is_alive)
    assert server.order("GET", "/ready") == (503, {"ready": False, "state": "loading"})
    server.drain()
    assert server.ended() == 0
