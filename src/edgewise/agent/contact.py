"""Whether the control plane can be reached, as both link threads see it."""

import threading
from collections.abc import Callable

from edgewise.engine.protocol import ContactChanged
from edgewise.ports.clock import Clock

_REFRESH_SECONDS = 5.0


_EXCLUSIVE_SHARE = 0.5
"""Where an exclusive copy runs, a silence of this share of its `lostAfter` means offline: so that the engine can stop it in time."""


class Contact:
    """Collects what the link threads see and tells the engine: at once when it changes, and seldom while it stays."""

    def __init__(self, clock: Clock, tell: Callable[[ContactChanged], None], offline_after: float) -> None:
        self.clock = clock
        self._tell = tell
        self._offline_after = offline_after
        self._lock = threading.Lock()
        self._told_at = -_REFRESH_SECONDS
        self.online: bool | None = None
        """None before the first answer or the first long silence."""
        self.last: float | None = None
        """When the control plane last answered; monotonic. None before the first time."""
        self._began = clock.monotonic()
        self._silence: float | None = None

    def reached(self) -> bool:
        """Note that the control plane answered just now. Returns whether that is news."""
        now = self.clock.monotonic()
        with self._lock:
            news = self.online is not True
            self.online, self.last = True, now
            tell = news or now - self._told_at >= _REFRESH_SECONDS
            if tell:
                self._told_at = now
        if tell:
            self._tell(ContactChanged(online=True, last_contact=now))
        return news

    def failed(self) -> bool:
        """Note that an exchange failed just now. Returns whether the device counts as offline from now on."""
        return self._judge(self._offline_after)

    def watch(self, lost_after: float | None) -> None:
        """From now on, notice a silence that an exclusive copy with this `lostAfter` (seconds) must not outlive; None: there is none."""
        self._silence = None if lost_after is None else lost_after * _EXCLUSIVE_SHARE

    def check(self) -> float | None:
        """Notice a silence even while no exchange fails, because the network swallows everything. Returns the seconds until the next look,
        or None: when `watch` is called again."""
        silence = self._silence
        if silence is None:
            return None
        self._judge(silence)
        with self._lock:
            if self.online is not True or self.last is None:
                return silence
            return max(0.0, self.last + silence - self.clock.monotonic())

    def _judge(self, patience: float) -> bool:
        now = self.clock.monotonic()
        with self._lock:
            last = self.last
            news = self.online is not False and now - (self._began if last is None else last) >= patience
            if news:
                self.online = False
        if news:
            self._tell(ContactChanged(online=False, last_contact=last))
        return news
