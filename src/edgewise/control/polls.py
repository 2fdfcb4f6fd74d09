"""Open polls: who waits for a change of its desired state, and until when.

One future per poll and one coarse wheel for all deadlines: ten thousand polls are ten thousand futures and no timers. The newest poll of an
agent wins; only the agents whose documents changed are woken.
"""

import asyncio
from collections import deque
from enum import Enum, auto
from typing import Final

_SLOT_SECONDS: Final = 0.5


class Woken(Enum):
    """Why a poll ended."""

    CHANGED = auto()
    EXPIRED = auto()
    SUPERSEDED = auto()
    CLOSED = auto()


class Polls:
    """All open polls. Belongs to one event loop; call `tick` about twice a second."""

    def __init__(self) -> None:
        self._open: dict[str, asyncio.Future[Woken]] = {}
        self._wheel: deque[set[str]] = deque()
        self._wheel_start = 0.0
        self._slots: dict[str, set[str]] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._open)

    def open(self, agent: str, wait: float, now: float) -> asyncio.Future[Woken]:
        """Begin a poll of `agent` that ends by itself within `wait` seconds (rounded up to half a second). An older one ends as
        `SUPERSEDED`."""
        self._finish(agent, Woken.SUPERSEDED)
        future: asyncio.Future[Woken] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_result(Woken.CLOSED)
            return future
        self._open[agent] = future
        slot = self._slot(now + wait, now)
        slot.add(agent)
        self._slots[agent] = slot
        return future

    def close_poll(self, agent: str, future: asyncio.Future[Woken]) -> None:
        """Forget a poll whose connection has gone; nothing happens when a newer one took its place."""
        if self._open.get(agent) is future:
            self._finish(agent, Woken.CLOSED)

    def wake(self, agent: str) -> bool:
        """End the poll of `agent` as `CHANGED`; return whether there was one."""
        return self._finish(agent, Woken.CHANGED)

    def end(self, agent: str) -> bool:
        """End the poll of an agent that may no longer wait; return whether there was one."""
        return self._finish(agent, Woken.CLOSED)

    def is_open(self, agent: str) -> bool:
        """Tell whether `agent` has a poll open."""
        return agent in self._open

    def tick(self, now: float) -> None:
        """End the polls whose time is over."""
        while self._wheel and self._wheel_start <= now:
            for agent in self._wheel.popleft().copy():
                self._finish(agent, Woken.EXPIRED)
            self._wheel_start += _SLOT_SECONDS
        if not self._wheel:
            self._wheel_start = now

    def close(self) -> None:
        """End all polls and take no more."""
        self._closed = True
        for agent in tuple(self._open):
            self._finish(agent, Woken.CLOSED)

    def _finish(self, agent: str, why: Woken) -> bool:
        future = self._open.pop(agent, None)
        if future is None:
            return False
        self._slots.pop(agent).discard(agent)
        if not future.done():
            future.set_result(why)
        return True

    def _slot(self, until: float, now: float) -> set[str]:
        if not self._wheel:
            self._wheel_start = now
        index = max(0, int((until - self._wheel_start) / _SLOT_SECONDS) + 1)
        while len(self._wheel) <= index:
            self._wheel.append(set())
        return self._wheel[index]
