"""A trial that is held beside the committed revision: who serves, what is passed on, and every way out of it."""

from itertools import pairwise

import pytest
from engine_rig import APP, Rig, want

from edgewise.engine.machine import next_wake
from edgewise.engine.protocol import Activate, Effect, Failed, Route, Start, Stop, Tick
from edgewise.resources.states import InstanceState, UpdateState
from edgewise.wire.desired import InstanceDesired, Traffic

NONE, SHADOW, HALF = Traffic(), Traffic(mode="shadow"), Traffic(mode="split", share=0.5, sticky="x-session")


def committed(kind: str = "model") -> Rig:
    rig = Rig()
    rig.desire(want("r1", kind=kind, probation_seconds=1))
    rig.run(10)
    rig.log.clear()
    return rig


def held(traffic: Traffic | None = SHADOW, revision: str = "r2", **fields: object) -> InstanceDesired:
    return want(revision, probation_seconds=1, hold=True, traffic=traffic, **fields)


def beside(traffic: Traffic = SHADOW) -> Rig:
    rig = committed()
    rig.desire(held(traffic))
    rig.run(5)
    return rig


def order(rig: Rig) -> list[str]:
    """Return what was asked of slots since the last look."""
    names = []
    for effect in rig.log:
        match effect:
            case Start() | Stop() | Activate():
                names.append(f"{type(effect).__name__} {effect.slot}")
            case Route():
                names.append(f"Route {effect.slot}>{effect.to} {effect.traffic.mode}")
    rig.log.clear()
    return names


def actives(rig: Rig) -> list[str]:
    return [slot.revision for slot in rig.running.values() if slot.active]


@pytest.mark.parametrize("traffic", [NONE, SHADOW, HALF], ids=lambda each: each.mode)
def test_the_committed_one_serves_and_the_candidate_waits_beside_it(traffic: Traffic) -> None:
    rig = beside(traffic)
    assert order(rig) == ["Start b", f"Route a>b {traffic.mode}"]
    rig.run(3600)
    status = rig.status()
    assert (status.update, status.update_revision, status.revision, status.committed) == (UpdateState.PROBATION, "r2", "r1", "r1")
    assert (status.state, status.ready, status.traffic) == (InstanceState.RUNNING, True, traffic)
    assert actives(rig) == ["r1"]
    assert rig.revisions() == ["r1", "r2"]
    assert order(rig) == []


def test_the_share_is_changed_while_it_runs() -> None:
    rig = beside(HALF)
    order(rig)
    rig.desire(held(Traffic(mode="split", share=0.1, sticky="x-session")))
    rig.run(1)
    assert order(rig) == ["Route a>b split"]
    assert rig.route("a") == ("split", "r2", 0.1)
    assert rig.status().traffic == Traffic(mode="split", share=0.1, sticky="x-session")


def test_let_go_it_takes_over_and_commits() -> None:
    rig = beside()
    order(rig)
    rig.run(3600)
    rig.desire(want("r2", probation_seconds=1, deadline_seconds=20))
    rig.run(0.5)
    assert order(rig) == ["Route a>b none", "Activate b", "Stop a"]
    assert rig.status().update is UpdateState.PROBATION
    rig.run(10)
    assert (rig.status().committed, rig.status().update, rig.status().traffic) == ("r2", UpdateState.IDLE, None)


def test_to_take_over_has_a_deadline_of_its_own() -> None:
    rig = beside()
    rig.run(3600)
    order(rig)
    rig.desire(want("r2", probation_seconds=1, deadline_seconds=20))
    rig.run(19, answer=lambda effect: not isinstance(effect, Activate))
    assert rig.status().update is UpdateState.PROBATION
    rig.run(2, answer=lambda effect: not isinstance(effect, Activate))
    assert (rig.status().refused, rig.status().reason) == (("r2",), "DeadlineExceeded")


def test_from_shadow_to_canary_it_takes_all_traffic_and_is_held() -> None:
    rig = beside()
    order(rig)
    rig.desire(held(None))
    rig.run(60)
    assert order(rig) == ["Route a>b none", "Activate b", "Stop a"]
    assert (rig.status().update, rig.status().revision, rig.status().ready) == (UpdateState.PROBATION, "r2", True)


def test_who_has_taken_over_keeps_the_traffic() -> None:
    rig = committed()
    rig.desire(held(None))
    rig.run(5)
    order(rig)
    rig.desire(held(SHADOW))
    rig.run(5)
    assert order(rig) == []
    assert (rig.status().revision, rig.status().traffic, actives(rig)) == ("r2", None, ["r2"])


def test_rejected_it_sees_nothing_any_more_and_then_stops() -> None:
    rig = beside(HALF)
    order(rig)
    rig.desire(want("r1", probation_seconds=1, rejected=("r2",)))
    rig.run(5)
    assert order(rig) == ["Route a>b none", "Stop b"]
    assert (rig.status().refused, rig.status().revision, rig.status().update) == (("r2",), "r1", UpdateState.IDLE)
    assert rig.revisions() == ["r1"]


def test_a_model_server_that_does_not_hear_holds_nothing_up() -> None:
    rig = beside(HALF)
    order(rig)
    rig.desire(want("r1", probation_seconds=1, rejected=("r2",)))
    (route,) = (effect for effect in rig.pending.values() if isinstance(effect, Route))
    rig.done(route, Failed(kind="transient", reason="NoAnswer", message="time-out"))
    rig.run(5)
    assert order(rig) == ["Route a>b none", "Stop b"]
    wake = next_wake(rig.state)
    assert wake is None or wake > rig.time


