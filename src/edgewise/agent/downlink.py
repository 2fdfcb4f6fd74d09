"""The thread that waits for desired state: one long poll after another. That it is open is the device's heartbeat."""

from collections.abc import Callable

from edgewise.agent.backoff import Backoff
from edgewise.agent.contact import Contact
from edgewise.agent.errors import LinkError, Refused, is_contact, is_distrust
from edgewise.agent.gateway import Gateway
from edgewise.agent.limits import LIMITS, AgentLimits
from edgewise.agent.log import Log
from edgewise.wire.desired import DesiredState, DeviceDesired, Position, StreamRequest

_SUPERSEDED = 409
_EXCLUSIVE_POLLS = 4
_EXCLUSIVE_POLL_SECONDS_MIN = 1.0
"""An exclusive copy stops when the control plane has been silent for too long, so several polls must fit into that time."""


class Downlink:
    """One `step` is one poll. Returns the seconds until the next. `poll_seconds` is how long a poll waits where nothing asks for less,
    within the limits."""

    def __init__(
        self,
        gateway: Gateway,
        position: Position,
        contact: Contact,
        backoff: Backoff,
        log: Log,
        *,
        poll_seconds: float,
        take: Callable[[DeviceDesired], None],
        take_stream: Callable[[StreamRequest], object],
        on_reached: Callable[[], None] = lambda: None,
        on_distrust: Callable[[], None] = lambda: None,
        limits: AgentLimits = LIMITS,
    ) -> None:
        self._gateway = gateway
        self.position = position
        self._contact = contact
        self._backoff = backoff
        self._outcast = backoff.patient(limits.refused_backoff_seconds_max)
        self._log = log
        self._take = take
        self._take_stream = take_stream
        self._on_reached = on_reached
        self._on_distrust = on_distrust
        self._limits = limits
        self._poll_seconds = max(limits.poll_wait_seconds_min, min(poll_seconds, limits.poll_wait_seconds))
        self._exclusive_seconds: dict[str, float] = {}

    def note(self, document: DeviceDesired) -> None:
        """Learn from a document how long a poll may wait at most."""
        spans = [each.lost_after_seconds for each in document.instances if each.exclusive]
        if spans:
            self._exclusive_seconds[document.device] = min(spans)
        else:
            self._exclusive_seconds.pop(document.device, None)
        self._contact.watch(min(self._exclusive_seconds.values(), default=None))

    @property
    def wait(self) -> float:
        """Seconds that the next poll waits."""
        if not self._exclusive_seconds:
            return self._poll_seconds
        shortest = min(self._exclusive_seconds.values()) / _EXCLUSIVE_POLLS
        return max(_EXCLUSIVE_POLL_SECONDS_MIN, min(shortest, self._poll_seconds))

    def step(self) -> float:
        """Poll once."""
        try:
            state = self._gateway.desired(self.position, self.wait)
        except LinkError as error:
            return self._failed(error)
        self._backoff.reset()
        self._outcast.reset()
        if self._contact.reached():
            self._on_reached()
        if state is not None:
            self._adopt(state)
        return 0.0

    def _adopt(self, state: DesiredState) -> None:
        for document in state.devices:
            self.note(document)
            self._take(document)
        self.position = state.position
        for request in state.streams:
            self._take_stream(request)

    def _failed(self, error: LinkError) -> float:
        if is_contact(error):
            self._contact.reached()
        else:
            self._contact.failed()
        if is_distrust(error):
            self._on_distrust()
        if isinstance(error, Refused) and error.status == _SUPERSEDED:
            # An older connection of this device, or another device that shows the same identity: never hammer.
            return self._backoff.next(self._limits.backoff_first_seconds)
        self._log.warning(f"no desired state: {type(error).__name__}", error)
        backoff = self._outcast if is_distrust(error) else self._backoff
        return backoff.next(error.retry_after or 0.0 if isinstance(error, Refused) else 0.0)
