"""What a workload imports on its device: find services, report metrics and feedback, read config and secrets.

    from edgewise import workload

    inspector = workload.service("inspector")            # another workload of this namespace on this device
    threshold = workload.parameters()["threshold"]
    password = workload.secret("rtsp")["password"]
    while True:
        ...                                               # ask http://127.0.0.1:… at inspector.address
        workload.metric("camera.latency", 0.0123, unit="s")
        workload.feedback("inspector", revision, correct=True)
        workload.heartbeat()

Only the standard library is needed, and the agent's address comes from the environment that it started this process with. `metric`, `count`
and `feedback` cost microseconds: they are collected here and sent once a second by a thread of their own, and at the end of the process.
They never block and never fail because the agent is being restarted: what could not be sent is kept, up to a bound, and sent later.
`heartbeat` does not fail for that either. The other functions ask the agent each time and raise `WorkloadError` when it cannot answer; ask
once, not per frame.

All functions may be called from any thread.
"""

# pathlib would make this slower to import than all the rest:

import atexit
import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

__all__ = [
    "Denied",
    "NotFound",
    "Service",
    "Unavailable",
    "WorkloadError",
    "config",
    "count",
    "feedback",
    "flush",
    "heartbeat",
    "instance",
    "label",
    "metric",
    "parameters",
    "secret",
    "service",
    "summaries",
]

FLUSH_SECONDS: Final = 1.0
VALUES_MAX: Final = 10_000
"""How many values wait for the agent at most; beyond it the newest are dropped and counted in `edgewise.workload.dropped`."""

_ANSWER_BYTES_MAX: Final = 80 * 1024 * 1024
_SECONDS_MAX: Final = 10.0
_POINTS_PER_REQUEST: Final = 500


class WorkloadError(Exception):
    """The agent did not do what was asked."""


class Unavailable(WorkloadError):
    """The agent cannot be reached now, or this process was not started by one."""


class NotFound(WorkloadError):
    """There is no such service, secret or instance for this workload on this device."""


class Denied(WorkloadError):
    """The agent refused the request."""


class Service(NamedTuple):
    """Where another workload of this namespace serves on this device. `address` is `http://HOST:PORT` and stays the same when the workload
    is updated or restarted; `revision` is the one that answers now; `ready` tells whether it does."""

    name: str
    address: str
    revision: str
    ready: bool


def service(name: str) -> Service:
    """Return where the workload `name` serves. Raises `NotFound` when it does not run here, `Unavailable`."""
    answer = _client.ask("GET", f"/v1/services/{_safe(name)}")
    return Service(str(answer["name"]), str(answer["address"]), str(answer["revision"]), answer["ready"] is True)


def config() -> dict[str, str]:
    """Return the workload's config as it is now. Raises `Unavailable`."""
    return {name: str(value) for name, value in _client.ask("GET", "/v1/config").items()}


def secret(name: str) -> dict[str, str]:
    """Return the data of one of the workload's secrets. Raises `NotFound`, `Unavailable`."""
    return {key: str(value) for key, value in _client.ask("GET", f"/v1/secrets/{_safe(name)}").items()}


def parameters() -> dict[str, str | int | float | bool]:
    """Return the parameters this process was started with. Empty when it was not started by an agent."""
    value = json.loads(os.environ.get("EDGEWISE_PARAMETERS", "{}"))
    return value if isinstance(value, dict) else {}


def instance() -> dict[str, object]:
    """Return who this is: `instance` (NAMESPACE/WORKLOAD), `device`, `revision`, `parameters`. Raises `Unavailable`."""
    return dict(_client.ask("GET", "/v1/instance"))


def heartbeat() -> None:
    """Say that this workload is well, for probes that wait for it. An agent that is away or being restarted is no reason to fail: it judges
    by the beats that come after it is back. Does nothing in a process that no agent started."""
    with contextlib.suppress(Unavailable):
        _client.ask("POST", "/v1/heartbeat", {})


def metric(
    name: str,
    value: float,
    *,
    unit: str = "",
    type: Literal["gauge", "histogram"] = "gauge",  # noqa: A002 -- the word that OpenTelemetry and our wire use
    subject: tuple[str, str] | None = None,
) -> None:
    """Report one value of a metric, named and with units as OpenTelemetry does (`camera.latency`, `s`). `subject` is (workload, revision)
    when the value is about another workload of this namespace on this device. Costs microseconds; sent within a second."""
    _collector.add((name, unit, type, subject), float(value))


def count(name: str, by: float = 1.0, *, unit: str = "", subject: tuple[str, str] | None = None) -> None:
    """Add to a counter. Otherwise as `metric`."""
    _collector.add((name, unit, "counter", subject), float(by))


def feedback(service: str, revision: str, *, correct: bool) -> None:  # noqa: A002, RUF100 -- reads well at the call
    """Report whether an answer of `revision` of the workload `service` turned out right; it becomes that revision's `model.accuracy`. Costs
    microseconds; sent within a second."""
    _collector.judge(service, revision, correct=correct)


