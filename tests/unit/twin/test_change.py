"""How manifests become plans: the update that people mean, on the devices that they mean, and every assumption said."""

import re
from pathlib import Path

import msgspec
import pytest

from edgewise.delivery.facts import Attributes
from edgewise.resources.artifact import Artifact, ArtifactSpec, Parameter
from edgewise.resources.artifact_rules import parameter_problem
from edgewise.resources.config import Config
from edgewise.resources.errors import Invalid
from edgewise.resources.manifests import load
from edgewise.resources.meta import Metadata
from edgewise.resources.selector import matches
from edgewise.resources.validation import problems
from edgewise.resources.workload import ArtifactReference, Workload
from edgewise.twin.change import change_plan, warm_up_seconds
from edgewise.twin.fleet import DeviceClass, History, LinkQuality, Running, TwinDevice, TwinFleet, TwinSite
from edgewise.twin.generate import made_fleet
from edgewise.twin.library import scenario
from edgewise.twin.plan import Profile
from edgewise.twin.scenario import Behaviour, FaultRule, Scenario, Select
from edgewise.twin.story import story_plan
from edgewise.twin.suiting import facts_of
from edgewise.twin.versions import made_version, version_before

CALM = scenario("calm")
ROOT = Path(__file__).parents[3]


def workload(name="inspector", *, version="2", alias=None, selector="", placement="everyMatchingDevice: {}", more="", namespace="line-3"):
    reference = f"alias: {alias}" if alias else f'version: "{version}"'
    return f"""
apiVersion: edgewise/v1alpha1
kind: Workload
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  artifact: {{name: {name}, {reference}}}
  placement:
    {placement}
    selector: {{{selector}}}
{more}
"""


def rehearsed(*texts, fleet=None, count=40, wanted=CALM, **more):
    resources = load("\n---\n".join(texts))
    return change_plan(fleet or made_fleet(count, seed=2), resources, wanted, 7, **more)


def running(plan):
    return {one.metadata.name: one.spec.artifact.version for one in plan.fleet.workloads}


def applied(plan, kind=Workload):
    return [act.apply for act in plan.acts if isinstance(act.apply, kind)]


def published(plan):
    return [version.metadata.name for version in plan.fleet.versions]


def where(plan, name):
    classes = {sort.name: sort for sort in plan.fleet.classes}
    selector = next(one for one in applied(plan) if one.metadata.name == name).spec.placement.selector
    return [device.name for device in plan.fleet.devices if matches(selector, Attributes(facts_of(device, classes)))]


def sound(plan):
    resources = (*plan.fleet.workloads, *plan.fleet.versions, *plan.fleet.artifacts, *plan.fleet.configs, *(act.apply for act in plan.acts))
    for resource in resources:
        assert problems(resource) == ()
        assert resource.metadata.namespace
    for one in (*plan.fleet.workloads, *applied(plan)):
        for version in plan.fleet.versions:
            manifest = version.spec.manifest
            if manifest.artifact == one.spec.artifact.name and manifest.version == one.spec.artifact.version:
                for name, value in one.spec.parameters.items():
                    assert parameter_problem(name, value, manifest.parameters) is None
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=type(plan)) == plan
    return plan


# ---- made-up fleets ----


def test_a_change_of_a_made_up_fleet_is_an_update():
    made = rehearsed(workload())
    plan = sound(made.plan)
    assert running(plan) == {"inspector": "1"}
    assert [(act.at, act.apply.spec.artifact.version) for act in plan.acts] == [(0.0, "2")]
    assert published(plan) == ["inspector:1", "inspector:2"]
    manifest = plan.fleet.versions[0].spec.manifest
    assert [variant.name for variant in manifest.variants] == ["fp32", "int8"]
    assert sum(file.size for file in manifest.variants[0].files) == 5_000_000
    assert "line-3/inspector runs version 1 of inspector before the change" in made.assumptions
    assert "version 2 of inspector is made up: a model of 5 MB in two variants, fp32 and int8" in made.assumptions


def test_the_strategy_is_the_changes_own_and_the_past_takes_no_time():
    plan = rehearsed(workload(more="  strategy: {canary: {waves: [1, 100%], observeFor: 2h}}")).plan
    assert plan.fleet.workloads[0].spec.strategy.canary.waves == ("100%",)
    assert plan.acts[0].apply.spec.strategy.canary.waves == (1, "100%")
    assert int(plan.scenario.settle.rstrip("s")) > 4 * 3600


def test_the_demos_own_manifests_can_be_rehearsed():
    text = (ROOT / "demo" / "workloads.yaml").read_text().replace("VERSION", "2")
    plan = sound(rehearsed(text).plan)
    assert running(plan) == {"inspector": "1", "camera": "0"}
    assert len(where(plan, "inspector")) == 40
    good = [one for one in plan.scenario.behaviours if one.workload == "line-3/inspector"]
    assert 0.86 < good[-1].metrics["model.accuracy"][0] < 1


