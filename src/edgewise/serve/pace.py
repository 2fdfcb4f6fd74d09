"""Whether the next inference will be quick: judged by those before it."""

from typing import Final

from edgewise.serve.limits import ServeLimits

_SHARE: Final = 1 / 8
_SLOW: Final = 8.0
_BARRED: Final = 1000
_LARGER: Final = 2
_SHARED_SECONDS: Final = 1.0


class Pace:
    """What inferences have taken lately, for requests of which size: a moving average. One that took far longer than expected ends such
    expectations for the next thousand. While several connections ask, less is quick: those that wait for the inference thread can be
    answered together."""

    def __init__(self, limits: ServeLimits) -> None:
        self._limits = limits
        self._seconds = _SLOW * limits.inline_seconds_max
        self._bytes = 0
        self._barred = 0
        self._last = 0
        self._shared_until = 0.0

    def expects_quick(self, connection: int, body_bytes: int, now: float) -> bool:
        """Whether a request of this size on this connection will probably be answered so soon that it need not be handed over."""
        if connection != self._last:
            self._last, self._shared_until = connection, now + _SHARED_SECONDS
        most = self._limits.inline_shared_seconds_max if now < self._shared_until else self._limits.inline_seconds_max
        return self._seconds < most and not self._barred and body_bytes <= _LARGER * self._bytes

    def took(self, body_bytes: int, seconds: float) -> None:
        """Take in what one took, all in all."""
        most = self._limits.inline_seconds_max
        if seconds > _SLOW * most and self._seconds < most:
            self._barred = _BARRED
        elif self._barred:
            self._barred -= 1
        self._seconds += _SHARE * (seconds - self._seconds)
        self._bytes = body_bytes if body_bytes > self._bytes else self._bytes - (self._bytes >> 8)
