"""The operator API over real TLS: who may do what, and tokens."""

from typing import get_args

import pytest
from api_rig import API, error
from litestar.routes import HTTPRoute

from edgewise.control.api.access import Access
from edgewise.control.api.app import build_api
from edgewise.trust.access import Role, decide
from edgewise.trust.tokens import write_access_token

pytestmark = pytest.mark.asyncio(loop_scope="module")


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
