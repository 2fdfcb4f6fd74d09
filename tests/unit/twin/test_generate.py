"""Fleets that are made up or read: sensible, the same for the same seed, bounded, and wrong in words."""

from collections import Counter

import msgspec
import pytest

from edgewise.resources.errors import Invalid
from edgewise.resources.meta import Metadata
from edgewise.resources.workload import ArtifactReference, Placement, Workload, WorkloadSpec
from edgewise.twin.fleet import DeviceClass, TwinFleet
from edgewise.twin.generate import DEFAULT_CLASSES, LIMITS, is_made_up, load_classes, load_fleet, made_fleet
from edgewise.twin.library import UnknownScenario


def test_a_made_up_fleet_is_sound(tmp_path):
    fleet = made_fleet(1000, seed=1)
    assert is_made_up(fleet)
    assert len({device.name for device in fleet.devices}) == 1000
    assert Counter(device.site for device in fleet.devices) == {site.name: 25 for site in fleet.sites}
    path = tmp_path / "fleet.json"
    path.write_bytes(msgspec.json.encode(fleet))
    assert load_fleet(path) == fleet


def test_classes_come_by_their_weights():
    counts = Counter(device.device_class for device in made_fleet(5000, seed=3).devices)
    weights = {sort.name: sort.weight for sort in DEFAULT_CLASSES}
    for name, weight in weights.items():
        assert counts[name] / 5000 == pytest.approx(weight / sum(weights.values()), abs=0.03)


def test_a_class_without_weight_never_comes():
    classes = (DeviceClass(name="a", weight=0), DeviceClass(name="b", weight=2), DeviceClass(name="c", weight=0))
    assert {device.device_class for device in made_fleet(200, classes).devices} == {"b"}
    with pytest.raises(Invalid, match="no class has a weight"):
        made_fleet(3, classes[:1])


def test_a_device_is_the_same_in_a_bigger_fleet():
    assert [one.device_class for one in made_fleet(30, seed=5).devices] == [one.device_class for one in made_fleet(99, seed=5).devices[:30]]
    assert made_fleet(30, seed=5) != made_fleet(30, seed=6)


def test_default_classes_differ_where_it_matters():
    assert len({sort.name for sort in DEFAULT_CLASSES}) == 5
    assert [sort.name for sort in DEFAULT_CLASSES if sort.energy.battery_watt_hours] == ["solar-camera"]
    assert {sort.capacity.architecture for sort in DEFAULT_CLASSES} == {"aarch64", "x86_64"}
    for sort in DEFAULT_CLASSES:
        assert 0 < sort.capacity.memory < sort.capacity.memory_nominal
        assert sort.energy.idle_watts < sort.energy.busy_watts
    # A battery that does not live through a night without an update would make every rehearsal about nothing else.
    solar = DEFAULT_CLASSES[-1].energy
    assert solar.battery_watt_hours > 12 * (0.7 * solar.idle_watts + 0.3 * solar.busy_watts)


@pytest.mark.parametrize(("count", "sites"), [(1, 1), (2, 1), (3, 2), (8, 4), (9, 4), (100, 4), (101, 5)])
def test_sites_are_as_many_as_it_takes(count, sites):
    fleet = made_fleet(count)
    crowds = Counter(device.site for device in fleet.devices)
    assert len(crowds) == sites
    assert set(crowds) == {site.name for site in fleet.sites}
    assert max(crowds.values()) - min(crowds.values()) <= 1
    assert max(crowds.values()) <= LIMITS.devices_per_site


def test_the_size_is_bounded():
    tight = msgspec.structs.replace(LIMITS, devices_max=10)
    assert len(made_fleet(10, limits=tight).devices) == 10
    for count in (0, 11):
        with pytest.raises(Invalid, match=f"{count} devices; from 1 to 10"):
            made_fleet(count, limits=tight)


# ---- classes ----


def classes_in(tmp_path, text):
    path = tmp_path / "classes.yaml"
    path.write_text(text)
    return load_classes(path)


