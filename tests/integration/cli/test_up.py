"""`edgewise up`: the first start, the next ones, and its end."""

import signal
import socket

EDGE_PORTS = 2


def test_the_first_start_and_the_next(own_fleet, port_blocks):
    first = own_fleet.up("--api-port", str(port_blocks().free(1)[0]))
    assert first["firstStart"]
    assert first["adminToken"].startswith("ewo1_")
    assert first["context"] == "edgewise"
    assert own_fleet.type("get", "sites")[1] == "no sites found\n"
    code, _, err = own_fleet.down()
    assert (code, err) == (0, b"")
    _, err = own_fleet.type("get", "sites", code=1)
    assert "cannot reach https://127.0.0.1" in err
    assert "edgewise context show" in err
    port = first["apiAddress"].rsplit(":", 1)[1]
    again = own_fleet.up("--api-port", port)
    assert not again["firstStart"]
    assert again["adminToken"] is None
    assert again["context"] == ""
    assert own_fleet.type("get", "sites")[1] == "no sites found\n"
    assert own_fleet.down(signal.SIGTERM)[0] == 0


def test_an_existing_context_is_left_alone(own_fleet):
    own_fleet.contexts.write_text('{"current": "mine", "contexts": {"mine": {"address": "https://x:1", "token": "t", "authority": "a"}}}')
    own_fleet.contexts.chmod(0o600)
    assert own_fleet.up()["context"] == ""
    assert "mine" in own_fleet.type("context", "list")[0]
    own_fleet.down()
    facts = own_fleet.up("--new-admin-token", "--write-context", "--name", "second")
    assert facts["context"] == "second"
    assert own_fleet.type("version", "--context", "second")[0].count("\n") == EDGE_PORTS
    assert "mine" in own_fleet.type("context", "list")[0]


def test_what_keeps_it_from_starting_is_told(own_fleet):
    own_fleet.up()
    data = str(own_fleet.folder / "control")
    _, err = own_fleet.spawn("up", "--data", data, "--api-port", "0", "--gateway-port", "0", code=1)
    assert "another control plane is running on" in err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        _, err = own_fleet.type(
            "up", "--data", data + "2", "--api-port", port, "--gateway-port", "0", "--gateway-host", "127.0.0.1", code=1
        )
    assert port in err
    assert err.startswith("error: ")
    (own_fleet.folder / "file").write_text("")
    _, err = own_fleet.spawn("up", "--data", str(own_fleet.folder / "file"), "--api-port", "0", "--gateway-port", "0", code=1)
    assert err.startswith("error: ")


def test_the_token_is_nowhere_on_the_disk_but_in_the_context(own_fleet):
    token = own_fleet.up()["adminToken"].encode()
    own_fleet.down()
    files = [path for path in own_fleet.folder.rglob("*") if path.is_file()]
    assert [path for path in files if token in path.read_bytes()] == [own_fleet.contexts]
