"""Every invariant can fail: a bug planted in the product breaks it in a run in which the sound product keeps it."""

import pytest
from mutants import MUTANTS

from edgewise.twin import surroundings
from edgewise.twin.invariants import INVARIANTS, observers_for
from edgewise.twin.run import run

NAMES = [f"{each.invariant}: {each.bug}" for each in MUTANTS]


def violated(mutant, patch):
    """Return the invariants that do not hold in the run of a mutant."""
    if mutant.tune is not None:
        patch.setattr(surroundings, "EngineLimits", lambda: mutant.tune)
    observers = (*observers_for("all"), *(guest() for guest in mutant.guests))
    return {violation.invariant for violation in run(mutant.plan, observers=observers).violations}


@pytest.mark.parametrize("mutant", MUTANTS, ids=NAMES)
def test_the_sound_product_keeps_every_promise(mutant, monkeypatch):
    assert violated(mutant, monkeypatch) == set()


@pytest.mark.parametrize("mutant", MUTANTS, ids=NAMES)
def test_a_planted_bug_breaks_its_promise(mutant, monkeypatch):
    mutant.plant(monkeypatch)
    assert mutant.invariant in violated(mutant, monkeypatch)


def test_no_invariant_comes_without_a_bug_that_breaks_it():
    assert {each.invariant for each in MUTANTS} == set(INVARIANTS)
