"""What each strategy makes of a rollout."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.delivery.controls import Place, choose_controls
from edgewise.delivery.rollout import TABLE, Facts, Seen, Signal, Standing, Tally, signal_of, standing
from edgewise.delivery.stages import pace_of, stage_at, stages, stages_of
from edgewise.resources.instance import InstanceSpec
from edgewise.resources.rollout import RolloutSpec, RolloutStatus
from edgewise.resources.states import AnalysisState, RolloutState, UpdateState
from edgewise.resources.traffic import Traffic
from edgewise.resources.workload import AB, AnalysisMetric, BlueGreen, Canary, Shadow, Strategy

AGREES = AnalysisMetric(metric="model.shadow.disagreement", max="2%")
BOUND = AnalysisMetric(metric="model.accuracy", min=0.9)
BETTER = AnalysisMetric(metric="model.accuracy", direction="higher", margin=0.01)
SHADOWED = Strategy(shadow=Shadow(devices=2, share="25%"), canary=Canary(waves=(1, "100%")), analysis=(AGREES, BOUND, BETTER))
SPLIT = Strategy(ab=AB(devices="20%", share="10%", sticky="x-session", give_up_after="2h"), analysis=(BETTER, BOUND))
BLUE_GREEN = Strategy(blue_green=BlueGreen(observe_for="3m"), probation="7s", analysis=(BOUND,))
WAYS = (Strategy(), SHADOWED, SPLIT, BLUE_GREEN)


def spec(strategy, **fields):
    return RolloutSpec(**{"workload": "app", "to_revision": "b", "from_revision": "a", "strategy": strategy, **fields})


def test_waves_end_with_everything():
    for waves, count in (((1, "25%", "100%"), 3), ((1, "25%"), 3), ((1, 5), 3)):
        every = stages(Strategy(canary=Canary(waves=waves)), first=False)
        assert len(every) == count
        assert every[-1].size == "100%"


def test_a_shadow_goes_before_the_canary_and_is_judged_by_what_only_it_reports():
    shadow, *waves = stages(SHADOWED, first=False)
    assert (shadow.phase, shadow.size, shadow.traffic) == ("Shadow", 2, Traffic(mode="shadow", share=0.25))
    assert (shadow.hold, shadow.commits, shadow.paired) == (True, False, True)
    assert shadow.metrics == (AGREES,)
    assert [(wave.phase, wave.size, wave.metrics, wave.traffic) for wave in waves] == [
        ("Canary", 1, (BOUND, BETTER), None),
        ("Canary", "100%", (BOUND, BETTER), None),
    ]
    assert waves[0].compares
    assert not shadow.compares


def test_an_ab_is_a_trial_and_what_follows_from_it():
    trial, rest = stages(SPLIT, first=False)
    assert trial.traffic == Traffic(mode="split", share=0.1, sticky="x-session")
    assert (trial.decides, trial.paired, trial.commits, trial.size) == (True, True, True, "20%")
    assert {metric.give_up_after for metric in trial.metrics} == {"2h"}
    assert (rest.size, rest.hold, rest.metrics) == ("100%", False, ())


@pytest.mark.parametrize("asks", [True, False])
def test_blue_green_is_warm_and_then_switched(asks):
    warm, switched = stages(Strategy(blue_green=BlueGreen(observe_for="3m", auto_promote=not asks), probation="7s"), first=False)
    assert (warm.traffic, warm.hold, warm.commits, warm.asks, warm.observe) == (Traffic(mode="none"), True, False, asks, 7.0)
    assert not warm.paired
    assert (switched.traffic, switched.hold, switched.commits, switched.observe) == (None, True, True, 180.0)


@pytest.mark.parametrize("strategy", WAYS)
def test_a_first_rollout_is_one_wave_and_what_takes_another_one_back_tries_nothing(strategy):
    (only,) = stages(strategy, first=True)
    assert (only.phase, only.size, only.hold, only.metrics) == ("Canary", "100%", False, ())
    assert stages_of(spec(strategy, from_revision="")) == (only,)
    back = stages_of(spec(strategy, from_revision="b"))
    assert {stage.phase for stage in back} == {"Canary"}


@pytest.mark.parametrize("strategy", WAYS)
def test_a_wave_has_a_stage_and_a_pace(strategy):
    every = stages_of(spec(strategy))
    assert [stage_at(spec(strategy), wave) for wave in range(len(every) + 2)] == [every[0], *every, every[-1]]
    assert pace_of(strategy).device_deadline
    assert every[-1].size == "100%"


# ---- signals of the new stages ----


def facts(strategy, wave=1, **fields):
    known = {k: fields.pop(k) for k in tuple(fields) if k in RolloutStatus.__struct_fields__ and k != "winner"}
    status = RolloutStatus(**{"state": RolloutState.PROGRESSING, "wave": wave, "waves": len(stages_of(spec(strategy))), **known})
    usual = {"spec": spec(strategy), "status": status, "tally": Tally(pending=3, held=1, holding=1), "now": 10_000.0, "filled": True}
    return Facts(**{**usual, **fields})


ASKING = Strategy(blue_green=BlueGreen(auto_promote=False))
SINCE = {"healthy_since": 0.0}
WELL = {"analysis": AnalysisState.SUCCESSFUL, "healthy_since": 0.0}


@pytest.mark.parametrize(
    ("given_facts", "signal"),
    [
        (facts(SHADOWED, **SINCE), Signal.JUDGED),
        (facts(SHADOWED, **SINCE, verdict=AnalysisState.FAILED), Signal.ANALYSIS_FAILED),
        (facts(SHADOWED, **SINCE, verdict=AnalysisState.RUNNING), None),
        (facts(SHADOWED, **SINCE, verdict=AnalysisState.INCONCLUSIVE), Signal.INCONCLUSIVE),
        (facts(SHADOWED, **WELL), Signal.WAVE_DONE),
        (facts(SHADOWED, **WELL, filled=False), Signal.WAVE_DONE),
        (facts(SHADOWED, 2, **WELL), None),
        (facts(SHADOWED, 2, **WELL, tally=Tally(pending=3, succeeded=1)), Signal.WAVE_DONE),
        (facts(SPLIT, **SINCE, winner="new"), Signal.JUDGED),
        (facts(SPLIT, **SINCE, winner="none"), Signal.NO_DIFFERENCE),
        (facts(Strategy(ab=AB(on_no_difference="promote"), analysis=(BETTER,)), **SINCE, winner="none"), Signal.JUDGED),
        (facts(SPLIT, **SINCE, winner="old", verdict=AnalysisState.FAILED), Signal.ANALYSIS_FAILED),
        (facts(BLUE_GREEN, **SINCE), Signal.JUDGED),
        (facts(ASKING, **SINCE), Signal.ASKED),
        (facts(ASKING, **WELL), Signal.WAVE_DONE),
        (facts(ASKING, 2, **SINCE), Signal.JUDGED),
        (facts(BLUE_GREEN, 2, **SINCE, verdict=AnalysisState.FAILED), Signal.ANALYSIS_FAILED),
        (facts(BLUE_GREEN, tally=Tally(pending=3, held=3, failed=1)), Signal.OVER_BUDGET),
    ],
)
def test_signals(given_facts, signal):
    assert signal_of(given_facts) is signal


@given(st.data())
def test_every_signal_means_something_where_it_is_given(data):
    strategy = data.draw(st.sampled_from((*WAYS, ASKING)))
    wave = data.draw(st.integers(1, len(stages_of(spec(strategy)))))
    drawn = facts(
        strategy,
        wave,
        state=data.draw(st.sampled_from(sorted(RolloutState))),
        healthy_since=data.draw(st.sampled_from([None, 0.0])),
        analysis=data.draw(st.sampled_from(sorted(AnalysisState))),
        verdict=data.draw(st.sampled_from(sorted(AnalysisState))),
        winner=data.draw(st.sampled_from(["", "new", "old", "none"])),
        tally=Tally(**{f: data.draw(st.integers(0, 3)) for f in Tally.__struct_fields__}),
        filled=data.draw(st.booleans()),
        silent=data.draw(st.booleans()),
        back=data.draw(st.booleans()),
    )
    signal = signal_of(drawn)
    assert signal is None or (drawn.status.state, signal) in TABLE


BESIDE = InstanceSpec(workload="app", device="d", revision="b", variant="v", hold=True, traffic=Traffic(mode="shadow"))
TRIAL = {"update": UpdateState.PROBATION, "update_revision": "b", "ready": True, "committed": "a"}


@pytest.mark.parametrize(
    ("seen", "where"),
    [
        (Seen(**TRIAL, revision="a", traffic=Traffic(mode="shadow", share=0.5)), Standing.HELD),
        (Seen(**TRIAL, revision="a"), Standing.UPDATING),
        (Seen(**TRIAL, revision="a", traffic=Traffic(mode="split")), Standing.UPDATING),
        (Seen(**TRIAL, revision="b"), Standing.UPDATING),
        (Seen(**{**TRIAL, "committed": ""}, revision="b"), Standing.HELD),
        (Seen(**TRIAL, revision="a", refused=("b",)), Standing.FAILED),
    ],
)
def test_a_candidate_is_where_it_belongs_when_its_traffic_is_in_force(seen, where):
    assert standing(BESIDE, seen, "b", online=True, overdue=False) is where


PLACES = st.builds(
    Place, device=st.text("abcdef", min_size=1, max_size=3), device_class=st.sampled_from("xyz"), site=st.sampled_from(["n", "s"])
)


@given(st.lists(PLACES, min_size=1, max_size=4), st.lists(PLACES, max_size=12, unique_by=lambda place: place.device), st.integers(1, 6))
def test_controls_are_the_devices_most_alike(members, others, most):
    chosen = choose_controls(members, others, most)
    assert chosen == choose_controls(members, others[::-1], most)
    assert len(chosen) <= most
    by_name = {place.device: place for place in others}
    classes = {place.device_class for place in members}
    alike = [place for place in others if place.device_class in classes]
    assert len(chosen) == min(most, len(alike) or len(others))
    if alike:
        assert {by_name[device].device_class for device in chosen} <= classes
    both = {(place.device_class, place.site) for place in members}
    first = [place for place in others if (place.device_class, place.site) in both]
    assert len([d for d in chosen if (by_name[d].device_class, by_name[d].site) in both]) == min(most, len(first))
