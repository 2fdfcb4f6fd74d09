"""From a person's change to the device that it is for, with thousands of other devices waiting.

Every change is made through the operator API and is durable; it is measured from the moment the request is sent until the device's open
poll brings its new document. One change after the other, each for a device of its own. Two sorts: one of a device itself (clear-refused),
and a Config, which makes a new revision of a workload, a rollout, and its first wave.
"""

import asyncio
import ssl
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import httpx
import msgspec

from benchmarks._fleet import NAMESPACE, WORKLOAD, Fleet, Server, bare_server, control_plane, make_fleet
from benchmarks._load import Agents, Caller, percentile, poll_request, run
from benchmarks.row import Row
from edgewise.resources.config import Config, ConfigSpec
from edgewise.resources.meta import Metadata
from edgewise.resources.selector import Requirement, Selector
from edgewise.resources.states import Connection
from edgewise.resources.workload import ArtifactReference, NameReference, Placement, Workload, WorkloadSpec
from edgewise.wire.desired import DesiredState

POLLS = 5_000
CHANGES = 120
CONFIGS = 10
CONFIG_CHANGES = 60
PAUSE_SECONDS = 0.04
ROUND_TRIPS = 200
P99_MS = 250.0
_API = "/apis/v1alpha1"
_ARRIVE_SECONDS = 30.0
_WAIT = 280
_STATE = msgspec.msgpack.Decoder(DesiredState)


class Polls:
    """Agents that always have a poll open."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._position = [""] * len(fleet.names)
        self._arrivals: list[asyncio.Future[float] | None] = [None] * len(fleet.names)
        self._all_open = asyncio.Event()
        self.documents = 0
        self.wrong: dict[int, int] = {}

    async def open(self, server: Server) -> None:
        """Connect all agents; each fetches its document and waits for the next."""
        callers = await Agents(self._fleet, server.address).connect_all(range(len(self._fleet.names)), self._answered)
        for caller in callers:
            caller.send(poll_request("", _WAIT))
        async with asyncio.timeout(_ARRIVE_SECONDS):
            await self._all_open.wait()

    def next_of(self, number: int) -> "asyncio.Future[float]":
        """Return when (by `time.perf_counter`) an agent's next document comes."""
        future = self._arrivals[number] = asyncio.get_running_loop().create_future()
        return future

    def _answered(self, caller: Caller, status: int, body: bytes) -> None:
        now = time.perf_counter()
        if status not in {200, 204}:
            self.wrong[status] = self.wrong.get(status, 0) + 1
        if status == 200:
            self.documents += 1
            if self.documents == len(self._position):
                self._all_open.set()
            self._position[caller.number] = str(_STATE.decode(body).position)
            arrival, self._arrivals[caller.number] = self._arrivals[caller.number], None
            if arrival is not None and not arrival.done():
                arrival.set_result(now)
        caller.send(poll_request(self._position[caller.number], _WAIT))


class Operator:
    """A person with the admin token."""

    def __init__(self, fleet: Fleet, server: Server) -> None:
        self._client = httpx.AsyncClient(
            base_url=server.api,
            verify=ssl.create_default_context(cadata=fleet.authority_pem),
            headers={"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"},
            timeout=30.0,
        )

    async def __aenter__(self) -> Self:
        await self.send("GET", "/sites")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def send(self, method: str, path: str, resource: msgspec.Struct | None = None) -> None:
        """Send a request; raise unless it is granted."""
        body = msgspec.json.encode(resource) if resource is not None else b""
        response = await self._client.request(method, _API + path, content=body)
        if response.status_code >= 300:
            raise RuntimeError(f"{method} {path}: {response.status_code} {response.text[:500]}")


def measure() -> Iterator[Row]:
    """Measure both sorts of change, and a bare request and answer beside them."""
    with tempfile.TemporaryDirectory() as place:
        fleet = make_fleet(Path(place), POLLS, workload=True, connection=Connection.ONLINE)
        with bare_server(fleet) as bare:
            round_trips = run(_round_trips(fleet, bare))
        with control_plane(fleet) as control:
            device_changes, config_changes, note = run(_changes(fleet, control))
    yield _row("a change of a device", device_changes, round_trips, note)
    yield _row("a Config's rollout", config_changes, round_trips, note)


