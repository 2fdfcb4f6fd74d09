"""Shadow, A/B and blue-green over a fleet in memory."""

import msgspec
import pytest

from edgewise.controllers import reconcile
from edgewise.delivery.facts import Demand
from edgewise.resources.device import Capacity
from edgewise.resources.workload import AB, AnalysisMetric, BlueGreen, Canary, Resources, Shadow, Strategy

DISAGREEMENT = AnalysisMetric(metric="model.shadow.disagreement", max="2%", min_samples=100)
BETTER = AnalysisMetric(metric="model.accuracy", direction="higher", margin=0.05, min_samples=50)
SHADOW = Strategy(
    shadow=Shadow(devices="25%", share="50%", observe_for="20s"),
    canary=Canary(waves=(1, "50%", "100%"), observe_for="5s", device_deadline="60s"),
    analysis=(DISAGREEMENT,),
)
SPLIT = Strategy(ab=AB(devices=4, share="30%", sticky="x-session", give_up_after="5m", device_deadline="60s"), analysis=(BETTER,))
BLUE_GREEN = Strategy(blue_green=BlueGreen(observe_for="20s", device_deadline="60s"), probation="5s")


@pytest.fixture
def eight(fleet):
    """Eight devices of two classes, able to hold two revisions, on version 1 of a model."""
    for number in range(8):
        fleet.join(f"d{number}", device_class=("small", "large")[number % 2]).able("traffic")
    for version in ("1", "2", "3"):
        fleet.publish(version, kind="model")
    fleet.apply("1")
    fleet.until(lambda: fleet.state(1) == "Succeeded")
    return fleet


def beside(fleet, mode):
    """Which devices run version 2 beside what serves there."""
    found = fleet.instances().values()
    return sorted(i.spec.device for i in found if i.status.traffic is not None and i.status.traffic.mode == mode)


def hashes(fleet):
    return {r.spec.template.version: r.spec.hash for r in fleet.all("WorkloadRevision")}


def measure(fleet, device, version, value, metric, count=50):
    fleet.devices[device].measure("shop/app", value, metric, count, hashes(fleet)[version])


# ---- shadow ----


def test_a_shadow_that_agrees_becomes_a_canary(eight):
    eight.apply("2", strategy=SHADOW)
    eight.run(2)
    shadows = beside(eight, "shadow")
    assert len(shadows) == 2
    assert {eight.view.devices[d].facts.device_class for d in shadows} == {"small", "large"}
    assert {i.spec.traffic.share for i in eight.instances().values() if i.spec.traffic} == {0.5}
    assert set(eight.versions().values()) == {"1"}
    status = eight.rollout(2).status
    assert (status.phase, status.wave, status.waves, status.members.updating) == ("Shadow", 1, 4, 2)
    for device in shadows:
        measure(eight, device, "2", 0.0, "model.shadow.disagreement", 80)
    eight.run(10)
    assert eight.rollout(2).status.phase == "Shadow"
    eight.until(lambda: eight.rollout(2).status.wave == 2, seconds=30)
    eight.run()
    assert eight.rollout(2).status.phase == "Canary"
    assert beside(eight, "shadow") == []
    carrying = [d for d, i in eight.instances().items() if i.spec.revision == hashes(eight)["2"]]
    assert len(carrying) == 1
    assert carrying[0] in shadows
    eight.until(lambda: eight.state(2) == "Succeeded")
    assert set(eight.versions().values()) == {"2"}
    first = eight.rollout(2).status.stages[0]
    assert (first.phase, first.state, first.verdicts[0].metric) == ("Shadow", "Successful", "model.shadow.disagreement")
    assert first.verdicts[0].samples == 160


def test_a_shadow_that_disagrees_never_becomes_a_canary(eight):
    eight.apply("2", strategy=SHADOW)
    eight.run(2)
    shadows = beside(eight, "shadow")
    for device in shadows:
        measure(eight, device, "2", 0.3, "model.shadow.disagreement", 80)
    eight.until(lambda: eight.state(2) == "RolledBack")
    status = eight.rollout(2).status
    assert "never became a canary" in status.message
    assert "0.3 is above 0.02" in status.message
    assert set(eight.versions().values()) == {"1"}
    assert status.wave == 1
    assert sorted(status.touched_devices) == shadows
    assert [s.state for s in status.stages] == ["Failed"]
    assert eight.get("Workload", "app").status.rejected == (hashes(eight)["2"],)


