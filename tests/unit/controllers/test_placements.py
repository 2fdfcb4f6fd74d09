"""Placement per changed device equals placement of everything; nothing moves without cause; reasons in words."""

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewise.controllers import reconcile
from edgewise.controllers.placements import explain
from edgewise.controllers.view import FleetView
from edgewise.controllers.workloads import resolve_spec
from edgewise.resources.device import Capacity
from edgewise.resources.selector import Requirement, Selector
from edgewise.resources.workload import Peripheral, Resources
from edgewise.store.contract import Delete, Put
from edgewise.wire.report import DeviceReport

GIB = 2**30


def instance_writes(view, now):
    decision = reconcile.handle(reconcile.Changed(), view, now)
    return [
        write
        for transaction in decision.transactions
        for write in transaction.writes
        if write.key.kind == "Instance" and isinstance(write, Put | Delete)
    ]


def fresh(fleet):
    view = FleetView(1, fleet.now)
    view.load(fleet.store.documents.values())
    view.loaded(fleet.store.revision)
    return view


SELECTORS = (
    None,
    Selector(match_labels={"camera": "yes"}),
    Selector(match_expressions=(Requirement(key="capacity.memory", operator="Ge", values=("2Gi",)),)),
    Selector(match_expressions=(Requirement(key="site", operator="In", values=("s0", "s1")),)),
)


SELECTED = st.sampled_from(SELECTORS)


def draw_capacity(data):
    memory = data.draw(st.sampled_from([1, 2, 4]))
    peripherals = ("camera",) if data.draw(st.booleans()) else ()
    return Capacity(cpu_milli=2000, memory=memory * GIB, disk=8 * GIB, architecture="x86_64", peripherals=peripherals)


def change(fleet, data, number):
    kinds = ["join", "labels", "capacity", "cordon", "site", "workload", "decommission"]
    kind = data.draw(st.sampled_from(kinds if fleet.devices else ["join", "workload"]))
    if kind == "join":
        labels = {"camera": "yes"} if data.draw(st.booleans()) else {}
        fleet.join(f"n{number}", site=f"s{data.draw(st.integers(0, 2))}", labels=labels, capacity=draw_capacity(data))
    elif kind == "workload":
        fields = {
            "replicas": data.draw(st.sampled_from([None, 0, 1, 2, 3])),
            "selector": data.draw(st.sampled_from(SELECTORS)),
            "resources": Resources(memory=data.draw(st.sampled_from([None, "512Mi", "1Gi"])), cpu="600m"),
            "peripherals": data.draw(st.sampled_from([(), (Peripheral(name="camera", access="exclusive"),)])),
            "waves": ("100%",),
            "observe": "0s",
        }
        fleet.apply("1", name=data.draw(st.sampled_from(["w0", "w1", "w2"])), **fields)
    else:
        name = data.draw(st.sampled_from(sorted(fleet.devices)))
        device = fleet.get("Device", name, "")
        if kind == "capacity":
            fleet.devices[name].online and fleet.devices[name].report("status", DeviceReport(device=name, capacity=draw_capacity(data)))
        elif kind == "labels":
            labels = {} if device.metadata.labels else {"camera": "yes"}
            fleet.put(msgspec.structs.replace(device, metadata=msgspec.structs.replace(device.metadata, labels=labels)))
        else:
            spec = {
                "cordon": msgspec.structs.replace(device.spec, unschedulable=not device.spec.unschedulable),
                "site": msgspec.structs.replace(device.spec, site=f"s{data.draw(st.integers(0, 2))}"),
                "decommission": msgspec.structs.replace(device.spec, decommission=True),
            }[kind]
            fleet.put(msgspec.structs.replace(device, spec=spec))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_incremental_equals_full(make, data):
    fleet = make.Fleet()
    fleet.publish("1")
    for number in range(4):
        fleet.join(f"d{number}", site=f"s{number % 3}", labels={"camera": "yes"} if number % 2 else {}, capacity=draw_capacity(data))
    fleet.apply("1", name="w0", waves=("100%",), observe="0s", resources=Resources(memory="512Mi"))
    fleet.apply("1", name="w1", waves=("100%",), observe="0s", replicas=data.draw(st.integers(1, 6)), selector=data.draw(SELECTED))
    fleet.run(2)
    for number in range(data.draw(st.integers(1, 8))):
        change(fleet, data, number)
        for _ in range(20):
            # Decision by decision, so that every state in between is compared too. The full plan may be ahead: it uses at once the room
            # that another workload leaves in the same plan.
            expected = instance_writes(fresh(fleet), fleet.now)
            decision = reconcile.handle(reconcile.Changed(), fleet.view, fleet.now)
            got = [w for t in decision.transactions for w in t.writes if w.key.kind == "Instance" and isinstance(w, Put | Delete)]
            assert [write for write in expected if write in got] == got
            assert got or not expected or decision.transactions
            if not decision.transactions:
                break
            for transaction in decision.transactions:
                fleet.write(transaction)
        fleet.run(1)
        assert instance_writes(fresh(fleet), fleet.now) == []
    check(fleet)


