"""How the manifests of a change become a plan: what ran before, what the operator does, what had to be assumed.

change_plan(fleet, resources, scenario, seed) -> Rehearsed(plan, assumptions), or raises Invalid
"""

from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

import msgspec

from edgewise.delivery.stages import stages
from edgewise.resources.artifact import Artifact, ArtifactSpec, ArtifactType, ArtifactVersion
from edgewise.resources.config import Config
from edgewise.resources.device import Device
from edgewise.resources.errors import Invalid, Problem
from edgewise.resources.kinds import Resource
from edgewise.resources.manifests import nearest
from edgewise.resources.meta import DEFAULT_NAMESPACE, Metadata
from edgewise.resources.quantity import seconds, whole
from edgewise.resources.site import Site
from edgewise.resources.validation import parameter_problem
from edgewise.resources.workload import ArtifactReference, Canary, Strategy, Workload
from edgewise.twin.expected import behaviour_of, expected_metrics, resolved, speaks_of, workload_key
from edgewise.twin.fleet import TwinFleet, TwinSite
from edgewise.twin.generate import is_made_up
from edgewise.twin.library import check
from edgewise.twin.placing import moves
from edgewise.twin.plan import WARM_UP_SEED, Act, Plan, Profile, Subject, warm_up_seconds
from edgewise.twin.scenario import Behaviour, Scenario
from edgewise.twin.suiting import batteries, misfits, suited, taken_back
from edgewise.twin.versions import MODEL_BYTES, like, made_version, parameters_for, version_before, with_parameters

__all__ = ["Rehearsed", "behaving", "change_plan", "quick"]

_SETTLE_MOST: Final = 30 * 86_400.0
_FIRST_ALIAS_VERSION: Final = "2"
_PROFILE: Final = Profile()
_QUICK: Final = Strategy(
    canary=Canary(waves=("100%",), observe_for="0s", failure_budget="100%", device_deadline="12h"), analysis=(), probation="1s"
)


class Rehearsed(msgspec.Struct, frozen=True, kw_only=True):
    """A plan, and what was assumed to make it, in words for the report: each line says what a reader could take for known and is not.
    `misfits`: workloads of the change for which the fleet has no device, or too few, or that it would not even try. `moves`: where
    workloads end or begin without a rollout."""

    plan: Plan
    assumptions: tuple[str, ...] = ()
    misfits: tuple[str, ...] = ()
    moves: tuple[str, ...] = ()


def change_plan(
    fleet: TwinFleet,
    resources: Sequence[Resource],
    scenario: Scenario,
    seed: int,
    profile: Profile = _PROFILE,
    *,
    namespace: str = DEFAULT_NAMESPACE,
) -> Rehearsed:
    """Return the plan that rehearses `resources` (a change, as `apply -f` would take it) on `fleet`.

    What the fleet runs, runs first; in a made-up fleet the version before the change's is made up and runs first, so that the change is
    an update. The change comes at time 0. Only the seed differs between the runs of a rehearsal: the assumptions are the same.

    Raises `Invalid` when there is nothing to rehearse, when a parameter is not declared, or when the scenario does not fit the fleet.
    """
    change = _Change(fleet, resources, namespace)
    change.prepare()
    fleet = change.fleet()
    check(scenario, fleet)
    _check_behaviours(scenario, change.all_workloads())
    whole_scenario = behaving(scenario, fleet, change.all_workloads(), change.changed(), change.said)
    whole_scenario = msgspec.structs.replace(whole_scenario, settle=_settle(scenario, change.changed()))
    plan = Plan(
        seed=seed,
        fleet=fleet,
        scenario=whole_scenario,
        acts=change.acts(),
        profile=profile,
        warm_up=warm_up_seconds(fleet),
        warm_up_seed=WARM_UP_SEED,
    )
    return Rehearsed(plan=plan, assumptions=tuple(dict.fromkeys(change.said)), misfits=tuple(change.misfits), moves=tuple(change.moves))


def quick(workload: Workload) -> Workload:
    """Return the workload with a strategy that takes no time: for what runs before. The strategy is no part of a revision."""
    return _with_spec(workload, strategy=_QUICK)


# ---- what runs, and what is applied ----

_Key = tuple[str, str]
_R = TypeVar("_R", bound=Resource)


