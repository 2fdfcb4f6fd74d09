"""`describe`: what a person needs to know is said, for every kind."""

import msgspec
import pytest

from edgewise.cli.describe import described
from edgewise.client.answers import DevicePlan, Event, Placement
from edgewise.resources.kinds import KINDS
from edgewise.resources.states import UpdateState
from edgewise.resources.traffic import Traffic


class Fleet:
    """Answers what `describe` asks."""

    def __init__(self, make):
        self._make = make

    async def list(self, kind, **_):
        return (self._make(kind.__name__),)

    async def placement(self, *_, **__):
        chosen = DevicePlan(device="edge-1", variant="int8", chosen=True, current=True)
        return Placement(devices=(DevicePlan(device="bare", reason="memory: 512Mi needed, 100Mi free"), chosen))

    async def rollout_history(self, *_, **__):
        return (self._make("Rollout"),)

    async def events(self, **asked):
        self.about = asked["about"]
        return (Event(number=1, at=1_800_000_000.0 - 10, type="Normal", reason="Joined", message="it joined", source="control"),)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_every_kind_is_described(kind, make, now):
    fleet = Fleet(make)
    text = await described(fleet, make(kind.name), now)
    assert text.startswith("Name:")
    assert f"{kind.name}\n" in text
    assert "2027-01-15T07:00:00Z (60m ago)" in text
    assert "it joined" in text
    namespace = "line-3" if kind.namespaced else ""
    assert fleet.about == f"{kind.name}/{namespace}/{make(kind.name).metadata.name}"


async def test_a_workload_says_where_it_runs_and_why_not_elsewhere(make, now):
    text = await described(Fleet(make), make("Workload"), now)
    for said in (
        "every matching device, line=3, prefer quality",
        "waves 1, 25%, 100%; observed for 30s; failure budget 5%; model.accuracy min 0.95 over 200 samples",
        "lost after 5m, replaced elsewhere",
        "3 ready of 4",
        "one to go",
        "memory: 512Mi needed, 100Mi free",
        "warming up",
        "inspector-2",
    ):
        assert said in text
    assert text.index("edge-1   yes") < text.index("bare     no")


async def test_a_device_says_what_it_has_and_refuses(make, now):
    text = await described(Fleet(make), make("Device"), now)
    for said in ("2Gi usable of 4Gi", "orin (gpu, 0B shared)", "onnxruntime 1.20", "Online,Cordoned", "2 changes not yet taken over"):
        assert said in text
    assert "line-3/inspector ffffff000000: warming up" in text


async def test_a_rollout_says_how_it_went(make, now):
    text = await described(Fleet(make), make("Rollout"), now)
    for said in (
        "waves 1, 25%, 100%; observed for 30s",
        "1 done, 1 updating, 0 waiting, 1 failed, 1 unreached",
        "0.97",
        "120",
        "edge-2: the probe failed",
        "60s",
    ):
        assert said in text


async def test_a_secret_shows_its_keys_and_no_more(make, now):
    text = await described(Fleet(make), make("Secret"), now)
    assert "password" in text
    assert "data" not in text


async def test_a_version_says_its_variants_and_parameters(make, now):
    text = await described(Fleet(make), make("ArtifactVersion"), now)
    assert "4.0Mi" in text
    assert "threshold: number, default 0.5" in text


async def test_an_installation_that_is_tried_again_says_why_and_within_what_time(make, now):
    instance = make("Instance")
    status = msgspec.structs.replace(
        instance.status, update=UpdateState.FAILED, retry_seconds=300.0, reason="DiskFull", message="12 bytes are needed, 3 are free"
    )
    text = await described(Fleet(make), msgspec.structs.replace(instance, status=status), now)
    assert "Failed abcdef1, again within 5m" in text
    assert "DiskFull: 12 bytes are needed, 3 are free" in text


@pytest.mark.parametrize(
    ("traffic", "said"),
    [
        (None, "<none>"),
        (Traffic(), "revision r2 waits, warm"),
        (Traffic(mode="shadow", share=0.125), "revision r2 sees copies of 12.5 % of the requests"),
        (Traffic(mode="split", share=0.5, sticky="x-session"), "revision r2 answers 50 % of the requests, by x-session"),
    ],
)
async def test_an_instance_says_which_traffic_is_in_force(make, now, traffic, said):
    instance = make("Instance")
    status = msgspec.structs.replace(instance.status, update_revision="r2", traffic=traffic)
    text = await described(Fleet(make), msgspec.structs.replace(instance, status=status), now)
    assert [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("Traffic:")] == [said]
