"""The rules across fields: one well-formed resource of each kind, and each rule broken alone."""

import msgspec
import pytest

from edgewise.resources.artifact import Command, File, Manifest, Parameter, Probe, Probes, Variant
from edgewise.resources.kinds import BY_NAME
from edgewise.resources.validation import (
    LIMITS,
    ValidationLimits,
    file_path_problem,
    label_problem,
    manifest_problems,
    parameter_problem,
    problems,
)

DIGEST = "sha256:" + "0" * 64
PLACEMENT = {"replicas": 1}
WORKLOAD = {"artifact": {"name": "a", "version": "1"}, "placement": PLACEMENT}


def made(kind, spec, **metadata):
    return msgspec.convert({"kind": kind, "metadata": {"name": "a", **metadata}, "spec": spec}, BY_NAME[kind].type)


def said(resource, limits=LIMITS):
    return [f"{problem.path}: {problem.message}" for problem in problems(resource, limits)]


def workload(**changes):
    return made("Workload", {**WORKLOAD, **changes})


def strategy(**canary):
    return workload(strategy={"canary": canary})


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Workload", WORKLOAD),
        ("Site", {"timeZone": "America/Argentina/Buenos_Aires", "link": {"bandwidth": "10M"}}),
        ("Device", {"site": "lab", "deviceClass": "box"}),
        ("Artifact", {"aliases": {"champion": "2"}}),
        ("Config", {"data": {"a": "b"}}),
        ("Secret", {"data": {"a": "b"}}),
        ("Agent", {}),
        ("Rollout", {"workload": "a", "toRevision": "r"}),
        ("Instance", {"workload": "a", "device": "d", "revision": "r", "variant": "v"}),
    ],
)
def test_what_is_well_has_no_problems(kind, spec):
    assert said(made(kind, spec)) == []


@pytest.mark.parametrize(
    ("resource", "problem"),
    [
        (workload(artifact={"name": "a"}), "spec.artifact: needs exactly one of version or alias"),
        (workload(artifact={"name": "a", "version": "1", "alias": "b"}), "spec.artifact: has version and alias"),
        (workload(artifact={"name": "a", "alias": "B!"}), "spec.artifact.alias: 'B!' is not a name"),
        (workload(placement={}), "spec.placement: needs exactly one of everyMatchingDevice or replicas"),
        (workload(placement={"replicas": 1, "everyMatchingDevice": {}}), "spec.placement: has everyMatchingDevice and replicas"),
        (workload(resources={"memory": 0}), "spec.resources.memory: must be more than 0"),
        (workload(resources={"cpu": -1}), "spec.resources.cpu: must be more than 0"),
        (workload(peripherals=[{"name": "c"}, {"name": "c"}]), "spec.peripherals: 2 entries have the name 'c'"),
        (workload(secrets=[{"name": "c"}, {"name": "c"}]), "spec.secrets: 2 entries have the name 'c'"),
        (workload(parameters={"a b": 1}), "spec.parameters.a b: 'a b' is not a parameter's name"),
        (workload(parameters={"a": float("nan")}), "spec.parameters.a: nan is not a finite number"),
        (workload(disconnect={"lostAfter": "999ms"}), "spec.disconnect.lostAfter: must be at least 1s"),
        (workload(disconnect={"lostAfter": "4999ms", "exclusive": True}), "spec.disconnect.lostAfter: must be at least 5s"),
        (strategy(waves=["50%"]), "spec.strategy.canary.waves: the last wave must be 100%"),
        (strategy(waves=[1, 2]), "spec.strategy.canary.waves: the last wave must be 100%"),
        (strategy(waves=["0%", "100%"]), "spec.strategy.canary.waves[0]: must be more than 0"),
        (strategy(waves=[2, 2, "100%"]), "spec.strategy.canary.waves[1]: waves must grow"),
        (strategy(waves=["50%", 1, "20%", "100%"]), "spec.strategy.canary.waves[2]: waves must grow"),
        (strategy(deviceDeadline="0s"), "spec.strategy.canary.deviceDeadline: must be more than 0"),
        (workload(strategy={"analysis": [{"metric": "m"}]}), "spec.strategy.analysis[0]: needs min or max"),
        (workload(strategy={"analysis": [{"metric": "m", "min": 2, "max": 1}]}), "spec.strategy.analysis[0].min: 2.0 is greater than max"),
        (workload(strategy={"analysis": [{"metric": "", "min": 2}]}), "spec.strategy.analysis[0].metric: must not be empty"),
        (workload(strategy={"analysis": [{"metric": "m", "min": 2}] * 2}), "spec.strategy.analysis: 2 entries have the metric 'm'"),
        (made("Site", {"timeZone": "../etc/passwd"}), "spec.timeZone: '../etc/passwd' is not a time zone"),
        (made("Site", {"link": {"bandwidth": 0}}), "spec.link.bandwidth: must be more than 0"),
        (made("Site", {}, namespace="b"), "metadata.namespace: a Site belongs to no namespace"),
        (made("Config", {}, namespace="B"), "metadata.namespace: 'B' is not a name"),
        (made("Config", {}, name="a:1"), "metadata.name: 'a:1' is not a name"),
        (made("Config", {}, labels={"a b": "c"}), "metadata.labels.a b: 'a b' is not a label name"),
        (made("Config", {}, labels={"a": "b,c"}), "metadata.labels.a: 'b,c' is not a label value"),
        (made("Config", {}, labels={"a": "b\n"}), "metadata.labels.a: 'b\\n' is not a label value"),
        (made("Device", {}, labels={"site": "b"}), "metadata.labels.site: is built in"),
        (made("Device", {"site": "B"}), "spec.site: 'B' is not a name"),
        (made("Artifact", {"aliases": {"A": "1"}}), "spec.aliases.A: 'A' is not a name"),
        (made("Secret", {"encrypted": "x"}), "spec.encrypted: is set by the control plane"),
    ],
)
def test_each_rule(resource, problem):
    assert any(each.startswith(problem) for each in said(resource)), said(resource)


