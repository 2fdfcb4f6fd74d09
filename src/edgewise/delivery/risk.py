"""How likely an update fails on a device, learned from the fleet's own history.

A logistic regression over a dozen features. Until enough outcomes of both kinds were seen, its weights are `FEATURES`' rules; what is
learned starts from them: they are the mean of a Gaussian prior, and each rollout that ends moves the weights by one maximum a posteriori
fit (Newton's method), after which the posterior, its precision taken diagonal, is the next prior (Chapelle & Li 2011, algorithm 3). All of
it is deterministic.

Every feature lies between 0 and 1 and is written so that more of it is never safer, and no weight falls below 0: a fuller disk never
lowers a risk.

**What is learned from.** Labels leak easily here, so: features are those of the moment when the device was given the revision, before the
update could change them. A device out of reach has no label. A revision that fails nearly everywhere says nothing of the devices: of a
rollout in which more than `failed_share_max` of those that ended failed, or fewer than `ended_min` ended, no weight and no share is
learned and no prediction is scored. Such a failure only counts half against the device itself, so that the next revision is tried
elsewhere first: else one broken device that happens to be first would stop every rollout there is.
"""

import math
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final, Literal, TypeVar

import msgspec

from edgewise.delivery._fit import Example, fit, precisions_after


class RiskLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The rules hold until `outcomes_min` outcomes with at least `each_min` of both kinds. See the module for `ended_min` and
    `failed_share_max`. What was counted halves every `half_life_seconds`. At most `examples_max` examples are fitted at once,
    `window_max` predictions are scored, `devices_max` devices, `classes_max` classes and as many sites are remembered, those with the most
    failures. Precision is forgotten by `forget` per rollout. `reasons_max` reasons are told, of those that add `reason_min` log-odds."""

    outcomes_min: int = 50
    each_min: int = 5
    ended_min: int = 3
    failed_share_max: float = 0.5
    half_life_seconds: float = 30 * 86_400.0
    examples_max: int = 200
    window_max: int = 200
    devices_max: int = 500
    classes_max: int = 200
    forget: float = 0.98
    reasons_max: int = 3
    reason_min: float = 0.1


LIMITS: Final = RiskLimits()

RiskSource = Literal["rules", "model"]
"""What says a risk."""


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a device before it is given a revision, each between 0 (nothing against it) and 1."""

    device_failures: float = 0.0
    class_failures: float = 0.0
    site_failures: float = 0.0
    disk_short: float = 0.0
    memory_short: float = 0.0
    unhealthy: float = 0.0
    offline_share: float = 0.0
    unsteady: float = 0.0
    silent: float = 0.0
    metered: float = 0.0
    agent_behind: float = 0.0
    class_new: float = 0.0


class Feature(msgspec.Struct, frozen=True):
    """How much a feature adds to the log-odds by the rules, and what it is in words."""

    rule: float
    words: Callable[[float], str]


FEATURES: Final[Mapping[str, Feature]] = {
    "device_failures": Feature(3.0, lambda x: f"{_count(x / (1.0 - x) if x < 1.0 else 99.0)} of its updates failed lately"),
    "class_failures": Feature(3.0, lambda x: f"updates of its class fail often ({x:.0%})"),
    "site_failures": Feature(2.0, lambda x: f"updates at its site fail often ({x:.0%})"),
    "disk_short": Feature(2.0, lambda x: f"{(1 - x) / 2:.0%} of its disk is free"),
    "memory_short": Feature(1.5, lambda x: f"{(1 - x) / 2:.0%} of its memory is free"),
    "unhealthy": Feature(1.5, lambda x: "its health is Error" if x >= 1.0 else "its health is Degraded"),
    "offline_share": Feature(2.0, lambda x: f"offline for {x:.0%} of the time"),
    "unsteady": Feature(1.0, lambda x: f"{_count(x / (1.0 - x) if x < 1.0 else 99.0)} outages and restarts a day"),
    "silent": Feature(1.0, lambda x: f"not heard of for {_count(x / (1.0 - x) if x < 1.0 else 99.0)} days"),
    "metered": Feature(0.5, lambda _: "its link is metered"),
    "agent_behind": Feature(0.5, lambda _: "its agent is older than others'"),
    "class_new": Feature(0.7, lambda _: "no update of its class is known yet"),
}
"""The rules: with nothing against a device its risk is 2 %."""

