"""False rollbacks: canaries in which nothing is worse, looked at after every report, beside a z-test looked at the same way.

The z-test's error rate of 1 % holds for one look at a number of samples fixed beforehand; looked at again and again it cries wolf. The
margin is next to nothing here, which is the hardest case: with a real margin a sound revision is farther from being found worse.
"""

from collections.abc import Iterator

import numpy as np

from benchmarks._canaries import Plan, looks
from benchmarks.row import Row

CANARIES = 10_000
_FEW = 1_500


def measure(canaries: int = CANARIES, few: int = _FEW) -> Iterator[Row]:
    """Yield the rows of false rollbacks."""
    alike, apart = Plan(), Plan(new=0.9, old=0.9, devices=8, spread=0.03, drift=0.03, wobble=0.05)
    hardest = Plan(new=0.88, old=0.9, margin=0.02)
    for name, plan, number in (
        ("no difference", alike, canaries),
        ("no difference, devices and times differ", apart, few),
        ("worse by exactly the margin", hardest, few),
    ):
        ours, z_test = rates(plan, number, seed=4)
        yield Row(
            name=f"analysis: false rollbacks in {number:,} canaries, {name}",
            unit="%",
            value=ours * 100,
            baseline=z_test * 100,
            ratio=ours / z_test if z_test else None,
            target="at most 1 %",
            met=ours <= 0.01,
            note=f"{plan.reports} looks each; baseline: a z-test at 1 % looked at the same way",
        )


def rates(plan: Plan, canaries: int, seed: int) -> tuple[float, float]:
    """Return the parts of the canaries that were failed: by the evidence, and by the z-test."""
    rng = np.random.default_rng(seed)
    ours = z_test = 0
    for _ in range(canaries):
        failed = z_failed = False
        for look in looks(plan, rng):
            failed, z_failed = failed or look.failed, z_failed or look.z_failed
            if failed and z_failed:
                break
        ours, z_test = ours + failed, z_test + z_failed
    return ours / canaries, z_test / canaries
