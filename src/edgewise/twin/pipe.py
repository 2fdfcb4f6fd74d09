"""A link with a bandwidth that many share."""

import heapq
from collections.abc import Callable

from edgewise.twin.kernel import Kernel, Ticket

__all__ = ["Flow", "Pipe"]


class Flow:
    """A download under way."""

    __slots__ = ("done", "goal", "order", "since")

    def __init__(self, order: int, since: float, goal: float, done: Callable[[], None]) -> None:
        self.order = order
        self.since = since
        self.goal = goal
        self.done: Callable[[], None] | None = done

    def __lt__(self, other: "Flow") -> bool:
        return (self.goal, self.order) < (other.goal, other.order)


class Pipe:
    """A shared link. Messages queue for each direction; downloads share what comes down evenly."""

    __slots__ = ("_due", "_flows", "_free_down", "_free_up", "_kernel", "_order", "_shared", "_ticket", "_updated", "bandwidth")

    def __init__(self, kernel: Kernel, bandwidth: float) -> None:
        self.bandwidth = bandwidth / 8.0
        self._kernel = kernel
        self._free_up = self._free_down = 0.0
        self._flows = 0
        self._due: list[Flow] = []
        self._order = 0
        self._shared = 0.0
        """Bytes that every download under way has had since the pipe was laid."""
        self._updated = 0.0
        self._ticket: Ticket | None = None

    def queue(self, size: int, *, up: bool) -> float:
        """Return the seconds until a message that is sent now has left."""
        now = self._kernel.now
        if up:
            self._free_up = free = max(now, self._free_up) + size / self.bandwidth
        else:
            self._free_down = free = max(now, self._free_down) + size * (1 + self._flows) / self.bandwidth
        return free - now

    def download(self, size: float, done: Callable[[], None]) -> Flow:
        """Begin a download. `done` is called when it is through."""
        self._advance()
        self._order += 1
        flow = Flow(self._order, self._shared, self._shared + size, done)
        self._flows += 1
        heapq.heappush(self._due, flow)
        self._plan()
        return flow

    def stop(self, flow: Flow) -> int:
        """End a download early; return the bytes that came through."""
        if flow.done is None:
            return 0
        self._advance()
        flow.done = None
        self._flows -= 1
        self._plan()
        return int(self._shared - flow.since)

    def _advance(self) -> None:
        now = self._kernel.now
        if self._flows:
            self._shared += (now - self._updated) * self.bandwidth / self._flows
        self._updated = now

    def _plan(self) -> None:
        if self._ticket is not None:
            self._ticket.cancel()
            self._ticket = None
        while self._due and self._due[0].done is None:
            heapq.heappop(self._due)
        if self._due:
            left = max(0.0, self._due[0].goal - self._shared) * self._flows / self.bandwidth
            self._ticket = self._kernel.after(left, self._through)

    def _through(self) -> None:
        self._ticket = None
        self._advance()
        flow = heapq.heappop(self._due)
        self._shared = max(self._shared, flow.goal)  # whatever rounding says, this one is through
        done, flow.done = flow.done, None
        self._flows -= 1
        self._plan()
        if done is not None:
            done()
