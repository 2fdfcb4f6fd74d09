"""Fleets whose reports are all alike, and margins: what is sure must not become unsure, and a generous margin must not take longer."""

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.delivery.analysis import judge
from edgewise.delivery.evidence.compare import CompareLimits, noise_of, prior_deviation
from edgewise.delivery.evidence.units import Cell, Side, Sides, Window, plus
from edgewise.resources.states import AnalysisState
from edgewise.resources.workload import AnalysisMetric

ACCURACY, ERRORS, DURATION = "model.accuracy", "model.server.errors", "model.server.request.duration"
SAMPLES = 50
ERROR_RATE = 0.01


def judged(name, margin, new, old):
    """Return the verdict on cells."""
    metric = AnalysisMetric(metric=name, direction="higher" if name == ACCURACY else "lower", margin=margin, min_samples=20)
    sides = Sides(new=Side(cells=new, devices=len(new)), old=Side(cells=old, devices=len(old)))
    return judge((metric,), {name: sides}, ERROR_RATE, None, 0.0)[0]


def constant(value, devices, looks, side):
    """Return cells of devices that reported the same value in every sample of every window."""
    window = Window(count=SAMPLES, total=SAMPLES * value, squares=SAMPLES * value * value)
    cells = {}
    for number in range(devices):
        cell = Cell()
        for _ in range(looks):
            cell = plus(cell, window)
        cells[f"{side}{number}"] = cell
    return cells


@pytest.mark.parametrize("controls", [1, 3, 10])
@pytest.mark.parametrize(
    ("name", "value", "margin"),
    [
        (ACCURACY, 1.0, 0.02),
        (ACCURACY, 1.0, 0.3),
        (ACCURACY, 1.0, "10%"),
        (ERRORS, 0.0, 0.01),
        (ERRORS, 0.0, 0.5),
        (DURATION, 0.02, 0.005),
        (DURATION, 0.02, "10%"),
        ("queue.length", 0.0, 2.0),
    ],
)
def test_reports_that_are_all_alike_make_it_ever_surer(name, value, margin, controls):
    found = [
        judged(name, margin, constant(value, 1, looks, "n"), constant(value, controls, looks, "o"))
        for looks in (4, 6, 10, 20, 50, 100, 300)
    ]
    widths = [each.difference.high - each.difference.low for each in found]
    # Down to what devices are assumed to differ by; the degrees of freedom of noise and devices together move that by some thousandths.
    assert all(later <= 1.005 * earlier for earlier, later in pairwise(widths)), widths
    assert all(later.state is AnalysisState.SUCCESSFUL for later in found[3:]), [each.message for each in found]
    if name in {ACCURACY, ERRORS}:
        assert widths[0] < 1


@pytest.mark.parametrize("controls", [1, 3])
@pytest.mark.parametrize("margin", [0.02, 0.1, 0.3])
def test_what_is_always_half_as_good_fails(controls, margin):
    found = [judged(ACCURACY, margin, constant(0.5, 1, looks, "n"), constant(1.0, controls, looks, "o")) for looks in (4, 10, 50, 300)]
    assert [each.state for each in found] == [AnalysisState.FAILED] * 4


def test_no_interval_is_wider_than_the_range():
    few = [Cell(windows=4, count=20, total=total, squares=total, between=total) for total in (0.0, 20.0)]
    for new, old in ((few[0], few[1]), (few[1], few[0]), (few[0], few[0])):
        found = judged(ACCURACY, 0.001, {"n": new}, {"o": old})
        assert -1 <= found.difference.low <= found.difference.value <= found.difference.high <= 1


def test_a_row_without_a_failure_is_no_certainty():
    """Its variance is that of two failures among as many samples, and goes with their number."""
    for looks, times in ((4, 1), (40, 10)):
        noise = noise_of(constant(1.0, 1, looks, "n").values(), unit_range=True)
        assert noise.variance == pytest.approx(2 / (200 * times), rel=0.02)


