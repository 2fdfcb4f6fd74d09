"""Plans for hunting bugs: small fleets, many workloads, good and bad versions, an operator who changes their mind, and every fault.

chaos_plan(seed) -> Plan: the seed is all there is to it. Runs differ in temper: some have one kind of fault over and over, some have
everything at once, a few have no fault at all.
"""

from collections.abc import Sequence
from typing import Final, Literal, TypeVar

import msgspec

from edgewise.resources.artifact import Artifact, ArtifactSpec, ArtifactVersion
from edgewise.resources.config import Config, ConfigSpec
from edgewise.resources.device import Capacity
from edgewise.resources.meta import Metadata
from edgewise.resources.selector import Requirement, Selector
from edgewise.resources.workload import (
    AB,
    AnalysisMetric,
    ArtifactReference,
    BlueGreen,
    Canary,
    Disconnect,
    EveryMatchingDevice,
    NameReference,
    Placement,
    Resources,
    Shadow,
    Strategy,
    Workload,
    WorkloadSpec,
)
from edgewise.twin.expected import behaviour_of
from edgewise.twin.faulty import TEMPERS, rules_of
from edgewise.twin.fleet import DeviceClass, Energy, LinkQuality, TwinDevice, TwinFleet, TwinSite
from edgewise.twin.kernel import Kernel, Stream
from edgewise.twin.plan import Act, Plan, Profile, Subject
from edgewise.twin.scenario import Behaviour, FaultRule, Scenario
from edgewise.twin.versions import beating, made_version, parameters_for

__all__ = ["chaos_plan"]

T = TypeVar("T")

_SPACE: Final = "chaos"
_PROFILE: Final = Profile(disk="recording", install="real", report_seconds=15.0)
_ALL_PROBES_EVERY: Final = 8
_SIGNED_EVERY: Final = 5
_SQLITE_EVERY: Final = 7
_HASTY_EVERY: Final = 4
_DRAWER_EVERY: Final = 12
_HASTY_CERTIFICATE_SECONDS: Final = 1_200.0
_DAY: Final = 86_400.0
_WARM_UP: Final = 300.0
_SETTLE: Final = 3_600.0
_LAST: Final = 600.0
_MIB: Final = 2**20
_FAILS: Final[tuple[Literal["does-not-load", "crashes-at-start", "crashes", "hangs", "leaks", "probe-fails", "slow-probes"], ...]] = (
    "does-not-load",
    "crashes-at-start",
    "crashes",
    "hangs",
    "leaks",
    "probe-fails",
    "slow-probes",
)
_DECIDED: Final = (2_000.0, 2_200.0, 2_400.0, 2_600.0, 2_800.0)
_SIDE_BY_SIDE: Final[tuple[int | str, ...]] = (1, "50%", "100%")
_WAVES: Final[tuple[tuple[int | str, ...], ...]] = (
    ("100%",),
    (1, "100%"),
    (1, "50%", "100%"),
    (1, "25%", "100%"),
    (2, "100%"),
    ("34%", "100%"),
)


def chaos_plan(seed: int, profile: Profile = _PROFILE) -> Plan:
    """Return the plan of a seed. One in eight carries out every probe, the others those that may say something new; one in five verifies
    the signed repository; one in seven keeps its store in SQLite; in one in four certificates live so briefly that they are renewed, and
    expire, all the time; in one in twelve the whole fleet lies in a drawer for weeks or months after all that happened."""
    kernel = Kernel(seed)
    temper = _one(TEMPERS, kernel.stream("chaos", "temper"))
    window = float(_one((600, 1_200, 1_800, 2_400), kernel.stream("chaos", "window")))
    fleet = _fleet(kernel)
    apps = [_App(number, kernel, fleet) for number in range(1, 2 + kernel.stream("chaos", "apps").below(4))]
    fleet = msgspec.structs.replace(
        fleet,
        workloads=tuple(app.workload for app in apps),
        versions=tuple(app.first for app in apps),
        artifacts=tuple(app.artifact for app in apps if app.artifact is not None),
        configs=tuple(app.config for app in apps if app.config is not None),
    )
    acts = _acts(apps, fleet, kernel.stream("chaos", "acts"), window)
    rules, lasts = rules_of(temper, fleet, kernel, window), window
    if seed % _DRAWER_EVERY == _DRAWER_EVERY - 1:
        away = _DAY * kernel.stream("chaos", "drawer").uniform(14.0, 200.0)
        rules, lasts = (*rules, FaultRule(fault="absent", at=f"{window:g}s", lasts=f"{away:.0f}s")), window + away
    scenario = Scenario(
        name=f"chaos-{temper.name}",
        description=f"Seed {seed}: {temper.name}.",
        lasts=f"{lasts:.0f}s",
        settle=f"{_SETTLE:g}s",
        faults=rules,
        behaviours=tuple(behaviour for app in apps for behaviour in app.behaviours()),
    )
    return Plan(seed=seed, fleet=fleet, scenario=scenario, acts=acts, profile=_of_seed(profile, seed), warm_up=_WARM_UP)


