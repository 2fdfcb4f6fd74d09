"""A control plane's data folder with a fleet enrolled in it, made without the devices: documents are written straight into the store,
certificates issued by the folder's own authority. What a control plane finds that was stopped with a fleet, in seconds.

All agents share one key, with a certificate each: the handshake costs the same, and 10,000 keys need not be made.
"""

import asyncio
import base64
import contextlib
import ctypes
import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from edgewise.control.data import open_data
from edgewise.delivery.templates import template_hash
from edgewise.resources.artifact import ArtifactSpec, ArtifactVersionSpec, File, Manifest, Profile, Variant, VariantRequirements
from edgewise.resources.device import AgentSpec, AgentStatus, Capacity, DeviceSpec, DeviceStatus
from edgewise.resources.instance import InstanceSpec, InstanceStatus
from edgewise.resources.selector import Requirement, Selector
from edgewise.resources.site import SiteSpec
from edgewise.resources.states import Connection, DeviceUpdate, Health, InstanceState
from edgewise.resources.workload import (
    ArtifactReference,
    EveryMatchingDevice,
    Placement,
    Template,
    WorkloadRevisionSpec,
    WorkloadSpec,
    WorkloadStatus,
)
from edgewise.store.codec import encode
from edgewise.store.contract import Key, Put, StoreLimits, Transaction
from edgewise.store.sqlite import open_store
from edgewise.trust.keys import new_device_key, signing_request
from edgewise.wire.report import InstanceReport

NAMESPACE = "line-3"
WORKLOAD = "inspector"
_BATCH = 1_000
_END_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1

