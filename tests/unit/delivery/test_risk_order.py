"""A made fleet over many rollouts, with and without the order by risk: fewer devices fail in the first
waves, and those that do come later.

Everything is drawn from seeds, so the numbers are the same each time.
"""

import random

import msgspec
import pytest

from edgewise.delivery.risk import (
    Features,
    Outcome,
    RiskModel,
    calibration,
    history_of,
    learned,
    predict,
    probability,
    short,
    source_of,
    vector,
    weights_of,
)
from edgewise.delivery.rollout import Candidate, choose

DAY = 86_400.0
DEVICES = 200
WAVES = (5, 20, 60, 120, DEVICES)
BUDGET = 0.05


class Made(msgspec.Struct, frozen=True):
    """A device, and how likely its updates truly fail."""

    name: str
    device_class: str
    disk_free: float
    offline: float
    truth: float


def fleet(rng):
    """Nine in ten are sound. The others have full disks or fail for a reason that nothing shows but their history."""
    made = []
    for number in range(DEVICES):
        full, worn = rng.random() < 0.06, rng.random() < 0.05
        free = rng.uniform(0.0, 0.1) if full else rng.uniform(0.3, 0.9)
        truth = 0.5 if worn else 0.35 if full else 0.005
        made.append(Made(f"d{number:03}", rng.choice(("nano", "pi")), free, rng.uniform(0, 0.2), truth))
    return made


def rolled_out(made, model, rng, now, *, by_risk):
    """Roll a revision out in waves until too many fail. Return the outcomes, in the order in which devices were given it."""
    weights, ended, touched, counts = weights_of(model), [], set(), {}
    for size in WAVES:
        known = {}
        for each in made:
            if each.name not in touched:
                device, of_class, of_site, new = history_of(model, each.name, each.device_class, "", now)
                features = Features(
                    device_failures=device, class_failures=of_class, site_failures=of_site, class_new=new,
                    disk_short=short(each.disk_free, 1.0), offline_share=each.offline,
                )  # fmt: skip
                known[each.name] = (each, vector(features))
        candidates = [
            Candidate(device=each.name, device_class=each.device_class, online=True, midway=False,
                      risk=probability(numbers, weights) if by_risk else 0.0)
            for each, numbers in known.values()
        ]  # fmt: skip
        for name in choose(candidates, size - len(touched), counts):
            each, numbers = known[name]
            touched.add(name)
            counts[each.device_class] = counts.get(each.device_class, 0) + 1
            failed = rng.random() < each.truth
            ended.append(
                Outcome(
                    device=name,
                    device_class=each.device_class,
                    site="",
                    features=numbers,
                    probability=probability(numbers, weights),
                    failed=failed,
                )
            )
        if sum(outcome.failed for outcome in ended) > BUDGET * len(ended):
            break
    return ended


def played(seed, *, by_risk, rollouts=25):
    """Return the model after some rollouts, and for each rollout how many devices were given the revision and how many failed."""
    rng = random.Random(seed)
    made, model, seen = fleet(rng), RiskModel(), []
    for number in range(rollouts):
        now = (number + 1) * DAY
        # Each rollout draws its own luck: what came before changes nothing of it.
        ended = rolled_out(made, model, random.Random(f"{seed}/{number}"), now, by_risk=by_risk)
        seen.append(ended)
        model = learned(model, ended, now)
    return made, model, seen


def mean_rank(rollouts):
    """The mean place of devices that failed in the order in which a revision went out, of those that were given it."""
    places = [place / DEVICES for ended in rollouts for place, each in enumerate(ended) if each.failed]
    return sum(places) / len(places)


@pytest.fixture(scope="module")
def both():
    return [(played(seed, by_risk=True), played(seed, by_risk=False)) for seed in range(3)]


def test_devices_that_fail_come_later(both):
    for with_risk, without in both:
        assert mean_rank(with_risk[2]) > mean_rank(without[2]) + 0.15


def test_fewer_fail_in_the_first_waves_and_more_devices_are_reached_before_it_stops(both):
    def early(rollouts):
        return sum(each.failed for ended in rollouts for each in ended[: WAVES[2]])

    for (_, _, with_risk), (_, _, without) in both:
        assert early(with_risk) < 0.6 * early(without)
        assert sum(map(len, with_risk)) > sum(map(len, without))


def test_what_is_predicted_comes_true(both):
    for (_, model, _), _ in both:
        assert source_of(model) == "model"
        found = calibration(model)
        assert found.predictions == 200
        assert found.error < 0.06
        assert found.brier < 1.05 * found.base


def test_the_worst_are_known_in_the_end(both):
    for (made, model, seen), _ in both:
        now = len(seen) * DAY
        risks = {}
        for each in made:
            device, of_class, of_site, new = history_of(model, each.name, each.device_class, "", now)
            features = Features(device_failures=device, class_failures=of_class, site_failures=of_site, class_new=new,
                                disk_short=short(each.disk_free, 1.0), offline_share=each.offline)  # fmt: skip
            risks[each.name] = predict(features, model).probability
        weak = [risks[each.name] for each in made if each.truth > 0.1]
        sound = [risks[each.name] for each in made if each.truth < 0.1]
        assert sum(weak) / len(weak) > 4 * sum(sound) / len(sound)
