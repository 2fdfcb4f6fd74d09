"""Changes to rehearse, as text, and what to look at in the plans that they become."""

from pathlib import Path

import msgspec

from edgewise.delivery.facts import Attributes
from edgewise.resources.artifact import Parameter
from edgewise.resources.artifact_rules import parameter_problem
from edgewise.resources.manifests import load
from edgewise.resources.selector import matches
from edgewise.resources.validation import problems
from edgewise.resources.workload import Workload
from edgewise.twin.change import change_plan
from edgewise.twin.fleet import DeviceClass, TwinDevice, TwinFleet, TwinSite
from edgewise.twin.generate import made_fleet
from edgewise.twin.library import scenario
from edgewise.twin.suiting import facts_of
from edgewise.twin.versions import made_version

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


ARTIFACT = """
apiVersion: edgewise/v1alpha1
kind: Artifact
metadata: {name: inspector, namespace: line-3}
spec: {type: bundle, aliases: {champion: "7", other: "3"}}
"""
CONFIG = """
apiVersion: edgewise/v1alpha1
kind: Config
metadata: {name: settings, namespace: line-3}
spec: {data: {a: "1"}}
"""


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
