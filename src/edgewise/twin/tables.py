"""Reports as people read them in a terminal: 100 columns, plain words, units."""

import io
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from edgewise.twin import units
from edgewise.twin.distributions import Distributions, RolloutOutcome, Spread
from edgewise.twin.report import About, Comparison, ComparisonRow, Report, Unit, all_well

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["WIDTH", "comparison_table", "report_table"]

WIDTH: Final = 100
_SITES_MAX: Final = 8
_BAD: Final = "red"
_GOOD: Final = "green"
_NEVER: Final = "not ended"

_Say = Callable[[float], str]
_UNITS: Final[dict[Unit, _Say]] = {
    "seconds": units.duration,
    "devices": units.amount,
    "bytes": units.bytes_,
    "minutes": units.minutes,
    "watt-hours": units.energy,
    "share": units.share,
}


def report_table(report: Report, *, colour: bool = False, width: int = WIDTH) -> str:
    """Return the report as text."""
    return _printed(_report(report), colour, width)


def comparison_table(comparison: Comparison, *, colour: bool = False, width: int = WIDTH) -> str:
    """Return two strategies side by side; the better value is marked with ✓ where the difference is clear."""
    return _printed(_comparison(comparison), colour, width)


def _printed(parts: "Iterator[RenderableType]", colour: bool, width: int) -> str:
    from rich.console import Console

    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=colour,
        color_system="standard" if colour else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    for part in parts:
        console.print(part)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO of above
    return "".join(line.rstrip() + "\n" for line in text.splitlines())


def _report(report: Report) -> "Iterator[RenderableType]":
    yield from _heading(report.about, report)
    if report.figures is not None:
        yield ""
        yield _figures(report.figures)
        if report.figures.rollouts:
            yield ""
            yield _rollouts(report.figures.rollouts, several=len(report.runs) > 1)
    yield from _words(report)
    yield from _footer(report)


def _heading(subject: About, report: Report) -> "Iterator[RenderableType]":
    from rich.text import Text

    yield Text(f"Rehearsal: {subject.change}", style="bold")
    yield Text(f"{_fleet(subject)}; scenario {subject.scenario}; {_runs(report)}")


def _fleet(subject: About) -> str:
    if not subject.devices:
        return "a fleet of its own in every run"
    sites = f"{units.amount(subject.sites)} site{'s' * (subject.sites != 1)}"
    return f"{units.amount(subject.devices)} device{'s' * (subject.devices != 1)} at {sites}" + (
        f" ({subject.fleet})" if subject.fleet else ""
    )


def _runs(report: Report) -> str:
    count = len(report.runs)
    if report.interrupted:
        partial = sum(1 for run in report.runs if run.interrupted)
        return f"INTERRUPTED: {count - partial} of {report.planned} runs" + (" (figures are of unfinished ones)" if partial else "")
    if not count:
        return f"none of {report.planned} runs gave a result"
    return f"{count} run{'s' * (count != 1)}, {_seeds(report.seeds)}"


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"seeds {seeds[0]} to {seeds[-1]}"
    return f"{len(seeds)} seeds"


def _grid(*titles: str, first: str = "") -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False, header_style="bold", expand=True)
    table.add_column(first, ratio=1)
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True, min_width=14)
    return table


def _figures(figures: Distributions) -> "Table":
    several = figures.runs > 1
    table = _grid("p5", "p50", "p95", first=f"over {figures.runs} runs") if several else _grid("", first="in this run")

    def row(name: str, of: Spread, say: _Say) -> None:
        cells = _cells(of, say)
        table.add_row(name, *(cells if several else cells[:1]))

    if figures.change_seconds is not None:
        row("the change takes", figures.change_seconds, units.duration)
    row("the fleet is at rest after", figures.settled_seconds, units.duration)
    row("devices that fail", figures.devices_failed, units.amount)
    if figures.devices_offline is not None:
        row("devices offline, most at one time", figures.devices_offline, units.amount)
    for outcome in figures.workloads:
        row(f"{outcome.workload}: unavailable, all devices", outcome.unavailable_minutes, units.minutes)
        row("   share of the time it was wanted", outcome.unavailable_share, units.share)
        row("   longest on one device", outcome.longest_minutes, units.minutes)
        row("   restarts", outcome.restarts, units.amount)
    row("energy", figures.energy_watt_hours, units.energy)
    sites = sorted(figures.site_bytes.items(), key=lambda item: (-(item[1].p50 or 0), item[0]))
    for site, of in sites[:_SITES_MAX]:
        row(f"over the link of {site}", of, units.bytes_)
    if len(sites) > _SITES_MAX:
        table.add_row(f"   and {len(sites) - _SITES_MAX} more sites, each less (-o json has all)")
    return table


