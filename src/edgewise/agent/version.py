"""The agent's own version: `importlib.metadata` would load the email package; a test compares the two."""

from typing import Final

VERSION: Final = "0.1.0"
