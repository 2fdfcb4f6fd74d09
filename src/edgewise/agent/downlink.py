"""The thread that waits for desired state: one long poll after another. That it is open is the device's heartbeat."""

from collections.abc import Callable

from edgewise.agent.contact import Contact
from edgewise.agent.errors import LinkError, failure_of
from edgewise.agent.gateway import Gateway
from edgewise.agent.limits import LIMITS, AgentLimits
from edgewise.agent.log import Log
from edgewise.engine.backoff import Backoff
from edgewise.engine.downlink import Downlink as Decisions
from edgewise.engine.downlink import superseded
from edgewise.wire.desired import DesiredState, DeviceDesired, Position, StreamRequest


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
        self._contact = contact
        self._log = log
        self._take = take
        self._take_stream = take_stream
        self._on_reached = on_reached
        self._on_distrust = on_distrust
        self._decisions = Decisions(position, backoff, limits, poll_seconds)

    def note(self, document: DeviceDesired) -> None:
        """Learn from a document how long a poll may wait at most."""
        self._contact.watch(self._decisions.note(document))

    @property
    def wait(self) -> float:
        """Seconds that the next poll waits."""
        return self._decisions.wait

    def step(self) -> float:
        """Poll once."""
        try:
            state = self._gateway.desired(self._decisions.position, self._decisions.wait)
        except LinkError as error:
            return self._failed(error)
        self._decisions.answered()
        if state is not None:
            self._adopt(state)
        # After that: an exclusive copy that is to run elsewhere by now must not start again just because there is contact.
        if self._contact.reached(desired=True):
            self._on_reached()
        return 0.0

    def _adopt(self, state: DesiredState) -> None:
        for document in state.devices:
            self.note(document)
            self._take(document)
        self._decisions.position = state.position
        for request in state.streams:
            self._take_stream(request)

    def _failed(self, error: LinkError) -> float:
        failure = failure_of(error)
        if failure.contact:
            self._contact.reached()
        else:
            self._contact.failed()
        if failure.distrust:
            self._on_distrust()
        if not superseded(failure):
            self._log.warning(f"no desired state: {type(error).__name__}", error)
        return self._decisions.failed(failure)
