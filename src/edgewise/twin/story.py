"""The built-in story, for `edgewise simulate` without a file: what Edgewise does on a good day and on a bad one, in 40 minutes.

A model looks at what cameras see. Version 2 is better and goes out in waves. Version 3 is worse, and the rollout takes it back because the
analysis says so. A recorder runs in two copies on three devices; two of those lose their power one after the other, and it moves.
"""

from typing import Final

import msgspec

from edgewise.resources.meta import Metadata
from edgewise.resources.quantity import seconds
from edgewise.resources.selector import Requirement, Selector
from edgewise.resources.workload import (
    AnalysisMetric,
    ArtifactReference,
    Canary,
    Disconnect,
    EveryMatchingDevice,
    Placement,
    Resources,
    Strategy,
    Workload,
    WorkloadSpec,
)
from edgewise.twin.change import Rehearsed, change_plan, quick
from edgewise.twin.expected import behaviour_of, resolved, workload_key
from edgewise.twin.fleet import TwinDevice, TwinFleet
from edgewise.twin.library import check
from edgewise.twin.plan import WARM_UP_SEED, Act, Plan, Profile, warm_up_seconds
from edgewise.twin.scenario import FaultRule, Scenario, Select
from edgewise.twin.versions import made_version

__all__ = ["NAMESPACE", "Rehearsed", "change_plan", "story_plan", "story_workloads"]

NAMESPACE: Final = "story"
_ACCURACY: Final = "model.accuracy"
_BETTER_AT: Final = 0.0
_WORSE_AT: Final = 900.0
_FIRST_CUT: Final = "30m"
_SECOND_CUT: Final = "36m"
_LASTS: Final = "42m"
_RECORDERS: Final = 3
_PROFILE: Final = Profile()
_QUALITY: Final = {"1": 0.91, "2": 0.96, "3": 0.78}


def story_plan(fleet: TwinFleet, scenario: Scenario, seed: int, profile: Profile = _PROFILE) -> Rehearsed:
    """Return the story as a plan on `fleet`, around which `scenario` happens. Raises `Invalid` when the scenario does not fit."""
    check(scenario, fleet)
    told = (
        f"a better version 2 goes out, after {_WORSE_AT / 60:.0f} min version 3, which is worse on purpose; after {_FIRST_CUT} and"
        f" {_SECOND_CUT} a device that records loses its power"
    )
    said = ["no file was given: this is the built-in story, with a model and a recorder that are made up", told]
    recorders = _recorders(fleet)
    devices = tuple(_labelled(device, recorders) for device in fleet.devices)
    before = (*(quick(workload) for workload in fleet.workloads), *(quick(workload) for workload in story_workloads("1")))
    made = [made_version(NAMESPACE, "inspector", version, quality=quality) for version, quality in _QUALITY.items()]
    made.append(made_version(NAMESPACE, "recorder", "1", sort="bundle", size=200_000))
    grown = msgspec.structs.replace(fleet, devices=devices, workloads=before, versions=(*fleet.versions, *made))
    if len(recorders) < _RECORDERS:
        said.append(f"the fleet has fewer than {_RECORDERS} devices: nothing is there for the recorder to move to")
    inspector = story_workloads("2")[0]
    acts = tuple(
        Act(at=at, apply=msgspec.structs.replace(inspector, spec=msgspec.structs.replace(inspector.spec, artifact=_version(version))))
        for at, version in ((_BETTER_AT, "2"), (_WORSE_AT, "3"))
    )
    plan = Plan(
        seed=seed,
        fleet=grown,
        scenario=_around(scenario, grown, recorders),
        acts=acts,
        profile=profile,
        warm_up=warm_up_seconds(grown),
        warm_up_seed=WARM_UP_SEED,
    )
    return Rehearsed(plan=plan, assumptions=tuple(said))


def story_workloads(version: str) -> tuple[Workload, ...]:
    """Return the story's workloads: the inspector in `version` on every camera, the recorder in two copies."""
    inspector = WorkloadSpec(
        artifact=_version(version),
        placement=Placement(every_matching_device=EveryMatchingDevice(), selector=_having("camera")),
        resources=Resources(memory="192Mi", cpu="200m"),
        strategy=Strategy(
            canary=Canary(waves=(1, "25%", "100%"), observe_for="30s", failure_budget="5%"),
            analysis=(AnalysisMetric(metric=_ACCURACY, min=0.85, min_samples=80),),
        ),
    )
    recorder = WorkloadSpec(
        artifact=ArtifactReference(name="recorder", version="1"),
        placement=Placement(replicas=2, selector=_having("recorder")),
        resources=Resources(memory="64Mi", cpu="100m"),
        disconnect=Disconnect(lost_after="90s", replace=True),
    )
    return (
        Workload(metadata=Metadata(name="inspector", namespace=NAMESPACE), spec=inspector),
        Workload(metadata=Metadata(name="recorder", namespace=NAMESPACE), spec=recorder),
    )


def _version(version: str) -> ArtifactReference:
    return ArtifactReference(name="inspector", version=version)


def _having(label: str) -> Selector:
    return Selector(match_expressions=(Requirement(key=label, operator="Exists"),))


def _recorders(fleet: TwinFleet) -> tuple[str, ...]:
    """Return three devices, of different sites as far as there are so many."""
    by_site: dict[str, list[str]] = {}
    for device in fleet.devices:
        by_site.setdefault(device.site, []).append(device.name)
    rounds = max((len(names) for names in by_site.values()), default=0)
    order = [names[turn] for turn in range(min(rounds, _RECORDERS)) for names in by_site.values() if turn < len(names)]
    return tuple(order[:_RECORDERS])


def _labelled(device: TwinDevice, recorders: tuple[str, ...]) -> TwinDevice:
    labels = {**device.labels, "camera": device.labels.get("camera", "front")}
    if device.name in recorders:
        labels["recorder"] = "yes"
    return msgspec.structs.replace(device, labels=labels)


def _around(scenario: Scenario, fleet: TwinFleet, recorders: tuple[str, ...]) -> Scenario:
    """Return the scenario with the story's own power cuts and behaviours. Of three devices with two copies, two of them lose their power
    in turn: at least one has a copy."""
    cuts = tuple(
        FaultRule(fault="power-cut", at=at, lasts="5m", select=Select(devices=(name,)))
        for at, name in zip((_FIRST_CUT, _SECOND_CUT), recorders, strict=False)
        if len(recorders) == _RECORDERS
    )
    inspector, *others = story_workloads("1")
    versions = tuple(
        msgspec.structs.replace(
            behaviour_of(inspector, version=version), metrics={_ACCURACY: (quality, 0.02), "model.latency": (0.02, 0.004)}
        )
        for version, quality in _QUALITY.items()
    )
    own = {workload_key(workload) for workload in (inspector, *others)}
    others.extend(workload for workload in fleet.workloads if workload_key(workload) not in own)
    usual = (*versions, *(behaviour_of(workload) for workload in others))
    spelled = resolved(scenario, (inspector, *others), usual, new=frozenset({"2", "3"}))
    longer = seconds(scenario.lasts) < seconds(_LASTS)
    return msgspec.structs.replace(
        spelled,
        lasts=_LASTS if longer else scenario.lasts,
        faults=(*spelled.faults, *cuts),
    )
