"""How workloads behave: which `Behaviour` a process has, what it answers to probes, and what it measures."""

import math
from typing import Final, NamedTuple

from edgewise.engine.protocol import Launch
from edgewise.resources.artifact import Probe
from edgewise.resources.traffic import Traffic
from edgewise.twin.kernel import Kernel, Stream
from edgewise.twin.scenario import Behaviour
from edgewise.wire.report import Series

_DEFAULT: Final = Behaviour()
_BEATS_EARLY: Final = 0.5
_SPREAD: Final = math.sqrt(3.0)
_COMPARED: Final = "model.shadow."
_AGREES: Final = {"model.shadow.disagreement": (0.0, 0.0)}
CRASH_CODE: Final = 1
KILLED_CODE: Final = -9


class Behaviours:
    """The rules of a scenario, looked up. `new`: which versions count as new, as `NAMESPACE/WORKLOAD VERSION`; it may be set at any
    time."""

    __slots__ = ("_kernel", "_known", "_rules", "new")

    def __init__(self, kernel: Kernel, rules: tuple[Behaviour, ...], new: frozenset[str] = frozenset()) -> None:
        self._kernel = kernel
        self._rules = rules
        self.new = new
        self._known: dict[tuple[str, str, str, str, bool], tuple[int, ...]] = {}

    def of(self, device: str, device_class: str, instance: str, version: str, variant: str) -> Behaviour:
        """Return how a process of this sort behaves on this device."""
        new = f"{instance} {version}" in self.new
        key = (device_class, instance, version, variant, new)
        numbers = self._known.get(key)
        if numbers is None:
            numbers = tuple(number for number, rule in enumerate(self._rules) if _matches(rule, key))
            self._known[key] = numbers
        for number in numbers:
            rule = self._rules[number]
            if rule.share >= 1.0 or self._kernel.drawn("behaviour", number, device).unit() < rule.share:
                return rule
        return _DEFAULT


def _matches(rule: Behaviour, key: tuple[str, str, str, str, bool]) -> bool:
    device_class, instance, version, variant, new = key
    wanted = {"": True, "new": new, "old": not new}.get(rule.version, rule.version == version)
    return (
        wanted
        and rule.workload in ("", instance, instance.partition("/")[2])
        and rule.variant in ("", variant)
        and rule.device_class in ("", device_class)
    )


class Passing(NamedTuple):
    """What a model server passes on: to which slot, if that runs this revision."""

    slot: str
    revision: str
    traffic: Traffic


class Seen(NamedTuple):
    """What share of its instance's requests a process sees; `copies`: its answers are only compared."""

    share: float
    copies: bool = False


_ALL: Final = Seen(1.0)


class Process:
    """One process. Times are the kernel's. `code` is None while it lives; `hung`: it answers nothing; `failing`: its probes say no.
    `model`: it serves only once it was activated, and may pass requests on."""

    __slots__ = (
        "active",
        "beat_period",
        "behaviour",
        "code",
        "failing",
        "hung",
        "instance",
        "launch_id",
        "loads_at",
        "model",
        "passes_on",
        "revision",
        "slot",
        "started_at",
        "stopping",
        "told",
        "tree",
        "turned_at",
        "version",
    )

    def __init__(self, instance: str, slot: str, launch_id: str, launch: Launch, *, version: str, behaviour: Behaviour) -> None:
        self.instance, self.slot, self.launch_id = instance, slot, launch_id
        self.revision, self.tree, self.version = launch.revision, launch.tree, version
        self.behaviour = behaviour
        self.beat_period = min((probe.period_seconds for probe in _probes(launch) if probe.heartbeat), default=None)
        self.model = launch.driver == "model"
        self.active = False
        self.stopping = False
        self.hung = False
        self.failing = False
        self.code: int | None = None
        self.started_at = self.loads_at = self.turned_at = 0.0
        self.told = 0
        self.passes_on: Passing | None = None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.code is None

    @property
    def well(self) -> bool:
        """Whether it lives and does its work once it is loaded."""
        return self.code is None and not self.stopping and not self.hung and not self.failing

    def serves(self, now: float) -> bool:
        """Whether users of the workload are served by it."""
        return self.well and now >= self.loads_at and (self.active or not self.model) and self.behaviour.fails != "does-not-load"

    def steady(self, now: float) -> bool:
        """Whether every probe passes, as long as nothing happens to it."""
        return self.well and now >= self.loads_at and self.behaviour.fails not in ("does-not-load", "slow-probes")

    def probed(self, probe: Probe, now: float, chance: Stream) -> tuple[bool, str, float]:
        """Return whether a probe passes, what it says else, and after how many seconds."""
        if self.code is not None or self.stopping:
            return False, "nothing runs in this slot", 0.0
        if self.hung:
            return False, f"no answer within {probe.timeout_seconds:g} s", probe.timeout_seconds
        if self.failing:
            return False, "answered 503", 0.0
        if now < self.loads_at or self.behaviour.fails == "does-not-load":
            return False, "answered 503", 0.0
        if self.behaviour.fails == "slow-probes":
            seconds = chance.uniform(0.5, 1.5) * probe.timeout_seconds
            ok = seconds < probe.timeout_seconds
            return ok, "" if ok else f"no answer within {probe.timeout_seconds:g} s", min(seconds, probe.timeout_seconds)
        return True, "", 0.0

    @property
    def beats(self) -> bool:
        """Whether it would call the heartbeat now."""
        return self.well and self.behaviour.fails != "does-not-load"

    def beat_seconds(self, chance: Stream) -> float | None:
        """Return after how many seconds it calls the heartbeat (again), or None: nobody waits for one."""
        if self.beat_period is None:
            return None
        slow = self.behaviour.fails == "slow-probes"
        return self.beat_period * (chance.uniform(0.5, 1.5) if slow else _BEATS_EARLY)

    def measured(self, now: float, chance: Stream, seen: Seen = _ALL) -> list[Series]:
        """Return what it measured since it was last asked, of what it sees."""
        behaviour = self.behaviour
        rounds = int((now - self.loads_at) / behaviour.metric_seconds) if now > self.loads_at and self.well else self.told
        if not seen.share:
            self.told = rounds
            return []
        count = int((rounds - self.told) * behaviour.metric_seconds * behaviour.samples_per_second * seen.share)
        if count <= 0:
            return []
        self.told = rounds
        found = {name: values for name, values in behaviour.metrics.items() if name.startswith(_COMPARED) is seen.copies}
        metrics = found if found or not seen.copies else _AGREES
        return [_series(self, name, mean, spread, count=count, chance=chance) for name, (mean, spread) in metrics.items()]


def _probes(launch: Launch) -> tuple[Probe, ...]:
    probes = launch.variant.probes
    return tuple(probe for probe in (probes.start, probes.readiness, probes.liveness) if probe is not None)


def _series(process: Process, name: str, mean: float, spread: float, *, count: int, chance: Stream) -> Series:
    """Return what `count` samples sum up to, without drawing each."""
    centre = mean + spread * _normal(chance) / math.sqrt(count)
    reach = min(3.0, 1.0 + math.log(count) / 3.0) * spread
    return Series(
        name=name,
        unit="1",
        type="gauge",
        instance=process.instance,
        revision=process.revision,
        count=count,
        sum=centre * count,
        sum_squares=(centre * centre + spread * spread) * count,
        min=centre - reach,
        max=centre + reach,
        last=centre,
    )


def _normal(chance: Stream) -> float:
    """Return a number that is nearly normally distributed, by plain arithmetic."""
    return (chance.unit() + chance.unit() + chance.unit() + chance.unit() - 2.0) * _SPREAD
