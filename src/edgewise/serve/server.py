"""The life of the server: load, become ready, take traffic when told to, drain when told to, end.

    loading -> ready -> active -> draining -> ended
    loading -> broken (exit status 3)

Two servers share one listening socket while a model is swapped: the new one is activated, then the old one drains. So that no request is
dropped: the old one stops accepting at once (what waits in the kernel's queue is the new one's), answers every request that reaches it on
a connection that is already open, says `Connection: close` with each, and closes connections that stay idle only at the end of the drain,
when no byte waits on them. A client that finds such a connection closed knows that its request was not read, and may send it again.
"""

import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Final, Literal, assert_never

import msgspec

from edgewise.serve.answers import Answer, ok, problem
from edgewise.serve.connection import Connection, Gone
from edgewise.serve.conversation import CONTINUE, KEPT_HEADERS, Budget, Request, Writer
from edgewise.serve.counters import Counters
from edgewise.serve.facts import Facts, if_well
from edgewise.serve.feedback import together, unknown_in
from edgewise.serve.inference import Identity
from edgewise.serve.limits import ServeLimits
from edgewise.serve.mirror import MIRROR_HEADER, Shadow, read_copy
from edgewise.serve.model import Model
from edgewise.serve.observer import Observer
from edgewise.serve.passing import Passing
from edgewise.serve.reporter import Reporter
from edgewise.serve.routes import Place, find
from edgewise.serve.worker import Broken, Inferred, Loaded, Spent, Worker

State = Literal["loading", "ready", "active", "draining", "broken"]

EXIT_DRAINED: Final = 0
EXIT_BROKEN: Final = 3

_SWEEP_SECONDS: Final = 1.0
_DRAIN_SWEEP_SECONDS: Final = 0.02
_ACCEPTS_PER_TURN: Final = 32
_PAUSE_SECONDS: Final = 0.1

