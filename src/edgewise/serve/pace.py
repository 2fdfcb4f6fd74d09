"""Whether the next inference will be quick: judged by those before it."""

from typing import Final

from edgewise.serve.limits import ServeLimits

_SHARE: Final = 1 / 8
_SLOW: Final = 8.0
_BARRED: Final = 1000
_LARGER: Final = 2


class Pace:
    """What inferences have taken lately, for requests of which size. A moving average; one that took far longer than `inline_seconds_max`
    after it was expected to be quick ends such expectations for the next thousand."""

    def __init__(self, limits: ServeLimits) -> None:
        self._most = limits.inline_seconds_max
        self._seconds = _SLOW * limits.inline_seconds_max
        self._bytes = 0
        self._barred = 0

    def expects_quick(self, body_bytes: int) -> bool:
        """Whether a request of this size will probably be answered within `inline_seconds_max`."""
        return self._seconds < self._most and not self._barred and body_bytes <= _LARGER * self._bytes

    def took(self, body_bytes: int, seconds: float) -> None:
        """Take in what one took, all in all."""
        if seconds > _SLOW * self._most and self._seconds < self._most:
            self._barred = _BARRED
        elif self._barred:
            self._barred -= 1
        self._seconds += _SHARE * (seconds - self._seconds)
        self._bytes = body_bytes if body_bytes > self._bytes else self._bytes - (self._bytes >> 8)
