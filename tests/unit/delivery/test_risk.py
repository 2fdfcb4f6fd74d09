"""The risk of an update: rules first, then what the fleet's own history taught; and how well it came true."""

import math
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.delivery.risk import (
    FEATURES,
    LIMITS,
    NAMES,
    Features,
    Outcome,
    RiskLimits,
    RiskModel,
    Share,
    calibration,
    history_of,
    learned,
    learns,
    packed,
    predict,
    probability,
    saturating,
    short,
    sound,
    source_of,
    tells,
    unpacked,
    vector,
    weights_of,
)
from edgewise.store.codec import encode

DAY = 86_400.0
ANY_NUMBER = st.one_of(st.floats(), st.sampled_from([math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324]))
EXTREME = st.builds(Features, **dict.fromkeys(NAMES, ANY_NUMBER))
UNIT = st.floats(0, 1)
VECTORS = st.tuples(*[UNIT] * len(NAMES))
OUTCOMES = st.lists(
    st.builds(
        Outcome,
        device=st.sampled_from([f"d{n}" for n in range(20)]),
        device_class=st.sampled_from("abc"),
        site=st.sampled_from(["", "north"]),
        features=VECTORS,
        probability=UNIT,
        failed=st.booleans(),
    ),
    max_size=12,
)


def outcome(device, *, failed, device_class="small", site="north", said=0.02, **features):
    return Outcome(
        device=device, device_class=device_class, site=site, features=vector(Features(**features)), probability=said, failed=failed
    )


def batch(rng, model, now, size=60, *, truth):
    """One rollout over a made fleet whose devices fail as `truth` says of their features."""
    ended = []
    for n in range(size):
        full, flaky = rng.random() < 0.3, rng.random() < 0.2
        features = Features(disk_short=0.9 if full else 0.1, offline_share=0.5 if flaky else 0.0)
        said = predict(features, model).probability
        ended.append(
            Outcome(device=f"d{n:03}", device_class="small", site="north", features=vector(features), probability=said,
                    failed=rng.random() < truth(full, flaky))
        )  # fmt: skip
    return learned(model, ended, now)


def taught(truth, rounds=30, seed=7):
    rng, model = random.Random(seed), RiskModel()
    for number in range(rounds):
        model = batch(rng, model, (number + 1) * DAY, truth=truth)
    return model


def test_features_and_rules_are_the_same_names():
    assert Features.__struct_fields__ == NAMES
    assert all(feature.rule > 0 for feature in FEATURES.values())


def test_rules_say_the_risk_while_history_is_short():
    model = RiskModel()
    assert source_of(model) == "rules"
    calm = predict(Features(), model)
    assert calm.probability == pytest.approx(0.018, abs=0.001)
    assert calm.reasons == ()
    bad = predict(Features(disk_short=short(2, 40), unhealthy=0.5, device_failures=saturating(2.0), metered=1.0), model)
    assert bad.probability > 0.3
    assert bad.reasons == ("2 of its updates failed lately", "5% of its disk is free", "its health is Degraded")


@pytest.mark.parametrize(
    ("outcomes", "failures", "learnt"), [(50, 5, True), (49, 5, False), (50, 4, False), (50, 45, True), (50, 46, False), (51, 6, True)]
)
def test_what_was_learned_counts_from_the_limits_on(outcomes, failures, learnt):
    model = RiskModel(outcomes=outcomes, failures=failures, weights=(-1.0,) + (0.0,) * len(NAMES))
    assert learns(model) is learnt
    assert (weights_of(model) == model.weights) is learnt


def test_it_learns_what_makes_updates_fail():
    model = taught(lambda full, flaky: 0.4 if full else 0.02)
    assert source_of(model) == "model"
    full, flaky, calm = (
        predict(features, model).probability for features in (Features(disk_short=0.9, offline_share=0.0), Features(disk_short=0.1, offline_share=0.5), Features(disk_short=0.1))
    )  # fmt: skip
    assert 0.3 < full < 0.5
    assert calm < 0.06
    assert flaky < 0.08, "the rules hold it for dangerous, this fleet does not"
    assert "disk" in predict(Features(disk_short=0.9, offline_share=0.3), model).reasons[0]


