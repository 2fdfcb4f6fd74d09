"""The local workload API: HTTP/1.1 and JSON over one Unix socket per instance, whose path says who is asking.

A workload sees its own namespace on its own device and nothing else. One thread serves all sockets; connections, heads, bodies and the time
that a request may take to arrive are bounded. An idle device has no connections and the thread sleeps.
"""

# pathlib alone would cost the resident agent a third of a megabyte:
# ruff: noqa: PTH103, PTH108, PTH120

import contextlib
import os
import selectors
import socket
import sys
import threading
from collections.abc import Mapping
from typing import Final

import h11
import msgspec

from edgewise.agent.aggregate import Aggregator
from edgewise.agent.log import Log
from edgewise.agent.slots import api_socket_path
from edgewise.agent.workload_answers import Answers, ApiCalls, ApiRefused, InstanceView, Request
from edgewise.agent.workload_messages import LocalError
from edgewise.ports.clock import Clock
from edgewise.ports.unix import listen_unix

__all__ = ["ApiCalls", "ApiLimits", "InstanceView", "WorkloadApi"]

REVISION_HEADER: Final = b"edgewise-revision"


class ApiLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes, seconds and counts."""

    head_bytes_max: int = 16 * 1024
    body_bytes_max: int = 512 * 1024
    connections_per_instance_max: int = 8
    request_seconds_max: float = 10.0
    idle_seconds_max: float = 300.0


class WorkloadApi:
    """Serves the API of the instances that were last published. `start` it once, `publish` whenever something changed (before a workload
    starts: its socket is there when `publish` returns), `close` it at the end."""

    def __init__(
        self,
        data_folder: str,
        *,
        device: str,
        calls: ApiCalls,
        aggregator: Aggregator,
        clock: Clock,
        limits: ApiLimits | None = None,
        log: Log | None = None,
    ) -> None:
        self._log = log or Log()
        self._data = data_folder
        self._calls = calls
        self._aggregator = aggregator
        self.clock = clock
        self.limits = limits or ApiLimits()
        self.answers = Answers(device, calls, aggregator, clock)
        self._lock = threading.Lock()
        self._listeners: dict[str, socket.socket] = {}
        self._changes: list[tuple[str, socket.socket, bool]] = []
        self.selector = selectors.DefaultSelector()
        self.connections: set[_Connection] = set()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)  # noqa: FBT003 -- positional only
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="workload-api", daemon=True)

    def start(self) -> None:
        """Serve, in a thread of its own."""
        self.selector.register(self._wake_reader, selectors.EVENT_READ, None)
        self._thread.start()

    def publish(self, instances: Mapping[str, InstanceView]) -> None:
        """Replace what the API knows. Sockets of instances that are no more are closed. Raises `OSError` when a socket cannot be made."""
        self.answers.publish(instances)
        with self._lock:
            for name in [name for name in self._listeners if name not in instances]:
                self._changes.append((name, self._listeners.pop(name), False))
            for name in instances:
                if name not in self._listeners:
                    path = api_socket_path(self._data, name)
                    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                    self._listeners[name] = listen_unix(path, self.limits.connections_per_instance_max)
                    self._changes.append((name, self._listeners[name], True))
        self._wake()

    def close(self) -> None:
        """Stop serving and hand out the last window."""
        self._closing = True
        self._wake()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        for name, listener in self._listeners.items():
            self._remove_socket(name, listener)
        self._listeners = {}
        self.selector.close()
        self._wake_reader.close()
        self._wake_writer.close()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            self._wake_writer.send(b"w")

    def _run(self) -> None:
        while not self._closing:
            try:
                self._step()
            except Exception as error:  # noqa: BLE001 -- a mistake of ours must not end the thread that serves all workloads
                self._log.error("mistake in the workload API", f"{type(error).__name__}: {error}")
        for connection in tuple(self.connections):
            connection.close()
        self._cut_window(self.clock.monotonic())

    def _step(self) -> None:
        for key, _ in self.selector.select(self._timeout()):
            match key.data:
                case str() as instance if isinstance(key.fileobj, socket.socket):
                    self._accept(instance, key.fileobj)
                case _Connection() as connection:
                    connection.ready()
                case _:
                    with contextlib.suppress(OSError):
                        self._wake_reader.recv(4096)
        self._apply_changes()
        self._pass_time()

    def _timeout(self) -> float | None:
        now = self.clock.monotonic()
        waits = [connection.deadline - now for connection in self.connections]
        due = self._aggregator.due_in(now)
        if due is not None and self._calls.window is not None:
            waits.append(due)
        return max(0.0, min(waits)) if waits else None

    def _apply_changes(self) -> None:
        with self._lock:
            changes, self._changes = self._changes, []
        for name, listener, added in changes:
            if added:
                self.selector.register(listener, selectors.EVENT_READ, name)
                continue
            with contextlib.suppress(KeyError):
                self.selector.unregister(listener)
            with self._lock:
                again = name in self._listeners
            if again:
                listener.close()
            else:
                self._remove_socket(name, listener)
            for connection in [one for one in self.connections if one.instance == name]:
                connection.close()

    def _remove_socket(self, name: str, listener: socket.socket) -> None:
        listener.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(api_socket_path(self._data, name))

    def _pass_time(self) -> None:
        now = self.clock.monotonic()
        for connection in [one for one in self.connections if one.deadline <= now]:
            connection.close()
        if self._aggregator.due_in(now) == 0.0:
            self._cut_window(now)

    def _cut_window(self, now: float) -> None:
        if self._calls.window is not None:
            window = self._aggregator.take(self.clock.wall(), now)
            if window is not None:
                self._calls.window(window)

    def _accept(self, instance: str, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        user = int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[4:8], sys.byteorder)
        mine = sum(one.instance == instance for one in self.connections)
        if user not in {os.getuid(), 0} or mine >= self.limits.connections_per_instance_max:
            connection.close()
            return
        self.connections.add(_Connection(self, connection, instance))


class _Connection:
    """One workload's connection: bytes in, requests through, bytes out."""

    def __init__(self, api: WorkloadApi, connection: socket.socket, instance: str) -> None:
        self._api = api
        self._socket = connection
        self.instance = instance
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=api.limits.head_bytes_max)
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._to_send = bytearray()
        self._ending = False
        self.deadline = api.clock.monotonic() + api.limits.idle_seconds_max
        connection.setblocking(False)  # noqa: FBT003 -- positional only
        api.selector.register(connection, selectors.EVENT_READ, self)

    def ready(self) -> None:
        """Do what can be done without waiting."""
        try:
            if self._to_send:
                self._flush()
            elif data := self._socket.recv(self._api.limits.head_bytes_max):
                self._receive(data)
                self._flush()
            else:
                self.close()
        except BlockingIOError:
            return
        except OSError:
            self.close()

    def close(self) -> None:
        """End the connection."""
        if self in self._api.connections:
            self._api.connections.discard(self)
            self._api.selector.unregister(self._socket)
            self._socket.close()

    def _receive(self, data: bytes) -> None:
        try:
            self._http.receive_data(data)
            while not self._ending and self._take(self._http.next_event()):
                pass
        except h11.RemoteProtocolError as error:
            self._ending = True
            if self._http.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                self._send(400, LocalError("Malformed", str(error)[:200]))

    def _take(self, event: h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]) -> bool:
        """Take one event; returns whether there may be more."""
        match event:
            case h11.Request():
                self._request = event
                self.deadline = self._api.clock.monotonic() + self._api.limits.request_seconds_max
            case h11.Data():
                self._body += event.data
                if len(self._body) > self._api.limits.body_bytes_max:
                    self._ending = True
                    self._send(413, LocalError("TooLarge", f"a body has at most {self._api.limits.body_bytes_max} bytes"))
            case h11.EndOfMessage():
                self._answer()
            case h11.ConnectionClosed():
                self._ending = True
            case _:
                if self._http.they_are_waiting_for_100_continue:
                    self._to_send += self._http.send(h11.InformationalResponse(status_code=100, headers=[])) or b""
                return False
        return True

    def _answer(self) -> None:
        request, self._request = self._request, None
        body, self._body = bytes(self._body), bytearray()
        if request is None:
            return
        revision = next((value for name, value in request.headers if name == REVISION_HEADER), b"")
        target = request.target.decode("ascii", "replace").partition("?")[0]
        try:
            answer = self._api.answers.answer(
                Request(
                    instance=self.instance,
                    method=request.method.decode("ascii"),
                    path=target,
                    revision=revision.decode("ascii", "replace"),
                    body=body,
                )
            )
            self._send(200, answer)
        except ApiRefused as refused:
            self._send(refused.status, LocalError(refused.reason, str(refused)))
        except Exception as error:  # noqa: BLE001 -- the caller deserves an answer even to our mistakes
            self._send(500, LocalError("Mistake", type(error).__name__))
        self.deadline = self._api.clock.monotonic() + self._api.limits.idle_seconds_max
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        else:
            self._ending = True

    def _send(self, status: int, answer: msgspec.Struct | dict[str, str]) -> None:
        body = msgspec.json.encode(answer)
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        if self._ending:
            headers.append(("Connection", "close"))
        for event in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            self._to_send += self._http.send(event) or b""

    def _flush(self) -> None:
        try:
            while self._to_send:
                del self._to_send[: self._socket.send(self._to_send)]
        except BlockingIOError:
            self._api.selector.modify(self._socket, selectors.EVENT_WRITE, self)
            return
        if self._ending:
            self.close()
        else:
            self._api.selector.modify(self._socket, selectors.EVENT_READ, self)
