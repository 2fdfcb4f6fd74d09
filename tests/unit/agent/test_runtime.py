"""In which order the resident agent does things around the engine."""

import threading
from types import SimpleNamespace

import pytest

from edgewise.agent import runtime
from edgewise.agent.runtime import Runtime
from edgewise.engine.protocol import Exited, Observed, RunningSlot

RUNS = RunningSlot(instance="n/w", slot="a", launch_id="runs", revision="r1")
ENDED = RunningSlot(instance="n/w", slot="b", launch_id="ended", revision="r0", exit_code=7)


class Recorder:
    """Stands for any part of the agent; says what it was asked."""

    def __init__(self, done, **answers):
        self._done, self._answers = done, answers

    def __getattr__(self, name):
        def call(*arguments):
            self._done.append((name, *arguments))
            return self._answers.get(name)

        return call


@pytest.fixture
def done():
    return []


@pytest.fixture
def agent(done, monkeypatch):
    """A runtime that ends at once; whatever is put into its pool is done on the spot."""
    one = Runtime.__new__(Runtime)
    one._slots = Recorder(done, observe=(RUNS, ENDED))
    one._outlet = one._api = one._engine = one._links = one._errands = one._journal = one._schedule = one._files = Recorder([])
    one._loop = SimpleNamespace(state=None, post=lambda event: done.append(("post", event)), stop=lambda: None)
    one._pool = SimpleNamespace(submit=lambda work: work())
    one._data, one._boot_id, one._exit_status, one._forgetting_since = "/nowhere", "boot", 0, None
    one._poke, one._ending = threading.Event(), True
    one._adopted = lambda _state: None
    one._open_secrets = lambda: None
    monkeypatch.setattr(runtime.trees, "whole_trees", lambda _files: ())
    monkeypatch.setattr(runtime.resident, "compacted", lambda *_: None)
    monkeypatch.setattr(runtime, "gc", Recorder([]))
    return one


def acknowledged(done):
    return [launch for name, launch, *_ in (each for each in done if len(each) > 1) if name == "acknowledge"]


def test_an_exit_that_was_found_at_the_start_is_acknowledged_once_it_is_taken_and_not_before(agent, done):
    """A power cut in between would lose it otherwise."""
    agent.run()
    (event,) = (each[1] for each in done if each[0] == "post")
    assert isinstance(event, Observed)
    assert acknowledged(done) == []
    agent._taken(event, None)
    assert acknowledged(done) == ["ended"]


def test_an_exit_is_acknowledged_once_it_is_taken(agent, done):
    agent._taken(Exited(instance="n/w", slot="a", launch_id="runs", code=-9), None)
    assert acknowledged(done) == ["runs"]
