"""The client against answers: what it asks, what it makes of answers, what it tries again and what never."""

import json
import traceback

import httpx
import msgspec
import pytest

import edgewise as ew
from edgewise.client.connection import ClientLimits, _retry_after
from edgewise.resources.artifact import Artifact
from edgewise.resources.instance import Instance, InstanceSpec
from edgewise.resources.manifests import load
from edgewise.resources.meta import Metadata
from edgewise.resources.site import Site
from edgewise.resources.workload import Workload

NS = "/apis/v1alpha1/namespaces/line-3"
WORKLOAD = """
apiVersion: edgewise/v1alpha1
kind: Workload
metadata: {name: inspector}
spec: {artifact: {name: inspector, version: "2"}, placement: {replicas: 1}}
"""


def workload(generation=0, changed=0, **status):
    (made,) = load(WORKLOAD)
    meta = msgspec.structs.replace(made.metadata, namespace="line-3", generation=generation, revision=changed)
    return msgspec.structs.replace(made, metadata=meta, status=msgspec.structs.replace(made.status, **status))


def instance(name, revision=1):
    spec = InstanceSpec(workload=name, device="edge-1", revision="abc", variant="fp32")
    return Instance(metadata=Metadata(name=f"{name}.edge-1", namespace="line-3", revision=revision), spec=spec)


async def test_apply_puts_into_the_clients_namespace_with_the_token(client, script, tools):
    script.on("PUT", f"{NS}/workloads/inspector", tools.answer({"resource": msgspec.to_builtins(workload(1, 7)), "result": "created"}))
    applied = await client.apply(load(WORKLOAD))
    assert applied.revision == 7
    assert applied.items[0].result == "created"
    _, _, body, headers = script.asked[0]
    assert json.loads(body)["metadata"] == {"name": "inspector", "namespace": "line-3"}
    assert headers["authorization"] == f"Bearer {tools.TOKEN}"


async def test_a_dry_run_says_so_and_brings_the_plan(client, script, tools):
    plan = [{"device": "edge-1", "variant": "fp32", "chosen": True}, {"device": "edge-2", "reason": "camera must be set, is not set"}]
    answer = tools.answer(
        {"resource": msgspec.to_builtins(workload()), "result": "created", "placement": plan, "warnings": ["w"], "newer": 1}
    )
    script.on("PUT", f"{NS}/workloads/inspector", answer)
    applied = await client.apply(load(WORKLOAD), dry_run=True)
    assert script.paths == [f"PUT {NS}/workloads/inspector?dryRun=true"]
    assert [each.device for each in applied.items[0].placement] == ["edge-1", "edge-2"]
    assert applied.items[0].warnings == ("w",)


async def test_all_are_checked_before_the_first_is_sent(client, script):
    good = workload()
    bad = msgspec.structs.replace(
        good, spec=msgspec.structs.replace(good.spec, placement=msgspec.structs.replace(good.spec.placement, replicas=None))
    )
    with pytest.raises(ew.Invalid, match="exactly one of everyMatchingDevice or replicas"):
        await client.apply([good, bad])
    assert script.asked == []


async def test_a_contradicting_namespace_is_refused(client, script):
    with pytest.raises(ew.Invalid, match="names the namespace line-3, but line-4 was asked for"):
        await client.apply(workload(), namespace="line-4")
    assert script.asked == []


async def test_kinds_without_namespace_have_none_in_their_path(client, script, tools):
    script.on("GET", "/apis/v1alpha1/sites/lab", tools.answer(Site(metadata=Metadata(name="lab"))))
    assert (await client.get(ew.Site, "lab")).metadata.name == "lab"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a?b", "a b", "ä"])
async def test_no_name_leads_out_of_its_path(client, script, name):
    with pytest.raises(ew.Error):
        await client.get(ew.Device, name)
    assert all(path.startswith("GET /apis/v1alpha1/devices/") and path.count("/") == 4 and "?" not in path for path in script.paths)


