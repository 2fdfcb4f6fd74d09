"""The device gateway over real TLS: identity, reports, long polls, files, and everything that must be refused."""

import asyncio
import hashlib
import ssl
import time
from pathlib import Path

import httpx
import msgspec
import pytest
import zstandard

from edgewise.control.gateway import ROUTES
from edgewise.trust.authority import Issuer, agent_of, create_authority, leaf_der, not_after_of
from edgewise.trust.keys import new_device_key, signing_request
from edgewise.trust.tokens import read_join_token, repository_hash
from edgewise.wire.enrolment import JoinAnswer, RenewAnswer, RenewRequest

pytestmark = pytest.mark.asyncio(loop_scope="module")

# ---- joining and renewing ----


async def test_a_device_joins_with_the_address_and_authority_of_its_token(fleet, wire):
    token = read_join_token(await fleet.token(labels={"line": "3"}))
    assert token.addresses[0] == fleet.gateway
    assert token.authority_hash == fleet.ready.authority_hash
    key, name = new_device_key(), fleet.name()
    async with fleet.stranger() as http:
        answer = await http.post("/v1/join", content=fleet.join_request(token.secret, name, key, labels={"camera": "front"}))
    joined = wire.decode(answer, JoinAnswer)
    assert agent_of(leaf_der(joined.certificate)) == joined.agent == name
    assert joined.authority == fleet.ready.authority_pem
    assert b'"root"' in joined.repository_root
    assert token.repository_hash == repository_hash(joined.repository_root)
    device = (await fleet.admin.get(f"{wire.api}/devices/{name}")).json()
    assert device["metadata"]["labels"] == {"camera": "front", "line": "3"}
    assert device["spec"]["site"] == "lab"


async def test_a_token_is_used_once_and_a_lost_answer_is_no_second_use(fleet, wire):
    secret, key, name = read_join_token(await fleet.token()).secret, new_device_key(), fleet.name()
    async with fleet.stranger() as http:
        first = await http.post("/v1/join", content=fleet.join_request(secret, name, key))
        again = await http.post("/v1/join", content=fleet.join_request(secret, name, key))
        other = await http.post("/v1/join", content=fleet.join_request(secret, fleet.name(), new_device_key()))
    assert (first.status_code, again.status_code) == (200, 200)
    assert (other.status_code, wire.reason(other)) == (401, "UsedToken")


async def test_two_joins_at_once_with_a_single_use_token_enrol_one(fleet, wire):
    secret = read_join_token(await fleet.token()).secret
    async with fleet.stranger() as http:
        answers = await asyncio.gather(
            *(http.post("/v1/join", content=fleet.join_request(secret, fleet.name(), new_device_key())) for _ in range(4))
        )
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401]


async def test_unknown_and_expired_tokens_are_refused(start, wire):
    async with start() as fleet:
        await check_tokens(fleet, wire)


async def check_tokens(fleet, wire):
    secret = read_join_token(await fleet.token(ttl="10m")).secret
    async with fleet.stranger() as http:
        unknown = await http.post("/v1/join", content=fleet.join_request("x" * 43, fleet.name(), new_device_key()))
        fleet.clock.offset = 601
        expired = await http.post("/v1/join", content=fleet.join_request(secret, fleet.name(), new_device_key()))
    assert (unknown.status_code, wire.reason(unknown)) == (401, "UnknownToken")
    assert (expired.status_code, wire.reason(expired)) == (401, "ExpiredToken")


@pytest.mark.parametrize(
    "fields", [{"sealing_key": b"short"}, {"labels": {"site": "x"}}, {"device_class": "x" * 500}], ids=["key", "built-in label", "class"]
)
async def test_a_join_that_is_not_well_formed_is_refused_and_uses_nothing(fleet, wire, fields):
    secret = read_join_token(await fleet.token()).secret
    async with fleet.stranger() as http:
        bad = await http.post("/v1/join", content=fleet.join_request(secret, fleet.name(), new_device_key(), **fields))
        good = await http.post("/v1/join", content=fleet.join_request(secret, fleet.name(), new_device_key()))
    assert bad.status_code == 400
    assert good.status_code == 200


