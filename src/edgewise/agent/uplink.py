"""The thread that sends reports. When, and what a failure means, is decided in `engine.uplink`."""

from collections.abc import Callable

from edgewise.agent.contact import Contact
from edgewise.agent.errors import LinkError, failure_of
from edgewise.agent.gateway import Gateway
from edgewise.agent.limits import LIMITS, AgentLimits
from edgewise.agent.log import Log
from edgewise.engine.backoff import Backoff
from edgewise.engine.uplink import Outlet, Wait
from edgewise.engine.uplink import Uplink as Decisions
from edgewise.ports.clock import Clock


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
        clock: Clock,
        boot_id: str = "",
        on_time: Callable[[float], None] = lambda _time: None,
        on_distrust: Callable[[], None] = lambda: None,
        limits: AgentLimits = LIMITS,
    ) -> None:
        self._gateway = gateway
        self._contact = contact
        self._log = log
        self._on_time = on_time
        self._on_distrust = on_distrust
        self._limits = limits
        self._decisions = Decisions(outlet, clock, backoff, limits, boot_id)
        self.hurry = self._decisions.hurry
        self.try_again = self._decisions.try_again

    def step(self) -> float | None:
        """Send one report if one is due."""
        next_ = self._decisions.next()
        if isinstance(next_, Wait):
            return self._rest() if next_.seconds is None else next_.seconds
        try:
            answer = self._gateway.report(next_.report)
        except LinkError as error:
            return self._failed(error)
        self._decisions.answered(answer)
        self._contact.reached()
        self._on_time(answer.time)
        return 0.0

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
        failure = failure_of(error)
        if failure.contact:
            self._contact.reached()
        else:
            self._contact.failed()
        if failure.distrust:
            self._on_distrust()
        self._log.warning(f"report not taken: {type(error).__name__}", error)
        return self._decisions.failed(failure)
