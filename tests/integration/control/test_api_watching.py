"""The operator API over real TLS: watching, events, audit."""

import asyncio

import httpx
import msgspec
import pytest
from api_rig import API, NS, config, put

pytestmark = pytest.mark.asyncio(loop_scope="module")


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