async def test_a_damaged_signing_request_is_refused(fleet, wire):
    secret, key = read_join_token(await fleet.token()).secret, new_device_key()
    request = msgspec.msgpack.decode(fleet.join_request(secret, fleet.name(), key))
    async with fleet.stranger() as http:
        for text in ("", "x" * 100, "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "x" * 60_000):
            answer = await http.post("/v1/join", content=msgspec.msgpack.encode({**request, "signing_request": text}))
            assert answer.status_code == 400
            assert wire.reason(answer) in {"BadRequest", "TooLarge"}


async def test_a_certificate_is_renewed_with_and_without_showing_it(fleet, wire):
    device = await fleet.join()
    request = RenewRequest(certificate=device.certificate, signing_request=signing_request(device.key, device.name))
    for http in (device.http, fleet.stranger()):
        answer = await http.post("/v1/renew", content=msgspec.msgpack.encode(request))
        assert answer.status_code == 200
        renewed = wire.decode(answer, RenewAnswer)
        assert agent_of(leaf_der(renewed.certificate)) == device.name


async def test_months_in_a_drawer_are_survived(fleet, wire):
    """The certificate expired long ago: TLS refuses it, and /v1/renew takes it without a client certificate."""
    device = await fleet.join()
    csr = signing_request(device.key, device.name)
    old = fleet.issuer.issue_agent(csr, device.name, time.time() - 200 * 86_400)
    async with device.connect(old) as http:
        with pytest.raises((httpx.HTTPError, ssl.SSLError)):
            await http.post("/v1/renew", content=b"")
    async with fleet.stranger() as http:
        answer = await http.post("/v1/renew", content=msgspec.msgpack.encode(RenewRequest(certificate=old, signing_request=csr)))
    renewed = wire.decode(answer, RenewAnswer).certificate
    assert not_after_of(leaf_der(renewed)) > time.time()
    async with device.connect(renewed) as http:
        assert (await device.report(device.event(), http=http)).status_code == 200


async def test_only_the_key_of_the_old_certificate_renews_it(fleet, wire):
    device = await fleet.join()
    other = await fleet.join()
    stranger = fleet.stranger()
    stolen = RenewRequest(certificate=device.certificate, signing_request=signing_request(new_device_key(), device.name))
    answer = await stranger.post("/v1/renew", content=msgspec.msgpack.encode(stolen))
    assert (answer.status_code, wire.reason(answer)) == (400, "KeyMismatch")
    foreign = RenewRequest(certificate=device.certificate, signing_request=signing_request(device.key, device.name))
    answer = await other.http.post("/v1/renew", content=msgspec.msgpack.encode(foreign))
    assert (answer.status_code, wire.reason(answer)) == (403, "WrongAgent")


async def test_a_revoked_agent_gets_nothing_any_more(fleet, wire):
    device = await fleet.join()
    poll = asyncio.create_task(device.desired(after=await first_position(device, wire), wait=100))
    await wire.until(lambda: fleet.services.polls.is_open(device.name))
    assert (await fleet.admin.post(f"{wire.api}/agents/{device.name}/revoke")).status_code == 200
    assert (await poll).status_code == 403
    renew = RenewRequest(certificate=device.certificate, signing_request=signing_request(device.key, device.name))
    answers = [
        await device.report(device.event()),
        await device.desired(),
        await device.http.get("/v1/repository/timestamp.json"),
        await device.http.get(f"/v1/blobs/sha256:{'0' * 64}"),
        await device.http.post("/v1/renew", content=msgspec.msgpack.encode(renew)),
    ]
    assert [(answer.status_code, wire.reason(answer)) for answer in answers] == [(403, "Revoked")] * 5


async def test_a_certificate_of_another_authority_is_no_certificate(fleet):
    made = create_authority("other", time.time())
    issuer = Issuer(made.issuing_key_pem, made.issuing_cert_pem, made.root_cert_pem)
    device, key = await fleet.join(), new_device_key()
    forged = fleet.named(device.name, key, issuer.issue_agent(signing_request(key, device.name), device.name, time.time()))
    with pytest.raises((httpx.HTTPError, ssl.SSLError)):
        await forged.report(device.event())


async def test_the_leaf_alone_is_enough(fleet):
    device = await fleet.join()
    leaf = device.certificate[: device.certificate.index("-----END CERTIFICATE-----") + 26]
    async with device.connect(leaf) as http:
        assert (await device.report(device.event(), http=http)).status_code == 200


# ---- the table of routes ----


async def test_every_route_for_agents_takes_a_certificate(fleet, wire):
    paths = [(path + ("x" if route.parameter else ""), method, route.who) for path, route in ROUTES.items() for method in route.methods]
    assert {who for _, _, who in paths} == {"agent", "anyone"}
    async with fleet.stranger() as http:
        for path, method, who in paths:
            answer = await http.request(method, path, content=b"\xc0" if method == "POST" else None)
            assert answer.status_code == (401 if who == "agent" else 400), (method, path)


async def test_other_methods_and_paths_are_refused(fleet, wire):
    device = await fleet.join()
    for method, path, status in [
        ("GET", "/v1/report", 405),
        ("PUT", "/v1/blobs/x", 405),
        ("GET", "/", 404),
        ("GET", "/v1/blobs/", 404),
        ("GET", "/v1/blobs/a/b", 404),
        ("GET", "/v1/repository/../../etc/passwd", 404),
        ("GET", "/v1/repository/%2e%2e%2fonline", 404),
        ("GET", "/v1/blobs/" + "x" * 300, 404),
    ]:
        answer = await device.http.request(method, path)
        assert (answer.status_code, path) == (status, path)


# ---- reports ----


async def test_a_report_is_kept_once_however_often_it_comes(fleet, wire):
    device = await fleet.join()
    body = msgspec.msgpack.encode(device.message(device.event("once"), lane="events"))
    for _ in range(3):
        answer = wire.decode(await device.http.post("/v1/report", content=body), wire.answer)
        assert answer.marks == {"events": 1}
    events = (await fleet.admin.get(f"{wire.api}/events", params={"source": device.name})).json()["items"]
    assert [event["message"] for event in events] == ["once"]


async def test_many_reports_of_one_agent_at_once_are_taken_in_turn(fleet, wire):
    device = await fleet.join()
    message = msgspec.msgpack.encode(device.message(device.event("once"), lane="events"))
    answers = await asyncio.gather(*(device.http.post("/v1/report", content=message) for _ in range(8)))
    assert {answer.status_code for answer in answers} <= {200, 429}
    assert answers[0].status_code == 200
    shed = [answer for answer in answers if answer.status_code == 429]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in shed)
    events = (await fleet.admin.get(f"{wire.api}/events", params={"source": device.name})).json()["items"]
    assert len(events) == 1


