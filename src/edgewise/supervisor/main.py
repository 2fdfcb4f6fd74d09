"""Put together: the data folder, one loop, the children, the socket.

    python -m edgewise.supervisor --data DIR [--limit NAME=NUMBER]… [-- AGENT ARGV…]

Without `--` it runs the agent that is installed beside it; with nothing after `--` it runs none.

Where a supervisor runs for the data folder already, its agent is started again if it was stopped. Ends with 0 after that and after a clean
stop, 2 on a wrong command line, 3 when supervisor and agent already run, 4 when the folder cannot be used.
"""

# pathlib and contextlib would load half a megabyte:
# ruff: noqa: PTH109, PTH101, PTH103

import fcntl
import gc
import os
import sys

from edgewise.supervisor.agents import AgentKeeper
from edgewise.supervisor.cgroups import find_cgroups
from edgewise.supervisor.children import Children
from edgewise.supervisor.limits import SupervisorLimits
from edgewise.supervisor.listeners import Listeners
from edgewise.supervisor.loop import SIGCHLD, SIGHUP, SIGINT, SIGTERM, Loop, say
from edgewise.supervisor.requests import Requests
from edgewise.supervisor.server import PATH as SOCKET_PATH
from edgewise.supervisor.server import Server
from edgewise.supervisor.slots import SlotEntry, SlotTable
from edgewise.supervisor.stale import boot_id, forget_launch, kill_processes, noted_launches
from edgewise.supervisor.wire import VERSION, Invalid, decode_object, encode_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

WRONG_COMMAND, ALREADY_RUNNING, UNUSABLE_FOLDER = 2, 3, 4
_LOCK = "run/supervisor.lock"
_USAGE = "usage: python -m edgewise.supervisor --data DIR [--limit NAME=NUMBER]... [-- AGENT ARGV...]"


class Settings:
    """What the command line says."""

    __slots__ = ("agent", "data", "limits")

    def __init__(self, data: str, limits: SupervisorLimits, agent: "list[str]") -> None:
        self.data = data
        self.limits = limits
        self.agent = agent


def read_command_line(arguments: "list[str]") -> Settings:
    """Read the arguments. Raises `ValueError`."""
    own, agent = arguments, None
    if "--" in arguments:
        at = arguments.index("--")
        own, agent = arguments[:at], arguments[at + 1 :]
    data, overrides = "", {}
    if len(own) % 2:
        raise ValueError(_USAGE)
    for option, value in zip(own[::2], own[1::2], strict=True):
        if option == "--data":
            data = value
        elif option == "--limit":
            name, _, number = value.partition("=")
            overrides[name] = float(number)
        else:
            raise ValueError(_USAGE)
    if not data:
        raise ValueError(_USAGE)
    if agent is None:
        agent = [sys.executable, "-m", "edgewise.agent", "--data", os.path.realpath(data)]
    return Settings(data, SupervisorLimits(overrides), agent)


def main(arguments: "list[str]") -> int:
    """Run until told to stop. Returns the exit status."""
    try:
        settings = read_command_line(arguments)
    except ValueError as error:
        say(str(error))
        return WRONG_COMMAND
    try:
        folder = os.getcwd()
        data = _enter(settings.data)
        if not _lock():
            return _attach(data)
    except OSError as error:
        say(f"the data folder cannot be used: {error}")
        return UNUSABLE_FOLDER
    return _Supervisor(data, folder, settings).run()


