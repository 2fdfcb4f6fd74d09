"""Waves by risk, what the end of a rollout teaches, and why members failed, over a whole fleet in memory."""

import msgspec
import pytest

from edgewise.controllers.risk import Risks, model_of
from edgewise.delivery.risk import Outcome, RiskModel, learned, packed
from edgewise.resources.site import Link, SiteSpec
from edgewise.resources.states import Health
from edgewise.store.codec import encode
from edgewise.store.contract import ABSENT, Key, Put, Transaction
from edgewise.wire.report import DeviceReport


@pytest.fixture
def eight(fleet):
    """Eight devices of two classes on version 1."""
    for number in range(8):
        fleet.join(f"d{number}", site="north" if number % 2 else "south", device_class="large" if number < 5 else "small")
    for version in ("1", "2", "3", "4"):
        fleet.publish(version)
    fleet.apply("1")
    fleet.until(lambda: fleet.state(1) == "Succeeded")
    return fleet


def say(fleet, device, **fields):
    fleet.devices[device].report("status", DeviceReport(device=device, **fields))


def order(fleet, number):
    """The devices that a rollout touched, by the wave that brought it."""
    given = sorted((i.spec.wave, i.spec.assigned_at, d) for d, i in fleet.instances().items() if i.spec.rollout == f"app-{number}")
    return [device for _, _, device in given]


def test_the_riskiest_of_a_class_come_last(eight):
    say(eight, "d0", health=Health.DEGRADED)
    say(eight, "d1", health=Health.ERROR)
    eight.apply("2", waves=(1, 2, 3, 4, 5, 6, 7, "100%"))
    eight.until(lambda: eight.state(2) == "Succeeded")
    # The largest class first, one of each class before a second of any.
    assert order(eight, 2) == ["d2", "d5", "d3", "d6", "d4", "d7", "d0", "d1"]
    risk = eight.rollout(2).status.risk
    assert (risk.source, risk.ended, risk.failed, risk.taught) == ("rules", 8, 0, True)
    assert risk.riskiest[:2] == (
        "d1 (14%): its health is Error; no update of its class is known yet",
        "d0 (7%): its health is Degraded; no update of its class is known yet",
    )


def test_what_is_known_of_a_device_becomes_its_risk(eight):
    names = list(eight.devices)
    for name in names:
        say(eight, name, agent_version="1.10")

    def risk(name):
        return Risks(eight.view, names, eight.now).of(name)

    calm = risk("d2")
    assert risk("d4") == calm
    say(eight, "d2", agent_version="1.9")
    assert risk("d2") > calm
    site = eight.get("Site", "north", "")
    eight.put(msgspec.structs.replace(site, spec=SiteSpec(link=Link(metered=True))))
    assert risk("d1") > calm
    small = msgspec.structs.replace(eight.view.devices["d4"].status.capacity, memory=2**20, disk=2**30)
    say(eight, "d4", capacity=small)
    assert risk("d4") == calm, "what nothing is taken of is not short"
    assert Risks(eight.view, [], eight.now).of("nobody") == 0.0


def test_what_came_of_it_is_learned_once_and_survives_a_restart(eight):
    assert model_of(eight.view) == RiskModel(), "a first rollout places, it updates nothing"
    eight.bad.add(("d3", "2"))
    eight.apply("2", waves=(4, "100%"), budget="30%")
    eight.until(lambda: eight.state(2) == "Succeeded")
    after = model_of(eight.view)
    assert (after.outcomes, after.failures, after.devices) == (8, 1, {"d3": 1.0})
    risk = eight.rollout(2).status.risk
    assert (risk.ended, risk.failed, risk.scored) == (8, 1, 8)
    assert 0 < risk.predicted < 1
    assert 0 < risk.brier < 0.2
    eight.run(120)
    assert eight.settle() == 0
    assert len(eight.all_keys("RiskModel")) == 1
    eight.start()
    assert model_of(eight.view) == after
    eight.apply("3", waves=(1, "100%"))
    eight.until(lambda: eight.state(3) == "Succeeded")
    told = eight.rollout(3).status.risk.riskiest[0]
    assert told.startswith("d3 (")
    assert "1 of its updates failed lately" in told