def _of_seed(profile: Profile, seed: int) -> Profile:
    return msgspec.structs.replace(
        profile,
        probes="telling" if seed % _ALL_PROBES_EVERY else profile.probes,
        trust=profile.trust if seed % _SIGNED_EVERY != _SIGNED_EVERY - 1 else "tuf",
        store=profile.store if seed % _SQLITE_EVERY != _SQLITE_EVERY - 1 else "sqlite",
        certificate_seconds=profile.certificate_seconds if seed % _HASTY_EVERY != _HASTY_EVERY - 1 else _HASTY_CERTIFICATE_SECONDS,
    )


def _one(options: Sequence[T], stream: Stream) -> T:
    return options[stream.below(len(options))]


# ---- the fleet ----


def _fleet(kernel: Kernel) -> TwinFleet:
    stream = kernel.stream("chaos", "fleet")
    count = 3 + stream.below(10)
    sites = tuple(
        TwinSite(name=f"site-{number}", link=_link(kernel.stream("chaos", "link", number)), failover_domain=_one(("", "north"), stream))
        for number in range(1, 2 + stream.below(min(3, count)))
    )
    classes = tuple(_class(number, kernel.stream("chaos", "class", number)) for number in range(1, 2 + stream.below(3)))
    by_site = stream.chance(0.5)
    devices: list[TwinDevice] = []
    for number in range(count):
        site = number % len(sites)
        sort = classes[site % len(classes)] if by_site else _one(classes, stream)
        labels = {"zone": _one(("a", "b"), stream)} | ({"camera": "front"} if stream.chance(0.6) else {})
        devices.append(TwinDevice(name=f"d{number + 1:02d}", site=sites[site].name, device_class=sort.name, labels=labels))
    return TwinFleet(sites=sites, classes=classes, devices=tuple(devices))


def _link(stream: Stream) -> LinkQuality:
    """Return how a site is connected when nothing is wrong: mostly well, sometimes badly enough to be a fault itself."""
    bad = stream.chance(0.2)
    return LinkQuality(
        latency_seconds=round(stream.uniform(0.002, 1.0 if bad else 0.1), 4),
        jitter_seconds=round(stream.uniform(0.0, 0.5 if bad else 0.02), 4),
        bandwidth=float(_one((500_000, 4_000_000, 50_000_000), stream)),
        loss=round(stream.uniform(0.0, 0.3 if bad else 0.02), 3),
        duplication=round(stream.uniform(0.0, 0.5 if bad else 0.02), 3),
        reordering=round(stream.uniform(0.0, 0.3 if bad else 0.02), 3),
        metered=stream.chance(0.2),
    )


def _class(number: int, stream: Stream) -> DeviceClass:
    memory = _one((512, 1_024, 4_096), stream) * _MIB
    battery = stream.chance(0.25)
    return DeviceClass(
        name=f"class-{number}",
        capacity=Capacity(
            architecture=_one(("aarch64", "x86_64"), stream),
            cpu_milli=_one((1_000, 2_000, 4_000), stream),
            memory_nominal=memory,
            memory=memory,
            disk=_one((64, 256, 4_096), stream) * _MIB,
            runtimes={"onnxruntime": "1.20.0", "python": "3.11.2"},
        ),
        speed=_one((0.5, 1.0, 3.0), stream),
        boot_seconds=float(_one((5, 20, 60), stream)),
        clock_drift_ppm=round(stream.uniform(-100, 100), 1),
        energy=Energy(battery_watt_hours=20.0, harvest_watts=10.0) if battery else Energy(),
    )


# ---- workloads and their versions ----


