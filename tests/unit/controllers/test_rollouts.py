"""Rollouts over a whole fleet in memory: decisions, store rules and obedient devices."""

import msgspec
import pytest

from edgewise.resources.meta import Condition
from edgewise.resources.workload import AnalysisMetric
from edgewise.wire.report import DeviceReport

ACCURACY = AnalysisMetric(metric="accuracy", min=0.9, min_samples=100)


@pytest.fixture
def eight(fleet):
    """Eight devices of three classes at two sites on version 1."""
    for number in range(8):
        fleet.join(f"d{number}", site="north" if number % 2 else "south", device_class=("small", "large", "arm")[number % 3])
    for version in ("1", "2", "3"):
        fleet.publish(version)
    fleet.apply("1")
    fleet.until(lambda: fleet.state(1) == "Succeeded")
    return fleet


def test_first_rollout_reaches_every_device(eight):
    assert set(eight.versions().values()) == {"1"}
    assert len(eight.versions()) == 8
    status = eight.get("Workload", "app").status
    assert status.stable_revision == status.revision
    eight.run(3)
    assert (eight.get("Workload", "app").status.instances, eight.get("Workload", "app").status.ready) == (8, 8)
    assert eight.rollout(1).status.members.succeeded == 8
    assert eight.get("Workload", "app").status.conditions[0].status == "True"


def test_at_rest_nothing_is_decided(eight):
    eight.run(30)
    assert eight.settle() == 0


def test_upgrade_goes_in_waves(eight):
    eight.apply("2")
    eight.run()
    touched = [d for d, i in eight.instances().items() if i.spec.wave == 1 and i.spec.rollout == "app-2"]
    assert len(touched) == 1
    eight.run(4)
    assert len([i for i in eight.instances().values() if i.spec.rollout == "app-2"]) == 1
    eight.until(lambda: eight.rollout(2).status.wave == 2)
    eight.run()
    wave = [eight.view.devices[d].facts.device_class for d, i in eight.instances().items() if i.spec.rollout == "app-2"]
    assert len(wave) == 4
    assert {"small", "large", "arm"} == set(wave)
    eight.until(lambda: eight.state(2) == "Succeeded")
    assert set(eight.versions().values()) == {"2"}
    assert eight.rollout(2).status.touched == 8
    assert [len(d.starts) for d in eight.devices.values()] == [2] * 8


def test_failed_devices_over_budget_bring_all_back(eight):
    eight.bad.add("2")
    eight.apply("2")
    eight.until(lambda: eight.state(2) == "RolledBack")
    assert set(eight.versions().values()) == {"1"}
    rollout = eight.rollout(2)
    assert rollout.status.touched == 1
    assert len(rollout.status.failures) == 1
    assert "ProbeFailed" in next(iter(rollout.status.failures.values()))
    status = eight.get("Workload", "app").status
    assert status.rejected == (rollout.spec.to_revision,)
    eight.run(120)
    assert eight.state(3) is None
    assert {c.reason for c in eight.get("Workload", "app").status.conditions} == {"RevisionRejected"}


def test_over_budget_nobody_takes_the_place_of_a_member_out_of_reach(eight):
    """Members fail at the moment when one that went out of reach makes room for another one: first of all, no further device may fail."""
    for device in eight.devices.values():
        device.slow = True
    eight.apply("2", waves=(3, "100%"), budget="34%", deadline="10m")
    eight.run(2)
    first = sorted(name for name, one in eight.instances().items() if one.spec.rollout == "app-2")
    assert len(first) == 3
    eight.devices[first[0]].online = False
    eight.run(60)
    assert eight.rollout(2).status.members.unreached == 1
    eight.bad.add("2")
    for device in eight.devices.values():
        device.slow = False
    eight.until(lambda: eight.state(2) == "RolledBack")
    assert sorted(eight.rollout(2).status.touched_devices) == first


