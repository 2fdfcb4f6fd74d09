"""What each verb of the protocol means."""

import os

from edgewise.supervisor.agents import AgentKeeper
from edgewise.supervisor.children import Child, Children
from edgewise.supervisor.limits import SupervisorLimits
from edgewise.supervisor.loop import Loop, Timer
from edgewise.supervisor.server import Refused, Reply
from edgewise.supervisor.slots import Launch, SlotRefused, SlotTable
from edgewise.supervisor.spawn import Order, SpawnFailed
from edgewise.supervisor.wire import Invalid, flag, folder_name, number, optional_count, slot_name, text, text_map, texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Message = dict[str, object]


class Requests:
    """Carries requests out. `stop_all(grace, done)` ends everything."""

    def __init__(
        self,
        *,
        data: str,
        loop: Loop,
        limits: SupervisorLimits,
        children: Children,
        slots: SlotTable,
        agent: AgentKeeper,
        stop_all: "Callable[[float, Callable[[], None]], None]",
    ) -> None:
        self._data = data
        self._loop = loop
        self._limits = limits
        self._children = children
        self._slots = slots
        self._agent = agent
        self._stop_all = stop_all
        self._probes = 0
        self.closing = False
        self._verbs: dict[str, Callable[[Message, Reply], None]] = {
            "hello": self._hello,
            "observe": self._observe,
            "start": self._start,
            "stop": self._stop,
            "activate": self._activate,
            "probe": self._probe,
            "acknowledge": self._acknowledge,
            "forget": self._forget,
            "healthy": self._healthy,
            "set-agent": self._set_agent,
            "start-agent": self._start_agent,
            "stop-agent": self._stop_agent,
            "stop-all": self._end,
            "status": self._status,
        }

    def handle(self, message: "Message", reply: Reply) -> None:
        """Carry one request out; the answer goes to `reply`. Raises `Invalid`, `Refused`."""
        verb = message.get("do")
        call = self._verbs.get(verb) if isinstance(verb, str) else None
        if call is None:
            raise Refused("UnknownVerb", "this supervisor does not know that request")
        try:
            call(message, reply)
        except SlotRefused as refused:
            raise Refused(refused.reason, str(refused), refused.number) from refused
        except OSError as error:
            raise Refused("NoResources", str(error), error.errno or 0) from error

    def _hello(self, _message: "Message", reply: Reply) -> None:
        reply.done({"pid": os.getpid(), "verbs": sorted(self._verbs)})

    def _observe(self, message: "Message", reply: Reply) -> None:
        reply.connection.subscribed = flag(message, "subscribe") or reply.connection.subscribed
        reply.done({"slots": self._slots.shown()})

    def _start(self, message: "Message", reply: Reply) -> None:
        if self.closing:
            raise Refused("Closing", "the supervisor ends")
        launch = Launch(
            instance=text(message, "instance", 300),
            slot=slot_name(message),
            folder=folder_name(message),
            revision=text(message, "revision", 200),
            argv=texts(message, "argv"),
            env=text_map(message, "env"),
            cwd=self._inside(text(message, "cwd")),
            listen=flag(message, "listen"),
            memory=optional_count(message, "memory"),
            cpu_milli=optional_count(message, "cpu_milli"),
            note=text_map(message, "note"),
        )
        entry = self._slots.start(launch)
        reply.done({"launch_id": entry.launch_id, "pid": entry.pid, "address": entry.address})

    def _stop(self, message: "Message", reply: Reply) -> None:
        grace = number(message, "grace", self._limits.grace_seconds_max)
        term_after = number(message, "term_after", self._limits.grace_seconds_max, 0)
        self._slots.stop(text(message, "instance", 300), slot_name(message), grace, term_after, lambda code: reply.done({"code": code}))

    def _activate(self, message: "Message", reply: Reply) -> None:
        self._slots.activate(text(message, "instance", 300), slot_name(message))
        reply.done()

    def _probe(self, message: "Message", reply: Reply) -> None:
        seconds = number(message, "timeout", self._limits.probe_seconds_max)
        argv, env = texts(message, "argv"), text_map(message, "env")
        if self._probes >= self._limits.probes_max or self.closing:
            raise Refused("TooManyProbes", f"{self._probes} command probes run already")
        run = _ProbeRun(self._loop, self._limits, self._children, reply, self._probe_over)
        instance, slot = text(message, "instance", 300), slot_name(message)
        run.start(lambda output: self._slots.probe_order(instance, slot, argv, env, output), seconds)
        self._probes += 1

    def _probe_over(self) -> None:
        self._probes -= 1

    def _acknowledge(self, message: "Message", reply: Reply) -> None:
        self._slots.acknowledge(text(message, "launch_id", 64))
        reply.done()

    def _forget(self, message: "Message", reply: Reply) -> None:
        self._slots.forget(text(message, "instance", 300), folder_name(message))
        reply.done()

    def _healthy(self, _message: "Message", reply: Reply) -> None:
        self._agent.report_healthy()
        reply.done()

    def _set_agent(self, message: "Message", reply: Reply) -> None:
        self._agent.replace(texts(message, "argv"), text(message, "version", 200))
        reply.done()

    def _start_agent(self, _message: "Message", reply: Reply) -> None:
        if self.closing:
            raise Refused("Closing", "the supervisor ends")
        self._agent.start()
        reply.done()

    def _stop_agent(self, _message: "Message", reply: Reply) -> None:
        self._agent.stop(reply.done)

    def _end(self, message: "Message", reply: Reply) -> None:
        grace = number(message, "grace", self._limits.grace_seconds_max, self._limits.shutdown_grace_seconds)
        if reply.connection.peer == self._agent.pid:
            # The agent is among those to be ended: it must not wait for its own end.
            reply.done()
            self._stop_all(grace, _nobody_waits)
        else:
            self._stop_all(grace, reply.done)

    def _status(self, _message: "Message", reply: Reply) -> None:
        agent = self._agent
        reply.done(
            {
                "pid": os.getpid(),
                "agent_state": agent.state,
                "agent_pid": agent.pid,
                "agent_starts": agent.starts,
                "agent_version": agent.version,
                "agent_healthy": agent.healthy,
                "fell_back": agent.gave_up,
                "slots": self._slots.running,
                "limits": self._children.confinement,
            }
        )

    def _inside(self, path: str) -> str:
        real = os.path.realpath(path)
        if not real.startswith(self._data + "/"):
            raise Invalid("cwd must be inside the data folder")
        return real