async def test_lists_go_through_all_pages_from_the_first_ones_revision(client, script, tools):
    first = {"items": [msgspec.to_builtins(instance("a"))], "revision": 5, "continue": "more"}
    second = {"items": [msgspec.to_builtins(instance("b"))], "revision": 9}
    script.on("GET", f"{NS}/instances", tools.answer(first), tools.answer(second))
    listing = await client.listing(ew.Instance, labels={"b": "2", "a": "1"})
    assert [each.spec.workload for each in listing.items] == ["a", "b"]
    assert listing.revision == 5
    assert script.paths == [
        f"GET {NS}/instances?labelSelector=a%3D1%2Cb%3D2&limit=500",
        f"GET {NS}/instances?labelSelector=a%3D1%2Cb%3D2&limit=500&continue=more",
    ]
    script.on("GET", "/apis/v1alpha1/instances", tools.answer({"items": [], "revision": 9}))
    await client.list(ew.Instance, all_namespaces=True)
    assert script.paths[-1].startswith("GET /apis/v1alpha1/instances?")


# ---- errors ----


@pytest.mark.parametrize(
    ("status", "reason", "wanted"),
    [
        (400, "Malformed", ew.Invalid),
        (401, "Unauthorized", ew.Denied),
        (403, "Denied", ew.Denied),
        (404, "NotFound", ew.NotFound),
        (405, "NotAllowed", ew.Refused),
        (409, "Conflict", ew.Conflict),
        (413, "TooLarge", ew.Invalid),
        (422, "Invalid", ew.Invalid),
        (500, "Internal", ew.Refused),
        (503, "Overloaded", ew.Unreachable),
    ],
)
async def test_refusals_become_the_public_tree(client, script, tools, status, reason, wanted):
    script.on("PUT", f"{NS}/workloads/inspector", tools.refusal(status, reason, "said so"))
    with pytest.raises(wanted) as caught:
        await client.apply(workload())
    assert isinstance(caught.value, ew.Error)
    assert "said so" in str(caught.value) or status == 503


async def test_problems_and_the_current_resource_come_along(client, script, tools):
    problem = {"path": "spec.artifact", "message": "is missing", "hint": "add it"}
    current = msgspec.to_builtins(workload(4))
    script.on(
        "PUT",
        f"{NS}/workloads/inspector",
        tools.refusal(422, "Invalid", "m", problems=[problem]),
        tools.refusal(409, "Conflict", "m", current=current),
    )
    with pytest.raises(ew.Invalid) as invalid:
        await client.apply(workload())
    assert invalid.value.problems == (ew.Problem(path="spec.artifact", message="is missing", hint="add it"),)
    with pytest.raises(ew.Conflict) as conflict:
        await client.apply(workload())
    assert conflict.value.current.metadata.generation == 4


@pytest.mark.parametrize("content", [b"", b"<html>", b'{"error": 1}', b"\xff", b"[" * 500])
@pytest.mark.parametrize("status", [200, 404, 500])
async def test_what_is_no_answer_is_still_an_error_of_ours(client, script, tools, content, status):
    script.on("GET", "/apis/v1alpha1/sites/lab", tools.answer(content, status))
    with pytest.raises(ew.Error):
        await client.get(ew.Site, "lab")


async def test_answers_are_bounded_at_the_limit_one_under_and_one_over(script, tools):
    body = msgspec.json.encode(Site(metadata=Metadata(name="lab")))
    script.on("GET", "/apis/v1alpha1/sites/lab", tools.answer(body))
    context = ew.Context(address="https://control.test", token="t", authority="")
    for spare, fits in ((0, True), (1, True), (-1, False)):
        limits = ClientLimits(answer_bytes_max=len(body) + spare)
        async with ew.Client(context, limits=limits, transport=httpx.MockTransport(script)) as client:
            if fits:
                await client.get(ew.Site, "lab")
            else:
                with pytest.raises(ew.Refused, match="larger than"):
                    await client.get(ew.Site, "lab")


# ---- trying again ----