@pytest.mark.parametrize(
    ("requirement", "problem"),
    [
        ({"key": "a", "operator": "In"}, "values: In needs at least one value"),
        ({"key": "a", "operator": "NotIn"}, "values: NotIn needs at least one value"),
        ({"key": "a", "operator": "Exists", "values": ["b"]}, "values: Exists takes no values"),
        ({"key": "a", "operator": "DoesNotExist", "values": ["b"]}, "values: DoesNotExist takes no values"),
        ({"key": "a", "operator": "Gt"}, "values: Gt takes exactly one value"),
        ({"key": "a", "operator": "Le", "values": ["1", "2"]}, "values: Le takes exactly one value"),
        ({"key": "a", "operator": "Lt", "values": ["many"]}, "values[0]: 'many' is not a quantity"),
        ({"key": "runtime.a", "operator": "Lt", "values": ["many"]}, "values[0]: 'many' is not a version"),
        ({"key": "a", "operator": "Lt", "values": ["8.6.2"]}, "values[0]: '8.6.2' is not a quantity"),
        ({"key": "", "operator": "Exists"}, "key: must not be empty"),
    ],
)
def test_selectors(requirement, problem):
    resource = workload(placement={"replicas": 1, "selector": {"matchExpressions": [requirement]}})
    assert said(resource)[0].startswith(f"spec.placement.selector.matchExpressions[0].{problem}")


def test_a_runtime_is_selected_by_its_version():
    selected = {"matchExpressions": [{"key": "runtime.tensorrt", "operator": "Ge", "values": ["8.6.2"]}]}
    assert said(workload(placement={"replicas": 1, "selector": selected})) == []


def test_limits_hold_at_one_under_and_one_over():
    for count, limit, fits in ((3, 3, True), (3, 4, True), (3, 2, False)):
        limits = ValidationLimits(labels_max=limit, data_bytes_max=limit, annotation_bytes_max=limit)
        assert (said(made("Config", {}, labels={str(n): "x" for n in range(count)}), limits) == []) is fits
        assert (said(made("Config", {"data": {"a": "b" * (count - 1)}}), limits) == []) is fits
        assert (said(made("Config", {}, annotations={"a": "b" * (count - 1)}), limits) == []) is fits


def test_labels_of_devices():
    assert label_problem("camera", "front") is None
    assert label_problem("example.com/line", "3") is None
    assert "built in" in label_problem("site", "x")
    assert "label value" in label_problem("a", "b c")
    assert "label name" in label_problem("a=b", "c")


# ---- what is signed ----


def manifest(kind="model", **variant):
    file = File(path="model.onnx", digest=DIGEST, size=1)
    made = Variant(**{"name": "v", "files": (file,), **variant})
    return Manifest(type=kind, namespace="n", artifact="a", version="1", variants=(made,))