def test_a_failure_within_the_budget_is_borne(eight):
    eight.bad.add(("d3", "2"))
    eight.apply("2", budget="50%", waves=("50%", "100%"))
    eight.until(lambda: eight.state(2) == "Succeeded")
    versions = eight.versions()
    assert versions.pop("d3") == "1"
    assert set(versions.values()) == {"2"}


def test_failed_analysis_takes_the_canary_back(eight):
    eight.apply("2", analysis=(ACCURACY,), waves=(2, "100%"))
    eight.run(2)
    canaries = [d for d, i in eight.instances().items() if i.spec.rollout == "app-2"]
    assert len(canaries) == 2
    assert all(eight.instances()[d].spec.hold for d in canaries)
    for name in canaries:
        eight.devices[name].measure("shop/app", 0.5)
    eight.until(lambda: eight.state(2) == "RolledBack", seconds=20)
    rollout = eight.rollout(2)
    assert rollout.status.analysis.value == "Failed"
    assert "below" in rollout.status.message
    assert sorted(rollout.status.touched_devices) == sorted(canaries)
    assert set(eight.versions().values()) == {"1"}
    to = rollout.spec.to_revision
    for name, device in eight.devices.items():
        assert (("shop/app", to) in device.starts) == (name in canaries)
        assert (to in device.refused["shop/app"]) == (name in canaries)


def test_other_revisions_and_other_devices_do_not_sway_the_analysis(eight):
    eight.apply("2", analysis=(ACCURACY,), waves=(2, "100%"))
    eight.run(1)
    canaries = [d for d, i in eight.instances().items() if i.spec.rollout == "app-2"]
    others = [d for d in eight.devices if d not in canaries]
    for name in others:
        eight.devices[name].measure("shop/app", 0.1)
        eight.devices[name].measure("shop/app", 0.1, revision=eight.rollout(2).spec.to_revision)
    eight.devices[canaries[0]].measure("shop/app", 0.1, revision=eight.rollout(2).spec.from_revision)
    eight.devices[canaries[0]].measure("shop/app", 0.1, metric="other")
    for name in canaries:
        eight.devices[name].measure("shop/app", 0.99, count=60)
    eight.until(lambda: eight.rollout(2).status.wave == 2, seconds=30)
    eight.run()
    members = [d for d, i in eight.instances().items() if i.spec.rollout == "app-2"]
    assert len(members) == 8
    for name in members:
        eight.devices[name].measure("shop/app", 0.99)
    eight.until(lambda: eight.state(2) == "Succeeded", seconds=30)
    assert set(eight.versions().values()) == {"2"}


def test_canary_waits_in_probation_until_judged(eight):
    eight.apply("2", analysis=(ACCURACY,), waves=(1, "100%"))
    eight.run(10)
    canary = next(d for d, i in eight.instances().items() if i.spec.rollout == "app-2")
    assert eight.instances()[canary].status.update.value == "Probation"
    assert eight.rollout(2).status.wave == 1
    eight.devices[canary].measure("shop/app", 0.95, count=100)
    eight.until(lambda: eight.rollout(2).status.wave == 2, seconds=20)
    assert eight.versions()[canary] == "2"


def test_inconclusive_pauses_then_resume_or_promote(eight):
    metric = msgspec.structs.replace(ACCURACY, give_up_after="20s")
    eight.apply("2", analysis=(metric,), waves=(1, "100%"))
    eight.until(lambda: eight.state(2) == "Paused")
    assert eight.rollout(2).status.analysis.value == "Inconclusive"
    assert eight.rollout(2).spec.paused
    eight.run(100)
    assert eight.state(2) == "Paused"
    word(eight, 2, paused=False)
    eight.run(1)
    assert eight.state(2) == "Progressing"
    eight.until(lambda: eight.state(2) == "Paused")
    word(eight, 2, paused=False, promote=1)
    eight.run(3)
    assert eight.rollout(2).status.wave == 2
    assert eight.rollout(2).status.promoted == 1