_CONTROL_HEADERS: Final = KEPT_HEADERS | {MIRROR_HEADER}
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Server:
    """One model server over two listening sockets: the service's, shared with others, and the control socket, its own."""

    def __init__(
        self, sockets: tuple[socket.socket, socket.socket], identity: Identity, load: Callable[[], Model], limits: ServeLimits
    ) -> None:
        self._listener, self._control = sockets
        self._identity = identity
        self._limits = limits
        self._selector = selectors.DefaultSelector()
        self._write_head = Writer(identity.revision)
        self._budget = Budget(limits.buffered_bytes_max)
        self._counters = Counters()
        self._observer = Observer(limits, inputs_allowed=os.environ.get("EDGEWISE_SKETCH_INPUTS", "1") != "0")
        self._facts = Facts(identity, self._counters, self._observer)
        self._connections: dict[int, Connection] = {}
        self._serial = 0
        self._accepting = False
        self._paused_until = 0.0
        self._drain_until = 0.0
        self._terminations = 0
        self._state: State = "loading"
        self._failure = ""
        self.stuck = False
        self._waker, self._woken = socket.socketpair()
        self._orders: dict[Place, Callable[[], Answer]] = {
            "control-ready": self._control_ready,
            "activate": self._activate,
            "drain": self._begin_drain,
            "metrics": self._metrics,
        }
        self._reporter = Reporter(self._observer, limits)
        self._worker = Worker(load, identity, limits, self._wake, self._observer)
        self._shadow = Shadow(self._worker, self._observer, limits, self._wake)
        self._passing = Passing(self._selector, self, limits)
        self._candidates_head = self._write_head
        self._judged: dict[int, Answer] = {}

    def run(self) -> int:
        """Serve until drained; return the exit status."""
        for sock in (self._listener, self._control, self._waker, self._woken):
            sock.setblocking(False)  # noqa: FBT003 - its only parameter
        self._selector.register(self._woken, _READ, self._on_wake)
        self._selector.register(self._control, _READ, self._on_control)
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        self._worker.start()
        self._reporter.start()
        while not self._ended():
            for key, events in self._selector.select(self._timeout()):
                key.data(events)
            self._sweep()
        return self._finish()

    # ---- waking up ----

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # enough wake-ups wait already
            self._waker.send(b"\0")

    def _on_signal(self, *_: object) -> None:
        self._terminations += 1

    def _on_wake(self, _: int) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)
        while self._worker.results:
            match self._worker.results.popleft():
                case Loaded(model):
                    self._facts.model = model
                    self._counters.load_seconds = model.load_seconds
                    self._state = "ready" if self._state == "loading" else self._state
                case Broken(message):
                    self._failure, self._state = message, "broken"
                case Inferred(serial, answer, spent):
                    self._inferred(serial, answer, spent)
                case other:
                    assert_never(other)
        while self._shadow.results:
            self._go_on(self._shadow.results.popleft()[0], ok({}))

    def _timeout(self) -> float | None:
        if self._state == "draining":
            return _DRAIN_SWEEP_SECONDS
        if self._paused_until:
            return _PAUSE_SECONDS
        return _SWEEP_SECONDS if self._connections or self._passing.waits else None

    def _ended(self) -> bool:
        if self._state == "broken":
            return True
        return self._state == "draining" and not self._counters.waiting and all(each.control for each in self._connections.values())

    def _finish(self) -> int:
        for connection in tuple(self._connections.values()):
            self._close(connection)
        self._passing.close()
        self._control.close()
        self._listener.close()
        if self._state == "broken":
            sys.stderr.write(f"edgewise.serve: {self._identity.instance} at {self._identity.revision}: {self._failure}\n")
            return EXIT_BROKEN
        self._shadow.stop()
        self.stuck = not self._worker.stop()
        self._reporter.stop()
        return EXIT_DRAINED

    # ---- what passes with time ----

    def _sweep(self) -> None:
        now = time.monotonic()
        if self._terminations:
            self._drain(self._limits.terminate_seconds)
        if self._paused_until and now >= self._paused_until:
            self._paused_until = 0.0
            self._accept_more()
        if self._state == "draining" and now >= self._drain_until:
            for connection in tuple(self._connections.values()):
                if connection.idle and not connection.control and not connection.has_unread():
                    self._close(connection)
        for connection in tuple(self._connections.values()):
            if now >= connection.deadline:
                self._late(connection)
        self._passing.sweep(now)
        self._accept_more()  # who was spared when others came may not be any more

    def _late(self, connection: Connection) -> None:
        if connection.talk.partial and connection.reading and not connection.ending:
            seconds = self._limits.request_seconds_max
            self._guarded(
                connection, lambda: self._reply(connection, problem(408, f"the request took longer than {seconds:g} s"), close=True)
            )
        elif not (connection.idle and connection.has_unread()):
            self._close(connection)

    def _drain(self, seconds: float) -> None:
        """Stop accepting; end when the open connections are done, `seconds` from now at the latest for idle ones."""
        until = time.monotonic() + seconds
        if self._state == "draining":
            self._drain_until = min(self._drain_until, until)
        elif self._state != "broken":
            self._stop_accepting()
            self._state, self._drain_until = "draining", until

    # ---- accepting ----

    def _accept_more(self) -> None:
        if self._state == "active" and not self._accepting and not self._paused_until:
            self._selector.register(self._listener, _READ, self._on_listener)
            self._accepting = True

    def _stop_accepting(self) -> None:
        if self._accepting:
            self._selector.unregister(self._listener)
            self._accepting = False

    def _on_listener(self, _: int) -> None:
        for _turn in range(_ACCEPTS_PER_TURN):
            if len(self._connections) >= self._limits.connections_max and not self._make_room():
                self._stop_accepting()  # the others wait in the kernel's queue, or another server takes them
                return
            if not self._accept(self._listener, control=False):
                return

    def _on_control(self, _: int) -> None:
        self._accept(self._control, control=True)

    def _accept(self, listener: socket.socket, *, control: bool) -> bool:
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False  # the other server on this socket was quicker
        except OSError:  # no descriptors left: let some close
            self._paused_until = time.monotonic() + _PAUSE_SECONDS
            self._stop_accepting()
            return False
        sock.setblocking(False)  # noqa: FBT003 - its only parameter
        if sock.family in {socket.AF_INET, socket.AF_INET6}:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._serial += 1
        kept = _CONTROL_HEADERS if control else self._passing.kept
        connection = Connection(sock, self._serial, self._limits, self._budget, control=control, kept=kept)
        self._connections[connection.serial] = connection
        self._counters.connections_accepted += 1
        self._counters.connections_open += 1
        self._listen(connection)
        return True

    def _make_room(self) -> bool:
        """Close the connection that has been idle for longest, if there is one on which nothing waits. One that is new, or was just
        answered, is spared: its next request may be on its way."""
        spared = time.monotonic() + self._limits.idle_seconds_max - self._limits.spare_seconds
        for connection in sorted(self._connections.values(), key=lambda each: each.deadline):
            if connection.deadline > spared:
                return False
            if connection.idle and not connection.control and not connection.has_unread():
                self._close(connection)
                return True
        return False

    # ---- connections ----

    def _on_connection(self, connection: Connection, events: int) -> None:
        if connection.serial not in self._connections:
            return
        if events & _WRITE:
            self._guarded(connection, lambda: self._flushed(connection))
        elif connection.reading:
            self._guarded(connection, lambda: self._received(connection))
        else:
            self._listen(connection)  # more came while a request is answered: not now

    def _guarded(self, connection: Connection, step: Callable[[], None]) -> None:
        try:
            step()
        except Gone:
            self._close(connection)
        else:
            self._listen(connection)

    def _received(self, connection: Connection) -> None:
        connection.receive()
        if not connection.ending:
            self._proceed(connection)

    def _flushed(self, connection: Connection) -> None:
        connection.flush()
        connection.await_next()
        self._proceed(connection)

    def _proceed(self, connection: Connection) -> None:
        """Answer what can be answered now, one request after the other."""
        talk = connection.talk
        while talk.requests and connection.reading and not connection.ending:
            self._begin(connection, talk.requests.popleft())
        if connection.ending or not connection.reading:
            return
        if talk.problem is not None:
            self._reply(connection, talk.problem, close=True)
        elif talk.wants_continue:
            talk.wants_continue = False
            connection.send(CONTINUE)

    def _begin(self, connection: Connection, request: Request) -> None:
        place = find(request.method, request.path, self._identity, control=connection.control)
        if place == "infer":
            answer = self._refuse_inference()
            if answer is None:
                connection.asked_at = time.monotonic()
                if not connection.control and self._passing.relays and self._relay(connection, request):
                    return
                now = self._worker.answer_now(connection.serial, request)
                if now is not None:
                    self._answered_now(connection, request, *now)
                    return
                connection.running = request
                connection.await_next()
                self._counters.waiting += 1
                self._worker.submit(connection.serial, request)
                return
        elif place == "feedback":
            answer = self._observer.feedback.answer(request.body)
            if not connection.control and self._pass_feedback(connection, request, answer):
                return
        elif place == "mirror":
            found = read_copy(request, self._identity.revision)
            answer = found if isinstance(found, Answer) else self._refuse_inference()
            if answer is None and not isinstance(found, Answer):
                connection.running = request
                connection.await_next()
                self._shadow.submit(connection.serial, found)
                return
            answer = answer or ok({})
        else:
            answer = place if isinstance(place, Answer) else self._answer(place, request)
        self._end_request(connection, request, answer)

    def _answered_now(self, connection: Connection, request: Request, answer: Answer, spent: Spent) -> None:
        try:
            self._end_request(connection, request, answer)
        finally:
            self._counters.spent(answer.status, spent)
            seconds = time.monotonic() - connection.asked_at
            self._counters.inferred(seconds)
            self._observer.served(seconds, spent.queue, answer.status)
            if not connection.control:
                self._passing.copy(request, answer)
            self._worker.observe()

    def _inferred(self, serial: int, answer: Answer, spent: Spent) -> None:
        self._counters.waiting -= 1
        self._counters.spent(answer.status, spent)
        connection = self._connections.get(serial)
        if connection is None or connection.running is None:
            return  # the client went away
        request = connection.running
        seconds = time.monotonic() - connection.asked_at
        self._counters.inferred(seconds)
        self._observer.served(seconds, spent.queue, answer.status)
        self._go_on(serial, answer)
        if not connection.control:
            self._passing.copy(request, answer)

    def _go_on(self, serial: int, answer: Answer, write_head: Writer | None = None) -> None:
        """Answer the request that a connection waits for, and go on with what it has sent since."""
        connection = self._connections.get(serial)
        if connection is None or connection.running is None:
            return  # the client went away
        request, connection.running = connection.running, None

        def go_on() -> None:
            self._end_request(connection, request, answer, write_head)
            self._proceed(connection)

        self._guarded(connection, go_on)

    def _end_request(self, connection: Connection, request: Request, answer: Answer, write_head: Writer | None = None) -> None:
        connection.talk.release(request)
        self._reply(connection, answer, close=not request.keep_alive or self._is_last(connection), write_head=write_head)

    # ---- the candidate beside this server ----

    def _relay(self, connection: Connection, request: Request) -> bool:
        connection.running = request
        if self._passing.relay(connection.serial, request):
            connection.await_next()
            return True
        connection.running = None
        return False

    def _pass_feedback(self, connection: Connection, request: Request, answer: Answer) -> bool:
        """Let the candidate hear of labels too. While it answers a part of the requests, so does it for the labels."""
        self._passing.copy_feedback(request)
        if not self._passing.relays or not unknown_in(answer):
            return False
        connection.running, self._judged[connection.serial] = request, answer
        if self._passing.send(connection.serial, request):
            connection.await_next()
            return True
        self._judged.pop(connection.serial, None)
        connection.running = None
        return False

    def relayed(self, serial: int, answer: Answer, revision: str) -> None:
        """See `passing.Way`."""
        here = self._judged.pop(serial, None)
        if here is not None:
            self._go_on(serial, together(here, answer))
            return
        if self._candidates_head.revision != revision:
            self._candidates_head = Writer(revision)
        self._go_on(serial, answer, self._candidates_head)

    def returned(self, serial: int) -> None:
        """See `passing.Way`."""
        here, connection = self._judged.pop(serial, None), self._connections.get(serial)
        if here is not None:
            self._go_on(serial, here)
        elif connection is not None and connection.running is not None:
            self._counters.waiting += 1
            self._worker.submit(serial, connection.running)

    def _is_last(self, connection: Connection) -> bool:
        """While draining, an answer is the last on its connection unless the client has already sent more."""
        if self._state != "draining" or connection.control:
            return False
        return not (connection.talk.requests or connection.talk.partial or connection.has_unread())

    def _reply(self, connection: Connection, answer: Answer, *, close: bool, write_head: Writer | None = None) -> None:
        self._counters.answered(answer.status)
        connection.ending = close
        connection.send((write_head or self._write_head)(answer, close=close))
        connection.await_next()

    def _listen(self, connection: Connection) -> None:
        """Register for what the connection waits for. Reading is switched off only when it disturbs."""
        wanted = _WRITE if connection.out else _READ if connection.reading else 0
        if wanted == connection.events:
            return
        if not connection.events:
            self._selector.register(connection.sock, wanted, lambda events: self._on_connection(connection, events))
        elif not wanted:
            self._selector.unregister(connection.sock)
        else:
            self._selector.modify(connection.sock, wanted, lambda events: self._on_connection(connection, events))
        connection.events = wanted

    def _close(self, connection: Connection) -> None:
        if self._connections.pop(connection.serial, None) is None:
            return
        if connection.events:
            self._selector.unregister(connection.sock)
        connection.close()
        self._counters.connections_open -= 1
        self._accept_more()

    # ---- answers ----

    def _refuse_inference(self) -> Answer | None:
        retry = self._limits.retry_after_seconds
        if self._facts.model is None:
            return problem(503, "the model is still loading", retry_after=retry)
        if self._counters.waiting >= self._limits.waiting_requests_max:
            return problem(503, f"{self._limits.waiting_requests_max} requests are waiting already", retry_after=retry)
        return None

    def _answer(self, place: Place, request: Request) -> Answer:
        if place == "traffic":
            return self._passing.told(request.body)
        order = self._orders.get(place)
        return self._facts.answer(place, request.body) if order is None else order()

    def _control_ready(self) -> Answer:
        well = self._state in {"ready", "active"}
        return if_well({"ready": well, "state": self._state}, well=well)

    def _begin_drain(self) -> Answer:
        self._drain(self._limits.drain_seconds)
        return ok({"state": self._state, "connections": sum(not each.control for each in self._connections.values())})

    def _metrics(self) -> Answer:
        answer = self._facts.answer("metrics", b"")
        return msgspec.structs.replace(answer, body=answer.body + "\n".join((*self._passing.lines(), "")).encode())

    def _activate(self) -> Answer:
        if self._state == "ready":
            self._state = "active"
            self._accept_more()
        if self._state != "active":
            return problem(409, f"the server is {self._state}, so it cannot be activated")
        return ok({"state": self._state})
