"""How a fetch under way goes on after a failure that may pass: it resumes where it was, a few times, and then leaves it to the engine."""

from typing import Final

from edgewise.engine.backoff import Backoff
from edgewise.engine.limits import LinkLimits
from edgewise.ports.randomness import Randomness

_MAY_PASS: Final = frozenset({408, 429, 500, 502, 503, 504})


def may_pass(status: int) -> bool:
    """Whether an answer with this HTTP status may be another one in a moment."""
    return status in _MAY_PASS


class Persistence:
    """That of one fetch."""

    __slots__ = ("_backoff", "_failures", "_limits")

    def __init__(self, randomness: Randomness, limits: LinkLimits) -> None:
        self._backoff = Backoff(randomness, limits.fetch_pause_first_seconds, limits.fetch_pause_seconds_max)
        self._failures = 0
        self._limits = limits

    def got_on(self) -> None:
        """Note that bytes came: failures are counted anew."""
        self._failures = 0

    def failed(self, asked: float = 0.0) -> float | None:
        """Count a failure that may pass. Returns the seconds until the next try, or None: no more. `asked` is what the other end asked for
        (Retry-After, seconds)."""
        self._failures += 1
        if self._failures > self._limits.fetch_resumes_max or asked > self._limits.fetch_patience_seconds_max:
            return None
        if self._failures == 1:
            self._backoff.reset()
        return self._backoff.next(asked)
