"""Which requests are in the share, what is passed on to a peer, and what a comparison says."""

import gzip
import json
import selectors
import socket

import msgspec
import numpy as np
import pytest

from edgewise.serve.answers import Answer, ok
from edgewise.serve.comparison import compare, outputs_of
from edgewise.serve.conversation import Request
from edgewise.serve.feedback import together, unknown_in
from edgewise.serve.limits import ServeLimits
from edgewise.serve.mirror import Mirrored, copy_of, read_copy
from edgewise.serve.passing import Passing
from edgewise.serve.tensors import TensorSpec
from edgewise.serve.traffic import Chooser, Order, bucket, read_order

LIMITS = ServeLimits()


def request(body: bytes = b'{"inputs": []}', **headers: str) -> Request:
    return Request(method="POST", path="/v2/models/m/infer", body=body, keep_alive=True, headers=headers)


def order(mode: str = "split", share: float = 0.5, sticky: str = "", target: str = "/c.sock") -> Order:
    return Order(mode=mode, share=share, sticky=sticky, target=target, revision="r2")  # type: ignore[arg-type]


# ---- the share ----


def test_buckets_are_even_and_differ_between_candidates():
    names = [f"session-{n}" for n in range(4000)]
    found = np.array([bucket("r2", name) for name in names])
    counts, _ = np.histogram(found, bins=10, range=(0, 1))
    assert counts.min() > 320
    assert counts.max() < 480
    other = np.array([bucket("r3", name) for name in names])
    assert abs(np.corrcoef(found, other)[0, 1]) < 0.05


@pytest.mark.parametrize(("share", "all_of_them"), [(0.0, False), (1.0, True)])
def test_none_and_all(share, all_of_them):
    chooser = Chooser(order(share=share))
    assert [chooser.takes(request()) for _ in range(50)] == [all_of_them] * 50


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_without_names_a_share_is_kept_at_any_time(share):
    chooser, taken = Chooser(order(share=share)), 0
    for n in range(1, 1001):
        taken += chooser.takes(request())
        assert abs(taken - share * n) < 4


@pytest.mark.parametrize(
    "asked",
    [
        request(b'{"inputs": [], "id": "one"}'),
        request(b'{"id": "one", "inputs": []}\x01\x02', **{"inference-header-content-length": "27"}),
        request(**{"x-session": "one"}),
    ],
    ids=["json", "binary", "header"],
)
def test_a_name_decides(asked):
    chooser = Chooser(order(share=0.5, sticky="X-Session"))
    assert {chooser.takes(asked) for _ in range(20)} == {bucket("r2", "one") < 0.5}


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"id": 7}', gzip.compress(b'{"id": "one"}', mtime=0)])
def test_a_body_without_a_clear_name_goes_by_turns(body):
    headers = {"content-encoding": "gzip"} if body.startswith(b"\x1f") else {}
    chooser = Chooser(order(share=0.5))
    assert {chooser.takes(request(body, **headers)) for _ in range(20)} == {True, False}


@pytest.mark.parametrize("wrong", [b"", b"nothing", b'{"mode": "split", "share": 0.5}', b'{"mode": "none", "more": 1}', b"[" * 100_000])
def test_orders_that_are_none(wrong):
    found = read_order(wrong)
    assert isinstance(found, Answer)
    assert found.status == 400


# ---- copies ----


def test_a_copy_is_read_as_it_was_sent():
    asked = request(b"head" + b"tail", **{"inference-header-content-length": "4", "content-encoding": "gzip"})
    head, *rest = copy_of(asked, Answer(status=200, body=b"answer", header_bytes=3, encoding="deflate"), "r2")
    lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
    assert int(lines["content-length"]) == sum(map(len, rest))
    found = read_copy(request(b"".join(rest), **{"edgewise-mirror": lines["edgewise-mirror"]}), "r2")
    assert isinstance(found, Mirrored)
    assert (found.request.body, found.request.headers) == (asked.body, asked.headers)
    assert (found.answer.body, found.answer.header_bytes, found.answer.encoding) == (b"answer", 3, "deflate")
    other = read_copy(request(b"".join(rest), **{"edgewise-mirror": lines["edgewise-mirror"]}), "r3")
    assert isinstance(other, Answer)
    assert other.status == 409


