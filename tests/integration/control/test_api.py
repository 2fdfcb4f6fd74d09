"""The operator API over real TLS: applying, reading, deleting, secrets, errors."""

import asyncio

import pytest
from api_rig import API, NS, config, error, put, workload

pytestmark = pytest.mark.asyncio(loop_scope="module")


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
