"""The HTTP client against a real TLS server with faults."""

import socket
import threading
import time

import pytest

from edgewise.agent.errors import ProtocolBroken, Refused, TlsFailed, Unreachable
from edgewise.agent.exchange import Timeouts
from edgewise.agent.http import Client, Endpoint
from edgewise.agent.tls import client_context, served_chain
from edgewise.trust.authority import Issuer, agent_of, create_authority


def test_a_request_shows_the_device_and_reuses_the_connection(gateway, client, helpers):
    gateway.handler = lambda request: helpers.Reply(body=request.body[::-1])
    for _ in range(3):
        assert client.request("POST", "/v1/report", body=b"abc").body == b"cba"
    assert gateway.connections == 1
    assert agent_of(gateway.requests[0].peer) == "device-1"
    assert set(gateway.requests[0].headers) == {"host", "content-length"}


def test_no_content_leaves_the_connection_usable(gateway, client, helpers):
    gateway.handler = lambda request: helpers.Reply(status=204)
    assert client.request("GET", "/v1/desired").status == 204
    assert client.request("GET", "/v1/desired").body == b""
    assert gateway.connections == 1


def test_a_connection_that_went_away_is_opened_again(gateway, client, helpers):
    gateway.handler = lambda request: helpers.Reply(body=b"x")
    client.request("GET", "/")
    gateway.drop()
    time.sleep(0.05)
    assert client.request("GET", "/").body == b"x"
    assert gateway.connections == 2


def test_a_close_is_honoured(gateway, client, helpers):
    gateway.handler = lambda request: helpers.Reply(body=b"x", close=True)
    client.request("GET", "/")
    assert client.idle_for() == 0.0
    client.request("GET", "/")
    assert gateway.connections == 2


def test_chunked_answers_and_uploads(gateway, client, helpers):
    gateway.handler = lambda request: helpers.Reply(body=request.body * 2, chunked=True)
    with client.stream("POST", "/", body=iter([b"a" * 5000, b"b" * 5000])) as incoming:
        assert incoming.read(100_000) == (b"a" * 5000 + b"b" * 5000) * 2
    assert gateway.requests[0].headers["transfer-encoding"] == "chunked"
    assert client.request("GET", "/").status == 200
    assert gateway.connections == 1


@pytest.mark.parametrize("size", [0, 1, 65_535, 3_000_001])
def test_bodies_come_whole(gateway, client, helpers, size):
    data = bytes(size)
    gateway.handler = lambda request: helpers.Reply(body=data)
    assert client.request("GET", "/", body_limit=size).body == data
    assert client.request("GET", "/", body_limit=size).body == data
    assert gateway.connections == 1


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_not_read(gateway, client, helpers, chunked):
    gateway.handler = lambda request: helpers.Reply(body=bytes(1001), chunked=chunked)
    with pytest.raises(ProtocolBroken):
        client.request("GET", "/", body_limit=1000)
    assert client.request("GET", "/", body_limit=1001).status == 200


def test_a_head_over_the_limit_is_refused(gateway, client, helpers):
    gateway.handler = lambda request: helpers.Reply(headers={"X-Long": "x" * 70_000})
    with pytest.raises(ProtocolBroken):
        client.request("GET", "/")


def test_an_error_answer_is_told_with_its_retry_after(gateway, client, helpers):
    gateway.handler = lambda request: helpers.error_reply(503, "Overloaded", Retry_After="7")
    with pytest.raises(Refused) as caught:
        client.request("POST", "/v1/report", body=b"")
    assert (caught.value.status, caught.value.answer.reason, caught.value.retry_after) == (503, "Overloaded", 7.0)
    gateway.handler = lambda request: helpers.Reply(status=500, body=b"<html>")
    with pytest.raises(Refused) as caught:
        client.request("GET", "/")
    assert caught.value.answer.reason == "Http500"
    assert gateway.connections == 1


def test_a_body_that_ends_early_hands_out_what_came(gateway, client, helpers):
    data = bytes(range(256)) * 10_000
    gateway.handler = lambda request: helpers.Reply(body=data, cut=1_500_000)
    pieces: list[bytes] = []
    with client.stream("GET", "/v1/blobs/x") as incoming, pytest.raises(Unreachable):
        pieces.extend(incoming.chunks(1 << 20))
    got = b"".join(pieces)
    assert len(got) > 1_400_000
    assert data.startswith(got)
    assert client.idle_for() == 0.0


def test_a_silent_server_is_given_up(gateway, client, helpers):
    gateway.handler = lambda request: helpers.Reply(delay=600)
    with pytest.raises(Unreachable):
        client.request("GET", "/", timeouts=Timeouts(read=0.2))
    with pytest.raises(Unreachable):
        client.request("GET", "/", timeouts=Timeouts(total=0.2))


def test_nobody_there_is_unreachable_and_the_next_address_is_tried(gateway, device, helpers):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"https://127.0.0.1:{listener.getsockname()[1]}"
    context = client_context(device.root, device.certificate_path, device.key_path)
    with pytest.raises(Unreachable):
        Client(Endpoint(addresses=(nobody,), context=context)).request("GET", "/")
    client = Client(Endpoint(addresses=(nobody, gateway.address), context=context))
    gateway.handler = lambda request: helpers.Reply(body=b"x")
    assert client.request("GET", "/").body == b"x"
    client.close()


