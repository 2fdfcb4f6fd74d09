"""The agent process: one of two versions, started again when it ends, given up when a new one does not work.

`supervisor/agents.json` holds `current` and `previous` once the agent was replaced by another version; until then the command line says
what to run. `base` is that command line: when it is another one at the next start, a person has installed another agent, and the file is
void.

A new version is on trial until it reports healthy. It is given up for the previous one when it has not done so within
`agent_healthy_seconds_max`, has exited `agent_trial_exits_max` times, or the supervisor itself had to start `agent_trial_starts_max` times
with it (it may take the whole device down).
"""

import os

from edgewise.supervisor.children import Child, Children
from edgewise.supervisor.files import read_object, replace_object
from edgewise.supervisor.limits import SupervisorLimits
from edgewise.supervisor.loop import Loop, Timer, say
from edgewise.supervisor.spawn import Order, SpawnFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FILE = "supervisor/agents.json"


class AgentVersion:
    """One version of the agent. `starts` counts the supervisor's starts with it while it is on trial."""

    __slots__ = ("argv", "healthy", "starts", "version")

    def __init__(self, argv: "list[str]", version: str, *, healthy: bool, starts: int = 0) -> None:
        self.argv = argv
        self.version = version
        self.healthy = healthy
        self.starts = starts

    def kept(self) -> "dict[str, object]":
        """Return it as it stands in the file."""
        return {"argv": self.argv, "version": self.version, "healthy": self.healthy, "starts": self.starts}