async def test_a_compressed_report_is_taken(fleet, wire):
    device = await fleet.join()
    body = zstandard.compress(msgspec.msgpack.encode(device.message(device.event("small"), lane="events")))
    answer = await device.http.post("/v1/report", content=body, headers={"content-encoding": "zstd"})
    assert wire.decode(answer, wire.answer).marks == {"events": 1}


async def test_what_a_device_says_of_itself_is_seen(fleet, wire):
    device = await fleet.join()
    await device.report(device.status(health="Healthy", agent_version="9.9"))
    status = (await fleet.admin.get(f"{wire.api}/devices/{device.name}")).json()["status"]
    assert (status["health"], status["agentVersion"], status["connection"]) == ("Healthy", "9.9", "Online")


async def test_another_agents_device_is_refused(fleet, wire):
    device, other = await fleet.join(), await fleet.join()
    answer = await device.report(other.status(health="Error"))
    assert (answer.status_code, wire.reason(answer)) == (403, "NotYourDevice")
    assert (await fleet.admin.get(f"{wire.api}/devices/{other.name}")).json()["status"].get("health", "Unknown") == "Unknown"


def nested(depth: int) -> bytes:
    """A report with an unknown field that holds arrays within arrays."""
    return b"\x83\xabincarnation\xa1i\xa7session\xa1s\xa5extra" + b"\x91" * depth + b"\xc0"


