"""What one run is asked to do. A plan and nothing else decides what happens: it can be sent to another process or machine and run again."""

from typing import Final, Literal

import msgspec

from edgewise.resources.artifact import Artifact, ArtifactVersion
from edgewise.resources.config import Config
from edgewise.resources.workload import Workload
from edgewise.twin.fleet import TwinFleet
from edgewise.twin.scenario import Scenario

Subject = Artifact | ArtifactVersion | Workload | Config


class Act(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the operator does at a time of the run: apply a resource, delete a workload, or give a rollout or a device a word."""

    at: float
    apply: Subject | None = None
    delete: str = ""
    """NAMESPACE/NAME of a workload."""
    action: Literal["", "pause", "resume", "promote", "abort", "clear-refused", "decommission", "cordon", "uncordon"] = ""
    on: str = ""
    """NAMESPACE/NAME of a workload for rollout actions, a device's name for the others."""


class Profile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How faithful a run is, against how fast. `disk`: `recording` forgets what was not synced at a power cut, `plain` loses nothing.
    `install`: `real` stages and verifies every file through the engine's installer, `modelled` takes only the time and room.
    `trust`: `tuf` verifies the signed repository and its signatures, `none` believes it. `invariants`: which checks run.
    `probes`: `telling` leaves out those that pass as long as nothing happens to their process, as runs on plain disks always do.
    `certificate_seconds`: how long a device's certificate lives.
    `poll_seconds`: how long a poll waits; `report_seconds`: how often a device reports telemetry (0: never)."""

    disk: Literal["recording", "plain"] = "recording"
    install: Literal["real", "modelled"] = "real"
    trust: Literal["tuf", "none"] = "none"
    store: Literal["memory", "sqlite"] = "memory"
    invariants: Literal["all", "cheap", "none"] = "all"
    probes: Literal["all", "telling"] = "all"
    certificate_seconds: float = 90 * 86_400.0
    poll_seconds: float = 240.0
    report_seconds: float = 60.0


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run. Until `warm_up` seconds the fleet joins and takes up what it runs (`fleet.workloads`), without faults; times of `acts` and
    faults count from there. `only`: the numbers of the faults to keep (None: all). `warm_up_seed`: where chance comes from during the
    warm-up; `seed` takes over when it is over, so that runs which differ in their seed begin alike (None: `seed` from the beginning)."""

    seed: int
    fleet: TwinFleet
    scenario: Scenario
    acts: tuple[Act, ...] = ()
    profile: Profile = Profile()
    warm_up: float = 600.0
    only: tuple[int, ...] | None = None
    warm_up_seed: int | None = None


_WARM_UP_LEAST: Final = 600.0
_WARM_UP_MOST: Final = 43_200.0
WARM_UP_SEED: Final = 0
"""What all runs of a rehearsal warm up with."""


def warm_up_of(plan: Plan) -> Plan | None:
    """Return what decides how the fleet of a plan warms up: two plans for which it is the same may share one warm-up. None: the warm-up
    is the run's own. What only new versions do is left out: none runs yet."""
    if plan.warm_up_seed is None:
        return None
    scenario = plan.scenario
    behaviours = tuple(each for each in scenario.behaviours if each.version != "new")
    return Plan(
        seed=plan.warm_up_seed,
        fleet=plan.fleet,
        scenario=Scenario(name="warm-up", link=scenario.link, behaviours=behaviours),
        profile=plan.profile,
        warm_up=plan.warm_up,
    )


def warm_up_seconds(fleet: TwinFleet) -> float:
    """Return how long the fleet needs to take up what it runs: its bytes over its sites' links, with room."""
    size: dict[tuple[str, str], int] = {}
    for version in fleet.versions:
        key = (version.metadata.namespace, version.spec.manifest.artifact)
        largest = max(sum(file.size for file in variant.files) for variant in version.spec.manifest.variants)
        size[key] = max(size.get(key, 0), largest)
    each = sum(size.get((workload.metadata.namespace, workload.spec.artifact.name), 0) for workload in fleet.workloads)
    links = {site.name: site.link.bandwidth for site in fleet.sites}
    crowd: dict[str, int] = {}
    for device in fleet.devices:
        crowd[device.site] = crowd.get(device.site, 0) + 1
    slowest = max((each * 8 * count / links.get(site, 20e6) for site, count in crowd.items()), default=0.0)
    return float(round(min(_WARM_UP_MOST, max(_WARM_UP_LEAST, 1.5 * slowest + 300))))


def new_versions(plan: Plan) -> frozenset[str]:
    """Return what the acts of a plan roll out, as `NAMESPACE/WORKLOAD VERSION`."""
    aliases = {(each.metadata.namespace, each.metadata.name): each.spec.aliases for each in plan.fleet.artifacts}
    workloads = {(each.metadata.namespace, each.metadata.name): each for each in plan.fleet.workloads}
    before = {key: _version_of(each, aliases) for key, each in workloads.items()}
    found: set[str] = set()
    for act in plan.acts:
        match act.apply:
            case Workload() as workload:
                workloads[workload.metadata.namespace, workload.metadata.name] = workload
            case Artifact() as artifact:
                aliases[artifact.metadata.namespace, artifact.metadata.name] = artifact.spec.aliases
            case _:
                continue
        for key, workload in workloads.items():
            version = _version_of(workload, aliases)
            if version and version != before.get(key):
                found.add(f"{key[0]}/{key[1]} {version}")
    return frozenset(found)


def _version_of(workload: Workload, aliases: dict[tuple[str, str], dict[str, str]]) -> str:
    artifact = workload.spec.artifact
    if artifact.version is not None:
        return artifact.version
    return aliases.get((workload.metadata.namespace, artifact.name), {}).get(artifact.alias or "", "")


def told(act: Act) -> tuple[str, str]:
    """Return an act as the timeline tells it: subject and message."""
    if act.apply is not None:
        meta = act.apply.metadata
        return f"{meta.namespace}/{meta.name}", f"apply {type(act.apply).__name__}"
    if act.delete:
        return act.delete, "delete"
    return act.on, act.action
