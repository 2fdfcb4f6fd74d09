"""Start a process: fork, set up, exec.

This process has one thread, so a plain fork is safe, and what the child imports to set itself up (`ctypes` for prctl, `resource`) is gone
with the exec and never weighs on the parent. The child tells through a pipe that closes on exec whether all went well.

A child gets its own session (so that its group can be signalled and Ctrl-C is the supervisor's business), dies with its parent
(PR_SET_PDEATHSIG), can gain no privileges (PR_SET_NO_NEW_PRIVS), reads /dev/null, and inherits nothing but standard output and error and,
as descriptor 3, a listening socket.
"""

# pathlib and contextlib would load half a megabyte:
# ruff: noqa: SIM105

import os

from edgewise.supervisor.loop import SIGKILL, block_signals, default_signals, restore_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

LISTEN_DESCRIPTOR = 3
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_HIGH = 64
_PLACES = ("signals", "session", "parent", "descriptors", "limits", "folder", "exec")


class SpawnFailed(Exception):
    """The process could not be started. `place` says at which step, `number` is the errno."""

    def __init__(self, place: str, number: int) -> None:
        super().__init__(f"{place}: {os.strerror(number)}")
        self.place = place
        self.number = number


class Confinement:
    """What a process may use. `data_bytes` is RLIMIT_DATA, `cgroup` the folder of a cgroup to join; None means no limit."""

    __slots__ = ("cgroup", "data_bytes", "nice", "oom_score", "open_files")

    def __init__(self, *, data_bytes: "int | None", cgroup: "str | None", open_files: int, nice: int, oom_score: int) -> None:
        self.data_bytes = data_bytes
        self.cgroup = cgroup
        self.open_files = open_files
        self.nice = nice
        self.oom_score = oom_score


class Order:
    """What to start. `output` is a descriptor for standard output and error, -1 to share ours; `listen` a listening socket or -1."""

    __slots__ = ("argv", "confinement", "cwd", "env", "listen", "output")

    def __init__(
        self,
        argv: "list[str]",
        env: "dict[str, str]",
        cwd: str,
        *,
        output: int = -1,
        listen: int = -1,
        confinement: "Confinement | None" = None,
    ) -> None:
        self.argv = argv
        self.env = env
        self.cwd = cwd
        self.output = output
        self.listen = listen
        self.confinement = confinement


def spawn(order: Order) -> int:
    """Start a process and return its id, which is its session's and group's too. Raises `SpawnFailed`."""
    parent = os.getpid()
    try:
        reader, writer = os.pipe2(os.O_CLOEXEC)
    except OSError as error:
        raise SpawnFailed("descriptors", error.errno or 0) from error
    before = block_signals()
    try:
        pid = os.fork()
        if pid == 0:
            _become(order, parent, writer)
    except OSError as error:
        os.close(reader)
        raise SpawnFailed("fork", error.errno or 0) from error
    finally:
        os.close(writer)
        restore_signals(before)
    answer = os.read(reader, 16)
    os.close(reader)
    if answer:
        os.waitpid(pid, 0)
        place, _, number = answer.decode().partition(" ")
        raise SpawnFailed(place, int(number))
    return pid


def _become(order: Order, parent: int, writer: int) -> "NoReturn":
    """Turn the forked child into what was ordered. Never returns."""
    place = 0
    try:
        default_signals()
        place = 1
        os.setsid()
        place = 2
        _die_with(parent)
        place = 3
        writer = _arrange_descriptors(order, writer)
        place = 4
        if order.confinement is not None:
            _confine(order.confinement)
        place = 5
        os.umask(0o077)
        os.chdir(order.cwd)
        place = 6
        os.execvpe(order.argv[0], order.argv, order.env)  # noqa: S606 -- an argument vector, no shell
    except OSError as error:
        os.write(writer, f"{_PLACES[place]} {error.errno or 0}".encode())
    except BaseException:  # noqa: BLE001 -- nothing may ever return into the parent's code
        os.write(writer, f"{_PLACES[place]} 22".encode())
    os._exit(127)


def _die_with(parent: int) -> None:
    try:
        import ctypes
    except ImportError:
        return  # an interpreter without libffi: the next supervisor finds and kills what is left
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    prctl(_PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(127)


def _arrange_descriptors(order: Order, writer: int) -> int:
    import fcntl

    def high(descriptor: int) -> int:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _HIGH)

    # Everything goes up first, so that nothing is overwritten on the way down.
    writer = high(writer)
    output = high(order.output) if order.output >= 0 else -1
    listen = high(order.listen) if order.listen >= 0 else -1
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    if output >= 0:
        os.dup2(output, 1)
        os.dup2(output, 2)
    first_unused = LISTEN_DESCRIPTOR
    if listen >= 0:
        os.dup2(listen, LISTEN_DESCRIPTOR)
        first_unused += 1
    os.closerange(first_unused, writer)
    os.closerange(writer + 1, 65536)
    return writer


def _confine(confinement: Confinement) -> None:
    import resource

    if confinement.cgroup is not None:
        _write(f"{confinement.cgroup}/cgroup.procs", b"0")
    if confinement.data_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (confinement.data_bytes, confinement.data_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = confinement.open_files if most == resource.RLIM_INFINITY else min(most, confinement.open_files)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    os.nice(confinement.nice)
    try:
        _write("/proc/self/oom_score_adj", str(confinement.oom_score).encode())
    except OSError:
        pass  # a kernel without it; the rest holds


def _write(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
