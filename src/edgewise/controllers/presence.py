"""Who was heard when: in memory, changed by every request, read by the liveness decisions."""


class Presence:
    """Last contact of agents in wall-clock seconds, and who has a poll open: an open poll is the heartbeat. Deadlines count from the
    later of the last contact and the control plane's own start."""

    __slots__ = (
        "_contact",
        "_polls",
        "_spoke",
        "asked",
        "parked",
        "phase",
        "returned",
        "silent",
        "started_at",
        "unheard",
        "watched",
        "welcomed",
    )

    def __init__(self, started_at: float) -> None:
        self.started_at = started_at
        self._contact: dict[str, float] = {}
        self._polls: dict[str, int] = {}
        self._spoke: dict[str, float] = {}
        self.asked: set[str] = set()
        """Agents whose polls are to be ended, so that they show that they are there by polling again."""
        self.returned: set[str] = set()
        """Agents heard of whose devices are not Online in the documents yet."""
        self.welcomed: set[str] = set()
        """Devices that their own reports made Online, which nobody was told yet."""
        self.watched: set[str] = set()
        """Agents that were heard and are not silent; they have a deadline. Kept by the liveness decisions."""
        self.silent: set[str] = set()
        """Agents whose deadline passed and whose devices are not Offline in the documents yet."""
        self.parked: set[str] = set()
        """Agents among the watched that have none, because they poll: they get one when the poll ends."""
        self.phase = 0
        """After the start: 0 all is well yet, 1 those not heard of are AwaitingReconnect, 2 they are Offline."""
        self.unheard: set[str] = set()
        """Devices that are to be called so in this phase, and are not yet in the documents."""

    def contact(self, agent: str, now: float) -> None:
        """Note that an authenticated request of `agent` came."""
        self._contact[agent] = self._spoke[agent] = now

    def opened(self, agent: str, now: float) -> None:
        """Note that a poll of `agent` waits."""
        self._contact[agent] = self._spoke[agent] = now
        self._polls[agent] = self._polls.get(agent, 0) + 1

    def closed(self, agent: str, now: float) -> None:
        """Note that a poll of `agent` ended, answered or broken."""
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

    def spoke(self, agent: str) -> float:
        """Return when `agent` last sent a request since the control plane's start, or 0. A poll that is open still, or ended here, says
        nothing of whether somebody waits for its answer."""
        return self._spoke.get(agent, 0.0)

    def last(self, agent: str, seen_before: float = 0.0) -> float:
        """Return the time that deadlines count from."""
        return max(self._contact.get(agent, 0.0), seen_before, self.started_at)
