"""What the server that serves does for the candidate beside it: copies of requests (shadow), or a share of them to answer (split).

A copy costs a write that never waits: it goes out after the answer, over one kept connection; what the candidate does not keep up with is
dropped
and counted. A request that the candidate is to answer is relayed over a kept connection of its own; whatever does not come back well and
in time
is answered here, at once, as if nothing had been. So a candidate can be slow, wrong, or dead, and no client gets an error for it.

When nobody listens at the candidate's socket any more, nothing is passed on until the agent says so again, which it does when the candidate
is back.
"""

import selectors
import time
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from edgewise.serve.answers import Answer, ok
from edgewise.serve.conversation import KEPT_HEADERS, Request
from edgewise.serve.limits import ServeLimits
from edgewise.serve.mirror import copy_of
from edgewise.serve.peer import Peer, PeerAnswer
from edgewise.serve.traffic import Chooser, Order, read_order

_OK: Final = 200
_NONE: Final = Order(mode="none")


class Way(Protocol):
    """Where a relayed request goes when it comes back."""

    def relayed(self, serial: int, answer: Answer, revision: str) -> None:
        """Take the candidate's answer for the client of connection `serial`."""
        ...

    def returned(self, serial: int) -> None:
        """Answer the request of connection `serial` here after all."""
        ...


class Passed(msgspec.Struct):
    """What was passed on since the process started. `dropped` copies by reason, `returned` requests by reason."""

    copies: int = 0
    compared: int = 0
    relayed: int = 0
    dropped: dict[str, int] = {}
    returned: dict[str, int] = {}


