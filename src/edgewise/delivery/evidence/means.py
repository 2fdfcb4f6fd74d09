"""Means of bounded numbers, exact at every sample size: the predictable plug-in empirical Bernstein confidence sequence.

For x in [0, 1] with mean m, whatever their distribution and however it moves while the mean given the past stays m (Waudby-Smith & Ramdas
2020, theorem 2; read before the Royal Statistical Society in 2024):

    sum(l_i x_i) / sum(l_i)  ±  (log(2 / alpha) + sum(4 (x_i - mean_(i-1))² psi(l_i))) / sum(l_i),    psi(l) = (-log(1 - l) - l) / 4
    l_i = min(1/2, sqrt(2 log(2 / alpha) / (variance_(i-1) i log(1 + i))))

Each bet l_i is made from what came before x_i. Unbounded metrics have no exact sequence without knowing their tails: for those there is the
asymptotic one of `mixture.py`. Fed with the means of windows, the samples within a window may depend on each other in any way.
"""

import math

import msgspec

_BET_MAX = 0.5


class BoundedMean(msgspec.Struct, frozen=True, array_like=True):
    """The state: how many numbers from 0 to 1 came, their sum, the sum of squares around the running mean, and the three sums over bets.
    `alpha` is the error of both ends together; the bets are made for it, so it stays."""

    alpha: float
    count: int = 0
    total: float = 0.0
    scatter: float = 0.0
    bets: float = 0.0
    weighted: float = 0.0
    penalty: float = 0.0


def with_number(state: BoundedMean, number: float) -> BoundedMean:
    """Return the state after one more number. Raises `ValueError` when it is not in [0, 1]."""
    if not 0 <= number <= 1:
        raise ValueError(f"{number} is not between 0 and 1")
    count = state.count + 1
    before = (0.5 + state.total) / (state.count + 1)
    variance = (0.25 + state.scatter) / (state.count + 1)
    bet = min(_BET_MAX, math.sqrt(2 * math.log(2 / state.alpha) / (variance * count * math.log(1 + count))))
    after = (0.5 + state.total + number) / (count + 1)
    return BoundedMean(
        state.alpha,
        count,
        state.total + number,
        state.scatter + (number - after) ** 2,
        state.bets + bet,
        state.weighted + bet * number,
        state.penalty + (number - before) ** 2 * (-math.log(1 - bet) - bet),
    )


def mean_interval(state: BoundedMean) -> tuple[float, float]:
    """Return the bounds of the mean; at any time both hold but for a probability of at most `alpha`."""
    if not state.count:
        return 0.0, 1.0
    middle = state.weighted / state.bets
    reach = (math.log(2 / state.alpha) + state.penalty) / state.bets
    return max(0.0, middle - reach), min(1.0, middle + reach)