def label(service: str, request: str, value: bool | float | str) -> None:
    """Say what the right answer to a request turned out to be, minutes or hours later: a class (its index, number or text, as the model
    answers it) or a number. `request` is the `id` that the inference request carried; `service` the workload that answered it. The model
    server compares it with what it answered, and `model.accuracy` or `model.error` of that revision follows. Each request takes one label.
    Raises `NotFound` when that service does not run here or does not know the request (any more), `Denied` when it has its label already or
    cannot have this one, `Unavailable`."""
    body = json.dumps({"feedback": [{"id": request, "label": value}]}).encode()
    found = _client.ask("GET", f"/v1/services/{_safe(service)}")
    answer = _tell(str(found["address"]), f"/v2/models/{service}/feedback", body)
    refused = answer.get("refused")
    if isinstance(refused, list) and refused:
        kind = NotFound if refused[0].get("reason") == "UnknownRequest" else Denied
        raise kind(str(refused[0].get("message")))


def summaries(points: Sequence[Mapping[str, object]]) -> tuple[int, ...]:
    """Report what was summarised here, at once: at most 128 of what the local workload API calls a summary. Return the places of those that
    were not taken. Raises `Denied` when none was, `Unavailable`."""
    answer = _client.ask("POST", "/v1/metrics", {"summaries": points})
    refused = answer.get("refused")
    return tuple(one["index"] for one in refused) if isinstance(refused, list) else ()


def flush() -> None:
    """Send what was collected, now. Raises `Unavailable`; then it is kept."""
    _collector.flush()


_Key = tuple[str, str, str, tuple[str, str] | None]
_DROPPED: Final[_Key] = ("edgewise.workload.dropped", "1", "counter", None)


class _Collector:
    """Collects values and sends them in groups."""

    def __init__(self, client: "_Client") -> None:
        self._client = client
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._values: dict[_Key, list[float]] = {}
        self._judged: dict[tuple[str, str], list[int]] = {}
        self._waiting = 0
        self._dropped = 0
        self._thread: threading.Thread | None = None
        self._something = threading.Event()
        self._complained = False

    def add(self, key: _Key, value: float) -> None:
        with self._lock:
            if self._waiting >= VALUES_MAX:
                self._dropped += 1
            else:
                self._waiting += 1
                self._values.setdefault(key, []).append(value)
        self._run()

    def judge(self, service: str, revision: str, *, correct: bool) -> None:
        with self._lock:
            if (service, revision) in self._judged or len(self._judged) < _POINTS_PER_REQUEST:
                self._judged.setdefault((service, revision), [0, 0])[0 if correct else 1] += 1
            else:
                self._dropped += 1
        self._run()

    def flush(self) -> None:
        with self._sending:
            self._flush_metrics()
            self._flush_feedback()

    def _run(self) -> None:
        self._something.set()
        if self._thread is None:
            with self._sending:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="edgewise-workload", daemon=True)
                    self._thread.start()
                    atexit.register(self._last_flush)

    def _work(self) -> None:
        pause = threading.Event()
        while self._something.wait():
            pause.wait(FLUSH_SECONDS)
            self._something.clear()
            try:
                self.flush()
            except Unavailable:
                self._something.set()  # kept, and tried again

    def _last_flush(self) -> None:
        with contextlib.suppress(WorkloadError):
            self.flush()

    def _flush_metrics(self) -> None:
        with self._lock:
            values, self._values = self._values, {}
            dropped, self._dropped = self._dropped, 0
            self._waiting = 0
        if dropped:
            values[_DROPPED] = [float(dropped)]
        left = list(values.items())
        while left:
            group, rest = left[:_POINTS_PER_REQUEST], left[_POINTS_PER_REQUEST:]
            try:
                answer = self._client.ask("POST", "/v1/metrics", {"metrics": [_point(key, numbers) for key, numbers in group]})
            except Unavailable:
                self._put_back(left)
                raise
            except WorkloadError as error:
                self._complain(str(error))
            else:
                refused = answer.get("refused")
                if isinstance(refused, list) and refused:
                    self._complain(str(refused[0]))
            left = rest

    def _flush_feedback(self) -> None:
        with self._lock:
            judged, self._judged = self._judged, {}
        while judged:
            (about, revision), (correct, wrong) = item = judged.popitem()
            now = min(correct, VALUES_MAX), min(wrong, VALUES_MAX)
            if now != (correct, wrong):
                judged[about, revision] = [correct - now[0], wrong - now[1]]
            body = {"service": about, "revision": revision, "correct": now[0], "wrong": now[1]}
            try:
                self._client.ask("POST", "/v1/feedback", body)
            except Unavailable:
                with self._lock:
                    for key, numbers in ((item[0], now), *judged.items()):
                        kept = self._judged.setdefault(key, [0, 0])
                        kept[0] += numbers[0]
                        kept[1] += numbers[1]
                raise
            except WorkloadError as error:
                self._complain(str(error))

    def _put_back(self, left: list[tuple[_Key, list[float]]]) -> None:
        with self._lock:
            for key, numbers in left:
                if key == _DROPPED:
                    self._dropped += int(numbers[0])
                    continue
                room = max(0, VALUES_MAX - self._waiting)
                self._values[key] = numbers[:room] + self._values.get(key, [])
                self._waiting += min(room, len(numbers))
                self._dropped += max(0, len(numbers) - room)

    def _complain(self, message: str) -> None:
        # Once: a loop that reports something wrong ten times a second would say nothing else.
        if not self._complained:
            self._complained = True
            sys.stderr.write(f"edgewise.workload: the agent does not take this: {message}\n")


