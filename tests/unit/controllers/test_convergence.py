"""Whatever happens in whatever order, the fleet comes to rest where it should, and a restarted control plane has nothing to add."""

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewise.controllers import reconcile
from edgewise.controllers.view import FleetView
from edgewise.resources.states import RolloutState
from edgewise.resources.workload import AnalysisMetric

OVER = {RolloutState.SUCCEEDED, RolloutState.ROLLED_BACK, RolloutState.ABORTED, RolloutState.SUPERSEDED}
METRIC = AnalysisMetric(metric="accuracy", min=0.9, min_samples=10, give_up_after="30s")


def happen(fleet, data, step):
    kind = data.draw(st.sampled_from(["apply", "offline", "online", "bad", "restart", "word", "measure", "join", "scale", "time"]))
    name = data.draw(st.sampled_from(sorted(fleet.devices)))
    device = fleet.devices[name]
    if kind in {"apply", "scale"}:
        fleet.applied = {
            "version": data.draw(st.sampled_from("1234")) if kind == "apply" else fleet.applied["version"],
            "replicas": data.draw(st.sampled_from(fleet.replicas)),
            "analysis": data.draw(st.sampled_from([(), (METRIC,)])),
            "budget": data.draw(st.sampled_from(["0%", "40%"])),
        }
        fleet.apply(observe="3s", deadline="20s", lost_after="30s", **fleet.applied)
    elif kind == "offline":
        device.online = False
    elif kind == "online":
        device.online = True
    elif kind == "bad":
        fleet.bad ^= {(name, data.draw(st.sampled_from("234")))}
    elif kind == "restart":
        fleet.start()
        assert fleet.settle() == 0 or fleet.unsettled
    elif kind == "word":
        word(fleet, data)
    elif kind == "measure":
        measure(fleet, data.draw(st.sampled_from([0.5, 0.99])))
    elif kind == "join":
        fleet.join(f"n{step}", site=f"s{step % 3}")
    fleet.unsettled = fleet.unsettled or kind != "restart"
    seconds = data.draw(st.sampled_from([None, 0, 1, 5, 25, 45]))
    if seconds is not None:
        fleet.run(seconds)
        # What devices reported a moment ago is looked at a moment later.
        fleet.unsettled = seconds < 1


def word(fleet, data):
    active = fleet.view.active_rollout(("shop", "app"))
    if active is None:
        return
    rollout = fleet.rollout(active.number)
    change = data.draw(
        st.sampled_from([{"paused": True}, {"paused": False}, {"abort": True}, {"promote": rollout.spec.promote + 1, "paused": False}])
    )
    fleet.put(msgspec.structs.replace(rollout, spec=msgspec.structs.replace(rollout.spec, **change)))


def measure(fleet, value):
    for device in fleet.devices.values():
        if device.online and "shop/app" in device.status:
            device.measure("shop/app", value)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_the_fleet_comes_to_rest(make, data):
    fleet = make.Fleet()
    fleet.unsettled = True
    fleet.replicas = data.draw(st.sampled_from([[None], [0, 1, 2, 3]]))
    fleet.applied = {"version": "1", "replicas": fleet.replicas[-1]}
    for number in range(5):
        fleet.join(f"d{number}", site=f"s{number % 3}", device_class=("small", "large")[number % 2])
    for version in "1234":
        fleet.publish(version)
    fleet.apply(**fleet.applied)
    for step in range(data.draw(st.integers(1, 10))):
        happen(fleet, data, step)
    rest(fleet)
    at_rest(fleet)


def rest(fleet):
    for device in fleet.devices.values():
        device.online = True
    for _ in range(40):
        fleet.run(5)
        active = fleet.view.active_rollout(("shop", "app"))
        if active is not None and active.spec.paused:
            rollout = fleet.rollout(active.number)
            fleet.put(msgspec.structs.replace(rollout, spec=msgspec.structs.replace(rollout.spec, paused=False)))
        measure(fleet, 0.99)
    fleet.run(60)


def at_rest(fleet):
    assert all(rollout.status.state in OVER for rollout in fleet.all("Rollout")), fleet.summary()
    fresh = FleetView(1, fleet.now)
    fresh.load(fleet.store.documents.values())
    fresh.loaded(fleet.store.revision)
    assert reconcile.handle(reconcile.Changed(), fresh, fleet.now).transactions == ()
    assert fleet.settle() == 0
    workload = fleet.get("Workload", "app")
    stable, rejected = workload.status.stable_revision, workload.status.rejected
    running = {d: i for d, i in fleet.instances().items() if i.spec.desired == "Running"}
    replicas = fleet.applied["replicas"]
    if stable:
        assert len(running) == (len(fleet.devices) if replicas is None else min(replicas, len(fleet.devices)))
        assert {i.spec.revision for i in running.values()} <= {stable, *refused_by(fleet)}
        if workload.status.revision not in rejected:
            assert workload.status.revision == stable
    for device, instance in running.items():
        status = instance.status
        assert instance.spec.revision not in rejected or not stable
        assert not instance.spec.hold
        assert status.committed == instance.spec.revision or instance.spec.revision in status.refused, (device, instance)
    members = fleet.view.members["shop", "app"]
    assert members.running == len(running)
    assert members.ready == sum(i.status.ready for i in running.values())
    assert sum(members.sites.values()) == len(running)
    assert not members.lost
    assert not members.offline


def refused_by(fleet):
    """Revisions that some device refuses: it may keep what it has."""
    return {revision for i in fleet.instances().values() for revision in (i.spec.revision, i.status.committed) if i.status.refused}