def raising(error):
    def fail(request):
        raise error("broke", request=request)

    return fail


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ConnectTimeout, httpx.ReadError, httpx.ReadTimeout, httpx.RemoteProtocolError])
async def test_reading_is_tried_again(client, script, tools, error):
    script.on("GET", "/apis/v1alpha1/sites/lab", raising(error), tools.answer(Site(metadata=Metadata(name="lab"))))
    assert (await client.get(ew.Site, "lab")).metadata.name == "lab"
    assert len(script.asked) == 2


@pytest.mark.parametrize("error", [httpx.ReadError, httpx.ReadTimeout, httpx.RemoteProtocolError, httpx.WriteError])
async def test_a_change_whose_answer_was_lost_is_never_sent_twice(client, script, error):
    script.on("PUT", f"{NS}/workloads/inspector", raising(error))
    with pytest.raises(ew.Unreachable):
        await client.apply(workload())
    assert len(script.asked) == 1


async def test_a_change_that_was_not_sent_or_was_shed_is_sent_again(client, script, tools):
    done = tools.answer({"resource": msgspec.to_builtins(workload(1)), "result": "created"})
    shed = tools.answer(b"{}", 503, **{"Retry-After": "0"})
    script.on("PUT", f"{NS}/workloads/inspector", raising(httpx.ConnectError), shed, done)
    assert (await client.apply(workload())).items[0].result == "created"
    assert len(script.asked) == 3


async def test_trying_again_ends(client, script, tools):
    script.on("GET", "/apis/v1alpha1/sites/lab", tools.answer(b"{}", 503, **{"Retry-After": "9999"}))
    with pytest.raises(ew.Unreachable, match="too busy"):
        await client.get(ew.Site, "lab")
    assert len(script.asked) == 1


@pytest.mark.parametrize(("text", "seconds"), [("5", 5.0), ("", None), ("soon", None), ("-1", None), ("9" * 9, None)])
def test_retry_after_is_read_with_care(text, seconds):
    assert _retry_after(httpx.Response(503, headers={"Retry-After": text})) == seconds


async def test_no_secret_stands_in_an_error_nor_in_a_representation(client, script, tools):
    script.on("GET", "/apis/v1alpha1/sites/lab", raising(httpx.ConnectError))
    with pytest.raises(ew.Unreachable) as caught:
        await client.get(ew.Site, "lab")
    assert caught.value.__suppress_context__
    assert tools.TOKEN not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert tools.TOKEN not in repr(ew.Context(address="a", token=tools.TOKEN, authority=""))


async def test_a_certificate_of_another_authority_is_told_in_words(client, script):
    script.on("GET", "/apis/v1alpha1/sites/lab", _unverified)
    with pytest.raises(ew.Unreachable, match="pinned authority"):
        await client.get(ew.Site, "lab")


def _unverified(request):
    raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", request=request)


# ---- watching ----


def change(kind, resource, revision):
    return {"type": kind, "revision": revision, "object": msgspec.to_builtins(resource)}


async def taken(iterator, count):
    found = []
    async for each in iterator:
        found.append(each)
        if len(found) == count:
            break
    await iterator.aclose()
    return found


async def test_a_watch_begins_with_what_is_there(client, script, tools):
    listed = tools.answer({"items": [msgspec.to_builtins(instance("a", 3))], "revision": 5})
    script.on("GET", f"{NS}/instances", listed, tools.events(change("MODIFIED", instance("a", 6), 6)))
    found = await taken(client.watch(Instance), 2)
    assert [(each.type, each.revision) for each in found] == [("ADDED", 3), ("MODIFIED", 6)]
    assert script.paths[1] == f"GET {NS}/instances?watch=true&after=5"


async def test_a_broken_watch_goes_on_where_it_was(client, script, tools):
    script.on(
        "GET",
        f"{NS}/instances",
        tools.events(change("ADDED", instance("a", 6), 6), {"type": "BOOKMARK", "revision": 8}, broken=True),
        raising(httpx.ConnectError),
        tools.events(change("DELETED", instance("a", 9), 9)),
    )
    found = await taken(client.watch(Instance, since=5), 2)
    assert [(each.type, each.revision) for each in found] == [("ADDED", 6), ("DELETED", 9)]
    assert [path.partition("after=")[2] for path in script.paths] == ["5", "8", "8"]


