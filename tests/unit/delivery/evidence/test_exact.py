"""The exact tools: proportions, means, rates, quantiles of independent samples."""

import math
import random
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.delivery.evidence.counts import Rates, with_block
from edgewise.delivery.evidence.means import BoundedMean, mean_interval, with_number
from edgewise.delivery.evidence.proportions import TwoProportions, log_e_proportion, log_e_sign, proportion_interval, two_proportions
from edgewise.delivery.evidence.quantiles import exact_interval, quantile


@pytest.mark.parametrize("null", [0.02, 0.3, 0.5, 0.95])
@pytest.mark.parametrize("count", [1, 7, 30])
def test_the_mean_of_an_e_value_is_one(null, count):
    """Not by simulation: over all outcomes, each with its probability."""
    mean = sum(
        math.comb(count, k) * null**k * (1 - null) ** (count - k) * math.exp(log_e_proportion(k, count, null)) for k in range(count + 1)
    )
    assert mean == pytest.approx(1.0)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 500), st.integers(0, 500), st.floats(0.001, 0.2))
def test_a_proportion_lies_in_its_interval(successes, failures, alpha):
    low, high = proportion_interval(successes, successes + failures, alpha)
    assert 0 <= low <= high <= 1
    if successes + failures:
        assert low <= successes / (successes + failures) <= high
    narrower = proportion_interval(10 * successes, 10 * (successes + failures), alpha)
    assert narrower[1] - narrower[0] <= high - low + 1e-9


def test_proportions_hold_at_every_look():
    """A thousand rows of 300 looks; of 5 % that may go wrong, at most 5 % do (seeded: the outcome is always the same)."""
    rng, wrong = random.Random(3), 0
    for _ in range(300):
        successes, outside = 0, False
        for count in range(1, 201):
            successes += rng.random() < 0.9
            if count % 5 == 0:
                outside = outside or log_e_proportion(successes, count, 0.9) >= math.log(20)
        wrong += outside
    assert wrong <= 15


def test_the_two_sample_test():
    """The mean of one block's e-value is at most 1 whatever the common proportion is, and a true difference makes it large."""
    state = TwoProportions(30, 2, 40, 1)
    for common in (0.1, 0.5, 0.93):
        mean = 0.0
        for new in range(4):
            for old in range(6):
                chance = math.comb(3, new) * math.comb(5, old) * common ** (new + old) * (1 - common) ** (8 - new - old)
                mean += chance * math.exp(two_proportions(state, (new, 3 - new), (old, 5 - old)).log_e)
        assert mean <= 1 + 1e-9
    rng = random.Random(1)
    for _ in range(200):
        new, old = sum(rng.random() < 0.6 for _ in range(10)), sum(rng.random() < 0.9 for _ in range(10))
        state = two_proportions(state, (new, 10 - new), (old, 10 - old))
    assert state.log_e > math.log(1e6)
    assert two_proportions(state, (0, 0), (3, 1)).log_e == state.log_e


def test_the_sign_test():
    assert log_e_sign(0, 0) == 0
    assert log_e_sign(40, 2) > math.log(1000)
    assert log_e_sign(40, 2) == pytest.approx(log_e_sign(2, 40))
    assert log_e_sign(20, 21) < 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=60))
def test_a_bounded_mean(numbers):
    state, widths = BoundedMean(0.05), [1.0]
    for number in numbers:
        state = with_number(state, number)
    low, high = mean_interval(state)
    assert 0 <= low <= 1
    assert 0 <= high <= 1
    assert widths[0] >= high - low or low > high
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=BoundedMean) == state


def test_a_bounded_mean_holds_and_narrows():
    rng, wrong, widths = random.Random(5), 0, []
    for _ in range(100):
        state, outside = BoundedMean(0.05), False
        for _ in range(300):
            # Whole windows that are all good or all bad: the mean is what counts, not the shape.
            state = with_number(state, float(rng.random() < 0.7))
            low, high = mean_interval(state)
            outside = outside or not low <= 0.7 <= high
        wrong += outside
        widths.append(high - low)
    assert wrong <= 5
    assert max(widths) < 0.35


@pytest.mark.parametrize("number", [-0.1, 1.1, math.nan, math.inf])
def test_a_bounded_mean_takes_nothing_else(number):
    with pytest.raises(ValueError, match="not between 0 and 1"):
        with_number(BoundedMean(0.05), number)


def test_rates_are_an_e_value():
    """The mean of a block over all ways to divide its events is exactly 1 at the null, and below it for lower ratios."""
    state = Rates(new_events=30, old_events=10, new_exposure=100, old_exposure=100)
    for ratio, least, most in ((1.0, 1 - 1e-9, 1 + 1e-9), (0.5, 0.0, 1.0)):
        share = ratio * 20 / (ratio * 20 + 60)
        mean = sum(
            math.comb(6, k) * share**k * (1 - share) ** (6 - k) * math.exp(with_block(state, (k, 20), (6 - k, 60)).log_e) for k in range(7)
        )
        assert least <= mean <= most
    for _ in range(40):
        state = with_block(state, (6, 100), (2, 100))
    assert state.log_e > math.log(1e6)
    assert with_block(state, (5, 0), (1, 10)).log_e == state.log_e


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=4, max_size=4), st.floats(0.05, 0.95))
def test_quantiles_of_histograms(buckets, share):
    bounds = (0.1, 0.2, 0.4)
    value = quantile(bounds, buckets, share)
    if not sum(buckets):
        assert math.isnan(value)
        return
    assert 0 <= value <= 0.4
    interval = exact_interval(bounds, buckets, share, 0.01)
    assert interval.low <= interval.value <= interval.high or interval.value == bounds[-1]
    assert all(quantile(bounds, buckets, one) <= quantile(bounds, buckets, other) for one, other in pairwise((0.1, 0.5, 0.9)))


def test_a_quantile_of_many_samples_lies_between_two_edges():
    interval = exact_interval((0.1, 0.2, 0.4, 0.8), [5000, 4000, 800, 150, 50], 0.95, 0.01)
    assert (interval.low, interval.high) == (0.2, 0.4)
    assert 0.2 < interval.value < 0.4