def check(fleet):
    """What is placed fits, is wanted, and is not too much."""
    view = fleet.view
    for key, row in view.workloads.items():
        wanted = row.spec.placement.replicas
        running = {d: i for d, i in view.members[key].instances.items() if i.running} if key in view.members else {}
        if wanted is not None:
            assert len(running) <= wanted
        for device in running:
            assert device in view.devices
            assert not view.devices[device].facts.leaving


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_nothing_moves_without_cause(make, data):
    fleet = make.Fleet()
    fleet.publish("1")
    for number in range(6):
        fleet.join(f"d{number}", site=f"s{number % 3}", capacity=draw_capacity(data))
    fleet.apply("1", name="w0", replicas=3, waves=("100%",), observe="0s")
    fleet.until(lambda: fleet.state(1, "w0") == "Succeeded")
    before = {d: (i.metadata.uid, i.spec) for d, i in fleet.instances("w0").items()}
    for number in range(data.draw(st.integers(1, 5))):
        fleet.join(f"better{number}", site="s9", capacity=Capacity(cpu_milli=64_000, memory=64 * GIB, disk=GIB))
        fleet.run(2)
    for device in before:
        fleet.devices[device].report("status", DeviceReport(device=device, capacity=draw_capacity(data)))
    fleet.run(2)
    assert {d: (i.metadata.uid, i.spec) for d, i in fleet.instances("w0").items()} == before


def reasons(fleet, **fields):
    fleet.apply("1", **fields)
    spec = fleet.get("Workload", "app").spec
    return {row.device: row for row in explain(fleet.view, "shop", "app", spec, resolve_spec(fleet.view, "shop", spec))}