@pytest.mark.parametrize(
    ("body", "encoding", "status"),
    [
        (b"", "", 400),
        (b"not msgpack at all", "", 400),
        (b"\x81\xa1a", "", 400),
        (msgspec.msgpack.encode({"incarnation": 5}), "", 400),
        (msgspec.msgpack.encode({"incarnation": "i", "session": "s", "lanes": {"gossip": {}}}), "", 400),
        (nested(100_000), "", 400),
        (nested(900_000), "", 400),
        (b"\xdd\xff\xff\xff\xff", "", 400),
        (b"\xc6\xff\xff\xff\xff", "", 400),
        (b"\x81\xa5lanes\xdf\xff\xff\xff\xff", "", 400),
        (b"x" * 1_048_577, "", 413),
        (b"x" * 8_000_000, "", 413),
        (zstandard.compress(bytes(200_000_000)), "zstd", 413),
        (zstandard.compress(b"x" * 1_000)[:-4], "zstd", 400),
        (b"not zstd", "zstd", 400),
        (b"x", "gzip", 415),
        (b"x", "zstd, zstd", 415),
    ],
    ids=lambda value: value[:16].hex() if isinstance(value, bytes) else value,
)
async def test_bad_bodies_are_refused_with_4xx(fleet, wire, body, encoding, status):
    device = await fleet.join()
    headers = {"content-encoding": encoding} if encoding else {}
    answer = await device.http.post("/v1/report", content=body, headers=headers)
    assert answer.status_code == status
    assert wire.reason(answer)
    assert (await device.report(device.event())).status_code == 200


async def test_a_chunked_body_is_bounded_too(fleet, wire):
    device = await fleet.join()

    async def endless():
        for _ in range(64):
            yield b"x" * 65_536

    try:
        answer = await device.http.post("/v1/report", content=endless())
        assert answer.status_code == 413
    except httpx.WriteError:
        pass  # the connection was closed while we were still sending
    assert (await device.report(device.event())).status_code == 200


async def test_memory_stays_bounded_under_bad_bodies(fleet, wire):
    device = await fleet.join()
    bomb = zstandard.compress(bytes(300_000_000))
    before = resident()
    for body, headers in [
        (bomb, {"content-encoding": "zstd"}),
        (nested(1_000_000), {}),
        (b"\xdd\x7f\xff\xff\xff" + b"\xc0" * 900_000, {}),
    ] * 5:
        assert 400 <= (await device.http.post("/v1/report", content=body, headers=headers)).status_code < 500
    assert resident() - before < 60_000_000


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_headers_are_bounded(fleet, wire):
    device = await fleet.join()
    answer = await device.http.get("/v1/desired", headers={"x-large": "x" * 20_000})
    assert answer.status_code == 400
    answer = await device.http.get("/v1/desired", params={"wait": "0"}, headers={"x-large": "x" * 8_000})
    assert answer.status_code == 200


async def test_a_cloned_identity_is_quarantined_on_both_sides(fleet, wire):
    device = await fleet.join()
    async with device.connect() as clone:
        statuses = []
        for turn in range(6):
            http = clone if turn % 2 else device.http
            statuses.append((await device.report(device.event(), session=f"s{turn % 2}", http=http)).status_code)
        assert statuses[-1] == 403
        assert wire.reason(await device.report(device.event(), session="s0")) == "Quarantined"
        assert wire.reason(await device.report(device.event(), session="s1", http=clone)) == "Quarantined"
        assert wire.reason(await device.desired()) == "Quarantined"
    agent = (await fleet.admin.get(f"{wire.api}/agents/{device.name}")).json()
    assert agent["spec"]["quarantined"] is True


async def test_two_devices_with_one_identity_that_have_nothing_to_report_are_told_apart_by_their_polls(fleet, wire):
    device = await fleet.join()
    async with device.connect() as clone:
        answers = [await device.desired(session=f"s{turn % 2}", http=clone if turn % 2 else device.http) for turn in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 403]
        assert wire.reason(await device.report(device.event(), session="s0")) == "Quarantined"
    agent = (await fleet.admin.get(f"{wire.api}/agents/{device.name}")).json()
    assert agent["spec"]["quarantined"] is True