# ---- comparing ----


def spec(datatype: str, array: np.ndarray) -> TensorSpec:
    return TensorSpec("y", datatype, array.shape)


def compared(ours, theirs, datatype="FP32", dtype="float32", limits=LIMITS):
    ours, theirs = np.array(ours, dtype=dtype), np.array(theirs, dtype=dtype)
    return compare([(spec(datatype, ours), ours)], {"y": (spec(datatype, theirs), theirs)}, limits)


@pytest.mark.parametrize(
    ("ours", "theirs", "agrees", "distance"),
    [
        ([[0.1, 0.9]], [[0.1, 0.9]], True, 0.0),
        ([[0.4, 0.6]], [[0.2, 0.8]], True, 0.4),
        ([[0.6, 0.4]], [[0.4, 0.6]], False, 0.4),
        ([[0.1, 0.9], [0.9, 0.1]], [[0.1, 0.9], [0.1, 0.9]], False, 0.8),
        ([[100.9]], [[100.0]], True, 0.009),
        ([[101.1]], [[100.0]], False, 0.011),
        ([0.0], [0.0], True, 0.0),
        ([[np.nan, 1.0]], [[np.nan, 1.0]], True, 0.0),
        ([[np.nan, 1.0]], [[0.0, 1.0]], False, 1.0),
        ([[np.inf]], [[-np.inf]], False, 1.0),
        ([[1.0]], [[0.0]], False, 1e9),
    ],
)
def test_numbers(ours, theirs, agrees, distance):
    found = compared(ours, theirs)
    assert found.agrees is agrees
    assert found.distance == pytest.approx(distance, rel=1e-3)


@pytest.mark.parametrize(("off", "agrees"), [(0.0, True), (0.0099, True), (0.0101, False)])
def test_at_under_and_over_the_tolerance(off, agrees):
    assert compared([[1.0 + off]], [[1.0]], "FP64", "float64", ServeLimits(agree_relative=0.01, agree_absolute=0.0)).agrees is agrees


@pytest.mark.parametrize(
    ("datatype", "dtype", "ours", "theirs", "agrees", "distance"),
    [
        ("INT64", "int64", [1, 2], [1, 2], True, 0.0),
        ("INT64", "int64", [1, 2], [1, 3], False, 0.5),
        ("BOOL", "bool", [True, False], [True, False], True, 0.0),
        ("BYTES", "object", ["a", b"b"], ["a", "b"], True, 0.0),
        ("BYTES", "object", ["a", "b"], ["b", "b"], False, 0.5),
        ("UINT8", "uint8", [], [], True, 0.0),
    ],
)
def test_other_kinds_must_be_equal(datatype, dtype, ours, theirs, agrees, distance):
    found = compared(ours, theirs, datatype, dtype)
    assert (found.agrees, found.distance) == (agrees, distance)


def test_shapes_kinds_and_missing_outputs_do_not_agree():
    array = np.zeros((1, 2), dtype="float32")
    for theirs in (
        {},
        {"y": (TensorSpec("y", "FP32", (2,)), np.zeros(2, dtype="float32"))},
        {"y": (TensorSpec("y", "INT32", (1, 2)), np.zeros((1, 2), dtype="int32"))},
    ):
        found = compare([(spec("FP32", array), array)], theirs, LIMITS)
        assert (found.agrees, found.distance) == (False, None)


@pytest.mark.parametrize(("best", "agrees"), [("0.9:1", True), ("0.9:0:cat", False)])
def test_classes_are_compared_by_the_best_one(best, agrees):
    array = np.array([[0.2, 0.8]], dtype="float32")
    theirs = np.array([[best, "0.1:3"]], dtype=object)
    assert compare([(spec("FP32", array), array)], {"y": (TensorSpec("y", "BYTES", (1, 2)), theirs)}, LIMITS).agrees is agrees


