"""Randomness as a port, so that the twin can replay a run."""

import os
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
    """The operating system's generator.

    The `random` module would cost a resident process a fifth of a megabyte."""

    def token(self, size: int) -> bytes:
        """See `Randomness.token`."""
        return os.urandom(size)

    def uniform(self, low: float, high: float) -> float:
        """See `Randomness.uniform`."""
        return low + (high - low) * (int.from_bytes(os.urandom(7)) >> 3) / ((1 << 53) - 1)
