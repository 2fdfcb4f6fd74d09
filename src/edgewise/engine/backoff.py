"""Exponential back-off with full jitter, so that a fleet that lost its control plane does not come back as a herd."""

from edgewise.ports.randomness import Randomness


class Backoff:
    """Counts failures in a row and draws how long to wait: uniform in [0, min(`longest`, `first` * 2^failures)] seconds."""

    __slots__ = ("_first", "_longest", "_randomness", "failures")

    def __init__(self, randomness: Randomness, first: float, longest: float) -> None:
        self._randomness = randomness
        self._first = first
        self._longest = longest
        self.failures = 0

    def patient(self, longest: float) -> "Backoff":
        """Return another one that goes up to `longest` seconds."""
        return Backoff(self._randomness, self._first, longest)

    def reset(self) -> None:
        """Something worked."""
        self.failures = 0

    def next(self, at_least: float = 0.0) -> float:
        """Count one more failure and return the seconds to wait. `at_least` is what the other end asked for (Retry-After): it is honoured,
        and the jitter comes on top."""
        ceiling = min(self._longest, self._first * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return at_least + self._randomness.uniform(0.0, ceiling)
