"""Cuts the power at every disk operation of what a device does, in every way the port's contract allows, and again during the recovery."""

import pytest

from edgewise.twin.powercuts import SCENARIOS, run_power_cuts

SECOND = 0.001
"""The share of operations of every recovery at which the power is cut again: a seeded sample. All of them take most of an hour."""


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_cut_is_recovered_from(scenario, record_property):
    result = run_power_cuts([scenario], second=SECOND)
    record_property("power cuts", f"{scenario.name}: {result}")
    record_property("twin power cuts", result.cuts)
    record_property("twin power cuts recovered from", result.recovered)
    assert [str(failure) for failure in result.failures] == []
    assert result.recovered == result.cuts > 150
