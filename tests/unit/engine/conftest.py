"""Lets the tests in this folder import their helper: a rig around the pure machine."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
