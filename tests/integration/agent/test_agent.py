"""The whole device side on real processes: supervisor, agent, fetch process and a workload, against a gateway with faults."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from edgewise.agent.status import read_status, status_lines
from edgewise.ports.disk import DiskFiles
from edgewise.resources.artifact import Probe, Probes
from edgewise.supervisor.launch import supervisor_argv
from edgewise.wire.desired import DesiredState, DeviceDesired, InstanceDesired, Position, StreamRequest
from edgewise.wire.report import DeviceReport, EventReport, FrameReport, InstanceReport

PROGRAM = b"""
import os, sys, time
from edgewise import workload
print("started", os.environ["EDGEWISE_REVISION"], flush=True)
while True:
    try:
        workload.heartbeat()
        workload.metric("beats", 1.0)
    except Exception as error:
        print("the agent is away:", error, flush=True)
    time.sleep(0.2)
"""


class Device:
    """A device's processes on a data folder."""

    def __init__(self, data: str) -> None:
        self.data = data
        self.process: subprocess.Popen | None = None
        self.log = Path(f"{data}.log").open("ab")  # noqa: SIM115  # until `stop`

    def start(self) -> None:
        argv = supervisor_argv(
            self.data, [sys.executable, "-m", "edgewise.agent", "--data", self.data], ["agent_backoff_seconds_first=0.1"]
        )
        env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        self.process = subprocess.Popen(argv, env=env, stdout=self.log, stderr=self.log, start_new_session=True)

    @property
    def agent(self) -> int:
        return next(pid for pid, argv in processes() if argv[1:3] == ["-m", "edgewise.agent"] and self.data in argv)

    def kill(self) -> None:
        """Take the power away from all of it."""
        if self.process is not None:
            for pid, _ in [
                (each, argv) for each, argv in processes() if self.data in " ".join(argv) or self.data.encode() in environ(each)
            ]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait(60)
            self.process = None

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(60)
            self.kill()
        self.log.close()


def processes() -> list[tuple[int, list[str]]]:
    return [(int(each.name), _read(each / "cmdline").decode().split("\0")) for each in Path("/proc").iterdir() if each.name.isdigit()]


def environ(pid: int) -> bytes:
    return _read(Path(f"/proc/{pid}/environ"))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.fixture
def device(fleet, tmp_path):
    data = tmp_path / "device"
    fleet.join(data, labels={"camera": "front"}, telemetry_seconds=0.5)
    device = Device(str(data))
    yield device
    device.stop()


@pytest.fixture
def want(fleet):
    """Ask for instances; each call is a newer document."""
    counter = iter(range(1, 100))

    def ask(*instances: InstanceDesired, **changes) -> Position:
        position = Position(1, next(counter))
        fleet.want(
            DesiredState(
                position=position, devices=(DeviceDesired(device="cam-1", uid="d1", position=position, instances=instances, **changes),)
            )
        )
        return position

    return ask


def instance(target, revision: str = "r1", **changes) -> InstanceDesired:
    defaults = {"name": "line-3/camera", "uid": "i1", "epoch": 1, "revision": revision, "artifact": target, "probation_seconds": 0.2}
    return InstanceDesired(**{**defaults, **changes})


@pytest.fixture
def latest(fleet):
    def status(name: str = "line-3/camera"):
        return next((each.status for each in reversed(fleet.items) if isinstance(each, InstanceReport) and each.name == name), None)

    return status


HEARTBEAT = {"probes": Probes(liveness=Probe(heartbeat=True, period_seconds=5))}


def test_a_device_runs_what_it_is_told_and_goes_on_without_a_network(fleet, device, want, latest, wait_for):
    target = fleet.release(fleet.bundle({"main.py": PROGRAM}, variant=HEARTBEAT))
    position = want(instance(target))
    device.start()
    wait_for(lambda: latest() and latest().committed == "r1" and latest().ready)
    reports = [each for each in fleet.items if isinstance(each, DeviceReport)]
    assert any(each.capacity is not None and each.capacity.cpu_milli > 0 for each in reports)
    wait_for(lambda: any(isinstance(each, DeviceReport) and each.observed == position for each in fleet.items))
    wait_for(lambda: any(isinstance(each, FrameReport) and each.series[0].name == "beats" for each in fleet.items))

    # nothing big was loaded on the way
    libraries = _read(Path(f"/proc/{device.agent}/maps")).decode()
    assert not [name for name in ("unicodedata", "_asyncio", "_json", "_hashlib", "cryptography", "psutil") if f"{name}." in libraries]

    # its log can be read from afar
    fleet.want(DesiredState(position=position, streams=(StreamRequest(id="s1", device="cam-1", instance="line-3/camera"),)))
    wait_for(lambda: b"started r1" in fleet.streams.get("s1", b""))

    # an agent's end touches no workload
    workload = next(pid for pid, argv in processes() if any("main.py" in part for part in argv) and device.data.encode() in environ(pid))
    session = fleet.reports[-1].session
    os.kill(device.agent, signal.SIGKILL)
    wait_for(lambda: fleet.reports[-1].session != session)
    os.kill(workload, 0)
    assert {each.incarnation for each in fleet.reports} == {fleet.reports[0].incarnation}

    # power off, network gone, power on: it runs again
    device.kill()
    fleet.gateway.stop()
    device.start()
    wait_for(lambda: any(any("main.py" in part for part in argv) and device.data.encode() in environ(pid) for pid, argv in processes()))
    wait_for(lambda: read_status(DiskFiles(device.data)).agent.online is not True)

    # and what happened meanwhile arrives
    before = len(fleet.items)
    fleet.gateway.start()
    wait_for(lambda: len(fleet.items) > before and latest().ready)
    assert fleet.polls[-1][1] == str(position)
    local = read_status(DiskFiles(device.data))
    text = "\n".join(status_lines(local, time.time()))
    assert "cam-1" in text
    assert fleet.gateway.address in text


