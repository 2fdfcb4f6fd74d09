"""Finding the processes of a launch, wherever they hid.

Every process starts with `EDGEWISE_LAUNCH=ID` in its environment, in a session of its own. Its descendants have the session or the
variable, mostly both: a daemon leaves the session but keeps the environment, a program that rewrites its title loses the environment but
keeps the session. A file per launch under `run/launches` says which launches there were, so that the next supervisor can kill what one that
was killed left behind. Process ids are only believed together with the start time, and nothing survives a reboot.
"""

# pathlib and contextlib would load half a megabyte:
# ruff: noqa: PTH116, PTH208

import os

from edgewise.supervisor.files import read_object, read_start, remove_quietly
from edgewise.supervisor.loop import SIGKILL
from edgewise.supervisor.wire import encode_text

FOLDER = "run/launches"
VARIABLE = "EDGEWISE_LAUNCH"
_ENVIRONMENT_BYTES_MAX = 512 * 1024
_MARK = f"{VARIABLE}=".encode()


class Trace:
    """How the processes of a launch are known. `pid` is its session; 0 when it is not known."""

    __slots__ = ("launch_id", "pid", "started")

    def __init__(self, launch_id: str, pid: int, started: int) -> None:
        self.launch_id = launch_id
        self.pid = pid
        self.started = started


def boot_id() -> str:
    """Return the kernel's name for this boot."""
    return read_start("/proc/sys/kernel/random/boot_id", 64).decode().strip()


def started_at(pid: int) -> int:
    """Return when a process started, in clock ticks since the boot; 0 when there is none."""
    status = _status(pid)
    return status[2] if status is not None else 0


def note_launch(trace: Trace, boot: str) -> None:
    """Keep on the disk that `trace` exists. Raises `OSError`."""
    data = encode_text({"pid": trace.pid, "started": trace.started, "boot": boot})
    descriptor = os.open(f"{FOLDER}/{trace.launch_id}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def forget_launch(launch_id: str) -> None:
    """Nothing of this launch is left."""
    remove_quietly(f"{FOLDER}/{launch_id}")


def noted_launches(boot: str) -> "list[Trace]":
    """Return what an earlier supervisor of this boot left noted; notes of earlier boots are removed."""
    traces = []
    for launch_id in os.listdir(FOLDER):
        noted = read_object(f"{FOLDER}/{launch_id}")
        pid, started = noted.get("pid"), noted.get("started")
        if noted.get("boot", boot) != boot:
            forget_launch(launch_id)
            continue
        # A note that was cut off still names the launch.
        traces.append(Trace(launch_id, pid if isinstance(pid, int) else 0, started if isinstance(started, int) else 0))
    return traces


def processes_of(traces: "list[Trace]") -> "list[int]":
    """Return the living processes of any of these launches. Zombies are not living, unless only their first thread has ended: the other
    threads still hold sockets and devices."""
    own = os.getuid()
    launches = {trace.launch_id.encode() for trace in traces}
    sessions = {trace.pid: trace.started for trace in traces if trace.pid}
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        pid = int(name)
        try:
            if os.stat(f"/proc/{name}").st_uid != own or pid == os.getpid():
                continue
            environment = read_start(f"/proc/{name}/environ", _ENVIRONMENT_BYTES_MAX)
        except OSError:
            environment = b""
        status = _status(pid)
        if status is None or (status[0] in "ZX" and status[3] <= 1):
            continue
        in_session = status[1] in sessions and status[2] >= sessions[status[1]] > 0
        if in_session or _launch_in(environment) in launches:
            found.append(pid)
    return found


def kill_processes(traces: "list[Trace]") -> int:
    """Send SIGKILL to every living process of these launches. Returns how many there were."""
    pids = processes_of(traces)
    for pid in pids:
        try:
            os.kill(pid, SIGKILL)
        except ProcessLookupError:
            continue
    return len(pids)


def _launch_in(environment: bytes) -> bytes:
    at = 0 if environment.startswith(_MARK) else environment.find(b"\0" + _MARK) + 1
    if at == 0 and not environment.startswith(_MARK):
        return b""
    return environment[at + len(_MARK) :].partition(b"\0")[0]


def _status(pid: int) -> "tuple[str, int, int, int] | None":
    """Return state, session, start time and number of threads of a process."""
    try:
        data = read_start(f"/proc/{pid}/stat", 4096)
    except OSError:
        return None
    # The name in parentheses may hold anything, so the fields are counted from its end.
    fields = data.rpartition(b")")[2].split()
    if len(fields) < 20:
        return None
    return fields[0].decode(), int(fields[3]), int(fields[19]), int(fields[17])