def _point(key: _Key, values: list[float]) -> dict[str, object]:
    name, unit, kind, subject = key
    point: dict[str, object] = {"name": name, "values": values, "unit": unit, "type": kind}
    if subject is not None:
        point["subject"] = {"workload": subject[0], "revision": subject[1]}
    return point


class _Client:
    """One kept connection to the agent, over the Unix socket that the environment names."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None

    def ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, object]:
        """Return the answer's JSON object. Raises `NotFound`, `Denied`, `Unavailable`."""
        data = b"" if body is None else json.dumps(body).encode()
        revision = os.environ.get("EDGEWISE_REVISION", "")
        head = f"{method} {path} HTTP/1.1\r\nHost: agent\r\nEdgewise-Revision: {revision}\r\nContent-Length: {len(data)}\r\n\r\n"
        with self._lock:
            status, answer = self._exchange(head.encode() + data)
        value = _object(answer)
        if status == 200:
            return value
        message = str(value.get("message", f"status {status}"))
        if status == 404:
            raise NotFound(message)
        raise Denied(message) if 400 <= status < 500 else Unavailable(message)

    def _exchange(self, request: bytes) -> tuple[int, bytes]:
        kept = self._socket is not None
        try:
            return self._once(request)
        except (OSError, ValueError, IndexError) as error:
            self._close()
            if not kept:
                raise Unavailable(f"the agent does not answer: {error}") from error
        try:  # a kept connection may have been closed by the other end meanwhile
            return self._once(request)
        except (OSError, ValueError, IndexError) as error:
            self._close()
            raise Unavailable(f"the agent does not answer: {error}") from error

    def _once(self, request: bytes) -> tuple[int, bytes]:
        if self._socket is None:
            self._socket = _connect()
        self._socket.sendall(request)
        head, _, body = _receive_until(self._socket, b"\r\n\r\n").partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        length = int(headers.get("content-length", "0"))
        if not 0 <= length <= _ANSWER_BYTES_MAX:
            raise ValueError("the answer is too long")
        parts, missing = [body], length - len(body)
        while missing > 0:
            part = self._socket.recv(min(missing, 1 << 20))
            if not part:
                raise ValueError("the answer was cut off")
            parts.append(part)
            missing -= len(part)
        if headers.get("connection", "").lower() == "close":
            self._close()
        return int(lines[0].split(" ")[1]), b"".join(parts)

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _connect() -> socket.socket:
    path = os.environ.get("EDGEWISE_API", "")
    if not path:
        raise Unavailable("EDGEWISE_API is not set: this process was not started by an Edgewise agent")
    if len(os.fsencode(path)) > 107:
        from edgewise.ports.unix import connect_unix

        return connect_unix(path, _SECONDS_MAX)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_SECONDS_MAX)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def _receive_until(connection: socket.socket, mark: bytes) -> bytes:
    data = b""
    while mark not in data:
        part = connection.recv(65536)
        if not part or len(data) > 65536:
            raise ValueError("no HTTP answer")
        data += part
    return data


def _tell(address: str, path: str, body: bytes) -> dict[str, object]:
    import http.client  # slow to import, and most workloads never need it

    host, _, port = address.removeprefix("http://").rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=_SECONDS_MAX)
    try:
        connection.request("POST", path, body)
        answer = connection.getresponse()
        status, data = answer.status, answer.read(_ANSWER_BYTES_MAX)
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"the service does not answer: {error}") from error
    finally:
        connection.close()
    value = _object(data)
    if status != 200:
        raise (Denied if 400 <= status < 500 and status != 429 else Unavailable)(str(value.get("error", f"status {status}")))
    return value


def _object(data: bytes) -> dict[str, object]:
    try:
        value = json.loads(data)
    except ValueError as error:
        raise Unavailable("the agent's answer is no JSON") from error
    if not isinstance(value, dict):
        raise Unavailable("the agent's answer is no JSON object")
    return value


def _safe(name: str) -> str:
    if not name or not all(letter.isascii() and (letter.isalnum() or letter in ".-") for letter in name):
        raise NotFound(f"{name[:100]!r} is not a name")
    return name


_client = _Client()
_collector = _Collector(_client)
