"""A run begins with replicas where the fleet has them; what comes and goes with a selector is said, and happens."""

import msgspec
import pytest

from edgewise.resources.meta import Metadata
from edgewise.resources.selector import Requirement, Selector
from edgewise.resources.workload import (
    ArtifactReference,
    EveryMatchingDevice,
    Placement,
    Workload,
    WorkloadSpec,
)
from edgewise.twin.change import change_plan
from edgewise.twin.fleet import History, Running, TakenBack, TwinDevice, TwinFleet, TwinSite
from edgewise.twin.generate import DEFAULT_CLASSES
from edgewise.twin.library import scenario
from edgewise.twin.placing import held, moves
from edgewise.twin.plan import Profile
from edgewise.twin.run import carry_on, run, warmed
from edgewise.twin.versions import made_version

QUICK = Profile(disk="plain", install="modelled", invariants="all")
NAMES = ("d1", "d2", "d3", "d4")


def workload(name="model", version="1", *, replicas=None, selector=None):
    everywhere = None if replicas is not None else EveryMatchingDevice()
    placement = Placement(replicas=replicas, every_matching_device=everywhere, selector=selector or Selector())
    spec = WorkloadSpec(artifact=ArtifactReference(name="model", version=version), placement=placement)
    return Workload(metadata=Metadata(name=name, namespace="shop"), spec=spec)


def fleet(*workloads, at=(), offline=(), cordoned=()):
    here = (Running(workload="shop/model", version="1", committed="1"),)
    devices = tuple(
        TwinDevice(
            name=name,
            site="hall",
            device_class="box",
            labels={"line": "a" if name in ("d1", "d2") else "b"},
            history=History(offline=name in offline),
            instances=here if name in at else (),
            unschedulable=name in cordoned,
        )
        for name in NAMES
    )
    versions = tuple(made_version("shop", "model", version, size=100_000) for version in ("1", "2"))
    return TwinFleet(
        taken_at=1.0,
        sites=(TwinSite(name="hall"),),
        classes=(msgspec.structs.replace(DEFAULT_CLASSES[0], name="box"),),
        devices=devices,
        versions=versions,
        workloads=workloads,
    )


def bound(**how):
    replicas = how.pop("replicas", 2)
    found = held(workload(replicas=replicas), fleet(**how))
    if found is None:
        return None
    assert found.spec.placement.replicas == len(found.spec.placement.selector.match_expressions[-1].values)
    return found.spec.placement.selector.match_expressions[-1].values


@pytest.mark.parametrize(
    ("how", "names"),
    [
        ({"at": ("d3", "d4")}, ("d3", "d4")),
        ({"at": ("d4",)}, ("d4",)),
        ({"at": ("d2", "d3", "d4"), "offline": ("d2",)}, ("d3", "d4")),
        ({"at": ("d3", "d4"), "offline": ("d3",)}, ("d4", "d3")),
        ({"at": ("d3", "d4"), "cordoned": ("d3",)}, ("d4",)),
        ({"at": ()}, None),
        ({"at": ("d3",), "replicas": 0}, None),
    ],
)
def test_replicas_are_bound_to_the_devices_that_have_them(how, names):
    assert bound(**how) == names


def test_what_runs_everywhere_is_bound_to_nothing():
    assert held(workload(), fleet(at=NAMES)) is None


def where(world):
    view = world.control.view
    return sorted(row.spec.device for row in view.members["shop", "model"].instances.values() if row.running)


@pytest.mark.parametrize("at", [("d1", "d4"), ("d2", "d3"), ("d3", "d4")])
def test_a_run_begins_where_the_snapshot_was_and_goes_on_there(at):
    plan = change_plan(fleet(workload(replicas=2), at=at), [workload(version="2", replicas=2)], scenario("calm"), 1, QUICK).plan
    world = warmed(plan)
    assert where(world) == sorted(at)
    assert world.control.view.workloads["shop", "model"].spec.placement == workload(replicas=2).spec.placement
    result = carry_on(world, plan)
    assert where(world) == sorted(at)
    assert [(one.state, one.touched) for one in result.rollouts] == [("Succeeded", 2)]
    assert not result.violations


def test_replicas_that_the_snapshot_does_not_have_are_placed():
    plan = change_plan(fleet(workload(replicas=3), at=("d4",)), [workload(version="2", replicas=3)], scenario("calm"), 1, QUICK).plan
    world = warmed(plan)
    assert len(where(world)) == 3
    assert "d4" in where(world)


LINE_A = Selector(match_expressions=(Requirement(key="line", operator="In", values=("a",)),))


def test_devices_that_a_selector_leaves_out_are_told_and_left():
    change = workload(selector=LINE_A)
    made = change_plan(fleet(workload(), at=NAMES), [change], scenario("calm"), 1, QUICK)
    assert made.moves == ("shop/model ends on 2 devices (d3, d4): it does not select them any more",)
    world = warmed(made.plan)
    assert where(world) == list(NAMES)
    result = carry_on(world, made.plan)
    assert where(world) == ["d1", "d2"]
    assert result.rollouts == ()
    assert result == run(made.plan)


def test_moves_in_words():
    big = Selector(match_expressions=(Requirement(key="capacity.memory", operator="Ge", values=("1Ti",)),))
    everywhere, line_a, nowhere = workload(), workload(selector=LINE_A), workload(selector=big)
    there = fleet()
    assert moves(there, everywhere, everywhere) == ()
    assert moves(there, line_a, everywhere) == ("shop/model begins on 2 devices (d3, d4): it selects them now",)
    assert moves(there, everywhere, nowhere) == ("shop/model ends on 4 devices (d1, d2, d3 …): it does not select them any more",)
    assert moves(there, workload(replicas=2), workload(replicas=3)) == ("shop/model has 3 replicas instead of 2",)
    assert moves(there, workload(replicas=2), workload(replicas=2, selector=LINE_A)) == ()


@pytest.mark.parametrize(
    ("known", "said"),
    [
        ({}, True),
        ({"version": "1"}, False),
        ({"workload": "shop/other"}, False),
        ({"parameters": {"rate": 2}}, False),
        ({"config": "tuning"}, False),
    ],
)
def test_what_the_fleet_took_back_is_said(known, said):
    back = TakenBack(**{"workload": "shop/model", "artifact": "model", "version": "2", **known})
    there = msgspec.structs.replace(fleet(workload(), at=NAMES), taken_back=(back,))
    made = change_plan(there, [workload(version="2")], scenario("calm"), 1, QUICK)
    assert any("model 2 was taken back before: the fleet does not try it again" in line for line in made.misfits) is said


def test_what_was_published_in_another_way_can_be_verified_too():
    # A real publisher may write a manifest in another order than the twin: its digest is not that of the twin's bytes.
    there = fleet(workload(), at=NAMES)
    versions = tuple(
        msgspec.structs.replace(each, spec=msgspec.structs.replace(each.spec, digest=f"sha256:{number:064x}", length=999))
        for number, each in enumerate(there.versions)
    )
    there = msgspec.structs.replace(there, versions=versions)
    profile = msgspec.structs.replace(QUICK, trust="tuf")
    result = run(change_plan(there, [workload(version="2")], scenario("calm"), 1, profile).plan)
    assert [(one.state, one.touched) for one in result.rollouts] == [("Succeeded", 4)]
    assert not result.violations
