"""Hostile and broken clients: answered or let go, never followed by the supervisor's end."""

import json
import socket
import stat

import pytest

from edgewise.ports.unix import connect_unix


@pytest.fixture
def raw(supervisor):
    supervisor.run("line_bytes_max=20000", "connections_max=4", "answer_bytes_max=100000")
    opened = []

    def connect():
        one = connect_unix(str(supervisor.data / "run" / "supervisor.sock"), 30)
        opened.append(one)
        return one

    yield connect
    for one in opened:
        one.close()
    assert supervisor.status().pid == supervisor.pid, "it lives on"


def answer(connection):
    data = b""
    while not data.endswith(b"\n"):
        part = connection.recv(65536)
        if not part:
            return None
        data += part
    return json.loads(data)


def send_often(connection, data, times):
    for _ in range(times):
        connection.sendall(data)


def is_closed(connection):
    try:
        connection.sendall(b'{"v":1,"id":1,"do":"hello"}\n')
        return connection.recv(100) == b""
    except OSError:
        return True


START = {"v": 1, "id": 1, "do": "start", "instance": "a/b", "slot": "a", "folder": "a.b", "revision": "r", "argv": ["true"], "cwd": "/tmp"}


@pytest.mark.parametrize(
    ("line", "error", "number"),
    [
        (b"", "Invalid", 0),
        (b"nonsense", "Invalid", 0),
        (b"\xff\xfe", "Invalid", 0),
        (b"[]", "Invalid", 0),
        (b"{}", "Invalid", 0),
        (b'{"id": 1} {"id": 2}', "Invalid", 0),
        (b'{"id": NaN}', "Invalid", 0),
        (b'{"v": 1, "id": true, "do": "hello"}', "Invalid", 0),
        (b'{"v": 1, "id": "x", "do": "hello"}', "Invalid", 0),
        (b'{"v": 2, "id": 3, "do": "hello"}', "UnsupportedVersion", 3),
        (b'{"id": 3, "do": "hello"}', "UnsupportedVersion", 3),
        (b'{"v": 1, "id": 3}', "UnknownVerb", 3),
        (b'{"v": 1, "id": 3, "do": ["hello"]}', "UnknownVerb", 3),
        (b'{"v": 1, "id": 3, "do": "reboot"}', "UnknownVerb", 3),
        (b"[" * 15_000, "Invalid", 0),
        (b'{"id": ' * 2_000, "Invalid", 0),
        (json.dumps(START).encode(), "Invalid", 1),
        (json.dumps({**START, "slot": "c"}).encode(), "Invalid", 1),
        (json.dumps({**START, "folder": "../b"}).encode(), "Invalid", 1),
        (json.dumps({**START, "folder": ".hidden"}).encode(), "Invalid", 1),
        (json.dumps({**START, "folder": ""}).encode(), "Invalid", 1),
        (json.dumps({**START, "folder": "x" * 201}).encode(), "Invalid", 1),
        (json.dumps({**START, "argv": []}).encode(), "Invalid", 1),
        (json.dumps({**START, "argv": ["a\0b"]}).encode(), "Invalid", 1),
        (json.dumps({**START, "argv": "true"}).encode(), "Invalid", 1),
        (json.dumps({**START, "env": {"A": 1}}).encode(), "Invalid", 1),
        (json.dumps({**START, "listen": 1}).encode(), "Invalid", 1),
        (json.dumps({**START, "memory": -1}).encode(), "Invalid", 1),
        (json.dumps({**START, "memory": 1.5}).encode(), "Invalid", 1),
        (b'{"v":1,"id":4,"do":"stop","instance":"a/b","slot":"a","grace":-1}', "Invalid", 4),
        (b'{"v":1,"id":4,"do":"stop","instance":"a/b","slot":"a","grace":1e9}', "Invalid", 4),
        (b'{"v":1,"id":4,"do":"stop","instance":"a/b","slot":"a","grace":true}', "Invalid", 4),
        (b'{"v":1,"id":4,"do":"stop","slot":"a","grace":1}', "Invalid", 4),
        (b'{"v":1,"id":4,"do":"set-agent","argv":[],"version":"x"}', "Invalid", 4),
        (b'{"v":1,"id":4,"do":"activate","instance":"a/b","slot":"a"}', "NotRunning", 4),
    ],
)
def test_bad_lines_are_answered_and_survived(raw, line, error, number):
    connection = raw()
    connection.sendall(line + b"\n")
    told = answer(connection)
    assert (told["ok"], told["error"], told["id"]) == (False, error, number)
    connection.sendall(b'{"v":1,"id":9,"do":"hello"}\n')
    assert answer(connection)["ok"] is True


