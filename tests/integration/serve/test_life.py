"""A server's life, as its supervisor sees it: real processes, real sockets."""

import contextlib
import http.client
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

import pytest

INFER = "/v2/models/m/infer"
HELD = -1
"""An inference that takes until it is released."""


def _raw(body: bytes, *headers: str) -> bytes:
    return "\r\n".join((f"POST {INFER} HTTP/1.1", "host: x", f"content-length: {len(body)}", *headers, "", "")).encode() + body


def _read_all(sock: socket.socket) -> bytes:
    got = b""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(65536):
            got += data
    return got


def test_from_start_to_end(supervisor, tree, bodies):
    server = supervisor.start(tree, "m-abc").activate()
    assert stat.S_IMODE(server.control.stat().st_mode) == 0o600
    connection = supervisor.connect()
    for path, expected in (
        ("/v2/health/live", {"live": True, "ready": True}),
        ("/v2/health/ready", {"live": True, "ready": True}),
        ("/v2/models/m/ready", {"name": "m", "version": "m-abc", "ready": True}),
        ("/v2/models/m/versions/m-abc/ready", {"name": "m", "version": "m-abc", "ready": True}),
    ):
        connection.request("GET", path)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())) == (200, expected)
    connection.request("GET", "/v2/models/m")
    metadata = json.loads(connection.getresponse().read())
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
    connection.request("GET", "/v2")
    assert json.loads(connection.getresponse().read())["name"] == "edgewise"
    connection.request("POST", INFER, bodies())
    answer = connection.getresponse()
    content = json.loads(answer.read())
    assert answer.headers["edgewise-revision"] == content["model_version"] == "m-abc"
    assert content["outputs"][0]["data"] == [2, 4, 6, 8]
    connection.request("GET", "/metrics")
    assert b'edgewise_serve_answers_total{code="200"} ' in connection.getresponse().read()
    connection.close()
    server.drain()
    assert server.ended() == 0
    assert server.process.stderr.read() == ""
    assert not server.control.exists()


def test_nothing_is_accepted_before_activation(supervisor, tree, bodies, wait):
    server = supervisor.start(tree)
    wait(server.is_ready)
    waiting = supervisor.socket()
    waiting.sendall(_raw(bodies(), "connection: close"))
    waiting.settimeout(0.3)
    with pytest.raises(TimeoutError):
        waiting.recv(1)
    assert server.order("POST", INFER, bodies())[0] == 200  # the control socket answers, so that a slot can be tried before it is used
    assert server.order("POST", "/activate")[0] == 200
    assert server.order("POST", "/activate")[0] == 200
    waiting.settimeout(60)
    assert _read_all(waiting).startswith(b"HTTP/1.1 200 OK")


def test_a_server_that_loads_is_alive_and_not_ready(supervisor, wait):
    server = supervisor.start_slow(loaded=False)
    wait(server.is_alive)
    assert server.order("GET", "/ready") == (503, {"ready": False, "state": "loading"})
    assert server.order("GET", "/v2/health/ready")[0] == 503
    assert server.order("POST", INFER, b"{}")[0] == 503
    assert server.order("POST", "/activate")[0] == 409
    (supervisor.folder / "gate-0").touch()
    server.activate()


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_a_model_that_does_not_load_ends_with_3_and_one_line(supervisor, tmp_path, content):
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)
    server = supervisor.start(tmp_path, "m-bad")
    assert server.ended() == 3
    lines = server.process.stderr.read().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("edgewise.serve: default/m at m-bad: ")


def test_wrong_sockets_end_with_2(supervisor, tree, tmp_path):
    plain, other = socket.socketpair()
    with plain, other, (tmp_path / "file").open("w") as file:
        for number in (plain.fileno(), file.fileno(), 999):
            argv = [
                sys.executable,
                "-m",
                "edgewise.serve",
                "--model",
                str(tree),
                "--listen-fd",
                str(number),
                "--control",
                str(tmp_path / "c"),
            ]
            argv += ["--instance", "a/b", "--revision", "1"]
            passed = [plain.fileno(), file.fileno()]
            ended = subprocess.run(argv, check=False, pass_fds=passed, capture_output=True, text=True)
            assert ended.returncode == 2
            assert len(ended.stderr.splitlines()) == 1
    server = supervisor.start(tree, control=tmp_path / "no" / "folder.sock")
    assert server.ended() == 2


