"""How manifests become plans: the update that people mean, on the devices that they mean, and every assumption said."""

import msgspec
import pytest
from change_rig import ARTIFACT, CONFIG, ROOT, applied, published, rehearsed, running, sound, where, workload

from edgewise.resources.artifact import Artifact
from edgewise.resources.config import Config
from edgewise.resources.validation import problems
from edgewise.twin.generate import made_fleet
from edgewise.twin.versions import made_version, version_before

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


def test_a_config_beside_its_workload_is_not_rolled_out_twice():
    plan = rehearsed(CONFIG, workload(more="  config: {name: settings}")).plan
    assert plan.fleet.configs[0].spec.data == applied(plan, Config)[0].spec.data == {"a": "1"}
