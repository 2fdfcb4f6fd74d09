"""Lets the tests in this folder import its helpers, and gives them fleets of real processes."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from system_fleet import Fleet  # found by the line above


@pytest.fixture(scope="module")
def fleets(tmp_path_factory, port_blocks):
    """Make fleets that end with the module: `fleets(limits, gateway_host)`."""
    made = []

    def make(limits=None, **options):
        fleet = Fleet(tmp_path_factory.mktemp("fleet"), port_blocks, limits, **options)
        made.append(fleet)
        return fleet.up()

    yield make
    for fleet in made:
        fleet.close()


@pytest.fixture(scope="module")
def fleet(fleets):
    """One fleet for all tests of a module."""
    return fleets()
