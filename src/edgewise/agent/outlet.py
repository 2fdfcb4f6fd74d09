"""The outbox between the threads: the loop appends, the uplink sends."""

import threading
from collections.abc import Callable
from typing import Protocol

from edgewise.wire.report import Item, Lane, Report, ReportAnswer


class Box(Protocol):
    """The engine room's outbox; not for several threads."""

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        ...

    def append(self, lane: Lane, item: Item) -> None:
        """Hold an item until it is acknowledged."""
        ...

    def flush(self) -> None:
        """Bring what must be durable to the disk."""
        ...

    def make_room(self) -> bool:
        """Give disk back by dropping the least urgent; return whether that worked."""
        ...

    def next_report(self) -> Report:
        """Return what to send next; without any lane there is nothing."""
        ...

    def acknowledge(self, answer: ReportAnswer) -> None:
        """Forget what the control plane keeps."""
        ...

    def close(self) -> None:
        """End cleanly."""
        ...


class Outlet:
    """An outbox behind a lock. `wake` is called when there is something new to send."""

    def __init__(self, box: Box, wake: Callable[[], None]) -> None:
        self._box = box
        self._wake = wake
        self._lock = threading.Lock()
        self._fresh = False

    def append(self, lane: Lane, item: Item) -> None:
        """Hold an item. It is neither durable nor sent before `flush`."""
        with self._lock:
            self._box.append(lane, item)
            self._fresh = True

    def flush(self) -> None:
        """Make durable what was appended, and have it sent. Cheap when nothing was."""
        with self._lock:
            if not self._fresh:
                return
            self._fresh = False
            self._box.flush()
        self._wake()

    def make_room(self) -> bool:
        """Give disk back to what is more important; return whether that worked."""
        with self._lock:
            return self._box.make_room()

    def next_report(self) -> Report | None:
        """See `uplink.Outlet`."""
        with self._lock:
            report = self._box.next_report()
        return report if report.lanes else None

    def acknowledge(self, answer: ReportAnswer) -> None:
        """See `uplink.Outlet`."""
        with self._lock:
            self._box.acknowledge(answer)

    @property
    def empty(self) -> bool:
        """Whether nothing waits to be sent."""
        with self._lock:
            return self._box.empty

    def close(self) -> None:
        """Make durable what was appended and end. What comes after is lost."""
        with self._lock:
            self._box.flush()
            self._box.close()