@pytest.mark.parametrize("told", ["event", "status"])
async def test_a_watch_that_fell_behind_tells_the_difference(client, script, tools, told):
    gone = {"type": "ERROR", "revision": 7, "object": {"reason": "Gone", "message": "too old"}}
    refused = tools.events(gone) if told == "event" else tools.refusal(410, "Gone", "too old")
    first = tools.events(change("ADDED", instance("a", 6), 6), change("ADDED", instance("b", 7), 7))
    listed = tools.answer({"items": [msgspec.to_builtins(instance("b", 20)), msgspec.to_builtins(instance("c", 21))], "revision": 30})
    after = tools.events(change("DELETED", instance("c", 31), 31))
    script.on("GET", f"{NS}/instances", first, refused, listed, after)
    found = await taken(client.watch(Instance, since=5), 6)
    assert [(each.type, each.resource.spec.workload) for each in found] == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("DELETED", "a"),
        ("MODIFIED", "b"),
        ("ADDED", "c"),
        ("DELETED", "c"),
    ]


async def test_a_watch_gives_up_in_the_end(client, script):
    script.on("GET", f"{NS}/instances", raising(httpx.ConnectError))
    with pytest.raises(ew.Unreachable):
        await taken(client.watch(Instance, since=1), 1)
    assert len(script.asked) > 2


async def test_a_refused_watch_is_not_tried_again(client, script, tools):
    script.on("GET", f"{NS}/instances", tools.refusal(403, "Denied", "no"))
    with pytest.raises(ew.Denied):
        await taken(client.watch(Instance, since=1), 1)
    assert len(script.asked) == 1


async def test_events_are_followed_without_a_gap(client, script, tools):
    def event(number):
        body = {
            "number": number,
            "at": 1.0,
            "type": "Normal",
            "reason": "R",
            "message": "m",
            "source": "edge-1",
            "about": "",
            "receivedAt": 2.0,
        }
        return {"type": "ADDED", "revision": number, "object": body}

    script.on("GET", "/apis/v1alpha1/events", tools.events(event(4), broken=True), tools.events(event(5)))
    found = await taken(client.follow_events(about="Device//edge-1", after=3), 2)
    assert [each.number for each in found] == [4, 5]
    assert found[0].received_at == 2.0
    assert [path.partition("after=")[2] for path in script.paths] == ["3", "4"]


async def test_logs_are_text_even_when_a_character_is_cut(client, script, tools):
    pieces = tools.Chunks(b"gr\xc3", b"\xbc\xc3\x9f\n\xff\n")
    script.on("GET", "/apis/v1alpha1/logs/edge-1/line-3/inspector", lambda _: httpx.Response(200, stream=pieces))
    text = "".join([part async for part in client.logs("edge-1", "inspector", tail=5)])
    assert text == "grüß\n\ufffd\n"
    assert script.paths == ["GET /apis/v1alpha1/logs/edge-1/line-3/inspector?follow=false&tail=5"]


# ---- verbs ----


