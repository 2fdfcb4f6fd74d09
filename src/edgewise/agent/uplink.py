"""The thread that sends reports: only when there is something to send, and never faster than the control plane wants."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from edgewise.agent.backoff import Backoff
from edgewise.agent.contact import Contact
from edgewise.agent.errors import LinkError, Refused, is_contact, is_distrust
from edgewise.agent.gateway import Gateway
from edgewise.agent.limits import LIMITS, AgentLimits
from edgewise.agent.log import Log
from edgewise.wire.report import Report, ReportAnswer


class Outlet(Protocol):
    """Where reports come from (the outbox behind its lock)."""

    def next_report(self) -> Report | None:
        """Return what should be sent next, or None."""
        ...

    def acknowledge(self, answer: ReportAnswer) -> None:
        """Note that the control plane keeps everything up to these marks."""
        ...


class Uplink:
    """One `step` sends at most one report. Returns the seconds until the next is due, or None: when there is something new."""

    def __init__(
        self,
        gateway: Gateway,
        outlet: Outlet,
        contact: Contact,
        backoff: Backoff,
        log: Log,
        *,
        boot_id: str = "",
        on_time: Callable[[float], None] = lambda _time: None,
        on_distrust: Callable[[], None] = lambda: None,
        limits: AgentLimits = LIMITS,
    ) -> None:
        self._gateway = gateway
        self._outlet = outlet
        self._contact = contact
        self._backoff = backoff
        self._outcast = backoff.patient(limits.refused_backoff_seconds_max)
        self._log = log
        self._on_time = on_time
        self._on_distrust = on_distrust
        self._limits = limits
        self._not_before = 0.0
        self._gathering = False
        self._monotonic = contact.clock.monotonic
        self._wall = contact.clock.wall
        self._boot_id = boot_id

    def hurry(self) -> None:
        """Forget the back-off (but not what the control plane asked for): it was just reached again."""
        self._backoff.reset()

    def try_again(self) -> None:
        """Try at the next step, whatever went wrong before: the device shows a new certificate."""
        self._backoff.reset()
        self._outcast.reset()
        self._not_before = 0.0

    def step(self) -> float | None:
        """Send one report if one is due."""
        wait = self._not_before - self._monotonic()
        if wait > 0:
            return wait
        report = self._outlet.next_report()
        if report is None:
            self._gathering = False
            return self._rest()
        if not self._gathering:  # what belongs together often comes within milliseconds: send it together
            self._gathering = True
            self._not_before = self._monotonic() + self._limits.coalesce_seconds
            return self._limits.coalesce_seconds
        try:
            answer = self._gateway.report(self._stamped(report))
        except LinkError as error:
            return self._failed(error)
        self._outlet.acknowledge(answer)
        self._backoff.reset()
        self._outcast.reset()
        self._contact.reached()
        self._on_time(answer.time)
        return 0.0

    def _stamped(self, report: Report) -> Report:
        """Say what time it is here as it is sent."""
        return msgspec.structs.replace(report, sent_at=self._wall(), monotonic=self._monotonic(), boot_id=self._boot_id)

    def _rest(self) -> float | None:
        idle = self._gateway.client.idle_for()
        if idle == 0.0:
            return None
        left = self._limits.idle_connection_seconds - idle
        if left > 0:
            return left
        self._gateway.client.close()  # the downlink shows that the device is there; this one is only opened when needed
        return None

    def _failed(self, error: LinkError) -> float:
        at_least = 0.0
        if is_contact(error):
            self._contact.reached()
        else:
            self._contact.failed()
        if isinstance(error, Refused):
            at_least = error.retry_after or 0.0
        if is_distrust(error):
            self._on_distrust()
        wait = (self._outcast if is_distrust(error) else self._backoff).next(at_least)
        self._not_before = self._monotonic() + wait
        self._log.warning(f"report not taken: {type(error).__name__}", error)
        return wait
