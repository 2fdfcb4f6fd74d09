"""Chaos plans: valid for every seed, of all sorts, and over in time; and the way from a failing one to a short one."""

from collections import Counter

import msgspec
import pytest

from edgewise.resources.artifact import Artifact
from edgewise.resources.artifact_rules import parameter_problem
from edgewise.resources.quantity import seconds
from edgewise.resources.validation import problems
from edgewise.resources.workload import Workload
from edgewise.twin import library
from edgewise.twin.chaos import chaos_plan
from edgewise.twin.faulty import EVERY_KIND, TEMPERS
from edgewise.twin.plan import Plan
from edgewise.twin.schedule import kept, schedule
from edgewise.twin.shrink import kept_acts, replay_command, shrink, with_acts

SEEDS = range(200)
WEEK = 7 * 86_400.0
PLANS = [chaos_plan(seed) for seed in SEEDS]
DRAWN = [schedule(plan.scenario, plan.fleet, plan.seed) for plan in PLANS]


def test_every_plan_is_valid():
    for plan in PLANS:
        fleet = plan.fleet
        assert list(library.problems(plan.scenario, fleet)) == [], plan.seed
        applied = [act.apply for act in plan.acts if act.apply is not None]
        for resource in (*fleet.workloads, *fleet.versions, *fleet.artifacts, *fleet.configs, *applied):
            assert problems(resource) == (), plan.seed
        assert 3 <= len(fleet.devices) <= 12
        assert 1 <= len(fleet.sites) <= 3
        assert 1 <= len(fleet.workloads) <= 4
        assert {device.site for device in fleet.devices} <= {site.name for site in fleet.sites}


def test_every_name_in_an_act_means_something():
    for plan in PLANS:
        workloads = {f"chaos/{one.metadata.name}" for one in plan.fleet.workloads}
        devices = {device.name for device in plan.fleet.devices}
        assert [act.at for act in plan.acts] == sorted(act.at for act in plan.acts)
        for act in plan.acts:
            assert bool(act.apply) + bool(act.delete) + bool(act.action) == 1
            assert not act.delete or act.delete in workloads
            if act.action:
                assert act.on in (workloads if act.action in {"pause", "resume", "promote", "abort"} else devices)


def test_whatever_is_rolled_out_was_or_will_be_published_and_takes_its_parameters():
    for plan in PLANS:
        published = {
            version.metadata.name: version
            for version in (*plan.fleet.versions, *(act.apply for act in plan.acts if "Version" in type(act.apply).__name__))
        }
        for act in plan.acts:
            if isinstance(act.apply, Artifact):
                assert f"{act.apply.metadata.name}:{act.apply.spec.aliases['champion']}" in published
            if isinstance(act.apply, Workload) and act.apply.spec.artifact.version is not None:
                reference = act.apply.spec.artifact
                declared = published[f"{reference.name}:{reference.version}"].spec.manifest.parameters
                assert all(parameter_problem(name, value, declared) is None for name, value in act.apply.spec.parameters.items())


def test_faults_end_and_a_quiet_time_follows():
    for plan, faults in zip(PLANS, DRAWN, strict=True):
        assert all(fault.at + fault.lasts <= seconds(plan.scenario.lasts) + 0.01 for fault in faults)
        assert seconds(plan.scenario.settle) >= 3600
        pauses = [act for act in plan.acts if act.action == "pause"]
        last = {act.on: act.at for act in plan.acts if act.action == "resume"}
        assert all(last[act.on] > act.at for act in pauses)


def test_all_sorts_come():
    tempers = Counter(plan.scenario.name for plan in PLANS)
    assert set(tempers) == {f"chaos-{temper.name}" for temper in TEMPERS}
    assert {fault.rule.fault for faults in DRAWN for fault in faults} == set(EVERY_KIND)
    assert any(not faults for faults in DRAWN)
    assert any(len(faults) > 30 for faults in DRAWN)
    workloads = [one.spec for plan in PLANS for one in plan.fleet.workloads]
    assert {one.placement.replicas is None for one in workloads} == {True, False}
    assert {one.disconnect.exclusive for one in workloads} == {True, False}
    assert {one.artifact.alias for one in workloads} == {None, "champion"}
    assert any(one.strategy.analysis for one in workloads)
    assert any(one.config for one in workloads)
    assert {act.action for plan in PLANS for act in plan.acts} >= {"pause", "promote", "abort", "clear-refused", "decommission", "cordon"}
    fails = {behaviour.fails for plan in PLANS for behaviour in plan.scenario.behaviours}
    assert fails == {"", "does-not-load", "crashes-at-start", "crashes", "hangs", "leaks", "probe-fails", "slow-probes"}
    assert max(site.link.loss for plan in PLANS for site in plan.fleet.sites) > 0.25
    assert max(site.link.duplication for plan in PLANS for site in plan.fleet.sites) > 0.4


def test_some_versions_pass_and_some_fail_their_analysis():
    means = [one.metrics["quality"][0] for plan in PLANS for one in plan.scenario.behaviours if one.version and "quality" in one.metrics]
    assert any(mean > 0.9 for mean in means)
    assert any(mean < 0.9 for mean in means)