@pytest.mark.parametrize(
    ("version", "before"),
    [("2", "1"), ("10", "9"), ("v3", "v2"), ("1.2.3", "1.2.2"), ("2.0", "1.0"), ("1.10", "1.9"), ("007", "006"), ("0", "before-0"), ("x", "before-x")],
)  # fmt: skip
def test_the_version_before(version, before):
    assert version_before(version) == before
    assert running(sound(rehearsed(workload(version=version)).plan)) == {"inspector": before}


def test_a_long_version_has_one_before_it():
    assert problems(made_version("n", "a", version_before("x" * 64))) == ()


def test_without_a_namespace_it_is_the_default_one():
    text = workload().replace(", namespace: line-3", "")
    assert rehearsed(text).plan.acts[0].apply.metadata.namespace == "default"
    assert rehearsed(text, namespace="mine").plan.fleet.workloads[0].metadata.namespace == "mine"


def test_parameters_are_declared_by_what_is_made_up():
    more = "  parameters: {rate: 10, threshold: 0.5, name: x, loud: true}"
    plan = sound(rehearsed(workload(more=more)).plan)
    for version in plan.fleet.versions:
        assert {name: one.type for name, one in version.spec.manifest.parameters.items()} == {
            "rate": "number",
            "threshold": "number",
            "name": "string",
            "loud": "boolean",
        }


def test_two_workloads_of_one_artifact_share_its_versions():
    other = workload("second", more="  parameters: {b: 1}").replace("artifact: {name: second", "artifact: {name: inspector")
    plan = sound(rehearsed(workload(more="  parameters: {a: 1}"), other).plan)
    assert published(plan) == ["inspector:1", "inspector:2"]
    assert set(plan.fleet.versions[1].spec.manifest.parameters) == {"a", "b"}


# ---- selectors ----


@pytest.mark.parametrize(
    "selector",
    [
        "matchLabels: {line: '3'}",
        "matchExpressions: [{key: camera, operator: Exists}]",
        "matchExpressions: [{key: camera, operator: In, values: [front, rear]}]",
        "matchExpressions: [{key: camera, operator: Exists}, {key: camera, operator: NotIn, values: ['yes']}]",
        "matchExpressions: [{key: camera, operator: Exists}, {key: old, operator: DoesNotExist}]",
        "matchExpressions: [{key: floor, operator: Gt, values: ['3']}]",
        "matchExpressions: [{key: floor, operator: Ge, values: ['3']}, {key: floor, operator: Lt, values: ['4']}]",
        "matchExpressions: [{key: floor, operator: Gt, values: ['1']}, {key: floor, operator: Lt, values: ['2']}]",
        "matchExpressions: [{key: floor, operator: Lt, values: ['1']}]",
        "matchLabels: {site: berlin}",
        "matchLabels: {class: jetson-agx, line: '3'}",
        "matchLabels: {device: press-7}",
        "matchExpressions: [{key: site, operator: In, values: [berlin, paris]}]",
        "matchExpressions: [{key: runtime.tensorrt, operator: Ge, values: ['8']}]",
        "matchExpressions: [{key: runtime.tensorrt, operator: Gt, values: ['8.6.2']}, {key: runtime.tensorrt, operator: Lt, values: ['8.10']}]",
        "matchExpressions: [{key: runtime.tensorrt, operator: Lt, values: ['8.0.0']}]",
        "matchExpressions: [{key: runtime.cuda, operator: Exists}]",
        "matchExpressions: [{key: capacity.memory, operator: Ge, values: [4Gi]}]",
        "matchLabels: {capacity.architecture: x86_64}",
        "",
    ],
)
def test_what_a_change_selects_is_there(selector):
    made = rehearsed(workload(selector=selector))
    assert where(sound(made.plan), "inspector")
    assert made.misfits == ()


def test_what_nothing_can_match_is_said():
    made = rehearsed(workload(selector="matchExpressions: [{key: a, operator: Exists}, {key: a, operator: DoesNotExist}]"))
    assert where(made.plan, "inspector") == []
    assert any(line.startswith("no device of the fleet can run line-3/inspector") for line in made.misfits)


@pytest.mark.parametrize(("replicas", "said"), [(4, False), (5, True)])
def test_replicas_that_find_no_device_are_said(replicas, said):
    made = rehearsed(workload(placement=f"replicas: {replicas}"), count=4)
    found = [
        line for line in made.misfits if line == f"only 4 of the {replicas} replicas of line-3/inspector have a device that can run them"
    ]
    assert bool(found) == said
    assert len(made.misfits) == len(found)