def test_a_line_may_be_as_long_as_the_limit_and_no_longer(raw):
    filler = len('{"v":1,"id":9,"do":"hello","x":""}')
    for extra, ok in ((-1, True), (0, True), (1, False)):
        connection = raw()
        connection.sendall(b'{"v":1,"id":9,"do":"hello","x":"' + b"x" * (20_000 - filler + extra) + b'"}\n')
        told = answer(connection)
        assert told["ok"] is ok, extra
        if not ok:
            assert told["error"] == "TooLong"
            assert answer(connection) is None
        connection.close()


def test_a_line_without_an_end_is_cut_off(raw):
    connection = raw()
    with pytest.raises(OSError):
        send_often(connection, b"x" * 10_000, 1000)


def test_many_requests_in_one_go_are_all_answered(raw):
    connection = raw()
    connection.sendall(b"".join(b'{"v":1,"id":%d,"do":"status"}\n' % n for n in range(100)))
    data = b""
    while data.count(b"\n") < 100:
        data += connection.recv(65536)
    assert [json.loads(line)["id"] for line in data.splitlines()] == list(range(100))


def test_a_client_that_never_reads_is_let_go(raw):
    connection = raw()
    connection.settimeout(30)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        send_often(connection, b'{"v":1,"id":1,"do":"hello"}\n' * 100, 100_000)


def test_a_client_that_leaves_in_the_middle(raw):
    for part in (b"", b'{"v":1,', b'{"v":1,"id":1,"do":"hello"}\n' * 3):
        connection = raw()
        connection.sendall(part)
        connection.close()


def test_connections_are_bounded(raw, helpers):
    kept = [raw() for _ in range(4)]
    for connection in kept:
        connection.sendall(b'{"v":1,"id":1,"do":"hello"}\n')
        assert answer(connection)["ok"]
    one_more = raw()
    assert is_closed(one_more)
    kept.pop().close()
    helpers.wait_for(lambda: not is_closed(raw()), what="room for another one, once the supervisor has seen that one left")


def test_the_socket_is_for_this_user_only(supervisor):
    supervisor.run()
    mode = (supervisor.data / "run" / "supervisor.sock").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert mode & 0o777 == 0o600
    assert (supervisor.data / "run").stat().st_mode & 0o777 == 0o700


def test_another_user_is_refused_even_past_the_file_modes(supervisor, tmp_path):
    import os

    if os.getuid() != 0:
        pytest.skip("becoming another user takes root")
    supervisor.run()
    for folder in (supervisor.data, supervisor.data / "run"):
        folder.chmod(0o711)
    (supervisor.data / "run" / "supervisor.sock").chmod(0o666)
    # A descriptor of the folder gets the child there whatever stands above it.
    run = os.open(supervisor.data / "run", os.O_PATH)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(5)
            connection.connect(f"/proc/self/fd/{run}/supervisor.sock")
            try:
                connection.sendall(b'{"v":1,"id":1,"do":"hello"}\n')
                code = 0 if connection.recv(100) == b"" else 2
            except (BrokenPipeError, ConnectionResetError):
                code = 0
        finally:
            os._exit(code)
    os.close(run)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert "user 65534 was refused" in supervisor.errors
