"""When memory is given back to the system."""

import pytest

from edgewise.control.memory import Trimmer, give_back


def asked(trimmer, *connections):
    return [trimmer.due(count) for count in connections]


def test_once_after_a_wave_has_come_to_rest():
    assert asked(Trimmer(), 0, 4_000, 9_000, 10_000, 10_000, 10_000) == [False, False, False, False, True, False]


def test_again_when_the_wave_has_gone():
    trimmer = Trimmer()
    assert asked(trimmer, 10_000, 10_000) == [False, True]
    assert asked(trimmer, 6_000, 20, 20, 20) == [False, False, True, False]


@pytest.mark.parametrize(("change", "due"), [(499, False), (500, True), (501, True)])
def test_not_for_a_few(change, due):
    trimmer = Trimmer()
    assert asked(trimmer, 100_000, 100_000) == [False, True]
    assert trimmer.due(100_000 - change) is due


def test_giving_back_does_no_harm():
    held = [bytes(100) for _ in range(1_000)]
    give_back()
    assert held == [bytes(100)] * 1_000