class _Supervisor:
    def __init__(self, data: str, folder: str, settings: Settings) -> None:
        limits = settings.limits
        boot = boot_id()
        self._kill_stale(boot)
        self._loop = Loop()
        self._children = Children(self._loop, limits, find_cgroups(), boot)
        self._slots = SlotTable(self._loop, limits, self._children, Listeners(limits), self._tell_exit)
        self._agent = AgentKeeper(self._loop, limits, self._children, base=settings.agent, folder=folder)
        self._requests = Requests(
            data=data,
            loop=self._loop,
            limits=limits,
            children=self._children,
            slots=self._slots,
            agent=self._agent,
            stop_all=self._stop_all,
        )
        self._server = Server(self._loop, limits, self._requests.handle)
        self._limits = limits
        self._left = 0
        self._when_stopped: list[Callable[[], None]] = []

    def run(self) -> int:
        self._loop.on_signal(SIGCHLD, self._children.reap)
        for number in (SIGTERM, SIGINT, SIGHUP):
            self._loop.on_signal(number, self._stop_now)
        self._agent.begin()
        # What is there now stays for good: keep the collector from touching, and so from copying, these pages.
        gc.collect()
        gc.freeze()
        self._loop.run()
        self._server.close()
        return 0

    def _tell_exit(self, entry: SlotEntry) -> None:
        launch = entry.launch
        self._server.tell(
            {"event": "exited", "instance": launch.instance, "slot": launch.slot, "launch_id": entry.launch_id, "code": entry.code}
        )

    def _stop_now(self) -> None:
        self._stop_all(self._limits.shutdown_grace_seconds, _nothing)

    def _stop_all(self, grace: float, done: "Callable[[], None]") -> None:
        """End the agent and all workloads at the same time, then this process."""
        self._when_stopped.append(done)
        self._requests.closing = True
        self._left += 2  # the agent, and this loop, so that the last one is counted after all were asked
        self._agent.stop(self._one_less)
        for shown in self._slots.shown():
            if shown["exit_code"] is None:
                self._left += 1
                self._slots.stop(str(shown["instance"]), str(shown["slot"]), grace, 0, self._one_less)
        self._one_less()

    def _one_less(self, _code: "int | None" = None) -> None:
        self._left -= 1
        if self._left == 0:
            for done in self._when_stopped:
                done()
            self._loop.stop()

    def _kill_stale(self, boot: str) -> None:
        traces = noted_launches(boot)
        if not traces:
            return
        killed, rounds = 0, 0
        while found := kill_processes(traces):
            killed = max(killed, found)
            rounds += 1
            if rounds > 250:
                say("processes of an earlier supervisor cannot be killed; they hang in the kernel")
                break
            _pause(0.02)
        if killed:
            say(f"killed {killed} processes that an earlier supervisor left behind")
        for trace in traces:
            forget_launch(trace.launch_id)


def _attach(data: str) -> int:
    """Have the supervisor that runs already start its agent, if that was stopped. Returns the exit status."""
    try:
        state = str(_ask("status").get("agent_state"))
        if state != "stopped" or not _ask("start-agent").get("ok"):
            say(f"a supervisor runs already for {data}; its agent is {state}")
            return ALREADY_RUNNING
    except (OSError, Invalid) as error:
        say(f"a supervisor runs already for {data}, but does not answer: {error}")
        return ALREADY_RUNNING
    say(f"the supervisor that runs already for {data} has started its agent again")
    return 0


def _ask(verb: str) -> "dict[str, object]":
    import _socket

    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.settimeout(10)
        connection.connect(SOCKET_PATH)
        connection.send(encode_line({"v": VERSION, "id": 1, "do": verb}))
        answer = b""
        while not answer.endswith(b"\n"):
            part = connection.recv(65536)
            if not part:
                raise Invalid("the connection ended")
            answer += part
        return decode_object(answer)
    finally:
        connection.close()


def _nothing() -> None:
    """Nobody asked to be told."""


def _pause(seconds: float) -> None:
    import time

    time.sleep(seconds)


def _enter(data: str) -> str:
    """Go to the data folder, with its parts there. Raises `OSError`."""
    os.umask(0o077)
    os.makedirs(data, mode=0o700, exist_ok=True)
    os.chdir(data)
    for folder in ("run", "run/launches", "supervisor", "logs", "instances"):
        os.makedirs(folder, mode=0o700, exist_ok=True)
    os.chmod("run", 0o700)
    return os.path.realpath(".")


def _lock() -> bool:
    descriptor = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    return True