class _App:
    """One workload of a plan: how it begins, and what becomes of it."""

    def __init__(self, number: int, kernel: Kernel, fleet: TwinFleet) -> None:
        self.name = f"app-{number}"
        self.line = f"line-{number}"
        self._stream = kernel.stream("chaos", "app", number)
        self._fates: dict[str, Behaviour] = {}
        self._version = 1
        self._ways = kernel.stream("chaos", "ways", number)
        stream = self._stream
        self.sort: Literal["model", "bundle"] = "model" if stream.chance(0.5) else "bundle"
        self.beats = self.sort == "bundle" and kernel.stream("chaos", "beats", number).chance(0.25)
        self.alias = stream.chance(0.15)
        self.config = self.config_with("1") if stream.chance(0.25) else None
        self.parameters: dict[str, str | int | float | bool] = {"rate": 1} if stream.chance(0.3) else {}
        self.first = self.version("1")
        self.artifact = self.pointing_to("1") if self.alias else None
        self.workload = self._workload(fleet)

    @property
    def side_by_side(self) -> bool:
        """Whether its strategy runs two revisions at once."""
        strategy = self.workload.spec.strategy
        return strategy.shadow is not None or strategy.ab is not None or strategy.blue_green is not None

    @property
    def key(self) -> str:
        """NAMESPACE/NAME of the workload."""
        return f"{_SPACE}/{self.name}"

    def version(self, version: str) -> ArtifactVersion:
        """Return a version; small, so that installing it for real is quick."""
        size = _one((2_000, 20_000, 200_000, 3_000_000), self._stream)
        made = made_version(_SPACE, self.line, version, sort=self.sort, size=size, parameters=parameters_for({"rate": 1}))
        return beating(made) if self.beats else made

    def pointing_to(self, version: str) -> Artifact:
        """Return the artifact with its alias on `version`."""
        spec = ArtifactSpec(type=self.sort, aliases={"champion": version})
        return Artifact(metadata=Metadata(name=self.line, namespace=_SPACE), spec=spec)

    def config_with(self, value: str) -> Config:
        """Return the workload's config with other contents."""
        return Config(metadata=Metadata(name=self.name, namespace=_SPACE), spec=ConfigSpec(data={"value": value}))

    def _workload(self, fleet: TwinFleet) -> Workload:
        stream = self._stream
        everywhere = stream.chance(0.5)
        exclusive = stream.chance(0.3)
        reference = ArtifactReference(name=self.line, alias="champion") if self.alias else ArtifactReference(name=self.line, version="1")
        spec = WorkloadSpec(
            artifact=reference,
            placement=Placement(
                every_matching_device=EveryMatchingDevice() if everywhere else None,
                replicas=None if everywhere else 1 + stream.below(min(4, len(fleet.devices))),
                selector=_selector(stream),
                prefer=_one(("quality", "latency", "size"), stream),
            ),
            resources=Resources(memory=_one(("16Mi", "64Mi", "200Mi"), stream), cpu=_one(("50m", "200m"), stream)),
            parameters=self.parameters,
            config=NameReference(name=self.name) if self.config is not None else None,
            strategy=self._strategy(),
            disconnect=Disconnect(lost_after=_one(("20s", "60s", "3m"), stream), replace=stream.chance(0.8), exclusive=exclusive),
        )
        return Workload(metadata=Metadata(name=self.name, namespace=_SPACE), spec=spec)

    def _strategy(self) -> Strategy:
        stream = self._stream
        metric = AnalysisMetric(
            metric="quality", min=0.9, min_samples=_one((1, 20, 200), stream), give_up_after=_one(("2m", "10m"), stream)
        )
        strategy = Strategy(
            canary=Canary(
                waves=_one(_WAVES, stream),
                observe_for=_one(("0s", "5s", "30s"), stream),
                failure_budget=_one(("0%", "5%", "34%"), stream),
                device_deadline=_one(("2m", "5m"), stream),
            ),
            analysis=(metric,) if stream.chance(0.4) else (),
            probation=_one(("1s", "5s", "15s"), stream),
        )
        return _another_way(strategy, self._ways) if self.sort == "model" and self._ways.chance(0.5) else strategy

    def next_version(self) -> str:
        """Return a new version's name, and draw how it will behave."""
        self._version += 1
        version, stream = str(self._version), self._stream
        sound = behaviour_of(self.workload, version=version)
        if stream.chance(0.45):
            fate = sound
        elif self.workload.spec.strategy.analysis and stream.chance(0.4):
            fate = behaviour_of(self.workload, version=version, passes=False)
        else:
            fate = msgspec.structs.replace(
                sound,
                fails=_one(_FAILS, stream),
                fails_after_seconds=float(_one((0, 2, 20, 120), stream)),
                share=_one((1.0, 1.0, 0.5, 0.2), stream),
            )
        self._fates[version] = msgspec.structs.replace(fate, start_seconds=float(_one((0, 1, 10, 45), stream)))
        return version

    def last_version(self) -> str | None:
        """Return a new version that is sound, where a bad one was rolled out: it may have passed, if it fails late or seldom."""
        if not any(fate.fails for fate in self._fates.values()):
            return None
        self._version += 1
        version = str(self._version)
        self._fates[version] = behaviour_of(self.workload, version=version)
        return version

    def earlier_version(self) -> str:
        """Return a version that was there before."""
        return str(1 + self._stream.below(self._version))

    def moved_to(self, version: str) -> Subject:
        """Return what an operator applies to roll `version` out."""
        if self.alias:
            return self.pointing_to(version)
        spec = msgspec.structs.replace(self.workload.spec, artifact=ArtifactReference(name=self.line, version=version))
        self.workload = msgspec.structs.replace(self.workload, spec=spec)
        return self.workload

    def altered(self, fleet: TwinFleet) -> Subject:
        """Return the workload with something else about it: its count, a parameter, its strategy, or its config's contents."""
        spec, stream = self.workload.spec, self._stream
        match stream.below(4):
            case 0 if spec.placement.replicas is not None:
                placement = msgspec.structs.replace(spec.placement, replicas=stream.below(len(fleet.devices) + 1))
                spec = msgspec.structs.replace(spec, placement=placement)
            case 1:
                spec = msgspec.structs.replace(spec, strategy=_altered_way(spec.strategy, self._strategy(), stream))
            case _ if self.config is not None:
                return self.config_with(str(stream.below(1_000)))
            case _:
                spec = msgspec.structs.replace(spec, parameters={"rate": 1 + stream.below(1_000)})
        self.workload = msgspec.structs.replace(self.workload, spec=spec)
        return self.workload

    def behaviours(self) -> tuple[Behaviour, ...]:
        """Return how all versions behave; where a bad one is bad on a part of the devices only, it is sound elsewhere."""
        return (*self._fates.values(), behaviour_of(self.workload))