def test_what_is_predicted_comes_true_on_a_made_fleet():
    model = taught(lambda full, flaky: 0.35 if full else 0.15 if flaky else 0.03)
    found = calibration(model)
    assert found.predictions == LIMITS.window_max
    assert found.error < 0.08
    assert found.brier < found.base, "it says more than always the same"
    assert abs(found.predicted - found.seen) < 3 * math.sqrt(found.predictions * found.base)


def test_calibration_is_what_its_formulas_say():
    assert calibration(RiskModel()).predictions == 0
    model = RiskModel(window=tuple(2 * 100 + (n == 0) for n in range(10)))
    found = calibration(model)
    assert (found.predictions, found.seen) == (10, 1)
    assert found.predicted == pytest.approx(1.0)
    assert found.brier == pytest.approx(0.09)
    assert found.base == pytest.approx(0.09)
    wrong = calibration(RiskModel(window=(2 * 1000,) * 20))
    assert (wrong.brier, wrong.error) == (1.0, 1.0)


def test_a_revision_that_fails_everywhere_teaches_nothing_of_the_devices():
    before = RiskModel(classes={"small": Share(1.0, 9.0)}, at=DAY)
    model = learned(before, [outcome(f"d{n}", failed=n < 6, disk_short=1.0) for n in range(10)], DAY)
    assert (model.weights, model.precisions, model.window, model.outcomes) == (before.weights, before.precisions, (), 0)
    assert model.classes == before.classes
    assert model.sites == {}
    assert model.devices == {f"d{n}": 0.5 for n in range(6)}, "but the next one is tried elsewhere first"


@pytest.mark.parametrize(
    ("ended", "failed", "told"), [(2, 1, False), (3, 1, True), (4, 2, True), (4, 3, False), (10, 5, True), (11, 6, False)]
)
def test_what_tells_of_devices(ended, failed, told):
    assert tells([outcome(f"d{n}", failed=n < failed) for n in range(ended)]) is told


def test_counts_fade_and_what_goes_well_makes_up_for_what_did_not():
    model = learned(RiskModel(), [outcome(f"d{n}", failed=n == 0) for n in range(6)], DAY)
    device, of_class, of_site, new = history_of(model, "d0", "small", "north", DAY)
    assert (device, of_class, of_site, new) == (0.5, 0.1, 0.1, 0.0)
    later = history_of(model, "d0", "small", "north", DAY + LIMITS.half_life_seconds)
    assert later[0] == pytest.approx(1 / 3)
    assert 0 < later[1] < of_class
    assert history_of(model, "x", "other", "", DAY) == (0.0, 0.0, 0.0, 1.0)
    assert history_of(model, "d0", "small", "north", 0.0)[0] == 0.5, "a clock that was set back makes nothing grow"
    assert history_of(model, "d0", "small", "north", DAY * 1e9) == pytest.approx((0.0, 0.0, 0.0, 1.0))
    again = learned(model, [outcome(f"d{n}", failed=False) for n in range(6)], DAY)
    assert again.devices["d0"] == 0.5


def test_what_is_kept_is_bounded_and_small():
    limits = RiskLimits(devices_max=5, classes_max=3, window_max=10)
    model = RiskModel()
    for number in range(12):
        ended = [outcome(f"d{number}-{n}", failed=n < 2, device_class=f"c{n}", site=f"s{n}") for n in range(8)]
        model = learned(model, ended, number * DAY, limits)
    assert len(model.devices) == 5
    assert len(model.classes) == len(model.sites) == 3
    assert len(model.window) == 10
    assert len(encode(RiskModel())) < 20
    fresh = msgspec.structs.replace(taught(lambda full, flaky: 0.2, rounds=3), window=(), devices={})
    assert len(encode(fresh)) < 400


