"""The stages of a rollout: what each of its waves does, on how many devices, and by what it is judged.

A canary's waves are stages of one kind. A shadow goes before them; an A/B and a blue-green have two stages: the trial, and what follows
from it. `status.wave` counts stages from 1.
"""

from functools import lru_cache
from typing import Final

import msgspec

from edgewise.resources.quantity import CountOrPercentage, fraction, seconds
from edgewise.resources.rollout import RolloutPhase, RolloutSpec
from edgewise.resources.strategy_rules import SHADOW_METRICS
from edgewise.resources.traffic import Traffic
from edgewise.resources.workload import AB, AnalysisMetric, BlueGreen, Canary, Strategy

Pace = Canary | AB | BlueGreen
"""What says how many devices may fail, and how long one may take."""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One wave. `size` is cumulative. Once healthy it is observed for `observe` seconds at least, and judged by `metrics`. `hold`: until
    then its members stay in Probation, with `traffic` beside the revision before. `commits`: then they commit; otherwise the next
    stage takes over those that it needs, as they are. `asks`: a person says when it goes on. `decides`: it ends with a winner."""

    phase: RolloutPhase
    size: CountOrPercentage
    observe: float
    metrics: tuple[AnalysisMetric, ...] = ()
    hold: bool = False
    traffic: Traffic | None = None
    commits: bool = True
    asks: bool = False
    decides: bool = False

    @property
    def beside(self) -> bool:
        """Whether its members run both revisions at once."""
        return self.traffic is not None

    @property
    def paired(self) -> bool:
        """Whether each member is compared with itself, because both revisions see requests there."""
        return self.traffic is not None and self.traffic.mode != "none"

    @property
    def compares(self) -> bool:
        """Whether it needs other devices to be compared with."""
        return not self.paired and any(metric.direction is not None for metric in self.metrics)


ALL: Final = "100%"


def pace_of(strategy: Strategy) -> Pace:
    """Return what bounds a strategy's failures and times."""
    return strategy.ab or strategy.blue_green or strategy.canary


@lru_cache(maxsize=512)
def stages(strategy: Strategy, *, first: bool) -> tuple[Stage, ...]:
    """Return the stages of a rollout. A workload's first one has nothing to fall back on and is one wave."""
    if first:
        pace = pace_of(strategy)
        observed = "0s" if isinstance(pace, AB) else pace.observe_for
        return (Stage(phase="Canary", size=ALL, observe=seconds(observed)),)
    if strategy.ab is not None:
        return _ab(strategy, strategy.ab)
    if strategy.blue_green is not None:
        return _blue_green(strategy, strategy.blue_green)
    shadow = strategy.shadow
    before = () if shadow is None else (_shadow(strategy, shadow.devices, shadow.share, shadow.observe_for),)
    return (*before, *_canary(strategy))


def stages_of(spec: RolloutSpec) -> tuple[Stage, ...]:
    """Return the stages of a rollout. One that only takes another one back has nothing to try beside what runs."""
    if spec.from_revision != spec.to_revision:
        return stages(spec.strategy, first=not spec.from_revision)
    return stages(spec.strategy, first=True) if spec.strategy.ab or spec.strategy.blue_green else _canary(spec.strategy)


def stage_at(spec: RolloutSpec, wave: int) -> Stage:
    """Return the stage of a rollout's wave, counted from 1 (0: before the first one, whose stage is meant)."""
    every = stages_of(spec)
    return every[min(max(wave, 1), len(every)) - 1]


def _canary(strategy: Strategy) -> tuple[Stage, ...]:
    canary = strategy.canary
    metrics = _live(strategy)
    sizes = canary.waves if _all(canary.waves[-1]) else (*canary.waves, ALL)
    return tuple(
        Stage(phase="Canary", size=size, observe=seconds(canary.observe_for), metrics=metrics, hold=bool(metrics)) for size in sizes
    )


def _all(size: CountOrPercentage) -> bool:
    return isinstance(size, str) and fraction(size) >= 1


def _live(strategy: Strategy) -> tuple[AnalysisMetric, ...]:
    """Return the metrics of a revision that answers requests."""
    return tuple(metric for metric in strategy.analysis if not metric.metric.startswith(SHADOW_METRICS))


def _shadow(strategy: Strategy, devices: CountOrPercentage, share: str, observe_for: str) -> Stage:
    return Stage(
        phase="Shadow",
        size=devices,
        observe=seconds(observe_for),
        # What answers nobody has nothing else to be judged by.
        metrics=tuple(metric for metric in strategy.analysis if metric.metric.startswith(SHADOW_METRICS)),
        hold=True,
        traffic=Traffic(mode="shadow", share=fraction(share)),
        commits=False,
    )


def _ab(strategy: Strategy, ab: AB) -> tuple[Stage, ...]:
    metrics = tuple(msgspec.structs.replace(metric, give_up_after=ab.give_up_after) for metric in _live(strategy))
    traffic = Traffic(mode="split", share=fraction(ab.share), sticky=ab.sticky)
    return (
        Stage(phase="AB", size=ab.devices, observe=0.0, metrics=metrics, hold=True, traffic=traffic, decides=True),
        Stage(phase="AB", size=ALL, observe=0.0),
    )


def _blue_green(strategy: Strategy, blue_green: BlueGreen) -> tuple[Stage, ...]:
    warm = Stage(
        phase="BlueGreen",
        size=ALL,
        observe=seconds(strategy.probation),
        hold=True,
        traffic=Traffic(mode="none"),
        commits=False,
        asks=not blue_green.auto_promote,
    )
    return (warm, Stage(phase="BlueGreen", size=ALL, observe=seconds(blue_green.observe_for), metrics=_live(strategy), hold=True))
