"""Who was heard when: in memory, changed by every request, read by the liveness decisions."""


class Presence:
    """Last contact of agents in wall-clock seconds, and who has a poll open: an open poll is the heartbeat. Deadlines count from the
    later of the last contact and the control plane's own start."""

    __slots__ = ("_contact", "_polls", "returned", "started_at", "watched")

    def __init__(self, started_at: float) -> None:
        self.started_at = started_at
        self._contact: dict[str, float] = {}
        self._polls: dict[str, int] = {}
        self.returned: set[str] = set()
        """Agents heard of whose devices are not Online in the documents yet."""
        self.watched: dict[str, float] = {}
        """Agents that were heard since the start, by when to look at them again; kept by the liveness decisions."""

    def contact(self, agent: str, now: float) -> None:
        """An authenticated request of `agent` came."""
        self._contact[agent] = now

    def opened(self, agent: str, now: float) -> None:
        """A poll of `agent` waits."""
        self._contact[agent] = now
        self._polls[agent] = self._polls.get(agent, 0) + 1

    def closed(self, agent: str, now: float) -> None:
        """A poll of `agent` ended, answered or broken."""
        left = self._polls.get(agent, 0) - 1
        if left > 0:
            self._polls[agent] = left
        else:
            self._polls.pop(agent, None)
        self._contact[agent] = now

    def polling(self, agent: str) -> bool:
        """Whether a poll of `agent` waits."""
        return agent in self._polls

    def heard(self, agent: str) -> float | None:
        """Return when `agent` was last heard since the control plane's start, or None."""
        return self._contact.get(agent)

    def last(self, agent: str, seen_before: float = 0.0) -> float:
        """Return the time that deadlines count from."""
        return max(self._contact.get(agent, 0.0), seen_before, self.started_at)