def test_an_update_that_cannot_be_verified_leaves_what_runs(fleet, device, want, latest, wait_for):
    target = fleet.release(fleet.bundle({"main.py": PROGRAM}, variant=HEARTBEAT))
    want(instance(target))
    device.start()
    wait_for(lambda: latest() and latest().committed == "r1")
    worse = PROGRAM + b"# two\n"
    second = fleet.release(fleet.bundle({"main.py": worse}, version="2", variant=HEARTBEAT))
    digest = next(digest for digest, data in fleet.blobs.items() if data == worse)
    fleet.blobs[digest] = worse[:-1] + b"!"
    want(instance(second, "r2"))
    wait_for(lambda: latest().reason == "WrongDigest" or "not what was signed" in latest().message)
    assert latest().revision == "r1"
    assert latest().ready
    assert any(isinstance(each, EventReport) and each.type == "Warning" for each in fleet.items)


def test_retry_after_is_honoured_and_nothing_is_lost(fleet, device, want, wait_for, helpers):
    fleet.report_refusal = helpers.error_reply(503, "Overloaded", Retry_After="2")
    device.start()
    wait_for(lambda: any(each.target == "/v1/report" for each in fleet.gateway.requests))
    wait_for(lambda: sum(each.target == "/v1/report" for each in fleet.gateway.requests) >= 2)
    first, second = [each.at for each in fleet.gateway.requests if each.target == "/v1/report"][:2]
    assert second - first >= 2
    fleet.report_refusal = None
    wait_for(lambda: any(isinstance(each, DeviceReport) and each.capacity for each in fleet.items))
    first = {lane: run.first for lane, run in fleet.reports[0].lanes.items()}
    assert set(first.values()) == {1}


def test_a_decommissioned_device_forgets_everything(fleet, device, want, latest, wait_for):
    target = fleet.release(fleet.bundle({"main.py": PROGRAM}, variant=HEARTBEAT))
    want(instance(target))
    device.start()
    wait_for(lambda: latest() and latest().committed == "r1")
    want(decommission=True)
    wait_for(lambda: any(isinstance(each, DeviceReport) and each.decommissioned for each in fleet.items))
    wait_for(lambda: device.process.poll() is not None)
    assert not Path(f"{device.data}/identity/key.pem").exists()
    assert not Path(f"{device.data}/trees").exists()


def test_the_certificate_is_renewed_when_the_control_plane_turns_it_down(fleet, device, wait_for, helpers):
    before = Path(f"{device.data}/identity/certificate.pem").read_text()
    fleet.report_refusal = helpers.error_reply(401, "CertificateExpired")
    device.start()
    wait_for(lambda: any(each.target == "/v1/report" for each in fleet.gateway.requests))
    wait_for(lambda: Path(f"{device.data}/identity/certificate.pem").read_text() != before)
    fleet.report_refusal = None


def test_a_damaged_identity_does_not_keep_the_workloads_from_running(fleet, device, want, latest, wait_for):
    target = fleet.release(fleet.bundle({"main.py": PROGRAM}, variant=HEARTBEAT))
    want(instance(target))
    device.start()
    wait_for(lambda: latest() and latest().committed == "r1")
    device.kill()
    Path(f"{device.data}/identity/certificate.pem").write_text("nonsense")
    device.start()
    wait_for(lambda: any(any("main.py" in part for part in argv) and device.data.encode() in environ(pid) for pid, argv in processes()))


def test_a_certificate_file_that_rotted_is_mended_and_the_device_talks_again(fleet, device, wait_for):
    device.start()
    wait_for(lambda: any(each.target == "/v1/report" for each in fleet.gateway.requests))
    device.kill()
    path = Path(f"{device.data}/identity/certificate.pem")
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"A", b"B", 1))
    fleet.gateway.requests.clear()
    device.start()
    wait_for(lambda: any(each.target == "/v1/report" for each in fleet.gateway.requests))
    assert path.read_bytes() == whole


def test_a_device_that_has_not_joined_says_so(tmp_path):
    (tmp_path / "empty").mkdir()
    ended = subprocess.run(
        [sys.executable, "-m", "edgewise.agent", "--data", str(tmp_path / "empty")], capture_output=True, timeout=60, check=False
    )
    assert ended.returncode == 3
    assert b"edgewise agent join" in ended.stderr
    ended = subprocess.run([sys.executable, "-m", "edgewise.agent"], capture_output=True, timeout=60, check=False)
    assert ended.returncode == 2


def test_the_status_of_a_device_is_told_from_its_files(tmp_path):
    files = DiskFiles(str(tmp_path))
    local = read_status(files)
    assert local.config is None
    assert "has not joined" in local.problem
    assert status_lines(local, 0.0)[-1].endswith("has not run here yet")
    assert msgspec.to_builtins(local)["agent"] is None
