"""Proportions of independent samples, exact at every sample size.

One sample: the beta-binomial mixture martingale (Robbins 1970; Howard et al. 2021, section 3.4). With k successes of n, the e-value against
the proportion p is B(k + a, n - k + b) / (B(a, b) p^k (1 - p)^(n - k)); all p whose e-value stays below 1/alpha form a confidence sequence.

Two samples: the safe test of Turner, Ly & Grünwald (2024). Each block of both sides is bet on with what was seen before it: the e-value is
multiplied by the block's probability under the two proportions estimated before, over that under the one proportion in between, which is
the nearest of those that are equal. The proportion of the block's own null is n1/(n1+n2) of one plus n2/(n1+n2) of the other, so the
product is an e-value whatever the common proportion is and however it moves from block to block.

Paired: of the samples where both revisions differ, the new one is right with probability 1/2 if neither is better (sign test, McNemar): a
proportion against 1/2.
"""

import math

import msgspec

_PRIOR = 0.5
"""Jeffreys' prior: good over the whole range from 0 to 1."""


def log_e_proportion(successes: float, count: float, null: float) -> float:
    """Return the logarithm of the e-value against the proportion `null` (two-sided)."""
    failures = count - successes
    log = _log_beta(successes + _PRIOR, failures + _PRIOR) - _log_beta(_PRIOR, _PRIOR)
    return log - _times_log(successes, null) - _times_log(failures, 1 - null)


def proportion_interval(successes: float, count: float, alpha: float) -> tuple[float, float]:
    """Return bounds on a proportion; either is wrong, at any time, with a probability of at most `alpha`."""
    if count <= 0:
        return 0.0, 1.0
    # Together they are wrong with a probability of at most alpha; how that is shared between them is not exact, so neither gets less.
    threshold = math.log(1 / alpha)
    middle = successes / count
    return _root(successes, count, threshold, 0.0, middle), _root(successes, count, threshold, 1.0, middle)


def _root(successes: float, count: float, threshold: float, outside: float, inside: float) -> float:
    if log_e_proportion(successes, count, outside) < threshold:
        return outside
    for _ in range(60):
        middle = 0.5 * (outside + inside)
        if log_e_proportion(successes, count, middle) >= threshold:
            outside = middle
        else:
            inside = middle
    return outside


def log_e_sign(better: float, worse: float) -> float:
    """Return the logarithm of the e-value against "neither is better" where both differ `better` + `worse` times."""
    return log_e_proportion(better, better + worse, 0.5)


class TwoProportions(msgspec.Struct, frozen=True, array_like=True):
    """The state of the safe two-sample test: successes and failures so far on both sides, and the logarithm of the e-value."""

    new_successes: float = 0.0
    new_failures: float = 0.0
    old_successes: float = 0.0
    old_failures: float = 0.0
    log_e: float = 0.0


def two_proportions(state: TwoProportions, new: tuple[float, float], old: tuple[float, float]) -> TwoProportions:
    """Return the state after one block: `new` and `old` are (successes, failures) of the block. Bet with beta(0.18, 0.18) priors, as its
    authors found best."""
    new_rate = (state.new_successes + 0.18) / (state.new_successes + state.new_failures + 0.36)
    old_rate = (state.old_successes + 0.18) / (state.old_successes + state.old_failures + 0.36)
    new_count, old_count = sum(new), sum(old)
    log = 0.0
    if new_count and old_count:
        common = (new_count * new_rate + old_count * old_rate) / (new_count + old_count)
        for rate, (successes, failures) in ((new_rate, new), (old_rate, old)):
            log += _times_log(successes, rate) + _times_log(failures, 1 - rate)
            log -= _times_log(successes, common) + _times_log(failures, 1 - common)
    return TwoProportions(
        state.new_successes + new[0],
        state.new_failures + new[1],
        state.old_successes + old[0],
        state.old_failures + old[1],
        state.log_e + log,
    )


def _times_log(times: float, value: float) -> float:
    if not times:
        return 0.0
    return times * math.log(value) if value > 0 else -math.inf


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
