"""How scenarios, their behaviours and the built-in story become plans."""

import re

import msgspec
import pytest
from change_rig import ARTIFACT, CALM, rehearsed, snapshot, sound, workload

from edgewise.resources.errors import Invalid
from edgewise.resources.manifests import load
from edgewise.twin.change import change_plan, warm_up_seconds
from edgewise.twin.fleet import LinkQuality
from edgewise.twin.generate import made_fleet
from edgewise.twin.library import scenario
from edgewise.twin.plan import Profile
from edgewise.twin.scenario import Behaviour, FaultRule, Scenario, Select
from edgewise.twin.story import story_plan

# ---- scenarios ----


ANALYSIS = "  strategy: {analysis: [{metric: m.accuracy, min: 0.9, minSamples: 600, giveUpAfter: 1m}, {metric: m.latency, max: 0.2}]}"


def first_of(plan, version):
    return next(
        one for one in plan.scenario.behaviours if one.version in ("", version) and one.workload in ("", "inspector", "line-3/inspector")
    )


def test_good_versions_pass_their_analysis_and_bad_models_do_not():
    good = first_of(rehearsed(workload(more=ANALYSIS)).plan, "new")
    bad = first_of(rehearsed(workload(more=ANALYSIS), wanted=scenario("bad-model")).plan, "new")
    for behaviour, passes in ((good, True), (bad, False)):
        (accuracy, spread), (latency, other) = behaviour.metrics["m.accuracy"], behaviour.metrics["m.latency"]
        assert (accuracy - 3 * spread > 0.9) is (latency + 3 * other < 0.2) is passes
        assert (accuracy + 3 * spread < 0.9) is (latency - 3 * other > 0.2) is not passes
        assert behaviour.samples_per_second >= 30
    old = first_of(rehearsed(workload(more=ANALYSIS), wanted=scenario("bad-model")).plan, "old")
    assert old.metrics == good.metrics


@pytest.mark.parametrize(("least", "most"), [(0, None), (-5, None), (None, 0), (None, -3), (10, 20), (3, None), (1, 1)])
def test_any_bounds_have_an_inside_and_an_outside(least, most):
    bounds = ", ".join(f"{word}: {value}" for word, value in (("min", least), ("max", most)) if value is not None)
    more = f"  strategy: {{analysis: [{{metric: m, {bounds}}}]}}"
    inside = first_of(rehearsed(workload(more=more)).plan, "new").metrics["m"][0]
    outside = first_of(rehearsed(workload(more=more), wanted=scenario("bad-model")).plan, "new").metrics["m"][0]

    def fits(value):
        return (least is None or value >= least) and (most is None or value <= most)

    assert fits(inside)
    assert not fits(outside)


def test_a_bad_model_that_nobody_measures_is_said():
    made = rehearsed(workload(), wanted=scenario("bad-model"))
    assert any("has no analysis: nobody would notice" in line for line in made.assumptions)


def test_a_night_without_batteries_is_said():
    said = rehearsed(workload(), count=200, wanted=scenario("battery-night")).assumptions
    assert any(re.match(r"\d+ of the 200 devices run on a battery: only there does the scenario's night tell", line) for line in said)
    assert not any("battery" in line for line in rehearsed(workload(), count=200, wanted=scenario("calm")).assumptions)
    assert any(
        "no device of the fleet has a battery" in line
        for line in rehearsed(workload(), count=1, wanted=scenario("battery-night")).assumptions
    )
    made = rehearsed(workload(version="6"), fleet=snapshot(), wanted=scenario("battery-night"))
    assert any("no device of the fleet has a battery" in line for line in made.assumptions)


def test_a_scenario_that_does_not_fit_is_refused():
    with pytest.raises(Invalid, match="the fleet has no 'berln'"):
        rehearsed(workload(version="6"), fleet=snapshot(), wanted=Scenario(name="x", faults=(FaultRule(fault="lost", select=Select(sites=("berln",))),)))  # fmt: skip
    with pytest.raises(Invalid, match="nothing runs that is called 'inspectr' \\(did you mean 'inspector'"):
        rehearsed(workload(), wanted=Scenario(name="x", behaviours=(Behaviour(workload="inspectr"),)))


def test_the_scenarios_behaviours_come_first():
    slow = Behaviour(workload="inspector", version="new", start_seconds=99, metrics={"m": (1, 0)})
    assert first_of(rehearsed(workload(), wanted=Scenario(name="x", behaviours=(slow,))).plan, "new") == slow