def test_a_shadow_of_which_nothing_is_heard_is_inconclusive(eight):
    eight.apply("2", strategy=SHADOW)
    eight.until(lambda: eight.state(2) == "Paused", seconds=900, step=5)
    status = eight.rollout(2).status
    assert status.analysis == "Inconclusive"
    assert "0 of 100 samples" in status.message
    assert set(eight.versions().values()) == {"1"}


def test_a_shadow_is_refused_by_devices_that_cannot(fleet):
    for number, able in enumerate((True, False, True)):
        device = fleet.join(f"d{number}")
        if able:
            device.able("traffic")
    for version in ("1", "2"):
        fleet.publish(version, kind="model")
    fleet.apply("1")
    fleet.until(lambda: fleet.state(1) == "Succeeded")
    fleet.apply("2", strategy=msgspec.structs.replace(SHADOW, shadow=Shadow(devices="100%")))
    fleet.run(3)
    assert beside(fleet, "shadow") == ["d0", "d2"]
    assert fleet.rollout(2).status.left_out == {"d1": "its agent cannot run two revisions side by side: update it"}


def test_without_anybody_who_can_a_shadow_says_so_and_a_person_may_skip_it(fleet):
    fleet.join("d0")
    for version in ("1", "2"):
        fleet.publish(version)
    fleet.apply("1")
    fleet.until(lambda: fleet.state(1) == "Succeeded")
    fleet.devices["d0"].able("traffic")
    fleet.apply("2", strategy=SHADOW)
    fleet.until(lambda: fleet.state(2) == "Paused", seconds=120)
    assert "an artifact of type bundle has no requests" in fleet.rollout(2).status.message
    promote(fleet, 2)
    fleet.until(lambda: fleet.state(2) == "Succeeded")
    assert set(fleet.versions().values()) == {"2"}


def promote(fleet, number):
    rollout = fleet.rollout(number)
    fleet.put(msgspec.structs.replace(rollout, spec=msgspec.structs.replace(rollout.spec, promote=rollout.spec.promote + 1, paused=False)))


def test_a_shadow_that_crashes_counts_as_failed(eight):
    eight.bad.add("2")
    eight.apply("2", strategy=SHADOW)
    eight.until(lambda: eight.state(2) == "RolledBack")
    assert set(eight.versions().values()) == {"1"}
    assert eight.rollout(2).status.phase == "Shadow"


def test_a_superseded_shadow_is_taken_back(eight):
    eight.apply("2", strategy=SHADOW)
    eight.run(2)
    before = beside(eight, "shadow")
    assert len(before) == 2
    eight.apply("3", strategy=msgspec.structs.replace(SHADOW, shadow=Shadow(devices=1)))
    eight.run(3)
    assert eight.state(2) == "Superseded"
    assert len(beside(eight, "shadow")) == 1
    assert hashes(eight)["2"] not in {i.spec.revision for i in eight.instances().values()}


# ---- A/B ----


def feed(fleet, new, old, rounds=40, count=40):
    """Let both revisions report their accuracy on every device that has both, and the old one elsewhere."""
    for _ in range(rounds):
        if fleet.state(2) != "Progressing" or fleet.rollout(2).status.wave != 1:
            return
        for device in beside(fleet, "split"):
            measure(fleet, device, "2", new, "model.accuracy", count)
            measure(fleet, device, "1", old, "model.accuracy", count)
        fleet.run(2)


def test_an_ab_that_the_new_one_wins(eight):
    eight.apply("2", strategy=SPLIT)
    eight.run(2)
    both = beside(eight, "split")
    assert len(both) == 4
    assert {(i.spec.traffic.share, i.spec.traffic.sticky) for i in eight.instances().values() if i.spec.traffic} == {(0.3, "x-session")}
    feed(eight, 0.95, 0.7)
    eight.until(lambda: eight.state(2) == "Succeeded", seconds=60)
    status = eight.rollout(2).status
    assert status.winner == "new"
    assert "the new revision won" in status.message
    assert set(eight.versions().values()) == {"2"}
    assert status.stages[0].verdicts[0].finding == "better"


def test_an_ab_that_the_old_one_wins(eight):
    eight.apply("2", strategy=SPLIT)
    eight.run(2)
    feed(eight, 0.6, 0.9)
    eight.until(lambda: eight.state(2) == "RolledBack", seconds=60)
    status = eight.rollout(2).status
    assert (status.winner, status.analysis) == ("old", "Failed")
    assert status.message.startswith("the old revision won: model.accuracy")
    assert "points lower" in status.message
    assert set(eight.versions().values()) == {"1"}


