"""Whether a change may go ahead, from its rehearsal and the budgets that its workloads set themselves.

judge(rehearsal, workloads) -> Verdict. A change is refused when in p95 of the runs more devices fail than `failureBudget` allows, when it
is taken back in most runs, or when in p95 of the runs a device is longer without a ready instance than `unavailabilityBudget` allows.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec

from edgewise.delivery.stages import pace_of
from edgewise.resources.quantity import seconds
from edgewise.resources.states import RolloutState
from edgewise.resources.workload import Workload
from edgewise.twin import units
from edgewise.twin.distributions import nearest_rank, rollouts_of, spread
from edgewise.twin.rehearsal import Rehearsal
from edgewise.twin.result import RolloutResult, RunResult

__all__ = ["Verdict", "judge"]

_PERCENT: Final = 95
_P95: Final = f"p{_PERCENT} of the runs"
_BACK: Final = frozenset({RolloutState.ROLLING_BACK.value, RolloutState.ROLLED_BACK.value})


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether to go ahead. `reasons` say why not, one each; `predictions` what to expect of each rollout; `warnings` what a person should
    know that is against no budget."""

    allowed: bool
    reasons: tuple[str, ...] = ()
    predictions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def judge(rehearsal: Rehearsal, workloads: Iterable[Workload], first: Collection[str] = (), moves: Sequence[str] = ()) -> Verdict:
    """Return the verdict on a rehearsed change. `workloads` are all that may be rolled out, with their own strategies; `first` names those
    (NAMESPACE/NAME) that the fleet does not run yet: nobody misses them while they come. `moves` tells where workloads end or begin
    without a rollout.

    Without a result for at least half of the runs there is no telling, so the change is refused.
    """
    results = rehearsal.runs
    if rehearsal.interrupted or 2 * len(results) < rehearsal.planned:
        return Verdict(allowed=False, reasons=(_untold(rehearsal),))
    reasons: list[str] = []
    predictions: list[str] = []
    warnings: list[str] = [*_defects(rehearsal)]
    for workload in sorted(workloads, key=_name):
        name = _name(workload)
        versions = sorted({version for result in results for known, version in rollouts_of(result) if known == name})
        for version in versions:
            rollouts = [rollouts_of(result).get((name, version)) for result in results]
            reasons += [*_failures(workload, version, rollouts), *_taken_back(workload, version, rollouts)]
            warnings += _open(workload, version, rollouts)
            predictions.append(_predicted(workload, version, rollouts, results))
        if versions and name not in first:
            reasons += _unavailability(workload, results)
    return Verdict(
        allowed=not reasons,
        reasons=tuple(reasons),
        predictions=(*moves, *predictions) or ("nothing is rolled out: the fleet runs this already",),
        warnings=tuple(warnings),
    )


def _name(workload: Workload) -> str:
    return f"{workload.metadata.namespace}/{workload.metadata.name}"


def _untold(rehearsal: Rehearsal) -> str:
    done = f"{len(rehearsal.runs)} of {rehearsal.planned} runs"
    if rehearsal.interrupted:
        return f"the rehearsal was stopped after {done}"
    cause = f": {rehearsal.lost[0].reason} (seed {rehearsal.lost[0].seed})" if rehearsal.lost else ""
    return f"only {done} gave a result{cause}"


# ---- against a budget ----


def _failed_share(rollout: RolloutResult | None) -> float:
    return rollout.failed / rollout.touched if rollout is not None and rollout.touched else 0.0


def _failures(workload: Workload, version: str, rollouts: Sequence[RolloutResult | None]) -> list[str]:
    budget = pace_of(workload.spec.strategy).failure_budget
    worst = sorted(rollouts, key=_failed_share)[_rank(len(rollouts))]
    # In whole numbers, as the rollout itself counts: 1 of 20 is 5 %, not a little more.
    if worst is None or worst.failed * 100 <= float(budget.rstrip("%")) * worst.touched:
        return []
    count = f"{units.share(_failed_share(worst))} of the devices that get it fail ({worst.failed} of {worst.touched}, {_P95})"
    return [f"{_name(workload)} {version}: {count}; its failureBudget is {budget}"]


def _rank(count: int) -> int:
    return -(-_PERCENT * count // 100) - 1


def _taken_back(workload: Workload, version: str, rollouts: Sequence[RolloutResult | None]) -> list[str]:
    back = [one for one in rollouts if one is not None and (one.rollback_at is not None or one.state in _BACK)]
    if 2 * len(back) <= len(rollouts):
        return []
    causes = Counter(one.message for one in back if one.message)
    cause = f": {min(causes, key=lambda text: (-causes[text], text))}" if causes else ""
    return [f"{_name(workload)} {version}: it is rolled back in {len(back)} of {len(rollouts)} runs{cause}"]


def _unavailability(workload: Workload, results: Sequence[RunResult]) -> list[str]:
    budget = workload.spec.strategy.canary.unavailability_budget
    if budget is None:
        return []
    longest = nearest_rank(sorted(_longest(workload, result) for result in results), _PERCENT) or 0.0
    # Results are rounded to microminutes.
    if longest <= seconds(budget) + 1e-3:
        return []
    time = f"a device is {units.duration(longest)} without a ready instance ({_P95})"
    return [f"{_name(workload)}: {time}; its unavailabilityBudget is {budget}"]


def _longest(workload: Workload, result: RunResult) -> float:
    """Return the longest time without a ready instance on one device, in seconds."""
    return 60.0 * max((each.unavailable_minutes_max for each in result.workloads if each.workload == _name(workload)), default=0.0)


# ---- what to expect ----


def _predicted(workload: Workload, version: str, rollouts: Sequence[RolloutResult | None], results: Sequence[RunResult]) -> str:
    there = [one for one in rollouts if one is not None]
    lasts = spread(one.ended_at - one.started_at if one.ended_at is not None else None for one in there)
    took = f"takes {_words(lasts.p50)}" + (f" ({_words(lasts.p5)} to {_words(lasts.p95)})" if lasts.p5 != lasts.p95 else "")
    failed, longest = spread(one.failed for one in there), spread(_longest(workload, result) for result in results)
    parts = [took, f"{_most(failed.p95)} of {max(one.members for one in there)} devices fail"]
    if longest.p95:
        parts.append(f"at most {units.duration(longest.p95)} without a ready instance on a device")
    return f"{_name(workload)} {version}: {', '.join(parts)}"


def _words(lasts: float | None) -> str:
    return "longer than the rehearsal" if lasts is None else units.duration(lasts)


def _most(count: float | None) -> str:
    return f"at most {count:.0f}" if count else "none"


def _open(workload: Workload, version: str, rollouts: Sequence[RolloutResult | None]) -> list[str]:
    still = [one for one in rollouts if one is not None and one.ended_at is None and one.rollback_at is None]
    if not still:
        return []
    states = Counter(one.state for one in still)
    state = min(states, key=lambda word: (-states[word], word))
    return [f"{_name(workload)} {version}: the rollout has not ended in {len(still)} of {len(rollouts)} runs, it is {state}"]


def _defects(rehearsal: Rehearsal) -> list[str]:
    said = []
    broken = Counter(name for result in rehearsal.runs for name in sorted({each.invariant for each in result.violations}))
    for name, count in sorted(broken.items()):
        said.append(f"in {count} of {len(rehearsal.runs)} runs the invariant {name} did not hold: a defect of Edgewise, please report it")
    if rehearsal.lost:
        first = rehearsal.lost[0]
        said.append(f"{len(rehearsal.lost)} of {rehearsal.planned} runs gave no result: {first.reason} (seed {first.seed})")
    return said
