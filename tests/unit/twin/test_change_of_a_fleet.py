"""How manifests become plans on the snapshot of a fleet that is there."""

import msgspec
import pytest
from change_rig import ARTIFACT, CONFIG, published, rehearsed, running, snapshot, sound, workload

from edgewise.resources.artifact import Artifact, ArtifactSpec
from edgewise.resources.errors import Invalid
from edgewise.resources.manifests import load
from edgewise.resources.meta import Metadata
from edgewise.resources.workload import ArtifactReference
from edgewise.twin.fleet import History, Running, TwinDevice


def test_a_snapshots_workload_moves_from_where_it_is():
    made = rehearsed(workload(version="6"), fleet=snapshot())
    plan = sound(made.plan)
    assert running(plan) == {"inspector": "5"}
    assert published(plan) == ["inspector:5", "inspector:6"]
    new = plan.fleet.versions[1].spec.manifest
    assert sum(file.size for file in new.variants[0].files) == 77_000_000
    assert {file.digest for file in new.variants[0].files}.isdisjoint(
        file.digest for file in plan.fleet.versions[0].spec.manifest.variants[0].files
    )
    assert made.assumptions == ("version 6 of inspector is not known to the fleet: it is taken to be as big as version 5",)


def test_a_new_workload_has_no_past():
    made = rehearsed(workload("recorder"), fleet=snapshot())
    assert running(sound(made.plan)) == {"inspector": "5"}
    assert any("recorder is new to the fleet" in line for line in made.assumptions)


def test_labels_of_a_real_fleet_are_left_alone():
    made = rehearsed(workload(version="6", selector="matchLabels: {line: '3'}"), fleet=snapshot())
    assert all(device.labels == {} for device in made.plan.fleet.devices)
    assert any("no device of the fleet can run" in line and "line must be 3" in line for line in made.misfits)


def test_what_was_refused_before_is_said():
    fleet = snapshot()
    past = (Running(workload="line-3/inspector", version="5", refused=("6",)),)
    devices = tuple(msgspec.structs.replace(device, instances=past) for device in fleet.devices)
    made = rehearsed(workload(version="6"), fleet=msgspec.structs.replace(fleet, devices=devices))
    assert any(f"inspector 6 was refused on {len(devices)} devices before" in line for line in made.assumptions)
    assert not any("refused" in line for line in rehearsed(workload(version="7"), fleet=made.plan.fleet).assumptions)


def test_what_runs_already_is_said():
    made = rehearsed(workload(version="5", more="  parameters: {rate: 1}\n  strategy: {probation: 9s}"), fleet=snapshot())
    assert any("runs already what the change says" in line for line in made.assumptions)


def test_a_parameter_that_nobody_declared_is_refused():
    with pytest.raises(Invalid, match=r"parameters.rte: line-3/inspector: the artifact declares no parameter 'rte'; it declares: rate"):
        rehearsed(workload(version="5", more="  parameters: {rte: 1}"), fleet=snapshot())
    with pytest.raises(Invalid, match="10 is greater than the maximum, 9"):
        rehearsed(workload(version="5", more="  parameters: {rate: 10}"), fleet=snapshot())
    sound(rehearsed(workload(version="6", more="  parameters: {rate: 1, fresh: 1}"), fleet=snapshot()).plan)


def following(alias="champion"):
    return msgspec.structs.replace(
        load(workload("follower"))[0],
        spec=msgspec.structs.replace(load(workload())[0].spec, artifact=ArtifactReference(name="inspector", alias=alias)),
    )


def test_a_moved_alias_rolls_out_whoever_follows_it_with_its_own_strategy():
    artifact = Artifact(metadata=Metadata(name="inspector", namespace="line-3"), spec=ArtifactSpec(aliases={"champion": "5"}))
    plan = sound(rehearsed(ARTIFACT, fleet=snapshot(following(), artifacts=(artifact,))).plan)
    assert [(type(act.apply).__name__, act.apply.metadata.name) for act in plan.acts] == [
        ("Workload", "follower"),
        ("Artifact", "inspector"),
    ]
    assert plan.acts[0].apply.spec.strategy == following().spec.strategy != plan.fleet.workloads[1].spec.strategy
    assert published(plan) == ["inspector:5", "inspector:7"]


def test_an_alias_that_the_change_takes_away_is_said():
    artifact = Artifact(metadata=Metadata(name="inspector", namespace="line-3"), spec=ArtifactSpec(aliases={"best": "5"}))
    made = rehearsed(ARTIFACT, fleet=snapshot(following("best"), artifacts=(artifact,)))
    assert any("without the alias best: line-3/follower stays as it is" in line for line in made.assumptions)


def test_an_alias_that_nobody_knows_is_taken_for_the_newest():
    made = rehearsed(workload(version="6"), fleet=snapshot(following()))
    assert made.plan.fleet.artifacts[0].spec.aliases == {"champion": "5"}
    assert any("alias champion of inspector is not known" in line for line in made.assumptions)


def test_a_config_alone_rolls_out():
    using = msgspec.structs.replace(
        load(workload("user", more="  config: {name: settings}"))[0],
        spec=load(workload("inspector", version="5", more="  config: {name: settings}"))[0].spec,
    )
    plan = sound(rehearsed(CONFIG, fleet=snapshot(using)).plan)
    assert plan.fleet.configs[0].spec.data == {}
    assert [act.apply.metadata.name for act in plan.acts] == ["user", "settings"]


def test_sites_and_devices_of_the_change_are_so_from_the_beginning():
    text = """
apiVersion: edgewise/v1alpha1
kind: Site
metadata: {name: berlin}
spec: {link: {bandwidth: 2M, metered: true}, failoverDomain: east}
---
apiVersion: edgewise/v1alpha1
kind: Device
metadata: {name: d1, labels: {line: "3"}}
spec: {site: rome, unschedulable: true}
---
apiVersion: edgewise/v1alpha1
kind: Device
metadata: {name: d99}
"""
    made = rehearsed(text, workload(version="6"), fleet=snapshot())
    fleet = made.plan.fleet
    assert (fleet.sites[0].link.bandwidth, fleet.sites[0].link.metered, fleet.sites[0].failover_domain) == (2e6, True, "east")
    assert (fleet.devices[1].labels, fleet.devices[1].site, fleet.devices[1].unschedulable) == ({"line": "3"}, "rome", True)
    assert "rome" in {site.name for site in fleet.sites}
    assert any("device d99 of the change is not in the fleet" in line for line in made.assumptions)


def test_updates_fail_as_in_the_past():
    devices = tuple(
        TwinDevice(name=f"d{n}", site="berlin", device_class="pi", history=History(update_failures=0.2 if n else 0.0)) for n in range(4)
    )
    made = rehearsed(workload(version="6"), fleet=snapshot(devices=devices))
    (failing,) = [one for one in made.plan.scenario.behaviours if one.fails]
    assert (failing.workload, failing.version, failing.device_class, failing.share) == ("line-3/inspector", "new", "pi", 0.15)
    assert any("on 15.0% of the devices of class pi" in line for line in made.assumptions)
