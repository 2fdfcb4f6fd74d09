"""Effects: each one ends in exactly one `Done`, whatever happens below."""

import threading

import pytest

from edgewise.agent.carrier import Carrier
from edgewise.agent.jobs import Progress
from edgewise.agent.slots import SupervisorGone
from edgewise.agent.supervisor_link import SupervisorRefused
from edgewise.engine.protocol import (
    Activate,
    Cancel,
    Done,
    Emit,
    Failed,
    Fetch,
    Fetched,
    FetchProgress,
    Finished,
    Forget,
    Launch,
    Probed,
    Remove,
    Route,
    RunProbe,
    Start,
    Started,
    Stop,
    Stopped,
)
from edgewise.resources.artifact import File, Probe, Variant
from edgewise.wire.desired import ArtifactTarget, Traffic
from edgewise.wire.report import EventReport

VARIANT = Variant(name="v", files=(File(path="a", digest="sha256:" + "0" * 64, size=1),))
LAUNCH = Launch(driver="process", revision="r", tree="t", variant=VARIANT, parameters={})
TARGET = ArtifactTarget(target="releases/n/a/1.json", digest="sha256:" + "0" * 64, length=1, type="bundle", variant="v")
START = Start(id=1, instance="n/w", slot="a", launch=LAUNCH)
FETCH = Fetch(id=2, instance="n/w", revision="r", artifact=TARGET, parameters={})
STOP = Stop(id=3, instance="n/w", slot="a", grace_seconds=1)
ACTIVATE = Activate(id=4, instance="n/w", slot="a")
ROUTE = Route(id=7, instance="n/w", slot="a", to="b", revision="r2", traffic=Traffic(mode="shadow"))
PROBE = RunProbe(id=5, instance="n/w", slot="a", kind="readiness", probe=Probe(http_path="/"))
REMOVE = Remove(id=6, keep_trees=("t",), instances=("n/w",))


class World:
    """Slots and helpers in one; each call is answered by what `answers` holds for its name."""

    def __init__(self, log) -> None:
        self.answers: dict[str, object] = {}
        self.calls: list[str] = []
        self.posted: list[object] = []
        self.emitted: list[object] = []
        self.gone: list[int] = []
        self.forgotten: list[int] = []
        self.cancelled: list[int] = []
        self.removed: list[Remove] = []
        self.release = threading.Event()
        self.release.set()
        self.carrier = Carrier(
            self,
            self,
            log,
            post=self.posted.append,
            emit=lambda lane, item: self.emitted.append((lane, item)),
            forget=lambda: self.forgotten.append(1),
            gone=lambda: self.gone.append(1),
        )

    def _answer(self, name: str) -> object:
        self.calls.append(name)
        self.release.wait(5)
        answer = self.answers[name]
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def start(self, instance, slot, launch):
        return self._answer("start")

    def stop(self, instance, slot, grace_seconds):
        return self._answer("stop")

    def activate(self, instance, slot):
        return self._answer("activate")

    def route(self, instance, slot, to, revision, traffic):
        assert (slot, to, revision, traffic) == ("a", "b", "r2", Traffic(mode="shadow"))
        return self._answer("route")

    def probe(self, instance, slot, kind, probe):
        return self._answer("probe")

    def forget(self, instance):
        return self.answers.get("forget") and self._answer("forget")

    def fetch(self, effect, progress):
        progress(Progress(stage="Download", done=0, total=2))
        progress(Progress(stage="Download", done=1, total=2))
        progress(Progress(stage="Install"))
        return self._answer("fetch")

    def cancel(self, effect):
        self.cancelled.append(effect)

    def prepare(self, start):
        return self.answers.get("prepare", "")

    def remove(self, effect):
        self.removed.append(effect)
        error = self.answers.get("remove")
        if error is not None:
            raise error


@pytest.fixture
def world(log):
    return World(log)


FETCHED = Fetched(tree="t", variant=VARIANT, parameters={})


@pytest.mark.parametrize(
    ("effect", "name", "result"),
    [
        (START, "start", Started(launch_id="l")),
        (STOP, "stop", Stopped(code=0)),
        (ACTIVATE, "activate", Finished()),
        (ROUTE, "route", Finished()),
        (PROBE, "probe", Probed(ok=True)),
    ],
)
def test_results_come_back_under_their_id(world, wait_for, effect, name, result):
    world.answers[name] = result
    world.carrier.carry(effect)
    wait_for(lambda: world.posted)
    assert world.posted == [Done(id=effect.id, result=result)]


