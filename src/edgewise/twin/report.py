"""The report of a rehearsal: what people read as a table and programs as JSON; and two strategies side by side.

report_of(rehearsal, about) -> Report; compare(first, second) -> Comparison
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from math import comb
from typing import Final, Literal

import msgspec

from edgewise.resources.artifact import Artifact
from edgewise.resources.workload import Workload
from edgewise.twin.distributions import (
    Distributions,
    Spread,
    change_seconds,
    devices_failed,
    distributions,
    rollouts_of,
    spread,
    words,
)
from edgewise.twin.expected import workload_key
from edgewise.twin.fleet import TwinFleet
from edgewise.twin.plan import Plan
from edgewise.twin.rehearsal import LostRun, Rehearsal
from edgewise.twin.result import RunResult, Violation

__all__ = [
    "About",
    "Comparison",
    "ComparisonRow",
    "Report",
    "RunSummary",
    "about",
    "all_well",
    "change_words",
    "compare",
    "hash_over",
    "is_clear",
    "report_of",
]

VERSION: Final = 1
"""Version of the JSON of `Report` and `Comparison`; it grows when a field changes its meaning or goes."""

Unit = Literal["seconds", "devices", "bytes", "minutes", "watt-hours", "share"]

_CHANGES_MAX: Final = 2

_CLEAR: Final = 0.01
"""How improbable a difference must be by chance alone to be called clear."""


class About(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What was rehearsed. `change` names it in a few words, `sources` are its files; `assumptions` are what the twin takes for
    granted and a reader must know; `misfits` what of the change finds no device."""

    change: str
    scenario: str
    sources: tuple[str, ...] = ()
    scenario_description: str = ""
    devices: int = 0
    sites: int = 0
    classes: dict[str, int] = {}
    fleet: str = ""
    assumptions: tuple[str, ...] = ()
    misfits: tuple[str, ...] = ()


