"""`python -m edgewise.serve`: read the arguments, take over the sockets, serve.

Exit status: 0 drained, 2 wrong arguments or sockets, 3 the model (or its runtime) does not load or does not answer.
"""

import argparse
import contextlib
import importlib
import os
import re
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

_TEXT: Final = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._:/+]{0,255}")
_EXIT_BROKEN: Final = 3
_NICENESS: Final = 5
_THREADS_MAX: Final = 64
_DEFAULT_THREADS_MAX: Final = 4
_UNIX_PATH_MAX: Final = 107


class Arguments(NamedTuple):
    """The command line, checked."""

    model: str
    listen_fd: int
    control: str
    instance: str
    revision: str
    threads: int
    runtime: str


def main(argv: list[str]) -> int:
    """Serve until drained; return the exit status."""
    # One thread: numpy's linear algebra is not used, its threads and their buffers would only cost memory.
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    arguments = read_arguments(argv)
    listener = _listener(arguments.listen_fd)
    control = _control(arguments.control)

    try:
        _gently(lambda: importlib.import_module("edgewise.serve.server"))
        from edgewise.serve.inference import Identity
        from edgewise.serve.limits import LIMITS
        from edgewise.serve.model import Model
        from edgewise.serve.runtimes.choose import find_model, loading
        from edgewise.serve.runtimes.contract import Options
        from edgewise.serve.server import Server
    except ImportError as error:
        sys.stderr.write(f"edgewise.serve: {error.name or error} is not installed here: install edgewise[serve]\n")
        return _EXIT_BROKEN

    version = os.environ.get("EDGEWISE_VERSION", "")
    versions = (version, arguments.revision) if _TEXT.fullmatch(version) and version != arguments.revision else (arguments.revision,)
    name = arguments.instance.rpartition("/")[2]
    identity = Identity(instance=arguments.instance, name=name, versions=versions, revision=arguments.revision)
    options = Options(threads=arguments.threads, cache=Path.home() / "compiled" if "EDGEWISE_CONTROL" in os.environ else None)

    def load() -> Model:
        path, runtime = find_model(Path(arguments.model), arguments.runtime)
        _gently(lambda: loading(runtime))
        return Model(path, runtime, options)

    server = Server((listener, control), identity, load, LIMITS)
    try:
        status = server.run()
    finally:
        Path(arguments.control).unlink(missing_ok=True)
    if server.stuck:  # the interpreter would end with an abort when a thread of it is in a model that never comes back
        os._exit(status)
    return status


def _gently(work: Callable[[], object]) -> None:
    """Do `work`, and wait for it, on a thread of low urgency: a server that starts must not hold up the one that serves. Only the thread's
    urgency is lowered, because a process needs privileges to raise its own again."""
    failures: list[Exception] = []

    def run() -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised again by whoever waits
            failures.append(error)

    thread = threading.Thread(target=run, name="start")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def read_arguments(argv: list[str]) -> Arguments:
    """Read the command line. Ends the process with status 2 when it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m edgewise.serve", description="Serve one model.", allow_abbrev=False)
    parser.add_argument("--model", required=True, metavar="TREE", help="folder with exactly one model file")
    parser.add_argument("--listen-fd", required=True, type=_number(0, 1_048_576), metavar="N", help="inherited listening socket")
    parser.add_argument("--control", required=True, metavar="SOCK", help="Unix socket to make: GET /ready, POST /activate, POST /drain")
    parser.add_argument("--instance", required=True, type=_text, metavar="NAMESPACE/NAME")
    parser.add_argument("--revision", required=True, type=_text, metavar="HASH")
    parser.add_argument("--threads", type=_number(1, _THREADS_MAX), default=0, metavar="N", help="threads of one inference")
    parser.add_argument("--runtime", default="", metavar="NAME", help="what runs the model; the one of its file's suffix unless said")
    given = parser.parse_args(argv)
    return Arguments(
        model=given.model,
        listen_fd=given.listen_fd,
        control=given.control,
        instance=given.instance,
        revision=given.revision,
        threads=given.threads or default_threads(),
        runtime=given.runtime,
    )


def default_threads() -> int:
    """Return how many threads one inference may use: the processors that this process may run on, and its control group's share of them."""
    threads = min(len(os.sched_getaffinity(0)), _DEFAULT_THREADS_MAX)
    try:
        groups = Path("/proc/self/cgroup").read_text(encoding="ascii").splitlines()
        group = next(line[3:] for line in groups if line.startswith("0::"))
        quota, period = Path(f"/sys/fs/cgroup{group}/cpu.max").read_text(encoding="ascii").split()
        return min(threads, max(1, -(-int(quota) // int(period))))
    except (OSError, ValueError, StopIteration):
        return threads


def _number(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"takes a number from {least} to {most}")
        return int(text)

    return read


def _text(text: str) -> str:
    if _TEXT.fullmatch(text) is None:
        raise argparse.ArgumentTypeError("takes letters, digits and -._:/+")
    return text


def _listener(number: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=number)
        listening = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        _refuse(f"descriptor {number} is not a socket: {error.strerror}")
    if not listening:
        _refuse(f"descriptor {number} is not a listening socket")
    sock.set_inheritable(False)
    return sock


def _control(path: str) -> socket.socket:
    """Listen on the control socket, readable and writable by the owner only. A socket that an earlier process left is removed."""
    place = Path(path).absolute()
    before = os.umask(0o177)
    handle = -1
    try:
        if place.is_socket():
            place.unlink()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        handle = os.open(place.parent, os.O_PATH | os.O_DIRECTORY)
        # The kernel takes short paths only; a descriptor of the folder makes any path short.
        sock.bind(path if len(os.fsencode(path)) <= _UNIX_PATH_MAX else f"/proc/self/fd/{handle}/{place.name}")
        sock.listen(16)
    except OSError as error:
        _refuse(f"the control socket {path} cannot be made: {error.strerror or error}")
    finally:
        os.umask(before)
        if handle >= 0:
            os.close(handle)
    return sock


def _refuse(message: str) -> NoReturn:
    sys.stderr.write(f"edgewise.serve: {message}\n")
    raise SystemExit(2)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
