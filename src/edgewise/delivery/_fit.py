"""Logistic regression by maximum a posteriori: a Gaussian prior around where the weights were, no weight but the intercept below 0.

Projected Newton steps (Bertsekas 1982): weights that stand at 0 and would fall are left out of a step, and a step is halved until the
objective falls. The objective is convex, so a dozen of steps suffice.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

_STEPS_MAX: Final = 12
_HALVINGS_MAX: Final = 12
_CLOSE: Final = 1e-6
_WEIGHT_MAX: Final = 12.0
_TINY: Final = 1e-12


class Example(NamedTuple):
    """Numbers with a leading 1, whether it failed, and how many it stands for."""

    numbers: tuple[float, ...]
    failed: bool
    times: float


def fit(prior: Sequence[float], precisions: Sequence[float], examples: Sequence[Example]) -> tuple[float, ...]:
    """Return the weights that the prior and the examples make most likely."""
    weights = list(prior)
    cost = _cost(weights, prior, precisions, examples)
    for _ in range(_STEPS_MAX):
        slope, bend = _derivatives(weights, prior, precisions, examples)
        free = [place for place in range(len(weights)) if place == 0 or weights[place] > 0.0 or slope[place] < 0.0]
        step = _solve([[bend[row][column] for column in free] for row in free], [slope[row] for row in free])
        length, better = 1.0, weights
        for _ in range(_HALVINGS_MAX):
            tried = list(weights)
            for place, change in zip(free, step, strict=True):
                tried[place] = _within(tried[place] - length * change, place)
            tried_cost = _cost(tried, prior, precisions, examples)
            if tried_cost < cost:
                better = tried
                break
            length /= 2
        gain, weights = cost - _cost(better, prior, precisions, examples), better
        cost -= gain
        if gain < _CLOSE:
            break
    return tuple(weights)


def precisions_after(weights: Sequence[float], precisions: Sequence[float], examples: Sequence[Example]) -> tuple[float, ...]:
    """Return how sure the weights are after the examples: the diagonal of the posterior's precision."""
    sums = list(precisions)
    for numbers, _, times in examples:
        said = _said(weights, numbers)
        spread = times * said * (1.0 - said)
        for place, number in enumerate(numbers):
            sums[place] += spread * number * number
    return tuple(sums)


def _within(weight: float, place: int) -> float:
    return min(_WEIGHT_MAX, max(-_WEIGHT_MAX if place == 0 else 0.0, weight))


def _odds(weights: Sequence[float], numbers: Sequence[float]) -> float:
    return sum(map(float.__mul__, weights, numbers))


def _said(weights: Sequence[float], numbers: Sequence[float]) -> float:
    # Weights are bounded, so the exponential is.
    return 1.0 / (1.0 + math.exp(-_odds(weights, numbers)))


def _cost(weights: Sequence[float], prior: Sequence[float], precisions: Sequence[float], examples: Sequence[Example]) -> float:
    cost = sum(sure * (weight - mean) ** 2 for weight, mean, sure in zip(weights, prior, precisions, strict=True)) / 2
    for numbers, failed, times in examples:
        odds = _odds(weights, numbers)
        cost += times * (max(0.0, odds) + math.log1p(math.exp(-abs(odds))) - odds * failed)
    return cost


def _derivatives(
    weights: Sequence[float], prior: Sequence[float], precisions: Sequence[float], examples: Sequence[Example]
) -> tuple[list[float], list[list[float]]]:
    size = len(weights)
    slope = [sure * (weight - mean) for weight, mean, sure in zip(weights, prior, precisions, strict=True)]
    bend = [[precisions[row] if row == column else 0.0 for column in range(size)] for row in range(size)]
    for numbers, failed, times in examples:
        said = _said(weights, numbers)
        error, spread = times * (said - failed), times * said * (1.0 - said)
        # Most features of most devices are 0.
        there = [place for place, number in enumerate(numbers) if number]
        for row in there:
            slope[row] += error * numbers[row]
            scaled, line = spread * numbers[row], bend[row]
            for column in there:
                line[column] += scaled * numbers[column]
    return slope, bend


def _solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Solve a symmetric positive definite system by Cholesky's decomposition. The prior's precision keeps it positive definite."""
    size = len(right)
    lower = [[0.0] * size for _ in range(size)]
    for row in range(size):
        for column in range(row + 1):
            rest = matrix[row][column] - sum(map(float.__mul__, lower[row][:column], lower[column][:column]))
            lower[row][column] = math.sqrt(max(rest, _TINY)) if row == column else rest / lower[column][column]
    forward: list[float] = []
    for row in range(size):
        forward.append((right[row] - sum(map(float.__mul__, lower[row], forward))) / lower[row][row])
    solved = [0.0] * size
    for row in reversed(range(size)):
        rest = forward[row] - sum(lower[below][row] * solved[below] for below in range(row + 1, size))
        solved[row] = rest / lower[row][row]
    return solved
