"""Joining, renewing and opening secrets against a gateway over real TLS."""

import io
import stat
import time

import msgspec
import pytest

from edgewise.agent.config import ConfigError, read_config
from edgewise.agent.jobs import Place, RenewJob, UnsealJob
from edgewise.agent.join import AlreadyJoined, JoinError, JoinRefused, WrongAuthority, WrongRepository, join, read_token
from edgewise.agent.renew import renew_certificate
from edgewise.agent.unseal import open_secrets
from edgewise.engine.identity import Certificates, read_identity, read_keys, remove_identity, renew
from edgewise.ports.disk import DiskFiles
from edgewise.resources.device import Capacity
from edgewise.trust.authority import agent_of, check_renewal, create_authority, leaf_der
from edgewise.trust.keys import signing_request
from edgewise.trust.sealing import seal, secret_context
from edgewise.trust.tokens import JoinToken, repository_hash, write_join_token
from edgewise.wire.desired import SealedSecret
from edgewise.wire.enrolment import JoinAnswer, JoinRequest, RenewAnswer, RenewRequest

SECRET = "s" * 43
ROOT = b"{}"


@pytest.fixture
def token(gateway, authority, helpers):
    return JoinToken((gateway.address,), helpers.authority_hash(authority.root_cert_pem), repository_hash(ROOT), SECRET)


@pytest.fixture
def joins(gateway, issuer, helpers):
    """Requests that were taken; the gateway signs whatever comes."""
    taken: list[JoinRequest] = []

    def handle(request):
        if request.target == "/v1/renew":
            asked = msgspec.msgpack.decode(request.body, type=RenewRequest)
            agent = check_renewal(asked.certificate, asked.signing_request, issuer, time.time())
            chain = issuer.issue_agent(asked.signing_request, agent, time.time())
            return helpers.Reply(body=msgspec.msgpack.encode(RenewAnswer(certificate=chain, authority=issuer.authority_pem)))
        asked = msgspec.msgpack.decode(request.body, type=JoinRequest)
        taken.append(asked)
        answer = JoinAnswer(
            agent=asked.device,
            certificate=issuer.issue_agent(asked.signing_request, asked.device, time.time()),
            authority=issuer.authority_pem,
            repository_root=ROOT,
        )
        return helpers.Reply(body=msgspec.msgpack.encode(answer))

    gateway.handler = handle
    return taken


def test_a_device_joins(tmp_path, token, joins):
    data = tmp_path / "device"
    config = join(
        token, str(data), device="cam-1", labels={"camera": "front"}, device_class="box", capacity=Capacity(memory=5), telemetry_seconds=7.0
    )
    assert (config.agent, config.device, config.addresses, config.telemetry_seconds) == ("cam-1", "cam-1", token.addresses, 7.0)
    request = joins[0]
    assert (request.secret, request.device, request.labels, request.device_class) == (SECRET, "cam-1", {"camera": "front"}, "box")
    assert request.capacity.memory == 5
    assert request.capacity.cpu_milli > 0
    files = DiskFiles(str(data))
    identity = read_identity(files)
    assert agent_of(leaf_der(identity.certificates.certificate)) == "cam-1"
    assert identity.repository_root == ROOT
    assert read_config(files) == config


