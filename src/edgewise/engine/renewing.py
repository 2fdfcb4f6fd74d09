"""When a device asks for its next certificate: by age, and when the control plane turned its identity down, but not again and again."""

import msgspec

from edgewise.engine.limits import LinkLimits
from edgewise.ports.randomness import Randomness


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a look at the certificate. `due_in`: seconds until it is to be renewed, as its age says; `well`: it is young enough, or
    was renewed just now."""

    well: bool
    due_in: float = 0.0


class Renewing:
    """Decides; whoever carries it out asks `begin`, looks at the certificate, renews it if it is time or if told to, and says what came of
    it with `ended`. Times are monotonic, in seconds."""

    __slots__ = ("_force", "_forced_at", "_limits", "_randomness", "busy", "next")

    def __init__(self, now: float, limits: LinkLimits, randomness: Randomness) -> None:
        self._limits = limits
        self._randomness = randomness
        self.busy = self._force = False
        self._forced_at = -limits.renew_retry_seconds
        self.next = now
        """When the next look is due."""

    def distrusted(self, now: float) -> bool:
        """Have the certificate renewed at the next `begin`, whatever its age. Returns whether that is due now."""
        if now - self._forced_at < self._limits.renew_retry_seconds:
            return False
        self._forced_at, self._force = now, True
        return True

    def begin(self, now: float) -> bool | None:
        """Return None while nothing is due or one look is under way; else it is now, and whether to renew whatever the age."""
        if self.busy or not (self._force or now >= self.next):
            return None
        force, self._force, self.busy = self._force, False, True
        return force

    def ended(self, now: float, looked: Looked) -> None:
        """Take in what came of the look."""
        least = self._limits.renew_retry_seconds
        wait = max(least, min(looked.due_in, self._limits.renew_check_seconds)) if looked.well else least
        self.busy = False
        self.next = now + wait + self._randomness.uniform(0.0, wait / 10)