def _nobody_waits() -> None:
    """Stand in for an answer that was given already."""


class _ProbeRun:
    """One command probe: its process, its time, the end of its output."""

    def __init__(self, loop: Loop, limits: SupervisorLimits, children: Children, reply: Reply, over: "Callable[[], None]") -> None:
        self._loop = loop
        self._limits = limits
        self._children = children
        self._reply = reply
        self._over = over
        self._output = bytearray()
        self._late = False
        self._reader = -1
        self._timer: Timer | None = None

    def start(self, order_for: "Callable[[int], Order]", seconds: float) -> None:
        """Start the command that `order_for(output descriptor)` gives. Raises `SlotRefused`, `Refused`, `OSError`."""
        self._reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reader, False)
        try:
            order = order_for(writer)
            cgroup = order.confinement.cgroup if order.confinement is not None else None
            child = self._children.start(order, os.urandom(8).hex(), self._ended, cgroup)
        except (SpawnFailed, SlotRefused, OSError) as error:
            os.close(self._reader)
            if isinstance(error, SpawnFailed):
                raise Refused("NotStarted", str(error), error.number) from error
            raise
        finally:
            os.close(writer)
        self._loop.watch(self._reader, self._read)
        self._timer = self._loop.later(seconds, lambda: self._too_late(child))

    def _read(self, _events: int) -> None:
        try:
            data = os.read(self._reader, 65536)
        except BlockingIOError:
            return
        self._output += data
        del self._output[: -int(self._limits.probe_output_bytes_max)]
        if not data:
            self._loop.unwatch(self._reader)

    def _too_late(self, child: Child) -> None:
        self._late = True
        self._children.kill(child)

    def _ended(self, code: int) -> None:
        self._loop.cancel(self._timer)
        self._read(0)
        self._loop.unwatch(self._reader)
        os.close(self._reader)
        self._over()
        self._reply.done({"code": None if self._late else code, "output": self._output.decode(errors="replace")})