def word(fleet, number, **fields):
    rollout = fleet.rollout(number)
    fleet.put(msgspec.structs.replace(rollout, spec=msgspec.structs.replace(rollout.spec, **fields)))


def test_abort_takes_back_and_does_not_come_back(eight):
    eight.apply("2", observe="1h")
    eight.run(5)
    word(eight, 2, abort=True)
    eight.until(lambda: eight.state(2) == "Aborted", seconds=10)
    assert set(eight.versions().values()) == {"1"}
    eight.run(60)
    assert eight.state(3) is None


def test_pause_stops_and_resume_goes_on(eight):
    eight.apply("2")
    eight.run(1)
    word(eight, 2, paused=True)
    eight.run(60)
    assert eight.state(2) == "Paused"
    assert len([i for i in eight.instances().values() if i.spec.rollout == "app-2"]) == 1
    word(eight, 2, paused=False)
    eight.until(lambda: eight.state(2) == "Succeeded")


def test_a_newer_spec_supersedes_mid_wave(eight):
    eight.apply("2")
    eight.run()
    eight.until(lambda: eight.rollout(2).status.wave == 2)
    eight.run(1)
    midway = {d for d, i in eight.instances().items() if i.spec.rollout == "app-2"}
    assert len(midway) == 4
    eight.apply("3")
    eight.run(1)
    assert eight.state(2) == "Superseded"
    first = {d for d, i in eight.instances().items() if i.spec.rollout == "app-3"}
    assert len(first) == 1
    assert first <= midway
    eight.until(lambda: eight.state(3) == "Succeeded")
    assert set(eight.versions().values()) == {"3"}
    untouched = [d for d in eight.devices.values() if d.name not in midway]
    assert all(len(d.starts) == 2 for d in untouched)


def test_rollback_after_supersession_goes_to_what_was_good(eight):
    eight.apply("2")
    eight.run()
    eight.until(lambda: eight.rollout(2).status.wave == 2)
    eight.bad.add("3")
    eight.apply("3")
    eight.until(lambda: eight.state(3) == "RolledBack")
    assert set(eight.versions().values()) == {"1"}


def test_back_to_the_stable_spec_mid_wave(eight):
    eight.apply("2")
    eight.run()
    eight.until(lambda: eight.rollout(2).status.wave == 2)
    eight.apply("1")
    eight.until(lambda: eight.state(3) == "Succeeded")
    assert set(eight.versions().values()) == {"1"}
    assert len(list(eight.all("WorkloadRevision"))) == 2


def test_older_template_reuses_its_revision(eight):
    first = eight.get("Workload", "app").status.revision
    eight.apply("2")
    eight.until(lambda: eight.state(2) == "Succeeded")
    eight.apply("1")
    eight.until(lambda: eight.state(3) == "Succeeded")
    assert eight.get("Workload", "app").status.revision == first
    assert len(eight.all("WorkloadRevision")) == 2


def test_offline_member_is_unreached_and_updated_on_return(eight):
    lost = eight.devices["d5"]
    lost.online = False
    eight.run(30)
    assert eight.get("Device", "d5", "").status.connection.value == "Offline"
    eight.apply("2")
    eight.until(lambda: eight.state(2) == "Succeeded")
    assert eight.rollout(2).status.members.unreached == 1
    assert eight.versions()["d5"] == "1"
    lost.online = True
    eight.run(3)
    assert eight.versions()["d5"] == "2"


def test_a_late_failure_counts(eight):
    lost = eight.devices["d5"]
    lost.online = False
    eight.run(30)
    eight.bad.add(("d5", "2"))
    eight.apply("2", waves=("100%",), observe="60s")
    eight.run()
    eight.until(lambda: eight.rollout(2).status.healthy_since is not None)
    assert eight.rollout(2).status.members.failed == 0
    lost.online = True
    eight.until(lambda: eight.state(2) == "RolledBack")
    assert set(eight.versions().values()) == {"1"}


