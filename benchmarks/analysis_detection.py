"""How many samples it takes to catch a fall of accuracy from 95 % to 90 %, beside a fixed-sample z-test of the same error rate and power.

The same power means: the number of samples by which 80 % of the canaries are caught, at an error rate of 1 %, against the number that the
z-test must fix beforehand for that. It may look once; we look after every report, so a large fall is caught far sooner.
"""

from collections.abc import Iterator

import numpy as np

from benchmarks._canaries import Plan, fixed_samples, looks
from benchmarks.row import Row

CANARIES = 1_000


def measure(canaries: int = CANARIES) -> Iterator[Row]:
    """Yield the rows of detection."""
    fall = Plan(new=0.90, old=0.95, devices=12, samples=5, reports=60)
    for name, plan in (
        ("accuracy falls from 95 % to 90 %", fall),
        ("the same, one sample a report", Plan(new=0.90, old=0.95, devices=20, samples=1, reports=150)),
        ("the same, margin of 1 point", Plan(new=0.90, old=0.95, devices=12, samples=5, reports=80, margin=0.01)),
    ):
        caught, mean = detection(plan, canaries, seed=5)
        fixed = fixed_samples(plan)
        yield Row(
            name=f"analysis: {name}, samples on each side",
            unit="samples",
            value=caught,
            baseline=float(fixed),
            ratio=caught / fixed,
            target="at most 2 x the fixed-sample test of the same power (80 %, 1 %)",
            met=caught <= 2 * fixed,
            note=f"{canaries:,} canaries; mean of all {mean:.0f} samples",
        )


def detection(plan: Plan, canaries: int, seed: int) -> tuple[float, float]:
    """Return by how many samples 80 % of the canaries are caught, and the mean (one never caught counts as all of its samples)."""
    rng = np.random.default_rng(seed)
    most = plan.devices * plan.samples * plan.reports
    needed: list[float] = []
    for _ in range(canaries):
        caught = next((float(look.samples) for look in looks(plan, rng) if look.failed), float("inf"))
        needed.append(caught)
    return sorted(needed)[int(0.8 * canaries)], sum(min(each, most) for each in needed) / canaries