NAMES: Final = tuple(FEATURES)
_INTERCEPT: Final = -4.0
_PRECISION: Final = 1.0
_START: Final = (_INTERCEPT, *(feature.rule for feature in FEATURES.values()))
_BINS: Final = 10
_PERMILLE: Final = 1000
_FADED: Final = 0.05
_ASSUMED: Final = 4.0
"""So many updates of a class or a site that went well are taken for granted: one failure is no certainty."""

T = TypeVar("T")


class Share(msgspec.Struct, frozen=True, array_like=True):
    """How many updates failed, of how many that ended; both fade."""

    failed: float = 0.0
    ended: float = 0.0


class RiskModel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that is learned: `weights` (the first is the intercept) with their `precisions`; how many `outcomes` there were, and how many of
    them `failures`; failed updates by device, class and site, faded as of `at`; `window` holds the last predictions, each as twice its
    thousandths, plus one if the update failed. A few hundred bytes, and some tens for each name."""

    weights: tuple[float, ...] = _START
    precisions: tuple[float, ...] = (_PRECISION,) * len(_START)
    outcomes: int = 0
    failures: int = 0
    at: float = 0.0
    devices: dict[str, float] = {}
    classes: dict[str, Share] = {}
    sites: dict[str, Share] = {}
    window: tuple[int, ...] = ()


class Risk(msgspec.Struct, frozen=True, kw_only=True):
    """How likely an update fails on a device, and what speaks for that most."""

    probability: float
    reasons: tuple[str, ...] = ()


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How an update ended on a device, and what was known and predicted before it began."""

    device: str
    device_class: str
    site: str
    features: tuple[float, ...]
    probability: float
    failed: bool


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """How the last `predictions` came true: how many failures were `predicted` (their sum) and `seen`; the Brier score (mean squared error;
    `base` is that of always saying the seen share); the expected calibration `error` over ten bins of as many predictions each."""

    predictions: int = 0
    predicted: float = 0.0
    seen: int = 0
    brier: float = 0.0
    base: float = 0.0
    error: float = 0.0


def _count(value: float) -> str:
    return f"{value:.0f}" if value >= 1.95 else f"{value:.1f}".removesuffix(".0")


def sound(model: RiskModel) -> RiskModel:
    """Return a model that was kept, or a fresh one that remembers its counts when its weights are none of these features."""
    numbers = (*model.weights, *model.precisions)
    if len(model.weights) == len(model.precisions) == len(_START) and all(map(math.isfinite, numbers)):
        return model
    fresh = RiskModel()
    return msgspec.structs.replace(model, weights=fresh.weights, precisions=fresh.precisions, outcomes=0, failures=0, window=())


def learns(model: RiskModel, limits: RiskLimits = LIMITS) -> bool:
    """Return whether history is long enough for what was learned; until then the rules say the risk."""
    fewest = min(model.failures, model.outcomes - model.failures)
    return model.outcomes >= limits.outcomes_min and fewest >= limits.each_min


def weights_of(model: RiskModel, limits: RiskLimits = LIMITS) -> tuple[float, ...]:
    """Return the weights that count now: the rules', or those that were learned."""
    return model.weights if learns(model, limits) else _START


def vector(features: Features) -> tuple[float, ...]:
    """Return features as numbers in the order of `NAMES`, whatever was put in between 0 and 1."""
    return tuple(map(unit, msgspec.structs.astuple(features)))


def unit(value: float) -> float:
    """Return a number between 0 and 1; what is no number is 0."""
    return min(1.0, value) if value > 0.0 else 0.0


