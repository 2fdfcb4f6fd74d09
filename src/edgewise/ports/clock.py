"""Time as a port. Wall time may jump; monotonic time may not, and counts from the boot."""

import time
from typing import Protocol


class Clock(Protocol):
    """Where the time comes from."""

    def wall(self) -> float:
        """Seconds since the Unix epoch, UTC. May be wrong by years."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment before the process started. Never goes back."""
        ...


class SystemClock:
    """The machine's own clocks. Monotonic time counts through suspend."""

    def wall(self) -> float:
        """See `Clock.wall`."""
        return time.time()

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)
