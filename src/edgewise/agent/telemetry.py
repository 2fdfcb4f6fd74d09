"""Telemetry frames: what workloads reported in a window, summarised, one item per window and only when there is something."""

from collections.abc import Callable
from typing import Protocol

from edgewise.ports.clock import Clock
from edgewise.wire.report import FrameReport, Series


class Aggregates(Protocol):
    """Where the summaries come from (the local workload API)."""

    def take(self) -> tuple[Series, ...]:
        """Return what was summed up since the last call, and begin anew."""
        ...


class Telemetry:
    """Makes a frame of each window. Windows are cut by monotonic time; wall times only date them."""

    def __init__(self, device: str, boot_id: str, aggregates: Aggregates, clock: Clock, *, append: Callable[[FrameReport], None]) -> None:
        self._device = device
        self._boot_id = boot_id
        self._aggregates = aggregates
        self._clock = clock
        self._append = append
        self._began = clock.monotonic()

    def cut(self) -> bool:
        """End the window and begin the next. Returns whether there was anything to tell."""
        now, wall = self._clock.monotonic(), self._clock.wall()
        length, self._began = now - self._began, now
        series = self._aggregates.take()
        if not series:
            return False
        frame = FrameReport(device=self._device, boot_id=self._boot_id, start=wall - length, end=wall, monotonic=now, series=series)
        self._append(frame)
        return True