class _Change:
    """Collects a plan's parts. Keys are (namespace, name)."""

    def __init__(self, fleet: TwinFleet, resources: Sequence[Resource], namespace: str) -> None:
        self.said: list[str] = []
        self.misfits: list[str] = []
        self.moves: list[str] = []
        self._made_up = is_made_up(fleet)
        self._fleet = fleet
        self._after: dict[_Key, Workload] = {}
        self._artifacts_after: dict[_Key, Artifact] = {}
        self._configs_after: dict[_Key, Config] = {}
        self._places: list[Site | Device] = []
        for resource in resources:
            self._take(_in_namespace(resource, namespace))
        self._before = {_key(workload): self._plain(_in_namespace(workload, namespace)) for workload in fleet.workloads}
        self._artifacts = {_key(artifact): artifact for artifact in fleet.artifacts}
        self._versions = {_version_key(version): version for version in fleet.versions}
        self._configs = {_key(config): config for config in fleet.configs}
        self._made: set[tuple[str, str, str]] = set()

    def _take(self, resource: Resource) -> None:
        match resource:
            case Workload():
                self._after[_key(resource)] = self._plain(resource)
            case Artifact():
                self._artifacts_after[_key(resource)] = resource
            case Config():
                self._configs_after[_key(resource)] = resource
            case Site() | Device():
                self._places.append(resource)
            case _:
                # Secrets, and kinds that only the control plane makes.
                return

    def _plain(self, workload: Workload) -> Workload:
        """Return a workload without what the twin has not: secrets, and what the control plane wrote into it."""
        if workload.spec.secrets:
            names = ", ".join(secret.name for secret in workload.spec.secrets)
            self.said.append(f"{workload_key(workload)} runs without its secrets ({names}): the twin has none")
        meta = workload.metadata
        return Workload(
            metadata=Metadata(name=meta.name, namespace=meta.namespace, labels=meta.labels),
            spec=msgspec.structs.replace(workload.spec, secrets=()),
        )

    def prepare(self) -> None:
        """Make up what is missing."""
        if not (self._after or self._artifacts_after or self._configs_after):
            raise Invalid((_problem("the change holds no Workload, Artifact or Config: there is nothing to rehearse"),))
        if self._made_up and not self._after:
            hint = "add the Workload to the files, or rehearse on a snapshot: edgewise twin snapshot -o fleet.json"
            raise Invalid((_problem("the change holds no Workload, and a made-up fleet runs none", hint),))
        self._move()
        if self._made_up:
            self._fleet, said = suited(self._fleet, tuple(self._after.values()))
            self.said.extend(said)
            for workload in self._after.values():
                self._run_before(workload)
        else:
            for key, workload in self._after.items():
                self._say_how_it_differs(workload, self._before.get(key))
        self._resolve_all()
        self._stand_in_configs()
        for workload in self._after.values():
            self._say_where_it_fits(workload)

    # -- a made-up past --

    def _run_before(self, workload: Workload) -> None:
        key, reference = _key(workload), workload.spec.artifact
        if reference.version is not None:
            version = version_before(reference.version)
            self._before[key] = _with_spec(workload, artifact=ArtifactReference(name=reference.name, version=version))
            self.said.append(f"{workload_key(workload)} runs version {version} of {reference.name} before the change")
            return
        self._before[key] = workload
        alias, artifact_key = reference.alias or "", (key[0], reference.name)
        after = self._artifacts_after.get(artifact_key)
        target = after.spec.aliases.get(alias, _FIRST_ALIAS_VERSION) if after is not None else _FIRST_ALIAS_VERSION
        before = version_before(target)
        artifact = self._artifacts.get(artifact_key) or _artifact(*artifact_key, sort="model" if after is None else after.spec.type)
        self._artifacts[artifact_key] = _with_alias(artifact, alias, before)
        self._artifacts_after[artifact_key] = _with_alias(after or artifact, alias, target)
        self.said.append(f"the alias {alias} of {reference.name} points to version {before} before the change and to {target} after it")

    def _say_how_it_differs(self, workload: Workload, before: Workload | None) -> None:
        key = workload_key(workload)
        if before is None:
            self.said.append(f"{key} is new to the fleet: this is its first rollout, with nothing to go back to")
        else:
            self.moves += moves(self._fleet, before, workload)
            if _what_runs(before) == _what_runs(workload) and not self._touched(workload):
                self.said.append(f"{key} runs already what the change says: it is not rolled out again")
        version = workload.spec.artifact.version
        refusing = sum(any(one.workload == key and version in one.refused for one in device.instances) for device in self._fleet.devices)
        if refusing:
            devices = "1 device" if refusing == 1 else f"{refusing} devices"
            self.said.append(
                f"{key} {version} was refused on {devices} before: the twin knows no reason and tries it again; see behaviours"
            )

    def _touched(self, workload: Workload) -> bool:
        """Return whether something that a workload refers to is in the change."""
        space, spec = workload.metadata.namespace, workload.spec
        config = spec.config is not None and (space, spec.config.name) in self._configs_after
        return config or (spec.artifact.alias is not None and (space, spec.artifact.name) in self._artifacts_after)

    # -- versions --

    def _resolve_all(self) -> None:
        """See to it that the versions which workloads name, before and after, are there and declare their parameters."""
        for key, artifact in self._artifacts_after.items():
            self._artifacts.setdefault(key, _artifact(*key, sort=artifact.spec.type))
        for workload in self._before.values():
            self._need(workload, self._version_before(workload))
        for workload in self.all_workloads():
            version = self._version_after(workload)
            if version is not None:
                self._need(workload, version)

    def _version_before(self, workload: Workload) -> str:
        """Return the version that runs before; where an alias is not known, it is made up."""
        key, reference = (workload.metadata.namespace, workload.spec.artifact.name), workload.spec.artifact
        if reference.version is not None:
            return reference.version
        alias, artifact = reference.alias or "", self._artifacts.get(key) or _artifact(*key)
        version = artifact.spec.aliases.get(alias)
        if version is None:
            version = self._newest(*key) or "1"
            self._artifacts[key] = _with_alias(artifact, alias, version)
            self.said.append(f"the alias {alias} of {reference.name} is not known: it is taken to point to version {version}")
        return version

    def _version_after(self, workload: Workload) -> str | None:
        key, reference = (workload.metadata.namespace, workload.spec.artifact.name), workload.spec.artifact
        if reference.version is not None or key not in self._artifacts_after:
            return self._version_before(workload)
        version = self._artifacts_after[key].spec.aliases.get(reference.alias or "")
        if version is None:
            self.said.append(
                f"the change leaves {reference.name} without the alias {reference.alias}: {workload_key(workload)} stays as it is"
            )
        return version

    def _need(self, workload: Workload, version: str) -> None:
        key = (workload.metadata.namespace, workload.spec.artifact.name, version)
        if key not in self._versions:
            self._make_up(key)
        self._declare(key, workload)

    def _newest(self, space: str, name: str) -> str | None:
        """Return the newest version that was seen, not made up."""
        return next((key[2] for key in reversed(self._versions) if key[:2] == (space, name) and key not in self._made), None)

    def _make_up(self, key: tuple[str, str, str]) -> None:
        space, name, version = key
        newest = self._newest(space, name)
        if newest is not None:
            self._versions[key] = like(self._versions[space, name, newest], version)
            self.said.append(f"version {version} of {name} is not known to the fleet: it is taken to be as big as version {newest}")
        else:
            sort = self._sort(space, name)
            self._versions[key] = made_version(space, name, version, sort=sort)
            size = f"{MODEL_BYTES / 1e6:g} MB"
            self.said.append(f"version {version} of {name} is made up: a {sort} of {size} in two variants, fp32 and int8")
        self._made.add(key)

    def _sort(self, space: str, name: str) -> ArtifactType:
        artifact = self._artifacts_after.get((space, name)) or self._artifacts.get((space, name))
        return artifact.spec.type if artifact is not None else "model"

    def _declare(self, key: tuple[str, str, str], workload: Workload) -> None:
        version, values = self._versions[key], workload.spec.parameters
        declared = version.spec.manifest.parameters
        if key in self._made:
            missing = {name: value for name, value in values.items() if name not in declared}
            if missing:
                self._versions[key] = with_parameters(version, parameters_for(missing))
            return
        if _key(workload) not in self._after or self._after[_key(workload)] is not workload:
            return
        wrong = [(name, parameter_problem(name, value, declared)) for name, value in values.items()]
        found = tuple(
            Problem(path=f"spec.parameters.{name}", message=f"{workload_key(workload)}: {reason}") for name, reason in wrong if reason
        )
        if found:
            raise Invalid(found)

    # -- configs, sites, devices --

    def _stand_in_configs(self) -> None:
        """Put a Config wherever a workload names one: with the change's contents where the workload changes anyway, so that it is not
        rolled out twice; else empty, so that the change of the Config is what is rolled out."""
        for workload in self.all_workloads():
            reference = workload.spec.config
            key = (workload.metadata.namespace, reference.name) if reference is not None else None
            if reference is None or key is None or key in self._configs:
                continue
            coming = self._configs_after.get(key)
            before = self._before.get(_key(workload))
            if coming is not None and (self._made_up or before is None or _what_runs(before) != _what_runs(workload)):
                self._configs[key] = coming
                self.said.append(f"the config {reference.name} is taken to be unchanged")
            else:
                self._configs[key] = Config(metadata=Metadata(name=key[1], namespace=key[0]))
                if coming is None:
                    self.said.append(f"the config {reference.name} is taken to be there; its contents change nothing here")

    def _move(self) -> None:
        """Take over Sites and Devices of the change: they are so from the beginning."""
        sites = {site.name: site for site in self._fleet.sites}
        devices = {device.name: device for device in self._fleet.devices}
        for resource in self._places:
            name = resource.metadata.name
            if isinstance(resource, Site):
                self._move_site(sites, resource)
            elif name in devices:
                spec, known = resource.spec, devices[name]
                devices[name] = msgspec.structs.replace(
                    known,
                    labels=resource.metadata.labels or known.labels,
                    site=spec.site or known.site,
                    device_class=spec.device_class if spec.device_class in self._class_names() else known.device_class,
                    unschedulable=spec.unschedulable,
                )
                self.said.append(f"device {name} is from the beginning as the change says")
                sites.setdefault(devices[name].site, TwinSite(name=devices[name].site))
            else:
                self.said.append(f"device {name} of the change is not in the fleet: it is left out")
        self._fleet = msgspec.structs.replace(self._fleet, sites=tuple(sites.values()), devices=tuple(devices.values()))

    def _move_site(self, sites: dict[str, TwinSite], resource: Site) -> None:
        name, spec = resource.metadata.name, resource.spec
        if name not in sites and not self._made_up:
            self.said.append(f"site {name} of the change has no devices in the fleet: it is left out")
            return
        known = sites.get(name) or TwinSite(name=name)
        bandwidth = float(whole(spec.link.bandwidth)) if spec.link.bandwidth is not None else known.link.bandwidth
        link = msgspec.structs.replace(known.link, bandwidth=bandwidth, metered=spec.link.metered)
        if name in sites:
            sites[name] = msgspec.structs.replace(known, link=link, failover_domain=spec.failover_domain)
            self.said.append(f"site {name} is from the beginning as the change says")

    def _class_names(self) -> set[str]:
        return {sort.name for sort in self._fleet.classes}

    # -- what came of it --

    def _say_where_it_fits(self, workload: Workload) -> None:
        """Say when the fleet has too few devices for a workload."""
        space, reference = workload.metadata.namespace, workload.spec.artifact
        artifact = self._artifacts_after.get((space, reference.name)) or self._artifacts.get((space, reference.name))
        name = reference.version or (artifact.spec.aliases.get(reference.alias or "", "") if artifact is not None else "")
        version = self._versions.get((space, reference.name, name))
        if version is not None:
            self.misfits += [*misfits(self._fleet, workload, version), *taken_back(self._fleet, workload, name)]

    def all_workloads(self) -> tuple[Workload, ...]:
        """Return everything that runs once the change is applied, with its own strategy."""
        return tuple({**self._before, **self._after}.values())

    def changed(self) -> tuple[Workload, ...]:
        """Return the workloads that are rolled out."""
        return tuple(
            workload
            for key, workload in {**self._before, **self._after}.items()
            if key not in self._before or _what_runs(self._before[key]) != _what_runs(workload) or self._touched(workload)
        )

    def fleet(self) -> TwinFleet:
        """Return the fleet with what it runs before, and all that is published."""
        return msgspec.structs.replace(
            self._fleet,
            artifacts=tuple(self._artifacts.values()),
            versions=tuple(self._versions.values()),
            workloads=tuple(quick(workload) for workload in self._before.values()),
            configs=tuple(self._configs.values()),
        )

    def acts(self) -> tuple[Act, ...]:
        """Return what the operator does at time 0: workloads that something else of the change rolls out get their own strategy back
        first, then what workloads refer to, then the workloads."""
        back = [workload for key, workload in self._before.items() if key not in self._after and self._touched(workload)]
        subjects: tuple[Subject, ...] = (*back, *self._artifacts_after.values(), *self._configs_after.values(), *self._after.values())
        return tuple(Act(at=0.0, apply=subject) for subject in subjects)


