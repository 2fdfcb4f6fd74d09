"""Whatever a client sends is answered with a clear error, and the server lives on."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgewise.serve.limits import LIMITS

INFER = "/v2/models/m/infer"


@pytest.fixture
def server(supervisor, tree):
    return supervisor.start(tree).activate()


def _exchange(supervisor, data: bytes, *, then: bytes = b"") -> tuple[int, dict]:
    with supervisor.socket() as sock:
        sock.sendall(data)
        try:
            for start in range(0, len(then), 1 << 20):
                sock.sendall(then[start : start + (1 << 20)])
        except OSError:
            pass
        got = b""
        while b"\r\n\r\n" not in got or len(got.partition(b"\r\n\r\n")[2]) < _length(got):
            chunk = sock.recv(65536)
            assert chunk, got
            got += chunk
    return int(got.split()[1]), json.loads(got.partition(b"\r\n\r\n")[2])


def _length(head: bytes) -> int:
    return int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])


def _post(body: bytes) -> bytes:
    return f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def test_bad_requests_are_4xx_with_an_error(supervisor, server, bodies):
    cases = [
        (_post(b""), 400),
        (_post(b"{"), 400),
        (_post(b"[" * 200_000), 400),
        (_post(b'{"inputs":' * 50_000), 400),
        (_post(bodies(shape=[4])), 400),
        (_post(bodies(datatype="INT8")), 400),
        (_post(bodies(name="other")), 400),
        (_post(bodies().replace(b"[1, 2, 3, 4]", b"[NaN, 2, 3, 4]")), 400),
        (_post(bodies().replace(b"[1, 2, 3, 4]", b"[1e39, 2, 3, 4]")), 400),
        (_post(bodies([3e38] * 4)), 422),
        (b"GET /nothing HTTP/1.1\r\n\r\n", 404),
        (b"GET /v2/models/other HTTP/1.1\r\n\r\n", 404),
        (b"DELETE /v2 HTTP/1.1\r\n\r\n", 405),
        (b"POST /drain HTTP/1.1\r\ncontent-length: 0\r\n\r\n", 404),
        (b"POST /activate HTTP/1.1\r\ncontent-length: 0\r\n\r\n", 404),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", 400),
        (b"GET / HTTP/1.1\r\na: " + b"x" * LIMITS.head_bytes_max, 431),
        (b"POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n", 400),
    ]
    for data, status in cases:
        got, content = _exchange(supervisor, data)
        assert got == status, data[:100]
        assert content["error"]
    assert server.order("POST", INFER, bodies())[0] == 200
    assert server.process.poll() is None


def test_a_body_that_is_too_large_is_refused_though_the_client_goes_on_sending(supervisor, server, bodies):
    head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: {LIMITS.body_bytes_max + 1}\r\n\r\n".encode()
    status, content = _exchange(supervisor, head, then=b" " * (LIMITS.body_bytes_max + 1))
    assert status == 413
    assert str(LIMITS.body_bytes_max) in content["error"]
    assert server.order("POST", INFER, bodies())[0] == 200


def test_a_body_of_the_largest_size_is_read(supervisor, server, bodies):
    body = bodies()
    status, _ = _exchange(supervisor, _post(body + b" " * (LIMITS.body_bytes_max - len(body))))
    assert status == 200


def test_many_large_bodies_at_once_cost_bounded_memory(supervisor, server, bodies):
    body = b" " * (LIMITS.body_bytes_max - 1000)

    def post(_: int) -> int:
        try:
            return _exchange(supervisor, _post(body))[0]
        except (OSError, AssertionError):
            return 0  # shed, and the connection ended while it was still sending

    with ThreadPoolExecutor(8) as pool:
        statuses = set(pool.map(post, range(16)))
    assert statuses <= {0, 400, 503}
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    assert peak * 1024 < 80_000_000 + LIMITS.buffered_bytes_max + 4 * LIMITS.body_bytes_max
    assert server.order("POST", INFER, bodies())[0] == 200


def test_clients_that_vanish_harm_nothing(supervisor, server, bodies):
    for cut in (1, 10, 60, len(_post(bodies()))):
        for reset in (False, True):
            sock = supervisor.socket()
            sock.sendall(_post(bodies())[:cut])
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
    server.wait_for("connections", 0)
    assert server.order("POST", INFER, bodies())[0] == 200


def test_a_client_that_waits_for_continue_is_told(supervisor, server, bodies):
    body = bodies()
    with supervisor.socket() as sock:
        sock.sendall(f"POST {INFER} HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: {len(body)}\r\n\r\n".encode())
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 OK")
