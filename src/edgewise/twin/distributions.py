"""What many runs have in common: every figure as p5, p50 and p95 over the runs, and what went wrong, in words.

Percentiles are nearest-rank: pQ of n values is the ceil(Q/100 * n)-th smallest, so each is a value that one of the runs had (of 20 runs:
the 1st, 10th and 19th). What did not come to its end within a run counts as later than everything else.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from edgewise.resources.states import RolloutState
from edgewise.twin.rehearsal import LostRun
from edgewise.twin.result import RolloutResult, RunResult, WorkloadResult

__all__ = [
    "Distributions",
    "RolloutOutcome",
    "Spread",
    "WorkloadOutcome",
    "began_at",
    "change_seconds",
    "devices_failed",
    "distributions",
    "nearest_rank",
    "rollouts_of",
    "spread",
    "words",
]

_WORDS_MAX: Final = 20
_CAUSES_MAX: Final = 3
_DEVICES_MAX: Final = 3
_BACK: Final = frozenset({RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK})
_NUMBER: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?")


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Nearest-rank percentiles over the runs. None: in that run it had not ended when the run did."""

    p5: float | None
    p50: float | None
    p95: float | None


class RolloutOutcome(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How the rollout of a version went. `states`: in how many of `runs` it ended in which state. `rollback_seconds`: how long after its
    start it began to go back, over the `rollback_runs` in which it did. `devices_touched` were ever given the version."""

    workload: str
    version: str
    runs: int
    states: dict[str, int]
    seconds: Spread
    devices_touched: Spread
    devices_failed: Spread
    rollback_runs: int = 0
    rollback_seconds: Spread | None = None


class WorkloadOutcome(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What users of a workload notice. `unavailable_minutes`: device-minutes in which it should have been ready and was not,
    `unavailable_share` of those in which it should have been; `longest_minutes`: the longest such time on one device."""

    workload: str
    unavailable_minutes: Spread
    unavailable_share: Spread
    longest_minutes: Spread
    restarts: Spread


class Distributions(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """All figures over `runs` runs. `change_seconds`: from the change to the end of its last rollout, None when nothing was rolled
    out. `settled_seconds`: from the change until the fleet had come to rest. `site_bytes`: over each site's link, both ways.
    `devices_offline`: the most that the control plane did not hear of at one time."""

    runs: int
    change_seconds: Spread | None
    settled_seconds: Spread
    devices_failed: Spread
    energy_watt_hours: Spread
    site_bytes: dict[str, Spread]
    rollouts: tuple[RolloutOutcome, ...]
    workloads: tuple[WorkloadOutcome, ...]
    device_hours: float
    exchanges: int
    devices_offline: Spread | None = None


def nearest_rank(ordered: Sequence[float | None], percent: int) -> float | None:
    """Return the nearest-rank percentile of values in ascending order."""
    rank = -(-percent * len(ordered) // 100)
    return ordered[max(rank, 1) - 1]


def spread(values: Iterable[float | None]) -> Spread:
    """Return p5, p50 and p95 of `values`, of which there is at least one; None is greater than every number."""
    ordered = sorted(values, key=lambda value: (value is None, value or 0.0))
    return Spread(p5=nearest_rank(ordered, 5), p50=nearest_rank(ordered, 50), p95=nearest_rank(ordered, 95))


def rollouts_of(result: RunResult) -> dict[tuple[str, str], RolloutResult]:
    """Return the rollouts of the change, by workload and version; where a version was rolled out twice, the last one. What ended before
    the change is none of its rollouts."""
    found = {}
    for rollout in sorted(result.rollouts, key=lambda rollout: rollout.started_at):
        if rollout.ended_at is None or rollout.ended_at >= 0:
            found[rollout.workload, rollout.version] = rollout
    return found


def began_at(result: RunResult) -> float:
    """Return when the change came: the first moment of that kind, else its first rollout, else the run's beginning."""
    changes = [moment.at for moment in result.timeline if moment.kind == "change"]
    starts = [rollout.started_at for rollout in rollouts_of(result).values()]
    return min(changes or starts or [0.0])


def change_seconds(result: RunResult) -> float | None:
    """Return how long the change took, to the end of its last rollout; None: not over when the run was, or nothing was rolled out."""
    ends = [rollout.ended_at for rollout in rollouts_of(result).values()]
    known = [end for end in ends if end is not None]
    return max(known) - began_at(result) if known and len(known) == len(ends) else None


def devices_failed(result: RunResult) -> int:
    """Return on how many devices a version failed; a rollout names the first few only, and counts them all."""
    return max(len(result.devices_failed), *(rollout.failed for rollout in rollouts_of(result).values()), 0)


def distributions(results: Sequence[RunResult]) -> Distributions:
    """Return what `results`, of which there is at least one, have in common."""
    sites = sorted({site for result in results for site in result.site_bytes})
    versions = sorted({key for result in results for key in rollouts_of(result)})
    workloads = sorted({workload.workload for result in results for workload in result.workloads})

    def over(figure: Callable[[RunResult], float | None]) -> Spread:
        return spread([figure(result) for result in results])

    return Distributions(
        runs=len(results),
        change_seconds=over(change_seconds) if versions else None,
        settled_seconds=over(lambda result: None if result.settled_at is None else result.settled_at - began_at(result)),
        devices_failed=over(devices_failed),
        energy_watt_hours=over(lambda result: result.energy_watt_hours),
        site_bytes={site: over(lambda result, site=site: result.site_bytes.get(site, 0)) for site in sites},  # type: ignore[misc]  # a default
        rollouts=tuple(_rollout(workload, version, results) for workload, version in versions),
        workloads=tuple(_workload(name, results) for name in workloads),
        device_hours=sum(result.device_hours for result in results),
        exchanges=sum(result.exchanges for result in results),
        devices_offline=over(lambda result: max((counts.offline for counts in result.counts), default=0)),
    )


def _rollout(workload: str, version: str, results: Sequence[RunResult]) -> RolloutOutcome:
    found = [rollouts[workload, version] for rollouts in map(rollouts_of, results) if (workload, version) in rollouts]
    back = [rollout.rollback_at - rollout.started_at for rollout in found if rollout.rollback_at is not None]
    states = Counter(rollout.state for rollout in found)
    return RolloutOutcome(
        workload=workload,
        version=version,
        runs=len(found),
        states={state: states[state] for state in sorted(states)},
        seconds=spread([None if rollout.ended_at is None else rollout.ended_at - rollout.started_at for rollout in found]),
        devices_touched=spread([rollout.touched for rollout in found]),
        devices_failed=spread([rollout.failed for rollout in found]),
        rollback_runs=len(back),
        rollback_seconds=spread(back) if back else None,
    )


def _workload(name: str, results: Sequence[RunResult]) -> WorkloadOutcome:
    nothing = WorkloadResult(workload=name, unavailable_seconds=0, wanted_seconds=0, unavailable_minutes_max=0)
    found = [next((workload for workload in result.workloads if workload.workload == name), nothing) for result in results]
    return WorkloadOutcome(
        workload=name,
        unavailable_minutes=spread([workload.unavailable_seconds / 60 for workload in found]),
        unavailable_share=spread(
            [workload.unavailable_seconds / workload.wanted_seconds if workload.wanted_seconds else 0.0 for workload in found]
        ),
        longest_minutes=spread([workload.unavailable_minutes_max for workload in found]),
        restarts=spread([workload.restarts for workload in found]),
    )


def words(results: Sequence[RunResult], lost: Sequence[LostRun] = ()) -> tuple[str, ...]:
    """Return what went wrong, a sentence each: the worst first, with how many runs it touched. Empty when nothing did."""
    total = len(results)
    said = [*_violations(results), *_losses(lost, total + len(lost))]
    for workload, version in sorted({key for result in results for key in rollouts_of(result)}):
        said += _rollout_words(workload, version, results)
    said += [*_restless(results), *_failures(results)]
    return tuple(said[:_WORDS_MAX])


def _violations(results: Sequence[RunResult]) -> list[str]:
    broken = Counter(name for result in results for name in sorted({violation.invariant for violation in result.violations}))
    return [
        f"{_runs(count, len(results))} the invariant {name} did not hold: a defect of Edgewise" for name, count in sorted(broken.items())
    ]


def _losses(lost: Sequence[LostRun], total: int) -> list[str]:
    if not lost:
        return []
    seeds = ", ".join(str(run.seed) for run in lost[:_CAUSES_MAX]) + (", …" if len(lost) > _CAUSES_MAX else "")
    return [f"{len(lost)} of {total} runs gave no result (seed {seeds}): {_causes([run.reason for run in lost])}"]


def _rollout_words(workload: str, version: str, results: Sequence[RunResult]) -> list[str]:
    found = [rollouts[workload, version] for rollouts in map(rollouts_of, results) if (workload, version) in rollouts]
    what = f"{workload} {version}"
    back = [rollout for rollout in found if rollout.rollback_at is not None or rollout.state in _BACK]
    open_ = [rollout for rollout in found if rollout.ended_at is None and rollout not in back]
    missed = [rollout for rollout in found if rollout.state == RolloutState.SUCCEEDED and rollout.unreached]
    said = []
    if back:
        said.append(f"{_runs(len(back), len(results))} {what} was rolled back: {_causes([rollout.message for rollout in back])}")
    if open_:
        causes = _causes([f"{rollout.state}{f', {rollout.message}' if rollout.message else ''}" for rollout in open_])
        said.append(f"{_runs(len(open_), len(results))} the rollout of {what} had not ended: {causes}")
    if missed:
        most = max(rollout.unreached for rollout in missed)
        said.append(
            f"{_runs(len(missed), len(results))} the rollout of {what} ended without devices out of reach, at most {most} (they follow once"
            " back)"
        )
    return said


def _restless(results: Sequence[RunResult]) -> list[str]:
    count = sum(1 for result in results if result.settled_at is None and not result.interrupted)
    return [f"{_runs(count, len(results))} the fleet had not come to rest when the run ended"] if count else []


def _failures(results: Sequence[RunResult]) -> list[str]:
    failed = [result for result in results if devices_failed(result)]
    if not failed:
        return []
    times = Counter(device for result in failed for device in result.devices_failed)
    often = sorted(times.items(), key=lambda item: (-item[1], item[0]))[:_DEVICES_MAX]
    reasons = [reason for result in failed for rollout in rollouts_of(result).values() for _, reason in sorted(rollout.failures.items())]
    why = f" ({_causes(reasons)})" if reasons else ""
    most = max(devices_failed(result) for result in failed)
    if len(results) == 1:
        rest = ", …" if most > len(often) else ""
        return [f"in the run {most} device{'s' * (most != 1)} failed: {', '.join(device for device, _ in often)}{rest}{why}"]
    named = ", ".join(f"{device} in {count}" for device, count in often)
    return [f"{_runs(len(failed), len(results))} devices failed, at most {most} in one run; most often {named}{why}"]


def _runs(count: int, total: int) -> str:
    return f"in {count} of {total} runs" if total > 1 else "in the run"


def _causes(messages: Sequence[str]) -> str:
    """Return the most frequent of `messages`, taking those for the same that differ in numbers only."""
    alike: dict[str, list[str]] = {}
    for message in messages:
        alike.setdefault(_NUMBER.sub("#", message), []).append(message or "no reason was given")
    ordered = sorted(alike.values(), key=lambda group: (-len(group), group[0]))
    if len(ordered) == 1:
        return ordered[0][0]
    causes = "; ".join(f"{group[0]} ({len(group)} times)" if len(group) > 1 else group[0] for group in ordered[:_CAUSES_MAX])
    return causes + ("; …" if len(ordered) > _CAUSES_MAX else "")