class RunSummary(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One run in a line. `rollouts` maps "WORKLOAD VERSION" to the state in which its rollout was at the end."""

    seed: int
    trace_hash: str = msgspec.field(name="trace_hash")
    change_seconds: float | None
    settled_at: float | None
    devices_failed: int
    rollouts: dict[str, str]
    faults: int
    events: int
    exchanges: int
    simulated_seconds: float
    device_hours: float
    interrupted: bool = False
    violations: tuple[Violation, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A whole rehearsal. `trace_hash` is one over all `runs`: equal for equal input, on every machine. `figures` is None when there was no
    run. `interrupted`: stopped before all `planned` runs were done; figures are over the whole runs, and over the partial ones only when
    there is no other. `words`: what went wrong."""

    report_version: int = VERSION
    about: About
    planned: int
    seeds: tuple[int, ...]
    trace_hash: str = msgspec.field(name="trace_hash")
    figures: Distributions | None
    words: tuple[str, ...]
    runs: tuple[RunSummary, ...]
    lost: tuple[LostRun, ...] = ()
    interrupted: bool = False


class ComparisonRow(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One figure of both strategies. `better` is empty unless less of it is better and the difference is clear: over the pairs of runs with
    the same seed, so many more went one way than the other that chance does so in fewer than 1 of 100 rehearsals (two-sided sign test).
    How long the change takes is judged over pairs that ended alike only: a quick rollback is no quick success. A share is that of the
    runs, three times the same. `first_less`, `second_less`: in how many pairs."""

    figure: str
    unit: Unit
    first: Spread
    second: Spread
    better: Literal["", "first", "second"] = ""
    first_less: int = 0
    second_less: int = 0


class Comparison(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Two strategies under the same seeds, so under the same faults."""

    report_version: int = VERSION
    first: Report
    second: Report
    rows: tuple[ComparisonRow, ...]


def about(
    plan: Plan,
    change: str,
    *,
    sources: Sequence[str] = (),
    fleet: str = "",
    assumptions: Sequence[str] = (),
    misfits: Sequence[str] = (),
    devices: bool = True,
) -> About:
    """Return what `plan` rehearses. Without `devices`, nothing is said of the fleet: each run has its own."""
    return About(
        change=change,
        scenario=plan.scenario.name,
        scenario_description=plan.scenario.description,
        sources=tuple(sources),
        devices=len(plan.fleet.devices) if devices else 0,
        sites=len(plan.fleet.sites) if devices else 0,
        classes=_classes(plan.fleet) if devices else {},
        fleet=fleet,
        assumptions=tuple(assumptions),
        misfits=tuple(misfits),
    )


def change_words(plan: Plan) -> str:
    """Return in a few words what the operator does in `plan`: which workloads go from what to what."""
    runs = {workload_key(workload): _reference(workload) for workload in plan.fleet.workloads}
    said: list[str] = []
    for act in plan.acts:
        match act.apply:
            case Workload():
                key, coming = workload_key(act.apply), _reference(act.apply)
                before = runs.get(key)
                said.append(
                    f"{key} {coming}, new" if before is None else f"{key} {before} to {coming}" if before != coming else f"{key} changes"
                )
                runs[key] = coming
            case Artifact():
                said += [f"{alias} of {act.apply.metadata.name} to {version}" for alias, version in sorted(act.apply.spec.aliases.items())]
            case _:
                said += [f"{act.delete} goes"] if act.delete else []
    more = f" and {len(said) - _CHANGES_MAX} more" if len(said) > _CHANGES_MAX else ""
    return ", ".join(said[:_CHANGES_MAX]) + more if said else "no change"


def _reference(workload: Workload) -> str:
    return workload.spec.artifact.version or workload.spec.artifact.alias or ""


def _classes(fleet: TwinFleet) -> dict[str, int]:
    counts = {sort.name: 0 for sort in fleet.classes}
    for device in fleet.devices:
        counts[device.device_class] = counts.get(device.device_class, 0) + 1
    return {name: counts[name] for name in sorted(counts)}


def report_of(rehearsal: Rehearsal, subject: About) -> Report:
    """Return the report of `rehearsal`."""
    results = rehearsal.runs or rehearsal.partial
    return Report(
        about=subject,
        planned=rehearsal.planned,
        seeds=tuple(result.seed for result in results),
        trace_hash=hash_over(results),
        figures=distributions(results) if results else None,
        words=(*subject.misfits, *words(results, rehearsal.lost)),
        runs=tuple(_summary(result) for result in results),
        lost=rehearsal.lost,
        interrupted=rehearsal.interrupted,
    )


def all_well(report: Report) -> str:
    """Say that nothing went wrong, and what a reader would miss if that were all."""
    offline = report.figures.devices_offline.p95 if report.figures is not None and report.figures.devices_offline is not None else None
    if not offline:
        return "Nothing went wrong."
    return f"Nothing went wrong with the change, though up to {offline:,.0f} device{'s' * (offline != 1)} were offline at one time."


def hash_over(results: Sequence[RunResult]) -> str:
    """Return one hash over the traces of all runs: that of the only one, where there is one."""
    if len(results) == 1:
        return results[0].trace_hash
    text = "".join(f"{result.seed} {result.trace_hash}\n" for result in results)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _summary(result: RunResult) -> RunSummary:
    return RunSummary(
        seed=result.seed,
        trace_hash=result.trace_hash,
        change_seconds=change_seconds(result),
        settled_at=result.settled_at,
        devices_failed=devices_failed(result),
        rollouts={f"{workload} {version}": rollout.state for (workload, version), rollout in sorted(rollouts_of(result).items())},
        faults=result.faults,
        events=result.events,
        exchanges=result.exchanges,
        simulated_seconds=result.simulated_seconds,
        device_hours=result.device_hours,
        interrupted=result.interrupted,
        violations=result.violations,
    )


_Value = Callable[[RunResult], float | None]
_Judged = Literal["always", "where the end is the same", "never"]


class _Figure(msgspec.Struct, frozen=True):
    """One thing that is compared: how a run has it, and when less of it is better."""

    name: str
    unit: Unit
    judged: _Judged
    value: _Value


def _figures(results: Sequence[RunResult]) -> list[_Figure]:
    names = sorted({workload.workload for result in results for workload in result.workloads})
    return [
        _Figure("change takes", "seconds", "where the end is the same", change_seconds),
        _Figure("rolled back", "share", "never", _went_back),
        _Figure("devices touched", "devices", "never", lambda result: sum(rollout.touched for rollout in rollouts_of(result).values())),
        _Figure("devices that fail", "devices", "always", devices_failed),
        *(_Figure(f"unavailable: {name}", "minutes", "always", _unavailable(name)) for name in names),
        *(_Figure(f"longest on one device: {name}", "minutes", "always", _longest(name)) for name in names),
        _Figure("over all links", "bytes", "always", lambda result: sum(result.site_bytes.values())),
        _Figure("energy", "watt-hours", "always", lambda result: result.energy_watt_hours),
    ]


def _went_back(result: RunResult) -> float:
    return float(any(rollout.rollback_at is not None for rollout in rollouts_of(result).values()))


def _ends(result: RunResult) -> list[str]:
    return [rollout.state for _, rollout in sorted(rollouts_of(result).items())]


def _unavailable(name: str) -> _Value:
    return lambda result: sum(workload.unavailable_seconds for workload in result.workloads if workload.workload == name) / 60


def _longest(name: str) -> _Value:
    return lambda result: max((workload.unavailable_minutes_max for workload in result.workloads if workload.workload == name), default=0.0)


def compare(first: tuple[Rehearsal, Report], second: tuple[Rehearsal, Report]) -> Comparison:
    """Return two strategies side by side. Runs with the same seed are pairs; both have at least one run."""
    ours, theirs = ({result.seed: result for result in rehearsal.runs or rehearsal.partial} for rehearsal, _ in (first, second))
    everything = [*ours.values(), *theirs.values()]
    pairs = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
    rows = [_row(figure, list(ours.values()), list(theirs.values()), pairs) for figure in _figures(everything)]
    return Comparison(first=first[1], second=second[1], rows=tuple(rows))


def _row(
    figure: _Figure, ours: Sequence[RunResult], theirs: Sequence[RunResult], pairs: Sequence[tuple[RunResult, RunResult]]
) -> ComparisonRow:
    if figure.judged == "where the end is the same":
        pairs = [(one, other) for one, other in pairs if _ends(one) == _ends(other)]
    less, more = _signs([(figure.value(one), figure.value(other)) for one, other in pairs])
    clear = figure.judged != "never" and is_clear(less, more)
    return ComparisonRow(
        figure=figure.name,
        unit=figure.unit,
        first=_over(figure, ours),
        second=_over(figure, theirs),
        better=("first" if less > more else "second") if clear else "",
        first_less=less,
        second_less=more,
    )


def _over(figure: _Figure, results: Sequence[RunResult]) -> Spread:
    values = [figure.value(result) for result in results]
    if figure.unit != "share":
        return spread(values)
    mean = sum(value or 0.0 for value in values) / len(values)
    return Spread(p5=mean, p50=mean, p95=mean)


def _signs(pairs: Sequence[tuple[float | None, float | None]]) -> tuple[int, int]:
    """Return in how many pairs the first is less, and the second; None is more than every number."""
    keys = [((one is None, one or 0.0), (other is None, other or 0.0)) for one, other in pairs]
    return sum(1 for one, other in keys if one < other), sum(1 for one, other in keys if other < one)


def is_clear(less: int, more: int) -> bool:
    """Whether `less` against `more` of paired runs is more than chance: the exact two-sided sign test at 1 %. Eight pairs at least."""
    pairs = less + more
    tail = sum(comb(pairs, wins) for wins in range(max(less, more), pairs + 1))
    return less != more and 2 * tail < _CLEAR * 2**pairs
