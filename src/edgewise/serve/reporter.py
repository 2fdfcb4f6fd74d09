"""Tells the agent what was measured, from a thread of its own: every few seconds, and once more at the end."""

import os
import sys
import threading
from typing import Final

import msgspec

from edgewise import workload
from edgewise.serve.limits import ServeLimits
from edgewise.serve.measurements import Told
from edgewise.serve.observer import Observer

_POINTS_MAX: Final = 120


class Reporter:
    """Does nothing in a process that no agent started. What the agent does not take is told the next time."""

    def __init__(self, observer: Observer, limits: ServeLimits) -> None:
        self._observer = observer
        self._limits = limits
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgewise-reporter", daemon=True)
        self._complained = ""

    def start(self) -> None:
        """Begin to tell."""
        if os.environ.get("EDGEWISE_API"):
            self._thread.start()

    def stop(self) -> None:
        """Tell what is left, if the agent takes it within a second."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def tell(self, *, sketches: bool) -> None:
        """Tell everything that was measured since the last time."""
        points = self._observer.take(sketches=sketches)
        for at in range(0, len(points), _POINTS_MAX):
            self._send(points[at : at + _POINTS_MAX])

    def _send(self, points: list[Told]) -> None:
        try:
            refused = workload.summaries([msgspec.to_builtins(point) for point in points])
        except workload.Unavailable:
            self._observer.put_back(points)
        except workload.WorkloadError as error:
            self._observer.put_back(points)
            self._complain(str(error))
        else:
            self._observer.put_back([points[index] for index in refused if 0 <= index < len(points)])

    def _run(self) -> None:
        every = max(1, round(self._limits.sketch_seconds / self._limits.tell_seconds))
        turn = 0
        while not self._ending.wait(self._limits.tell_seconds):
            turn += 1
            self.tell(sketches=turn % every == 0)
        self.tell(sketches=True)

    def _complain(self, message: str) -> None:
        # Once: an agent that does not know summaries would fill the log with it.
        if message != self._complained:
            self._complained = message
            sys.stderr.write(f"edgewise.serve: the agent does not take what was measured: {message}\n")
