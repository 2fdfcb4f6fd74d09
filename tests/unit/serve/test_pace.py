"""When an inference is answered at once, and when it is handed over."""

import pytest

from edgewise.serve.limits import ServeLimits
from edgewise.serve.pace import Pace

LIMITS = ServeLimits(inline_seconds_max=0.010, inline_shared_seconds_max=0.001)


def _learned(seconds: float, size: int = 100) -> Pace:
    pace = Pace(LIMITS)
    for _ in range(100):
        pace.took(size, seconds)
    return pace


@pytest.mark.parametrize(
    ("seconds", "alone", "shared"), [(0.0009, True, True), (0.0011, True, False), (0.0099, True, False), (0.0101, False, False)]
)
def test_what_was_quick_will_be(seconds, alone, shared):
    pace = _learned(seconds)
    pace.expects_quick(1, 100, 10.0)
    assert pace.expects_quick(1, 100, 11.0) == alone
    assert pace.expects_quick(2, 100, 11.5) == shared  # another connection asks too
    assert pace.expects_quick(2, 100, 12.4) == shared
    assert pace.expects_quick(2, 100, 12.5) == alone


def test_nothing_is_expected_before_anything_is_known():
    pace = Pace(LIMITS)
    assert not pace.expects_quick(0, 0, 0.0)
    pace.took(100, 0.0001)
    assert not pace.expects_quick(0, 100, 0.0)


def test_a_larger_request_than_any_before_is_handed_over():
    pace = _learned(0.0001)
    assert pace.expects_quick(0, 200, 10.0)
    assert not pace.expects_quick(0, 201, 10.0)


def test_a_model_that_disappoints_is_not_trusted_for_long():
    pace = _learned(0.0001)
    pace.took(100, 0.081)
    for _ in range(999):
        pace.took(100, 0.0001)
        assert not pace.expects_quick(0, 100, 10.0)
    pace.took(100, 0.0001)
    assert pace.expects_quick(0, 100, 10.0)


def test_it_can_be_switched_off():
    pace = Pace(ServeLimits(inline_seconds_max=0.0, inline_shared_seconds_max=0.0))
    for _ in range(100):
        pace.took(100, 0.0)
    assert not pace.expects_quick(0, 100, 10.0)