def test_answers_are_read_in_every_form():
    array = np.array([[1.5, 2.5]], dtype="float32")
    plain = {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.5]}
    binary = {"name": "y", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
    as_json = json.dumps({"model_name": "m", "outputs": [plain]}).encode()
    head = json.dumps({"outputs": [binary]}).encode()
    for answer in (
        Answer(status=200, body=as_json),
        Answer(status=200, body=gzip.compress(as_json), encoding="gzip"),
        Answer(status=200, body=head + array.tobytes(), header_bytes=len(head)),
    ):
        assert outputs_of(answer, LIMITS)["y"][1].tolist() == array.tolist()


# ---- labels ----


def test_what_two_servers_say_to_the_same_labels_is_put_together():
    unknown = {"reason": "UnknownRequest", "message": "?"}
    here = ok({"accepted": 1, "refused": [{"id": "b", **unknown}, {"id": "c", **unknown}, {"id": "d", **unknown}]})
    judged = {"id": "d", "reason": "AlreadyJudged", "message": "!"}
    there = ok({"accepted": 1, "refused": [{"id": "a", **unknown}, {"id": "c", **unknown}, judged]})
    assert unknown_in(here)
    found = json.loads(together(here, there).body)
    assert found["accepted"] == 2
    assert [(one["id"], one["reason"]) for one in found["refused"]] == [("c", "UnknownRequest"), ("d", "AlreadyJudged")]
    assert together(here, Answer(status=200, body=b"nonsense")) == here
    assert not unknown_in(ok({"accepted": 1, "refused": []}))


# ---- passing on ----


class Way:
    def __init__(self) -> None:
        self.came: list[tuple[int, str]] = []

    def relayed(self, serial: int, answer: Answer, revision: str) -> None:
        self.came.append((serial, f"{revision} {answer.body.decode()}"))

    def returned(self, serial: int) -> None:
        self.came.append((serial, "returned"))


class Rig:
    """A passing whose time stands still unless it is moved, and a candidate that answers what it is told."""

    def __init__(self, folder, **limits) -> None:
        self.time, self.way, self.selector = 100.0, Way(), selectors.DefaultSelector()
        self.target = str(folder / "c.sock")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.target)
        self.listener.listen()
        self.socks: list[socket.socket] = []
        self.passing = Passing(self.selector, self.way, msgspec.structs.replace(LIMITS, **limits), monotonic=lambda: self.time)

    def told(self, mode="split", **fields) -> None:
        body = {"mode": mode, "share": 1.0, "target": self.target, "revision": "r2"} | fields
        assert self.passing.told(json.dumps(body).encode()).status == 200

    def accept(self) -> socket.socket:
        sock = self.listener.accept()[0]
        sock.settimeout(5)
        self.socks.append(sock)
        return sock

    def answer(self, sock: socket.socket, status: int = 200, revision: str = "r2", body: bytes = b"yes", more: str = "") -> None:
        sock.sendall(f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nedgewise-revision: {revision}\r\n{more}\r\n".encode() + body)
        self.turn()

    def turn(self) -> None:
        for key, events in self.selector.select(1.0):
            key.data(events)

    def close(self) -> None:
        self.passing.close()
        for sock in (*self.socks, self.listener):
            sock.close()
        self.selector.close()


@pytest.fixture
def rig(tmp_path_factory):
    made = Rig(tmp_path_factory.mktemp("p"), split_waiting_max=2, mirror_waiting_max=2, mirror_bytes_max=1000)
    yield made
    made.close()


def test_a_relayed_request_comes_back(rig):
    rig.told()
    assert rig.passing.relay(1, request(b"body"))
    sock = rig.accept()
    assert sock.recv(1000).endswith(b"content-length: 4\r\n\r\nbody")
    rig.answer(sock)
    assert rig.passing.relay(2, request())  # on the same connection
    sock.recv(1000)
    rig.answer(sock)
    assert rig.way.came == [(1, "r2 yes"), (2, "r2 yes")]
    assert (rig.passing.passed.relayed, rig.passing.waits) == (2, False)


@pytest.mark.parametrize(("status", "revision"), [(400, "r2"), (429, "r2"), (503, "r2"), (200, "r3")])
def test_what_is_no_answer_of_the_candidate_is_returned(rig, status, revision):
    rig.told()
    rig.passing.relay(1, request())
    rig.answer(rig.accept(), status, revision)
    assert rig.way.came == [(1, "returned")]
    assert rig.passing.passed.returned == {"refused": 1}


def test_an_answer_that_is_no_http_or_too_long_is_returned(rig, tmp_path_factory):
    rig.told()
    rig.passing.relay(1, request())
    rig.accept().sendall(b"nonsense\r\n\r\n")
    rig.turn()
    small = Rig(tmp_path_factory.mktemp("q"), answer_bytes_max=10)
    small.told()
    small.passing.relay(2, request())
    small.answer(small.accept(), body=b"x" * 11)
    assert (rig.way.came, small.way.came) == ([(1, "returned")], [(2, "returned")])
    small.close()


def test_too_many_at_once_are_answered_here(rig):
    rig.told()
    assert [rig.passing.relay(n, request()) for n in range(3)] == [True, True, False]
    assert rig.passing.passed.returned == {"busy": 1}


def test_late_requests_are_returned_and_the_candidate_is_left_alone_ever_longer(rig):
    rig.told()
    for pause in (1.0, 2.0, 4.0):
        assert rig.passing.relay(1, request())
        rig.time += LIMITS.split_seconds_max - 0.01
        rig.passing.sweep(rig.time)
        assert rig.way.came == []
        rig.time += 0.01
        rig.passing.sweep(rig.time)
        assert rig.way.came.pop() == (1, "returned")
        rig.time += pause - 0.01
        assert not rig.passing.relay(1, request())
        rig.time += 0.02
    rig.told(share=0.9)  # another share begins nothing anew
    assert rig.passing.relay(1, request())
    rig.answer([rig.accept() for _ in range(4)][-1])
    assert rig.way.came == [(1, "r2 yes")]


def test_the_candidates_end_returns_what_it_held_and_then_ends_the_passing_on(rig):
    rig.told()
    rig.passing.relay(1, request())
    sock = rig.accept()
    rig.listener.close()
    sock.close()
    rig.turn()
    assert rig.way.came == [(1, "returned")]
    assert [rig.passing.relay(n, request()) for n in range(3)] == [False] * 3
    assert not rig.passing.relays
    assert rig.passing.passed.returned == {"lost": 1, "unreachable": 1}


def test_taken_back_what_is_under_way_still_comes(rig):
    rig.told()
    rig.passing.relay(1, request())
    rig.told("none")
    assert not rig.passing.relay(2, request())
    rig.answer(rig.accept())
    assert rig.way.came == [(1, "r2 yes")]


def test_copies_that_do_not_fit_are_left_out_and_counted(rig):
    rig.told("shadow")
    answer = Answer(status=200, body=b"a")
    rig.passing.copy(request(b"x" * 2000), answer)
    for _ in range(3):
        rig.passing.copy(request(), answer)
    rig.passing.copy(request(), Answer(status=400, body=b"a"))
    assert (rig.passing.passed.copies, rig.passing.passed.dropped) == (2, {"large": 1, "slow": 1})
    sock = rig.accept()
    rig.answer(sock)
    rig.answer(sock, 409)
    assert (rig.passing.passed.compared, rig.passing.passed.dropped["refused"]) == (1, 1)
    rig.passing.copy(request(), answer)
    rig.time += LIMITS.mirror_seconds_max
    rig.passing.sweep(rig.time)
    assert rig.passing.passed.dropped["lost"] == 1
    assert not rig.passing.waits
    rig.passing.copy(request(), answer)
    assert rig.accept().recv(10)  # over a new connection


def test_the_header_that_decides_is_kept_while_it_does(rig):
    rig.told(sticky="X-Session")
    assert b"x-session" in rig.passing.kept
    rig.told("none")
    assert b"x-session" not in rig.passing.kept
    assert b"content-encoding" in rig.passing.kept