async def test_verbs_ask_what_the_api_offers(client, script, tools):
    device = ew.Device(metadata=Metadata(name="edge-1", generation=3))
    base = "/apis/v1alpha1/devices/edge-1"
    script.on("POST", f"{base}/decommission", tools.answer(b"{}"))
    script.on("POST", f"{base}/clear-refused", tools.answer(b"{}"))
    script.on("PATCH", f"{base}/labels", tools.answer(device))
    script.on("GET", base, tools.answer(device))
    script.on("PUT", base, tools.answer({"resource": msgspec.to_builtins(device), "result": "configured"}))
    script.on("POST", "/apis/v1alpha1/jointokens", tools.answer({"token": "ewj1.x", "id": "1", "expiresAt": 1.0}))
    script.on("POST", "/apis/v1alpha1/accesstokens", tools.answer({"token": "ewo1_x"}))
    script.on("DELETE", f"{NS}/artifacts/a", tools.answer(b"{}"))
    await client.decommission("edge-1")
    await client.clear_refused("edge-1")
    await client.label("edge-1", {"a": "b"}, ["c"])
    await client.cordon("edge-1")
    assert await client.create_join_token("lab", uses=3, labels={"x": "y"}) == "ewj1.x"
    assert await client.create_access_token("me", "viewer") == "ewo1_x"
    await client.delete(Artifact, "a")
    bodies = [json.loads(body) for _, _, body, _ in script.asked if body]
    assert bodies[0] == {"set": {"a": "b"}, "remove": ["c"]}
    assert bodies[1]["spec"] == {"unschedulable": True}
    assert bodies[1]["metadata"]["generation"] == 3
    assert bodies[2] == {"site": "lab", "ttl": "10m", "uses": 3, "labels": {"x": "y"}}
    assert bodies[3] == {"name": "me", "role": "viewer", "ttl": "30d"}


async def test_metrics_are_added_up(client, script, tools):
    items = [
        {"name": "frames", "count": 2, "mean": 5.0},
        {"name": "frames", "count": 1, "mean": 3.0},
        {"name": "other", "count": 1, "mean": 9.0},
    ]
    script.on("GET", "/apis/v1alpha1/metrics/edge-1", tools.answer({"device": "edge-1", "items": items}))
    assert await client.metric_total("edge-1", "frames") == 13.0


def rollout(number, state, revision="r1"):
    return {
        "kind": "Rollout",
        "metadata": {"name": f"inspector-{number}", "namespace": "line-3"},
        "spec": {"workload": "inspector", "toRevision": revision},
        "status": {"state": state},
    }


async def test_waiting_for_a_rollout_bears_an_absence_and_ends_with_the_newest(client, script, tools):
    path = f"{NS}/workloads/inspector"
    script.on(
        "GET",
        path,
        tools.answer(workload(2, observed_generation=1, revision="r0")),
        raising(httpx.ConnectError),
        tools.answer(workload(2, observed_generation=2, revision="r1")),
    )
    history = f"{NS}/rollouts/inspector/history"
    old = rollout(1, "Succeeded", "r0")
    script.on(
        "GET",
        history,
        *(tools.answer({"items": [old, rollout(2, state)]}) for state in ("Pending", "Progressing", "Progressing", "RolledBack")),
    )
    seen = []
    ended = await client.wait_rollout("inspector", timeout=5, on_change=lambda each: seen.append(each.status.state.value))
    assert ended.metadata.name == "inspector-2"
    assert seen == ["Pending", "Progressing", "RolledBack"]


async def test_waiting_for_a_rollout_ends_in_time_and_at_once_when_there_is_no_workload(client, script, tools):
    with pytest.raises(ew.NotFound):
        await client.wait_rollout("inspector", timeout=5)
    script.on("GET", f"{NS}/workloads/inspector", tools.answer(workload(1)))
    with pytest.raises(ew.TimedOut, match=r"did not end within 0\.05 s: no rollout began"):
        await client.wait_rollout("inspector", timeout=0.05)


def test_workloads_are_what_the_api_says_they_are():
    assert isinstance(workload(), Workload)


async def test_a_list_comes_page_by_page(client, script, tools):
    def page(names, revision, following=""):
        return tools.answer(
            {"items": [msgspec.to_builtins(instance(name, 1)) for name in names], "revision": revision, "continue": following}
        )

    script.on("GET", f"{NS}/instances", page("ab", 7, "b"), page("", 8, "c"), page("c", 9))
    pages = [page async for page in client.pages(Instance)]
    assert [([each.spec.workload for each in page.items], page.revision) for page in pages] == [(["a", "b"], 7), ([], 8), (["c"], 9)]
    assert [path.partition("?")[2] for path in script.paths] == ["limit=500", "limit=500&continue=b", "limit=500&continue=c"]
