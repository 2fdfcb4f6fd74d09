"""The local workload API over its real socket: what `edgewise.workload` does with it, and what hostile workloads try."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgewise import workload
from edgewise.agent.aggregate import AggregateLimits, Aggregator
from edgewise.agent.slots import api_socket_path
from edgewise.agent.workload_api import ApiCalls, ApiLimits, InstanceView, WorkloadApi
from edgewise.ports.clock import SystemClock
from edgewise.ports.unix import connect_unix

SECRET = {"user": "camera", "password": "hunter2"}


class Device:
    """An API with a camera and a model on it, and what it was told."""

    def __init__(self, data, window_seconds=0.2, **limits):
        self.data = str(data)
        self.beats, self.windows = [], []
        self.aggregator = Aggregator(AggregateLimits(window_seconds=window_seconds))
        self.limits = ApiLimits(**limits)
        self.config = {"mode": "fast"}
        self.open()

    def open(self):
        calls = ApiCalls(self.beats.append, lambda _, name: SECRET if name == "rtsp" else None, self.windows.append)
        self.api = WorkloadApi(self.data, device="d1", calls=calls, aggregator=self.aggregator, clock=SystemClock(), limits=self.limits)
        self.api.start()
        self.publish()

    def publish(self, *without):
        camera = InstanceView(name="shop/camera", revision="c1", config=self.config, secrets=("rtsp",))
        eye = InstanceView(name="shop/eye", revision="e1", address="http://127.0.0.1:20001", ready=True)
        self.api.publish({view.name: view for view in (camera, eye) if view.name not in without})

    def path(self, instance="shop/camera"):
        return api_socket_path(self.data, instance)

    def connect(self):
        return connect_unix(self.path(), 60)

    def series(self):
        return {(one.name, one.instance, one.revision): (one.count, one.sum) for window in self.windows for one in window.series}

    @property
    def threads(self):
        return [thread for thread in threading.enumerate() if thread.name == "workload-api" and thread.is_alive()]


@pytest.fixture
def device(tmp_path):
    one = Device(tmp_path)
    yield one
    assert one.threads, "its thread lives on whatever came"
    one.api.close()


@pytest.fixture
def client(device, monkeypatch):
    """The module as a workload has it: a fresh client and collector, and the environment of a process."""
    monkeypatch.setenv("EDGEWISE_API", device.path())
    monkeypatch.setenv("EDGEWISE_REVISION", "c1")
    fresh = workload._Client()
    monkeypatch.setattr(workload, "_client", fresh)
    monkeypatch.setattr(workload, "_collector", workload._Collector(fresh))
    monkeypatch.setattr(workload, "FLUSH_SECONDS", 0.05)
    yield workload
    fresh._close()


def test_a_workload_asks(device, client, monkeypatch):
    monkeypatch.setenv("EDGEWISE_PARAMETERS", '{"threshold": 0.8}')
    assert client.service("eye") == client.Service("eye", "http://127.0.0.1:20001", "e1", ready=True)
    assert client.config() == {"mode": "fast"}
    assert client.secret("rtsp") == SECRET
    assert client.parameters() == {"threshold": 0.8}
    assert client.instance() == {"instance": "shop/camera", "device": "d1", "revision": "c1", "parameters": {}}
    client.heartbeat()
    assert device.beats == ["shop/camera"]
    for call in (
        lambda: client.service("nobody"),
        lambda: client.secret("other"),
        lambda: client.service("../x"),
        lambda: client.service("a b"),
    ):
        with pytest.raises(client.NotFound):
            call()


def test_a_large_config_arrives_whole(device, client):
    device.config = {f"key-{n}": "x" * 60_000 for n in range(100)}
    device.publish()
    assert client.config() == device.config


def test_metrics_and_feedback_arrive_by_themselves(device, client, helpers):
    for n in range(100):
        client.metric("camera.latency", n / 100, unit="s")
        client.count("camera.frames")
        client.feedback("eye", "e1", correct=n % 10 != 0)
    client.metric("model.latency", 0.5, subject=("eye", "e1"))
    expected = {
        ("camera.latency", "shop/camera", "c1"): (100, pytest.approx(49.5)),
        ("camera.frames", "shop/camera", "c1"): (100, 100.0),
        ("model.accuracy", "shop/eye", "e1"): (100, 90.0),
        ("model.latency", "shop/eye", "e1"): (1, 0.5),
    }
    helpers.wait_for(lambda: device.series().keys() >= expected.keys() and device.series() == expected)


def test_what_the_agent_refuses_is_said_once_and_the_rest_arrives(device, client, helpers, capfd):
    for _ in range(2):
        client.metric("other", 1.0, subject=("safe", "s1"))
        client.metric("mine", 1.0)
        client.feedback("safe", "s1", correct=True)
        client.flush()
    helpers.wait_for(lambda: device.series().get(("mine", "shop/camera", "c1")))
    assert capfd.readouterr().err.count("does not take this") == 1
    assert [key[0] for key in device.series()] == ["mine"]


def test_nothing_is_lost_while_the_agent_is_restarted(device, client, helpers):
    client.metric("m", 1.0)
    client.flush()
    device.api.close()
    client.metric("m", 2.0)
    client.feedback("eye", "e1", correct=True)
    with pytest.raises(client.Unavailable):
        client.flush()
    with pytest.raises(client.Unavailable):
        client.config()
    client.metric("m", 3.0)
    device.open()
    helpers.wait_for(lambda: ("model.accuracy", "shop/eye", "e1") in device.series(), what="the collector's own next try")
    total = [series.sum for window in device.windows for series in window.series if series.name == "m"]
    assert sum(total) == 6.0
    assert client.config() == {"mode": "fast"}


def test_what_waits_is_bounded_and_the_rest_counted(device, client, helpers):
    device.api.close()
    client._collector._thread = threading.current_thread()  # no flush but ours
    for _ in range(workload.VALUES_MAX + 7):
        client.metric("m", 1.0)
    with pytest.raises(client.Unavailable):
        client.flush()
    device.open()
    client.flush()
    helpers.wait_for(lambda: len(device.series()) == 2)
    assert device.series() == {
        ("m", "shop/camera", "c1"): (workload.VALUES_MAX, float(workload.VALUES_MAX)),
        ("edgewise.workload.dropped", "shop/camera", "c1"): (1, 7.0),
    }


def test_a_process_that_ends_sends_its_last_metrics(device, helpers):
    program = "from edgewise import workload; workload.metric('last', 4.0)"
    env = {**os.environ, "EDGEWISE_API": device.path(), "EDGEWISE_REVISION": "c1"}
    subprocess.run([sys.executable, "-c", program], env=env, check=True, timeout=60)
    helpers.wait_for(lambda: device.series() == {("last", "shop/camera", "c1"): (1, 4.0)})


def test_outside_an_agent(monkeypatch):
    monkeypatch.delenv("EDGEWISE_API", raising=False)
    monkeypatch.delenv("EDGEWISE_PARAMETERS", raising=False)
    client = workload._Client()
    with pytest.raises(workload.Unavailable, match="not started by an Edgewise agent"):
        client.ask("GET", "/v1/config")
    assert workload.parameters() == {}
    workload.heartbeat()  # an agent that is away is no reason for a workload to fail


def test_importing_it_is_quick_and_loads_nothing_but_the_standard_library():
    program = "import sys, edgewise.workload; print(*sorted(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60).stdout.split()
    ours = [name for name in shown if name.startswith("edgewise")]
    assert ours == ["edgewise", "edgewise.workload"]
    assert not {"msgspec", "http", "asyncio", "logging", "urllib", "ssl", "typing_extensions"} & set(shown)


def test_a_camera_at_10_hz_costs_the_agent_next_to_nothing(device, client):
    """A second of a camera's reports: ten frames with three metrics and a verdict each, sent as one group. The best of some seconds counts:
    what else the machine does costs time as well."""

    def report():
        began = time.thread_time()
        for _ in range(10):
            client.metric("camera.latency", 0.01, unit="s")
            client.metric("camera.exposure", 0.01)
            client.count("camera.frames")
            client.feedback("eye", "e1", correct=True)
        return time.thread_time() - began

    def send():
        began = time.process_time()
        client.metric("camera.latency", 0.01, unit="s")
        client.feedback("eye", "e1", correct=True)
        client.flush()
        return time.process_time() - began

    assert min(report() for _ in range(20)) < 0.01
    assert min(send() for _ in range(20)) < 0.01, "client and agent together, per second of reporting"


def test_sockets_come_and_go_with_their_instances(device, helpers):
    kept = device.connect()
    assert Path(device.path()).stat().st_mode & 0o777 == 0o600
    device.publish("shop/camera")
    helpers.wait_for(lambda: not Path(device.path()).exists())
    assert has_ended(kept)
    kept.close()
    device.publish()
    with device.connect() as again:
        assert ask(again, b"GET /v1/config HTTP/1.1\r\nHost: a\r\n\r\n")[0] == 200
    device.publish("shop/camera")
    device.publish()
    with device.connect() as again:
        assert ask(again, b"GET /v1/config HTTP/1.1\r\nHost: a\r\n\r\n")[0] == 200


def has_ended(connection):
    """Whether the other end closed; what it had not read by then makes that a reset."""
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


def ask(connection, request):
    """Return status and body of one answer."""
    connection.sendall(request)
    return answer(connection)


def answer(connection):
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return None, data
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    while len(body) < length:
        body += connection.recv(65536)
    return int(head.split()[1]), json.loads(body)


def post(body, path=b"/v1/metrics"):
    return b"POST " + path + b" HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v1/config HTTP/1.1\r\n\r\n",
        b"GET /v1/config HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n",
        b"POST /v1/metrics HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /v1/metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 40_000,
    ],
)
def test_what_is_no_http_is_answered_400_or_cut_off(device, request_bytes):
    with device.connect() as connection:
        status, _ = ask(connection, request_bytes)
        assert status in (400, 431, None)
        if status is not None:
            assert has_ended(connection)
    with device.connect() as connection:
        assert ask(connection, b"GET /v1/config HTTP/1.1\r\nHost: a\r\n\r\n") == (200, {"mode": "fast"})


def test_many_requests_on_one_connection_and_in_one_go(device):
    with device.connect() as connection:
        for _ in range(3):
            assert ask(connection, b"GET /v1/config HTTP/1.1\r\nHost: a\r\n\r\n")[0] == 200
        status, body = ask(connection, post(b"{}"))
        assert (status, body["reason"]) == (400, "Invalid")
        both = post(b'{"metrics":[]}') + b"GET /v1/nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        connection.sendall(both)
        data = b""
        while part := connection.recv(65536):
            data += part
        assert data.startswith(b"HTTP/1.1 200")
        assert b"HTTP/1.1 404" in data


def test_a_client_may_wait_for_leave_to_send(device):
    with device.connect() as connection:
        body = b'{"metrics":[]}'
        connection.sendall(b"POST /v1/metrics HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        assert ask(connection, body)[0] == 200


@pytest.mark.parametrize(("size", "status"), [(4999, 400), (5000, 400), (5001, 413)])
def test_bodies_are_bounded(tmp_path, size, status):
    device = Device(tmp_path, body_bytes_max=5000)
    try:
        for chunked in (False, True):
            with device.connect() as connection:
                body = b"x" * size
                request = post(body)
                if chunked:
                    request = (
                        b"POST /v1/metrics HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % size + body + b"\r\n0\r\n\r\n"
                    )
                assert ask(connection, request)[0] == status
    finally:
        device.api.close()


def test_connections_are_bounded_per_instance(tmp_path):
    device = Device(tmp_path, connections_per_instance_max=2)
    try:
        kept = [device.connect() for _ in range(2)]
        for connection in kept:
            assert ask(connection, b"GET /v1/config HTTP/1.1\r\nHost: a\r\n\r\n")[0] == 200
        with device.connect() as third:
            assert has_ended(third)
        with connect_unix(device.path("shop/eye"), 60) as neighbour:
            assert ask(neighbour, b"GET /v1/config HTTP/1.1\r\nHost: a\r\n\r\n")[0] == 200
        for connection in kept:
            connection.close()
    finally:
        device.api.close()


@pytest.mark.parametrize(
    ("limit", "sent"),
    [
        ("request_seconds_max", b"POST /v1/metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{"),
        ("idle_seconds_max", b""),
    ],
)
def test_the_slow_are_let_go(tmp_path, limit, sent):
    device = Device(tmp_path, **{"request_seconds_max": 600, "idle_seconds_max": 600, limit: 0.2})
    try:
        with device.connect() as connection:
            connection.sendall(sent)
            assert has_ended(connection)
    finally:
        device.api.close()


def test_a_client_that_does_not_read_holds_nobody_up(device):
    device.config = {f"key-{n}": "x" * 60_000 for n in range(100)}
    device.publish()
    with device.connect() as deaf, connect_unix(device.path("shop/eye"), 60) as neighbour:
        deaf.sendall(b"GET /v1/config HTTP/1.1\r\nHost: a\r\n\r\n")
        assert ask(neighbour, b"GET /v1/config HTTP/1.1\r\nHost: a\r\n\r\n") == (200, {})


def test_a_mistake_in_the_agents_own_calls_is_answered_500(tmp_path):
    device = Device(tmp_path)

    def fail(_):
        raise RuntimeError("no")

    device.api.answers._calls = ApiCalls(fail, lambda *_: None)
    try:
        with device.connect() as connection:
            status, body = ask(connection, post(b"", b"/v1/heartbeat"))
            assert (status, body["reason"]) == (500, "Mistake")
            assert ask(connection, b"GET /v1/config HTTP/1.1\r\nHost: a\r\n\r\n")[0] == 200
    finally:
        device.api.close()


def test_the_last_window_is_handed_out_at_the_end(tmp_path):
    device = Device(tmp_path, window_seconds=600)
    with device.connect() as connection:
        ask(connection, post(b'{"metrics":[{"name":"m","value":1}]}'))
    assert device.windows == []
    device.api.close()
    assert len(device.windows) == 1
