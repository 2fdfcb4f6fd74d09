"""Starts, kills and looks at the demo's processes: one control plane and eight devices, each a supervisor, an agent and workloads.

Everything is done with the same commands that a person would type, each in a process of its own, with all state below one folder.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import psutil

COMMAND_SECONDS = 60.0
_PORT_FIRST, _PORT_END = 30000, 32768
_EDGEWISE = (str(Path(sys.executable).with_name("edgewise")),)


class DemoFailed(Exception):
    """A step did not hold."""


class CommandFailed(DemoFailed):
    """A command ended with an error. The message holds what it printed."""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One device of the demo: where it stands and what it declares."""

    name: str
    site: str
    device_class: str
    capacity: str
    labels: tuple[str, ...] = ()


_CLASSES = {
    "gateway": "cpu=4,memory=4Gi,disk=8Gi",
    "box": "cpu=2,memory=1Gi,disk=2Gi",
    "tiny": "cpu=1,memory=384Mi,disk=1Gi",
}


def _member(name: str, device_class: str, *labels: str) -> Member:
    return Member(name=name, site=name.partition("-")[0], device_class=device_class, capacity=_CLASSES[device_class], labels=tuple(labels))


MEMBERS = (
    _member("north-1", "gateway", "camera=front"),
    _member("north-2", "box", "camera=front"),
    _member("north-3", "tiny", "camera=back"),
    _member("north-4", "gateway", "recorder=yes"),
    _member("south-1", "gateway", "camera=front"),
    _member("south-2", "box", "camera=back"),
    _member("south-3", "gateway", "recorder=yes"),
    _member("south-4", "gateway", "recorder=yes"),
)


class Fleet:
    """The processes of the demo below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.api_port, self.gateway_port = _free_ports(2)
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(("EDGEWISE_", "PYTHON"))} | {
            "EDGEWISE_CONFIG": str(folder / "contexts.json"),
            "NO_COLOR": "1",
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def control_folder(self) -> Path:
        """The control plane's data folder."""
        return self.folder / "control"

    def device_folder(self, name: str) -> Path:
        """Return a device's data folder."""
        return self.folder / "devices" / name

    async def edgewise(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run one `edgewise` command and return what it printed. Raises `CommandFailed`."""
        process = await asyncio.create_subprocess_exec(
            *_EDGEWISE,
            *arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            cwd=self.folder,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(stdin), COMMAND_SECONDS)
        except (TimeoutError, asyncio.CancelledError):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            said = (err or out).decode(errors="replace").strip()
            raise CommandFailed(f"edgewise {' '.join(arguments)}: exit {process.returncode}\n{said}")
        return out.decode()

    def start_control_plane(self) -> None:
        """Start `edgewise up`; its output goes to control.log."""
        self._spawn(
            "control",
            "up",
            "--data", str(self.control_folder),
            "--api-port", str(self.api_port),
            "--gateway-host", "127.0.0.1",
            "--gateway-port", str(self.gateway_port),
        )  # fmt: skip

    def start_device(self, name: str) -> None:
        """Start `edgewise agent run`; its output goes to NAME.log."""
        self._spawn(name, "agent", "run", "--data", str(self.device_folder(name)))

    def kill(self, name: str) -> None:
        """Kill a device or the control plane with `kill -9`, every process of it at once, as a power cut would."""
        process = self._processes.pop(name)
        victims = [psutil.Process(process.pid)]
        with contextlib.suppress(psutil.NoSuchProcess):
            victims += victims[0].children(recursive=True)
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGKILL)
        process.wait()

    def processes_of(self, name: str) -> tuple[psutil.Process, ...]:
        """Return all living processes of a device, its supervisor first."""
        parent = psutil.Process(self._processes[name].pid)
        return (parent, *parent.children(recursive=True))

    async def stop(self) -> None:
        """Stop everything cleanly; what does not stop in time is killed."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for name in tuple(self._processes):
            try:
                await asyncio.to_thread(self._processes[name].wait, 15)
            except subprocess.TimeoutExpired:
                self.kill(name)
                continue
            del self._processes[name]

    def log_of(self, name: str) -> str:
        """Return the last lines that a process printed."""
        path = self.folder / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-15:]) if path.exists() else ""

    def running(self, name: str) -> bool:
        """Return whether the process that was started still lives."""
        return name in self._processes and self._processes[name].poll() is None

    def _spawn(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                (*_EDGEWISE, *arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=self.folder,
                start_new_session=True,
            )


def pss_megabytes(process: psutil.Process) -> float:
    """Return a process's proportional set size in megabytes (10^6 bytes)."""
    return float(process.memory_full_info().pss) / 1e6


def _free_ports(count: int) -> Sequence[int]:
    """Return ports that the kernel gives to nobody by itself: the control plane wants them back after it was killed."""
    found: list[int] = []
    for port in range(_PORT_FIRST, _PORT_END):
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise DemoFailed(f"no {count} ports are free between {_PORT_FIRST} and {_PORT_END}")