CAPACITY = Capacity(
    architecture="aarch64",
    cpu_milli=4_000,
    memory_nominal=8 * 2**30,
    memory=7 * 2**30,
    disk=64 * 2**30,
    runtimes={"python": "3.11.9", "onnxruntime": "1.20.1"},
    peripherals=("front-camera",),
    os="Debian 12",
    kernel="6.1.0-21-arm64",
    network={"eth0": "1000 Mbit/s"},
)
_DIGEST = "sha256:" + "5d" * 32
_MANIFEST = Manifest(
    type="model",
    namespace=NAMESPACE,
    artifact=WORKLOAD,
    version="2",
    variants=(
        Variant(
            name="int8",
            files=(File(path="model.onnx", digest=_DIGEST, size=12_000_000),),
            runtime="onnxruntime",
            precision="int8",
            requirements=VariantRequirements(runtimes={"onnxruntime": "1.16"}),
            profile=Profile(latency_p50_ms=4.0, quality={"accuracy": 0.97}),
        ),
    ),
)
_TEMPLATE = Template(artifact=WORKLOAD, version="2", manifest_digest=_DIGEST)
REVISION = template_hash(_TEMPLATE)


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """A data folder and the identities of those enrolled in it, all in PEM: for each name a certificate chain as a device keeps it, and one
    key for all."""

    data: Path
    names: tuple[str, ...]
    chains: tuple[str, ...]
    key_pem: str
    authority_pem: str


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A running control plane, or the baseline in its place: its process, where devices reach it, the operator API and an admin token."""

    pid: int
    address: tuple[str, int]
    api: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return f"Server(pid={self.pid})"


def make_fleet(place: Path, count: int, *, workload: bool, connection: Connection) -> Fleet:
    """Enrol `count` agents with a device each in a new data folder under `place`; with `workload`, each device runs an instance.
    `connection` is how the devices were last seen."""
    now = time.time()
    folder = open_data(place / "data", "bench", now)
    try:
        issuer, key = folder.keys.issuer(), new_device_key()
        names = tuple(f"device-{number:05}" for number in range(count))
        request = signing_request(key, "all")
        chains = tuple(issuer.issue_agent(request, name, now) for name in names)
        asyncio.run(_fill(folder.store, names, now, workload=workload, connection=connection))
        return Fleet(data=folder.path, names=names, chains=chains, key_pem=key, authority_pem=issuer.authority_pem)
    finally:
        folder.close()


def uid_of(name: str) -> str:
    """Return the uid of the instance on a device."""
    return f"{int(name.rpartition('-')[2]):032x}"


def status_report(name: str, restarts: int) -> InstanceReport:
    """Return what a device says of its instance: its whole status. `restarts` makes it differ."""
    return InstanceReport(device=name, name=f"{NAMESPACE}/{WORKLOAD}", uid=uid_of(name), status=_status(restarts))


def _status(restarts: int) -> InstanceStatus:
    return InstanceStatus(
        observed_epoch=1,
        state=InstanceState.RUNNING,
        revision=REVISION,
        committed=REVISION,
        variant="int8",
        slot="a",
        ready=True,
        restarts=restarts,
        address="127.0.0.1:43117",
        started_at=1.76e9 + restarts,
        ready_at=1.76e9 + restarts + 1.5,
    )


async def _fill(path: Path, names: tuple[str, ...], now: float, *, workload: bool, connection: Connection) -> None:
    store = await open_store(path, StoreLimits())
    try:
        puts = [_put("Site", "", "plant-7", SiteSpec())]
        if workload:
            puts += _workload_puts(len(names))
        for name in names:
            puts += _agent_puts(name, now, connection)
            if workload:
                spec = InstanceSpec(workload=WORKLOAD, device=name, revision=REVISION, variant="int8")
                put = _put("Instance", NAMESPACE, f"{WORKLOAD}.{name}", spec, _status(0))
                puts.append(msgspec.structs.replace(put, uid=uid_of(name)))
        for first in range(0, len(puts), _BATCH):
            await store.write(Transaction(now=now, writes=tuple(puts[first : first + _BATCH])))
        await store.compact(0)
    finally:
        await store.close()


def _workload_puts(count: int) -> list[Put]:
    """Return a workload that runs on every device with a camera, rolled out long ago."""
    target = f"releases/{NAMESPACE}/{WORKLOAD}/2.json"
    selector = Selector(match_expressions=(Requirement(key="camera", operator="Exists"),))
    spec = WorkloadSpec(
        artifact=ArtifactReference(name=WORKLOAD, version="2"),
        placement=Placement(every_matching_device=EveryMatchingDevice(), selector=selector),
    )
    status = WorkloadStatus(observed_generation=1, revision=REVISION, stable_revision=REVISION, revisions=1, instances=count, ready=count)
    revision = WorkloadRevisionSpec(workload=WORKLOAD, hash=REVISION, number=1, template=_TEMPLATE)
    return [
        _put("Artifact", NAMESPACE, WORKLOAD, ArtifactSpec()),
        _put(
            "ArtifactVersion",
            NAMESPACE,
            f"{WORKLOAD}:2",
            ArtifactVersionSpec(manifest=_MANIFEST, target=target, digest=_DIGEST, length=900),
        ),
        _put("WorkloadRevision", NAMESPACE, f"{WORKLOAD}-{REVISION}", revision),
        _put("Workload", NAMESPACE, WORKLOAD, spec, status),
    ]


def _agent_puts(name: str, now: float, connection: Connection) -> list[Put]:
    sealing = base64.urlsafe_b64encode(name.encode().ljust(32)).decode().rstrip("=")
    agent = AgentSpec(devices=(name,), key_digest="sha256:" + "ab" * 32, sealing_key=sealing)
    agent_status = AgentStatus(certificate_serial="5f" * 20, certificate_not_after=now + 90 * 86_400, joined_at=now)
    device_status = DeviceStatus(
        connection=connection,
        health=Health.HEALTHY,
        update=DeviceUpdate.UP_TO_DATE,
        capacity=CAPACITY,
        agent_version="0.1.0",
        boot_id=_uid("boot", "", name),
        last_seen=now,
    )
    device = _put("Device", "", name, DeviceSpec(agent=name, site="plant-7", device_class="camera-box"), device_status)
    return [_put("Agent", "", name, agent, agent_status), msgspec.structs.replace(device, labels={"camera": "front"})]


def _put(kind: str, namespace: str, name: str, spec: msgspec.Struct, status: msgspec.Struct | None = None) -> Put:
    status_bytes = b"" if status is None else encode(status)
    return Put(key=Key(kind, namespace, name), spec=encode(spec), uid=_uid(kind, namespace, name), status=status_bytes)


def _uid(kind: str, namespace: str, name: str) -> str:
    return hashlib.sha256(f"{kind}/{namespace}/{name}".encode()).hexdigest()[:32]


@contextlib.contextmanager
def control_plane(fleet: Fleet) -> Iterator[Server]:
    """Run a control plane with its default settings as a process of its own, over a fleet's data folder. Ends it in order."""
    edgewise = str(Path(sys.executable).with_name("edgewise"))
    command = [edgewise, "up", "--data", str(fleet.data), "--no-write-context", "-o", "json"]
    command += ["--api-port", "0", "--gateway-port", "0", "--gateway-host", "127.0.0.1", "--public-host", "127.0.0.1"]
    with running(command) as (process, first):
        facts = msgspec.json.decode(first)
        port = int(facts["gatewayAddresses"][0].rpartition(":")[2])
        yield Server(pid=process.pid, address=("127.0.0.1", port), api=facts["apiAddress"], token=facts["adminToken"])


@contextlib.contextmanager
def bare_server(fleet: Fleet) -> Iterator[Server]:
    """Run the baseline (`_bare.py`) as a process of its own, with the fleet's certificates."""
    with running([sys.executable, "-m", "benchmarks._bare", str(fleet.data)]) as (process, first):
        yield Server(pid=process.pid, address=("127.0.0.1", int(first)))


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[tuple["subprocess.Popen[bytes]", bytes]]:
    """Run a server process; yield it with the first line it prints, which says that it answers."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1], preexec_fn=_end_with_parent) as process:  # noqa: PLW1509 - no threads here
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            if not first:
                raise RuntimeError(f"{' '.join(command[:4])} … ended with status {process.wait()}")
            yield process, first
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _end_with_parent() -> None:
    """Leave no server behind when the benchmark is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
