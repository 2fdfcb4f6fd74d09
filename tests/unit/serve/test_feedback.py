"""Labels that arrive later: joined, counted once, and refused when they cannot be true."""

import msgspec
import numpy as np
import pytest

from edgewise.serve.feedback import Feedback, predicted
from edgewise.serve.limits import ServeLimits
from edgewise.serve.measurements import Measurements
from edgewise.serve.tensors import TensorSpec


class Bench:
    def __init__(self, **limits):
        self.now = 100.0
        self.measurements = Measurements()
        self.feedback = Feedback(self.measurements, ServeLimits(**limits), lambda: self.now)

    def remember(self, request, *outputs):
        self.feedback.remember(request, list(outputs))

    def say(self, *feedback, status=200):
        answer = self.feedback.answer(msgspec.json.encode({"feedback": feedback}))
        assert answer.status == status, answer.body
        return msgspec.json.decode(answer.body)

    def reasons(self, *feedback):
        said = self.say(*feedback)
        return [one["reason"] for one in said["refused"]]

    def told(self):
        return {one.name: (one.count, round(one.sum, 6)) for one in self.measurements.take()}


def output(values, name="out", datatype="FP32"):
    array = np.array(values, dtype={"FP32": np.float32, "INT64": np.int64, "BYTES": object, "BOOL": bool}[datatype])
    return TensorSpec(name, datatype, (-1,) * array.ndim), array


SHARES = [[0.1, 0.7, 0.2]]


def test_accuracy_and_calibration_follow_from_labels():
    bench = Bench()
    bench.remember("a", output(SHARES))
    bench.remember("b", output(SHARES))
    assert bench.say({"id": "a", "label": 1}, {"id": "b", "label": 0}) == {"accepted": 2, "refused": []}
    told = bench.told()
    assert told["model.accuracy"] == (2, 1.0)
    assert told["model.brier"] == (2, pytest.approx(0.3**2 + 0.7**2, abs=1e-6))
    assert (told["model.confidence.right"][0], told["model.confidence.wrong"][0]) == (1, 1)


@pytest.mark.parametrize(
    ("outputs", "right", "wrong"),
    [
        ([output([[2.0, -1.0]])], 0, 1),
        ([output([7], "label", "INT64"), output(SHARES, "probabilities")], 7, 1),
        ([output([["crack"]], "label", "BYTES")], "crack", "fine"),
        ([output([b"crack"], "label", "BYTES")], "crack", "fine"),
        ([output([True], "label", "BOOL")], True, False),
    ],
)
def test_classes_come_as_scores_numbers_text_or_bool(outputs, right, wrong):
    bench = Bench()
    bench.remember("a", *outputs)
    bench.remember("b", *outputs)
    bench.say({"id": "a", "label": right}, {"id": "b", "label": wrong})
    assert bench.told()["model.accuracy"] == (2, 1.0)


def test_a_number_is_judged_by_its_distance():
    bench = Bench()
    bench.remember("a", output([[2.5]]))
    bench.say({"id": "a", "label": 4})
    assert bench.told() == {"model.error": (1, 1.5)}


def test_a_batch_takes_a_label_for_each_row_or_none():
    bench = Bench()
    bench.remember("a", output(SHARES * 3))
    assert bench.reasons({"id": "a", "label": 1}) == ["WrongLabel"]
    assert bench.reasons({"id": "a", "labels": [1, 1]}) == ["WrongLabel"]
    assert bench.reasons({"id": "a", "labels": [None, None, None]}) == ["WrongLabel"]
    assert bench.reasons({"id": "a", "labels": [1, None, 2]}) == []
    assert bench.told()["model.accuracy"] == (2, 1.0)


def test_a_request_takes_one_label_however_often_it_is_said():
    bench = Bench()
    bench.remember("a", output(SHARES))
    assert bench.reasons({"id": "a", "label": 1}, {"id": "a", "label": 1}) == ["AlreadyJudged"]
    bench.remember("a", output(SHARES))
    assert bench.reasons({"id": "a", "label": 1}) == ["AlreadyJudged"], "an id that is used again opens nothing"
    assert bench.told()["model.accuracy"] == (1, 1.0)


def test_what_was_never_answered_here_or_long_ago_is_refused():
    bench = Bench(remembered_answers_max=2)
    for request in "abc":
        bench.remember(request, output(SHARES))
    assert bench.reasons({"id": "a", "label": 1}, {"id": "never", "label": 1}, {"id": "b", "label": 1}) == ["UnknownRequest"] * 2
    assert bench.told()["model.feedback.refused"] == (1, 2.0)


@pytest.mark.parametrize(("rows", "kept"), [(3, True), (4, True), (5, False)])
def test_answers_of_many_rows_are_not_remembered(rows, kept):
    bench = Bench(remembered_rows_max=4)
    bench.remember("a", output(SHARES * rows))
    assert (bench.reasons({"id": "a", "labels": [1] * rows}) == []) is kept


@pytest.mark.parametrize(("values", "kept"), [(5, True), (6, True), (7, False)])
def test_answers_of_many_values_are_not_remembered(values, kept):
    bench = Bench(remembered_values_max=6)
    bench.remember("a", output([[0.0] * values]))
    assert (bench.reasons({"id": "a", "label": 0}) == []) is kept


def test_an_answer_that_says_nothing_clear_takes_no_label():
    bench = Bench()
    bench.remember("a", output([[[0.1, 0.9]]]))
    assert bench.reasons({"id": "a", "label": 1}) == ["WrongLabel"]


@pytest.mark.parametrize("label", [3, -1, 1.5, "crack", None])
def test_a_label_that_this_model_cannot_have_is_refused_and_may_be_said_right(label):
    bench = Bench()
    bench.remember("a", output(SHARES))
    assert bench.reasons({"id": "a", "label": label}) == ["WrongLabel"]
    assert bench.reasons({"id": "a", "label": 1}) == []


@pytest.mark.parametrize("label", ["much", True, None])
def test_a_number_is_judged_by_a_number(label):
    bench = Bench()
    bench.remember("a", output([[2.5]]))
    assert bench.reasons({"id": "a", "label": label}) == ["WrongLabel"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"feedback": []}',
        b'{"feedback": [{"id": ""}]}',
        b'{"feedback": [{"id": "a", "lable": 1}]}',
        b'{"feedback": [{"id": "a", "label": 1e999}]}',
        b'{"feedback": [{"id": "a", "label": {"x": 1}}]}',
        b'{"feedback": "\xff"}',
        b'{"feedback": [' + b"[" * 100_000,
    ],
)
def test_rubbish_is_answered_and_changes_nothing(body):
    bench = Bench()
    bench.remember("a", output([[2.5]]))
    assert bench.feedback.answer(body).status == 400
    assert bench.told() == {}


def test_feedback_is_limited_in_rate():
    bench = Bench(feedback_per_second_max=1)
    labels = [{"id": str(number), "label": 1} for number in range(5)]
    bench.now += 10
    bench.say(*labels)
    bench.say(*labels)
    bench.say(*labels[:1], status=429)
    bench.now += 1
    bench.say(*labels[:1])


@pytest.mark.parametrize(
    "outputs", [[], [output([[[0.1, 0.9]]])], [output(np.zeros((0, 3)))], [output(np.zeros((2, 2)), datatype="INT64")]]
)
def test_outputs_that_say_nothing_clear_of_a_row_are_not_judged(outputs):
    prediction = predicted(outputs)
    assert prediction is None or prediction.rows == ()