@pytest.mark.parametrize("session", ["", "%00", "x" * 513, "a%0Ab"])
async def test_a_session_that_is_none_is_refused(fleet, session):
    device = await fleet.join()
    assert (await device.http.get(f"/v1/desired?wait=0&session={session}")).status_code == 400


async def test_an_agent_that_starts_anew_is_no_clone(fleet):
    device = await fleet.join()
    for session in ("a", "a", "b", "c", "d", "d"):
        assert (await device.report(device.event(), session=session)).status_code == 200
        assert (await device.desired(session=session)).status_code == 200


# ---- desired state ----


async def first_position(device, wire) -> str:
    return str(wire.decode(await device.desired(), wire.state).position)


async def test_a_poll_without_a_change_ends_in_204(fleet, wire):
    device = await fleet.join()
    position = await first_position(device, wire)
    began = time.monotonic()
    assert (await device.desired(after=position, wait=0.6)).status_code == 204
    assert time.monotonic() - began > 0.5
    assert (await device.desired(after=position)).status_code == 204


async def test_a_change_wakes_the_devices_it_concerns_and_no_other(fleet, wire):
    device, other = await fleet.join(), await fleet.join()
    polls = [asyncio.create_task(each.desired(after=await first_position(each, wire), wait=100)) for each in (device, other)]
    await wire.until(lambda: len(fleet.services.polls) == 2)
    assert (await fleet.admin.post(f"{wire.api}/devices/{device.name}/clear-refused")).status_code == 200
    state = wire.decode(await polls[0], wire.state)
    assert state.devices[0].cleared_refusals == 1
    await asyncio.sleep(0.1)
    assert not polls[1].done()
    polls[1].cancel()
    await asyncio.gather(polls[1], return_exceptions=True)


async def test_a_poll_of_whom_a_sign_of_life_is_asked_ends_in_204(fleet, wire):
    device = await fleet.join()
    poll = asyncio.create_task(device.desired(after=await first_position(device, wire), wait=100))
    await wire.until(lambda: fleet.services.polls.is_open(device.name))
    fleet.services.runner.view.ask(device.name)
    fleet.services.runner.stir()
    assert (await poll).status_code == 204
    assert not fleet.services.runner.view.presence.polling(device.name)


async def test_the_newest_poll_of_an_agent_wins(fleet, wire):
    device = await fleet.join()
    position = await first_position(device, wire)
    older = asyncio.create_task(device.desired(after=position, wait=100))
    await wire.until(lambda: fleet.services.polls.is_open(device.name))
    newer = asyncio.create_task(device.desired(after=position, wait=0.5))
    answer = await older
    assert (answer.status_code, wire.reason(answer)) == (409, "Superseded")
    assert (await newer).status_code == 204


async def test_a_poll_whose_connection_breaks_is_forgotten(fleet, wire):
    device = await fleet.join()
    position = await first_position(device, wire)
    poll = asyncio.create_task(device.desired(after=position, wait=100))
    await wire.until(lambda: fleet.services.polls.is_open(device.name))
    poll.cancel()
    await asyncio.gather(poll, return_exceptions=True)
    await device.http.aclose()
    await wire.until(lambda: len(fleet.services.polls) == 0)
    assert not fleet.services.runner.view.presence.polling(device.name)


@pytest.mark.parametrize(
    "query", ["after=x", "after=1", "after=1.2.3", "wait=x", "wait=-1", "wait=nan", "wait=inf", "after=" + "9" * 60 + ".1"]
)
async def test_a_query_that_is_none_is_refused(fleet, query):
    device = await fleet.join()
    assert (await device.http.get(f"/v1/desired?{query}")).status_code == 400


# ---- files ----


async def put_blob(fleet, wire, data: bytes) -> str:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert (await fleet.admin.put(f"{wire.api}/blobs/{digest}", content=data)).status_code == 201
    return digest


