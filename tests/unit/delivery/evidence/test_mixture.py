"""The bound that holds at all times."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.delivery.evidence.mixture import (
    Estimate,
    critical_z,
    e_value,
    log_e_value,
    log_normal_below,
    normal_scale,
    radius,
    student_scale,
)


@pytest.mark.parametrize("information", [0.5, 40.0, 4000.0])
def test_the_mean_of_an_e_value_is_one(information):
    """By the trapezoidal rule over the normal density of z under the null."""
    step = 0.01
    points = (number * step for number in range(-15_000, 15_001))
    mean = sum(step * math.exp(log_e_value(z, information) - 0.5 * z * z) / math.sqrt(2 * math.pi) for z in points)
    assert mean == pytest.approx(1.0, rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-3, 1e9), st.floats(1e-6, 0.4))
def test_the_critical_value_is_where_the_e_value_is_large_enough(information, alpha):
    assert log_e_value(critical_z(information, alpha), information) == pytest.approx(math.log(1 / alpha), rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.floats(-50, 50), st.floats(0.5, 1e6))
def test_student_and_normal_are_one_another_s_inverse(z, freedom):
    t = student_scale(z, freedom)
    if math.isfinite(t) and abs(t) < 1e90:
        assert normal_scale(t, freedom) == pytest.approx(z, rel=1e-6, abs=1e-6)


def test_student_s_tail():
    # 0.5 % of Student's t with 4 degrees of freedom lie above 4.604, of the normal distribution above 2.576.
    assert normal_scale(4.604, 4) == pytest.approx(2.576, rel=0.01)
    assert normal_scale(2.0, 1e9) == pytest.approx(2.0, rel=1e-6)
    assert normal_scale(5.0, 0) == 0
    assert student_scale(1.0, 0) == math.inf


def test_far_below():
    assert log_normal_below(-10.001) == pytest.approx(log_normal_below(-9.999), rel=1e-3)
    assert log_normal_below(-1e6) < -1e11
    assert log_normal_below(0) == pytest.approx(math.log(0.5))


def test_an_interval_and_its_e_value_say_the_same():
    estimate = Estimate(value=0.03, variance=1e-4, information=500.0, freedom=20.0)
    low = estimate.value - radius(estimate, 0.01)
    assert e_value(estimate, low) == pytest.approx(100, rel=1e-6)
    assert e_value(estimate, low + 1e-6) < 100 < e_value(estimate, low - 1e-6)
    assert radius(Estimate(value=0, variance=1, information=0), 0.01) == math.inf
    assert e_value(Estimate(value=1, variance=0, information=1e9), 0) == 1e12


def test_one_may_look_at_any_time():
    """Sums of normal numbers, looked at after each: of 400 rows at most 5 % may reach 20 (seeded: always the same outcome)."""
    rng, wrong = random.Random(7), 0
    for _ in range(400):
        total = 0.0
        for count in range(1, 301):
            total += rng.gauss(0, 1)
            if log_e_value(total / math.sqrt(count), count) >= math.log(20):
                wrong += 1
                break
    assert 2 <= wrong <= 20