def test_a_candidate_that_crashes_twice_fails_its_trial_and_nobody_else_notices() -> None:
    rig = beside()
    order(rig)
    rig.exit("b", code=-11)
    rig.run(0.5)
    assert rig.status().traffic is None
    rig.run(5)
    assert order(rig) == ["Start b", "Route a>b shadow"]
    assert rig.status().traffic == SHADOW
    rig.exit("b", code=-11)
    rig.run(5)
    assert (rig.status().refused, rig.status().revision, rig.status().restarts) == (("r2",), "r1", 1)
    assert order(rig) == ["Route a>b none"]
    assert actives(rig) == ["r1"]
    assert rig.status().update is UpdateState.IDLE


def test_a_candidate_that_is_not_ready_in_time_fails() -> None:
    rig = committed()
    rig.bad = {"r2"}
    rig.desire(held(SHADOW, deadline_seconds=30))
    rig.run(29)
    assert rig.status().update is UpdateState.PROBATION
    rig.run(2)
    assert (rig.status().refused, rig.status().reason, actives(rig)) == (("r2",), "DeadlineExceeded", ["r1"])
    assert not any(isinstance(effect, Route) for effect in rig.log)


def test_the_serving_one_is_told_again_after_it_was_restarted() -> None:
    rig = beside(HALF)
    order(rig)
    rig.exit("a")
    rig.run(5)
    assert order(rig) == ["Start a", "Activate a", "Route a>b split"]
    assert (actives(rig), rig.status().traffic) == (["r1"], HALF)


@pytest.mark.parametrize("traffic", [NONE, HALF], ids=lambda each: each.mode)
def test_after_a_start_of_the_agent_it_is_told_again(traffic: Traffic) -> None:
    rig = beside(traffic)
    order(rig)
    rig.restart()
    rig.run(5)
    assert order(rig) == [f"Route a>b {traffic.mode}"]
    assert rig.status().traffic == traffic


def test_after_a_power_cut_both_come_back() -> None:
    rig = beside(HALF)
    order(rig)
    rig.restart(reboot=True)
    rig.run(5)
    assert order(rig) == ["Start a", "Start b", "Activate a", "Route a>b split"]
    assert (actives(rig), rig.revisions(), rig.status().traffic) == (["r1"], ["r1", "r2"], HALF)


def test_a_candidate_alone_is_restarted_when_it_is_the_one_missing() -> None:
    rig = beside()
    order(rig)
    rig.running.pop((APP, "b"))
    rig.restart()
    rig.run(5)
    assert order(rig) == ["Start b", "Route a>b shadow"]


def test_a_newer_revision_takes_the_candidates_place() -> None:
    rig = beside()
    order(rig)
    rig.desire(held(HALF, "r3"))
    rig.run(10)
    assert order(rig) == ["Route a>b none", "Stop b", "Start b", "Route a>b split"]
    assert (rig.revisions(), actives(rig), rig.route("a")) == (["r1", "r3"], ["r1"], ("split", "r3", 0.5))


@pytest.mark.parametrize("kind", ["model", "bundle"])
def test_where_nothing_is_committed_the_candidate_takes_all(kind: str) -> None:
    rig = Rig()
    rig.desire(held(HALF, "r1", kind=kind))
    rig.run(10)
    assert (rig.status().revision, rig.status().ready, rig.status().traffic) == ("r1", True, None)
    assert not any(isinstance(effect, Route) for effect in rig.log)


def test_bundles_are_replaced_as_ever() -> None:
    rig = committed("bundle")
    rig.desire(held(HALF, kind="bundle"))
    rig.run(10)
    assert (rig.status().revision, rig.status().traffic) == ("r2", None)
    assert not any(isinstance(effect, Route) for effect in rig.log)


def test_without_hold_traffic_means_nothing() -> None:
    rig = committed()
    rig.desire(want("r2", probation_seconds=1, traffic=HALF))
    rig.run(10)
    assert (rig.status().committed, rig.status().traffic) == ("r2", None)


def test_what_the_model_server_does_not_take_is_told_again_ever_more_slowly() -> None:
    rig = committed()
    rig.desire(held(HALF))
    rig.run(1, answer=lambda effect: not isinstance(effect, Route))
    tries = []

    def refused(effect: Effect) -> bool:
        return not isinstance(effect, Route)

    for _ in range(9):
        (route,) = (effect for effect in rig.pending.values() if isinstance(effect, Route))
        tries.append(rig.time)
        rig.done(route, Failed(kind="transient", reason="NotRouted", message="the model server answered 400"))
        assert rig.status().traffic is None
        rig.time = max(rig.time, rig.state.live[APP].slots["a"].route_due)
        rig.post(Tick())
    pauses = [after - before for before, after in pairwise(tries)]
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert pauses[-1] == rig.limits.route_retry_seconds_max
    assert rig.reasons().count("RouteFailed") == 1
    rig.run(1, answer=refused)
    assert rig.status().update is UpdateState.PROBATION  # it is not the revision's fault
    rig.run(5)
    assert rig.status().traffic == HALF


def test_the_device_sleeps_while_a_route_cannot_be_told() -> None:
    rig = committed()
    rig.desire(held(HALF))
    rig.run(1, answer=lambda effect: not isinstance(effect, Route))
    (route,) = (effect for effect in rig.pending.values() if isinstance(effect, Route))
    rig.done(route, Failed(kind="transient", reason="NotRouted", message="no"))
    rig.exit("b")
    rig.run(0.5)
    wake = next_wake(rig.state)
    assert wake is not None
    assert wake > rig.time