def test_an_offline_canary_is_passed_over(eight):
    for name in ("d0", "d1", "d2", "d3"):
        eight.devices[name].online = False
    eight.run(30)
    eight.apply("2")
    eight.run(2)
    chosen = [d for d, i in eight.instances().items() if i.spec.rollout == "app-2"]
    assert len(chosen) == 1
    assert eight.devices[chosen[0]].online
    eight.until(lambda: eight.state(2) == "Succeeded")


def test_nobody_reachable_is_no_evidence(fleet):
    fleet.join("d0")
    for version in ("1", "2"):
        fleet.publish(version)
    fleet.apply("1")
    fleet.until(lambda: fleet.state(1) == "Succeeded")
    fleet.devices["d0"].online = False
    fleet.run(30)
    fleet.apply("2")
    fleet.run(50)
    assert fleet.state(2) == "Progressing"
    fleet.run(70)
    assert fleet.state(2) == "Paused"
    fleet.devices["d0"].online = True
    fleet.until(lambda: fleet.state(2) == "Succeeded")


def test_a_rollout_of_which_nothing_is_heard_pauses_by_itself_and_goes_on_by_itself(eight):
    for device in eight.devices.values():
        device.slow = True
    eight.apply("2", waves=("100%",), deadline="2m")
    eight.run(5)
    for device in eight.devices.values():
        device.online = False
    eight.run(115)
    assert eight.state(2) == "Progressing"
    eight.until(lambda: eight.state(2) == "Paused", seconds=60)
    assert "no device that has this revision can be reached (8)" in eight.rollout(2).status.message
    assert [event.type for event in eight.store.events if event.reason == "RolloutPaused"] == ["Warning"]
    eight.run(600, step=10)
    assert eight.state(2) == "Paused"
    for device in eight.devices.values():
        device.slow, device.online = False, device.name == "d3"
    eight.until(lambda: eight.state(2) == "Succeeded", seconds=60)
    assert eight.rollout(2).status.message == ""


def test_a_person_has_the_last_word_about_a_rollout_of_which_nothing_is_heard(fleet):
    fleet.join("d0")
    for version in ("1", "2"):
        fleet.publish(version)
    fleet.apply("1")
    fleet.until(lambda: fleet.state(1) == "Succeeded")
    fleet.devices["d0"].online = False
    fleet.run(30)
    fleet.apply("2", deadline="1m")
    fleet.until(lambda: fleet.state(2) == "Paused", seconds=180)
    assert "can be reached can take this revision" in fleet.rollout(2).status.message
    word(fleet, 2, paused=True)
    fleet.devices["d0"].online = True
    fleet.run(60)
    assert fleet.state(2) == "Paused"
    word(fleet, 2, paused=False)
    fleet.until(lambda: fleet.state(2) == "Succeeded", seconds=60)


def test_a_revision_that_takes_devices_off_the_network_does_not_walk_through_the_fleet(eight):
    for device in eight.devices.values():
        device.killed_by.add("2")
    eight.apply("2")
    eight.run(600, step=5)
    assert [device.online for device in eight.devices.values()].count(False) == 2
    assert eight.state(2) == "Paused"
    assert "no device that has this revision can be reached (2)" in eight.rollout(2).status.message


def test_deadline_of_a_reachable_device(eight):
    for device in eight.devices.values():
        device.stuck.add("2")
    eight.apply("2", deadline="30s")
    eight.run(20)
    assert eight.state(2) == "Progressing"
    eight.until(lambda: eight.state(2) == "RolledBack", seconds=60)
    assert "not healthy within 30s" in str(eight.rollout(2).status.failures)


def test_a_device_whose_disk_takes_nothing_over_fails_for_that_reason(eight):
    full = Condition(type="StorageFailed", status="True", reason="DiskFull", message="no room", since=1.0)
    for device in eight.devices.values():
        device.stuck.add("2")
        device.report("status", DeviceReport(device=device.name, conditions=(full,)))
    eight.apply("2", deadline="30s")
    eight.until(lambda: eight.state(2) == "RolledBack")
    assert set(eight.rollout(2).status.failures.values()) == {"not healthy within 30s: DiskFull: no room"}