def _another_way(strategy: Strategy, stream: Stream) -> Strategy:
    """Return a strategy that holds two revisions side by side first."""
    canary, way = strategy.canary, stream.below(3)
    gives_up = _one(("2m", "10m"), stream)
    if way == 0:
        agrees = AnalysisMetric(metric="model.shadow.disagreement", max="5%", min_samples=_one((1, 20), stream), give_up_after=gives_up)
        share, observed = _one(("20%", "100%"), stream), _one(("1s", "20s"), stream)
        shadow = Shadow(devices=_one(_SIDE_BY_SIDE, stream), share=share, observe_for=observed)
        return msgspec.structs.replace(strategy, shadow=shadow, analysis=(*strategy.analysis, agrees))
    if way == 1:
        better = AnalysisMetric(metric="quality", direction="higher", margin=0.05, min_samples=_one((1, 20), stream))
        ab = AB(
            devices=_one(_SIDE_BY_SIDE, stream),
            share=_one(("20%", "50%"), stream),
            give_up_after=gives_up,
            on_no_difference=_one(("keep", "promote"), stream),
            failure_budget=canary.failure_budget,
            device_deadline=canary.device_deadline,
        )
        return msgspec.structs.replace(strategy, canary=Canary(), ab=ab, analysis=(better,))
    blue_green = BlueGreen(
        observe_for=canary.observe_for,
        auto_promote=stream.chance(0.8),
        failure_budget=canary.failure_budget,
        device_deadline=canary.device_deadline,
    )
    return msgspec.structs.replace(strategy, canary=Canary(), blue_green=blue_green)


def _altered_way(known: Strategy, drawn: Strategy, stream: Stream) -> Strategy:
    """Return a strategy with something else about it: the share of an A/B, which a rollout under way follows, or the canary's waves."""
    if known.ab is not None:
        return msgspec.structs.replace(known, ab=msgspec.structs.replace(known.ab, share=_one(("10%", "30%", "80%"), stream)))
    if known.blue_green is not None or drawn.ab is not None or drawn.blue_green is not None:
        return drawn
    return msgspec.structs.replace(known, canary=drawn.canary)


