"""One real device beside one real control plane: joined with a token, run by its supervisor."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks._fleet import running

EDGEWISE = str(Path(sys.executable).with_name("edgewise"))
_START_SECONDS = 30.0


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A control plane and where its files are. `run` uses the command line as an operator would."""

    folder: Path
    gateway: str

    def run(self, *arguments: str) -> bytes:
        """Run an `edgewise` command and return what it printed."""
        ended = subprocess.run([EDGEWISE, *arguments], env=self.environment, capture_output=True, timeout=300, check=False)
        if ended.returncode:
            raise RuntimeError(f"edgewise {' '.join(arguments[:3])}: {ended.stderr.decode()[-500:]}")
        return ended.stdout

    @property
    def environment(self) -> dict[str, str]:
        """What its commands need to know. Byte code is cached, as on an installed system."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return {**kept, "EDGEWISE_CONFIG": str(self.folder / "contexts.json")}


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A running device."""

    data: Path
    supervisor: int
    agent: int


@contextlib.contextmanager
def control_plane(folder: Path) -> Iterator[Place]:
    """Run a control plane in `folder`."""
    place = Place(folder=folder, gateway="")
    os.environ["EDGEWISE_CONFIG"] = place.environment["EDGEWISE_CONFIG"]
    command = [EDGEWISE, "up", "--data", str(folder / "control"), "--write-context", "-o", "json"]
    command += ["--api-port", "0", "--gateway-port", "0", "--gateway-host", "127.0.0.1", "--public-host", "127.0.0.1"]
    with running(command) as (_, first):
        yield msgspec.structs.replace(place, gateway=msgspec.json.decode(first)["gatewayAddresses"][0])


def join(place: Place, name: str, *options: str) -> Path:
    """Join a device that sends no telemetry; return its data folder."""
    token = place.folder / f"{name}.token"
    token.write_bytes(place.run("token", "create", "--site", "bench"))
    data = place.folder / name
    place.run("agent", "join", "--token-file", str(token), "--name", name, "--data", str(data), "--telemetry-window", "0s", *options)
    return data


@contextlib.contextmanager
def device(place: Place, data: Path) -> Iterator[Device]:
    """Run a joined device until it is known to the control plane."""
    with (data.parent / f"{data.name}.log").open("wb") as log:
        command = [EDGEWISE, "agent", "run", "--data", str(data)]
        process = subprocess.Popen(command, env=place.environment, stdout=log, stderr=log, start_new_session=True)
        try:
            end = time.monotonic() + _START_SECONDS
            while (agent := _agent_of(process.pid)) is None or not _is_online(data):
                if time.monotonic() > end or process.poll() is not None:
                    raise RuntimeError(f"the device did not come up: {Path(log.name).read_text()[-500:]}")
                time.sleep(0.1)
            yield Device(data=data, supervisor=process.pid, agent=agent)
        finally:
            process.terminate()
            process.wait(30)


def _agent_of(supervisor: int) -> int | None:
    with contextlib.suppress(OSError):
        for pid in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split():
            if b"edgewise.agent\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
    return None


def _is_online(data: Path) -> bool:
    try:
        return msgspec.json.decode((data / "run" / "agent.json").read_bytes()).get("online") is True
    except (OSError, msgspec.DecodeError):
        return False
