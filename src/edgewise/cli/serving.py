"""Running a model server for `edgewise serve`: this process listens, another one serves, as on a device."""

import contextlib
import importlib.util
import ipaddress
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from edgewise.cli.failures import CommandError

_NAME: Final = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]{0,62}")
_POLL_SECONDS: Final = 0.05
_STOP_SECONDS: Final = 15.0
_ANSWER_BYTES_MAX: Final = 1_048_576
_WHOLE: Final = {"BOOL": "true", "BYTES": '"text"'}
_VALUES_MAX: Final = 16


class Asked(NamedTuple):
    """What is to be served, and where."""

    path: Path
    host: str
    port: int
    name: str
    runtime: str
    threads: int


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_name(name: str) -> bool:
    """Whether a model can be called that."""
    return _NAME.fullmatch(name) is not None


def name_of(path: Path) -> str:
    """Return what to call the model of a file or folder."""
    name = path.absolute().name if path.is_dir() else path.stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "model"


def run(asked: Asked) -> None:
    """Serve until Ctrl-C. Raises `CommandError`."""
    if importlib.util.find_spec("numpy") is None or importlib.util.find_spec("httptools") is None:
        raise CommandError("the model server is not installed", hint="type pip install 'edgewise[serve]'")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with _listener(asked) as listener, tempfile.TemporaryDirectory(prefix="edgewise-") as folder:
        control, said = Path(folder, "control.sock"), Path(folder, "said")
        with _stopped(_started(asked, listener, control, said)) as process:
            _wait_until_ready(process, control, asked, said)
            _ask(control, "POST", "/activate")
            about = _ask(control, "GET", f"/v2/models/{asked.name}")
            with contextlib.suppress(KeyboardInterrupt):  # which may come as soon as it was told how to send it
                _tell(asked, listener.getsockname(), about)
                _judge(process.wait(), asked, said)
                return
            sys.stderr.write("stopping: what is under way is answered\n")


def _listener(asked: Asked) -> socket.socket:
    try:
        family = socket.getaddrinfo(asked.host, asked.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((asked.host, asked.port), family=family, backlog=512)
    except OSError as error:
        hint = "--port 0 takes any free port" if error.errno == 98 else "is that an address of this machine?"
        raise CommandError(f"cannot listen there: {error.strerror or error}", f"{asked.host}:{asked.port}", hint) from None


def _started(asked: Asked, listener: socket.socket, control: Path, said: Path) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "edgewise.serve", "--model", str(asked.path), "--listen-fd", str(listener.fileno())]
    argv += ["--control", str(control), "--instance", f"default/{asked.name}", "--revision", "local"]
    argv += ["--runtime", asked.runtime] if asked.runtime else []
    argv += ["--threads", str(asked.threads)] if asked.threads else []
    with said.open("wb") as errors:
        # A session of its own: Ctrl-C is for this process, which then stops the other.
        return subprocess.Popen(argv, pass_fds=[listener.fileno()], stdin=subprocess.DEVNULL, stderr=errors, start_new_session=True)


@contextlib.contextmanager
def _stopped(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Stop the process behind, whatever happened."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_SECONDS)
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                process.kill()
                process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], control: Path, asked: Asked, said: Path) -> None:
    """Wait however long the model takes to load: Ctrl-C ends that."""
    while process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            if _ask(control, "GET", "/ready").get("ready"):
                return
        time.sleep(_POLL_SECONDS)
    _judge(process.returncode, asked, said)


def _judge(code: int, asked: Asked, said: Path) -> None:
    """Raise what the server's end means, unless it ended as it was told to."""
    if code == 0:
        return
    last = (said.read_text("utf-8", "replace").strip().splitlines() or [""])[-1]
    what = last.rpartition(" at local: ")[2].removeprefix("edgewise.serve: ")
    if code < 0:
        what = f"the runtime was ended by {signal.Signals(-code).name} on this model"
    raise CommandError(what or f"the model server ended with status {code}", str(asked.path))


def _ask(control: Path, method: str, path: str) -> dict[str, Any]:
    """Ask the server's control socket; return what it answers. Raises `OSError`, `ValueError`."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30.0)
        sock.connect(str(control))
        sock.sendall(f"{method} {path} HTTP/1.1\r\nhost: control\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".encode())
        answer = b""
        while len(answer) < _ANSWER_BYTES_MAX and (chunk := sock.recv(65_536)):
            answer += chunk
    content = json.loads(answer.partition(b"\r\n\r\n")[2])
    return content if isinstance(content, dict) else {}


def _tell(asked: Asked, address: tuple[Any, ...], about: dict[str, Any]) -> None:
    host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
    url = f"http://{host}:{address[1]}"
    out = [f"{asked.name} is served at {url}/v2/models/{asked.name}"]
    for title, key in (("takes", "inputs"), ("answers", "outputs")):
        out += [f"  {title} {each['name']}: {each['datatype']} {each['shape']}" for each in about.get(key, [])]
    if not is_loopback(asked.host):
        out.append("there is no authentication: whoever reaches this port may use the model")
    out += ["try it:", f"  {_example(url, asked.name, about)}", "Ctrl-C stops it"]
    sys.stdout.write("\n".join(out) + "\n")
    sys.stdout.flush()


def _example(url: str, name: str, about: dict[str, Any]) -> str:
    """Return a curl command: an inference where its input is small enough to type, the metadata otherwise."""
    tensors = []
    for each in about.get("inputs", []):
        shape = [1 if size < 0 else size for size in each["shape"]]
        count = 1
        for size in shape:
            count *= size
        if count > _VALUES_MAX:
            return f"curl {url}/v2/models/{name}"
        data = ",".join([_WHOLE.get(each["datatype"], "1")] * count)
        tensors.append(f'{{"name":{json.dumps(each["name"])},"shape":{shape},"datatype":"{each["datatype"]}","data":[{data}]}}')
    body = f'{{"inputs":[{",".join(tensors)}]}}'.replace("'", r"'\''")
    return f"curl {url}/v2/models/{name}/infer -d '{body}'"