def test_a_stale_control_socket_is_replaced_and_a_file_is_not(supervisor, tree, tmp_path):
    stale = tmp_path / "c.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(stale))
    left.close()
    supervisor.start(tree, control=stale).activate()
    precious = tmp_path / "precious"
    precious.write_text("mine")
    refused = supervisor.start(tree, control=precious)
    assert refused.ended() == 2
    assert precious.read_text() == "mine"


def test_a_long_control_path_works(supervisor, tree, tmp_path):
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    server = supervisor.start(tree, control=folder / "control.sock")
    handle = os.open(folder, os.O_PATH)
    try:
        server.control = f"/proc/self/fd/{handle}/control.sock"
        server.activate()
    finally:
        os.close(handle)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_drain(supervisor, slow_body, wait, number):
    server = supervisor.start_slow().activate()
    sock = supervisor.socket()
    sock.sendall(_raw(slow_body(HELD)))
    server.wait_for("waiting_requests", 1)
    server.process.send_signal(number)
    wait(lambda: server.order("GET", "/ready")[1]["state"] == "draining")
    server.release()
    answer = _read_all(sock)
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in answer
    sock.close()
    assert server.ended() == 0


# ---- draining ----


def test_a_drain_answers_what_is_in_flight_and_in_the_queue(supervisor, slow_body):
    server = supervisor.start_slow().activate()
    socks = [supervisor.socket() for _ in range(5)]
    for sock in socks:
        sock.sendall(_raw(slow_body(HELD)))
    server.wait_for("waiting_requests", 5)
    server.drain()
    server.release()
    for sock in socks:
        answer = _read_all(sock)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b"connection: close" in answer
        sock.close()
    assert server.ended() == 0


def test_a_drain_serves_open_connections_once_more(supervisor, slow_body):
    server = supervisor.start_slow(drain_seconds=10).activate()
    connections = [supervisor.connect() for _ in range(3)]
    for connection in connections:
        connection.request("POST", INFER, slow_body(0))
        answer = connection.getresponse()
        assert answer.read()
        assert answer.headers.get("connection") is None
    server.drain()
    for connection in connections:
        before = connection.sock
        connection.request("POST", INFER, slow_body(0))
        assert connection.sock is before
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
        answer.read()
        connection.close()
    assert server.ended() == 0


def test_a_drain_takes_a_request_that_has_begun(supervisor, slow_body):
    server = supervisor.start_slow(drain_seconds=0).activate()
    sock = supervisor.socket()
    request = _raw(slow_body(0))
    sock.sendall(request[:20])
    server.wait_for("connections", 1)
    server.drain()
    time.sleep(0.2)
    sock.sendall(request[20:])
    assert _read_all(sock).startswith(b"HTTP/1.1 200 OK")
    sock.close()
    assert server.ended() == 0


def test_a_drain_answers_pipelined_requests_and_closes_after_the_last(supervisor, slow_body):
    server = supervisor.start_slow(drain_seconds=0).activate()
    sock = supervisor.socket()
    sock.sendall(_raw(slow_body(HELD)))
    server.wait_for("waiting_requests", 1)
    sock.sendall(_raw(slow_body(0)) * 2)
    server.drain()
    server.release()
    answer = _read_all(sock)
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    assert answer.count(b"connection: close") == 1
    sock.close()
    assert server.ended() == 0


def test_idle_connections_are_closed_at_the_end_of_the_drain_and_a_retry_is_safe(supervisor, slow_body):
    old = supervisor.start_slow(drain_seconds=0.3).activate()
    idle = supervisor.socket()
    idle.sendall(_raw(slow_body(0)))
    assert idle.recv(65536).startswith(b"HTTP/1.1 200 OK")
    new = supervisor.start_slow().activate()
    started = time.monotonic()
    old.drain()
    assert idle.recv(1) == b""  # a clean end, not a reset
    assert time.monotonic() - started > 0.2
    assert old.ended() == 0
    retry = supervisor.socket()
    retry.sendall(_raw(slow_body(0), "connection: close"))
    assert _read_all(retry).startswith(b"HTTP/1.1 200 OK")
    assert new.process.poll() is None


