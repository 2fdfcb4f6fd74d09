"""Whole runs: they end, say what happened, and come out the same again."""

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from edgewise.resources.artifact import Artifact, ArtifactSpec
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
from edgewise.twin import faults
from edgewise.twin.fleet import Energy
from edgewise.twin.generate import made_fleet
from edgewise.twin.observers import Observer
from edgewise.twin.plan import Act, Plan, Profile
from edgewise.twin.run import run
from edgewise.twin.scenario import Behaviour, FaultKind, FaultRule, Scenario, Select
from edgewise.twin.versions import made_version
from edgewise.twin.world import World

QUICK = Profile(disk="plain", install="modelled", report_seconds=0.0)


def workload(version, *, waves=(1, "100%"), deadline="2m", **fields):
    canary = Canary(waves=waves, observe_for="5s", failure_budget="10%", device_deadline=deadline)
    return Workload(
        metadata=Metadata(name="app", namespace="shop"),
        spec=WorkloadSpec(
            artifact=ArtifactReference(name="app", version=version),
            placement=Placement(every_matching_device=EveryMatchingDevice()),
            strategy=Strategy(canary=canary),
            **fields,
        ),
    )


def version(number):
    return made_version("shop", "app", number, sort="bundle", size=200_000)


def plan(*rules, devices=4, acts=None, behaviours=(), seed=1, profile=QUICK, lasts="10m", settle="20m"):
    artifact = Artifact(metadata=Metadata(name="app", namespace="shop"), spec=ArtifactSpec(type="bundle"))
    fleet = msgspec.structs.replace(
        made_fleet(devices, seed=1), artifacts=(artifact,), versions=(version("1"),), workloads=(workload("1"),)
    )
    change = (Act(at=0.0, apply=version("2")), Act(at=0.0, apply=workload("2")))
    scenario = Scenario(name="test", lasts=lasts, settle=settle, faults=rules, behaviours=behaviours)
    return Plan(seed=seed, fleet=fleet, scenario=scenario, acts=change if acts is None else acts, profile=profile)


def test_a_calm_run_moves_every_device_and_ends_when_all_is_at_rest():
    result = run(plan())
    [rollout] = result.rollouts
    assert (rollout.name, rollout.version, rollout.state, rollout.members, rollout.failed) == ("app-2", "2", "Succeeded", 4, 0)
    assert result.settled_at is not None
    assert result.settled_at == result.simulated_seconds >= rollout.ended_at > 10
    assert result.counts[0].versions == {"shop/app 1": 4}
    assert result.counts[-1].versions == {"shop/app 2": 4}
    [noticed] = result.workloads
    assert noticed.wanted_seconds == pytest.approx(4 * result.simulated_seconds, rel=0.01)
    assert 0 < noticed.unavailable_seconds < 30
    assert [moment.kind for moment in result.timeline] == ["change", "change", "rollout", "wave", "wave", "rollout"]
    assert sum(result.site_bytes.values()) > 4 * 200_000
    assert result.energy_watt_hours > 0
    assert result.exchanges > 20
    assert not result.interrupted


def test_a_bad_version_is_rolled_back_and_its_devices_named():
    result = run(plan(behaviours=(Behaviour(version="new", fails="does-not-load"),)))
    [rollout] = result.rollouts
    assert (rollout.state, rollout.touched) == ("RolledBack", 1)
    assert rollout.rollback_at is not None
    assert len(result.devices_failed) == 1
    assert result.counts[-1].versions == {"shop/app 1": 4}
    assert "rollback" in [moment.kind for moment in result.timeline]


def test_a_device_that_cannot_take_the_version_in_time_failed_too():
    full = FaultRule(fault="disk-full", lasts="9m", select=Select(devices=("device-02",)))
    result = run(plan(full))
    (rollout,) = (rollout for rollout in result.rollouts if rollout.version == "2")
    assert rollout.state == "RolledBack"
    assert rollout.failures.keys() == {"device-02"}
    assert result.devices_failed == ("device-02",)
    (failure,) = (moment for moment in result.timeline if moment.kind == "failure")
    assert failure.subject == "device-02"
    assert failure.message == f"shop/app: {rollout.failures['device-02']}"