class Passing:
    """Used by the loop's thread alone. `kept` are the headers that requests must carry for it; it changes with the order."""

    def __init__(
        self, selector: selectors.BaseSelector, way: Way, limits: ServeLimits, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._selector = selector
        self._way = way
        self._limits = limits
        self._monotonic = monotonic
        self._order = _NONE
        self._chooser = Chooser(_NONE)
        self._copies: Peer | None = None
        self._idle: list[Peer] = []
        self._busy: dict[Peer, int] = {}
        self._paused_until = 0.0
        self._pause = limits.split_pause_seconds
        self.kept: set[bytes] = set(KEPT_HEADERS)
        self.passed = Passed()

    # ---- what is told ----

    def told(self, body: bytes) -> Answer:
        """Take an order, from now on."""
        order = read_order(body)
        if isinstance(order, Answer):
            return order
        before, self._order = self._order, order
        self._chooser = Chooser(order)
        self.kept.clear()
        self.kept.update(KEPT_HEADERS, (order.sticky.lower().encode("ascii"),) if order.sticky else ())
        if (before.target, before.revision, before.mode) != (order.target, order.revision, order.mode):
            self._let_go()
        return ok({"mode": order.mode, "share": order.share, "sticky": order.sticky, "revision": order.revision})

    @property
    def relays(self) -> bool:
        """Whether requests are relayed now."""
        return self._order.mode == "split"

    @property
    def waits(self) -> bool:
        """Whether something is under way that may take too long."""
        return bool(self._busy) or (self._copies is not None and self._copies.waiting > 0)

    def _let_go(self) -> None:
        """Forget connections; requests that are with the candidate may still come back."""
        if self._copies is not None:
            self._copies.close()
            self._copies = None
        for peer in self._idle:
            peer.close()
        self._idle.clear()
        self._paused_until, self._pause = 0.0, self._limits.split_pause_seconds

    def _withdraw(self) -> None:
        self._order = _NONE
        self._let_go()

    # ---- shadow ----

    def copy(self, request: Request, answer: Answer) -> None:
        """Send the candidate a copy of a request and of the answer that its client got, if it is to have it."""
        order = self._order
        if order.mode != "shadow" or answer.status != _OK or not self._chooser.takes(request):
            return
        self._send_copy(copy_of(request, answer, order.revision))

    def copy_feedback(self, request: Request) -> None:
        """Send the candidate a copy of labels: it joins them with what it answered itself."""
        if self._order.mode == "shadow":
            self._send_copy(_pieces(request))

    def _send_copy(self, pieces: list[bytes]) -> None:
        limits, size = self._limits, sum(map(len, pieces))
        peer = self._copies
        if size > limits.mirror_bytes_max:
            self._drop("large")
            return
        if peer is None:
            peer = self._copies = self._connect(self._compared, self._copies_lost)
            if peer is None:
                self._drop("unreachable")
                return
        if peer.waiting >= limits.mirror_waiting_max or (peer.unsent and peer.unsent + size > limits.mirror_bytes_max):
            self._drop("slow")
            return
        self.passed.copies += 1
        if not peer.waiting:
            peer.deadline = self._monotonic() + limits.mirror_seconds_max
        peer.send(pieces)

    def _compared(self, peer: Peer, answer: PeerAnswer) -> None:
        peer.deadline = self._monotonic() + self._limits.mirror_seconds_max
        if answer.status == _OK:
            self.passed.compared += 1
        else:
            self._drop("refused")

    def _copies_lost(self, peer: Peer) -> None:
        self._drop("lost", peer.waiting)
        if self._copies is peer:
            self._copies = None

    def _drop(self, reason: str, count: int = 1) -> None:
        self.passed.dropped[reason] = self.passed.dropped.get(reason, 0) + count

    # ---- split ----

    def relay(self, serial: int, request: Request) -> bool:
        """Have the candidate answer a request, if it is to. False: answer it here. A request for one version stays with whom it names."""
        if self._order.mode != "split" or "/versions/" in request.path or not self._chooser.takes(request):
            return False
        return self.send(serial, request)

    def send(self, serial: int, request: Request) -> bool:
        """Have the candidate answer a request; False when that cannot be now."""
        now = self._monotonic()
        if self._order.mode != "split" or now < self._paused_until:
            self._return("paused")
            return False
        if len(self._busy) >= self._limits.split_waiting_max:
            self._return("busy")
            return False
        peer = self._idle.pop() if self._idle else self._connect(self._answered, self._lost)
        if peer is None:
            self._return("unreachable")
            return False
        peer.deadline = now + self._limits.split_seconds_max
        self._busy[peer] = serial
        peer.send(_pieces(request))
        return True

    def _answered(self, peer: Peer, answer: PeerAnswer) -> None:
        serial = self._busy.pop(peer)
        revision = answer.headers.get("edgewise-revision", "")
        right = revision == self._order.revision
        if self._order.mode == "split" and right and answer.headers.get("connection") != "close":
            self._idle.append(peer)
        else:
            peer.close()
        if answer.status != _OK or (self._order.mode == "split" and not right):
            self._return("refused")
            self._way.returned(serial)
            return
        self._pause = self._limits.split_pause_seconds
        self.passed.relayed += 1
        self._way.relayed(serial, _answer_of(answer), revision)

    def _lost(self, peer: Peer) -> None:
        serial = self._busy.pop(peer, None)
        if serial is None:
            if peer in self._idle:
                self._idle.remove(peer)
            return
        self._return("lost")
        self._way.returned(serial)

    def _return(self, reason: str) -> None:
        self.passed.returned[reason] = self.passed.returned.get(reason, 0) + 1

    # ---- time and connections ----

    def sweep(self, now: float) -> None:
        """End what takes too long."""
        copies = self._copies
        if copies is not None and copies.waiting and now >= copies.deadline:
            copies.close()
            self._copies_lost(copies)
        for peer, serial in [(peer, serial) for peer, serial in self._busy.items() if now >= peer.deadline]:
            del self._busy[peer]
            peer.close()
            self._paused_until = now + self._pause
            self._pause = min(2.0 * self._pause, self._limits.split_pause_seconds_max)
            self._return("late")
            self._way.returned(serial)

    def close(self) -> None:
        """End all connections."""
        for peer in self._busy:
            peer.close()
        self._busy.clear()
        self._withdraw()

    def _connect(self, answered: Callable[[Peer, PeerAnswer], None], lost: Callable[[Peer], None]) -> Peer | None:
        try:
            return Peer(self._order.target, self._selector, self._limits.answer_bytes_max, answered=answered, lost=lost)
        except (FileNotFoundError, ConnectionRefusedError):
            self._withdraw()
        except OSError:  # too many wait there, or no descriptors are left here
            pass
        return None

    def lines(self) -> list[str]:
        """Return what was passed on as Prometheus takes it."""
        passed = self.passed
        found = ["# TYPE edgewise_serve_copies_total counter", f"edgewise_serve_copies_total {passed.copies}"]
        found += ["# TYPE edgewise_serve_copies_compared_total counter", f"edgewise_serve_copies_compared_total {passed.compared}"]
        found += ["# TYPE edgewise_serve_copies_dropped_total counter"]
        found += [f'edgewise_serve_copies_dropped_total{{reason="{reason}"}} {count}' for reason, count in sorted(passed.dropped.items())]
        found += ["# TYPE edgewise_serve_relayed_total counter", f"edgewise_serve_relayed_total {passed.relayed}"]
        found += ["# TYPE edgewise_serve_returned_total counter"]
        found += [f'edgewise_serve_returned_total{{reason="{reason}"}} {count}' for reason, count in sorted(passed.returned.items())]
        return found


def _pieces(request: Request) -> list[bytes]:
    lines = [f"{request.method} {request.path} HTTP/1.1", "host: candidate", f"content-length: {len(request.body)}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    return ["\r\n".join((*lines, "", "")).encode("latin-1"), request.body]


def _answer_of(answer: PeerAnswer) -> Answer:
    size = answer.headers.get("inference-header-content-length", "")
    return Answer(
        status=answer.status,
        body=answer.body,
        content_type=answer.headers.get("content-type", "application/json"),
        header_bytes=int(size) if size.isascii() and size.isdigit() else 0,
        encoding=answer.headers.get("content-encoding", ""),
    )
