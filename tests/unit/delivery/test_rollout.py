"""The rollout's table, signals, waves and members."""

import re
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.delivery.rollout import (
    ACTIVE,
    TABLE,
    Candidate,
    Effect,
    Facts,
    Seen,
    Signal,
    Standing,
    Tally,
    choose,
    over_budget,
    signal_of,
    standing,
    wave_need,
)
from edgewise.resources.instance import InstanceSpec
from edgewise.resources.rollout import RolloutSpec, RolloutStatus
from edgewise.resources.states import AnalysisState, InstanceState, RolloutState, UpdateState
from edgewise.resources.workload import Canary

TERMINAL = set(RolloutState) - ACTIVE


def test_table_is_whole():
    for state in RolloutState:
        taken = {signal for known, signal in TABLE if known is state}
        if state in TERMINAL:
            assert not taken, "what is over stays over"
        else:
            assert Signal.SUPERSEDE in taken, "a newer spec takes over from anything under way"
    reached = {state for state, _ in TABLE.values()}
    assert reached == set(RolloutState) - {RolloutState.PENDING}
    for (state, signal), (after, effect) in TABLE.items():
        if effect is Effect.SEND_BACK:
            assert after is RolloutState.ROLLING_BACK
        if effect is Effect.FINISH:
            assert after is RolloutState.SUCCEEDED
        if state is RolloutState.ROLLING_BACK:
            assert signal in {Signal.BACK, Signal.BACK_ABORTED, Signal.SUPERSEDE}, "what goes back goes nowhere else"


def facts(state=RolloutState.PROGRESSING, tally=None, now=100.0, spec=None, **fields):
    status = RolloutStatus(state=state, wave=1, waves=2, **{k: v for k, v in fields.items() if k in RolloutStatus.__struct_fields__})
    others = {k: v for k, v in fields.items() if k not in RolloutStatus.__struct_fields__}
    spec = spec or RolloutSpec(workload="app", to_revision="b", from_revision="a")
    known = {"filled": True, **others}
    return Facts(spec=spec, status=status, tally=tally or Tally(pending=4, succeeded=1), now=now, **known)


def spec(**fields):
    return RolloutSpec(workload="app", to_revision="b", from_revision="a", **fields)


@pytest.mark.parametrize(
    ("given_facts", "signal"),
    [
        (facts(RolloutState.PENDING), Signal.START),
        (facts(RolloutState.PENDING, spec=spec(abort=True)), Signal.ABORT),
        (facts(), Signal.HEALTHY),
        (facts(filled=False), None),
        (facts(tally=Tally(pending=4, updating=1)), None),
        (facts(tally=Tally(pending=4, unready=1)), None),
        (facts(tally=Tally(pending=4, unreached=1)), None),
        (facts(tally=Tally(pending=4, unreached=1), silent=True), Signal.OUT_OF_REACH),
        (facts(tally=Tally(pending=4, unreached=1), silent=True, filled=False), None),
        (facts(tally=Tally(pending=4, succeeded=1, unreached=1)), Signal.HEALTHY),
        (facts(tally=Tally()), Signal.ALL_DONE),
        (facts(tally=Tally(pending=4, failed=1)), Signal.OVER_BUDGET),
        (facts(spec=spec(abort=True)), Signal.ABORT),
        (facts(spec=spec(paused=True)), Signal.PAUSE),
        (facts(spec=spec(promote=1)), Signal.PROMOTE),
        (facts(spec=spec(promote=1), promoted=1), Signal.HEALTHY),
        (facts(verdict=AnalysisState.FAILED), Signal.ANALYSIS_FAILED),
        (facts(healthy_since=70.0), Signal.JUDGED),
        (facts(healthy_since=70.1), None),
        (facts(healthy_since=70.0, tally=Tally(pending=4, updating=1)), Signal.UNHEALTHY),
        (facts(healthy_since=70.0, tally=Tally(pending=4, succeeded=19, updating=1)), Signal.JUDGED),
        (facts(healthy_since=70.0, tally=Tally(pending=4, succeeded=18, updating=1)), Signal.UNHEALTHY),
        (facts(healthy_since=70.0, verdict=AnalysisState.RUNNING), None),
        (facts(healthy_since=70.0, verdict=AnalysisState.INCONCLUSIVE), Signal.INCONCLUSIVE),
        (facts(healthy_since=70.0, analysis=AnalysisState.SUCCESSFUL), Signal.WAVE_DONE),
        (facts(healthy_since=70.0, analysis=AnalysisState.SUCCESSFUL, tally=Tally(held=1, holding=1)), None),
        (facts(healthy_since=70.0, analysis=AnalysisState.SUCCESSFUL, tally=Tally(updating=1)), None),
        (facts(healthy_since=70.0, analysis=AnalysisState.SUCCESSFUL, verdict=AnalysisState.FAILED), Signal.WAVE_DONE),
        (facts(RolloutState.PAUSED, spec=spec(paused=True)), None),
        (facts(RolloutState.PAUSED), Signal.RESUME),
        (facts(RolloutState.PAUSED, tally=Tally(unreached=1), silent=True), None),
        (facts(RolloutState.PAUSED, tally=Tally(unreached=1), silent=True, word=True), Signal.RESUME),
        (facts(RolloutState.PAUSED, tally=Tally(unreached=1), silent=True, spec=spec(abort=True)), Signal.ABORT),
        (facts(RolloutState.PAUSED, spec=spec(paused=True, abort=True)), Signal.ABORT),
        (facts(RolloutState.PAUSED, spec=spec(paused=True), verdict=AnalysisState.FAILED), Signal.ANALYSIS_FAILED),
        (facts(RolloutState.PAUSED, spec=spec(paused=True), tally=Tally(failed=1)), Signal.OVER_BUDGET),
        (facts(RolloutState.ROLLING_BACK), None),
        (facts(RolloutState.ROLLING_BACK, back=True), Signal.BACK),
        (facts(RolloutState.ROLLING_BACK, back=True, spec=spec(abort=True)), Signal.BACK_ABORTED),
        *[(facts(state, spec=spec(abort=True, promote=3)), None) for state in sorted(TERMINAL)],
    ],
)
def test_signals(given_facts, signal):
    assert signal_of(given_facts) is signal


