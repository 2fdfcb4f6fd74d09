"""When reports are sent: only when there is something to send, and never faster than the control plane wants."""

from typing import Protocol

import msgspec

from edgewise.engine.backoff import Backoff
from edgewise.engine.contact import Failure
from edgewise.engine.limits import LinkLimits
from edgewise.ports.clock import Clock
from edgewise.wire.report import Report, ReportAnswer


class Outlet(Protocol):
    """Where reports come from (the outbox)."""

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        ...

    def next_report(self) -> Report | None:
        """Return what should be sent next; None, or a report without lanes, when there is nothing."""
        ...

    def acknowledge(self, answer: ReportAnswer) -> None:
        """Note that the control plane keeps everything up to these marks."""
        ...


class Wait(msgspec.Struct, frozen=True, gc=False):
    """Nothing may be sent before `seconds` have passed; None: before there is something new."""

    seconds: float | None


class Send(msgspec.Struct, frozen=True, gc=False):
    """This report should be sent now; `answered` or `failed` must follow."""

    report: Report


_IDLE = Wait(None)


class Uplink:
    """Decides; whoever carries it out asks `next`, sends one report at a time, and says what came of it."""

    __slots__ = ("_backoff", "_boot_id", "_clock", "_gathering", "_limits", "_not_before", "_outcast", "_outlet")

    def __init__(self, outlet: Outlet, clock: Clock, backoff: Backoff, limits: LinkLimits, boot_id: str = "") -> None:
        self._outlet = outlet
        self._clock = clock
        self._backoff = backoff
        self._outcast = backoff.patient(limits.refused_backoff_seconds_max)
        self._limits = limits
        self._boot_id = boot_id
        self._not_before = 0.0
        self._gathering = False

    def hurry(self) -> None:
        """Forget the back-off (but not what the control plane asked for): it was just reached again."""
        self._backoff.reset()

    def try_again(self) -> None:
        """Try at once, whatever went wrong before: the device shows a new certificate."""
        self._backoff.reset()
        self._outcast.reset()
        self._not_before = 0.0

    def next(self) -> Send | Wait:
        """Return what to do now."""
        now = self._clock.monotonic()
        wait = self._not_before - now
        if wait > 0:
            return Wait(wait)
        if self._outlet.empty:
            self._gathering = False
            return _IDLE
        if not self._gathering:  # what belongs together often comes within milliseconds: send it together
            self._gathering = True
            self._not_before = now + self._limits.coalesce_seconds
            return Wait(self._limits.coalesce_seconds)
        report = self._outlet.next_report()
        if report is None or not report.lanes:
            self._gathering = False
            return _IDLE
        return Send(msgspec.structs.replace(report, sent_at=self._clock.wall(), monotonic=now, boot_id=self._boot_id))

    def answered(self, answer: ReportAnswer) -> None:
        """Take in the answer to the report that was sent."""
        self._outlet.acknowledge(answer)
        self._backoff.reset()
        self._outcast.reset()

    def failed(self, failure: Failure) -> float:
        """Take in that it was not taken. Returns the seconds until the next try."""
        wait = (self._outcast if failure.distrust else self._backoff).next(failure.retry_after)
        self._not_before = self._clock.monotonic() + wait
        return wait
