"""From an applied workload to a device and back: gateway, API, store and controllers together."""

import asyncio
import hashlib
import time

import msgspec
import pytest

from edgewise.resources.artifact import File, Manifest, Variant
from edgewise.resources.device import Capacity
from edgewise.resources.instance import InstanceStatus
from edgewise.trust.keys import new_sealing_key
from edgewise.trust.repository import add_release
from edgewise.trust.sealing import secret_context, unseal
from edgewise.wire.report import InstanceReport

pytestmark = pytest.mark.asyncio(loop_scope="module")

API = "/apis/v1alpha1"
CAPACITY = Capacity(
    architecture="x86_64", cpu_milli=4_000, memory=2**32, memory_nominal=2**32, disk=2**34, runtimes={"onnxruntime": "1.20"}
)


async def publish(fleet, wire, namespace: str, version: str) -> None:
    data = f"weights {version}".encode()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert (await fleet.admin.put(f"{API}/blobs/{digest}", content=data)).status_code == 201
    file = File(path="model.onnx", digest=digest, size=len(data))
    variant = Variant(name="fp32", files=(file,), runtime="onnxruntime")
    body = msgspec.json.encode(Manifest(type="model", namespace=namespace, artifact="inspector", version=version, variants=(variant,)))
    manifest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    key = (fleet.folder / "data" / "offline" / "releases-1.pem").read_text()
    target = f"releases/{namespace}/inspector/{version}.json"
    metadata = add_release(fleet.services.repository.role("releases"), target, manifest, len(body), key, time.time())
    answer = await fleet.admin.post(f"{API}/releases", json={"manifest": wire.b64(body), "metadata": wire.b64(metadata)})
    assert answer.status_code == 201, answer.text


def workload(namespace: str, version: str, **spec: object) -> dict:
    canary = {"waves": [1, "100%"], "observeFor": "100ms"}
    return {
        "kind": "Workload",
        "metadata": {"name": "inspector", "namespace": namespace},
        "spec": {
            "artifact": {"name": "inspector", "version": version},
            "placement": {"everyMatchingDevice": {}, "selector": {"matchLabels": {"fleet": namespace}}},
            "strategy": {"canary": canary},
            **spec,
        },
    }


async def poll(device, wire, after: str):
    answer = await device.desired(after=after, wait=100)
    assert answer.status_code == 200, answer.status_code
    return wire.decode(answer, wire.state)


async def running(device, instance) -> None:
    status = InstanceStatus(
        observed_epoch=instance.epoch, state="Running", update="Idle", revision=instance.revision, committed=instance.revision, ready=True
    )
    answer = await device.report(InstanceReport(device=device.name, name=instance.name, uid=instance.uid, status=status))
    assert answer.status_code == 200


async def follow(device, wire, stop: asyncio.Event) -> list[str]:
    """Be a device: run whatever is asked for, at once. Returns the revisions seen, in order."""
    after, seen = "", []
    while not stop.is_set():
        answer = await device.desired(after=after, wait=1)
        if answer.status_code != 200:
            continue
        state = wire.decode(answer, wire.state)
        after = str(state.position)
        for instance in state.devices[0].instances if state.devices else ():
            if instance.revision not in seen[-1:]:
                seen.append(instance.revision)
            await running(device, instance)
    return seen


async def test_a_workload_goes_out_is_updated_and_goes_away(fleet, wire):
    devices = [await fleet.join(labels={"fleet": "loop"}, capacity=CAPACITY) for _ in range(3)]
    stop = asyncio.Event()
    tasks = [asyncio.create_task(follow(device, wire, stop)) for device in devices]
    path = f"{API}/namespaces/loop/workloads/inspector"
    history = f"{API}/namespaces/loop/rollouts/inspector/history"

    async def succeeded(count: int):
        rollouts = (await fleet.admin.get(history)).json()["items"]
        return len(rollouts) == count and rollouts[-1]["status"].get("state") == "Succeeded"

    await publish(fleet, wire, "loop", "1")
    plan = (await fleet.admin.put(path, json=workload("loop", "1"), params={"dryRun": "true"})).json()["placement"]
    chosen = {row["device"]: row.get("variant") for row in plan if row.get("chosen")}
    assert chosen == {device.name: "fp32" for device in devices}
    assert (await fleet.admin.put(path, json=workload("loop", "1"))).status_code == 201
    await wire.until(lambda: succeeded(1))
    await publish(fleet, wire, "loop", "2")
    assert (await fleet.admin.put(path, json=workload("loop", "2"))).json()["result"] == "configured"
    await wire.until(lambda: succeeded(2))
    placement = (await fleet.admin.get(f"{path}/placement")).json()["devices"]
    assert {row["device"] for row in placement if row.get("current")} == {device.name for device in devices}
    rejected = [row for row in placement if not row.get("chosen")]
    assert all(row["reason"] for row in rejected)
    assert (await fleet.admin.delete(path)).status_code == 200
    stop.set()
    revisions = await asyncio.gather(*tasks)
    assert all(len(seen) >= 2 for seen in revisions)


async def test_a_rollout_is_paused_and_aborted(fleet, wire):
    device = await fleet.join(labels={"fleet": "verbs"}, capacity=CAPACITY)
    await publish(fleet, wire, "verbs", "1")
    base = f"{API}/namespaces/verbs"
    assert (await fleet.admin.post(f"{base}/rollouts/inspector/pause")).status_code == 404
    await fleet.admin.put(f"{base}/workloads/inspector", json=workload("verbs", "1"))
    await poll(device, wire, "")
    await wire.until(lambda: fleet.services.runner.view.active_rollout(("verbs", "inspector")))
    paused = await fleet.admin.post(f"{base}/rollouts/inspector/pause")
    assert paused.json()["spec"]["paused"] is True
    resumed = await fleet.admin.post(f"{base}/rollouts/inspector/resume")
    assert "paused" not in resumed.json()["spec"]
    assert (await fleet.admin.post(f"{base}/rollouts/inspector/promote")).json()["spec"]["promote"] == 1
    aborted = await fleet.admin.post(f"{base}/rollouts/inspector/abort")
    assert aborted.json()["spec"]["abort"] is True
    assert (await fleet.admin.post(f"{base}/workloads/inspector/clear-refused")).status_code == 200


async def test_a_secret_reaches_only_its_device_sealed(fleet, wire):
    private, public = new_sealing_key()
    device = await fleet.join(labels={"fleet": "sealed"}, capacity=CAPACITY, sealing_key=public)
    await publish(fleet, wire, "sealed", "1")
    secret = {"kind": "Secret", "metadata": {"name": "rtsp"}, "spec": {"data": {"password": "hunter2"}}}
    assert (await fleet.admin.put(f"{API}/namespaces/sealed/secrets/rtsp", json=secret)).status_code == 201
    body = workload("sealed", "1", secrets=[{"name": "rtsp"}])
    assert (await fleet.admin.put(f"{API}/namespaces/sealed/workloads/inspector", json=body)).status_code == 201
    after, instances = "", ()
    while not instances:
        state = await poll(device, wire, after)
        after, instances = str(state.position), state.devices[0].instances if state.devices else ()
    (sealed,) = instances[0].secrets
    assert b"hunter2" not in sealed.sealed
    plain = unseal(private, sealed.sealed, secret_context(state.devices[0].uid, "sealed", "rtsp"))
    assert msgspec.msgpack.decode(plain) == {"password": "hunter2"}