@given(st.data())
def test_every_signal_means_something_where_it_is_given(data):
    state = data.draw(st.sampled_from(sorted(RolloutState)))
    tally = Tally(**{f: data.draw(st.integers(0, 3)) for f in Tally.__struct_fields__ if f != "holding"})
    drawn = facts(
        state,
        tally,
        spec=spec(abort=data.draw(st.booleans()), paused=data.draw(st.booleans()), promote=data.draw(st.integers(0, 1))),
        healthy_since=data.draw(st.sampled_from([None, 0.0, 99.0])),
        analysis=data.draw(st.sampled_from(sorted(AnalysisState))),
        verdict=data.draw(st.sampled_from(sorted(AnalysisState))),
        filled=data.draw(st.booleans()),
        back=data.draw(st.booleans()),
    )
    signal = signal_of(drawn)
    assert signal is None or (state, signal) in TABLE


SPEC = InstanceSpec(workload="app", device="d0", revision="b", variant="v")
HOLD = InstanceSpec(workload="app", device="d0", revision="b", variant="v", hold=True)
ON_TRIAL = Seen(update=UpdateState.PROBATION, update_revision="b", revision="b", committed="a", ready=True)
WELL = Seen(state=InstanceState.RUNNING, revision="b", committed="b", ready=True)


@pytest.mark.parametrize(
    ("spec", "seen", "fields", "where"),
    [
        (msgspec.structs.replace(SPEC, revision="a"), WELL, {}, Standing.PENDING),
        (SPEC, WELL, {}, Standing.SUCCEEDED),
        (SPEC, WELL, {"online": False}, Standing.SUCCEEDED),
        (SPEC, WELL, {"overdue": True}, Standing.SUCCEEDED),
        (SPEC, msgspec.structs.replace(WELL, ready=False), {"overdue": True}, Standing.UNREADY),
        (SPEC, msgspec.structs.replace(WELL, state=InstanceState.BROKEN), {}, Standing.FAILED),
        (SPEC, msgspec.structs.replace(WELL, refused=("b",)), {}, Standing.FAILED),
        (SPEC, msgspec.structs.replace(WELL, refused=("c",)), {}, Standing.SUCCEEDED),
        (SPEC, Seen(update=UpdateState.FAILED, update_revision="b"), {}, Standing.UPDATING),
        (SPEC, Seen(update=UpdateState.FAILED, update_revision="b"), {"overdue": True}, Standing.FAILED),
        (SPEC, Seen(), {}, Standing.UPDATING),
        (SPEC, Seen(), {"overdue": True}, Standing.FAILED),
        (SPEC, Seen(), {"online": False, "overdue": True}, Standing.UNREACHED),
        (SPEC, Seen(refused=("b",)), {"online": False}, Standing.FAILED),
        (SPEC, msgspec.structs.replace(WELL, revision="c"), {}, Standing.UPDATING),
        (HOLD, ON_TRIAL, {}, Standing.HELD),
        (SPEC, ON_TRIAL, {}, Standing.UPDATING),
        (HOLD, ON_TRIAL, {"online": False}, Standing.UNREACHED),
        (HOLD, msgspec.structs.replace(ON_TRIAL, ready=False), {}, Standing.UPDATING),
        (HOLD, msgspec.structs.replace(ON_TRIAL, revision="a"), {}, Standing.UPDATING),
        (msgspec.structs.replace(SPEC, epoch=2), msgspec.structs.replace(WELL, observed_epoch=1), {}, Standing.UPDATING),
        (msgspec.structs.replace(SPEC, epoch=2), msgspec.structs.replace(WELL, observed_epoch=2), {}, Standing.SUCCEEDED),
        (msgspec.structs.replace(SPEC, epoch=2), WELL, {}, Standing.SUCCEEDED),
    ],
)
def test_standing(spec, seen, fields, where):
    assert standing(spec, seen, "b", **{"online": True, "overdue": False, **fields}) is where