def test_devices_are_not_assumed_to_differ_without_end():
    limits, cells = CompareLimits(), constant(0.2, 1, 4, "o")
    at = limits.prior_points / limits.prior_spread
    for margin, most in ((0.9 * at, 0.9 * limits.prior_points), (at, limits.prior_points), (1.1 * at, limits.prior_points)):
        assert prior_deviation(cells, margin, unit_range=True) == pytest.approx(most)
    at = limits.prior_share * 0.2 / limits.prior_spread
    for margin, most in ((0.9 * at, 0.009), (at, 0.01), (1000 * at, 0.01)):
        assert prior_deviation(cells, margin, unit_range=False) == pytest.approx(most)
    assert prior_deviation(constant(0.0, 1, 4, "o"), 5.0, unit_range=False) == pytest.approx(5.0 * limits.prior_spread)


def reported(rng, rate, devices, looks, side):
    """Return cells of devices that answered right at a rate."""
    cells = {}
    for number in range(devices):
        cell = Cell()
        for _ in range(looks):
            right = float(sum(rng.random() < rate for _ in range(20)))
            cell = plus(cell, Window(count=20, total=right, squares=right))
        cells[f"{side}{number}"] = cell
    return cells


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.integers(0, 10_000),
    st.sampled_from([0.5, 0.8, 0.9, 0.95, 1.0]),
    st.sampled_from([0.5, 0.8, 0.9, 0.95, 1.0]),
    st.sampled_from([(1, 1), (1, 3), (3, 3), (8, 8)]),
    st.sampled_from([4, 6, 12, 40]),
    st.sampled_from([ACCURACY, "score"]),
)
def test_a_larger_margin_never_makes_it_slower(seed, new_rate, old_rate, devices, looks, name):
    """At each look: what succeeds with a margin succeeds with every larger one, and never fails with one."""
    rng = random.Random(seed)
    new, old = reported(rng, new_rate, devices[0], looks, "n"), reported(rng, old_rate, devices[1], looks, "o")
    flip = 1 if name == ACCURACY else -1
    if flip < 0:
        new, old = old, new
    states = [judged(name, margin, new, old).state for margin in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8)]
    first = states.index(AnalysisState.SUCCESSFUL) if AnalysisState.SUCCESSFUL in states else len(states)
    assert set(states[first:]) <= {AnalysisState.SUCCESSFUL}, states


@pytest.mark.parametrize("controls", [1, 3])
def test_a_generous_margin_is_settled_soon(controls):
    rng = random.Random(9)
    new, old = reported(rng, 0.9, 1, 12, "n"), reported(rng, 0.9, controls, 12, "o")
    for margin in (0.3, 0.5, 0.8):
        assert judged(ACCURACY, margin, new, old).state is AnalysisState.SUCCESSFUL


@pytest.mark.parametrize(
    ("new_rate", "old_rate", "margin", "devices", "samples", "looks"),
    # Worse by exactly the margin: neither verdict may come more often than the rate (1 % of 300; seeded, so always the same outcome).
    [(0.90, 1.0, 0.1, (1, 3), 5, 25), (0.95, 1.0, 0.05, (5, 5), 2, 25), (0.6, 0.9, 0.3, (1, 3), 5, 20), (0.6, 0.9, 0.3, (1, 1), 20, 15)],
)
def test_few_alike_samples_and_wide_margins_keep_to_the_rate(new_rate, old_rate, margin, devices, samples, looks):
    rng, wrong = random.Random(17), 0
    for _ in range(300):
        cells = [{f"{side}{number}": Cell() for number in range(count)} for side, count in enumerate(devices)]
        for look in range(looks):
            for side, rate in zip(cells, (new_rate, old_rate), strict=True):
                for key in side:
                    right = float(sum(rng.random() < rate for _ in range(samples)))
                    side[key] = plus(side[key], Window(count=samples, total=right, squares=right))
            if look % 2 and judged(ACCURACY, margin, *cells).state is not AnalysisState.RUNNING:
                wrong += 1
                break
    assert wrong <= 3
