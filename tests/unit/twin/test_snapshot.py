"""A running fleet as a twin: what is taken over, and what must never be."""

import itertools
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.resources.artifact import Artifact, ArtifactSpec
from edgewise.resources.device import Accelerator, Capacity, Device, DeviceHistory, DeviceSpec, DeviceStatus
from edgewise.resources.instance import Instance, InstanceSpec, InstanceStatus
from edgewise.resources.meta import Condition, Metadata
from edgewise.resources.rollout import MemberCounts, Rollout, RolloutSpec, RolloutStatus
from edgewise.resources.site import Link, Site, SiteSpec
from edgewise.resources.states import Connection, RolloutState
from edgewise.resources.workload import (
    ArtifactReference,
    EveryMatchingDevice,
    NameReference,
    Placement,
    Template,
    Workload,
    WorkloadRevision,
    WorkloadRevisionSpec,
    WorkloadSpec,
    WorkloadStatus,
)
from edgewise.twin.fleet import History, LinkQuality, Running, TakenBack, TwinFleet
from edgewise.twin.generate import load_fleet
from edgewise.twin.snapshot import LIMITS, Seen, snapshot
from edgewise.twin.versions import made_version

NOW = 1_900_000_000.0
DAY = 86_400.0
SMALL = Capacity(architecture="aarch64", cpu_milli=4000, memory=2**30, disk=2**33, runtimes={"python": "3.11"})
BIG = Capacity(architecture="x86_64", cpu_milli=8000, memory=2**34, disk=2**38)


def device(name, sort="box", site="north", capacity=SMALL, labels=None, history=None, connection=Connection.ONLINE, **spec):
    status = DeviceStatus(
        connection=connection, capacity=capacity, history=history or DeviceHistory(), last_seen=NOW - 60, agent_version="1", boot_id="boot"
    )
    return Device(
        metadata=Metadata(name=name, labels=labels or {}),
        spec=DeviceSpec(agent=name, site=site, device_class=sort, **spec),
        status=status,
    )


def template(version, **more):
    return Template(artifact="model", version=version, manifest_digest="sha256:" + "0" * 64, **more)


def revision(version, number, workload="app", **more):
    spec = WorkloadRevisionSpec(workload=workload, hash=f"hash{number}", number=number, template=template(version, **more))
    return WorkloadRevision(metadata=Metadata(name=f"{workload}-hash{number}", namespace="shop"), spec=spec)


def workload(version="2", status=None, **spec):
    made = WorkloadSpec(
        artifact=ArtifactReference(name="model", version=version), placement=Placement(every_matching_device=EveryMatchingDevice()), **spec
    )
    return Workload(metadata=Metadata(name="app", namespace="shop"), spec=made, status=status or WorkloadStatus())


def instance(name, **status):
    return Instance(
        metadata=Metadata(name=f"app.{name}", namespace="shop"),
        spec=InstanceSpec(workload="app", device=name, revision="hash2", variant="cpu"),
        status=InstanceStatus(**status),
    )


def rollout(number, to, state=RolloutState.SUCCEEDED, touched=0, failed=0, failures=None):
    return Rollout(
        metadata=Metadata(name=f"app-{number}", namespace="shop"),
        spec=RolloutSpec(workload="app", to_revision=to),
        status=RolloutStatus(state=state, touched=touched, members=MemberCounts(failed=failed), failures=failures or {}),
    )


def published(version, created=0.0, artifact="model"):
    made = made_version("shop", artifact, version)
    return msgspec.structs.replace(made, metadata=msgspec.structs.replace(made.metadata, created_at=created))


def one(fleet, name):
    return next(each for each in fleet.devices if each.name == name)


# ---- devices, classes, sites ----


def test_devices_of_equal_class_and_capacity_share_a_class_and_others_override():
    fleet = snapshot(Seen(devices=(device("a"), device("b"), device("c", capacity=BIG), device("d", sort="pc", capacity=BIG))), NOW)
    assert [(each.name, each.capacity, each.weight) for each in fleet.classes] == [("box", SMALL, 3.0), ("pc", BIG, 1.0)]
    assert [(each.name, each.device_class, each.capacity) for each in fleet.devices] == [
        ("a", "box", None),
        ("b", "box", None),
        ("c", "box", BIG),
        ("d", "pc", None),
    ]


@pytest.mark.parametrize(
    ("declared", "name"),
    [("box", "box"), ("", "no-class"), ("Camera Box", "camera-box"), ("***", "no-class"), ("Jetson/Orin (8 GB)", "jetson-orin--8-gb")],
)
def test_a_class_becomes_a_name(declared, name):
    assert snapshot(Seen(devices=(device("a", sort=declared),)), NOW).devices[0].device_class == name


