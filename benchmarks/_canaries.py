"""Simulated canaries: devices of both sides report how many of a few answers were right, and someone looks after every report."""

import math
from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np

from edgewise.delivery.analysis import judge
from edgewise.delivery.evidence.units import Cell, Side, Sides, Window, plus
from edgewise.resources.states import AnalysisState
from edgewise.resources.workload import AnalysisMetric

ERROR_RATE = 0.01
METRIC = "model.accuracy"
_Z = 2.3263478740408408  # of a one-sided test at 1 %
_Z_POWER = 0.8416212335729143  # of a power of 80 %


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`devices` on each side report `samples` answers each time, `reports` times. `spread`: standard deviation of accuracy between
    devices; `drift`: how far the time moves all of them; `wobble`: standard deviation of one device's accuracy between reports."""

    new: float = 0.95
    old: float = 0.95
    devices: int = 5
    samples: int = 10
    reports: int = 30
    margin: float = 1e-9
    spread: float = 0.0
    drift: float = 0.0
    wobble: float = 0.0


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What one look finds: the samples on each side so far, whether the evidence fails the new revision, whether a z-test would."""

    samples: int
    failed: bool
    z_failed: bool


_PLAIN: Final = 1.0
"""A look at which the plain z is below this is not judged, which saves most of the time: with as many samples of every device the evidence
weighs the same means by a variance that is no smaller, and fails from 3 on."""


def looks(plan: Plan, rng: np.random.Generator, plain: float = _PLAIN) -> Iterator[Look]:
    """Yield every look at one canary."""
    metric = AnalysisMetric(metric=METRIC, direction="higher", margin=plan.margin)
    sides = tuple({f"{name}{number}": Cell("camera") for number in range(plan.devices)} for name in ("new", "old"))
    own = [rng.normal(0.0, plan.spread, plan.devices) for _ in sides]
    totals = [0.0, 0.0]
    for report in range(1, plan.reports + 1):
        common = plan.drift * math.sin(report / 5)
        for number, (cells, rate) in enumerate(zip(sides, (plan.new, plan.old), strict=True)):
            accuracy = np.clip(rate + own[number] + common + rng.normal(0.0, plan.wobble, plan.devices), 0.0, 1.0)
            right = rng.binomial(plan.samples, accuracy)
            for key, count in zip(cells, right, strict=True):
                total = float(count)
                cells[key] = plus(cells[key], Window(count=plan.samples, total=total, squares=total))
            totals[number] += float(right.sum())
        samples = plan.devices * plan.samples * report
        z = _z(totals[0] / samples, totals[1] / samples, samples, plan.margin)
        yield Look(samples=samples, failed=z >= plain and _failed(metric, sides, plan.devices), z_failed=z > _Z)


def _failed(metric: AnalysisMetric, sides: tuple[dict[str, Cell], ...], devices: int) -> bool:
    new, old = (Side(cells=cells, devices=devices) for cells in sides)
    (verdict,) = judge((metric,), {METRIC: Sides(new=new, old=old)}, ERROR_RATE, 0.0, 1.0)
    return verdict.state is AnalysisState.FAILED


def _z(new: float, old: float, samples: int, margin: float) -> float:
    variance = (new * (1 - new) + old * (1 - old)) / samples
    return (old - new - margin) / math.sqrt(variance) if variance > 0 else 0.0


def fixed_samples(plan: Plan) -> int:
    """Return the samples that each side of a fixed-sample z-test at 1 % needs to find `plan`'s difference with a probability of 80 %."""
    variance = plan.new * (1 - plan.new) + plan.old * (1 - plan.old)
    return math.ceil((_Z + _Z_POWER) ** 2 * variance / (plan.old - plan.new - plan.margin) ** 2)