def test_a_drained_server_leaves_new_connections_to_the_next(supervisor, slow_body):
    old = supervisor.start_slow().activate()
    old.drain()
    assert old.ended() == 0
    waiting = supervisor.socket()  # never refused: the supervisor's socket listens
    waiting.sendall(_raw(slow_body(0), "connection: close"))
    supervisor.start_slow().activate()
    assert _read_all(waiting).startswith(b"HTTP/1.1 200 OK")


def test_a_second_drain_does_not_prolong_the_first(supervisor, slow_body, wait):
    """Asked again and again, it would never end."""
    server = supervisor.start_slow(drain_seconds=1.0).activate()
    idle = supervisor.socket()
    idle.sendall(_raw(slow_body(0)))
    assert idle.recv(65536)

    def over():
        with contextlib.suppress(OSError, http.client.HTTPException):
            server.drain()
        return server.process.poll() is not None

    wait(over)
    assert server.ended() == 0


# ---- overload and slow clients ----


def test_probes_are_answered_while_an_inference_runs(supervisor, slow_body):
    server = supervisor.start_slow().activate()
    busy = supervisor.socket()
    busy.sendall(_raw(slow_body(HELD)))
    server.wait_for("waiting_requests", 1)
    assert server.order("GET", "/ready")[0] == 200
    busy.close()  # and a client that goes away while it waits harms nothing
    server.release()
    assert server.order("POST", INFER, slow_body(0))[0] == 200


@pytest.mark.parametrize("clients", [3, 4, 5])
def test_a_full_queue_sheds(supervisor, slow_body, wait, clients):
    server = supervisor.start_slow(waiting_requests_max=4).activate()
    socks = [supervisor.socket() for _ in range(clients)]
    for sock in socks:
        sock.sendall(_raw(slow_body(HELD), "connection: close"))
    server.wait_for("waiting_requests", min(clients, 4))
    wait(lambda: len(select.select(socks, [], [], 0)[0]) == max(0, clients - 4), what="an answer to all others")
    server.release()
    answers = [_read_all(sock) for sock in socks]
    assert sum(answer.startswith(b"HTTP/1.1 200") for answer in answers) == min(clients, 4)
    shed = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503")]
    assert len(shed) == max(0, clients - 4)
    assert all(b"retry-after: 1" in answer for answer in shed)


def test_more_connections_than_allowed_wait_their_turn(supervisor, slow_body):
    server = supervisor.start_slow(connections_max=5).activate()  # one is for the control socket, while it is asked
    idle = [supervisor.socket() for _ in range(4)]
    server.wait_for("connections", 4)
    answers = []

    def ask() -> None:
        with supervisor.socket() as sock:
            sock.sendall(_raw(slow_body(0.05), "connection: close"))
            answers.append(_read_all(sock))

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 12
    assert [answer[:300] for answer in answers if not answer.startswith(b"HTTP/1.1 200")] == []
    for sock in idle:
        sock.close()


def test_a_client_that_takes_too_long_is_told_and_closed(supervisor):
    supervisor.start_slow(request_seconds_max=0.3, idle_seconds_max=0.5).activate()
    slow, idle = supervisor.socket(), supervisor.socket()
    slow.sendall(b"POST /v2")
    with contextlib.suppress(ConnectionError):
        while not select.select([slow], [], [], 0.02)[0]:  # however long it goes on: bytes that drip prolong nothing
            slow.sendall(b"x")
    assert _read_all(slow).startswith(b"HTTP/1.1 408")
    assert _read_all(idle) == b""


def test_a_device_without_the_runtime_says_so(supervisor, tree, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['onnxruntime'] = None\n")
    argv = [sys.executable, "-m", "edgewise.serve", "--model", str(tree), "--listen-fd", str(supervisor.listener.fileno())]
    argv += ["--control", str(tmp_path / "c"), "--instance", "a/b", "--revision", "1"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    ended = subprocess.run(argv, check=False, pass_fds=[supervisor.listener.fileno()], capture_output=True, text=True, env=environment)
    assert ended.returncode == 3
    assert ended.stderr == "edgewise.serve: a/b at 1: onnxruntime is not installed here: install edgewise[serve]\n"