def test_devices_that_are_cut_off_while_their_polls_are_open_do_not_fail():
    acts = (Act(at=0.0, apply=version("2")), Act(at=0.0, apply=workload("2", waves=("100%",), deadline="90s")))
    result = run(plan(FaultRule(fault="partition", at="2s", lasts="4m"), acts=acts))
    [rollout] = result.rollouts
    assert (rollout.state, rollout.failed, rollout.message) == ("Succeeded", 0, "")
    assert rollout.ended_at > 240


def test_a_run_without_an_end_stops_at_its_bound():
    result = run(plan(behaviours=(Behaviour(version="new", start_seconds=1e6),), lasts="10s", settle="30s"))
    assert result.settled_at is None
    assert result.simulated_seconds == pytest.approx(40.0)
    assert result.rollouts[0].ended_at is None


def test_a_run_that_is_stopped_gives_what_it_has():
    calls = []
    result = run(plan(), progress=calls.append, stop=lambda: len(calls) >= 20)
    assert result.interrupted
    assert 40 < calls[-1].simulated_seconds < calls[-1].of_seconds
    assert [call.simulated_seconds for call in calls] == sorted(call.simulated_seconds for call in calls)


@pytest.mark.parametrize(
    "rule",
    [
        FaultRule(fault="partition", at="5s", lasts="60s"),
        FaultRule(fault="partition", at="5s", lasts="200s", direction="down"),
        FaultRule(fault="captive-portal", at="5s", lasts="60s"),
        FaultRule(fault="power-cut", at="12s", lasts="30s"),
        FaultRule(fault="agent-kill", at="11s"),
        FaultRule(fault="supervisor-kill", at="12s"),
        FaultRule(fault="reboot", at="8s"),
        FaultRule(fault="replaced", at="5s", lasts="30s"),
        FaultRule(fault="control-kill", at="9s", lasts="60s"),
        FaultRule(fault="control-kill-at-write", at="3s", lasts="5s", amount=0.9),
        FaultRule(fault="control-kill-at-write", at="3s", lasts="5s", amount=0.1),
        FaultRule(fault="control-restore", at="30s", seconds=20.0, lasts="10s"),
        FaultRule(fault="slow-store", at="1s", lasts="60s", seconds=1.0),
        FaultRule(fault="clock", at="2s", lasts="60s"),
        FaultRule(fault="disk-full", at="1s", lasts="60s"),
        FaultRule(fault="workload-crash", at="30s"),
    ],
    ids=lambda rule: f"{rule.fault}-{rule.direction}-{rule.amount}",
)
def test_after_each_fault_everything_comes_to_rest(rule):
    result = run(plan(rule))
    assert result.settled_at is not None, result
    assert result.faults >= 1
    assert result.counts[-1].versions in ({"shop/app 2": 4}, {"shop/app 1": 4})


def test_a_lost_device_keeps_nobody_from_coming_to_rest():
    result = run(plan(FaultRule(fault="lost", at="5s", select=Select(share=0.25))))
    assert result.settled_at is not None
    assert sum(result.counts[-1].versions.values()) == 3


@pytest.mark.parametrize(("sun", "back"), [(20.0, True), (0.0, False)])
def test_a_run_waits_for_batteries_that_fill_again(sun, back):
    night = FaultRule(fault="battery", amount=0.005, lasts="10m")
    made = plan(night, acts=(), lasts="10m", settle="40m")
    energy = Energy(battery_watt_hours=10.0, harvest_watts=sun)
    fleet = msgspec.structs.replace(made.fleet, classes=tuple(msgspec.structs.replace(sort, energy=energy) for sort in made.fleet.classes))
    looked = Dark()
    result = run(msgspec.structs.replace(made, fleet=fleet), observers=(looked,))
    assert looked.dark == (0 if back else 4)
    # Where no sun shines there is nothing to wait for.
    assert (result.settled_at > 660.0) is back


class Dark(Observer):
    def ended(self, world):
        self.dark = sum(not device.powered for device in world.devices.values())


def test_no_fault_is_without_a_meaning():
    assert set(faults.TABLE) == set(get_args(FaultKind))


def test_faults_during_a_rollout_wait_for_it():
    late = (Act(at=100.0, apply=version("2")), Act(at=100.0, apply=workload("2")))
    result = run(plan(FaultRule(fault="reboot", at="5s", during_rollout=True), acts=late))
    [fault] = [moment for moment in result.timeline if moment.kind == "fault"]
    assert fault.at == pytest.approx(105.0, abs=0.1)


