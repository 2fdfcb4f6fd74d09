"""Fleets and changes for the benchmarks of the twin."""

from pathlib import Path
from typing import Final

import msgspec

from edgewise.resources.kinds import Resource
from edgewise.resources.manifests import load
from edgewise.resources.meta import Metadata
from edgewise.resources.workload import ArtifactReference, Canary, EveryMatchingDevice, Placement, Strategy, Workload, WorkloadSpec
from edgewise.twin.change import change_plan
from edgewise.twin.fleet import TwinFleet
from edgewise.twin.generate import made_fleet
from edgewise.twin.library import scenario
from edgewise.twin.plan import Act, Plan, Profile
from edgewise.twin.scenario import Behaviour, Scenario
from edgewise.twin.versions import made_version
from edgewise.twin.world import World

QUICK: Final = Profile(disk="plain", install="modelled", invariants="cheap")
"""The profile of a rehearsal."""

_DEMO: Final = Path(__file__).parent.parent / "demo" / "workloads.yaml"


def demo_plan(devices: int, seed: int) -> Plan:
    """Return the rehearsal of the demo's workloads, as `edgewise simulate -f` makes it."""
    change: tuple[Resource, ...] = load(_DEMO.read_text().replace('"VERSION"', '"2"'), _DEMO.name)
    return change_plan(made_fleet(devices), change, scenario("calm"), seed, QUICK).plan


def fleet_plan(devices: int, cadence: float) -> Plan:
    """Return a run in which a made-up fleet joins, and a model is rolled out to all of it. Every device polls and reports telemetry
    every `cadence` seconds."""
    version = made_version("line", "watcher", "1", size=2_000_000)
    strategy = Strategy(canary=Canary(waves=("1%", "10%", "100%"), observe_for="30s", device_deadline="30m"), probation="5s")
    workload = Workload(
        metadata=Metadata(name="watcher", namespace="line"),
        spec=WorkloadSpec(
            artifact=ArtifactReference(name="watcher", version="1"),
            placement=Placement(every_matching_device=EveryMatchingDevice()),
            strategy=strategy,
        ),
    )
    fleet = made_fleet(devices)
    published = TwinFleet(sites=fleet.sites, classes=fleet.classes, devices=fleet.devices, versions=(version,))
    profile = msgspec.structs.replace(QUICK, poll_seconds=cadence, report_seconds=cadence)
    calm = Scenario(name="calm", lasts="1h", behaviours=(Behaviour(workload="line/watcher", metrics={"model.accuracy": (0.94, 0.05)}),))
    return Plan(seed=1, fleet=published, scenario=calm, acts=(Act(at=0.0, apply=workload),), profile=profile)


def joined(world: World) -> None:
    """Let the fleet of a world join."""
    last = len(world.devices) / world.limits.first_power_per_second
    while world.kernel.now <= last or not world.at_rest():
        world.advance(world.check_seconds)