def test_a_canary_that_fails_alone_is_not_the_canary_of_the_next_revision(eight):
    eight.bad.update({("d0", "2"), ("d0", "3")})
    eight.apply("2", waves=(1, "100%"))
    eight.until(lambda: eight.state(2) == "RolledBack")
    model = model_of(eight.view)
    assert (model.outcomes, model.failures, model.devices) == (0, 0, {"d0": 0.5}), "one of one says nothing of devices as such"
    assert eight.rollout(2).status.risk.taught is False
    eight.apply("3", waves=(1, "100%"), budget="15%")
    eight.until(lambda: eight.state(3) == "Succeeded")
    assert order(eight, 3)[0] == "d1"


def test_what_was_said_before_a_restart_teaches_nothing(eight):
    eight.apply("2", waves=(4, "100%"))
    eight.until(lambda: eight.rollout(2) is not None and eight.rollout(2).status.healthy_since is not None)
    eight.start()
    eight.until(lambda: eight.state(2) == "Succeeded")
    assert eight.rollout(2).status.risk.ended == 4
    assert model_of(eight.view).outcomes == 4


def test_a_damaged_model_is_begun_anew(fleet):
    key = Key("RiskModel", "", "fleet")
    kept = RiskModel(weights=(1.0,), devices={"d": 1.0})
    fleet.write(Transaction(now=1.0, writes=(Put(key=key, spec=encode(kept), expect=ABSENT, uid="u"),)))
    assert model_of(fleet.view).weights == RiskModel().weights
    assert model_of(fleet.view).devices == {"d": 1.0}


def test_two_rollouts_that_end_at_once_are_both_learned_from(eight):
    eight.publish("1", artifact="other")
    eight.publish("2", artifact="other")
    eight.apply("1", name="other", artifact="other")
    eight.until(lambda: eight.state(1, "other") == "Succeeded")
    before = model_of(eight.view).outcomes
    eight.apply("2", waves=("100%",))
    eight.apply("2", name="other", artifact="other", waves=("100%",))
    eight.until(lambda: eight.state(2) == eight.state(2, "other") == "Succeeded")
    assert model_of(eight.view).outcomes == before + 16


def test_failures_are_explained_in_the_status_and_the_event(eight):
    eight.bad.update({("d5", "2"), ("d6", "2"), ("d7", "2")})
    eight.apply("2", waves=("100%",), budget="10%")
    eight.until(lambda: eight.state(2) == "RolledBack")
    (found,) = eight.rollout(2).status.explanations
    assert found.cause == "device class small"
    assert found.evidence == "3 of 3 devices of device class small failed, 0 of 5 others; “ProbeFailed: it did not answer”"
    assert found.devices == ("d5", "d6", "d7")
    told = [event.message for event in eight.store.events if event.reason == "RolloutRollingBack"]
    assert len(told) == 1
    assert "; likely cause: device class small (3 of 3 devices" in told[0]


def test_of_a_revision_that_fails_everywhere_it_is_said(eight):
    eight.bad.add("2")
    eight.apply("2", waves=("100%",))
    eight.until(lambda: eight.state(2) == "RolledBack")
    assert eight.rollout(2).status.explanations[0].cause == "the revision itself"
    eight.apply("3", waves=("100%",))
    eight.until(lambda: eight.state(3) == "Succeeded")
    assert eight.rollout(3).status.explanations == ()


def outcome(name, *, failed):
    return Outcome(device=name, device_class="large", site="", features=(0.0,) * 12, probability=0.1, failed=failed)


def test_predictions_are_kept_small():
    assert len(packed((0.5,) * 12, 0.1)) == 52
    assert len(encode(learned(RiskModel(), [outcome(f"d{n}", failed=n == 0) for n in range(9)], 1.0))) < 600