def _cells(of: Spread, say: _Say) -> list[str]:
    return [_NEVER if value is None else say(value) for value in (of.p5, of.p50, of.p95)]


def _rollouts(outcomes: Sequence[RolloutOutcome], *, several: bool) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False, header_style="bold", expand=True)
    table.add_column("rollout", ratio=2)
    table.add_column("ended in so many runs as" if several else "ended as", ratio=3)
    table.add_column("devices touched", justify="right", no_wrap=True)
    table.add_column("goes back after", justify="right", no_wrap=True)
    for outcome in outcomes:
        often = sorted(outcome.states.items(), key=lambda item: (-item[1], item[0]))
        states = Text(", ").join(Text(f"{state} {count}" if several else state, style=_state_style(state)) for state, count in often)
        table.add_row(f"{outcome.workload} {outcome.version}", states, _range(outcome.devices_touched, units.amount), _back(outcome))
    return table


def _state_style(state: str) -> str:
    return _GOOD if state == "Succeeded" else _BAD if state in ("RolledBack", "RollingBack", "Aborted") else "yellow"


def _range(of: Spread, say: _Say) -> str:
    low, _, high = _cells(of, say)
    return low if low == high else f"{low} to {high}"


def _back(outcome: RolloutOutcome) -> str:
    return "never" if outcome.rollback_seconds is None else _range(outcome.rollback_seconds, units.duration)


def _words(report: Report) -> "Iterator[RenderableType]":
    from rich.padding import Padding
    from rich.text import Text

    yield ""
    if not report.words:
        yield Text(all_well(report) if report.runs else "There is no result.", style=_GOOD if report.runs else _BAD)
        return
    yield Text("What went wrong", style="bold")
    for sentence in report.words:
        yield Padding(Text(sentence), (0, 0, 0, 2))


def _footer(report: Report) -> "Iterator[RenderableType]":
    from rich.padding import Padding
    from rich.text import Text

    if report.about.assumptions:
        yield ""
        yield Text("Taken for granted", style="bold")
        for assumption in report.about.assumptions:
            yield Padding(Text(assumption), (0, 0, 0, 2))
    yield ""
    figures = report.figures
    if figures is not None:
        yield Text(f"{units.amount(figures.device_hours)} device-hours, {units.amount(figures.exchanges)} exchanges simulated", style="dim")
    if report.runs:
        over = "" if len(report.runs) == 1 else f" over {len(report.runs)} runs"
        yield Text(f"trace hash{over} {report.trace_hash}", style="dim")


def _comparison(comparison: Comparison) -> "Iterator[RenderableType]":
    from rich import box
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    first, second = comparison.first, comparison.second
    yield Text("Two strategies under the same faults", style="bold")
    yield Text(f"{_fleet(first.about)}; scenario {first.about.scenario}; {_runs(first)}")
    yield Text(f"A: {first.about.change} ({', '.join(first.about.sources) or 'built-in story'})")
    yield Text(f"B: {second.about.change} ({', '.join(second.about.sources) or 'built-in story'})")
    yield ""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False, header_style="bold", expand=True)
    table.add_column("p50, and p5 to p95 below", ratio=1)
    table.add_column("A", justify="right", no_wrap=True)
    table.add_column("B", justify="right", no_wrap=True)
    table.add_column("less in", justify="right", no_wrap=True)
    for row in comparison.rows:
        table.add_row(row.figure, _side(row, "first"), _side(row, "second"), _less(row))
    yield table
    yield ""
    yield Text("✓ is better: over runs with the same seed, chance alone does so in fewer than 1 of 100 rehearsals.", style="dim")
    for letter, report in (("A", first), ("B", second)):
        if report.words:
            yield ""
            yield Text(f"What went wrong with {letter}", style="bold")
            for sentence in report.words:
                yield Padding(Text(sentence), (0, 0, 0, 2))
    assumed = dict.fromkeys((*first.about.assumptions, *second.about.assumptions))
    if assumed:
        yield ""
        yield Text("Taken for granted", style="bold")
        for assumption in assumed:
            yield Padding(Text(assumption), (0, 0, 0, 2))
    yield ""
    yield Text(f"trace hash A {first.trace_hash}, B {second.trace_hash}", style="dim")


def _side(row: ComparisonRow, side: str) -> "RenderableType":
    from rich.text import Text

    of = row.first if side == "first" else row.second
    low, middle, high = _cells(of, _UNITS[row.unit])
    text = middle if low == high else f"{middle}\n{low} to {high}"
    return Text(f"✓ {text}" if row.better == side else text, style="bold green" if row.better == side else "")


def _less(row: ComparisonRow) -> str:
    if row.first_less == row.second_less == 0:
        return "the same"
    return f"A {row.first_less}, B {row.second_less}"