def test_classes_are_written_in_quantities(tmp_path):
    (camera,) = classes_in(
        tmp_path,
        """
classes:
  - name: camera
    architecture: x86_64
    cpu: 500m
    memory: 512Mi
    disk: 2Gi
    diskBytesPerSecond: 8M
    runtimes: {onnxruntime: "1.18"}
    accelerators: [{name: edge, kind: tpu, memory: 8Mi}]
    peripherals: [front-camera]
    speed: 0.5
    bootSeconds: 60
    energy: {idleWatts: 1, busyWatts: 3, batteryWattHours: 40, harvestWatts: 10}
    weight: 3
""",
    )
    capacity = camera.capacity
    assert (capacity.cpu_milli, capacity.memory, capacity.disk) == (500, 512 * 2**20, 2 * 2**30)
    assert (camera.disk_bytes_per_second, camera.boot_seconds, camera.weight, camera.energy.harvest_watts) == (8e6, 60, 3, 10)
    assert (capacity.accelerators[0].memory, capacity.peripherals, capacity.runtimes) == (
        8 * 2**20,
        ("front-camera",),
        {"onnxruntime": "1.18"},
    )
    assert {device.device_class for device in made_fleet(5, (camera,)).devices} == {"camera"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("classes: []", "needs at least 1 entry"),
        ("clases: []", "did you mean 'classes'?"),
        ("classes: [{name: a, memry: 4Gi}]", "did you mean 'memory'?"),
        ("classes: [{name: a, memory: 4GB}]", "such as 512Mi"),
        ("classes: [{name: a, memory: 0}]", "must be more than 0, is 0"),
        ("classes: [{name: a, cpu: -1}]", "must be more than 0, is -1"),
        ("classes: [{name: a}, {name: a}]", "'a' is there twice"),
        ("classes: [{name: a, weight: 0}]", "no class has a weight above 0"),
        ("classes: [{name: a, accelerators: [{name: x, memory: -1}]}]", "must be at least 0, is -1"),
        ("classes: [{name: A}]", "Lower-case letters"),
    ],
)
def test_wrong_classes_are_said(tmp_path, text, said):
    with pytest.raises(Invalid) as caught:
        classes_in(tmp_path, text)
    assert said in str(caught.value)
    assert "classes.yaml:1:" in str(caught.value)


# ---- fleets ----

SMALL = made_fleet(3)


def fleet_in(tmp_path, fleet, **limits):
    path = tmp_path / "fleet.json"
    path.write_bytes(fleet if isinstance(fleet, bytes) else msgspec.json.encode(fleet))
    return load_fleet(path, msgspec.structs.replace(LIMITS, **limits))


def changed(number, **fields):
    devices = list(SMALL.devices)
    devices[number] = msgspec.structs.replace(devices[number], **fields)
    return msgspec.structs.replace(SMALL, devices=tuple(devices))


WRONG_WORKLOAD = Workload(metadata=Metadata(name="w"), spec=WorkloadSpec(artifact=ArtifactReference(name="a"), placement=Placement()))


@pytest.mark.parametrize(
    ("fleet", "said"),
    [
        (changed(1, site="site-09"), "devices[1].site: 'site-09' is not among the fleet's sites (did you mean 'site-0"),
        (changed(1, device_class="raspberry-pi-6"), "did you mean 'raspberry-pi-"),
        (changed(1, name="device-01"), "devices[1].name: 'device-01' is there twice"),
        (changed(2, labels={"site": "x"}), "devices[2].labels.site: 'site' is built in"),
        (msgspec.structs.replace(SMALL, devices=()), "devices: must not be empty"),
        (msgspec.structs.replace(SMALL, sites=SMALL.sites * 2), "sites[2].name: 'site-01' is there twice"),
        (msgspec.structs.replace(SMALL, workloads=(WRONG_WORKLOAD,)), "workloads[0].spec.artifact: needs exactly one of"),
        (b'{"twinFleetVersion": 2, "sites": [], "classes": [], "devices": []}', "is 2, this edgewise reads 1 (take the snapshot again"),
        (b'{"sites": [], "clases": [], "devices": []}', "fleet.json:1:15: unknown field 'clases' (did you mean 'classes'?)"),
        (b"not json at all {", "fleet.json:1:"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_wrong_fleets_are_said(tmp_path, fleet, said):
    with pytest.raises(Invalid) as caught:
        fleet_in(tmp_path, fleet)
    assert said in str(caught.value)


def test_a_big_wrong_fleet_is_said_too(tmp_path):
    big = b'{"sites": 3, "classes": [], "devices": []}' + b" " * 4_000_001
    with pytest.raises(Invalid, match=r"sites: Expected `array`, got `int` \(write one with"):
        fleet_in(tmp_path, big)


def test_a_fleet_is_bounded(tmp_path):
    assert len(fleet_in(tmp_path, SMALL, devices_max=3).devices) == 3
    with pytest.raises(Invalid, match="3 entries, at most 2"):
        fleet_in(tmp_path, SMALL, devices_max=2)
    with pytest.raises(Invalid, match="2 entries, at most 0"):
        fleet_in(tmp_path, SMALL, sites_max=0)
    size = len(msgspec.json.encode(SMALL))
    assert fleet_in(tmp_path, SMALL, file_bytes_max=size) == SMALL
    with pytest.raises(UnknownScenario, match="larger than"):
        fleet_in(tmp_path, SMALL, file_bytes_max=size - 1)


def test_problems_are_bounded(tmp_path):
    fleet = TwinFleet(sites=SMALL.sites, classes=SMALL.classes, devices=SMALL.devices * 20)
    with pytest.raises(Invalid) as caught:
        fleet_in(tmp_path, fleet, problems_max=7)
    assert len(caught.value.problems) == 7