def saturating(amount: float) -> float:
    """Return how much there is of something without an upper end: 0 for nothing, a half for one, towards 1 for more."""
    return unit(1.0 - 1.0 / (1.0 + amount)) if amount > 0.0 else 0.0


def short(free: float, whole: float) -> float:
    """Return how short something is: 0 while half of it or more is free, 1 when nothing is. Of what is not known nothing is short."""
    return unit(1.0 - 2.0 * free / whole) if whole > 0 else 0.0


def probability(numbers: Sequence[float], weights: Sequence[float]) -> float:
    """Return how likely an update fails, from a `vector` and the weights that count."""
    return _sigmoid(weights[0] + sum(map(float.__mul__, weights[1:], numbers)))


def predict(features: Features, model: RiskModel, limits: RiskLimits = LIMITS) -> Risk:
    """Return a device's risk with the strongest reasons."""
    numbers, weights = vector(features), weights_of(model, limits)
    adds = sorted((-weight * number, name, number) for weight, name, number in zip(weights[1:], NAMES, numbers, strict=True))
    told = tuple(FEATURES[name].words(number) for added, name, number in adds[: limits.reasons_max] if -added >= limits.reason_min)
    return Risk(probability=probability(numbers, weights), reasons=told)


# ---- what the fleet's history says of a device ----


def history_of(model: RiskModel, device: str, device_class: str, site: str, now: float) -> tuple[float, float, float, float]:
    """Return the features `device_failures`, `class_failures`, `site_failures` and `class_new` of a device."""
    fading = _fading(model, now, LIMITS)
    known = model.classes.get(device_class)
    return (
        saturating(model.devices.get(device, 0.0) * fading),
        _share(known, fading),
        _share(model.sites.get(site) if site else None, fading),
        0.0 if known is not None and known.ended * fading >= 0.5 else 1.0,
    )


def _share(known: Share | None, fading: float) -> float:
    return unit(known.failed * fading / (known.ended * fading + _ASSUMED)) if known is not None else 0.0


def _fading(model: RiskModel, now: float, limits: RiskLimits) -> float:
    # A clock that was set back makes nothing grow.
    passed = max(0.0, now - model.at) if model.at else 0.0
    return math.exp2(-min(passed / limits.half_life_seconds, 1000.0))


# ---- learning ----


def tells(outcomes: Sequence[Outcome], limits: RiskLimits = LIMITS) -> bool:
    """Return whether the outcomes of a rollout say something of the devices, and not of its revision."""
    failed = sum(each.failed for each in outcomes)
    return len(outcomes) >= limits.ended_min and failed <= limits.failed_share_max * len(outcomes)


def learned(model: RiskModel, outcomes: Iterable[Outcome], now: float, limits: RiskLimits = LIMITS) -> RiskModel:
    """Return what is known after a rollout ended on some devices."""
    ended = sorted(outcomes, key=lambda each: each.device)
    if not ended:
        return model
    if not tells(ended, limits):
        return _counted(model, [(each, 0.5) for each in ended if each.failed], now, limits, devices_only=True)
    model = _counted(model, [(each, 1.0) for each in ended], now, limits, devices_only=False)
    window = (*model.window, *(_scored(each) for each in _evenly(ended, limits.window_max)))
    forgotten = tuple(max(_PRECISION, precision * limits.forget) for precision in model.precisions)
    examples = _examples(ended, limits)
    weights = fit(model.weights, forgotten, examples)
    return msgspec.structs.replace(
        model,
        weights=weights,
        precisions=precisions_after(weights, forgotten, examples),
        outcomes=model.outcomes + len(ended),
        failures=model.failures + sum(each.failed for each in ended),
        window=window[-limits.window_max :],
    )


