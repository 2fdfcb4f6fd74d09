"""Telemetry frames: what workloads reported in a window, summarised. Raw samples never pass through the engine."""

from edgewise.agent.aggregate import Window
from edgewise.wire.report import FrameReport, Series

DROPPED_METRIC = "edgewise.metrics.dropped"


def frame(window: Window, device: str, boot_id: str) -> FrameReport:
    """Return a window as what goes on the telemetry lane. Values that had to be dropped are told as a counter of the device's own."""
    series = window.series
    if window.dropped:
        count = float(window.dropped)
        lost = Series(
            name=DROPPED_METRIC,
            unit="1",
            type="counter",
            instance="",
            revision="",
            count=1,
            sum=count,
            sum_squares=count * count,
            min=count,
            max=count,
            last=count,
        )
        series = (*series, lost)
    return FrameReport(device=device, boot_id=boot_id, start=window.start, end=window.end, monotonic=window.monotonic, series=series)