def test_a_device_that_went_silent_while_its_poll_was_open_is_unreached_not_late(eight):
    """Whoever reads a broken connection learns nothing for minutes: an open poll is no sign of life."""
    for device in eight.devices.values():
        device.slow = True
    eight.apply("2", waves=("100%",), deadline="30s")
    eight.run(5)
    for device in eight.devices.values():
        device.dark = True
    eight.run(50)
    assert eight.state(2) == "Progressing"
    assert not eight.rollout(2).status.failures
    eight.run(10)
    assert {device.status.connection.value for device in eight.all("Device")} == {"Offline"}
    assert eight.rollout(2).status.members.unreached == 8
    for device in eight.devices.values():
        device.dark = device.slow = False
    eight.until(lambda: eight.state(2) == "Succeeded")


def test_a_device_that_is_heard_again_just_after_its_deadline_may_say_that_it_is_done(eight):
    for device in eight.devices.values():
        device.slow = True
    eight.apply("2", waves=("100%",), deadline="30s")
    eight.run(5)
    for device in eight.devices.values():
        device.dark = True
    eight.run(30)
    for device in eight.devices.values():
        device.dark = False
    eight.run(2)
    for device in eight.devices.values():
        device.slow = False
    eight.until(lambda: eight.state(2) == "Succeeded", seconds=30)


def test_whoever_polls_is_not_asked_for_a_sign_of_life_before_its_deadline(eight):
    for device in eight.devices.values():
        device.stuck.add("2")
    eight.apply("2", waves=("100%",), deadline="30s")
    eight.run(29)
    assert len(eight.polling) == 8
    eight.run(1)
    assert not eight.polling
    eight.until(lambda: eight.state(2) == "RolledBack", seconds=10)


def test_late_device_gets_the_revision_of_its_wave(eight):
    eight.apply("2", observe="20s")
    eight.run(3)
    eight.join("late")
    eight.run(2)
    assert eight.versions()["late"] == "1"
    eight.until(lambda: eight.rollout(2).status.wave == 3)
    eight.join("later")
    eight.run(2)
    assert eight.versions()["later"] == "2"
    eight.until(lambda: eight.state(2) == "Succeeded")
    eight.join("latest")
    eight.run(2)
    assert set(eight.versions().values()) == {"2"}
    assert len(eight.versions()) == 11


def test_no_instances_succeed_at_once(fleet):
    fleet.publish("1")
    fleet.apply("1", replicas=0)
    fleet.run()
    assert fleet.state(1) == "Succeeded"
    fleet.join("d0")
    fleet.apply("1", replicas=1)
    fleet.run(2)
    assert fleet.versions() == {"d0": "1"}


def test_failing_first_rollout_stops_where_it_failed(fleet):
    for number in range(4):
        fleet.join(f"d{number}")
    fleet.publish("1")
    fleet.bad.add(("d2", "1"))
    fleet.apply("1")
    fleet.until(lambda: fleet.state(1) == "RolledBack")
    fleet.run(2)
    assert fleet.versions() == {"d0": "1", "d1": "1", "d3": "1"}
    assert fleet.settle() == 0
    fleet.publish("2")
    fleet.apply("2")
    fleet.until(lambda: fleet.state(2) == "Succeeded")
    assert fleet.versions() == {f"d{n}": "2" for n in range(4)}


