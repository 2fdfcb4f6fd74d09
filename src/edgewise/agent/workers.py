"""Threads that nothing kills: long-lived steppers, and a pool that grows and shrinks."""

import threading
import time
from collections import deque
from collections.abc import Callable

from edgewise.agent.log import Log

_AFTER_A_CRASH_SECONDS = 5.0


class Stepper:
    """A thread that calls `step` again and again; it returns how many seconds to wait, at most, before the next call.

    An exception is logged and followed by a pause. `wake` ends the wait early. `beat` is when the thread was last seen between two steps.
    """

    def __init__(self, name: str, step: Callable[[], float | None], log: Log) -> None:
        self.name = name
        self._step = step
        self._log = log
        self._wake = threading.Event()
        self._stopped = False
        self.beat = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """Step again now, or right after the current step."""
        self._wake.set()

    def stop(self) -> None:
        """End after the current step."""
        self._stopped = True
        self._wake.set()

    def join(self, seconds: float) -> None:
        """Wait for the end."""
        self._thread.join(seconds)

    @property
    def alive(self) -> bool:
        """The thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopped:
            self.beat = time.monotonic()
            self._wake.clear()
            try:
                wait = self._step()
            except Exception as error:  # noqa: BLE001  # nothing may end this thread; what it was is in the log
                self._log.error(f"{self.name}: {type(error).__name__}", error)
                wait = _AFTER_A_CRASH_SECONDS
            self.beat = time.monotonic()
            if wait is None:
                wait = threading.TIMEOUT_MAX
            if wait > 0 and not self._stopped:
                self._wake.wait(wait)


class Pool:
    """Runs tasks on at most `size` threads, which come when there is work and go when there is none: an idle thread costs memory."""

    def __init__(self, name: str, size: int, idle_seconds: float, log: Log) -> None:
        self._name = name
        self._size = size
        self._idle_seconds = idle_seconds
        self._log = log
        self._condition = threading.Condition()
        self._tasks: deque[Callable[[], object]] = deque()
        self._threads = 0
        self._idle = 0

    def submit(self, task: Callable[[], object]) -> None:
        """Run `task` as soon as a thread is free. What it raises is logged."""
        with self._condition:
            self._tasks.append(task)
            if self._idle >= len(self._tasks) or self._threads >= self._size:
                self._condition.notify()
                return
            self._threads += 1
        threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._condition:
                while not self._tasks:
                    self._idle += 1
                    came = self._condition.wait(self._idle_seconds)
                    self._idle -= 1
                    if not came and not self._tasks:
                        self._threads -= 1
                        return
                task = self._tasks.popleft()
            try:
                task()
            except Exception as error:  # noqa: BLE001  # a task's failure is not the pool's
                self._log.error(f"{self._name}: {type(error).__name__}", error)
            del task