async def _round_trips(fleet: Fleet, bare: Server) -> list[float]:
    """Return the seconds that a request and its answer take on one connection."""
    answered = asyncio.Event()
    caller = await Agents(fleet, bare.address).connect(0, lambda *_: answered.set())
    taken: list[float] = []
    for _ in range(ROUND_TRIPS):
        answered.clear()
        caller.send(poll_request("", 0))
        await answered.wait()
        taken.append(time.perf_counter() - caller.sent_at)
        await asyncio.sleep(0.005)
    caller.close()
    return taken


async def _changes(fleet: Fleet, control: Server) -> tuple[list[float], list[float], str]:
    polls = Polls(fleet)
    async with Operator(fleet, control) as operator:
        await polls.open(control)
        await _make_workloads(fleet, operator, polls)
        before = polls.documents
        device_changes = [await _cleared(fleet, operator, polls, turn) for turn in range(CHANGES)]
        others = polls.documents - before - CHANGES
        config_changes = [await _configured(operator, polls, turn) for turn in range(CONFIG_CHANGES)]
    note = f"{POLLS:,} polls open, {others} devices woken without a change of theirs"
    if polls.wrong:
        note += f"; other answers: {polls.wrong}"
    return device_changes, config_changes, note


async def _cleared(fleet: Fleet, operator: Operator, polls: Polls, turn: int) -> float:
    number = CONFIGS + (turn * 37) % (len(fleet.names) - CONFIGS)
    return await _timed(operator.send("POST", f"/devices/{fleet.names[number]}/clear-refused"), polls, number)


async def _configured(operator: Operator, polls: Polls, turn: int) -> float:
    number = turn % CONFIGS
    return await _timed(operator.send("PUT", *_config(number, f"turn {turn}")), polls, number)


async def _timed(change, polls: Polls, number: int) -> float:
    """Return the seconds from sending a change until its device has it. The API's answer is waited for too, and need not be the first."""
    await asyncio.sleep(PAUSE_SECONDS)
    arrival = polls.next_of(number)
    began = time.perf_counter()
    async with asyncio.timeout(_ARRIVE_SECONDS):
        arrived, _ = await asyncio.gather(arrival, change)
    return arrived - began


async def _make_workloads(fleet: Fleet, operator: Operator, polls: Polls) -> None:
    """Have one device each run a workload that reads a Config of its own."""
    for number in range(CONFIGS):
        arrival = polls.next_of(number)
        await operator.send("PUT", *_config(number, "first"))
        await operator.send("PUT", *_workload(number, fleet.names[number]))
        async with asyncio.timeout(_ARRIVE_SECONDS):
            await arrival


def _config(number: int, text: str) -> tuple[str, Config]:
    name = f"settings-{number}"
    resource = Config(metadata=Metadata(name=name, namespace=NAMESPACE), spec=ConfigSpec(data={"threshold": text}))
    return f"/namespaces/{NAMESPACE}/configs/{name}", resource


def _workload(number: int, device: str) -> tuple[str, Workload]:
    name = f"gauge-{number}"
    spec = WorkloadSpec(
        artifact=ArtifactReference(name=WORKLOAD, version="2"),
        placement=Placement(replicas=1, selector=Selector(match_expressions=(Requirement(key="device", operator="In", values=(device,)),))),
        config=NameReference(name=f"settings-{number}"),
    )
    return f"/namespaces/{NAMESPACE}/workloads/{name}", Workload(metadata=Metadata(name=name, namespace=NAMESPACE), spec=spec)


def _row(what: str, taken: list[float], round_trips: list[float], note: str) -> Row:
    value, baseline = percentile(taken, 0.99) * 1e3, percentile(round_trips, 0.99) * 1e3
    middle, bare_middle = percentile(taken, 0.5) * 1e3, percentile(round_trips, 0.5) * 1e3
    return Row(
        name=f"{what} reaches its device, p99",
        unit="ms",
        value=value,
        baseline=baseline,
        ratio=value / baseline,
        target=f"at most {P99_MS:.0f} ms",
        met=value <= P99_MS,
        note=f"{len(taken)} changes, p50 {middle:.1f} ms, bare round trip p50 {bare_middle:.1f} ms; {note}",
    )
