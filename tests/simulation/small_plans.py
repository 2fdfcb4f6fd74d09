"""Hand-written runs that are as small as they can be: a few quick devices, one workload, exact disks, real installs."""

from edgewise.resources.device import Capacity
from edgewise.resources.meta import Metadata
from edgewise.resources.workload import (
    AnalysisMetric,
    ArtifactReference,
    Canary,
    Disconnect,
    EveryMatchingDevice,
    Placement,
    Strategy,
    Workload,
    WorkloadSpec,
)
from edgewise.twin.fleet import DeviceClass, LinkQuality, TwinDevice, TwinFleet, TwinSite
from edgewise.twin.plan import Act, Plan, Profile
from edgewise.twin.scenario import FaultRule, Scenario, Select
from edgewise.twin.versions import made_version

SPACE = "shop"
NAME = "app"
KEY = f"{SPACE}/{NAME}"
_MIB = 2**20


def version(number, sort="bundle", size=20_000):
    return made_version(SPACE, NAME, number, sort=sort, size=size)


def workload(
    number="1",
    *,
    replicas=None,
    waves=(1, "100%"),
    budget="10%",
    exclusive=False,
    lost_after="60s",
    analysis=(),
    observe="3s",
    deadline="1m",
    strategy=None,
):
    placement = Placement(replicas=replicas, every_matching_device=EveryMatchingDevice() if replicas is None else None)
    canary = Canary(waves=waves, observe_for=observe, failure_budget=budget, device_deadline=deadline)
    metrics = tuple(AnalysisMetric(metric=name, min=0.5, min_samples=1, give_up_after="1m") for name in analysis)
    return Workload(
        metadata=Metadata(name=NAME, namespace=SPACE),
        spec=WorkloadSpec(
            artifact=ArtifactReference(name=NAME, version=number),
            placement=placement,
            strategy=strategy or Strategy(canary=canary, analysis=metrics, probation="2s"),
            disconnect=Disconnect(lost_after=lost_after, replace=True, exclusive=exclusive),
        ),
    )


def update(number="2", at=0.0, sort="bundle", **fields):
    """Publish a version and roll it out."""
    return (Act(at=at, apply=version(number, sort)), Act(at=at, apply=workload(number, **fields)))


def later(at):
    """Keep a run going until then: a clock that is set by a second does nothing."""
    return fault("clock", at, "0s", "d1", seconds=1.0)


def fault(kind, at, lasts="0s", *devices, **fields):
    return FaultRule(fault=kind, at=at, lasts=lasts, select=Select(devices=devices), **fields)


def plan(
    *faults, acts=(), devices=3, sort="bundle", behaviours=(), seed=1, lasts="1m", settle="3m", report=0.0, poll=60.0, link=None, **fields
):
    """Devices d1, d2, … at one site, which run version 1 before anything happens."""
    link = link or LinkQuality(latency_seconds=0.01, jitter_seconds=0.0, bandwidth=50_000_000.0)
    memory = 512 * _MIB
    capacity = Capacity(
        architecture="aarch64",
        cpu_milli=1_000,
        memory_nominal=memory,
        memory=memory,
        disk=256 * _MIB,
        runtimes={"onnxruntime": "1.20.0"},
    )
    fleet = TwinFleet(
        sites=(TwinSite(name="site", link=link),),
        classes=(DeviceClass(name="box", capacity=capacity, boot_seconds=2.0),),
        devices=tuple(TwinDevice(name=f"d{number + 1}", site="site", device_class="box") for number in range(devices)),
        workloads=(workload(**fields),),
        versions=(version("1", sort),),
    )
    return Plan(
        seed=seed,
        fleet=fleet,
        scenario=Scenario(name="small", lasts=lasts, settle=settle, faults=faults, behaviours=tuple(behaviours)),
        acts=tuple(acts),
        profile=Profile(report_seconds=report, poll_seconds=poll),
        warm_up=120.0,
    )