def test_a_device_that_cannot_take_the_new_version_stays(eight, make):
    eight.publish("9", variants=(make.variant("any", runtimes={"python": "3.12"}),))
    for name in list(eight.devices)[:6]:
        row = eight.get("Device", name, "")
        capacity = msgspec.structs.replace(make.CAPACITY, runtimes={"python": "3.12"})
        eight.devices[name].report("status", report_capacity(name, capacity))
        assert row is not None
    eight.apply("9")
    eight.until(lambda: eight.state(2) == "Succeeded")
    assert sorted(eight.versions().values()) == ["1", "1", *["9"] * 6]
    assert "2 devices cannot take" in eight.rollout(2).status.message
    name = next(d for d, v in eight.versions().items() if v == "1")
    eight.devices[name].report("status", report_capacity(name, msgspec.structs.replace(make.CAPACITY, runtimes={"python": "3.12"})))
    eight.run(2)
    assert eight.versions()[name] == "9"


def report_capacity(name, capacity):
    from edgewise.wire.report import DeviceReport

    return DeviceReport(device=name, capacity=capacity)


def test_restart_of_the_control_plane_writes_nothing(eight):
    eight.apply("2", observe="30s", analysis=(ACCURACY,), waves=(2, "100%"))
    eight.run(3)
    for device in eight.devices.values():
        device.measure("shop/app", 0.99, count=10)
    eight.run(3)
    before = eight.store.revision
    eight.start()
    assert eight.settle() == 0
    assert eight.store.revision == before
    eight.run(10)
    for device in eight.devices.values():
        device.measure("shop/app", 0.99, count=100)
    eight.until(lambda: eight.rollout(2).status.wave == 2)
    eight.run(5)
    for device in eight.devices.values():
        device.measure("shop/app", 0.99, count=100)
    eight.until(lambda: eight.state(2) == "Succeeded")
    assert [len(d.starts) for d in eight.devices.values()] == [2] * 8


def test_restart_at_every_step_converges(fleet):
    for number in range(4):
        fleet.join(f"d{number}")
    for version in ("1", "2"):
        fleet.publish(version)
    fleet.apply("1")
    for step in range(120):
        if step % 3 == 0:
            fleet.start()
        if step == 20:
            fleet.apply("2")
        fleet.run(1)
    assert fleet.state(2) == "Succeeded"
    assert set(fleet.versions().values()) == {"2"}
    assert [len(d.starts) for d in fleet.devices.values()] == [2] * 4


def test_history_is_bounded(fleet):
    fleet.join("d0")
    for version in range(1, 20):
        fleet.publish(str(version))
        fleet.apply(str(version), observe="0s", waves=("100%",))
        fleet.until(lambda version=version: fleet.state(version) == "Succeeded")
    fleet.run(3)
    limits = fleet.view.limits.controllers
    assert len(fleet.all("Rollout")) == limits.rollouts_kept
    assert fleet.state(19) == "Succeeded"
    assert len(fleet.all("WorkloadRevision")) <= limits.revisions_kept + limits.rollouts_kept + 2


def test_large_waves_are_written_in_bounded_transactions(fleet):
    for number in range(60):
        fleet.join(f"d{number:02}")
    fleet.view.limits = msgspec.structs.replace(
        fleet.view.limits,
        controllers=msgspec.structs.replace(fleet.view.limits.controllers, transaction_writes_max=7, decision_writes_max=20),
    )
    fleet.publish("1")
    fleet.apply("1")
    fleet.until(lambda: fleet.state(1) == "Succeeded")
    assert len(fleet.versions()) == 60
    assert fleet.largest <= 7


def test_the_time_while_the_control_plane_was_away_fails_no_update(fleet):
    for name in ("a", "b", "c"):
        fleet.join(name)
    fleet.publish("1")
    fleet.publish("2")
    fleet.apply("1")
    fleet.run(60)
    for device in fleet.devices.values():
        device.slow = True
    fleet.apply("2", waves=("100%",), deadline="60s")
    fleet.run(10)
    fleet.now += 3_600
    fleet.start()
    fleet.run(50)
    assert fleet.state(2) == "Progressing"
    fleet.run(15)
    assert fleet.state(2) in {"RollingBack", "RolledBack"}  # from the start on its time counts as ever
