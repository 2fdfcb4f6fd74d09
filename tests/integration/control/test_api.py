"""The operator API over real TLS: who may do what, applying, watching, publishing, secrets, tokens, errors."""

import asyncio
import hashlib
import time
from typing import get_args

import httpx
import msgspec
import pytest
from litestar.routes import HTTPRoute

from edgewise.control.api.access import Access
from edgewise.control.api.app import build_api
from edgewise.resources.artifact import File, Manifest, Variant
from edgewise.trust.access import Role, decide
from edgewise.trust.repository import add_release, delegated_metadata
from edgewise.trust.tokens import write_access_token
from edgewise.wire.report import FrameReport, Series

pytestmark = pytest.mark.asyncio(loop_scope="module")

API = "/apis/v1alpha1"
NS = f"{API}/namespaces/line-3"


def config(name: str, **data: str) -> dict:
    return {"kind": "Config", "apiVersion": "edgewise/v1alpha1", "metadata": {"name": name, "namespace": "line-3"}, "spec": {"data": data}}


def workload(name: str = "inspector", **spec: object) -> dict:
    return {
        "kind": "Workload",
        "apiVersion": "edgewise/v1alpha1",
        "metadata": {"name": name, "namespace": "line-3"},
        "spec": {"artifact": {"name": "inspector", "version": "1"}, "placement": {"everyMatchingDevice": {}}, **spec},
    }


def error(answer: httpx.Response) -> dict:
    return answer.json()["error"]


async def put(fleet, path: str, body: dict, **params: str) -> httpx.Response:
    return await fleet.admin.put(path, json=body, params=params)


# ---- who may ----


def routes(fleet) -> list[tuple[str, str, Access | None]]:
    """Every route of the real application: method, path with made-up parameters, what it says of its access."""
    found = []
    for route in build_api(fleet.services).routes:
        if not isinstance(route, HTTPRoute):
            continue
        for method, (handler, _) in route.route_handler_map.items():
            if method != "OPTIONS":
                path = "/".join("x" if part.startswith("{") else part for part in route.path_format.split("/"))
                found.append((method, path or "/", handler.opt.get("access")))
    return found


async def test_nothing_but_what_is_public_is_answered_without_a_token(fleet):
    public = set()
    async with fleet.api(None) as nobody:
        for method, path, access in routes(fleet):
            answer = await nobody.request(method, path)
            if answer.status_code == 401:
                continue
            assert access is not None, (method, path)
            assert access.public, (method, path)
            public.add(path)
    assert public == {"/healthz", "/version", "/openapi.json"}


async def test_every_route_denies_whom_the_table_denies(fleet):
    """Asks the real server with each role; what `decide` denies is a 403, what it allows is anything else."""
    clients = {role: await fleet.role(role) for role in get_args(Role)}
    denied = 0
    for method, path, access in routes(fleet):
        if access is not None and access.public:
            continue
        for role, client in clients.items():
            allowed = access is not None and all(decide(role, verb, access.kind).allowed for verb in access.verbs)
            if allowed and (method == "POST" or "watch" in path):
                continue  # carried out in other tests
            answer = await client.request(method, path, content=b"?" if method in {"PUT", "PATCH"} else None)
            assert (answer.status_code == 403) == (not allowed), (role, method, path, answer.text[:200])
            denied += not allowed
    assert denied > 60
    for client in clients.values():
        await client.aclose()