class AgentKeeper:
    """Keeps the agent running, in the working folder `folder`. States: `none` (nothing to run), `running`, `waiting` (for its next start),
    `stopping`, `stopped`."""

    def __init__(self, loop: Loop, limits: SupervisorLimits, children: Children, *, base: "list[str]", folder: str) -> None:
        self._loop = loop
        self._limits = limits
        self._children = children
        self._base = base
        self._folder = folder
        self._child: Child | None = None
        self._timer: Timer | None = None
        self._trial_timer: Timer | None = None
        self._steady_timer: Timer | None = None
        self._exits = 0
        self._waiting: list[Callable[[], None]] = []
        self._current, self._previous, self.gave_up = self._read()
        self.starts = 0
        self._replacing = False
        self.state = "stopped" if self._current is not None else "none"
        self.healthy = False

    @property
    def pid(self) -> int:
        """The agent's process, 0 when there is none."""
        return 0 if self._child is None else self._child.pid

    @property
    def version(self) -> str:
        """The name of the current version; empty for the one of the command line."""
        return "" if self._current is None else self._current.version

    def begin(self) -> None:
        """Start the agent for the first time in this supervisor's life."""
        current = self._current
        if current is not None and not current.healthy and self._previous is not None:
            current.starts += 1
            if current.starts > self._limits.agent_trial_starts_max:
                self._fall_back("the supervisor had to start too often with it")
                return
            self._keep()
        self.start()

    def start(self) -> None:
        """Start the agent if it does not run."""
        if self._current is None or self.state in ("running", "stopping"):
            return
        self._loop.cancel(self._timer)
        self.state = "running"
        self.healthy = False
        self.starts += 1
        try:
            order = Order(self._current.argv, dict(os.environ), self._folder)
            self._child = self._children.start(order, f"agent-{os.urandom(8).hex()}", self._ended)
        except (SpawnFailed, OSError) as error:
            say(f"the agent cannot be started: {error}")
            self._child = None
            self._ended(127)
            return
        self._loop.cancel(self._steady_timer)
        self._steady_timer = self._loop.later(self._limits.agent_steady_seconds, self._steady)
        self._watch_trial()

    def stop(self, done: "Callable[[], None] | None" = None) -> None:
        """End the agent and do not start it again; `done()` when it has ended."""
        self._loop.cancel(self._timer)
        self._loop.cancel(self._trial_timer)
        if self._child is None:
            self.state = "stopped" if self._current is not None else "none"
            if done is not None:
                done()
            return
        if done is not None:
            self._waiting.append(done)
        if self.state != "stopping":
            self.state = "stopping"
            self._children.stop(self._child, self._limits.agent_grace_seconds)

    def report_healthy(self) -> None:
        """Take the word of the running agent that it works. The word of one that is being replaced is not believed."""
        if self._replacing or self._child is None:
            return
        self.healthy = True
        self._loop.cancel(self._trial_timer)
        if self._current is not None and not self._current.healthy:
            self._current.healthy = True
            say(f"agent {self._current.version} reported healthy and is kept")
            self._keep()

    def replace(self, argv: "list[str]", version: str) -> None:
        """Run another version from now on, on trial. The present one is the one to fall back to, unless it is on trial itself. Raises
        `OSError` when that cannot be written down; then nothing changes."""
        before = self._current, self._previous, self.gave_up
        if self._current is not None and self._current.healthy:
            self._previous = self._current
        self._current = AgentVersion(argv, version, healthy=False, starts=1)
        self.gave_up = ""
        try:
            self._write()
        except OSError:
            self._current, self._previous, self.gave_up = before
            raise
        self._exits = 0
        self._restart()

    def _restart(self) -> None:
        self._loop.cancel(self._trial_timer)
        self.healthy = False
        if self._child is None:
            self.start()
        else:
            self._replacing = True
            self._children.stop(self._child, self._limits.agent_grace_seconds)

    def _watch_trial(self) -> None:
        current = self._current
        on_trial = current is not None and not current.healthy and self._previous is not None
        if on_trial and self._exits:
            return  # the time counts from the first start of the trial
        self._loop.cancel(self._trial_timer)
        if on_trial:
            seconds = self._limits.agent_healthy_seconds_max
            self._trial_timer = self._loop.later(seconds, lambda: self._fall_back(f"it did not report healthy within {seconds:g} s"))

    def _fall_back(self, reason: str) -> None:
        current, previous = self._current, self._previous
        if current is None or previous is None:
            return
        say(f"agent {current.version} is given up: {reason}; back to {previous.version or 'the previous one'}")
        self._current, self._previous, self.gave_up = previous, None, current.version
        self._exits = 0
        self._keep()
        self._restart()

    def _ended(self, code: int) -> None:
        self._child = None
        self.healthy = False
        self._loop.cancel(self._steady_timer)
        if self.state == "stopping":
            self.state = "stopped"
            self._replacing = False
            waiting, self._waiting = self._waiting, []
            for done in waiting:
                done()
            return
        if self._replacing:
            self._replacing = False
            self.state = "waiting"
            self.start()
            return
        self._exits += 1
        self.state = "waiting"
        current = self._current
        if current is not None and not current.healthy and self._previous is not None and self._exits >= self._limits.agent_trial_exits_max:
            self._fall_back(f"it ended {self._exits} times before it reported healthy")
            return
        seconds = min(self._limits.agent_backoff_seconds_max, self._limits.agent_backoff_seconds_first * 2 ** min(self._exits - 1, 20))
        say(f"the agent ended with {code}; started again in {seconds:g} s")
        self._timer = self._loop.later(seconds, self.start)

    def _steady(self) -> None:
        self._exits = 0

    def _keep(self) -> None:
        try:
            self._write()
        except OSError as error:
            say(f"the agent's versions could not be written down: {error}")

    def _write(self) -> None:
        kept: dict[str, object] = {"version": 1, "base": self._base, "gave_up": self.gave_up}
        kept["current"] = None if self._current is None else self._current.kept()
        kept["previous"] = None if self._previous is None else self._previous.kept()
        replace_object(FILE, kept)

    def _read(self) -> "tuple[AgentVersion | None, AgentVersion | None, str]":
        kept = read_object(FILE)
        base = AgentVersion(self._base, "", healthy=True) if self._base else None
        current = _version(kept.get("current"))
        if current is None or (self._base and kept.get("base") != self._base):
            return base, None, ""
        gave_up = kept.get("gave_up")
        return current, _version(kept.get("previous")), gave_up if isinstance(gave_up, str) else ""


def _version(kept: object) -> "AgentVersion | None":
    if not isinstance(kept, dict):
        return None
    argv, version, healthy, starts = kept.get("argv"), kept.get("version"), kept.get("healthy"), kept.get("starts")
    if not isinstance(argv, list) or not argv or not all(isinstance(part, str) for part in argv) or not isinstance(version, str):
        return None
    return AgentVersion(argv, version, healthy=healthy is True, starts=starts if isinstance(starts, int) else 0)