@pytest.mark.parametrize(
    ("failed", "touched", "budget", "over"),
    [(0, 1, "0%", False), (1, 100, "0%", True), (1, 20, "5%", False), (1, 19, "5%", True), (2, 20, "5%", True), (5, 5, "100%", False)],
)
def test_budget(failed, touched, budget, over):
    tally = Tally(failed=failed, succeeded=touched - failed)
    assert over_budget(Canary(failure_budget=budget), tally) == over


@pytest.mark.parametrize(
    ("wave", "tally", "need"),
    [
        (1, Tally(pending=8), 1),
        (1, Tally(pending=7, updating=1), 0),
        (2, Tally(pending=7, succeeded=1), 1),
        (2, Tally(pending=9, succeeded=1), 2),
        (3, Tally(pending=7, succeeded=1), 7),
        (1, Tally(pending=7, unreached=1), 1),
        (1, Tally(pending=6, unreached=2), 0),
        (1, Tally(pending=6, unreached=1, succeeded=1), 0),
        (1, Tally(), 0),
    ],
)
def test_wave_need(wave, tally, need):
    assert wave_need((1, "25%", "100%")[wave - 1], tally) == need


CANDIDATES = st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans(), st.sampled_from([0.0, 0.1, 0.9])), max_size=12)


@given(CANDIDATES, st.integers(0, 12), st.dictionaries(st.sampled_from("abc"), st.integers(0, 3)))
def test_one_of_each_class_before_a_second(drawn, need, before):
    candidates = [
        Candidate(device=f"d{n:02}", device_class=name, online=online, midway=midway, risk=risk)
        for n, (name, online, midway, risk) in enumerate(drawn)
    ]
    chosen = choose(candidates, need, before)
    assert len(chosen) == min(need, len(candidates)) == len(set(chosen))
    assert chosen == choose(candidates[::-1], need, before)
    by_name = {c.device: c for c in candidates}
    urgency = [0 if by_name[d].midway and by_name[d].online else 1 if by_name[d].online else 2 for d in chosen]
    assert urgency == sorted(urgency)
    counts = dict(before)
    left = set(by_name) - set(chosen)
    for position, device in enumerate(chosen):
        candidate = by_name[device]
        rivals = {
            by_name[other].device_class
            for other in [*chosen[position:], *left]
            if (by_name[other].online, by_name[other].midway and by_name[other].online)
            == (candidate.online, candidate.midway and candidate.online)
        }
        assert counts.get(candidate.device_class, 0) == min(counts.get(name, 0) for name in rivals)
        alike = [
            (by_name[other].risk, other)
            for other in [*chosen[position:], *left]
            if (by_name[other].device_class, by_name[other].online, by_name[other].midway and by_name[other].online)
            == (candidate.device_class, candidate.online, candidate.midway and candidate.online)
        ]
        assert (candidate.risk, device) == min(alike), "the least at risk of its class comes first"
        counts[candidate.device_class] = counts.get(candidate.device_class, 0) + 1


def test_a_single_canary_stands_for_the_largest_class():
    candidates = [Candidate(device=f"a{n}", device_class="a", online=True, midway=False) for n in range(2)]
    candidates += [Candidate(device=f"b{n}", device_class="b", online=True, midway=False, risk=0.5 - n / 10) for n in range(3)]
    assert choose(candidates, 1, {}) == ["b2"], "however little is at risk elsewhere"
    assert choose(candidates, 5, {}) == ["b2", "a0", "b1", "a1", "b0"]
    assert choose(candidates, 2, {"b": 2}) == ["a0", "a1"]


def test_the_picture_in_the_documentation_is_the_table():
    document = (Path(__file__).parents[3] / "docs" / "rollouts.md").read_text(encoding="utf-8")
    drawn = re.findall(r"^    (\w+) --> (\w+): (\w+)(?: / (\w+))?$", document, flags=re.MULTILINE)
    table = [
        (state.value, after.value, signal.value, "" if effect is Effect.NONE else effect.value)
        for (state, signal), (after, effect) in TABLE.items()
    ]
    assert drawn == table
