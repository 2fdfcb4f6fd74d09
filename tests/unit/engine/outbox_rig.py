"""An outbox on a disk that forgets, for those who try what becomes of items."""

from edgewise.engine.limits import EngineLimits
from edgewise.engine.outbox import Outbox, open_outbox
from edgewise.twin.disk import RecordingDisk
from edgewise.wire.report import EventReport, Report, ReportAnswer

SMALL = EngineLimits(outbox_segment_bytes=400, outbox_telemetry_bytes_max=2_000, outbox_reserve_numbers=4, outbox_item_bytes_max=600)


def item(number: int, size: int = 0) -> EventReport:
    return EventReport(device="dev", at=1.0, type="Normal", reason="R", message=f"{number}{'x' * size}")


class Tokens:
    def __init__(self) -> None:
        self.count = 0

    def token(self, size: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(size, "big")

    def uniform(self, low: float, high: float) -> float:
        return low


def opened(disk: RecordingDisk, tokens: Tokens | None = None, limits: EngineLimits = SMALL) -> Outbox:
    return open_outbox(disk, tokens or Tokens(), "session", limits)


def answer(**marks: int) -> ReportAnswer:
    return ReportAnswer(marks=marks, time=0.0)  # type: ignore[arg-type]


def numbers(report: Report) -> dict[str, list[int]]:
    return {lane: list(range(items.first, items.first + len(items.items))) for lane, items in report.lanes.items()}


def balanced(outbox: Outbox) -> None:
    for counts in outbox.counts().values():
        assert counts.produced == counts.acknowledged + counts.held + counts.dropped