def test_nothing_secret_is_readable_by_others(tmp_path, token, joins):
    data = tmp_path / "device"
    join(token, str(data), device="cam-1")
    for path in (data, *data.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()


def test_the_secret_stays_here_when_the_authority_is_another(tmp_path, gateway, joins, helpers):
    other = create_authority("other", time.time())
    token = JoinToken((gateway.address,), helpers.authority_hash(other.root_cert_pem), repository_hash(ROOT), SECRET)
    with pytest.raises(WrongAuthority, match="not the control plane"):
        join(token, str(tmp_path / "device"), device="cam-1")
    assert gateway.requests == []


def test_the_secret_stays_here_when_the_server_has_another_name(tmp_path, issuer, authority, helpers):
    fake = helpers.FakeGateway(issuer, tmp_path, hosts=("10.0.0.1",))
    try:
        token = JoinToken((fake.address,), helpers.authority_hash(authority.root_cert_pem), repository_hash(ROOT), SECRET)
        with pytest.raises(WrongAuthority, match="prove"):
            join(token, str(tmp_path / "device"), device="cam-1")
        assert fake.requests == []
    finally:
        fake.stop()


def test_the_second_address_is_tried(tmp_path, token, joins):
    join(token._replace(addresses=("https://127.0.0.1:1", *token.addresses)), str(tmp_path / "device"), device="cam-1")
    assert len(joins) == 1


def test_nobody_there_says_so(tmp_path, token):
    with pytest.raises(JoinError, match="can be reached"):
        join(token._replace(addresses=("https://127.0.0.1:1",)), str(tmp_path / "device"), device="cam-1")


def test_a_second_join_is_refused_unless_forced(tmp_path, token, joins):
    data = str(tmp_path / "device")
    join(token, data, device="cam-1")
    key = read_keys(DiskFiles(data)).key
    with pytest.raises(AlreadyJoined, match="cam-1"):
        join(token, data, device="cam-2")
    assert len(joins) == 1
    join(token, data, device="cam-2", force=True)
    assert read_config(DiskFiles(data)).device == "cam-2"
    assert read_keys(DiskFiles(data)).key != key


def test_what_a_forgetting_that_was_cut_short_left_is_gone_before_the_device_joins_again(tmp_path, token, joins):
    data = str(tmp_path / "device")
    join(token, data, device="cam-1")
    files = DiskFiles(data)
    for folder in ("journal", "outbox", "repository", "trees"):
        files.make_folder(f"{folder}/old")
    remove_identity(files)
    join(token, data, device="cam-1")
    assert [name for name in ("journal", "outbox", "repository", "trees") if files.list(name)] == ["trees"]
    assert read_identity(files) is not None


def test_a_lost_answer_is_asked_for_again_with_the_same_key(tmp_path, token, gateway, joins, helpers):
    data = str(tmp_path / "device")
    answer = gateway.handler

    def lose(request):
        reply = answer(request)
        reply.cut = 3
        return reply

    gateway.handler = lose
    with pytest.raises(JoinError, match="same token"):
        join(token, data, device="cam-1")
    gateway.handler = answer
    join(token, data, device="cam-1")
    public = {request.sealing_key for request in joins}
    assert len(public) == 1


@pytest.mark.parametrize(("status", "reason"), [(401, "UnknownToken"), (401, "ExpiredToken"), (401, "UsedToken"), (409, "NameTaken")])
def test_a_refusal_says_what_to_do(tmp_path, token, gateway, helpers, status, reason):
    gateway.handler = lambda request: helpers.error_reply(status, reason)
    with pytest.raises(JoinRefused, match="edgewise") as caught:
        join(token, str(tmp_path / "device"), device="cam-1")
    assert caught.value.reason == reason
    assert SECRET not in str(caught.value)


def test_an_answer_with_another_authority_is_not_pinned(tmp_path, token, gateway, joins, helpers):
    other = create_authority("other", time.time())
    honest = gateway.handler

    def lie(request):
        answer = msgspec.msgpack.decode(honest(request).body, type=JoinAnswer)
        return helpers.Reply(body=msgspec.msgpack.encode(msgspec.structs.replace(answer, authority=other.root_cert_pem)))

    gateway.handler = lie
    with pytest.raises(WrongAuthority):
        join(token, str(tmp_path / "device"), device="cam-1")
    assert read_identity(DiskFiles(str(tmp_path / "device"))) is None


@pytest.mark.parametrize("seconds", [5.0, 60.0, 240.0])
def test_how_long_a_poll_waits_is_kept(tmp_path, token, joins, seconds):
    data = str(tmp_path / "device")
    join(token, data, device="cam-1", poll_seconds=seconds)
    assert read_config(DiskFiles(data)).poll_seconds == seconds


@pytest.mark.parametrize("seconds", [0.0, 4.9, 240.1, float("inf"), float("nan")])
def test_a_poll_that_waits_too_little_or_too_long_is_refused(tmp_path, token, joins, seconds):
    with pytest.raises(JoinError, match="5 s to 240 s"):
        join(token, str(tmp_path / "device"), device="cam-1", poll_seconds=seconds)
    assert joins == []


@pytest.mark.parametrize("root", [b"", b"{ }", b"{}\n"])
def test_an_answer_with_another_repository_root_is_not_pinned(tmp_path, token, gateway, joins, helpers, root):
    honest = gateway.handler

    def lie(request):
        answer = msgspec.msgpack.decode(honest(request).body, type=JoinAnswer)
        return helpers.Reply(body=msgspec.msgpack.encode(msgspec.structs.replace(answer, repository_root=root)))

    gateway.handler = lie
    data = str(tmp_path / "device")
    with pytest.raises(WrongRepository, match="root of the signed repository"):
        join(token, data, device="cam-1")
    assert read_identity(DiskFiles(data)) is None
    with pytest.raises(ConfigError):
        read_config(DiskFiles(data))
    gateway.handler = honest
    join(token, data, device="cam-1")
    assert read_identity(DiskFiles(data)).repository_root == ROOT


@pytest.mark.parametrize("name", ["Upper", "a b", "-a", "ü"])
def test_a_name_that_is_none_is_refused(tmp_path, token, name):
    with pytest.raises(JoinError, match="name"):
        join(token, str(tmp_path / "device"), device=name)


def test_tokens_come_from_files_and_standard_input(tmp_path, token, monkeypatch):
    (tmp_path / "token").write_text(write_join_token(token) + "\n")
    assert read_token(str(tmp_path / "token")) == token
    monkeypatch.setattr("sys.stdin", io.StringIO(write_join_token(token)))
    assert read_token("-") == token
    (tmp_path / "token").write_text("ewj1.nonsense")
    for path in (tmp_path / "token", tmp_path / "nowhere"):
        with pytest.raises(JoinError):
            read_token(str(path))


# ---- renewal ----


@pytest.fixture
def joined(tmp_path, token, joins):
    data = str(tmp_path / "device")
    join(token, data, device="cam-1")
    return data


def renewal(data, gateway, **changes) -> RenewJob:
    return RenewJob(place=Place(data=data, addresses=(gateway.address,)), **changes)


def aged(data: str, issuer, seconds: float) -> None:
    """Give the device a certificate as it would have after so many seconds."""
    files = DiskFiles(data)
    identity = read_identity(files)
    request = signing_request(identity.keys.key, "cam-1")
    chain = issuer.issue_agent(request, "cam-1", time.time() - seconds)
    renew(files, Certificates(agent="cam-1", certificate=chain, authority=identity.certificates.authority))


def test_a_fresh_certificate_is_left_alone(joined, gateway):
    before = len(gateway.requests)
    result = renew_certificate(renewal(joined, gateway), DiskFiles(joined))
    assert (result.renewed, result.error) == (False, "")
    assert 20 * 86400 < result.due_in < 40 * 86400
    assert len(gateway.requests) == before


@pytest.mark.parametrize("days", [60, 300])
def test_an_old_certificate_is_renewed_even_when_it_expired(joined, gateway, issuer, days):
    aged(joined, issuer, days * 86400)
    result = renew_certificate(renewal(joined, gateway), DiskFiles(joined))
    assert (result.renewed, result.error) == (True, "")
    assert result.not_after > time.time() + 80 * 86400
    assert gateway.requests[-1].peer == b""
    again = renew_certificate(renewal(joined, gateway), DiskFiles(joined))
    assert not again.renewed


def test_a_renewal_can_be_forced(joined, gateway):
    before = read_identity(DiskFiles(joined)).certificates.certificate
    assert renew_certificate(renewal(joined, gateway, force=True), DiskFiles(joined)).renewed
    assert read_identity(DiskFiles(joined)).certificates.certificate != before


def test_a_refused_renewal_changes_nothing(joined, gateway, helpers):
    before = read_identity(DiskFiles(joined))
    gateway.handler = lambda request: helpers.error_reply(403, "Revoked")
    result = renew_certificate(renewal(joined, gateway, force=True), DiskFiles(joined))
    assert not result.renewed
    assert "Revoked" in result.error
    assert read_identity(DiskFiles(joined)) == before


def test_a_nonsense_certificate_is_not_taken_over(joined, gateway, helpers):
    before = read_identity(DiskFiles(joined))
    answer = RenewAnswer(certificate="-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", authority="x")
    gateway.handler = lambda request: helpers.Reply(body=msgspec.msgpack.encode(answer))
    result = renew_certificate(renewal(joined, gateway, force=True), DiskFiles(joined))
    assert not result.renewed
    assert result.error
    assert read_identity(DiskFiles(joined)) == before


# ---- secrets ----


def test_secrets_open_for_their_device_namespace_and_name_only(joined, joins):
    public = joins[0].sealing_key

    def sealed(uid: str, namespace: str, name: str) -> SealedSecret:
        return SealedSecret(name="rtsp", sealed=seal(public, msgspec.msgpack.encode({"url": "x"}), secret_context(uid, namespace, name)))

    def opened(each: SealedSecret):
        job = UnsealJob(place=Place(data=joined, addresses=()), device_uid="u1", namespace="line-3", secrets=(each,))
        return open_secrets(job, DiskFiles(joined))

    assert opened(sealed("u1", "line-3", "rtsp")).secrets == {"rtsp": {"url": "x"}}
    for strange in (
        sealed("u2", "line-3", "rtsp"),
        sealed("u1", "line-4", "rtsp"),
        sealed("u1", "line-3", "other"),
        SealedSecret(name="rtsp", sealed=b""),
    ):
        result = opened(strange)
        assert result.secrets == {}
        assert set(result.failed) == {"rtsp"}


def test_what_was_opened_does_not_show_in_a_trace(joined, joins):
    public = joins[0].sealing_key
    sealed = SealedSecret(
        name="rtsp", sealed=seal(public, msgspec.msgpack.encode({"password": "hunter2"}), secret_context("u", "n", "rtsp"))
    )
    result = open_secrets(
        UnsealJob(place=Place(data=joined, addresses=()), device_uid="u", namespace="n", secrets=(sealed,)), DiskFiles(joined)
    )
    assert result.secrets
    assert "hunter2" not in repr(result)