def test_abort_ends_a_poll_at_once(gateway, client, helpers):
    gateway.handler = lambda request: helpers.Reply(delay=600)
    threading.Timer(0.2, client.abort).start()
    with pytest.raises(Unreachable):
        client.request("GET", "/v1/desired", timeouts=Timeouts(read=600, total=None))
    with pytest.raises(Unreachable):
        client.request("GET", "/")


def test_another_authority_is_not_trusted(gateway, device):
    other = create_authority("other", time.time())
    client = Client(Endpoint(addresses=(gateway.address,), context=client_context(other.root_cert_pem)))
    with pytest.raises(TlsFailed):
        client.request("GET", "/")
    assert gateway.requests == []


def test_another_name_is_not_trusted(issuer, tmp_path, device, helpers):
    fake = helpers.FakeGateway(issuer, tmp_path, hosts=("10.0.0.1",))
    try:
        with pytest.raises(TlsFailed):
            Client(Endpoint(addresses=(fake.address,), context=client_context(device.root))).request("GET", "/")
    finally:
        fake.stop()


def test_a_clock_at_1970_still_connects(gateway, device, helpers):
    gateway.handler = lambda request: helpers.Reply(body=b"x")
    context = client_context(device.root, device.certificate_path, device.key_path)
    client = Client(Endpoint(addresses=(gateway.address,), context=context), now=lambda: 1000.0)
    assert client.request("GET", "/").body == b"x"
    begin, end = client.validity
    assert begin < time.time() < end
    client.close()


def test_an_expired_server_is_told_from_the_floor(issuer, tmp_path, device, helpers):
    fake = helpers.FakeGateway(issuer, tmp_path, lifetime=3600)
    try:
        client = Client(Endpoint(addresses=(fake.address,), context=client_context(device.root)), now=lambda: time.time() + 7200)
        with pytest.raises(TlsFailed, match="expired"):
            client.request("GET", "/")
        assert fake.requests == []
    finally:
        fake.stop()


def test_a_turned_down_certificate_is_a_trust_problem(gateway, tmp_path, device, helpers):
    stranger = create_authority("stranger", time.time())
    issuer = Issuer(stranger.issuing_key_pem, stranger.issuing_cert_pem, stranger.root_cert_pem)
    from edgewise.trust.keys import new_device_key, signing_request

    key = new_device_key()
    (tmp_path / "k").write_text(key)
    (tmp_path / "c").write_text(issuer.issue_agent(signing_request(key, "x"), "x", time.time()))
    client = Client(Endpoint(addresses=(gateway.address,), context=client_context(device.root, str(tmp_path / "c"), str(tmp_path / "k"))))
    with pytest.raises((TlsFailed, Unreachable)):
        client.request("GET", "/")


def _proxy(status: int, seen: list[bytes]) -> tuple[socket.socket, threading.Thread]:
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass

    def run() -> None:
        near, _ = listener.accept()
        with near:
            head = b""
            while b"\r\n\r\n" not in head:
                head += near.recv(4096)
            seen.append(head)
            near.sendall(f"HTTP/1.1 {status} X\r\n\r\n".encode())
            if status != 200:
                return
            host, _, port = head.split()[1].decode().partition(":")
            with socket.create_connection((host, int(port))) as far:
                back = threading.Thread(target=pump, args=(far, near), daemon=True)
                back.start()
                pump(near, far)
                far.shutdown(socket.SHUT_RDWR)
                back.join(5)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return listener, thread


@pytest.mark.parametrize("status", [200, 407])
def test_through_a_proxy(gateway, device, helpers, status):
    gateway.handler = lambda request: helpers.Reply(body=b"x")
    seen: list[bytes] = []
    listener, thread = _proxy(status, seen)
    with listener:
        proxy = f"http://me:secret@127.0.0.1:{listener.getsockname()[1]}"
        context = client_context(device.root, device.certificate_path, device.key_path)
        client = Client(Endpoint(addresses=(gateway.address,), context=context, proxy=proxy))
        if status == 200:
            assert client.request("GET", "/").body == b"x"
        else:
            with pytest.raises(Unreachable, match="407"):
                client.request("GET", "/")
        client.close()
        thread.join(5)
    assert seen[0].startswith(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n" % gateway.port)
    assert b"Basic bWU6c2VjcmV0" in seen[0]


def test_the_served_chain_can_be_looked_at_before_trusting_it(gateway, authority):
    from edgewise.agent.tls import blind_context
    from edgewise.trust.authority import authority_hash, certificate_hash

    with socket.create_connection(("127.0.0.1", gateway.port)) as plain, blind_context().wrap_socket(plain) as secured:
        hashes = [certificate_hash(each) for each in served_chain(secured)]
    assert authority_hash(authority.root_cert_pem) in hashes
    assert hashes[0] != hashes[-1]