@given(st.text(max_size=150))
def test_every_declared_class_becomes_a_name(declared):
    fleet = snapshot(Seen(devices=(device("a", sort=declared),)), NOW)
    assert msgspec.json.decode(msgspec.json.encode(fleet), type=TwinFleet) == fleet


def test_what_order_devices_name_their_things_in_makes_no_difference():
    pieces = (Accelerator(name="a", kind="gpu"), Accelerator(name="b", kind="npu"))
    ways = [
        Capacity(accelerators=pieces[::way], peripherals=("x", "y")[::way], runtimes=dict([("p", "1"), ("q", "2")][::way]))
        for way in (1, -1)
    ]
    fleet = snapshot(Seen(devices=tuple(device(f"d{way}", capacity=each) for way, each in enumerate(ways))), NOW)
    assert [each.capacity for each in fleet.devices] == [None, None]


def test_sites_bring_their_links():
    link = Link(bandwidth="2M", metered=True)
    sites = (
        Site(metadata=Metadata(name="north"), spec=SiteSpec(link=link, failover_domain="plant")),
        Site(metadata=Metadata(name="empty")),
    )
    fleet = snapshot(Seen(sites=sites, devices=(device("a"), device("b", site="lost"), device("c", site=""))), NOW)
    assert [(each.name, each.link, each.failover_domain) for each in fleet.sites] == [
        ("no-site", LinkQuality(), ""),
        ("lost", LinkQuality(), ""),
        ("north", LinkQuality(bandwidth=2_000_000.0, metered=True), "plant"),
    ]
    assert one(fleet, "c").site == "no-site"


def test_labels_and_cordons_are_kept_and_who_leaves_is_left_out():
    devices = (device("a", labels={"line": "3"}, unschedulable=True), device("b", decommission=True))
    fleet = snapshot(Seen(devices=devices), NOW)
    assert [(each.name, each.labels, each.unschedulable) for each in fleet.devices] == [("a", {"line": "3"}, True)]


# ---- history ----


@pytest.mark.parametrize(
    ("history", "connection", "expected"),
    [
        (DeviceHistory(), Connection.ONLINE, History()),
        (DeviceHistory(since=NOW - 10 * DAY), Connection.ONLINE, History()),
        (
            DeviceHistory(since=NOW - 10 * DAY, outages=5, offline_seconds=600.0, restarts=2),
            Connection.ONLINE,
            History(outages_per_day=0.5, outage_seconds=120.0, restarts_per_day=0.2),
        ),
        # The one that lasts is counted, its length is not known yet.
        (
            DeviceHistory(since=NOW - 10 * DAY, outages=5, offline_seconds=600.0),
            Connection.OFFLINE,
            History(outages_per_day=0.5, outage_seconds=150.0, offline=True),
        ),
        (DeviceHistory(since=NOW - 2 * DAY, outages=1), Connection.OFFLINE, History(outages_per_day=0.5, offline=True)),
        # Seen for an hour only: an outage in it is one a day.
        (
            DeviceHistory(since=NOW - 3600, outages=1, offline_seconds=60.0),
            Connection.ONLINE,
            History(outages_per_day=1.0, outage_seconds=60.0),
        ),
        # After a restart of the control plane nobody is called Offline who was not.
        (DeviceHistory(since=NOW - DAY), Connection.AWAITING_RECONNECT, History()),
    ],
)
def test_the_past_becomes_rates(history, connection, expected):
    fleet = snapshot(Seen(devices=(device("a", history=history, connection=connection),)), NOW)
    assert fleet.devices[0].history == expected


def failures(*rollouts, refused=()):
    seen = Seen(
        devices=tuple(device(f"d{number}") for number in range(4)),
        workloads=(workload(),),
        revisions=(revision("1", 1), revision("2", 2)),
        instances=tuple(instance(f"d{number}", refused=tuple(refused) if number == 0 else ()) for number in range(4)),
        rollouts=rollouts,
    )
    return [each.history.update_failures for each in snapshot(seen, NOW).devices]


def test_who_failed_where_others_did_well_fails_more_often():
    shares = failures(rollout(1, "hash1", touched=4), rollout(2, "hash2", touched=4, failed=1, failures={"d0": "crashed"}))
    assert shares[0] == round((1 + 4 / 8) / 6, 4)
    assert shares[1:] == [round((4 / 8) / 6, 4)] * 3


def test_a_version_that_was_bad_everywhere_says_nothing_of_devices():
    bad = rollout(2, "hash2", RolloutState.ROLLED_BACK, touched=4, failed=4, failures={f"d{number}": "x" for number in range(4)})
    assert failures(rollout(1, "hash1", touched=4), bad, refused=("hash2",)) == [0.0] * 4


