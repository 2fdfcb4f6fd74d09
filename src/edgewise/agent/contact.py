"""Whether the control plane can be reached, as both link threads see it."""

import threading
from collections.abc import Callable

from edgewise.engine.contact import Contact as Judge
from edgewise.engine.protocol import ContactChanged
from edgewise.ports.clock import Clock


class Contact:
    """`engine.contact` for several threads; `tell` hears what the engine should."""

    def __init__(self, clock: Clock, tell: Callable[[ContactChanged], None], offline_after: float) -> None:
        self._clock = clock
        self._tell = tell
        self._lock = threading.Lock()
        self._judge = Judge(clock.monotonic(), offline_after)

    @property
    def online(self) -> bool | None:
        """See `engine.contact.Contact.online`."""
        return self._judge.online

    @property
    def last(self) -> float | None:
        """See `engine.contact.Contact.last`."""
        return self._judge.last

    def reached(self, *, desired: bool = False) -> bool:
        """Note that the control plane answered just now; `desired`: it also said what should run. Returns whether that is news."""
        with self._lock:
            news = self._judge.online is not True
            told = self._judge.reached(self._clock.monotonic(), desired=desired)
        self._say(told)
        return news

    def failed(self) -> bool:
        """Note that an exchange failed just now. Returns whether the device counts as offline from now on."""
        with self._lock:
            told = self._judge.failed(self._clock.monotonic())
        return self._say(told)

    def watch(self, lost_after: float | None) -> None:
        """See `engine.contact.Contact.watch`."""
        with self._lock:
            self._judge.watch(lost_after)

    def check(self) -> float | None:
        """Notice a silence. Returns the seconds until the next look, or None: when `watch` is called again."""
        with self._lock:
            now = self._clock.monotonic()
            told, again = self._judge.check(now), self._judge.due_in(now)
        self._say(told)
        return again

    def _say(self, told: ContactChanged | None) -> bool:
        if told is not None:
            self._tell(told)
        return told is not None
