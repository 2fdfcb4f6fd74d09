"""The inference thread: what runs together, what fails alone, what is too late."""

import json
import threading

import numpy as np
import pytest

from edgewise.serve.conversation import Request
from edgewise.serve.inference import Identity
from edgewise.serve.limits import ServeLimits
from edgewise.serve.observer import Observer
from edgewise.serve.runtimes.contract import InferenceFailed
from edgewise.serve.tensors import TensorSpec
from edgewise.serve.worker import Inferred, Loaded, Worker

IDENTITY = Identity(instance="shop/eye", name="eye", versions=("1",), revision="r1")


class Gated:
    """A model that doubles, when it is let to. A row of 13 fails; one of 14 makes one row too many."""

    inputs = outputs = (TensorSpec("x", "FP32", (-1, 1)),)
    load_seconds = 0.0
    answers_rows_alone = True

    def __init__(self) -> None:
        self.ran, self.gate = [], threading.Semaphore(0)

    def run(self, inputs, names):
        del names
        assert self.gate.acquire(timeout=60)
        values = inputs["x"].ravel().tolist()
        self.ran.append(values)
        if 13 in values:
            raise InferenceFailed("unlucky")
        return [np.concatenate([inputs["x"] * 2, np.zeros((int(14 in values), 1), np.float32)])]


class Bench:
    def __init__(self, **limits):
        self.model, self.woken, self.answers = Gated(), threading.Semaphore(0), {}
        limits = ServeLimits(**{"batch_seconds_max": 60.0} | limits)
        self.worker = Worker(lambda: self.model, IDENTITY, limits, self.woken.release, Observer(limits))
        self.worker.start()
        assert self.next() == Loaded(self.model)

    def next(self):
        assert self.woken.acquire(timeout=60)
        return self.worker.results.popleft()

    def ask(self, *values, **parameters):
        for value in values:
            tensor = {"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [value]}
            body = json.dumps({"inputs": [tensor], "parameters": parameters}).encode()
            self.worker.submit(value, Request(method="POST", path="/", body=body, keep_alive=True))

    def take(self, count):
        for _ in range(count):
            result = self.next()
            assert isinstance(result, Inferred)
            body = json.loads(result.answer.body)
            self.answers[result.serial] = body["outputs"][0]["data"][0] if result.answer.status == 200 else result.answer.status
        return self.answers


@pytest.fixture
def bench():
    made = []

    def make(**limits):
        made.append(Bench(**limits))
        return made[-1]

    yield make
    for one in made:
        for _ in range(100):
            one.model.gate.release()
        one.worker.stop()


def test_what_waits_while_an_inference_runs_runs_together(bench):
    one = bench()
    # Each single inference fills its batch of one only while one row is all that may run: what grows it is a batch that was full.
    one.ask(1)
    one.model.gate.release()
    one.take(1)
    one.ask(2, 3, 4, 5, 6, 7)
    for _ in range(4):
        one.model.gate.release()
    assert one.take(6) == {value: value * 2.0 for value in range(1, 8)}
    assert sorted(value for batch in one.model.ran for value in batch) == [1, 2, 3, 4, 5, 6, 7]
    assert max(map(len, one.model.ran)) >= 2


def test_a_request_that_fails_fails_alone(bench):
    one = bench()
    one.ask(1)
    one.model.gate.release()
    one.take(1)
    one.ask(12, 13, 14, 15, 16)
    for _ in range(20):
        one.model.gate.release()
    answers = one.take(5)
    assert (answers[12], answers[13], answers[15], answers[16]) == (24.0, 422, 30.0, 32.0)


def test_a_request_that_waited_longer_than_it_may_is_not_run(bench):
    one = bench()
    one.ask(1)
    one.ask(2, timeout=1)
    one.ask(3, timeout=600_000_000)
    one.model.gate.release()
    assert one.take(1) == {1: 2.0}
    for _ in range(2):
        one.model.gate.release()
    assert one.take(2) == {1: 2.0, 2: 504, 3: 6.0}
    assert 2 not in [value for batch in one.model.ran for value in batch]
