"""Whether the control plane can be reached, as both link threads see it."""

import threading
from collections.abc import Callable

from edgewise.engine.protocol import ContactChanged
from edgewise.ports.clock import Clock

_REFRESH_SECONDS = 5.0


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
        self.last = clock.monotonic()
        """When the control plane last answered, or the agent started; monotonic."""

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
        now = self.clock.monotonic()
        with self._lock:
            news = self.online is not False and now - self.last >= self._offline_after
            if news:
                self.online = False
            last = self.last
        if news:
            self._tell(ContactChanged(online=False, last_contact=last))
        return news