def test_a_refusal_counts_once_and_only_where_the_version_was_good():
    named = rollout(1, "hash1", touched=4, failed=1, failures={"d0": "crashed"})
    silent = rollout(1, "hash1", touched=4, failed=1)
    assert failures(named, refused=("hash1",)) == failures(named) == failures(silent, refused=("hash1", "gone"))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(RolloutState)), st.integers(0, 4), st.integers(0, 9), st.sets(st.sampled_from(["d0", "d1", "gone"]))
        ),
        max_size=8,
    )
)
def test_a_share_is_a_share(rollouts):
    made = [
        rollout(number, f"hash{number}", state, touched, failed, dict.fromkeys(sorted(names), "x"))
        for number, (state, touched, failed, names) in enumerate(rollouts)
    ]
    assert all(0 <= share <= 1 for share in failures(*made))


# ---- what runs ----


def test_what_runs_is_told_by_version():
    seen = Seen(
        devices=(device("a"), device("b")),
        workloads=(workload(),),
        revisions=(revision("1", 1), revision("2", 2), revision("2", 3), revision("3", 4)),
        instances=(
            instance("a", revision="hash2", committed="hash2", previous="hash1", refused=("hash3", "hash4", "unknown")),
            instance("b"),
            instance("gone", revision="hash1"),
        ),
    )
    fleet = snapshot(seen, NOW)
    # Of version 2 it refuses one revision and runs another: version 2 as such is not refused.
    assert one(fleet, "a").instances == (Running(workload="shop/app", version="2", committed="2", previous="1", refused=("3",)),)
    assert one(fleet, "b").instances == (Running(workload="shop/app"),)


def test_what_was_taken_back_is_told_as_it_would_run():
    status = WorkloadStatus(revision="hash1", stable_revision="hash1", rejected=("hash2", "hash3", "gone"))
    revisions = (
        revision("1", 1),
        revision("2", 2),
        revision("2", 3, parameters={"rate": 4}, config="tuning", config_digest="secret", secrets=("key",)),
    )
    fleet = snapshot(Seen(workloads=(workload(status=status),), revisions=revisions), NOW)
    assert fleet.taken_back == (
        TakenBack(workload="shop/app", artifact="model", version="2"),
        TakenBack(workload="shop/app", artifact="model", version="2", parameters={"rate": 4}, config="tuning"),
    )


def test_a_snapshot_from_before_there_was_such_a_list_loads(tmp_path):
    told = msgspec.json.decode(msgspec.json.encode(snapshot(Seen(devices=(device("a"),)), NOW)))
    assert "takenBack" not in told
    (tmp_path / "fleet.json").write_bytes(msgspec.json.encode(told))
    assert load_fleet(tmp_path / "fleet.json").taken_back == ()


def test_instances_of_a_workload_that_is_gone_are_left_out():
    gone = msgspec.structs.replace(workload(), metadata=Metadata(name="app", namespace="shop", deleted_at=NOW))
    fleet = snapshot(Seen(devices=(device("a"),), workloads=(gone,), instances=(instance("a"),)), NOW)
    assert (fleet.workloads, one(fleet, "a").instances) == ((), ())


@pytest.mark.parametrize(("stable", "version"), [("hash2", "2"), ("hash1", "1"), ("", "2"), ("forgotten", "2")])
def test_a_workload_under_way_is_taken_as_it_was_last_good(stable, version):
    status = WorkloadStatus(revision="hash2", stable_revision=stable)
    seen = Seen(
        devices=(device("a"),),
        workloads=(workload("2", status, parameters={"threshold": 2}),),
        revisions=(
            revision("1", 1, parameters={"threshold": 1}, config="old", secrets=("key",)),
            revision("2", 2, parameters={"threshold": 2}),
        ),
    )
    (taken,) = snapshot(seen, NOW).workloads
    assert taken.spec.artifact == ArtifactReference(name="model", version=version)
    assert taken.spec.parameters == {"threshold": int(version)}
    assert taken.spec.config == (NameReference(name="old") if version == "1" else None)
    assert taken.status == WorkloadStatus()


def test_versions_that_run_have_an_alias_or_are_asked_for_are_kept_beside_the_newest():
    versions = tuple(published(str(number), created=float(number)) for number in range(20))
    artifact = Artifact(metadata=Metadata(name="model", namespace="shop"), spec=ArtifactSpec(aliases={"champion": "2"}))
    seen = Seen(
        devices=(device("a"),),
        workloads=(workload("1"),),
        revisions=(revision("0", 2), revision("5", 5)),
        instances=(instance("a", revision="hash2", previous="hash5"),),
        artifacts=(artifact,),
        versions=versions,
        wanted=frozenset({"shop/model:4", "other/model:3"}),
    )
    kept = [each.spec.manifest.version for each in snapshot(seen, NOW).versions]
    assert kept == ["0", "1", "2", "4", "5", *map(str, range(20 - LIMITS.versions_per_artifact, 20))]