@pytest.mark.parametrize(("what", "state", "runs"), [("keep", "RolledBack", "1"), ("promote", "Succeeded", "2")])
def test_an_ab_without_a_difference_says_so(eight, what, state, runs):
    strategy = msgspec.structs.replace(SPLIT, ab=msgspec.structs.replace(SPLIT.ab, on_no_difference=what))
    eight.apply("2", strategy=strategy)
    eight.run(2)
    feed(eight, 0.9, 0.9, rounds=60, count=200)
    eight.until(lambda: eight.state(2) == state, seconds=60)
    status = eight.rollout(2).status
    assert status.winner == "none"
    assert "no difference" in status.message
    assert set(eight.versions().values()) == {runs}


def test_an_ab_without_a_verdict_pauses(eight):
    eight.apply("2", strategy=SPLIT)
    eight.until(lambda: eight.state(2) == "Paused", seconds=400, step=5)
    status = eight.rollout(2).status
    assert (status.analysis, status.winner) == ("Inconclusive", "")
    assert len(beside(eight, "split")) == 4
    promote(eight, 2)
    eight.until(lambda: eight.state(2) == "Succeeded")
    assert eight.rollout(2).status.stages[0].message == "promoted by a person"


def test_a_changed_share_is_followed_without_a_new_rollout(eight):
    eight.apply("2", strategy=SPLIT)
    eight.run(2)
    both = beside(eight, "split")
    eight.apply("2", strategy=msgspec.structs.replace(SPLIT, ab=msgspec.structs.replace(SPLIT.ab, share="5%")))
    eight.run(2)
    assert beside(eight, "split") == both
    assert {i.status.traffic.share for i in eight.instances().values() if i.status.traffic} == {0.05}
    assert eight.rollout(3) is None
    assert eight.rollout(2).spec.strategy.ab.share == "5%"
    assert [e.message for e in eight.store.events if e.reason == "RolloutShare"] == [
        "app-2: the new revision gets 5% of the requests now (before: 30%)"
    ]
    assert all(len(device.starts) <= 2 for device in eight.devices.values())


def test_what_other_devices_report_is_no_part_of_an_ab(eight):
    eight.apply("2", strategy=SPLIT)
    eight.run(2)
    outside = next(d for d in eight.devices if d not in beside(eight, "split"))
    measure(eight, outside, "1", 0.1, "model.accuracy")
    measure(eight, outside, "2", 0.9, "model.accuracy")
    assert dict(eight.view.metrics["shop/app"].of()) == {} or not any(
        s.new.count or s.old.count for s in eight.view.metrics["shop/app"].of().values()
    )


# ---- blue-green ----


def test_blue_green_switches_all_at_once(eight):
    eight.devices["d5"].slow = True
    eight.apply("2", strategy=BLUE_GREEN)
    eight.run(10)
    assert len(beside(eight, "none")) == 7
    assert set(eight.versions().values()) == {"1"}
    eight.devices["d5"].slow = False
    eight.until(lambda: eight.rollout(2).status.wave == 2, seconds=30)
    eight.run()
    now = {i.status.revision for i in eight.instances().values()}
    assert now == {hashes(eight)["2"]}
    assert {i.status.committed for i in eight.instances().values()} == {hashes(eight)["1"]}
    eight.until(lambda: eight.state(2) == "Succeeded", seconds=60)
    assert set(eight.versions().values()) == {"2"}
    assert all(len(device.starts) == 2 for device in eight.devices.values())


def test_blue_green_waits_for_a_person(eight):
    strategy = msgspec.structs.replace(BLUE_GREEN, blue_green=msgspec.structs.replace(BLUE_GREEN.blue_green, auto_promote=False))
    eight.apply("2", strategy=strategy)
    eight.until(lambda: eight.state(2) == "Paused", seconds=60)
    assert "8 devices hold the new revision, warm: promote" in eight.rollout(2).status.message
    eight.run(100)
    assert len(beside(eight, "none")) == 8
    promote(eight, 2)
    eight.until(lambda: eight.state(2) == "Succeeded")
    assert set(eight.versions().values()) == {"2"}


def test_blue_green_goes_back_at_once_on_a_failed_analysis(eight):
    bound = AnalysisMetric(metric="model.accuracy", min=0.9, min_samples=50)
    eight.apply("2", strategy=msgspec.structs.replace(BLUE_GREEN, analysis=(bound,)))
    eight.run()
    eight.until(lambda: eight.rollout(2).status.wave == 2, seconds=60)
    eight.run(1)
    measure(eight, "d0", "2", 0.5, "model.accuracy", 100)
    eight.until(lambda: eight.state(2) == "RolledBack")
    assert set(eight.versions().values()) == {"1"}
    assert {i.status.revision for i in eight.instances().values()} == {hashes(eight)["1"]}