# ---- how things behave, and how long they may take ----


def behaving(scenario: Scenario, fleet: TwinFleet, workloads: Sequence[Workload], changed: Sequence[Workload], said: list[str]) -> Scenario:
    """Return the scenario with the behaviour of every workload: what the scenario says first, then what the devices' past says of
    updates, then that all is well."""
    for workload in changed:
        failing = any(one.analysis == "fails" and speaks_of(one, workload_key(workload)) for one in scenario.behaviours)
        if failing and not workload.spec.strategy.analysis:
            said.append(f"{workload_key(workload)} has no analysis: nobody would notice that its new version is worse")
    if any(rule.fault == "battery" for rule in scenario.faults):
        said.append(batteries(fleet))
    usual = tuple(behaviour_of(workload) for workload in workloads)
    spelled = resolved(scenario, workloads, usual)
    own = spelled.behaviours[: len(spelled.behaviours) - len(usual)]
    return msgspec.structs.replace(spelled, behaviours=(*own, *_past(fleet, changed, said), *usual))


def _past(fleet: TwinFleet, changed: Sequence[Workload], said: list[str]) -> Iterable[Behaviour]:
    sums: dict[str, list[float]] = {}
    for device in fleet.devices:
        sums.setdefault(device.device_class, []).append(device.history.update_failures)
    for name, shares in sorted(sums.items()):
        share = round(sum(shares) / len(shares), 4)
        if share <= 0:
            continue
        if changed:
            said.append(f"on {share:.1%} of the devices of class {name} an update fails for their own reasons, as in the past")
        for workload in changed:
            yield Behaviour(
                workload=workload_key(workload),
                version="new",
                device_class=name,
                share=share,
                fails="crashes-at-start",
                metrics=expected_metrics(workload, passes=True),
            )