def _selector(stream: Stream) -> Selector:
    return _one(
        (
            Selector(),
            Selector(match_labels={"zone": "a"}),
            Selector(match_expressions=(Requirement(key="camera", operator="Exists"),)),
            Selector(match_expressions=(Requirement(key="zone", operator="In", values=("a", "b")),)),
        ),
        stream,
    )


# ---- the operator ----

_WORDS: Final[tuple[Literal["pause", "promote", "abort"], ...]] = ("pause", "promote", "abort")


def _acts(apps: list[_App], fleet: TwinFleet, stream: Stream, window: float) -> tuple[Act, ...]:
    """Return 2 to 6 doings of an operator, each of one or more acts, and at the end a word for every rollout that waits for one."""
    acts: list[Act] = []
    doings = (_update, _update, _hurry, _word, _remove, _alter, _devices)
    for number, at in enumerate(sorted(_moment(stream, 0.0, 0.8 * window) for _ in range(2 + stream.below(5)))):
        doing = _update if number == 0 else _one(doings, stream)
        acts.extend(doing(_one(apps, stream), fleet, stream, at))
    # What waits for a person, whether it was paused or nobody could judge it, gets one, twice.
    acts.extend(Act(at=window + wait, action="resume", on=app.key) for wait in (60.0, 1_200.0) for app in apps)
    # Where two revisions ran side by side they may never tell apart which is better: then a person decides, at every stage.
    undecided = [app for app in apps if app.side_by_side]
    acts.extend(Act(at=window + wait, action="promote", on=app.key) for wait in _DECIDED for app in undecided)
    # What runs badly for good is nobody's fault but the version's: in the end everybody gets one that is sound.
    for app in apps:
        version = app.last_version()
        if version is not None:
            acts += [Act(at=window + _LAST, apply=app.version(version)), Act(at=window + _LAST, apply=app.moved_to(version))]
    return tuple(sorted(acts, key=lambda act: act.at))


def _moment(stream: Stream, low: float, high: float) -> float:
    return round(stream.uniform(low, high), 3)


def _update(app: _App, _: TwinFleet, stream: Stream, at: float) -> list[Act]:
    """Roll out a new version, sometimes before it is published, sometimes an old one again."""
    if stream.chance(0.15):
        return [Act(at=at, apply=app.moved_to(app.earlier_version()))]
    version = app.next_version()
    published = at + _moment(stream, 1, 60) if stream.chance(0.15) else at
    return [Act(at=published, apply=app.version(version)), Act(at=at, apply=app.moved_to(version))]


def _hurry(app: _App, fleet: TwinFleet, stream: Stream, at: float) -> list[Act]:
    """Roll out one version and, before that can have ended, the next."""
    return [*_update(app, fleet, stream, at), *_update(app, fleet, stream, at + _moment(stream, 0, 90))]


def _word(app: _App, fleet: TwinFleet, stream: Stream, at: float) -> list[Act]:
    """Roll out a version and interfere: pause it and resume later, skip its observation, or abort."""
    word = _one(_WORDS, stream)
    then = at + _moment(stream, 1, 90)
    acts = [*_update(app, fleet, stream, at), Act(at=then, action=word, on=app.key)]
    if word == "pause":
        acts.append(Act(at=then + _moment(stream, 5, 300), action="resume", on=app.key))
    return acts


def _remove(app: _App, _: TwinFleet, stream: Stream, at: float) -> list[Act]:
    """Delete a workload, and apply it again (later, or at once)."""
    return [Act(at=at, delete=app.key), Act(at=at + _one((0.5, 5.0, 120.0), stream), apply=app.workload)]


def _alter(app: _App, fleet: TwinFleet, _: Stream, at: float) -> list[Act]:
    return [Act(at=at, apply=app.altered(fleet))]


def _devices(_: _App, fleet: TwinFleet, stream: Stream, at: float) -> list[Act]:
    """Do something to a device: let it try refused revisions again, keep work away for a while, or take it out of the fleet."""
    device = _one(fleet.devices, stream).name
    match stream.below(4):
        case 0 if len(fleet.devices) > 3:
            return [Act(at=at, action="decommission", on=device)]
        case 1:
            return [Act(at=at, action="cordon", on=device), Act(at=at + _moment(stream, 10, 300), action="uncordon", on=device)]
        case _:
            return [Act(at=at, action="clear-refused", on=device)]
