"""What the main thread does now and then, in one table."""

from collections.abc import Callable

import msgspec

from edgewise.agent.log import Log

_NEVER = float("inf")


class _Task(msgspec.Struct):
    name: str
    run: Callable[[], float | None]
    due: float


class Schedule:
    """Tasks by name; each returns the seconds until it is due again, or None: when it is asked for."""

    def __init__(self, monotonic: Callable[[], float], log: Log) -> None:
        self._monotonic = monotonic
        self._log = log
        self._tasks: dict[str, _Task] = {}

    def add(self, name: str, run: Callable[[], float | None], after: float | None = 0.0) -> None:
        """Add a task, first due `after` seconds from now; None: when it is asked for."""
        self._tasks[name] = _Task(name, run, _NEVER if after is None else self._monotonic() + after)

    def ask(self, name: str, after: float = 0.0) -> None:
        """Have a task run no later than `after` seconds from now. Safe from any thread, but does not wake the one that waits."""
        task = self._tasks[name]
        task.due = min(task.due, self._monotonic() + after)

    def run_due(self) -> float | None:
        """Run what is due. Returns the seconds until the next, or None."""
        for task in self._tasks.values():
            if task.due > self._monotonic():
                continue
            task.due = _NEVER
            try:
                again = task.run()
            except Exception as error:  # noqa: BLE001  # one task's failure is not the others'
                self._log.error(f"{task.name}: {type(error).__name__}", error)
                again = 60.0
            if again is not None:
                task.due = min(task.due, self._monotonic() + again)
        first = min((task.due for task in self._tasks.values()), default=_NEVER)
        return None if first == _NEVER else max(0.0, first - self._monotonic())