def test_examples_beyond_the_limit_are_a_sample_that_stands_for_all():
    rng = random.Random(3)
    ended = [outcome(f"d{n:04}", failed=n % 5 == 0, disk_short=rng.random() * 0.5 + (0.5 if n % 5 == 0 else 0.0)) for n in range(1000)]
    few, all_of_them = (
        learned(RiskModel(), ended, 1.0, RiskLimits(examples_max=100)),
        learned(RiskModel(), ended, 1.0, RiskLimits(examples_max=5000)),
    )
    features = vector(Features(disk_short=0.9))
    assert probability(features, few.weights) == pytest.approx(probability(features, all_of_them.weights), abs=0.1)


def test_weights_of_other_features_are_begun_anew():
    kept = RiskModel(weights=(1.0, 2.0), precisions=(1.0, 1.0), outcomes=100, failures=20, devices={"d": 1.0})
    model = sound(kept)
    assert model.weights == RiskModel().weights
    assert (model.outcomes, model.devices) == (0, {"d": 1.0})
    damaged = msgspec.structs.replace(RiskModel(), weights=(math.nan, *RiskModel().weights[1:]))
    assert sound(damaged).weights == RiskModel().weights
    assert sound(RiskModel()) == RiskModel()


@settings(deadline=None)
@given(EXTREME)
def test_whatever_is_put_in_a_probability_comes_out(features):
    for model in (RiskModel(), RiskModel(outcomes=99, failures=9, weights=(12.0,) * (len(NAMES) + 1))):
        risk = predict(features, model)
        assert 0.0 <= risk.probability <= 1.0
        assert len(risk.reasons) <= LIMITS.reasons_max
        assert "nan" not in " ".join(risk.reasons)


@settings(deadline=None)
@given(ANY_NUMBER, ANY_NUMBER)
def test_scales_stay_between_nothing_and_one(one, other):
    assert 0.0 <= saturating(one) <= 1.0
    assert 0.0 <= short(one, other) <= 1.0


@settings(max_examples=40, deadline=None)
@given(OUTCOMES, OUTCOMES, VECTORS, st.integers(0, len(NAMES) - 1), UNIT)
def test_more_of_what_speaks_against_a_device_is_never_safer(first, second, numbers, place, more):
    model = learned(learned(RiskModel(), first, DAY), second, 2 * DAY)
    assert all(math.isfinite(weight) for weight in model.weights)
    assert all(weight >= 0 for weight in model.weights[1:])
    worse = (*numbers[:place], max(numbers[place], more), *numbers[place + 1 :])
    for weights in (model.weights, weights_of(model)):
        assert probability(worse, weights) >= probability(numbers, weights)
    found = calibration(model)
    assert 0 <= found.brier <= 1
    assert 0 <= found.error <= 1


@settings(max_examples=40, deadline=None)
@given(OUTCOMES, st.randoms(use_true_random=False))
def test_learning_is_deterministic_and_survives_being_kept(outcomes, rng):
    distinct = list({each.device: each for each in outcomes}.values())
    model = learned(RiskModel(), distinct, DAY)
    mixed = distinct[:]
    rng.shuffle(mixed)
    assert learned(RiskModel(), mixed, DAY) == model
    assert msgspec.msgpack.decode(encode(model), type=RiskModel) == model


@settings(deadline=None)
@given(VECTORS, UNIT)
def test_what_was_predicted_is_kept_small(numbers, said):
    kept = packed(numbers, said)
    assert len(kept) == 4 * (len(NAMES) + 1)
    known, known_said = unpacked(kept)
    assert known == pytest.approx(numbers, abs=1e-6)
    assert known_said == pytest.approx(said, abs=1e-6)
