"""Binary and compressed requests that lie are answered with a clear error, cost bounded memory, and the server lives on."""

import gzip
import json
import socket
import struct
import zlib
from pathlib import Path

import pytest

from edgewise.serve.limits import LIMITS

INFER = "/v2/models/m/infer"
ROW = struct.pack("<4f", 1, 2, 3, 4)


def _head(size: int = 16, **changes) -> bytes:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": size}} | changes
    return json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()


@pytest.fixture
def ask(supervisor, tree):
    server = supervisor.start(tree).activate()
    connection = supervisor.connect()

    def ask(body: bytes, length: object = None, **headers: str):
        told = {name.replace("_", "-"): value for name, value in headers.items()}
        if length is not None:
            told["Inference-Header-Content-Length"] = str(length)
        connection.request("POST", INFER, body, told)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()

    yield ask
    connection.close()
    assert server.process.poll() is None
    assert server.order("POST", INFER, json.dumps({"inputs": []}).encode())[0] == 400


def test_a_right_request_is_answered(ask):
    head = _head()
    status, headers, body = ask(head + ROW, len(head))
    at = int(headers["inference-header-content-length"])
    assert (status, headers["content-type"]) == (200, "application/octet-stream")
    assert json.loads(body[:at])["outputs"][0]["parameters"] == {"binary_data_size": 16}
    assert struct.unpack("<4f", body[at:]) == (2, 4, 6, 8)


def test_requests_that_lie_are_refused(ask):
    head = _head()
    cases = [
        (head + ROW, len(head) + 1),
        (head + ROW, len(head) - 1),
        (head + ROW, len(head) + 17),
        (head + ROW, 10**11),
        (head + ROW, "-5"),
        (head + ROW, None),
        (head + ROW[:-1], len(head)),
        (head + ROW + b"x", len(head)),
        (_head(-16) + ROW, len(_head(-16))),
        (_head(10**18) + ROW, len(_head(10**18))),
        (_head(shape=[2, 4]) + ROW, len(_head(shape=[2, 4]))),
        (_head(shape=[2**40, 4]) + ROW, len(_head(shape=[2**40, 4]))),
        (ROW[:-1], 0),
        (b"", 0),
    ]
    for body, length in cases:
        status, _, content = ask(body, length)
        # Nothing is also no rows, which the model takes.
        assert status == (200 if body == b"" else 400), (body, length)
        assert status == 200 or set(json.loads(content)) == {"error"}
    status, _, _ = ask(head + ROW, len(head))
    assert status == 200


def test_compressed_requests_and_answers(ask):
    head = _head(16 * 1000, shape=[1000, 4])
    plain = head + ROW * 1000
    for encoding, body in (("gzip", gzip.compress(plain)), ("deflate", zlib.compress(plain))):
        status, headers, content = ask(body, len(head), Content_Encoding=encoding, Accept_Encoding=encoding)
        assert (status, headers["content-encoding"]) == (200, encoding)
        whole = zlib.decompress(content, 47)
        at = int(headers["inference-header-content-length"])
        assert struct.unpack("<4f", whole[-16:]) == (2, 4, 6, 8)
        assert len(whole) == at + 16 * 1000
        assert ask(body[:-3], len(head), Content_Encoding=encoding)[0] == 400
        assert ask(plain, len(head), Content_Encoding=encoding)[0] == 400


def test_a_bomb_is_refused_and_costs_bounded_memory(supervisor, ask):
    bomb = gzip.compress(b" " * 400_000_000, 1)
    assert len(bomb) < LIMITS.body_bytes_max
    for _ in range(3):
        status, _, content = ask(bomb, Content_Encoding="gzip")
        assert status == 413
        assert "bytes" in json.loads(content)["error"]
    lines = Path(f"/proc/{supervisor.servers[0].process.pid}/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    assert peak * 1024 < 120_000_000 + 4 * LIMITS.body_bytes_max


def test_a_client_that_stops_in_the_middle_is_told(supervisor, slow_body):
    server = supervisor.start_slow(request_seconds_max=0.3).activate()
    head = _head()
    with supervisor.socket() as sock:
        sock.sendall(
            f"POST {INFER} HTTP/1.1\r\nInference-Header-Content-Length: {len(head)}\r\ncontent-length: {len(head) + 16}\r\n\r\n".encode()
        )
        sock.sendall(head + ROW[:7])
        assert sock.recv(65536).startswith(b"HTTP/1.1 408")
    assert server.order("POST", INFER, slow_body(0))[0] == 200


def test_an_encoding_that_is_not_taken_is_told_before_the_body_comes(supervisor, ask):
    with socket.create_connection(("127.0.0.1", supervisor.port), timeout=60) as sock:
        sock.sendall(f"POST {INFER} HTTP/1.1\r\ncontent-encoding: zstd\r\ncontent-length: 5\r\n\r\n".encode())
        assert sock.recv(65536).startswith(b"HTTP/1.1 415")