def test_a_fetch_tells_its_stages_once_each(world, wait_for):
    world.answers["fetch"] = FETCHED
    world.carrier.carry(FETCH)
    wait_for(lambda: len(world.posted) == 3)
    assert world.posted == [FetchProgress(id=2, stage="Download"), FetchProgress(id=2, stage="Install"), Done(id=2, result=FETCHED)]


@pytest.mark.parametrize(
    ("effect", "name"), [(START, "start"), (ACTIVATE, "activate"), (ROUTE, "route"), (FETCH, "fetch"), (REMOVE, "remove")]
)
def test_a_defect_below_is_a_transient_failure(world, wait_for, effect, name):
    world.answers[name] = RuntimeError("x")
    world.carrier.carry(effect)
    wait_for(lambda: world.posted and isinstance(world.posted[-1], Done))
    done = world.posted[-1]
    assert (done.id, done.result.kind, done.result.reason) == (effect.id, "transient", "AgentError")


def test_a_probe_that_cannot_be_run_is_not_well(world, wait_for):
    world.answers["probe"] = RuntimeError("x")
    world.carrier.carry(PROBE)
    wait_for(lambda: world.posted)
    assert world.posted == [Done(id=5, result=Probed(ok=False, message="x"))]


def test_a_stop_is_tried_until_the_slot_is_empty(world, wait_for, monkeypatch):
    monkeypatch.setattr("edgewise.agent.carrier._STOP_RETRY_SECONDS", 0.01)
    world.answers["stop"] = [RuntimeError("x"), RuntimeError("x"), Stopped(code=1)]
    world.carrier.carry(STOP)
    wait_for(lambda: world.posted)
    assert world.posted == [Done(id=3, result=Stopped(code=1))]


@pytest.mark.parametrize(("effect", "name"), [(START, "start"), (STOP, "stop"), (PROBE, "probe")])
def test_without_a_supervisor_nothing_is_decided(world, wait_for, effect, name):
    world.answers[name] = SupervisorGone("x")
    world.carrier.carry(effect)
    wait_for(lambda: world.gone)
    assert world.posted == []


def test_a_start_waits_for_its_secrets(world, wait_for):
    world.answers["prepare"] = "secret rtsp: does not open"
    world.carrier.carry(START)
    wait_for(lambda: world.posted)
    assert world.posted[0].result == Failed(kind="transient", reason="SecretsClosed", message="secret rtsp: does not open")
    assert world.calls == []


def test_instances_are_forgotten_before_their_files_go(world, wait_for):
    world.answers["forget"] = SupervisorRefused("Busy", "it runs")
    world.carrier.carry(REMOVE)
    wait_for(lambda: world.posted)
    assert world.posted[0].result.reason == "Busy"
    assert world.removed == []
    world.answers["forget"] = None
    world.carrier.carry(REMOVE)
    wait_for(lambda: len(world.posted) == 2)
    assert world.posted[1].result == Finished()
    assert world.removed == [REMOVE]


def test_only_a_fetch_under_way_is_cancelled(world, wait_for):
    world.carrier.carry(Cancel(id=2))
    assert world.cancelled == []
    world.answers["fetch"] = FETCHED
    world.release.clear()
    world.carrier.carry(FETCH)
    world.carrier.carry(Cancel(id=2))
    assert world.cancelled == [2]
    world.release.set()
    wait_for(lambda: isinstance(world.posted[-1], Done))
    world.carrier.carry(Cancel(id=2))
    assert world.cancelled == [2]


def test_fetches_do_not_keep_stops_waiting(world, wait_for):
    world.answers |= {"fetch": FETCHED, "stop": Stopped()}
    blocked = threading.Event()
    world.fetch = lambda effect, progress: blocked.wait(5) and FETCHED
    for number in range(10, 20):
        world.carrier.carry(Fetch(id=number, instance="n/w", revision="r", artifact=TARGET, parameters={}))
    world.carrier.carry(STOP)
    wait_for(lambda: Done(id=3, result=Stopped()) in world.posted)
    blocked.set()
    wait_for(lambda: len(world.posted) == 11)


def test_items_and_the_end(world):
    item = EventReport(device="d", at=0, type="Normal", reason="X", message="")
    world.carrier.carry(Emit(lane="events", item=item))
    world.carrier.carry(Forget())
    assert world.emitted == [("events", item)]
    assert world.forgotten == [1]