COMMAND = Command(argv=("${python}", "main.py"))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (manifest(command=COMMAND), "variants[0].command: a model has no command"),
        (manifest("bundle"), "variants[0].command: a bundle needs a command"),
        (manifest("bundle", command=Command(argv=("",))), "variants[0].command.argv[0]: must not be empty"),
        (manifest("bundle", command=Command(argv=("a\0",))), "variants[0].command: holds a NUL"),
        (
            manifest("bundle", command=Command(argv=("a",), environment={"EDGEWISE_API": "x"})),
            "variants[0].command.environment.EDGEWISE_API",
        ),
        (manifest("bundle", command=Command(argv=("a",), environment={"a=b": "x"})), "variants[0].command.environment.a=b"),
        (manifest(probes=Probes(start=Probe())), "variants[0].probes.start: needs exactly one of httpPath, command or heartbeat"),
        (
            manifest(probes=Probes(liveness=Probe(heartbeat=True, http_path="/x"))),
            "variants[0].probes.liveness: has httpPath and heartbeat",
        ),
        (manifest(probes=Probes(readiness=Probe(http_path="x"))), "variants[0].probes.readiness.httpPath: must begin with '/'"),
        (manifest(probes=Probes(readiness=Probe(http_path="/a\r\nb"))), "variants[0].probes.readiness.httpPath"),
        (manifest(files=(File(path="../x", digest=DIGEST, size=1),)), "variants[0].files[0].path"),
        (
            manifest(files=(File(path="a", digest=DIGEST, size=1), File(path="A", digest=DIGEST, size=1))),
            "variants[0].files: 2 entries have the path",
        ),
        (
            manifest(files=(File(path="a", digest=DIGEST, size=1), File(path="a/b/c", digest=DIGEST, size=1))),
            "variants[0].files: 'a' is both a file",
        ),
        (msgspec.structs.replace(manifest(), variants=manifest().variants * 2), "variants: 2 entries have the name 'v'"),
        (msgspec.structs.replace(manifest(), parameters={"a b": Parameter()}), "parameters.a b"),
        (
            msgspec.structs.replace(manifest(), parameters={"p": Parameter(minimum=1.0)}),
            "parameters.p: minimum and maximum are for integers",
        ),
        (msgspec.structs.replace(manifest(), parameters={"p": Parameter(type="number", choices=("a",))}), "parameters.p.choices"),
        (msgspec.structs.replace(manifest(), parameters={"p": Parameter(type="number", minimum=2, maximum=1)}), "parameters.p.minimum"),
        (msgspec.structs.replace(manifest(), parameters={"p": Parameter(type="integer", default=1.5)}), "parameters.p.default"),
    ],
)
def test_what_may_not_be_signed(given, problem):
    found = [f"{each.path}: {each.message}" for each in manifest_problems(given)]
    assert any(each.startswith(problem) for each in found), found


def test_what_may_be_signed():
    assert manifest_problems(manifest()) == ()
    bundle = manifest("bundle", command=COMMAND, probes=Probes(start=Probe(command=COMMAND), liveness=Probe(heartbeat=True)))
    assert manifest_problems(bundle) == ()


@pytest.mark.parametrize("path", ["/a", "../a", "a/../b", "a//b", "./a", "a/", "", "a\0b", "a\nb", "a\\b", "x" * 256, "a/" * 300 + "b"])
def test_paths_that_no_device_may_write(path):
    assert file_path_problem(path) is not None


@pytest.mark.parametrize("path", ["a", "a/b.c", "lib/ä", ".hidden", "..a/b", "x" * 255])
def test_paths_that_a_device_may_write(path):
    assert file_path_problem(path) is None


def test_versions_are_what_their_manifest_says():
    body = msgspec.to_builtins(manifest())
    good = {"manifest": body, "target": "releases/n/a/1.json", "digest": DIGEST, "length": 1}
    assert said(made("ArtifactVersion", good, name="a:1", namespace="n")) == []
    assert "must be a:1" in said(made("ArtifactVersion", good, name="a:2"))[0]
    assert "metadata.namespace: must be n" in said(made("ArtifactVersion", good, name="a:1", namespace="m"))[0]
    assert "spec.target: must be" in said(made("ArtifactVersion", {**good, "target": "x"}, name="a:1"))[0]


@pytest.mark.parametrize(
    ("parameter", "value", "wrong"),
    [
        (Parameter(), "x", None),
        (Parameter(), 1, "must be a string"),
        (Parameter(choices=("a",)), "b", "none of a"),
        (Parameter(type="integer", minimum=1, maximum=3), 1, None),
        (Parameter(type="integer", minimum=1, maximum=3), 3, None),
        (Parameter(type="integer", minimum=1, maximum=3), 0, "less than the minimum, 1"),
        (Parameter(type="integer", minimum=1, maximum=3), 4, "greater than the maximum, 3"),
        (Parameter(type="integer"), True, "must be an integer"),
        (Parameter(type="integer"), 1.0, "must be an integer"),
        (Parameter(type="number"), 1, None),
        (Parameter(type="number"), float("inf"), "not a finite number"),
        (Parameter(type="boolean"), True, None),
        (Parameter(type="boolean"), 1, "must be a boolean"),
    ],
)
def test_parameters(parameter, value, wrong):
    found = parameter_problem("p", value, {"p": parameter})
    assert found is None if wrong is None else wrong in found


def test_undeclared_parameters_are_told_with_the_declared_ones():
    assert "declares no parameter 'q'; it declares: p" in parameter_problem("q", 1, {"p": Parameter()})
    assert "it declares: none" in parameter_problem("q", 1, {})
