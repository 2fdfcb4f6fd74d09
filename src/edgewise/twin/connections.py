"""One request and its answer between a device and the control plane: what is on the way, what hangs, what both ends notice and when."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from edgewise.twin.kernel import Ticket
from edgewise.twin.link import Answered, Broken, Outcome, Request
from edgewise.twin.pipe import Flow, Pipe

if TYPE_CHECKING:
    from edgewise.twin.network import DeviceLink, Network

__all__ = ["LIMITS", "Caller", "Connection", "NetworkLimits", "Server"]


class NetworkLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How connections behave; seconds and bytes. The time-outs are those of the agent (`AgentLimits`) and of the control plane's
    keepalive (`ControlLimits`).

    A connection that was used within `idle_seconds` is still open; a new one is given up after `connect_seconds`, an exchange after
    `read_seconds` (for a poll, in addition to its wait). A silent connection is noticed by the control plane after
    `silence_control_seconds`, by the device after `silence_device_seconds`; an answer is sent again for `resend_seconds`. A lost message
    is sent again after `retransmit_seconds`, then twice that, and so on; after `losses_max` in a row the connection breaks. A download
    breaks with the probability `loss` per `fragile_bytes`. A handshake (TCP, then TLS 1.3) crosses the link `handshake_crossings` times."""

    idle_seconds: float = 30.0
    connect_seconds: float = 15.0
    read_seconds: float = 30.0
    silence_control_seconds: float = 75.0
    silence_device_seconds: float = 150.0
    resend_seconds: float = 30.0
    keepalive_seconds: float = 45.0
    retransmit_seconds: float = 0.3
    losses_max: int = 5
    fragile_bytes: int = 10_000_000
    duplicate_seconds: float = 1.0
    late_seconds: float = 5.0
    reorder_seconds: float = 1.0
    portal_seconds: float = 0.2
    request_head_bytes: int = 290
    answer_head_bytes: int = 190
    packet_bytes: int = 1_400
    packet_head_bytes: int = 52
    handshake_up_bytes: int = 2_400
    handshake_down_bytes: int = 3_600
    handshake_crossings: float = 4.0


LIMITS: Final = NetworkLimits()


class Caller(Protocol):
    """Who waits for an answer of the control plane."""

    def reply(self, outcome: Outcome) -> None:
        """Take the answer. Called at most once."""
        ...

    def reset(self) -> None:
        """End the wait: the control plane died."""
        ...


class Server(Protocol):
    """The other end, as the network needs it."""

    up: bool

    def handle(self, request: Request, caller: Caller) -> None:
        """Take a request. `caller.reply` is called once, perhaps from within."""
        ...

    def hung_up(self, caller: Caller) -> None:
        """Forget an open poll: its connection is gone."""
        ...

    def transferred(self) -> None:
        """Note that a download has ended, whole or not."""
        ...