def _examples(ended: Sequence[Outcome], limits: RiskLimits) -> list[Example]:
    """Return examples to fit: equal ones once, and not more than the limit, each then standing for several."""
    counts: dict[tuple[bool, tuple[float, ...]], int] = {}
    for each in ended:
        key = (each.failed, tuple(unit(number) for number in each.features))
        counts[key] = counts.get(key, 0) + 1
    examples: list[Example] = []
    for failed in (False, True):
        alike = sorted((numbers, count) for (label, numbers), count in counts.items() if label is failed)
        chosen = _evenly(alike, limits.examples_max // 2)
        scale = sum(count for _, count in alike) / max(1, sum(count for _, count in chosen))
        examples += [Example((1.0, *numbers), failed, count * scale) for numbers, count in chosen]
    return examples


def _counted(model: RiskModel, ended: Iterable[tuple[Outcome, float]], now: float, limits: RiskLimits, *, devices_only: bool) -> RiskModel:
    fading = _fading(model, now, limits)
    devices = {name: failed * fading for name, failed in model.devices.items()}
    classes = {name: Share(share.failed * fading, share.ended * fading) for name, share in model.classes.items()}
    sites = {name: Share(share.failed * fading, share.ended * fading) for name, share in model.sites.items()}
    for each, weight in ended:
        if each.failed:
            devices[each.device] = devices.get(each.device, 0.0) + weight
        elif each.device in devices:
            # What went well makes up for half of what went wrong before.
            devices[each.device] *= 0.5
        for shares, name in () if devices_only else ((classes, each.device_class), (sites, each.site)):
            known = shares.get(name, Share())
            shares[name] = Share(known.failed + weight * each.failed, known.ended + weight)
    return msgspec.structs.replace(
        model,
        at=max(now, model.at),
        devices=dict(_most(devices, lambda failed: failed, limits.devices_max)),
        classes=dict(_most(classes, lambda share: share.ended, limits.classes_max)),
        sites=dict(_most(sites, lambda share: share.ended, limits.classes_max)),
    )


def _most(counted: Mapping[str, T], size: Callable[[T], float], most: int) -> list[tuple[str, T]]:
    kept = sorted((item for item in counted.items() if size(item[1]) >= _FADED), key=lambda item: (-size(item[1]), item[0]))
    return sorted(kept[:most])


def _evenly(items: Sequence[T], most: int) -> Sequence[T]:
    """Return at most `most` of the items, evenly spaced."""
    if len(items) <= most:
        return items
    return [items[position * len(items) // most] for position in range(most)]


# ---- how good it is ----


def _scored(outcome: Outcome) -> int:
    return 2 * round(unit(outcome.probability) * _PERMILLE) + outcome.failed


def calibration(model: RiskModel) -> Calibration:
    """Return how the last predictions came true."""
    scored = sorted((number // 2 / _PERMILLE, number % 2) for number in model.window if 0 <= number <= 2 * _PERMILLE + 1)
    if not scored:
        return Calibration()
    count, seen = len(scored), sum(failed for _, failed in scored)
    edges = [position * count // _BINS for position in range(_BINS + 1)]
    bins = [scored[low:high] for low, high in pairwise(edges)]
    error = sum(abs(sum(said - failed for said, failed in each)) for each in bins) / count
    return Calibration(
        predictions=count,
        predicted=sum(said for said, _ in scored),
        seen=seen,
        brier=sum((said - failed) ** 2 for said, failed in scored) / count,
        base=seen / count * (1 - seen / count),
        error=error,
    )


# ---- keeping what was predicted until it came true ----


def packed(numbers: Sequence[float], said: float) -> bytes:
    """Return a `vector` and what was predicted from it, small."""
    return array("f", (*numbers, said)).tobytes()


def unpacked(kept: bytes) -> tuple[tuple[float, ...], float]:
    """Return what `packed` kept."""
    numbers = array("f", kept)
    return tuple(numbers[:-1]), numbers[-1]


def _sigmoid(odds: float) -> float:
    if odds >= 0.0:
        return 1.0 / (1.0 + math.exp(-min(odds, 700.0)))
    grown = math.exp(max(odds, -700.0))
    return grown / (1.0 + grown)


def source_of(model: RiskModel, limits: RiskLimits = LIMITS) -> RiskSource:
    """Return what says the risk now."""
    return "model" if learns(model, limits) else "rules"