async def test_blobs_are_served_whole_and_in_part(fleet, wire):
    device = await fleet.join()
    data = bytes(range(256)) * 4_000
    path = f"/v1/blobs/{await put_blob(fleet, wire, data)}"
    whole = await device.http.get(path)
    assert (whole.status_code, whole.content) == (200, data)
    head = await device.http.head(path)
    assert (head.headers["content-length"], head.headers["accept-ranges"], head.content) == (str(len(data)), "bytes", b"")
    size = len(data)
    for wanted, start, end in [
        ("bytes=0-9", 0, 10),
        ("bytes=1000-", 1000, size),
        ("bytes=-10", size - 10, size),
        (f"bytes={size - 1}-{size + 99}", size - 1, size),
    ]:
        answer = await device.http.get(path, headers={"range": wanted})
        assert (answer.status_code, answer.content) == (206, data[start:end]), wanted
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
    beyond = await device.http.get(path, headers={"range": f"bytes={len(data)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(data)}")
    for nonsense in ("bytes=", "bytes=-", "lines=1-2", "bytes=9-1", "bytes=0-1,4-5"):
        assert (await device.http.get(path, headers={"range": nonsense})).content == data


async def test_an_unknown_blob_is_not_found(fleet, wire):
    device = await fleet.join()
    for digest in (f"sha256:{'0' * 64}", "x", "sha256:../../online/at-rest.key", f"sha256:{'0' * 63}G"):
        assert (await device.http.get(f"/v1/blobs/{digest}")).status_code == 404


async def test_a_blob_that_was_damaged_on_the_disk_is_served_as_it_is_or_refused_but_breaks_nothing(fleet, wire):
    """The device checks what it gets: the control plane's disk is not believed."""
    device = await fleet.join()
    digest = await put_blob(fleet, wire, b"x" * 1_000)
    (file,) = (fleet.folder / "data" / "blobs").rglob(digest[7:])
    file.chmod(0o600)
    file.write_bytes(b"y" * 400)
    answer = await device.http.get(f"/v1/blobs/{digest}")
    assert answer.status_code in {200, 404}
    assert hashlib.sha256(answer.content).hexdigest() != digest[7:]


async def test_the_repository_is_served(fleet, wire):
    device = await fleet.join()
    assert b'"timestamp"' in (await device.http.get("/v1/repository/timestamp.json")).content
    assert (await device.http.head("/v1/repository/1.root.json")).content == b""
    assert (await device.http.get("/v1/repository/2.root.json")).status_code == 404


# ---- overload ----


async def test_too_many_reports_are_asked_to_come_back(start, wire):
    async with start(limits=wire.limits(reports_in_flight_max=0, shutdown_seconds=1.0)) as fleet:
        device = await fleet.join()
        waits = set()
        for _ in range(12):
            answer = await device.report(device.event())
            assert (answer.status_code, wire.reason(answer)) == (503, "Overloaded")
            waits.add(answer.headers["retry-after"])
        assert len(waits) > 1, "all would come back at the same moment"


async def test_too_many_downloads_are_asked_to_come_back(start, wire):
    async with start(limits=wire.limits(transfers_max=0, shutdown_seconds=1.0)) as fleet:
        device = await fleet.join()
        answer = await device.http.get(f"/v1/blobs/{'0' * 64}")
        assert answer.status_code == 404
        answer = await device.http.get(f"/v1/blobs/sha256:{'0' * 64}")
        assert (answer.status_code, "retry-after" in answer.headers) == (503, True)


async def test_few_strangers_are_served_and_devices_still_are(start, wire):
    async with start(limits=wire.limits(anonymous_connections_max=2, shutdown_seconds=1.0)) as fleet:
        device = await fleet.join()
        strangers = [fleet.stranger() for _ in range(4)]
        statuses = [(await each.post("/v1/join", content=b"")).status_code for each in strangers]
        assert sorted(statuses) == [400, 400, 503, 503]
        assert (await device.report(device.event())).status_code == 200


async def test_bandwidth_is_shared_out(start, wire):
    async with start(limits=wire.limits(transfer_bytes_per_second=1_000_000.0, shutdown_seconds=1.0)) as fleet:
        device = await fleet.join()
        path = f"/v1/blobs/{await put_blob(fleet, wire, b'x' * 900_000)}"
        began = time.monotonic()
        assert len((await device.http.get(path)).content) == 900_000
        assert time.monotonic() - began > 0.5
