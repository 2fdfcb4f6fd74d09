"""The connections to the control plane, put together: uplink, downlink, log streams, and the identity that they show."""

from collections.abc import Callable

import msgspec

from edgewise.agent.config import TimeFloor
from edgewise.agent.contact import Contact
from edgewise.agent.downlink import Downlink
from edgewise.agent.gateway import Gateway
from edgewise.agent.http import Client, Endpoint
from edgewise.agent.limits import AgentLimits
from edgewise.agent.log import Log
from edgewise.agent.streams import Streams
from edgewise.agent.uplink import Uplink
from edgewise.agent.workers import Stepper
from edgewise.engine.backoff import Backoff
from edgewise.engine.protocol import ContactChanged
from edgewise.engine.uplink import Outlet
from edgewise.ports.clock import Clock
from edgewise.ports.randomness import Randomness
from edgewise.wire.desired import DeviceDesired, Position


class LinkParts(msgspec.Struct, frozen=True, kw_only=True):
    """What the links need. `endpoint` is called again after a renewal; `distrust` when the control plane turns the identity down."""

    data_folder: str
    poll_seconds: float
    boot_id: str
    session: str
    clock: Clock
    randomness: Randomness
    log: Log
    limits: AgentLimits
    floor: TimeFloor
    outlet: Outlet
    endpoint: Callable[[], Endpoint]
    contact: Callable[[ContactChanged], None]
    take: Callable[[DeviceDesired], None]
    distrust: Callable[[], None]


class Links:
    """Both link threads and the streams."""

    def __init__(self, parts: LinkParts, position: Position) -> None:
        self._parts = parts
        limits, log = parts.limits, parts.log
        self._endpoint = parts.endpoint()
        self.contact = Contact(parts.clock, parts.contact, limits.offline_after_seconds)
        self.streams = Streams(parts.data_folder, self._gateway, log, limits)
        self._up_gateway, self._down_gateway = self._gateway(), self._gateway()
        self._uplink = Uplink(
            self._up_gateway,
            parts.outlet,
            self.contact,
            self._backoff(),
            log,
            clock=parts.clock,
            boot_id=parts.boot_id,
            on_time=self._learn_time,
            on_distrust=parts.distrust,
            limits=limits,
        )
        self.downlink = Downlink(
            self._down_gateway,
            position,
            self.contact,
            self._backoff(),
            log,
            poll_seconds=parts.poll_seconds,
            take=parts.take,
            take_stream=self.streams.take,
            on_reached=self._reached,
            on_distrust=parts.distrust,
            limits=limits,
        )
        self._up = Stepper("uplink", self._uplink.step, log)
        self._down = Stepper("downlink", self.downlink.step, log)

    def start(self) -> None:
        """Begin to send and to poll."""
        self._up.start()
        self._down.start()

    def wake_uplink(self) -> None:
        """There is something to send."""
        self._up.wake()

    def renew_endpoint(self) -> None:
        """From the next exchange on, show the new certificate."""
        self._endpoint = self._parts.endpoint()
        for gateway in (self._up_gateway, self._down_gateway):
            gateway.client.use(self._endpoint)
        self._uplink.try_again()
        self._up.wake()
        self._down.wake()

    def stop(self, seconds: float) -> None:
        """Break everything off and wait a little for the threads."""
        self.streams.close()
        for stepper, gateway in ((self._up, self._up_gateway), (self._down, self._down_gateway)):
            stepper.stop()
            gateway.client.abort()
        for stepper in (self._up, self._down):
            stepper.join(seconds)

    def _gateway(self) -> Gateway:
        client = Client(self._endpoint, self._parts.floor.now, self._parts.limits)
        return Gateway(client, self._parts.limits, self._parts.session)

    def _backoff(self) -> Backoff:
        return Backoff(self._parts.randomness, self._parts.limits.backoff_first_seconds, self._parts.limits.backoff_seconds_max)

    def _reached(self) -> None:
        self._uplink.hurry()
        self._up.wake()

    def _learn_time(self, time: float) -> None:
        self._parts.floor.learn(time, self._up_gateway.client.validity[1])
