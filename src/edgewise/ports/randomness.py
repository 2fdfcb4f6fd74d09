"""Randomness as a port, so that the twin can replay a run."""

import os
import random
from typing import Protocol


class Randomness(Protocol):
    """Where chance comes from."""

    def token(self, size: int) -> bytes:
        """Return `size` bytes fit for keys and identifiers."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high], fit for jitter only."""
        ...


class SystemRandomness:
    """The operating system's generator for tokens, a seeded one for jitter."""

    def __init__(self) -> None:
        self._jitter = random.Random(os.urandom(16))

    def token(self, size: int) -> bytes:
        """See `Randomness.token`."""
        return os.urandom(size)

    def uniform(self, low: float, high: float) -> float:
        """See `Randomness.uniform`."""
        return self._jitter.uniform(low, high)