def test_a_run_with_one_kind_has_one_kind():
    for plan, faults in zip(PLANS, DRAWN, strict=True):
        if plan.scenario.name == "chaos-one-kind":
            assert len({fault.rule.fault for fault in faults if fault.lasts < WEEK}) <= 1


def test_some_fleets_lie_in_a_drawer_some_have_hasty_certificates_some_verify_and_some_use_sqlite():
    away = [max((fault.lasts for fault in faults), default=0.0) > WEEK for faults in DRAWN]
    assert 0 < sum(away) < len(away) / 6
    profiles = [plan.profile for plan in PLANS]
    assert {profile.trust for profile in profiles} == {"tuf", "none"}
    assert {profile.store for profile in profiles} == {"sqlite", "memory"}
    assert {profile.certificate_seconds for profile in profiles} == {1_200.0, 90 * 86_400.0}


def test_in_the_end_everybody_gets_a_sound_version():
    bad = 0
    for plan in PLANS:
        fails = {(one.workload, one.version): one.fails for one in plan.scenario.behaviours}
        last = {}
        for act in plan.acts:
            if isinstance(act.apply, Workload) and act.apply.spec.artifact.version is not None:
                last[f"chaos/{act.apply.metadata.name}"] = act.apply.spec.artifact.version
        assert all(not fails.get(key) for key in last.items())
        bad += any(fails.values())
    assert bad > 50


def test_a_plan_is_its_seed():
    assert chaos_plan(5) == chaos_plan(5)
    assert chaos_plan(5) != chaos_plan(6)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(PLANS[5]), type=Plan) == PLANS[5]


# ---- shrinking ----

LONG = next(plan for plan, faults in zip(PLANS, DRAWN, strict=True) if len(faults) > 30 and len(plan.acts) > 8)
NUMBERS = tuple(fault.number for fault in schedule(LONG.scenario, LONG.fleet, LONG.seed))


class Oracle:
    """Fails when all of some faults and acts happen, and counts how often it is asked."""

    def __init__(self, faults, acts=()):
        self.faults, self.acts, self.asked, self.seen = set(faults), [LONG.acts[number - 1] for number in acts], 0, []

    def __call__(self, plan):
        self.asked += 1
        self.seen.append((plan.only, plan.acts))
        there = {fault.number for fault in kept(schedule(plan.scenario, plan.fleet, plan.seed), plan.only)}
        return self.faults <= there and all(act in plan.acts for act in self.acts)


@pytest.mark.parametrize(
    ("faults", "acts"), [((), ()), ((3, 17), ()), ((1,), (2,)), ((5, 6, 29), (1, 4)), ((), (3,)), (NUMBERS[::9], (1, 2, 3))]
)
def test_shrinking_finds_the_least_that_fails(faults, acts):
    oracle = Oracle(faults, acts)
    smallest = shrink(LONG, oracle, budget=1_000)
    assert smallest.only == tuple(sorted(faults))
    assert list(smallest.acts) == oracle.acts
    assert oracle(smallest)
    assert msgspec.structs.replace(smallest, only=None, acts=LONG.acts) == LONG


def test_nothing_is_asked_twice_and_no_more_than_allowed():
    oracle = Oracle(NUMBERS[::4], (1, 5))
    shrink(LONG, oracle, budget=1_000)
    assert len(oracle.seen) == len(set(map(msgspec.msgpack.encode, oracle.seen)))
    short = Oracle(NUMBERS[::4], (1, 5))
    partly = shrink(LONG, short, budget=20)
    assert short.asked == 20
    assert Oracle(NUMBERS[::4], (1, 5))(partly)


def test_what_was_left_out_before_stays_out():
    smallest = shrink(msgspec.structs.replace(LONG, only=NUMBERS[:20]), Oracle((3, 17)))
    assert smallest.only == (3, 17)


def test_without_a_budget_the_plan_still_fails():
    oracle = Oracle((3, 17))
    assert oracle(shrink(LONG, oracle, budget=0))


def test_two_ways_to_fail_end_in_one_of_them():
    def fails(plan):
        return 4 in (plan.only or NUMBERS) or {8, 9} <= set(plan.only or NUMBERS)

    assert shrink(LONG, lambda plan: plan.only != () and fails(plan)).only in {(4,), (8, 9)}


def test_the_command_says_what_is_left():
    smallest = shrink(LONG, Oracle((3, 17), (2,)))
    assert replay_command(LONG) == f"edgewise simulate --chaos --seed {LONG.seed}"
    assert replay_command(msgspec.structs.replace(LONG, only=(3, 17))) == f"edgewise simulate --chaos --seed {LONG.seed} --only 3,17"
    assert replay_command(smallest) == f"edgewise simulate --chaos --seed {LONG.seed} --only 3,17 --acts 2"
    assert replay_command(msgspec.structs.replace(LONG, only=(), acts=())).endswith("--only none --acts none")


def test_the_command_leads_back_to_the_plan():
    smallest = shrink(LONG, Oracle((3, 17), (2, 5)))
    acts = kept_acts(smallest)
    again = with_acts(msgspec.structs.replace(chaos_plan(LONG.seed), only=(3, 17)), acts)
    assert again == smallest
    assert kept_acts(LONG) is None