def test_only_the_named_faults_come():
    rules = (FaultRule(fault="agent-kill", at="5s"), FaultRule(fault="reboot", at="6s"))
    kept = msgspec.structs.replace(plan(*rules), only=(2,))
    assert [moment.subject for moment in run(kept).timeline if moment.kind == "fault"] == ["reboot"]


def test_the_operator_acts():
    acts = (
        Act(at=0.0, apply=version("2")),
        Act(at=0.0, apply=workload("2")),
        Act(at=2.0, action="pause", on="shop/app"),
        Act(at=60.0, action="resume", on="shop/app"),
        Act(at=61.0, action="abort", on="shop/app"),
        Act(at=300.0, delete="shop/app"),
    )
    result = run(plan(acts=acts))
    assert result.rollouts[0].state == "Aborted"
    assert result.counts[-1].versions == {}
    assert result.settled_at is not None


def test_observers_hear_what_they_ask_for():
    heard = {}

    class Ear(Observer):
        every = 7.0

        def began(self, world):
            heard["began"] = world.kernel.now

        def started(self, world, device, instance, revision):
            heard.setdefault("started", []).append(device.name)

        def wrote(self, world, changes):
            heard["wrote"] = heard.get("wrote", 0) + len(changes)

        def decided(self, world, decision):
            heard["decided"] = heard.get("decided", 0) + 1

        def ticked(self, world):
            heard.setdefault("ticked", []).append(world.kernel.now)

        def ended(self, world):
            world.violated("never-ends", "world", "it ended")

    result = run(plan(), observers=(Ear(),))
    assert heard["began"] == 0.0
    assert len(heard["started"]) == 8
    assert heard["ticked"][:2] == [7.0, 14.0]
    assert heard["wrote"] > 20
    assert heard["decided"] > 10
    assert [violation.invariant for violation in result.violations] == ["never-ends"]


def test_an_observer_changes_nothing():
    class Ear(Observer):
        def wrote(self, world, changes):
            pass

    assert run(plan(), observers=(Ear(),)).trace_hash == run(plan()).trace_hash


def test_the_same_plan_gives_the_same_run_and_another_seed_another():
    rules = (FaultRule(fault="partition", at="5s", lasts="60s"), FaultRule(fault="power-cut", at="80s", lasts="20s"))
    first, again, other = (run(plan(*rules, seed=seed, profile=Profile())) for seed in (1, 1, 2))
    assert first == again
    assert first.trace_hash != other.trace_hash


_AGAIN = """
import sys
sys.path.insert(0, sys.argv[1])
from test_world import plan, run
from edgewise.twin.plan import Profile
from edgewise.twin.scenario import FaultRule
rules = (FaultRule(fault="partition", at="5s", lasts="60s"), FaultRule(fault="power-cut", at="80s", lasts="20s"))
print(run(plan(*rules, profile=Profile())).trace_hash)
"""


def test_the_hash_seed_of_the_process_means_nothing():
    rules = (FaultRule(fault="partition", at="5s", lasts="60s"), FaultRule(fault="power-cut", at="80s", lasts="20s"))
    hashes = {run(plan(*rules, profile=Profile())).trace_hash}
    for seed in ("1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", _AGAIN, str(Path(__file__).parent)]
        hashes.add(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip())
    assert len(hashes) == 1


def test_both_stores_give_the_same_decisions():
    kept = plan(profile=msgspec.structs.replace(QUICK, store="sqlite"))
    sqlite, memory = run(kept), run(plan())
    [one], [other] = sqlite.rollouts, memory.rollouts
    assert (one.state, one.members, one.touched) == (other.state, other.members, other.touched)
    assert one.ended_at == pytest.approx(other.ended_at, abs=0.1)  # epochs are longer there, and so are messages


def test_a_world_can_be_driven_by_hand():
    world = World(plan(acts=()))
    world.advance(120.0)
    assert world.at_rest(), world.unsettled()
    world.begin()
    world.network.cut(tuple(world.devices), "both")
    world.advance(200.0)
    assert not any(world.reachable(name) for name in world.devices)
    world.close()