def _check_behaviours(scenario: Scenario, workloads: Sequence[Workload]) -> None:
    known = {name for workload in workloads for name in (workload_key(workload), workload.metadata.name)}
    found = tuple(
        Problem(
            path=f"behaviours[{index}].workload",
            message=f"nothing runs that is called {behaviour.workload!r}",
            hint=nearest(behaviour.workload, known),
        )
        for index, behaviour in enumerate(scenario.behaviours)
        if behaviour.workload and behaviour.workload not in known
    )
    if found:
        raise Invalid(found)


def _settle(scenario: Scenario, changed: Sequence[Workload]) -> str:
    """Return how long a run goes on after the faults: long enough for a rollout that goes well to end."""
    longest = 0.0
    for workload in changed:
        every, probation = stages(workload.spec.strategy, first=False), seconds(workload.spec.strategy.probation)
        longest = max(longest, sum(stage.observe + probation + 120.0 for stage in every))
    needed = min(_SETTLE_MOST, max(seconds(scenario.settle), 1.5 * longest))
    return scenario.settle if needed == seconds(scenario.settle) else f"{int(needed)}s"


# ---- small things ----


def _key(resource: Workload | Artifact | Config) -> _Key:
    return resource.metadata.namespace, resource.metadata.name


def _version_key(version: ArtifactVersion) -> tuple[str, str, str]:
    manifest = version.spec.manifest
    return manifest.namespace, manifest.artifact, manifest.version


def _what_runs(workload: Workload) -> tuple[object, ...]:
    """Return what makes a revision of a workload, as far as its spec says it."""
    spec = workload.spec
    return spec.artifact, spec.resources, spec.peripherals, spec.parameters, spec.config


def _in_namespace(resource: _R, namespace: str) -> _R:
    if isinstance(resource, Site | Device) or resource.metadata.namespace:
        return resource
    return msgspec.structs.replace(resource, metadata=msgspec.structs.replace(resource.metadata, namespace=namespace))


def _with_spec(workload: Workload, **fields: object) -> Workload:
    return msgspec.structs.replace(workload, spec=msgspec.structs.replace(workload.spec, **fields))


def _artifact(namespace: str, name: str, sort: ArtifactType = "model") -> Artifact:
    return Artifact(metadata=Metadata(name=name, namespace=namespace), spec=ArtifactSpec(type=sort))


def _with_alias(artifact: Artifact, alias: str, version: str) -> Artifact:
    return msgspec.structs.replace(artifact, spec=msgspec.structs.replace(artifact.spec, aliases={**artifact.spec.aliases, alias: version}))


def _problem(message: str, hint: str = "") -> Problem:
    return Problem(path="", message=message, hint=hint)