def test_explain_says_why_in_numbers(fleet, make):
    fleet.publish("1", variants=(make.variant("arm", architectures=("aarch64",)), make.variant("gpu", accelerator="gpu", memory="1Gi")))
    fleet.join("small", capacity=Capacity(architecture="x86_64", cpu_milli=1000, memory=GIB // 2, disk=GIB))
    fleet.join("pi", capacity=Capacity(architecture="aarch64", cpu_milli=1000, memory=GIB, disk=GIB))
    rows = reasons(fleet)
    assert rows["pi"].variant == "arm"
    assert rows["pi"].reason == ""
    assert "variant arm: architecture must be aarch64, is x86_64" in rows["small"].reason
    assert "variant gpu: accelerator gpu is not there" in rows["small"].reason
    rows = reasons(fleet, resources=Resources(memory="2Gi", cpu="500m"))
    assert "memory: needs 2 GiB, 1 GiB of 1 GiB is free" in rows["pi"].reason
    rows = reasons(fleet, selector=Selector(match_labels={"camera": "front"}))
    assert rows["pi"].reason == "camera must be front, is not set"
    rows = reasons(fleet, peripherals=(Peripheral(name="mic"),))
    assert "peripheral mic is not there" in rows["pi"].reason
    assert fleet.get("Workload", "app") is not None


def test_free_room_counts_what_runs(fleet):
    fleet.join("d0")
    fleet.publish("1")
    fleet.apply("1", name="big", resources=Resources(memory="3Gi"))
    fleet.run(10)
    rows = reasons(fleet, resources=Resources(memory="2Gi"))
    assert rows["d0"].reason == "variant any: memory: needs 2 GiB, 1 GiB of 4 GiB is free"
    fleet.run(5)
    assert fleet.instances("app") == {}
    document = fleet.store.documents
    assert document
    fleet.delete("Workload", "shop", "big")
    fleet.run(10)
    assert fleet.versions("app") == {"d0": "1"}


def test_exclusive_peripherals(fleet):
    fleet.join("d0", capacity=Capacity(cpu_milli=4000, memory=GIB, disk=GIB, peripherals=("camera",)))
    fleet.publish("1")
    fleet.apply("1", name="reader", peripherals=(Peripheral(name="camera"),))
    fleet.run(10)
    fleet.apply("1", name="second", peripherals=(Peripheral(name="camera"),))
    fleet.run(10)
    assert fleet.versions("second") == {"d0": "1"}
    fleet.apply("1", name="owner", peripherals=(Peripheral(name="camera", access="exclusive"),))
    fleet.run(10)
    assert fleet.versions("owner") == {}


def test_too_few_devices_is_a_condition_and_heals(fleet):
    fleet.join("d0")
    fleet.publish("1")
    fleet.apply("1", replicas=2)
    fleet.run(10)
    condition = fleet.get("Workload", "app").status.conditions[0]
    assert (condition.status, condition.reason) == ("False", "TooFewDevices")
    assert "1 of 2" in condition.message
    fleet.join("d1")
    fleet.run(10)
    assert len(fleet.versions()) == 2
    assert fleet.get("Workload", "app").status.conditions[0].status == "True"


def test_what_the_spec_refers_to_must_be_there(fleet):
    fleet.join("d0")

    def condition(**fields):
        fleet.apply(**fields)
        fleet.run(3)
        return fleet.get("Workload", "app").status.conditions[0].reason

    assert condition(version="1") == "ArtifactNotFound"
    fleet.publish("1")
    fleet.run(3)
    assert fleet.versions() == {"d0": "1"}
    assert condition(version="1", parameters={"nope": 1}) == "InvalidParameters"
    assert condition(version="1", parameters={"level": 10}) == "InvalidParameters"
    assert condition(version="1", parameters={"level": "x"}) == "InvalidParameters"
    assert fleet.versions() == {"d0": "1"}
    assert condition(version="1", parameters={"level": 9}) in {"Ready", "NotReady"}
    fleet.run(30)
    assert fleet.state(2) == "Succeeded"


def test_configs_roll_out_and_stay_with_their_revision(fleet):
    from edgewise.controllers import gateway
    from edgewise.resources.config import Config, ConfigSpec, Secret, SecretSpec
    from edgewise.resources.meta import Metadata
    from edgewise.resources.workload import NameReference

    def config(value):
        fleet.put(Config(metadata=Metadata(name="c", namespace="shop"), spec=ConfigSpec(data={"level": value})))

    def secret(value):
        fleet.put(Secret(metadata=Metadata(name="s", namespace="shop"), spec=SecretSpec(encrypted=value, digest=f"sha256:{value * 8}")))

    def told(name):
        return gateway.decide_desired(name, None, fleet.view, fleet.seal).devices[0].instances[0]

    for number in range(4):
        fleet.join(f"d{number}")
    fleet.publish("1")
    config("1")
    secret("a")
    fleet.apply("1", config=NameReference(name="c"), secrets=(NameReference(name="s"),), observe="30s")
    fleet.until(lambda: fleet.state(1) == "Succeeded")
    assert told("d0").config == {"level": "1"}
    assert told("d0").secrets[0].sealed == b"Secret/s for d0"
    config("2")
    fleet.run(5)
    levels = sorted(told(name).config["level"] for name in fleet.devices)
    assert levels == ["1", "1", "1", "2"]
    secret("b")
    fleet.run(5)
    sealed = sorted(told(name).secrets[0].sealed.partition(b" ")[0] for name in fleet.devices)
    assert sealed == [b"Secret/s", *[b"SecretSnapshot/s.aaaaaaaa"] * 3]
    fleet.until(lambda: fleet.state(3) == "Succeeded")
    assert {told(name).config["level"] for name in fleet.devices} == {"2"}
    assert {told(name).secrets[0].sealed.partition(b" ")[0] for name in fleet.devices} == {b"Secret/s"}


def test_an_exclusive_copy_that_was_lost_is_told_to_stop_before_another_takes_its_place(fleet):
    fleet.publish("1")
    for name in ("d0", "d1", "d2"):
        fleet.join(name)
    fleet.apply("1", replicas=1, exclusive=True)
    fleet.run(5)
    (first,) = fleet.versions()
    fleet.devices[first].online = False
    fleet.until(lambda: len(fleet.versions()) == 1 and first not in fleet.versions(), seconds=200)
    (second,) = fleet.versions()
    assert fleet.instances()[first].spec.desired == "Stopped"
    fleet.devices[first].online = True
    fleet.devices[first].starts.clear()
    fleet.run(10)
    assert (list(fleet.instances()), fleet.devices[first].starts) == ([second], [])


def test_an_exclusive_copy_has_left_before_another_starts(fleet):
    fleet.publish("1")
    for name in ("d0", "d1"):
        fleet.join(name, labels={"camera": "yes"})
    selector = Selector(match_labels={"camera": "yes"})
    fleet.apply("1", replicas=1, selector=selector, exclusive=True)
    fleet.run(5)
    (first,) = fleet.versions()
    device = fleet.get("Device", first, "")
    fleet.put(msgspec.structs.replace(device, metadata=msgspec.structs.replace(device.metadata, labels={})))
    fleet.settle()
    assert {name: one.spec.desired for name, one in fleet.instances().items()} == {first: "Stopped"}
    fleet.run(5)
    assert list(fleet.versions()) == [({"d0", "d1"} - {first}).pop()]
