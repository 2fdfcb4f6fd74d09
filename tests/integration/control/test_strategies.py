"""A shadow that disagrees, through gateway and API: refused, judged, taken back, and its evidence shown."""

import asyncio
import hashlib
import time
from xml.etree import ElementTree as ET

import msgspec
import pytest

from edgewise.resources.artifact import Command, File, Manifest, Variant
from edgewise.resources.device import Capacity
from edgewise.resources.instance import InstanceStatus
from edgewise.trust.repository import add_release
from edgewise.wire.report import FrameReport, InstanceReport, Series

pytestmark = pytest.mark.asyncio(loop_scope="module")

API = "/apis/v1alpha1"
CAPACITY = Capacity(architecture="x86_64", cpu_milli=4_000, memory=2**32, memory_nominal=2**32, disk=2**34)
SHADOW = {
    "shadow": {"devices": 1, "observeFor": "100ms"},
    "canary": {"waves": [1, "100%"], "observeFor": "100ms"},
    "analysis": [{"metric": "model.shadow.disagreement", "max": "2%", "minSamples": 50}],
}


async def publish(fleet, wire, kind: str, version: str) -> None:
    data = f"weights {kind} {version}".encode()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert (await fleet.admin.put(f"{API}/blobs/{digest}", content=data)).status_code == 201
    variant = Variant(name="any", files=(File(path="model.onnx", digest=digest, size=len(data)),))
    if kind == "bundle":
        variant = msgspec.structs.replace(variant, command=Command(argv=("./model.onnx",)))
    body = msgspec.json.encode(Manifest(type=kind, namespace="judged", artifact=kind, version=version, variants=(variant,)))
    key = (fleet.folder / "data" / "offline" / "releases-1.pem").read_text()
    manifest, target = f"sha256:{hashlib.sha256(body).hexdigest()}", f"releases/judged/{kind}/{version}.json"
    metadata = add_release(fleet.services.repository.role("releases"), target, manifest, len(body), key, time.time())
    answer = await fleet.admin.post(f"{API}/releases", json={"manifest": wire.b64(body), "metadata": wire.b64(metadata)})
    assert answer.status_code == 201, answer.text


def workload(kind: str, version: str, strategy: dict) -> dict:
    return {
        "kind": "Workload",
        "metadata": {"name": kind, "namespace": "judged"},
        "spec": {
            "artifact": {"name": kind, "version": version},
            "placement": {"everyMatchingDevice": {}, "selector": {"matchLabels": {"fleet": "judged"}}},
            "strategy": strategy,
        },
    }


async def follow(device, wire, stop: asyncio.Event) -> None:
    """Be a device that runs what it is told at once, a candidate beside the committed revision when it is held so; it disagrees."""
    after, committed = "", ""
    while not stop.is_set():
        answer = await device.desired(after=after, wait=1)
        if answer.status_code != 200:
            continue
        state = wire.decode(answer, wire.state)
        after = str(state.position)
        for told in state.devices[0].instances if state.devices else ():
            beside = told.hold and told.traffic is not None
            status = InstanceStatus(observed_epoch=told.epoch, state="Running", revision=told.revision, committed=told.revision, ready=True)
            if beside:
                status = msgspec.structs.replace(
                    status, revision=committed, committed=committed, update="Probation", update_revision=told.revision, traffic=told.traffic
                )
            committed = status.committed
            await device.report(InstanceReport(device=device.name, name=told.name, uid=told.uid, status=status))
            if beside:
                await device.report(frame(device.name, told.name, told.revision), lane="telemetry")


def frame(device: str, instance: str, revision: str) -> FrameReport:
    now = time.time()
    series = Series(
        name="model.shadow.disagreement", unit="1", type="gauge", instance=instance, revision=revision, count=100, sum=30.0,
        sum_squares=30.0, min=0.0, max=1.0, last=0.0,
    )  # fmt: skip
    return FrameReport(device=device, boot_id="b", start=now - 1, end=now, monotonic=1.0, series=(series,))


async def test_a_shadow_that_disagrees_is_taken_back_with_its_evidence(fleet, wire):
    device = await fleet.join(labels={"fleet": "judged"}, capacity=CAPACITY)
    await device.report(device.status(agent_version="1", capabilities=("traffic",)))
    path, rollouts = f"{API}/namespaces/judged/workloads/model", f"{API}/namespaces/judged/rollouts/model"
    stop = asyncio.Event()
    task = asyncio.create_task(follow(device, wire, stop))
    for version in ("1", "2"):
        await publish(fleet, wire, "model", version)

    async def ended(count: int):
        items = (await fleet.admin.get(f"{rollouts}/history")).json()["items"]
        return items if len(items) == count and items[-1]["status"].get("finishedAt") else None

    assert (await fleet.admin.get(f"{rollouts}/evidence.svg")).status_code == 404
    assert (await fleet.admin.put(path, json=workload("model", "1", SHADOW))).status_code == 201
    await wire.until(lambda: ended(1))
    assert (await fleet.admin.put(path, json=workload("model", "2", SHADOW))).status_code == 200
    await wire.until(lambda: ended(2))
    first, second = await ended(2)
    stop.set()
    await task
    assert first["status"]["state"] == "Succeeded"
    assert first["status"]["phase"] == "Canary"
    status = second["status"]
    assert (status["state"], status["phase"], status["analysis"]) == ("RolledBack", "Shadow", "Failed")
    assert "the shadow never became a canary: model.shadow.disagreement: mean 0.3 is above 0.02" in status["message"]
    assert status["stages"][0]["verdicts"][0]["samples"] == 100
    picture = await fleet.admin.get(f"{rollouts}/evidence.svg")
    assert picture.headers["content-type"].startswith("image/svg+xml")
    assert "default-src 'none'" in picture.headers["content-security-policy"]
    assert "wave 1 (Shadow): Failed" in picture.text
    ET.fromstring(picture.text)
    assert "Succeeded" in (await fleet.admin.get(f"{rollouts}/evidence.svg", params={"rollout": 1})).text
    assert (await fleet.admin.get(f"{rollouts}/evidence.svg", params={"rollout": 9})).status_code == 404
    async with await fleet.role("viewer") as viewer:
        assert (await viewer.get(f"{rollouts}/evidence.svg")).status_code == 200
    async with fleet.api(None) as nobody:
        assert (await nobody.get(f"{rollouts}/evidence.svg")).status_code == 401
    await fleet.admin.delete(path)


@pytest.mark.parametrize(("field", "strategy"), [("shadow", SHADOW), ("blueGreen", {"blueGreen": {}})])
async def test_what_needs_two_revisions_side_by_side_is_refused_for_a_bundle(fleet, wire, field, strategy):
    await publish(fleet, wire, "bundle", field.lower())
    refused = await fleet.admin.put(
        f"{API}/namespaces/judged/workloads/bundle", json=workload("bundle", field.lower(), strategy), params={"dryRun": "true"}
    )
    assert refused.status_code == 422, refused.text
    (problem,) = refused.json()["error"]["problems"]
    assert problem["path"] == f"spec.strategy.{field}"
    assert "artifact bundle is a bundle" in problem["message"]


async def test_tokens_for_a_new_site_may_be_made_at_once(fleet):
    answers = await asyncio.gather(*(fleet.admin.post(f"{API}/jointokens", json={"site": "brand-new"}) for _ in range(8)))
    assert [answer.status_code for answer in answers] == [201] * 8
