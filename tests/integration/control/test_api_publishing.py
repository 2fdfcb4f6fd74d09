"""The operator API over real TLS: publishing, logs, metrics."""

import asyncio
import hashlib
import time

import httpx
import msgspec
import pytest
from api_rig import API, NS, error

from edgewise.resources.artifact import File, Manifest, Variant
from edgewise.trust.repository import add_release, delegated_metadata
from edgewise.wire.report import FrameReport, Series

pytestmark = pytest.mark.asyncio(loop_scope="module")


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
