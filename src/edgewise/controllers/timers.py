"""Deadlines by key: one per key, the earliest first."""

import heapq
from collections.abc import Iterator

TimerKey = tuple[str, ...]


class Timers:
    """A heap of deadlines. Setting a key again replaces its deadline; what the heap still holds of the old one is skipped."""

    __slots__ = ("_due", "_heap")

    def __init__(self) -> None:
        self._due: dict[TimerKey, float] = {}
        self._heap: list[tuple[float, TimerKey]] = []

    def at(self, key: TimerKey, due: float) -> None:
        """Set the deadline of `key`."""
        if self._due.get(key) != due:
            self._due[key] = due
            heapq.heappush(self._heap, (due, key))

    def sooner(self, key: TimerKey, due: float) -> None:
        """Set the deadline of `key` unless it has an earlier one."""
        known = self._due.get(key)
        if known is None or due < known:
            self.at(key, due)

    def drop(self, key: TimerKey) -> None:
        """Forget the deadline of `key`."""
        self._due.pop(key, None)

    def due(self, key: TimerKey) -> float | None:
        """Return the deadline of `key`."""
        return self._due.get(key)

    def pop(self, now: float) -> Iterator[TimerKey]:
        """Yield, and forget, the keys whose deadline has come."""
        while self._heap and self._heap[0][0] <= now:
            due, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                yield key

    def next(self) -> float | None:
        """Return the earliest deadline, or None."""
        while self._heap:
            due, key = self._heap[0]
            if self._due.get(key) == due:
                return due
            heapq.heappop(self._heap)
        return None
