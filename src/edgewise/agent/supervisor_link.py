"""The agent's end of the supervisor's socket: `run/supervisor.sock`, one JSON object per line (see `edgewise.supervisor.wire`).

Requests carry a number and come back in any order; what the supervisor tells by itself (`exited`) goes to a callback. The link is safe to
use from many threads; one thread of its own reads.
"""

# pathlib alone would cost the resident agent a third of a megabyte:
# ruff: noqa: PTH118

import contextlib
import itertools
import os
import socket
import threading
from collections.abc import Callable
from typing import Final, Literal, TypeVar

import msgspec

from edgewise.ports.unix import connect_unix
from edgewise.resources.decoding import UNREADABLE

PROTOCOL_VERSION: Final = 1
SOCKET_NAME: Final = "run/supervisor.sock"


class SupervisorGone(Exception):
    """There is no supervisor at the data folder, or it ended. The agent cannot work without it: end, it starts a new one."""


class SupervisorRefused(Exception):
    """The supervisor answered with an error. `reason` is one CamelCase word, `number` the operating system's errno or 0."""

    def __init__(self, reason: str, message: str, number: int = 0) -> None:
        super().__init__(message)
        self.reason = reason
        self.number = number


class LinkLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`line_bytes_max`: the longest answer. `answer_seconds_max`: how long a request may take beyond what it asks for itself."""

    line_bytes_max: int = 4 * 1024 * 1024
    connect_seconds_max: float = 5.0
    answer_seconds_max: float = 30.0


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag_field="do", tag="hello"):
    """Ask who is there."""


class ObserveSlots(msgspec.Struct, frozen=True, kw_only=True, tag_field="do", tag="observe"):
    """Which slots are there? With `subscribe`, tell this connection of every exit from now on."""

    subscribe: bool = False


class StartSlot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="do", tag="start"):
    """Start a process. `folder` names the instance on the disk; `listen`: give it the instance's listening socket as descriptor 3;
    `note` is kept and shown by `observe`. Memory in bytes, CPU in thousandths of a core."""

    instance: str
    slot: str
    folder: str
    revision: str
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str
    listen: bool = False
    memory: int | None = None
    cpu_milli: int | None = None
    note: dict[str, str] = {}


class StopSlot(msgspec.Struct, frozen=True, kw_only=True, tag_field="do", tag="stop"):
    """Stop a slot: SIGTERM after `term_after` seconds, SIGKILL after `grace` seconds; answered when no process is left."""

    instance: str
    slot: str
    grace: float
    term_after: float = 0.0


class ActivateSlot(msgspec.Struct, frozen=True, kw_only=True, tag_field="do", tag="activate"):
    """Remember which slot takes the traffic."""

    instance: str
    slot: str


class ProbeSlot(msgspec.Struct, frozen=True, kw_only=True, tag_field="do", tag="probe"):
    """Run a command in a slot's environment and folder, once, for at most `timeout` seconds."""

    instance: str
    slot: str
    argv: tuple[str, ...]
    env: dict[str, str]
    timeout: float


class AcknowledgeExit(msgspec.Struct, frozen=True, kw_only=True, tag_field="do", tag="acknowledge"):
    """The exit of this launch is known and need not be kept."""

    launch_id: str


class ForgetInstance(msgspec.Struct, frozen=True, kw_only=True, tag_field="do", tag="forget"):
    """The instance is gone: close its listening socket, free its port, remove its logs. Refused while a slot of it runs."""

    instance: str
    folder: str


class ReportHealthy(msgspec.Struct, frozen=True, kw_only=True, tag_field="do", tag="healthy"):
    """This agent works: do not fall back to the previous version."""


class SetAgent(msgspec.Struct, frozen=True, kw_only=True, tag_field="do", tag="set-agent"):
    """Run this agent from now on, on trial: the present one stays as the one to fall back to."""

    argv: tuple[str, ...]
    version: str


class StartAgent(msgspec.Struct, frozen=True, kw_only=True, tag_field="do", tag="start-agent"):
    """Start the agent again after `StopAgent`. No error when it runs."""


class StopAgent(msgspec.Struct, frozen=True, kw_only=True, tag_field="do", tag="stop-agent"):
    """End the agent; supervisor and workloads go on."""


class StopAll(msgspec.Struct, frozen=True, kw_only=True, tag_field="do", tag="stop-all"):
    """End the workloads, the agent and the supervisor itself."""

    grace: float = 10.0


class ShowStatus(msgspec.Struct, frozen=True, kw_only=True, tag_field="do", tag="status"):
    """Ask how agent and supervisor fare."""


Request = (
    Hello
    | ObserveSlots
    | StartSlot
    | StopSlot
    | ActivateSlot
    | ProbeSlot
    | AcknowledgeExit
    | ForgetInstance
    | ReportHealthy
    | SetAgent
    | StartAgent
    | StopAgent
    | StopAll
    | ShowStatus
)


class SlotSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One slot as the supervisor sees it. `exit_code` is None while it runs; `runs_for` in seconds, None: it does not say."""

    instance: str
    slot: Literal["a", "b"]
    launch_id: str
    revision: str
    pid: int
    exit_code: int | None = None
    active: bool = False
    address: str = ""
    runs_for: float | None = None
    note: dict[str, str] = {}


class SlotsSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `ObserveSlots`."""

    slots: tuple[SlotSeen, ...]


class SlotStarted(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `StartSlot`."""

    launch_id: str
    pid: int
    address: str = ""


class SlotStopped(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `StopSlot`. `code` is None when nothing ran."""

    code: int | None = None


class CommandEnded(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `ProbeSlot`. `code` is None when time was up; `output` is the end of what it printed."""

    code: int | None = None
    output: str = ""


class SupervisorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `ShowStatus`. `agent_state`: `running`, `waiting` (to be started again), `stopped`. `fell_back`: the version that was
    given up because it did not report healthy."""

    pid: int
    agent_state: str
    agent_pid: int = 0
    agent_starts: int = 0
    agent_version: str = ""
    agent_healthy: bool = False
    fell_back: str = ""
    slots: int = 0
    limits: str = ""


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True):
    """Done."""


class ExitSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A workload process ended by itself."""

    instance: str
    slot: Literal["a", "b"]
    launch_id: str
    code: int


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    id: int = 0
    ok: bool = False
    event: str = ""
    error: str = ""
    message: str = ""
    errno: int = 0


class _Waiting:
    __slots__ = ("done", "line")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.line: bytes | None = None


AnswerT = TypeVar("AnswerT", bound=msgspec.Struct)


class SupervisorLink:
    """One connection to the supervisor of `data_folder`. `on_exit` is called from the link's own thread, and so is `on_gone`, once, when
    the supervisor ends before `close`. Raises `SupervisorGone` when there is none."""

    def __init__(
        self,
        data_folder: str,
        on_exit: Callable[[ExitSeen], None] | None = None,
        on_gone: Callable[[], None] | None = None,
        limits: LinkLimits | None = None,
    ) -> None:
        self._limits = limits or LinkLimits()
        self._on_exit = on_exit
        self._on_gone = on_gone
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._closed = False
        self._gone = False
        try:
            self._socket = connect_unix(os.path.join(data_folder, SOCKET_NAME), self._limits.connect_seconds_max)
        except OSError as error:
            raise SupervisorGone(f"no supervisor answers at {data_folder}: {error}") from error
        self._socket.settimeout(None)
        self._reader = threading.Thread(target=self._read, name="supervisor-link", daemon=True)
        self._reader.start()

    def ask(self, request: Request, answer: type[AnswerT], seconds: float = 0.0) -> AnswerT:
        """Send `request` and return its answer. `seconds`: how long the request itself may take. Raises `SupervisorRefused`,
        `SupervisorGone`."""
        number = next(self._numbers)
        waiting = _Waiting()
        with self._lock:
            if self._gone:
                raise SupervisorGone("the supervisor ended")
            self._waiting[number] = waiting
        try:
            self._send(number, request)
            if not waiting.done.wait(self._limits.answer_seconds_max + seconds):
                raise SupervisorRefused("TimedOut", "the supervisor did not answer in time; a process may hang in the kernel")
            if waiting.line is None:
                raise SupervisorGone("the supervisor ended")
        finally:
            with self._lock:
                self._waiting.pop(number, None)
        head = msgspec.json.decode(waiting.line, type=_Head)
        if not head.ok:
            raise SupervisorRefused(head.error, head.message, head.errno)
        return msgspec.json.decode(waiting.line, type=answer)

    def close(self) -> None:
        """End the connection. `on_gone` is not called."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._reader:
            self._reader.join(timeout=5)
        self._socket.close()

    def _send(self, number: int, request: Request) -> None:
        body = msgspec.json.encode(request)
        line = b'{"v":%d,"id":%d,' % (PROTOCOL_VERSION, number) + body[1:] + b"\n"
        try:
            with self._sending:
                self._socket.sendall(line)
        except OSError as error:
            raise SupervisorGone(f"the supervisor ended: {error}") from error

    def _read(self) -> None:
        buffer = bytearray()
        while True:
            try:
                data = self._socket.recv(65536)
            except OSError:
                break
            if not data:
                break
            buffer += data
            if len(buffer) > self._limits.line_bytes_max and b"\n" not in buffer:
                break
            *lines, rest = buffer.split(b"\n")
            buffer = bytearray(rest)
            for line in lines:
                self._deliver(bytes(line))
        self._end()

    def _deliver(self, line: bytes) -> None:
        try:
            head = msgspec.json.decode(line, type=_Head)
            if head.event == "exited" and self._on_exit is not None:
                self._on_exit(msgspec.json.decode(line, type=ExitSeen))
                return
        except UNREADABLE:
            return
        with self._lock:
            waiting = self._waiting.get(head.id)
        if waiting is not None:
            waiting.line = line
            waiting.done.set()

    def _end(self) -> None:
        with self._lock:
            self._gone = True
            waiting = tuple(self._waiting.values())
        for one in waiting:
            one.done.set()
        if not self._closed and self._on_gone is not None:
            self._on_gone()
