"""Memory that was needed for a moment goes back to the system.

A wave of connections leaves holes in the C library's heap: each handshake needs some 30 kB more than the connection that remains, and
another connection's memory lies behind it. The library keeps holes for later; asked to, it gives their pages back, in some tens of
milliseconds.
"""

import ctypes
from typing import Final

_CHANGED_MIN: Final = 500
_STEADY_SHARE: Final = 0.05


class Trimmer:
    """Decides when it is worth it: once after the number of connections changed by hundreds, when it has become steady."""

    def __init__(self) -> None:
        self._seen = 0
        self._trimmed_at = 0

    def due(self, connections: int) -> bool:
        """Tell whether to give memory back now. Call every few seconds."""
        steady = abs(connections - self._seen) <= max(connections, self._seen) * _STEADY_SHARE
        self._seen = connections
        if not steady or abs(connections - self._trimmed_at) < _CHANGED_MIN:
            return False
        self._trimmed_at = connections
        return True


def give_back() -> None:
    """Give free pages of the heap back to the system, where the C library can (glibc; others do it by themselves)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
