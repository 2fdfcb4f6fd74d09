"""A control plane that was away, and a whole fleet that finds it again at the same moment. Measured once, for time and memory."""

import asyncio
import contextlib
import os
import tempfile
import time
from functools import cache
from pathlib import Path

import msgspec

from benchmarks._fleet import Fleet, Server, bare_server, control_plane, make_fleet
from benchmarks._load import Agents, Caller, cpu_seconds, percentile, poll_request, run
from edgewise.resources.states import Connection
from edgewise.wire.desired import DesiredState

AGENTS = 10_000
_WAIT = 280
_SETTLE_SECONDS = 3.0
_REST_SECONDS = 15.0
"""After the wave, until its memory is read: the control plane gives back what only the handshakes needed."""
_PER_TURN = 8
"""How many begin before this process sends what is to be sent: they are many machines, which do not wait for each other to begin."""
_GIVE_UP_SECONDS = 120.0
_RETRY_SECONDS = 1.0
_STATE = msgspec.msgpack.Decoder(DesiredState)


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Megabytes (10^6 bytes): resident now and at most so far, and proportional (shared pages shared out)."""

    rss: float
    peak: float
    pss: float


class Wave(msgspec.Struct, kw_only=True):
    """How it went. `served_at`: seconds from the start until an agent had its first answer, for each that had one. `server_cpu`,
    `load_cpu`: CPU seconds of the server and of this process meanwhile."""

    served_at: list[float] = []
    statuses: dict[int, int] = {}
    without_retry_after: int = 0
    broken: dict[str, int] = {}
    open_polls: int = 0
    server_cpu: float = 0.0
    load_cpu: float = 0.0

    @property
    def seconds(self) -> float:
        """Until the last agent that was served."""
        return max(self.served_at, default=_GIVE_UP_SECONDS)

    def describe(self) -> str:
        """Say how it went."""
        parts = [f"{len(self.served_at):,} served, half of them within {percentile(self.served_at, 0.5):.1f} s"]
        parts += [f"{count:,} with {status}" for status, count in sorted(self.statuses.items())]
        parts += [f"{count:,} with {reason}" for reason, count in self.broken.items()]
        there = self.seconds * (os.cpu_count() or 1)
        parts.append(f"CPU seconds: server {self.server_cpu:.1f}, load generator {self.load_cpu:.1f}, of {there:.1f} there were")
        return ", ".join(parts)


class Storm(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured of the control plane; `bare` is the same wave on the baseline."""

    wave: Wave
    bare: Wave
    idle: Memory
    connected: Memory


@cache
def storm() -> Storm:
    """Measure once."""
    with tempfile.TemporaryDirectory() as place:
        fleet = make_fleet(Path(place), AGENTS, workload=True, connection=Connection.OFFLINE)
        with bare_server(fleet) as server:
            bare, _ = run(_wave(fleet, server, stay=False))
        with control_plane(fleet) as server:
            time.sleep(_SETTLE_SECONDS)
            idle = memory_of(server.pid)
            wave, connected = run(_wave(fleet, server, stay=True))
    return Storm(wave=wave, bare=bare, idle=idle, connected=connected)


class _Agents:
    """Every agent asks for its documents; then, with `stay`, it waits for the next ones as long as it can."""

    def __init__(self, fleet: Fleet, server: Server, *, stay: bool) -> None:
        self.wave = Wave(served_at=[], statuses={}, broken={})
        self.all_served = asyncio.Event()
        self._count = len(fleet.names)
        self._agents = Agents(fleet, server.address)
        self._stay = stay
        self._served: set[int] = set()
        self._polling: set[int] = set()
        self._began = time.perf_counter()

    async def come(self) -> None:
        """Let all come at once; return when all are served, or it takes too long."""
        self._began = time.perf_counter()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._come(), _GIVE_UP_SECONDS)

    async def _come(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._count):
                tasks.create_task(self._one(number))
                if number % _PER_TURN == 0:
                    await asyncio.sleep(0)
            await self.all_served.wait()

    async def _one(self, number: int) -> None:
        while True:
            try:
                caller = await self._agents.connect(number, self._answered)
            except OSError as error:
                reason = type(error).__name__
                self.wave.broken[reason] = self.wave.broken.get(reason, 0) + 1
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            caller.send(poll_request("1.0", 0 if not self._stay else _WAIT))
            return

    def _answered(self, caller: Caller, status: int, body: bytes) -> None:
        wave = self.wave
        wave.statuses[status] = wave.statuses.get(status, 0) + 1
        self._polling.discard(caller.number)
        if status not in {200, 204}:
            if status != 503 or not caller.retry_after:
                wave.without_retry_after += 1
            delay = caller.retry_after or _RETRY_SECONDS
            asyncio.get_running_loop().call_later(delay, caller.send, poll_request("1.0", 0 if not self._stay else _WAIT))
            return
        if caller.number not in self._served:
            self._served.add(caller.number)
            wave.served_at.append(time.perf_counter() - self._began)
            if len(self._served) == self._count:
                self.all_served.set()
        if self._stay:
            position = str(_STATE.decode(body).position) if body else "1.0"
            self._polling.add(caller.number)
            caller.send(poll_request(position, _WAIT))

    @property
    def polling(self) -> int:
        """How many wait."""
        return len(self._polling)


async def _wave(fleet: Fleet, server: Server, *, stay: bool) -> tuple[Wave, Memory]:
    agents = _Agents(fleet, server, stay=stay)
    cpu, own = cpu_seconds(server.pid), time.process_time()
    await agents.come()
    agents.wave.server_cpu, agents.wave.load_cpu = cpu_seconds(server.pid) - cpu, time.process_time() - own
    if stay:
        await asyncio.sleep(_REST_SECONDS)
    agents.wave.open_polls = agents.polling
    return agents.wave, memory_of(server.pid)


def memory_of(pid: int) -> Memory:
    """Return the memory of a process now."""
    lines = [*Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:], *Path(f"/proc/{pid}/status").read_text().splitlines()]
    fields = dict(line.split(":", 1) for line in lines)
    rss, peak, pss = (int(fields[name].split()[0]) * 1024 / 1e6 for name in ("Rss", "VmHWM", "Pss"))
    return Memory(rss=rss, peak=peak, pss=pss)
