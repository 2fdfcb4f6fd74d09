"""Runs of a rehearsal begin from one warm-up, and are the runs that they would be alone."""

import msgspec
import pytest

from edgewise.resources.meta import Metadata
from edgewise.resources.workload import (
    ArtifactReference,
    Canary,
    EveryMatchingDevice,
    Placement,
    Strategy,
    Workload,
    WorkloadSpec,
)
from edgewise.twin.change import change_plan
from edgewise.twin.generate import made_fleet
from edgewise.twin.library import scenario
from edgewise.twin.plan import Plan, Profile, warm_up_of
from edgewise.twin.rehearsal import rehearse, rehearse_each
from edgewise.twin.run import carry_on, run, warm_up_key, warmed

QUICK = Profile(disk="plain", install="modelled", invariants="cheap")
FLEET = made_fleet(6)


def workload(version="2", *, waves=(1, "100%")):
    strategy = Strategy(canary=Canary(waves=waves, observe_for="1s"), probation="1s")
    spec = WorkloadSpec(
        artifact=ArtifactReference(name="watcher", version=version),
        placement=Placement(every_matching_device=EveryMatchingDevice()),
        strategy=strategy,
    )
    return Workload(metadata=Metadata(name="watcher", namespace="line"), spec=spec)


def planned(seed, *, around="flapping", profile=QUICK, fleet=FLEET, **more):
    return change_plan(fleet, [workload(**more)], scenario(around), seed, profile).plan


def hashes(results):
    return [result.trace_hash for result in results]


def test_a_run_is_the_same_alone_and_in_every_rehearsal():
    alone = {seed: run(planned(seed)) for seed in (3, 1, 2)}
    assert len(set(hashes(alone.values()))) == 3
    for processes, seeds in ((1, (1, 2, 3)), (2, (3, 1)), (3, (2, 3, 1))):
        done = rehearse(planned, seeds=seeds, processes=processes)
        assert not done.lost
        assert list(done.runs) == [alone[seed] for seed in seeds]


def test_strategies_side_by_side_are_what_they_are_alone():
    def cautious(seed):
        return planned(seed)

    def bold(seed):
        return planned(seed, waves=("100%",))

    both = rehearse_each((cautious, bold), (1, 2), processes=2)
    assert [list(each.runs) for each in both] == [[run(make(seed)) for seed in (1, 2)] for make in (cautious, bold)]
    assert hashes(both[0].runs) != hashes(both[1].runs)
    assert [each.planned for each in both] == [2, 2]


def test_until_the_change_all_runs_are_one():
    lines = {1: [], 2: []}
    for seed, told in lines.items():
        run(planned(seed), sink=told.append)
    begins = {seed: next(at for at, line in enumerate(told) if line.endswith(f" begin run {seed}")) for seed, told in lines.items()}
    assert begins[1] == begins[2] > 50
    assert lines[1][: begins[1]] == lines[2][: begins[2]]
    assert lines[1][begins[1] + 1 :] != lines[2][begins[2] + 1 :]


def test_a_warm_world_begins_any_run_of_the_rehearsal():
    world = warmed(planned(1))
    assert world.t0 is None
    assert world.at_rest()
    result = carry_on(world, planned(2))
    assert result == run(planned(2))
    assert 0 < result.warm_up_exchanges < result.exchanges


def test_what_a_run_is_asked_comes_after_the_warm_up():
    told = []
    result = run(planned(1), progress=told.append)
    assert told[0].exchanges == 0
    assert told[-1].exchanges <= result.exchanges - result.warm_up_exchanges
    assert [at.simulated_seconds for at in told] == sorted(at.simulated_seconds for at in told)


def test_a_run_that_is_stopped_while_it_warms_up_gives_nothing_but_that():
    result = run(planned(1), stop=lambda: True)
    assert result.interrupted
    assert result.simulated_seconds == 0.0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"seed": 1}, {"seed": 2}, True),
        ({"waves": (1, "100%")}, {"waves": ("100%",)}, True),
        ({"around": "flapping"}, {"around": "partition"}, True),
        ({"around": "calm"}, {"around": "bad-model"}, True),
        ({"version": "2"}, {"version": "3"}, False),
        ({"fleet": FLEET}, {"fleet": made_fleet(7)}, False),
        ({"profile": QUICK}, {"profile": msgspec.structs.replace(QUICK, poll_seconds=60.0)}, False),
    ],
)
def test_what_warms_up_alike_shares_it(one, other, same):
    keys = [warm_up_key(planned(**{"seed": 1, **each})) for each in (one, other)]
    assert None not in keys
    assert (keys[0] == keys[1]) is same


def test_runs_of_their_own_warm_up_and_on_sqlite_share_nothing():
    plan = planned(1)
    assert warm_up_key(msgspec.structs.replace(plan, warm_up_seed=None)) is None
    assert warm_up_of(msgspec.structs.replace(plan, warm_up_seed=None)) is None
    assert warm_up_key(planned(1, profile=msgspec.structs.replace(QUICK, store="sqlite"))) is None


def test_a_run_of_its_own_warm_up_has_its_seed_from_the_beginning():
    lines = {1: [], 2: []}
    for seed, told in lines.items():
        run(msgspec.structs.replace(planned(seed), warm_up_seed=None), sink=told.append)
    assert lines[1][:50] != lines[2][:50]
    assert not any(" begin run " in line for line in lines[1])


def test_plans_tell_their_warm_up_when_they_travel():
    plan = planned(1)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=Plan) == plan
