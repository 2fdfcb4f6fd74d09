"""A candidate beside the server that serves: shadow and split between real processes, and every way in which the candidate can fail."""

import contextlib
import http.client
import json
import threading

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

INFER = "/v2/models/m/infer"


def order(mode: str, candidate=None, **fields) -> bytes:
    told = {"mode": mode, "share": 1.0}
    if candidate is not None:
        told |= {"target": str(candidate.control), "revision": "m-2"}
    return json.dumps(told | fields).encode()


class Asked:
    """A client of the service's socket that keeps its connection."""

    def __init__(self, supervisor) -> None:
        self.connection = supervisor.connect()

    def __call__(self, body: bytes, path: str = INFER, **headers: str) -> tuple[int, str, dict]:
        self.connection.request("POST", path, body, headers)
        answer = self.connection.getresponse()
        content = json.loads(answer.read())
        assert answer.headers["edgewise-revision"] == content.get("model_version", answer.headers["edgewise-revision"])
        return answer.status, answer.headers["edgewise-revision"], content


@pytest.fixture
def ask(supervisor):
    asked = Asked(supervisor)
    yield asked
    asked.connection.close()


@pytest.fixture(scope="session")
def other_tree(tmp_path_factory):
    """A tree with a model that multiplies each value by itself: agrees where the input is all 2, or all 0."""
    folder = tmp_path_factory.mktemp("other")
    value = (TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", *value)],
        [helper.make_tensor_value_info("y", *value)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(folder / "model.onnx"))
    return folder


@pytest.fixture
def pair(supervisor, tree, other_tree, wait):
    """The server that serves, and its candidate, both ready."""
    candidate = supervisor.start(other_tree, "m-2")
    incumbent = supervisor.start(tree, "m-1").activate()
    wait(candidate.is_ready, what="the candidate's readiness")
    return incumbent, candidate


# ---- shadow ----


def test_a_shadow_is_compared_and_never_answers(pair, ask, bodies, wait):
    incumbent, candidate = pair
    assert incumbent.order("PUT", "/traffic", order("shadow", candidate))[0] == 200
    for n in range(40):
        same = n % 4 == 0
        status, revision, content = ask(bodies((2, 2, 2, 2) if same else (1, 2, 4, 3)))  # both models are highest in one column
        assert (status, revision) == (200, "m-1")
        assert content["outputs"][0]["data"] == ([4, 4, 4, 4] if same else [2, 4, 8, 6])
        if n % 8 == 7:  # a client that does not wait now and then is quicker than the comparison, which then leaves some out
            candidate.wait_for("model_shadow_disagreement_count", n + 1, prefix="edgewise_")
    assert candidate.metric("edgewise_model_shadow_disagreement_sum") == 0
    assert candidate.metric("edgewise_model_shadow_distance_count") == 40
    assert candidate.metric("edgewise_model_shadow_duration_seconds_count") == 40
    for _ in range(10):
        ask(bodies((0.5, 0.25, -3, 0)))  # twice is highest at 1, squared at 9
    candidate.wait_for("model_shadow_disagreement_count", 50, prefix="edgewise_")
    assert candidate.metric("edgewise_model_shadow_disagreement_sum") == 10
    assert candidate.metric("edgewise_serve_infer_seconds_count") == 0
    wait(lambda: incumbent.metric("edgewise_serve_copies_compared_total") == 50, what="every copy compared")


@pytest.mark.parametrize("body_of", ["binary", "gzip"])
def test_copies_are_of_what_was_received(pair, supervisor, bodies, body_of):
    import gzip

    incumbent, candidate = pair
    incumbent.order("PUT", "/traffic", order("shadow", candidate))
    if body_of == "gzip":
        body, headers = gzip.compress(bodies((1, 2, 4, 3))), {"Content-Encoding": "gzip", "Accept-Encoding": "gzip"}
    else:
        data = np.array([1, 2, 4, 3], dtype=np.float32).tobytes()
        tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": len(data)}}
        head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
        body, headers = head + data, {"Inference-Header-Content-Length": str(len(head))}
    with contextlib.closing(supervisor.connect()) as connection:
        connection.request("POST", INFER, body, headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
    candidate.wait_for("model_shadow_disagreement_count", 1, prefix="edgewise_")
    assert candidate.metric("edgewise_model_shadow_disagreement_sum") == 0


def test_a_share_is_mirrored_and_nothing_when_told_so(pair, ask, bodies, wait):
    incumbent, candidate = pair
    incumbent.order("PUT", "/traffic", order("shadow", candidate, share=0.25))
    for _ in range(40):
        ask(bodies())
    sent = incumbent.metric("edgewise_serve_copies_total")
    assert 9 <= sent <= 11
    wait(lambda: incumbent.metric("edgewise_serve_copies_compared_total") == sent, what="a quarter compared")
    assert incumbent.order("PUT", "/traffic", order("none"))[0] == 200
    for _ in range(20):
        ask(bodies())
    assert incumbent.metric("edgewise_serve_copies_total") == sent


def test_labels_are_joined_with_what_the_shadow_would_have_said(pair, ask, bodies):
    incumbent, candidate = pair
    incumbent.order("PUT", "/traffic", order("shadow", candidate))
    body = json.dumps(json.loads(bodies((0.5, 0.25, -3, 0))) | {"id": "one"}).encode()
    ask(body)
    candidate.wait_for("model_shadow_disagreement_count", 1, prefix="edgewise_")
    status, _, content = ask(json.dumps({"feedback": [{"id": "one", "label": 2}]}).encode(), "/v2/models/m/feedback")
    assert (status, content["accepted"]) == (200, 1)
    assert incumbent.metric("edgewise_model_accuracy_sum") == 0
    candidate.wait_for("model_accuracy_sum", 1, prefix="edgewise_")


def test_wrong_requests_are_not_mirrored(pair, ask, bodies):
    incumbent, candidate = pair
    incumbent.order("PUT", "/traffic", order("shadow", candidate))
    assert ask(b"{}")[0] == 400
    ask(bodies())
    candidate.wait_for("model_shadow_disagreement_count", 1, prefix="edgewise_")
    assert incumbent.metric("edgewise_serve_copies_total") == 1


def test_a_shadow_that_does_not_keep_up_loses_copies_and_delays_nobody(supervisor, tree, ask, bodies):
    incumbent = supervisor.start(tree, "m-1").activate()
    stuck = supervisor.stuck()
    incumbent.order("PUT", "/traffic", order("shadow", stuck))
    for _ in range(100):
        assert ask(bodies())[:2] == (200, "m-1")
    copies, dropped = (incumbent.metric(f"edgewise_serve_copies_{name}total") for name in ("", "dropped_"))
    assert 16 <= copies < 60  # more than 16 only when this takes so long that those are given up
    assert copies + dropped >= 100


# ---- split ----


def test_a_split_is_sticky_and_keeps_its_share(pair, ask, bodies):
    incumbent, candidate = pair
    incumbent.order("PUT", "/traffic", order("split", candidate, share=0.3, sticky="X-Session"))
    went = {n: {ask(bodies(), **{"x-session": f"s{n}"})[1] for _ in range(3)} for n in range(100)}
    assert all(len(revisions) == 1 for revisions in went.values())
    few = {n for n, revisions in went.items() if revisions == {"m-2"}}
    assert 15 <= len(few) <= 45  # which ones is fixed by their names
    incumbent.order("PUT", "/traffic", order("split", candidate, share=0.6, sticky="x-session"))
    more = {n for n in range(100) if ask(bodies(), **{"x-session": f"s{n}"})[1] == "m-2"}
    assert few < more  # a share that grows only adds
    assert incumbent.order("PUT", "/traffic", order("none"))[0] == 200
    assert {ask(bodies(), **{"x-session": f"s{n}"})[1] for n in range(100)} == {"m-1"}


def test_without_a_header_the_requests_id_decides_and_else_the_share_is_even(pair, ask, bodies):
    incumbent, candidate = pair
    incumbent.order("PUT", "/traffic", order("split", candidate, share=0.5))
    for n in range(20):
        body = json.dumps(json.loads(bodies()) | {"id": f"r{n}"}).encode()
        assert len({ask(body)[1] for _ in range(3)}) == 1
    plain = [ask(bodies())[1] for _ in range(40)]
    assert 19 <= plain.count("m-2") <= 21
    assert candidate.metric("edgewise_serve_infer_seconds_count") >= 20


def test_labels_find_whoever_answered(pair, ask, bodies):
    incumbent, candidate = pair
    incumbent.order("PUT", "/traffic", order("split", candidate, share=0.5))
    went = {}
    for n in range(20):
        went[f"r{n}"] = ask(json.dumps(json.loads(bodies((1, 2, 4, 3))) | {"id": f"r{n}"}).encode())[1]
    assert set(went.values()) == {"m-1", "m-2"}
    labels = [{"id": name, "label": 2} for name in [*went, "never"]]
    status, revision, content = ask(json.dumps({"feedback": labels}).encode(), "/v2/models/m/feedback")
    assert (status, revision, content["accepted"]) == (200, "m-1", 20)
    assert [one["id"] for one in content["refused"]] == ["never"]
    counts = [server.metric("edgewise_model_accuracy_count") for server in pair]
    assert counts == [list(went.values()).count("m-1"), list(went.values()).count("m-2")]


def test_a_request_for_one_version_is_not_split(pair, ask, bodies):
    incumbent, candidate = pair
    incumbent.order("PUT", "/traffic", order("split", candidate))
    assert ask(bodies())[1] == "m-2"
    assert ask(bodies(), "/v2/models/m/versions/m-1/infer")[1] == "m-1"


def test_a_candidate_that_is_killed_under_load_costs_no_client_an_answer(pair, supervisor, bodies, wait):
    incumbent, candidate = pair
    incumbent.order("PUT", "/traffic", order("split", candidate, share=0.5))
    stop, answers, wrong = threading.Event(), [], []

    def load() -> None:
        with contextlib.closing(supervisor.connect()) as connection:
            while not stop.is_set():
                try:
                    connection.request("POST", INFER, bodies())
                    answer = connection.getresponse()
                    content = json.loads(answer.read())
                    assert answer.status == 200, content
                    assert content["model_version"] == answer.headers["edgewise-revision"]
                    assert content["outputs"][0]["data"] == ([2, 4, 6, 8] if content["model_version"] == "m-1" else [1, 4, 9, 16])
                    answers.append(content["model_version"])
                except (OSError, http.client.HTTPException, AssertionError) as error:
                    wrong.append(repr(error))
                    return

    clients = [threading.Thread(target=load, daemon=True) for _ in range(4)]
    for client in clients:
        client.start()
    wait(lambda: wrong or answers.count("m-2") > 50, what="answers of the candidate")
    candidate.process.kill()
    candidate.ended()
    before = len(answers)
    wait(lambda: wrong or len(answers) > before + 200, what="answers after its end")
    stop.set()
    for client in clients:
        client.join(30)
    assert wrong == []
    assert set(answers[-100:]) == {"m-1"}


def test_a_candidate_that_does_not_answer_in_time_is_passed_over(supervisor, tree, ask, bodies):
    incumbent = supervisor.start(tree, "m-1").activate()
    incumbent.order("PUT", "/traffic", order("split", supervisor.stuck()))
    for _ in range(5):
        assert ask(bodies())[:2] == (200, "m-1")
    assert incumbent.metric("edgewise_serve_relayed_total") == 0
    assert incumbent.metric("edgewise_serve_returned_total") >= 1


def test_a_candidate_of_another_revision_is_no_candidate(pair, ask, bodies):
    incumbent, candidate = pair
    incumbent.order("PUT", "/traffic", order("split", candidate, revision="m-3"))
    assert [ask(bodies())[:2] for _ in range(5)] == [(200, "m-1")] * 5
    incumbent.order("PUT", "/traffic", order("shadow", candidate, revision="m-3"))
    ask(bodies())
    assert candidate.metric("edgewise_model_shadow_disagreement_count") == 0


def test_what_the_candidate_refuses_is_answered_here(supervisor, tree, ask, bodies, wait):
    candidate = supervisor.start_slow(loaded=False)
    incumbent = supervisor.start(tree, "m-1").activate()
    wait(candidate.is_alive, what="the candidate")
    incumbent.order("PUT", "/traffic", order("split", candidate))
    assert [ask(bodies())[:2] for _ in range(5)] == [(200, "m-1")] * 5


def test_nobody_at_the_other_end_ends_the_passing_on(pair, ask, bodies, tmp_path):
    incumbent, _ = pair
    told = json.dumps({"mode": "split", "target": str(tmp_path / "gone.sock"), "revision": "m-2"}).encode()
    incumbent.order("PUT", "/traffic", told)
    assert [ask(bodies())[:2] for _ in range(5)] == [(200, "m-1")] * 5
    assert incumbent.metric("edgewise_serve_returned_total") == 1  # then it does not try any more


WRONG_ORDERS = [
    (b"", "no traffic"),
    (b"[]", "no traffic"),
    (b'{"mode": "mirror"}', "Invalid enum value"),
    (b'{"mode": "split"}', "needs `target` and `revision`"),
    (b'{"mode": "none", "shares": 1}', "unknown field"),
    (b'{"mode": "none", "share": 1.5}', "share"),
    (b'{"mode": "none", "share": -0.1}', "share"),
    (b'{"mode": "none", "sticky": "a b"}', "sticky"),
    (b'{"mode": "split", "target": "x", "revision": "m"}', "target"),
]


def test_orders_that_are_none(pair):
    incumbent, _ = pair
    for body, says in WRONG_ORDERS:
        status, content = incumbent.order("PUT", "/traffic", body)
        assert status == 400, body
        assert says in content["error"]


def test_the_services_socket_takes_no_orders_and_no_copies(pair, ask, bodies, supervisor):
    with contextlib.closing(supervisor.connect()) as connection:
        for method, path in (("PUT", "/traffic"), ("POST", "/mirror")):
            connection.request(method, path, bodies())
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 404


def test_copies_that_are_none(pair):
    _, candidate = pair
    for parts in ("", "{}", '{"request": 1, "answer": 1}', '{"request": -1, "answer": 3}', "x" * 100):
        status, content = candidate.order("POST", "/mirror", b"abc", {"edgewise-mirror": parts})
        assert status == 400, parts
        assert content["error"]
    assert candidate.is_ready()