def test_who_says_nothing_of_metrics_measures_what_is_usual():
    slow = Scenario(name="x", behaviours=(Behaviour(version="new", share=0.1, start_seconds=99),))
    usual = first_of(rehearsed(workload(more=ANALYSIS)).plan, "new")
    first = first_of(rehearsed(workload(more=ANALYSIS), wanted=slow).plan, "new")
    assert (first.start_seconds, first.share, first.version, first.metrics) == (99, 0.1, "new", usual.metrics)
    assert first.samples_per_second == usual.samples_per_second


@pytest.mark.parametrize("text", ["", "apiVersion: edgewise/v1alpha1\nkind: Site\nmetadata: {name: berlin}\n"])
def test_nothing_to_rehearse_is_said(text):
    with pytest.raises(Invalid, match="nothing to rehearse"):
        rehearsed(text)


def test_a_change_without_workloads_needs_a_real_fleet():
    with pytest.raises(Invalid, match="edgewise twin snapshot"):
        rehearsed(ARTIFACT)


def test_only_the_seed_differs_between_runs():
    resources = load(workload(alias="champion", selector="matchLabels: {line: '1'}"))
    one, two = (change_plan(made_fleet(20), resources, CALM, seed, Profile(disk="plain")) for seed in (1, 2))
    assert one.assumptions == two.assumptions
    assert msgspec.structs.replace(one.plan, seed=2) == two.plan
    assert one.plan.profile.disk == "plain"


def test_warming_up_takes_as_long_as_the_slowest_link():
    assert warm_up_seconds(made_fleet(5)) == 600.0
    fleet = rehearsed(workload()).plan.fleet
    slow = msgspec.structs.replace(
        fleet, sites=tuple(msgspec.structs.replace(site, link=LinkQuality(bandwidth=1e6)) for site in fleet.sites)
    )
    assert warm_up_seconds(slow) == pytest.approx(300 + 1.5 * 10 * 40e6 / 1e6, rel=0.01)


# ---- the story ----


@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_the_story_is_sound(count):
    made = story_plan(made_fleet(count), CALM, 3)
    plan = sound(made.plan)
    assert [(act.at, act.apply.spec.artifact.version) for act in plan.acts] == [(0.0, "2"), (900.0, "3")]
    recorders = [device for device in plan.fleet.devices if "recorder" in device.labels]
    assert len(recorders) == min(3, count)
    assert len({device.site for device in recorders}) == min(3, len(plan.fleet.sites))
    cuts = [rule.select.devices[0] for rule in plan.scenario.faults]
    assert len(set(cuts) & {device.name for device in recorders}) == (2 if count >= 3 else 0)
    assert any("fewer than 3 devices" in line for line in made.assumptions) is (count < 3)


def test_the_storys_third_version_is_the_bad_one():
    plan = story_plan(made_fleet(10), CALM, 3).plan
    means = {one.version: one.metrics["model.accuracy"][0] for one in plan.scenario.behaviours if one.workload == "story/inspector"}
    assert means["3"] < plan.acts[0].apply.spec.strategy.analysis[0].min < means["1"] < means["2"]


@pytest.mark.parametrize("name", ["slow-canary", "calm", "flapping"])
def test_what_is_slow_is_as_good_or_bad_as_ever(name):
    behaviours = story_plan(made_fleet(10), scenario(name), 3).plan.scenario.behaviours
    for version, least, most in (("1", 0.85, 1), ("2", 0.85, 1), ("3", 0, 0.85)):
        found = [one for one in behaviours if one.workload == "story/inspector" and one.version == version]
        assert all(least < one.metrics["model.accuracy"][0] < most for one in found)
        assert [one.start_seconds for one in found] == ([240, 45, 1] if name == "slow-canary" and version != "1" else [1])


def test_the_story_happens_within_any_scenario_and_beside_what_runs():
    plan = sound(story_plan(snapshot(), scenario("power-cuts"), 3).plan)
    names = [f"{one.metadata.namespace}/{one.metadata.name}" for one in plan.fleet.workloads]
    assert names == ["line-3/inspector", "story/inspector", "story/recorder"]
    assert len(plan.scenario.faults) == 4
    assert story_plan(made_fleet(5), scenario("battery-night"), 1).plan.scenario.lasts == "3h"
