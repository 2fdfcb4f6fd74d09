"""Whether the control plane can be reached, and what a failed exchange says about that."""

from typing import Final

import msgspec

from edgewise.engine.protocol import ContactChanged

_REFRESH_SECONDS: Final = 5.0
_EXCLUSIVE_SHARE: Final = 0.5
"""Where an exclusive copy runs, a silence of this share of its `lostAfter` means offline: so that the engine can stop it in time."""
_IDENTITY_STATUSES: Final = frozenset({401, 403})
_TOO_BUSY: Final = 429
_SERVER_ERRORS: Final = 500


class Failure(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An exchange that brought no answer. `status` is that of an HTTP answer, 0 without one; `untrusted`: the two ends did not trust each
    other; `retry_after` in seconds, 0 when nothing was said."""

    status: int = 0
    untrusted: bool = False
    retry_after: float = 0.0

    @property
    def distrust(self) -> bool:
        """The control plane turned this device's identity down, or the device the control plane's."""
        return self.untrusted or self.status in _IDENTITY_STATUSES

    @property
    def contact(self) -> bool:
        """The control plane knows, from this exchange, that the device is there. One that was too busy to look does not."""
        return 0 < self.status < _SERVER_ERRORS and self.status != _TOO_BUSY and self.status not in _IDENTITY_STATUSES


class Contact:
    """Collects what exchanges say. What a method returns is for the engine: at once when it changes, and seldom while it stays. Times are
    monotonic; `began` is when the agent started."""

    __slots__ = ("_began", "_offline_after", "_silence", "_told_at", "last", "online")

    def __init__(self, began: float, offline_after: float) -> None:
        self._began = began
        self._offline_after = offline_after
        self._told_at = began - _REFRESH_SECONDS
        self._silence: float | None = None
        self.online: bool | None = None
        """None before the first answer or the first long silence."""
        self.last: float | None = None
        """When the control plane last answered; None before the first time."""

    def reached(self, now: float, *, desired: bool = False) -> ContactChanged | None:
        """Note that the control plane answered just now; `desired`: it also said what should run. That it still answers is told where
        somebody must know it in time. Where an exclusive copy runs, only what should run counts: it may have been placed elsewhere."""
        news = self.online is not True
        if news and self._silence is not None and not desired:
            return None
        self.online, self.last = True, now
        if not news and (self._silence is None or now - self._told_at < _REFRESH_SECONDS):
            return None
        self._told_at = now
        return ContactChanged(online=True, last_contact=now)

    def failed(self, now: float) -> ContactChanged | None:
        """Note that an exchange failed just now."""
        return self._judge(now, self._offline_after)

    def watch(self, lost_after: float | None) -> None:
        """From now on, notice a silence that an exclusive copy with this `lostAfter` (seconds) must not outlive; None: there is none."""
        self._silence = None if lost_after is None else lost_after * _EXCLUSIVE_SHARE

    def check(self, now: float) -> ContactChanged | None:
        """Notice a silence even while no exchange fails, because the network swallows everything."""
        return None if self._silence is None else self._judge(now, self._silence)

    def due_in(self, now: float) -> float | None:
        """Return the seconds until the next `check`, or None: when `watch` is called again."""
        if self._silence is None:
            return None
        if self.online is not True or self.last is None:
            return self._silence
        return max(0.0, self.last + self._silence - now)

    def _judge(self, now: float, patience: float) -> ContactChanged | None:
        if self.online is False or now - (self._began if self.last is None else self.last) < patience:
            return None
        self.online = False
        return ContactChanged(online=False, last_contact=self.last)
