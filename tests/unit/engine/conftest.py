"""Lets the tests in this folder import their helpers: a rig around the pure machine, and the simulated disk of the power cut tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "powercut"))