async def test_a_handler_that_says_nothing_of_its_access_is_denied(fleet):
    silent = [(method, path) for method, path, access in routes(fleet) if access is None]
    assert silent, "Litestar's own pages should be among them"
    for method, path in silent:
        assert (await fleet.admin.request(method, path)).status_code in {403, 404}


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer x", "Basic eDp4", "Bearer ewo1_" + "A" * 43, "Bearer " + "x" * 5_000])
async def test_a_wrong_token_is_refused(fleet, header):
    async with fleet.api(None) as nobody:
        answer = await nobody.get(f"{API}/devices", headers={"authorization": header} if header else {})
    assert (answer.status_code, error(answer)["reason"]) == (401, "Unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_token_expires_and_can_be_revoked(start):
    async with start() as fleet:
        made = (await fleet.admin.post(f"{API}/accesstokens", json={"name": "ci", "role": "viewer", "ttl": "1h"})).json()
        async with fleet.api(made["token"]) as viewer:
            assert (await viewer.get(f"{API}/devices")).status_code == 200
            fleet.clock.offset = 3_601
            assert (await viewer.get(f"{API}/devices")).status_code == 401
            fleet.clock.offset = 0
            assert (await viewer.get(f"{API}/devices")).status_code == 200
            listed = (await fleet.admin.get(f"{API}/accesstokens")).json()["items"]
            assert {"ci", "first-admin"} == {each["name"] for each in listed}
            assert made["token"] not in str(listed)
            assert (await fleet.admin.delete(f"{API}/accesstokens/{made['id']}")).status_code == 200
            assert (await viewer.get(f"{API}/devices")).status_code == 401


async def test_tokens_are_stored_hashed(fleet):
    token = fleet.ready.admin_token
    secret = (await fleet.token()).encode()
    files = [file.read_bytes() for file in (fleet.folder / "data").rglob("*") if file.is_file()]
    assert all(token.encode() not in data and secret not in data for data in files)


# ---- applying ----


async def test_apply_creates_configures_and_leaves_alone(fleet):
    path = f"{NS}/configs/apply-1"
    first = await put(fleet, path, config("apply-1", a="1"))
    same = await put(fleet, path, config("apply-1", a="1"))
    other = await put(fleet, path, config("apply-1", a="2"))
    assert [(each.status_code, each.json()["result"]) for each in (first, same, other)] == [
        (201, "created"),
        (200, "unchanged"),
        (200, "configured"),
    ]
    meta = other.json()["resource"]["metadata"]
    assert (meta["generation"], meta["namespace"]) == (2, "line-3")
    assert (await fleet.admin.get(path)).json()["spec"]["data"] == {"a": "2"}
    assert same.json()["resource"]["metadata"]["revision"] == first.json()["resource"]["metadata"]["revision"]


async def test_a_generation_makes_apply_a_compare_and_set(fleet):
    path = f"{NS}/configs/cas"
    await put(fleet, path, config("cas", a="1"))
    await put(fleet, path, config("cas", a="2"))
    stale = config("cas", a="3")
    stale["metadata"]["generation"] = 1
    answer = await put(fleet, path, stale)
    assert (answer.status_code, error(answer)["reason"]) == (409, "Conflict")
    assert error(answer)["current"]["spec"]["data"] == {"a": "2"}
    stale["metadata"]["generation"] = 2
    assert (await put(fleet, path, stale)).status_code == 200


async def test_a_dry_run_changes_nothing(fleet):
    path = f"{NS}/configs/dry"
    answer = await put(fleet, path, config("dry", a="1"), dryRun="true")
    assert (answer.status_code, answer.json()["result"]) == (200, "created")
    assert (await fleet.admin.get(path)).status_code == 404


async def test_parallel_applies_all_end_in_one_of_them(fleet):
    path = f"{NS}/configs/parallel"
    answers = await asyncio.gather(*(put(fleet, path, config("parallel", a=str(i))) for i in range(12)))
    assert {answer.status_code for answer in answers} <= {200, 201, 409}
    last = (await fleet.admin.get(path)).json()
    assert last["metadata"]["generation"] >= 2


@pytest.mark.parametrize(
    ("path", "body", "status", "where"),
    [
        ("configs/x", {"kind": "Config", "metadata": {"name": "y"}}, 422, "metadata.name"),
        ("configs/x", {"kind": "Config", "metadata": {"name": "x", "namespace": "other"}}, 422, "metadata.namespace"),
        ("configs/x", {"kind": "Config", "metadata": {"name": "x"}, "spec": {"daat": {}}}, 422, "spec"),
        ("configs/x", {"kind": "Config", "metadata": {"name": "x"}, "spec": {"data": {"a": 1}}}, 422, "spec.data"),
        ("configs/x", {"kind": "Secret", "metadata": {"name": "x"}}, 422, "kind"),
        ("configs/x", {"kind": "Config", "apiVersion": "edgewise/v9", "metadata": {"name": "x"}}, 422, "apiVersion"),
        ("configs/x", [1, 2], 422, ""),
        ("configs/UPPER", {"kind": "Config", "metadata": {"name": "UPPER"}}, 422, "metadata.name"),
        ("workloads/x", {"kind": "Workload", "metadata": {"name": "x"}, "spec": {"artifact": {"name": "a"}, "placement": {}}}, 422, "spec"),
    ],
)
async def test_what_is_wrong_is_said_with_its_path(fleet, path, body, status, where):
    answer = await put(fleet, f"{NS}/{path}", body)
    assert (answer.status_code, error(answer)["reason"]) == (status, "Invalid")
    assert any(problem.get("path", "").startswith(where) for problem in error(answer)["problems"])


@pytest.mark.parametrize("body", [b"{", b"", b"\xff\xfe", b"[" * 200_000, b'{"a":' * 100_000])
async def test_what_is_not_json_is_refused(fleet, body):
    answer = await fleet.admin.put(f"{NS}/configs/x", content=body)
    assert answer.status_code in {400, 422}
    assert error(answer)["message"]


async def test_a_body_that_is_too_large_is_refused(fleet):
    answer = await fleet.admin.put(f"{NS}/configs/x", content=b" " * 1_500_001)
    assert (answer.status_code, error(answer)["reason"]) == (413, "TooLarge")


async def test_what_the_control_plane_makes_cannot_be_applied(fleet):
    answer = await put(fleet, f"{NS}/instances/a.b", {"kind": "Instance", "metadata": {"name": "a.b"}, "spec": {}})
    assert (answer.status_code, error(answer)["message"]) == (403, "nobody may create Instance")


async def test_a_workload_that_refers_to_nothing_is_taken_with_warnings(fleet):
    answer = await put(fleet, f"{NS}/workloads/lonely", workload("lonely", config={"name": "nowhere"}), dryRun="true")
    assert answer.status_code == 200
    assert len(answer.json()["warnings"]) == 2


async def test_verbs_of_devices_cannot_be_gone_around_by_apply(fleet):
    device = await fleet.join()
    path = f"{API}/devices/{device.name}"
    body = (await fleet.admin.get(path)).json()
    for field, value in [("decommission", True), ("agent", "other"), ("clearedRefusals", 5)]:
        wrong = {**body, "spec": {**body["spec"], field: value}}
        answer = await put(fleet, path, wrong)
        assert answer.status_code == 422, field
    cordoned = {**body, "spec": {**body["spec"], "unschedulable": True}}
    answer = await put(fleet, path, cordoned)
    assert (answer.status_code, answer.json()["resource"]["spec"]["agent"]) == (200, device.name)


async def test_labels_are_set_and_removed(fleet):
    device = await fleet.join(labels={"old": "1"})
    path = f"{API}/devices/{device.name}/labels"
    answer = await fleet.admin.patch(path, json={"set": {"camera": "front"}, "remove": ["old"]})
    assert answer.json()["metadata"]["labels"] == {"camera": "front"}
    assert (await fleet.admin.patch(path, json={"set": {"site": "x"}})).status_code == 422
    found = (await fleet.admin.get(f"{API}/devices", params={"labelSelector": "camera=front"})).json()["items"]
    assert [each["metadata"]["name"] for each in found] == [device.name]


# ---- reading ----


async def test_lists_come_in_pages(fleet):
    for i in range(5):
        await put(fleet, f"{API}/namespaces/paged/configs/c{i}", {"kind": "Config", "metadata": {"name": f"c{i}"}})
    names, after = [], ""
    for _ in range(3):
        page = (await fleet.admin.get(f"{API}/namespaces/paged/configs", params={"limit": "2", "continue": after})).json()
        names += [each["metadata"]["name"] for each in page["items"]]
        after = page["continue"]
    assert names == [f"c{i}" for i in range(5)]
    assert after == ""
    everywhere = (await fleet.admin.get(f"{API}/configs", params={"limit": "1000"})).json()["items"]
    assert {"paged"} <= {each["metadata"]["namespace"] for each in everywhere}


@pytest.mark.parametrize("params", [{"limit": "x"}, {"continue": "nonsense!"}, {"labelSelector": "a"}, {"watch": "yes"}])
async def test_wrong_parameters_are_refused(fleet, params):
    assert (await fleet.admin.get(f"{API}/devices", params=params)).status_code == 422


async def test_what_is_not_there_is_not_found(fleet):
    for path in (f"{NS}/configs/nowhere", f"{API}/devices/nowhere", f"{API}/nothing", "/", f"{NS}/workloads/none/placement"):
        answer = await fleet.admin.get(path)
        assert (answer.status_code, error(answer)["reason"]) == (404, "NotFound"), path


async def test_the_document_of_the_api_describes_every_path(fleet):
    document = (await fleet.admin.get("/openapi.json")).json()
    assert document["paths"][f"{API}/namespaces/{{namespace}}/workloads/{{name}}"]["put"]["requestBody"]
    schemas = document["components"]["schemas"]
    assert {"Workload", "Device", "ErrorEnvelope"} <= set(schemas)
    schema = (await fleet.admin.get(f"{API}/schema")).json()
    assert "Workload" in schema["$defs"]


# ---- watching ----


class Watcher:
    """Reads server-sent events."""

    def __init__(self, client: httpx.AsyncClient, path: str, **params: str) -> None:
        self._stream = client.stream("GET", path, params={"watch": "true", **params})
        self.events: list[dict] = []

    async def __aenter__(self):
        self._answer = await self._stream.__aenter__()
        assert self._answer.status_code == 200
        self._lines = self._answer.aiter_lines()
        return self

    async def __aexit__(self, *args):
        await self._stream.__aexit__(*args)

    async def next(self) -> dict:
        async with asyncio.timeout(60):
            async for line in self._lines:
                if line.startswith("data: "):
                    return msgspec.json.decode(line[6:])
        raise AssertionError("the watch ended")


async def test_a_watch_brings_every_change_in_order(fleet):
    revision = (await fleet.admin.get(f"{API}/namespaces/watched/configs")).json()["revision"]
    path = f"{API}/namespaces/watched/configs/w"
    body = {"kind": "Config", "metadata": {"name": "w"}}
    await put(fleet, path, {**body, "spec": {"data": {"a": "1"}}})
    async with Watcher(fleet.admin, f"{API}/namespaces/watched/configs", after=str(revision)) as watch:
        added = await watch.next()
        await put(fleet, path, {**body, "spec": {"data": {"a": "2"}}})
        modified = await watch.next()
        await fleet.admin.delete(path)
        deleted = await watch.next()
    assert [each["type"] for each in (added, modified, deleted)] == ["ADDED", "MODIFIED", "DELETED"]
    assert added["revision"] < modified["revision"] < deleted["revision"]
    assert deleted["object"]["spec"]["data"] == {"a": "2"}


async def test_a_watch_with_labels_tells_what_stops_matching(fleet):
    device = await fleet.join(labels={"watch": "me"})
    other = await fleet.join()
    revision = (await fleet.admin.get(f"{API}/devices")).json()["revision"]
    async with Watcher(fleet.admin, f"{API}/devices", after=str(revision), labelSelector="watch=me") as watch:
        await fleet.admin.patch(f"{API}/devices/{other.name}/labels", json={"set": {"x": "y"}})
        await fleet.admin.patch(f"{API}/devices/{device.name}/labels", json={"remove": ["watch"]})
        event = await watch.next()
    assert (event["type"], event["object"]["metadata"]["name"]) == ("DELETED", device.name)


async def test_a_quiet_watch_says_how_far_it_is(start, wire):
    limits = wire.limits(watch_bookmark_seconds=0.1, shutdown_seconds=1.0)
    async with start(limits=limits) as fleet, Watcher(fleet.admin, f"{API}/sites", after="0") as watch:
        await put(fleet, f"{NS}/configs/elsewhere", config("elsewhere"))
        for _ in range(500):
            event = await watch.next()
            assert event["type"] == "BOOKMARK"
            if event["revision"] >= fleet.services.store.revision:
                return
    raise AssertionError("no bookmark caught up")


async def test_a_watch_from_too_long_ago_is_told_to_list_again(start):
    async with start() as fleet:
        for i in range(6):
            await put(fleet, f"{NS}/configs/c{i}", config(f"c{i}"))
        await fleet.services.store.compact(1)
        async with Watcher(fleet.admin, f"{API}/configs", after="1") as watch:
            event = await watch.next()
        assert (event["type"], event["object"]["reason"]) == ("ERROR", "Gone")


async def test_too_many_watches_are_refused(start, wire):
    async with start(limits=wire.limits(watches_max=1, shutdown_seconds=1.0)) as fleet:
        async with Watcher(fleet.admin, f"{API}/sites") as watch:
            await put(fleet, f"{API}/sites/a", {"kind": "Site", "metadata": {"name": "a"}})
            await watch.next()
            answer = await fleet.admin.get(f"{API}/sites", params={"watch": "true"})
            assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
        await wire.until(lambda: fleet.admin.get(f"{API}/sites"))


async def test_events_are_listed_and_watched(fleet):
    device = await fleet.join()
    last = (await fleet.admin.get(f"{API}/events")).json()["revision"]
    async with Watcher(fleet.admin, f"{API}/events", after=str(last), source=device.name) as watch:
        await put(fleet, f"{NS}/configs/noise", config("noise"))
        await device.report(device.event("first"), lane="events")
        event = await watch.next()
        assert (event["type"], event["object"]["message"], event["object"]["source"]) == ("ADDED", "first", device.name)


async def test_every_change_has_its_audit_record(fleet):
    device = await fleet.join()
    operator = await fleet.role("operator")
    async with operator:
        await operator.put(f"{NS}/configs/audited", json=config("audited"))
        await operator.delete(f"{NS}/configs/audited")
        await operator.patch(f"{API}/devices/{device.name}/labels", json={"set": {"a": "b"}})
        await operator.post(f"{API}/devices/{device.name}/clear-refused")
    events = (await fleet.admin.get(f"{API}/events", params={"source": "a operator"})).json()["items"]
    assert [(each["type"], each["reason"]) for each in events][-4:] == [
        ("Audit", "Apply"),
        ("Audit", "Delete"),
        ("Audit", "Label"),
        ("Audit", "ClearRefused"),
    ]


# ---- deleting ----


async def test_what_others_need_stays(fleet):
    device = await fleet.join()
    for path in (f"{API}/devices/{device.name}", f"{API}/agents/{device.name}", f"{API}/sites/lab"):
        answer = await fleet.admin.delete(path)
        assert (answer.status_code, error(answer)["reason"]) == (409, "Conflict"), path
    assert (await fleet.admin.post(f"{API}/agents/{device.name}/revoke")).status_code == 200
    assert (await fleet.admin.delete(f"{API}/devices/{device.name}")).status_code == 200


# ---- secrets ----


async def test_a_secret_is_never_answered_and_lies_encrypted(fleet):
    path, value = f"{NS}/secrets/rtsp", "correct horse battery staple"
    body = {"kind": "Secret", "metadata": {"name": "rtsp", "namespace": "line-3"}, "spec": {"data": {"password": value}}}
    created = await put(fleet, path, body)
    same = await put(fleet, path, body)
    assert (created.json()["result"], same.json()["result"]) == ("created", "unchanged")
    listed = await fleet.admin.get(f"{NS}/secrets")
    one = await fleet.admin.get(path)
    dry = await put(fleet, path, {**body, "spec": {"data": {"password": value + "!"}}}, dryRun="true")
    for answer in (created, same, listed, one, dry):
        assert value not in answer.text
        assert "encrypted" not in answer.text
    assert one.json()["status"]["keys"] == ["password"]
    files = [file.read_bytes() for file in (fleet.folder / "data").rglob("*") if file.is_file()]
    assert all(value.encode() not in data for data in files)
    events = await fleet.admin.get(f"{API}/events")
    assert value not in events.text


# ---- publishing ----


class Publisher:
    """Signs releases as a person would, on another machine."""

    def __init__(self, fleet) -> None:
        self.fleet = fleet
        self.key = (fleet.folder / "data" / "offline" / "releases-1.pem").read_text()

    async def upload(self, data: bytes) -> File:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        answer = await self.fleet.admin.put(f"{API}/blobs/{digest}", content=data)
        assert answer.status_code == 201, answer.text
        return File(path="model.onnx", digest=digest, size=len(data))

    def manifest(self, version: str, file: File, artifact: str = "inspector") -> bytes:
        return msgspec.json.encode(
            Manifest(
                type="model",
                namespace="line-3",
                artifact=artifact,
                version=version,
                variants=(Variant(name="fp32", files=(file,), runtime="onnxruntime"),),
            )
        )

    async def current(self) -> bytes:
        files = {}
        for name in ("timestamp.json",):
            files[name] = (await self.fleet.admin.get(f"{API}/repository/{name}")).content
        snapshot = msgspec.json.decode(files["timestamp.json"])["signed"]["meta"]["snapshot.json"]["version"]
        files[f"{snapshot}.snapshot.json"] = (await self.fleet.admin.get(f"{API}/repository/{snapshot}.snapshot.json")).content
        version = msgspec.json.decode(files[f"{snapshot}.snapshot.json"])["signed"]["meta"]["releases.json"]["version"]
        files[f"{version}.releases.json"] = (await self.fleet.admin.get(f"{API}/repository/{version}.releases.json")).content
        return delegated_metadata(files)

    async def sign(self, body: bytes, version: str, artifact: str = "inspector", key: str = "") -> bytes:
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        target = f"releases/line-3/{artifact}/{version}.json"
        return add_release(await self.current(), target, digest, len(body), key or self.key, time.time())

    async def publish(self, body: bytes, metadata: bytes, wire) -> httpx.Response:
        return await self.fleet.admin.post(f"{API}/releases", json={"manifest": wire.b64(body), "metadata": wire.b64(metadata)})


async def test_a_signed_release_is_published_and_its_files_served(fleet, wire):
    publisher, device = Publisher(fleet), await fleet.join()
    body = publisher.manifest("1", await publisher.upload(b"weights"))
    metadata = await publisher.sign(body, "1")
    answer = await publisher.publish(body, metadata, wire)
    assert (answer.status_code, answer.json()["metadata"]["name"]) == (201, "inspector:1")
    assert (await fleet.admin.get(f"{NS}/artifacts/inspector")).json()["metadata"]["name"] == "inspector"
    digest = answer.json()["spec"]["digest"]
    assert (await device.http.get(f"/v1/blobs/{digest}")).content == body
    signed = await device.http.get("/v1/repository/2.releases.json")
    assert msgspec.json.decode(signed.content) == msgspec.json.decode(metadata)
    again = await publisher.publish(body, await publisher.sign(body, "1"), wire)
    assert (again.status_code, again.json()["metadata"]["uid"]) == (200, answer.json()["metadata"]["uid"])
    stale = await publisher.publish(body, metadata, wire)
    assert (stale.status_code, error(stale)["reason"]) == (409, "Conflict")


async def test_a_version_is_never_replaced(fleet, wire):
    publisher = Publisher(fleet)
    first = publisher.manifest("7", await publisher.upload(b"seven"))
    assert (await publisher.publish(first, await publisher.sign(first, "7"), wire)).status_code == 201
    other = publisher.manifest("7", await publisher.upload(b"seven, but other"))
    forged = (await publisher.sign(first, "7")).replace(
        hashlib.sha256(first).hexdigest().encode(), hashlib.sha256(other).hexdigest().encode()
    )
    answer = await publisher.publish(other, forged, wire)
    assert answer.status_code == 409


async def test_a_release_that_the_wrong_key_signed_is_refused(fleet, wire):
    publisher = Publisher(fleet)
    body = publisher.manifest("8", await publisher.upload(b"eight"))
    good = await publisher.sign(body, "8")
    damaged = good.replace(b'"sig":"', b'"sig":"00', 1)
    assert damaged != good
    answer = await publisher.publish(body, damaged, wire)
    assert answer.status_code == 422
    assert (await fleet.admin.get(f"{NS}/artifactversions/inspector:8")).status_code == 404
    unsigned = await publisher.publish(body, await publisher.current(), wire)
    assert error(unsigned)["reason"] == "WrongTarget"
    other = publisher.manifest("8", await publisher.upload(b"not eight"))
    swapped = await publisher.publish(other, good, wire)
    assert error(swapped)["reason"] == "WrongTarget"


async def test_a_release_whose_files_are_not_here_is_refused(fleet, wire):
    publisher = Publisher(fleet)
    missing = File(path="m", digest=f"sha256:{'1' * 64}", size=5)
    body = publisher.manifest("9", missing)
    answer = await publisher.publish(body, await publisher.sign(body, "9"), wire)
    assert answer.status_code == 422
    assert "not uploaded" in error(answer)["message"]
    wrong_size = msgspec.structs.replace(await publisher.upload(b"12345"), size=4)
    body = publisher.manifest("9", wrong_size)
    assert (await publisher.publish(body, await publisher.sign(body, "9"), wire)).status_code == 422


@pytest.mark.parametrize(
    "body", [{}, {"manifest": "!", "metadata": "!"}, {"manifest": "e30=", "metadata": "e30="}, {"manifest": "W10=", "metadata": "", "x": 1}]
)
async def test_a_release_that_is_none_is_refused(fleet, body):
    assert (await fleet.admin.post(f"{API}/releases", json=body)).status_code == 422


async def test_a_blob_must_be_what_its_digest_says(fleet):
    digest = f"sha256:{hashlib.sha256(b'this').hexdigest()}"
    assert (await fleet.admin.put(f"{API}/blobs/{digest}", content=b"that")).status_code == 422
    assert (await fleet.admin.head(f"{API}/blobs/{digest}")).status_code == 404
    assert (await fleet.admin.put(f"{API}/blobs/{digest}", content=b"this")).status_code == 201
    assert (await fleet.admin.head(f"{API}/blobs/{digest}")).status_code == 200
    assert (await fleet.admin.put(f"{API}/blobs/x", content=b"this")).status_code == 422

    async def chunked():
        yield b"this"

    assert (await fleet.admin.put(f"{API}/blobs/{digest}", content=chunked())).status_code == 411


# ---- tokens ----


@pytest.mark.parametrize(
    "body",
    [
        {"site": "UPPER"},
        {"site": "lab", "ttl": "0s"},
        {"site": "lab", "ttl": "soon"},
        {"site": "lab", "ttl": "99999d"},
        {"site": "lab", "uses": 0},
        {"site": "lab", "uses": 100_001},
        {"site": "lab", "labels": {"site": "x"}},
        {"site": "lab", "surprise": 1},
    ],
)
async def test_a_join_token_that_makes_no_sense_is_refused(fleet, body):
    assert (await fleet.admin.post(f"{API}/jointokens", json=body)).status_code == 422


async def test_join_tokens_are_listed_without_their_secret_and_revoked(fleet):
    made = (await fleet.admin.post(f"{API}/jointokens", json={"site": "gone", "uses": 3})).json()
    listed = (await fleet.admin.get(f"{API}/jointokens")).json()["items"]
    (mine,) = [each for each in listed if each["id"] == made["id"]]
    assert (mine["site"], mine["uses"]) == ("gone", 3)
    assert (await fleet.admin.delete(f"{API}/jointokens/{made['id']}")).status_code == 200
    assert (await fleet.admin.delete(f"{API}/jointokens/{made['id']}")).status_code == 404


async def test_a_token_that_was_never_given_out_is_unknown(fleet):
    async with fleet.api(write_access_token(bytes(32))) as nobody:
        assert (await nobody.get(f"{API}/devices")).status_code == 401


# ---- logs ----


async def test_a_log_flows_from_the_device_to_the_operator(fleet, wire):
    device = await fleet.join()
    stranger = await fleet.admin.get(f"{API}/logs/{device.name}/line-3/inspector")
    assert stranger.status_code == 404
    fleet.services.runner.view.on_device.setdefault(device.name, {})["line-3", "inspector"] = None
    try:
        offline = await fleet.admin.get(f"{API}/logs/{device.name}/line-3/inspector")
        assert (offline.status_code, error(offline)["reason"]) == (503, "Unreachable")
        fleet.services.runner.view.on_device.pop(device.name)
        position = str(wire.decode(await device.desired(), wire.state).position)
        poll = asyncio.create_task(device.desired(after=position, wait=100))
        await wire.until(lambda: fleet.services.polls.is_open(device.name))
        fleet.services.runner.view.on_device[device.name] = {("line-3", "inspector"): None}
        params = {"follow": "true", "tail": "50"}
        reading = asyncio.create_task(fleet.admin.get(f"{API}/logs/{device.name}/line-3/inspector", params=params))
        (asked,) = wire.decode(await poll, wire.state).streams
        assert (asked.instance, asked.follow, asked.tail_lines) == ("line-3/inspector", True, 50)

        async def lines():
            for i in range(300):
                yield f"line {i}\n".encode() * 100

        answer = await device.http.post(f"/v1/streams/{asked.id}", content=lines())
        assert answer.status_code == 204
        assert (await reading).text.count("\n") == 30_000
        again = await device.http.post(f"/v1/streams/{asked.id}", content=b"x")
        assert again.status_code == 404
    finally:
        fleet.services.runner.view.on_device.pop(device.name, None)
    events = (await fleet.admin.get(f"{API}/events", params={"about": f"Device//{device.name}"})).json()["items"]
    assert "Logs" in [each["reason"] for each in events if each["type"] == "Audit"]


async def test_another_agent_cannot_send_a_stream(fleet, wire):
    device, other = await fleet.join(), await fleet.join()
    stream = fleet.services.streams.ask(device.name, device.name, "a/b", follow=False, tail_lines=1)
    try:
        assert (await other.http.post(f"/v1/streams/{stream.request.id}", content=b"x")).status_code == 404
        assert not stream.opened.is_set()
    finally:
        fleet.services.streams.close(stream)


async def test_metrics_of_a_device_are_added_up(fleet):
    device = await fleet.join()
    now = time.time()

    def frame(total: float) -> FrameReport:
        series = Series(
            name="model.accuracy", unit="1", type="gauge", instance="line-3/inspector", revision="abc",
            count=10, sum=total, sum_squares=total, min=0.0, max=1.0, last=0.5,
        )  # fmt: skip
        return FrameReport(device=device.name, boot_id="b", start=now - 10, end=now, monotonic=1.0, series=(series,))

    assert (await device.report(frame(9.0), frame(8.0), lane="telemetry")).status_code == 200
    (item,) = (await fleet.admin.get(f"{API}/metrics/{device.name}")).json()["items"]
    assert (item["name"], item["count"], item["mean"]) == ("model.accuracy", 20, 0.85)
    assert (await fleet.admin.get(f"{API}/metrics/nobody")).status_code == 404
