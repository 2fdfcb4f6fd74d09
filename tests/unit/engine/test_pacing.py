"""Renewal of the certificate, and how long a fetch goes on: decisions that the agent and the twin share."""

import pytest

from edgewise.engine.limits import LinkLimits
from edgewise.engine.persistence import Persistence, may_pass
from edgewise.engine.renewing import Looked, Renewing
from edgewise.engine.resident import may_forget

LIMITS = LinkLimits()
DAY = 86_400.0


class Most:
    """Randomness that draws the most of everything."""

    def uniform(self, _low: float, high: float) -> float:
        return high

    def token(self, length: int) -> bytes:
        return b"x" * length


def test_a_certificate_is_looked_at_one_at_a_time_and_by_its_age() -> None:
    renewing = Renewing(100.0, LIMITS, Most())
    assert renewing.begin(99.9) is None
    assert renewing.begin(100.0) is False
    assert renewing.begin(1e9) is None  # one is under way
    renewing.ended(200.0, Looked(well=True, due_in=3600.0))
    assert renewing.next == pytest.approx(200.0 + 3600.0 * 1.1)
    for due_in, wait in ((30 * DAY, LIMITS.renew_check_seconds), (1.0, LIMITS.renew_retry_seconds)):
        renewing.begin(renewing.next)
        renewing.ended(0.0, Looked(well=True, due_in=due_in))
        assert renewing.next == pytest.approx(wait * 1.1)


def test_a_renewal_that_failed_comes_again_soon() -> None:
    renewing = Renewing(0.0, LIMITS, Most())
    renewing.begin(0.0)
    renewing.ended(0.0, Looked(well=False, due_in=DAY))
    assert renewing.next == pytest.approx(LIMITS.renew_retry_seconds * 1.1)


def test_distrust_forces_a_renewal_but_not_again_and_again() -> None:
    renewing = Renewing(1e6, LIMITS, Most())
    assert renewing.distrusted(5.0)
    assert renewing.begin(5.0) is True
    renewing.ended(5.0, Looked(well=True, due_in=DAY))
    assert not renewing.distrusted(5.0 + LIMITS.renew_retry_seconds - 0.1)
    assert renewing.begin(6.0) is None
    assert renewing.distrusted(5.0 + LIMITS.renew_retry_seconds)


@pytest.mark.parametrize(("status", "passes"), [(429, True), (503, True), (408, True), (403, False), (404, False), (501, False)])
def test_what_may_pass(status: int, passes: bool) -> None:
    assert may_pass(status) is passes


def test_a_fetch_goes_on_a_few_times_in_a_row() -> None:
    persistence = Persistence(Most(), LIMITS)
    assert [persistence.failed() for _ in range(LIMITS.fetch_resumes_max)] == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert persistence.failed() is None
    persistence.got_on()
    assert persistence.failed() == 0.5


@pytest.mark.parametrize(("asked", "waits"), [(29.9, True), (30.0, True), (30.1, False)])
def test_a_fetch_does_not_wait_as_long_as_it_is_asked_to(asked: float, waits: bool) -> None:
    pause = Persistence(Most(), LIMITS).failed(asked)
    assert pause == (asked + 0.5 if waits else None)


@pytest.mark.parametrize(("told", "seconds", "forgets"), [(True, 0.0, True), (False, 600.0, False), (False, 600.1, True)])
def test_the_last_word_is_waited_for(told: bool, seconds: float, forgets: bool) -> None:
    assert may_forget(10.0, 10.0 + seconds, LIMITS, told=told) is forgets
