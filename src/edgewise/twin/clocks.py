"""A device's own clocks: the monotonic one starts anew with each boot, the wall clock may be wrong, and both run a little fast or slow."""

from typing import Final

from edgewise.twin.kernel import EPOCH, Kernel

_AHEAD: Final = 1e-6
"""Added to when a device wakes, so that rounding never wakes it before its time."""


class DeviceClock:
    """A `ports.Clock` over the kernel's time. `skew` is how far the wall clock is ahead of the true one when the run begins (seconds)."""

    __slots__ = ("_booted_at", "_kernel", "_rate", "_skew")

    def __init__(self, kernel: Kernel, drift_ppm: float = 0.0, skew: float = 0.0) -> None:
        self._kernel = kernel
        self._rate = 1.0 + drift_ppm * 1e-6
        self._skew = skew
        self._booted_at = 0.0

    def wall(self) -> float:
        """See `Clock.wall`."""
        return EPOCH + self._kernel.now * self._rate + self._skew

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return (self._kernel.now - self._booted_at) * self._rate

    def when(self, monotonic: float) -> float:
        """Return the kernel's time at which `monotonic` is past."""
        return self._booted_at + monotonic / self._rate + _AHEAD

    def boot(self) -> None:
        """Begin to count anew."""
        self._booted_at = self._kernel.now

    def shift(self, seconds: float) -> None:
        """Let the wall clock jump."""
        self._skew += seconds

    def reset(self) -> None:
        """Set the wall clock to 1970."""
        self._skew -= self.wall()

    def correct(self) -> None:
        """Set the wall clock right."""
        self._skew -= self.wall() - self._kernel.wall
