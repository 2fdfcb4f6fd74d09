"""Durable reports per second through mutual TLS: the gateway beside a bare endpoint that decodes and answers the same message.

Both servers run, all connections to both are open, and they are measured in turns: so both see the same machine, whoever else uses it. Only
200s count: each stands for a status that was written and synced to the disk.
"""

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from benchmarks._fleet import Fleet, Server, bare_server, control_plane, make_fleet
from benchmarks._load import Agents, Caller, Counts, Reporter, cpu_seconds, percentile, run
from benchmarks.row import Row
from edgewise.resources.states import Connection

CONNECTIONS = 5_000
FEW = 64
ROUNDS = 3
WARM_UP_SECONDS = 1.5
SECONDS = 3.0
RATIO = 0.30
_DRAIN_SECONDS = 30.0


class Load:
    """Agents that always have one report in flight while `measure` runs. What was shed is sent again after Retry-After."""

    def __init__(self, fleet: Fleet, server: Server) -> None:
        self._fleet = fleet
        self._server = server
        self._reporters = [Reporter(name) for name in fleet.names]
        self._callers: list[Caller] = []
        self._counts: Counts | None = None
        self._going = False
        self._in_flight = 0
        self._all_answered = asyncio.Event()

    async def connect(self, count: int) -> None:
        """Connect so many agents."""
        self._callers = await Agents(self._fleet, self._server.address).connect_all(range(count), self._answered)

    def keep(self, count: int) -> None:
        """Drop all but so many connections."""
        for caller in self._callers[count:]:
            caller.close()
        del self._callers[count:]

    async def measure(self, warm_up: float, seconds: float) -> Counts:
        """Load the server; return what was answered in `seconds` after `warm_up`. Returns once everything in flight was answered."""
        self._going = True
        for caller in self._callers:
            self._send(caller)
        await asyncio.sleep(warm_up)
        counts = self._counts = Counts(statuses={}, latencies=[])
        began, cpu, own = time.perf_counter(), cpu_seconds(self._server.pid), time.process_time()
        await asyncio.sleep(seconds)
        self._going, self._counts = False, None
        counts.seconds = time.perf_counter() - began
        counts.server_cpu, counts.load_cpu = cpu_seconds(self._server.pid) - cpu, time.process_time() - own
        counts.lost = sum(caller.lost for caller in self._callers)
        if self._in_flight:
            self._all_answered.clear()
            with contextlib.suppress(TimeoutError):  # connections that were lost are counted
                await asyncio.wait_for(self._all_answered.wait(), _DRAIN_SECONDS)
            self._in_flight = 0
        return counts

    def _send(self, caller: Caller) -> None:
        if self._going and not caller.lost:
            self._in_flight += 1
            caller.send(self._reporters[caller.number].next())

    def _answered(self, caller: Caller, status: int, _body: bytes) -> None:
        self._in_flight -= 1
        counts = self._counts
        if counts is not None:
            counts.statuses[status] = counts.statuses.get(status, 0) + 1
            if status == 200:
                counts.latencies.append(time.perf_counter() - caller.sent_at)
        if not self._in_flight:
            self._all_answered.set()
        if caller.retry_after:
            asyncio.get_running_loop().call_later(caller.retry_after, self._send, caller)
        else:
            self._send(caller)


def measure() -> Iterator[Row]:
    """Measure with `CONNECTIONS`, and for information with `FEW`."""
    with tempfile.TemporaryDirectory() as place:
        fleet = make_fleet(Path(place), CONNECTIONS, workload=True, connection=Connection.ONLINE)
        with bare_server(fleet) as bare, control_plane(fleet) as control:
            many, few = run(_measure(fleet, bare, control))
    yield _row(CONNECTIONS, many, f"at least {RATIO:.2f} of the bare endpoint", RATIO)
    yield _row(FEW, few, "", None)


Pairs = list[tuple[Counts, Counts]]


async def _measure(fleet: Fleet, bare: Server, control: Server) -> tuple[Pairs, Pairs]:
    loads = (Load(fleet, bare), Load(fleet, control))
    for load in loads:
        await load.connect(CONNECTIONS)
    many = await _rounds(loads, ROUNDS)
    for load in loads:
        load.keep(FEW)
    return many, await _rounds(loads, 1)


async def _rounds(loads: tuple[Load, Load], rounds: int) -> Pairs:
    bare, control = loads
    return [(await bare.measure(WARM_UP_SECONDS, SECONDS), await control.measure(WARM_UP_SECONDS, SECONDS)) for _ in range(rounds)]


def _row(connections: int, pairs: Pairs, target: str, least: float | None) -> Row:
    value, baseline = (median(pair[which].per_second for pair in pairs) for which in (1, 0))
    ratio = median(control.per_second / bare.per_second for bare, control in pairs)
    control, bare = pairs[-1][1], pairs[-1][0]
    note = (
        f"CPU per report {_microseconds(control)} µs, bare {_microseconds(bare)} µs, the load generator uses "
        f"{control.load_cpu / control.seconds:.2f} cores; latency p50 {percentile(control.latencies, 0.5) * 1e3:.0f} ms, "
        f"p99 {percentile(control.latencies, 0.99) * 1e3:.0f} ms; answers: {_others([pair[1] for pair in pairs])}"
    )
    return Row(
        name=f"durable reports, {connections:,} connections",
        unit="1/s",
        value=value,
        baseline=baseline,
        ratio=ratio,
        target=target,
        met=None if least is None else ratio >= least,
        note=note,
    )


def _microseconds(counts: Counts) -> str:
    return f"{counts.server_cpu / max(1, counts.answered) * 1e6:.0f}"


def _others(all_counts: Sequence[Counts]) -> str:
    return "; ".join(dict.fromkeys(counts.describe() for counts in all_counts))