def test_blue_green_needs_room_for_both(fleet):
    small = Capacity(architecture="x86_64", cpu_milli=4000, memory=3 * 2**30, disk=32 * 2**30)
    fleet.join("big").able("traffic")
    fleet.join("tight", capacity=small).able("traffic")
    for version in ("1", "2"):
        fleet.publish(version, kind="model")
    fleet.apply("1", resources=Resources(memory="2Gi"))
    fleet.until(lambda: fleet.state(1) == "Succeeded")
    fleet.apply("2", strategy=BLUE_GREEN, resources=Resources(memory="2Gi"))
    fleet.run(3)
    assert beside(fleet, "none") == ["big"]
    left_out = fleet.rollout(2).status.left_out
    assert left_out["tight"].startswith("no room for both revisions")
    assert "memory: needs 2" in left_out["tight"]
    assert fleet.view.room("big").memory == 0
    fleet.until(lambda: fleet.state(2) == "Succeeded")
    assert set(fleet.versions().values()) == {"2"}
    assert fleet.view.taken(("shop", "app"), fleet.view.on_device["big"][("shop", "app")]) == (Demand(memory=2 * 2**30, disk=1000),)


# ---- evidence ----


def compared(fleet):
    fleet.apply("2", analysis=(BETTER,), waves=(1, "50%", "100%"))
    fleet.run(2)
    (canary,) = [d for d, i in fleet.instances().items() if i.spec.revision == hashes(fleet)["2"]]
    return canary


def test_a_canary_is_compared_with_devices_like_it(eight):
    canary = compared(eight)
    controls = eight.rollout(2).status.controls
    alike = [d for d in eight.devices if d != canary and int(d[1:]) % 2 == int(canary[1:]) % 2]
    assert list(controls) == alike
    for _ in range(2):
        measure(eight, canary, "2", 0.9, "model.accuracy")
        for device in eight.devices:
            if device != canary:
                measure(eight, device, "1", 0.9, "model.accuracy")
    sides = eight.view.metrics["shop/app"].of()["model.accuracy"]
    assert (sides.new.devices, sides.old.devices) == (1, 3)


def test_evidence_survives_a_restart(eight):
    canary = compared(eight)
    for _ in range(3):
        measure(eight, canary, "2", 0.9, "model.accuracy")
        for device in eight.rollout(2).status.controls:
            measure(eight, device, "1", 0.9, "model.accuracy")
        eight.run(12)
    before = eight.view.metrics["shop/app"].of()["model.accuracy"]
    assert (before.new.count, before.old.count) == (100, 450), "a first report has no other side yet"
    eight.start()
    after = eight.view.metrics["shop/app"].of()["model.accuracy"]
    assert (after.new.count, after.old.count) == (before.new.count, before.old.count)
    eight.apply("1")
    eight.until(lambda: eight.state(3) == "Succeeded")
    eight.run(5)
    assert eight.all_keys("RolloutEvidence") == []


def test_at_rest_nothing_is_kept_again(eight):
    canary = compared(eight)
    measure(eight, canary, "2", 0.9, "model.accuracy")
    eight.run(30)
    writes = len(eight.transactions)
    eight.run(60)
    assert [w for t in eight.transactions[writes:] for w in t.writes if w.key.kind == "RolloutEvidence"] == []
    assert reconcile.handle(reconcile.Tick(), eight.view, eight.now).transactions == ()


def test_the_last_wave_cannot_undo_what_the_waves_before_showed(eight):
    """Nobody is left to compare with: a comparison that could change then could never be settled."""
    canary = compared(eight)
    for _ in range(2):
        measure(eight, canary, "2", 0.9, "model.accuracy")
        for device in eight.rollout(2).status.controls:
            measure(eight, device, "1", 0.9, "model.accuracy")
    for wave in (2, 3):
        promote(eight, 2)
        eight.until(lambda wave=wave: eight.rollout(2).status.wave == wave, seconds=60)
    eight.run(2)
    before = eight.view.metrics["shop/app"].of()["model.accuracy"]
    assert before.new.count
    assert before.old.count
    for device in eight.instances():
        measure(eight, device, "2", 0.2, "model.accuracy")
    after = eight.view.metrics["shop/app"].of()["model.accuracy"]
    assert (after.new.count, after.old.count) == (before.new.count, before.old.count)