class Connection:
    """One request and its answer on the way."""

    __slots__ = ("_at_control", "_began", "_done", "_flow", "_link", "_pipe", "_ticket", "answer", "request")

    def __init__(self, link: "DeviceLink", request: Request, done: Callable[[Outcome], None]) -> None:
        self._link = link
        self.request = request
        self._done: Callable[[Outcome], None] | None = done
        self._began = link.network.kernel.now
        self._ticket: Ticket | None = None
        self._at_control = False
        self._flow: Flow | None = None
        self._pipe: Pipe | None = None
        self.answer: Outcome | None = None

    # ---- on the way there ----

    def begin(self) -> None:
        """Send the request."""
        link, kernel, limits = self._link, self._link.network.kernel, self._link.network.limits
        size = limits.request_head_bytes + len(self.request.body)
        size += (1 + size // limits.packet_bytes) * limits.packet_head_bytes
        cold = self.request.fresh or link.warm < kernel.now
        site = link.site
        if cold:
            size += limits.handshake_up_bytes
            site.down_bytes += limits.handshake_down_bytes
        site.up_bytes += size
        if link.portals:
            self._ticket = kernel.after(limits.portal_seconds, self._nonsense)
            return
        if link.ups or (cold and link.downs):
            patience = limits.connect_seconds if cold else limits.read_seconds
            link.hold(patience, self._arrive)
            self._ticket = kernel.after(patience, self._lost)
            return
        seconds, broken = link.delay(size, up=True)
        if cold:
            seconds += limits.handshake_crossings * link.quality.latency_seconds
        kernel.after(seconds, self._lost if broken else self._arrive)

    def _arrive(self) -> None:
        link = self._link
        network = link.network
        if link.ups and not link.portals:  # cut while it was on its way
            link.hold(network.limits.read_seconds, self._arrive)
            self._expire()
            return
        if not network.server.up:
            network.kernel.after(link.quality.latency_seconds, self._lost)
            return
        if link.quality.duplication and self.request.purpose != "blob" and (again := link.copies()) is not None:
            ghost = _Ghost(network)
            late = link.late()
            if late is None or self.request.purpose == "desired":
                network.server.handle(self.request, ghost)
                network.kernel.after(again, self._take)
                return
            network.kernel.after(late, lambda: ghost.arrive(self.request))
        self._take()

    def _take(self) -> None:
        """Hand the request to the control plane."""
        link = self._link
        network = link.network
        if not network.server.up:
            network.kernel.after(link.quality.latency_seconds, self._lost)
            return
        self._drop_ticket()
        self._at_control = True
        network.server.handle(self.request, self)
        if self._at_control:
            if self.request.purpose == "desired":
                link.open.append(self)
                if self._done is None:
                    self._gone()
            elif self._done is not None:
                self._expire()

    # ---- on the way back ----

    def reply(self, outcome: Outcome) -> None:
        """See `Caller`."""
        link = self._link
        self._left_control()
        if self._done is None:
            if self.request.purpose == "blob":
                link.network.server.transferred()
            return
        if self.request.purpose == "blob":
            self._download(outcome)
        else:
            self._hand_over(outcome)

    def _hand_over(self, outcome: Outcome) -> None:
        link, kernel, limits = self._link, self._link.network.kernel, self._link.network.limits
        size = limits.answer_head_bytes + (len(outcome.body) if type(outcome) is Answered else 60)
        size += (1 + size // limits.packet_bytes) * limits.packet_head_bytes
        if self.request.purpose == "desired":
            beats = int((kernel.now - self._began) / limits.keepalive_seconds)
            size += beats * limits.packet_head_bytes
            link.site.up_bytes += beats * limits.packet_head_bytes
        link.site.down_bytes += size
        link.site.up_bytes += limits.packet_head_bytes
        self.answer = outcome
        if link.downs or link.portals:
            link.hold(limits.resend_seconds, self._deliver)
            self._expire(limits.silence_device_seconds)
            return
        seconds, broken = link.delay(size, up=False)
        self._drop_ticket()
        self._ticket = kernel.after(seconds, self._lost if broken else self._deliver)

    def reset(self) -> None:
        """See `Caller`."""
        link = self._link
        self._left_control()
        if self._done is None:
            return
        if link.blocked:
            self._expire()
        else:
            self._replace_ticket(link.quality.latency_seconds, self._lost)

    def _deliver(self) -> None:
        link = self._link
        if self._done is None:
            return
        if link.downs or link.portals:  # cut while it was on its way
            link.hold(link.network.limits.resend_seconds, self._deliver)
            self._expire()
            return
        link.warm = link.network.kernel.now + link.network.limits.idle_seconds
        if self.answer is not None:
            self._finish(self.answer)

    def _lost(self) -> None:
        self._finish(Broken(kind="lost"))

    def _nonsense(self) -> None:
        self._finish(Broken(kind="nonsense"))

    def _finish(self, outcome: Outcome) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        self._drop_ticket()
        if self in self._link.open and not self._at_control:
            self._link.open.remove(self)
        if self._at_control and type(outcome) is Broken:
            self._gone()
        done(outcome)

    # ---- downloads ----

    def _download(self, outcome: Outcome) -> None:
        link = self._link
        if type(outcome) is not Answered:
            self._hand_over(outcome)
            link.network.server.transferred()
            return
        self.answer = outcome
        self._drop_ticket()
        if link.blocked:
            link.network.server.transferred()
            self._expire()
            return
        breaks = link.breaks_at(outcome.size)
        link.open.append(self)
        self._pipe = link.pipe
        if breaks is None:
            self._flow = link.pipe.download(outcome.size, self._downloaded)
        else:
            self._flow = link.pipe.download(breaks, lambda: self._download_broke(int(breaks)))

    def _downloaded(self) -> None:
        self._count(self.answer.size if type(self.answer) is Answered else 0)
        self._drop_ticket()
        self._ticket = self._link.network.kernel.after(self._link.quality.latency_seconds, self._deliver)

    def _download_broke(self, received: int) -> None:
        self._count(received)
        self._finish(Broken(kind="lost", received=received))

    def _stop_download(self) -> int:
        if self._flow is None or self._pipe is None:
            return 0
        received = self._pipe.stop(self._flow)
        self._count(received)
        return received

    def _count(self, received: int) -> None:
        """Count a download that has ended after so many bytes."""
        link = self._link
        self._flow = self._pipe = None
        packets = 1 + received // link.network.limits.packet_bytes
        link.site.down_bytes += received + packets * link.network.limits.packet_head_bytes
        link.site.up_bytes += (packets // 2) * link.network.limits.packet_head_bytes
        if self in link.open:
            link.open.remove(self)
        link.network.server.transferred()

    # ---- connections that end ----

    def abandon(self) -> None:
        """See `link.Exchange`."""
        if self._done is None:
            return
        self._done = None
        self._drop_ticket()
        self._stop_download()
        if self in self._link.open and not self._at_control:
            self._link.open.remove(self)
        if self._at_control:
            self._gone()

    def cut(self) -> None:
        """Let both ends notice after a while that the link is cut, unless it is whole again by then."""
        link, kernel, limits = self._link, self._link.network.kernel, self._link.network.limits
        outage = link.outages
        if self._flow is not None:
            received = self._stop_download()
            self._replace_ticket(limits.read_seconds, lambda: self._finish(Broken(kind="lost", received=received)))
            return

        def noticed() -> None:
            if link.outages == outage and link.blocked and self._at_control:
                self._at_control = False  # the device does not know yet
                link.network.server.hung_up(self)

        kernel.after(limits.silence_control_seconds, noticed)
        self._expire(limits.silence_device_seconds)

    def whole(self) -> None:
        """Go on after the link is whole again; a poll that the control plane has given up is reset."""
        if self._done is None or self._flow is not None or self.answer is not None:
            return
        if self._at_control:
            self._drop_ticket()
        else:
            self._replace_ticket(self._link.quality.latency_seconds, self._lost)

    def _gone(self) -> None:
        """Let the control plane know that nobody waits any more: at once, or when its keepalive notices."""
        link = self._link
        network = link.network
        silent = link.dark or link.blocked
        network.kernel.after(network.limits.silence_control_seconds if silent else link.quality.latency_seconds, self._closed)

    def _closed(self) -> None:
        if self._at_control:
            self._left_control()
            self._link.network.server.hung_up(self)

    def _left_control(self) -> None:
        if self._at_control:
            self._at_control = False
            if self in self._link.open:
                self._link.open.remove(self)

    def _expire(self, at_most: float | None = None) -> None:
        """Give up when the client's time-out comes, counted from the beginning, or within `at_most` seconds from now."""
        network = self._link.network
        wait = self.request.wait if self.request.purpose == "desired" else 0.0
        left = max(0.0, self._began + wait + network.limits.read_seconds - network.kernel.now)
        self._replace_ticket(left if at_most is None else min(left, at_most), self._lost)

    def _replace_ticket(self, seconds: float, call: Callable[[], None]) -> None:
        self._drop_ticket()
        self._ticket = self._link.network.kernel.after(seconds, call)

    def _drop_ticket(self) -> None:
        if self._ticket is not None:
            self._ticket.cancel()
            self._ticket = None


class _Ghost:
    """A copy of a request that nobody waits for."""

    __slots__ = ("_network",)

    def __init__(self, network: "Network") -> None:
        self._network = network

    def arrive(self, request: Request) -> None:
        """Hand the copy to the control plane."""
        if self._network.server.up:
            self._network.server.handle(request, self)

    def reply(self, outcome: Outcome) -> None:
        """See `Caller`."""

    def reset(self) -> None:
        """See `Caller`."""