def test_of_configs_and_secrets_there_are_names():
    spec = {"config": NameReference(name="settings"), "secrets": (NameReference(name="rtsp"),)}
    fleet = snapshot(Seen(devices=(device("a"),), workloads=(workload(**spec),), secret_names=("shop/other",)), NOW)
    assert fleet.configs == ()
    assert fleet.secret_names == ("shop/other", "shop/rtsp")


# ---- as a whole ----


def planted():
    """Return a fleet that holds a word wherever people or programs could have put something secret, and the words."""
    words = (f"planted{number}" for number in itertools.count())
    meta = {
        "annotations": {next(words): next(words)},
        "uid": next(words),
    }

    def secretive(resource):
        return msgspec.structs.replace(resource, metadata=msgspec.structs.replace(resource.metadata, **meta))

    condition = Condition(type=next(words), status="True", reason=next(words), message=next(words))
    status = DeviceStatus(
        connection=Connection.ONLINE,
        capacity=msgspec.structs.replace(SMALL, network={next(words): next(words)}),
        agent_version=next(words),
        boot_id=next(words),
        conditions=(condition,),
    )
    camera = Device(metadata=Metadata(name="a"), spec=DeviceSpec(agent=next(words), site="north", device_class="box"), status=status)
    running = instance(
        "a", revision="hash2", address=next(words), message=next(words), reason=next(words), slot=next(words), refused=(next(words),)
    )
    under_way = WorkloadStatus(conditions=(condition,), rejected=(next(words),), revision=next(words))
    moved = msgspec.structs.replace(rollout(1, "hash2", touched=1), status=RolloutStatus(message=next(words), failures={"a": next(words)}))
    artifact = Artifact(metadata=Metadata(name="model", namespace="shop"), spec=ArtifactSpec(description=next(words)))
    digests = {"config_digest": next(words), "secret_digests": (next(words),)}
    seen = Seen(
        sites=(secretive(Site(metadata=Metadata(name="north"))),),
        devices=(secretive(camera),),
        instances=(secretive(running),),
        workloads=(secretive(workload(status=under_way, config=NameReference(name="settings"), secrets=(NameReference(name="rtsp"),))),),
        revisions=(secretive(revision("2", 2, **digests)),),
        rollouts=(secretive(moved),),
        artifacts=(secretive(artifact),),
        versions=(secretive(published("2")),),
    )
    count = int(next(words).removeprefix("planted"))
    return seen, [f"planted{number}" for number in range(count)]


def test_nothing_secret_comes_through():
    seen, words = planted()
    assert len(words) > 20
    given_in = msgspec.json.encode(seen)
    assert all(word.encode() in given_in for word in words)
    assert [word for word in words if word.encode() in msgspec.json.encode(snapshot(seen, NOW))] == []


def test_a_snapshot_is_a_fleet_that_loads(tmp_path):
    seen, _ = planted()
    fleet = snapshot(seen, NOW)
    path = tmp_path / "fleet.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(fleet), indent=1))
    assert load_fleet(path) == fleet
    assert fleet.taken_at == NOW


@given(st.randoms(use_true_random=False))
def test_the_order_of_what_was_seen_changes_nothing(shuffler: random.Random):
    seen = Seen(
        sites=tuple(Site(metadata=Metadata(name=f"s{number}")) for number in range(3)),
        devices=tuple(
            device(f"d{number}", sort=f"c{number % 2}", site=f"s{number % 3}", capacity=(SMALL, BIG)[number % 4 == 0])
            for number in range(9)
        ),
        instances=tuple(instance(f"d{number}", revision=f"hash{1 + number % 2}", refused=("hash4", "hash3")) for number in range(9)),
        workloads=(workload(),),
        revisions=tuple(revision(str(number), number) for number in range(1, 5)),
        rollouts=tuple(rollout(number, f"hash{number}", touched=9, failed=1, failures={f"d{number}": "x"}) for number in range(1, 5)),
        artifacts=(Artifact(metadata=Metadata(name="model", namespace="shop")),),
        versions=tuple(published(str(number), created=float(number % 2)) for number in range(1, 5)),
        secret_names=("shop/b", "shop/a"),
    )
    fields = {
        name: tuple(shuffler.sample(value, len(value)))
        for name in seen.__struct_fields__
        if isinstance(value := getattr(seen, name), tuple)
    }
    other = msgspec.structs.replace(seen, **fields)
    assert msgspec.json.encode(snapshot(other, NOW)) == msgspec.json.encode(snapshot(seen, NOW))