def test_workloads_that_exclude_each_other_share_the_fleet():
    made = rehearsed(
        workload("a", selector="matchLabels: {line: '1', cell: x}"),
        workload("b", selector="matchLabels: {line: '1', cell: y}"),
        workload("c", selector="matchLabels: {line: '2'}"),
        workload("d", selector="matchExpressions: [{key: camera, operator: Exists}]"),
    )
    places = [set(where(made.plan, name)) for name in "abcd"]
    assert [len(place) >= 10 for place in places] == [True] * 4
    assert not places[0] & places[1]
    assert not places[0] & places[2]
    assert any("made-up devices have the labels line=1, cell=x" in line or "cell=x, line=1" in line for line in made.assumptions)


def test_labels_that_match_already_are_left_alone():
    fleet = made_fleet(10)
    labelled = msgspec.structs.replace(fleet, devices=(msgspec.structs.replace(fleet.devices[0], labels={"line": "3"}), *fleet.devices[1:]))
    plan = rehearsed(workload(selector="matchLabels: {line: '3'}"), fleet=labelled).plan
    assert where(plan, "inspector") == [fleet.devices[0].name]


def test_peripherals_are_there_and_what_does_not_fit_is_said():
    made = rehearsed(workload(more="  peripherals: [{name: lidar}]\n  resources: {memory: 64Gi}"))
    assert all("lidar" in sort.capacity.peripherals for sort in made.plan.fleet.classes)
    assert any("no device of the fleet can run line-3/inspector" in line and "needs 64 GiB" in line for line in made.misfits)


# ---- aliases ----


def test_an_alias_of_a_made_up_fleet_moves():
    made = rehearsed(workload(alias="champion"))
    plan = sound(made.plan)
    assert [one.spec.aliases for one in plan.fleet.artifacts] == [{"champion": "1"}]
    assert [one.spec.aliases for one in applied(plan, Artifact)] == [{"champion": "2"}]
    assert published(plan) == ["inspector:1", "inspector:2"]
    assert any("alias champion of inspector points to version 1 before the change and to 2 after it" in line for line in made.assumptions)


ARTIFACT = """
apiVersion: edgewise/v1alpha1
kind: Artifact
metadata: {name: inspector, namespace: line-3}
spec: {type: bundle, aliases: {champion: "7", other: "3"}}
"""


def test_an_alias_of_the_change_moves_to_where_it_says():
    plan = sound(rehearsed(ARTIFACT, workload(alias="champion")).plan)
    assert plan.fleet.artifacts[0].spec.aliases["champion"] == "6"
    assert applied(plan, Artifact)[0].spec.aliases == {"champion": "7", "other": "3"}
    assert [version.spec.manifest.type for version in plan.fleet.versions] == ["bundle", "bundle"]


def test_two_workloads_of_one_alias_agree():
    other = workload("second", alias="champion").replace("artifact: {name: second", "artifact: {name: inspector")
    plan = sound(rehearsed(ARTIFACT, workload(alias="champion"), other).plan)
    assert published(plan) == ["inspector:6", "inspector:7"]


# ---- configs and secrets ----


def test_configs_stand_in_and_secrets_are_left_out():
    made = rehearsed(workload(more="  config: {name: settings}\n  secrets: [{name: rtsp}]"))
    plan = sound(made.plan)
    assert [one.metadata.name for one in plan.fleet.configs] == ["settings"]
    assert applied(plan)[0].spec.secrets == ()
    assert any("without its secrets (rtsp)" in line for line in made.assumptions)


CONFIG = """
apiVersion: edgewise/v1alpha1
kind: Config
metadata: {name: settings, namespace: line-3}
spec: {data: {a: "1"}}
"""


def test_a_config_beside_its_workload_is_not_rolled_out_twice():
    plan = rehearsed(CONFIG, workload(more="  config: {name: settings}")).plan
    assert plan.fleet.configs[0].spec.data == applied(plan, Config)[0].spec.data == {"a": "1"}


# ---- a user's own fleet ----


def snapshot(*workloads, devices=None, **fields):
    (spec,) = load(workload(version="5", more="  parameters: {rate: 1}"))
    version = made_version("line-3", "inspector", "5", size=77_000_000, parameters={"rate": Parameter(type="number", maximum=9)})
    return TwinFleet(
        taken_at=1.0,
        sites=(TwinSite(name="berlin"), TwinSite(name="paris")),
        classes=(DeviceClass(name="pi", capacity=made_fleet(1).classes[0].capacity),),
        devices=devices or tuple(TwinDevice(name=f"d{number}", site="berlin", device_class="pi") for number in range(4)),
        workloads=(spec, *workloads),
        versions=(version,),
        **fields,
    )


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
