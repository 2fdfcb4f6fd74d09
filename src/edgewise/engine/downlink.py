"""How long a poll for desired state waits, and how long to wait after one that failed."""

from typing import Final

from edgewise.engine.backoff import Backoff
from edgewise.engine.contact import Failure
from edgewise.engine.limits import LinkLimits
from edgewise.wire.desired import DeviceDesired, Position

_SUPERSEDED: Final = 409
_EXCLUSIVE_POLLS: Final = 4
_EXCLUSIVE_POLL_SECONDS_MIN: Final = 1.0
"""An exclusive copy stops when the control plane has been silent for too long, so several polls must fit into that time."""


class Downlink:
    """Decides; whoever carries it out polls from `position` with `wait`, and says what came of it. `poll_seconds` is how long a poll waits
    where nothing asks for less, within the limits."""

    __slots__ = ("_backoff", "_eager", "_exclusive_seconds", "_limits", "_outcast", "_poll_seconds", "position")

    def __init__(self, position: Position, backoff: Backoff, limits: LinkLimits, poll_seconds: float) -> None:
        self.position = position
        self._backoff = backoff
        self._outcast = backoff.patient(limits.refused_backoff_seconds_max)
        self._limits = limits
        self._poll_seconds = max(limits.poll_wait_seconds_min, min(poll_seconds, limits.poll_wait_seconds))
        self._exclusive_seconds: dict[str, float] | None = None
        self._eager = True

    def note(self, document: DeviceDesired) -> float | None:
        """Learn from a document how long a poll may wait at most. Returns the shortest `lostAfter` of all exclusive instances, or None: for
        `Contact.watch`."""
        spans = [each.lost_after_seconds for each in document.instances if each.exclusive]
        known = {name: span for name, span in (self._exclusive_seconds or {}).items() if name != document.device}
        if spans:
            known[document.device] = min(spans)
        self._exclusive_seconds = known or None
        return min(known.values(), default=None)

    @property
    def wait(self) -> float:
        """Seconds that the next poll waits. An exclusive copy that stopped in a silence waits for the first answer after it."""
        if self._exclusive_seconds is None:
            return self._poll_seconds
        if self._eager:
            return 0.0
        shortest = min(self._exclusive_seconds.values()) / _EXCLUSIVE_POLLS
        return max(_EXCLUSIVE_POLL_SECONDS_MIN, min(shortest, self._poll_seconds))

    def answered(self) -> None:
        """Take in that a poll was answered, with a document or without."""
        self._eager = False
        self._backoff.reset()
        self._outcast.reset()

    def failed(self, failure: Failure) -> float:
        """Take in that a poll failed. Returns the seconds until the next."""
        self._eager = True
        if superseded(failure):
            return self._backoff.next(self._limits.backoff_first_seconds)
        return (self._outcast if failure.distrust else self._backoff).next(failure.retry_after)


def superseded(failure: Failure) -> bool:
    """Whether an older connection of this device, or another device that shows the same identity, took the poll over: never hammer then."""
    return failure.status == _SUPERSEDED
