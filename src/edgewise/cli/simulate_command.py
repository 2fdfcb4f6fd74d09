"""`simulate`: rehearses a change on a twin of a fleet, or hunts for defects of Edgewise."""

import shlex
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from edgewise.cli.failures import CommandError

if TYPE_CHECKING:
    from edgewise.twin.change import Rehearsed
    from edgewise.twin.fleet import TwinFleet
    from edgewise.twin.plan import Plan, Profile
    from edgewise.twin.rehearsal import Rehearsal
    from edgewise.twin.report import About, Report
    from edgewise.twin.result import RunResult, Violation

RUNS: Final = 20
DEVICES: Final = "100"
_SHRINK_RUNS: Final = 200
_REPLAYS_MAX: Final = 5

Form = Literal["table", "json"]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("simulate")(simulate)


def simulate(
    *,
    what: Annotated[str, typer.Argument(metavar="[scenarios]", help="List the scenarios that are ready.", show_default=False)] = "",
    filename: Annotated[
        list[str] | None,
        typer.Option(
            "--filename", "-f", metavar="FILE", help="The change; the built-in story without. May be repeated.", show_default=False
        ),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            "--compare", metavar="FILE", help="Another way to make the change, side by side. May be repeated.", show_default=False
        ),
    ] = None,
    fleet: Annotated[
        str, typer.Option("--fleet", metavar="FILE|N", help="A fleet that edgewise twin snapshot wrote, or how many devices to make up.")
    ] = DEVICES,
    classes: Annotated[
        str, typer.Option("--classes", metavar="FILE", help="Classes of the devices that are made up.", show_default=False)
    ] = "",
    scenario: Annotated[str, typer.Option("--scenario", metavar="NAME|FILE", help="What else happens: see simulate scenarios.")] = "calm",
    runs: Annotated[
        int | None, typer.Option("--runs", min=1, max=10_000, help=f"How many runs; {RUNS}, or 1 with --seed.", show_default=False)
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Seed of the first run; alone: make this run again.", show_default=False)
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option("--processes", min=1, max=256, help="Processes to use; one per processor if not given.", show_default=False),
    ] = None,
    only: Annotated[
        str, typer.Option("--only", metavar="3,17", help="Only the faults with these numbers, or none; with --seed.", show_default=False)
    ] = "",
    acts: Annotated[
        str, typer.Option("--acts", metavar="1,2", help="Only these of the operator's acts, or none; with --seed.", show_default=False)
    ] = "",
    chaos: Annotated[bool, typer.Option("--chaos", help="Random fleets, changes and faults: to find defects of Edgewise.")] = False,
    exact: Annotated[
        bool, typer.Option("--exact", help="Simulate disks and installs byte by byte and check every invariant: much slower.")
    ] = False,
    shrink: Annotated[bool, typer.Option("--shrink", help="When an invariant does not hold: look for fewer faults that do it.")] = False,
    form: Annotated[Form, typer.Option("--output", "-o", help="How to print.")] = "table",
    picture: Annotated[
        str, typer.Option("--picture", metavar="FILE", help="Draw a timeline: .svg, .png, or both without a suffix.", show_default=False)
    ] = "",
    trace: Annotated[
        str, typer.Option("--trace", metavar="FILE", help="Write everything that happens, a line each; one run only.", show_default=False)
    ] = "",
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", metavar="NAME", help="Namespace of what the files leave without one.")
    ] = "default",
    list_scenarios: Annotated[bool, typer.Option("--list-scenarios", help="List the scenarios that are ready.")] = False,
) -> None:
    """Rehearse a change on a twin of the fleet.

    The real decisions of device and control plane run in simulated time, many times over: how long the change takes, what fails, what
    it costs. Nothing real is touched. Equal input gives equal runs: --seed makes one of them again.
    """
    if what or list_scenarios:
        if what not in ("", "scenarios"):
            raise typer.BadParameter(f"there is no {what!r} to list: only scenarios (a change is given with -f)")
        _print_scenarios(form)
        return
    wanted = _Wanted(
        files=tuple(filename or ()),
        fleet=fleet,
        classes=classes,
        scenario=scenario,
        seeds=_seeds(runs, seed),
        only=_numbers(only, "--only"),
        acts=_numbers(acts, "--acts"),
        chaos=chaos,
        exact=exact,
        namespace=namespace,
    )
    _check(wanted, compare or (), trace, seed)
    code = _simulate(wanted, tuple(compare or ()), form=form, picture=picture, trace=trace, processes=processes, shrink=shrink)
    if code:
        raise typer.Exit(code)


# ---- what is wanted ----


@dataclass(frozen=True)
class _Wanted:
    """What one strategy is simulated with."""

    files: tuple[str, ...]
    fleet: str
    classes: str
    scenario: str
    seeds: tuple[int, ...]
    only: tuple[int, ...] | None
    acts: tuple[int, ...] | None
    chaos: bool
    exact: bool
    namespace: str


def _seeds(runs: int | None, seed: int | None) -> tuple[int, ...]:
    first = 1 if seed is None else seed
    count = runs if runs is not None else RUNS if seed is None else 1
    return tuple(range(first, first + count))


def _numbers(text: str, option: str) -> tuple[int, ...] | None:
    if not text:
        return None
    if text == "none":
        return ()
    try:
        return tuple(sorted({int(number) for number in text.split(",")}))
    except ValueError:
        raise typer.BadParameter(f"{option} takes numbers with commas between them, or none; not {text!r}") from None


def _check(wanted: _Wanted, compare: Sequence[str], trace: str, seed: int | None) -> None:
    """Refuse what makes no sense together."""
    given = (wanted.files, compare, wanted.classes, wanted.fleet != DEVICES, wanted.scenario != "calm")
    if wanted.chaos and any(given):
        raise typer.BadParameter("--chaos makes up everything from the seed: it takes no file, fleet, classes or scenario")
    if compare and not wanted.files:
        raise typer.BadParameter("--compare needs a change to compare with: give it with -f")
    if (wanted.only is not None or wanted.acts is not None) and (seed is None or len(wanted.seeds) > 1):
        raise typer.BadParameter("--only and --acts name faults and acts of one run: say which with --seed, without --runs")
    if trace and (len(wanted.seeds) > 1 or compare):
        raise typer.BadParameter("--trace is of one run: say which with --seed, without --runs and --compare")
    if wanted.classes and not wanted.fleet.isdigit():
        raise typer.BadParameter("--classes is for a fleet that is made up (--fleet N): a snapshot has its own")


def _print_scenarios(form: Form) -> None:
    from edgewise.cli import output
    from edgewise.twin.library import names, scenario

    found = [scenario(name) for name in names()]
    if form == "json":
        output.out(output.as_json([{"name": one.name, "description": one.description} for one in found]))
        return
    widest = max(len(one.name) for one in found)
    width = max(40, output.columns() - widest - 3)
    rows = []
    for one in found:
        first, *more = textwrap.wrap(one.description, width) or [""]
        rows += [(one.name, first), *(("", line) for line in more)]
    output.out(output.table(("NAME", "WHAT HAPPENS"), rows))


# ---- plans ----


class _Strategy:
    """One way to make the change: its plans, and what is said about it."""

    def __init__(self, wanted: _Wanted, devices: "TwinFleet | None") -> None:
        self.wanted = wanted
        self._make = _chaos(wanted) if devices is None else _maker(wanted, devices)
        self.first = self._make(wanted.seeds[0])

    def whole(self, seed: int) -> "Plan":
        """Return all that a seed gives."""
        return (self.first if seed == self.wanted.seeds[0] else self._make(seed)).plan

    def plan(self, seed: int) -> "Plan":
        """Return the plan of one run, without what is left out of it."""
        import msgspec

        from edgewise.twin.shrink import with_acts

        plan = self.whole(seed) if self.wanted.acts is None else with_acts(self.whole(seed), self.wanted.acts)
        return plan if self.wanted.only is None else msgspec.structs.replace(plan, only=self.wanted.only)

    def about(self) -> "About":
        """Return what is rehearsed, for the report."""
        from edgewise.twin.report import about, change_words

        wanted, plan = self.wanted, self.first.plan
        if wanted.chaos:
            several = len(wanted.seeds) > 1
            what = "random fleets and changes" if several else "a random fleet and its changes"
            return about(plan, what, assumptions=self.first.assumptions, devices=not several)
        fleet = "made up" if wanted.fleet.isdigit() else f"snapshot {wanted.fleet}{_taken(plan)}"
        change = change_words(plan) if wanted.files else "the built-in story"
        said = (*self.first.moves, *self.first.assumptions)
        return about(plan, change, sources=wanted.files, fleet=fleet, assumptions=said, misfits=self.first.misfits)


def _taken(plan: "Plan") -> str:
    """Say when the snapshot was taken, where it says so: an old one rehearses on a fleet that is no more."""
    from datetime import UTC, datetime

    at = plan.fleet.taken_at
    return f", taken {datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC" if 0 < at < 1e11 else ""


def _check_numbers(wanted: _Wanted, plan: "Plan") -> None:
    """Refuse numbers of faults and acts that the run does not have: it would be another run than was meant, in silence."""
    from edgewise.twin.schedule import schedule

    for option, given, count, what in (
        ("--only", wanted.only, len(schedule(plan.scenario, plan.fleet, plan.seed)) if wanted.only else 0, "faults"),
        ("--acts", wanted.acts, len(plan.acts), "acts"),
    ):
        wrong = [number for number in given or () if not 1 <= number <= count]
        if wrong:
            have = f"{what} 1 to {count}" if count > 1 else f"{what} 1 only" if count else f"no {what}"
            raise CommandError(f"{option} names {', '.join(map(str, wrong))}: the run with seed {plan.seed} has {have}")


def _profile(wanted: _Wanted) -> "Profile":
    from edgewise.twin.plan import Profile

    return Profile() if wanted.exact else Profile(disk="plain", install="modelled", invariants="cheap")


def _chaos(wanted: _Wanted) -> "Callable[[int], Rehearsed]":  # noqa: ARG001 - the seed is all there is to it
    from edgewise.twin.change import Rehearsed
    from edgewise.twin.chaos import chaos_plan

    return lambda seed: Rehearsed(plan=chaos_plan(seed))


def _maker(wanted: _Wanted, devices: "TwinFleet") -> "Callable[[int], Rehearsed]":
    from edgewise.cli.resource_commands import read_files
    from edgewise.twin.library import scenario
    from edgewise.twin.story import change_plan, story_plan

    around, profile = scenario(wanted.scenario), _profile(wanted)
    if not wanted.files:
        return lambda seed: story_plan(devices, around, seed, profile)
    resources = read_files(wanted.files)
    if not resources:
        raise CommandError("nothing to rehearse", ", ".join(wanted.files), "the files hold no resource")
    return lambda seed: change_plan(devices, resources, around, seed, profile, namespace=wanted.namespace)


@lru_cache(maxsize=1)
def _devices(fleet: str, classes: str) -> "TwinFleet":
    from edgewise.twin.generate import DEFAULT_CLASSES, load_classes, load_fleet, made_fleet

    if not fleet.isdigit():
        return load_fleet(Path(fleet))
    return made_fleet(int(fleet), load_classes(Path(classes)) if classes else DEFAULT_CLASSES)


# ---- runs ----


def _simulate(
    wanted: _Wanted, compare: tuple[str, ...], *, form: Form, picture: str, trace: str, processes: int | None, shrink: bool
) -> int:
    """Make the runs, print and draw what they gave; return the exit code."""
    from dataclasses import replace

    from edgewise.cli.simulating import INTERRUPTED
    from edgewise.twin.report import report_of

    if picture:
        from edgewise.twin.picture import check, check_place

        check()
        check_place(Path(picture))
    devices = None if wanted.chaos else _devices(wanted.fleet, wanted.classes)
    strategies = [_Strategy(wanted, devices)]
    _check_numbers(wanted, strategies[0].first.plan)
    if compare:
        strategies.append(_Strategy(replace(wanted, files=compare), devices))
    rehearsals = _runs(strategies, processes, trace)
    # What was interrupted before it began is not worth a word.
    begun = [number for number, each in enumerate(rehearsals) if number == 0 or each.runs or each.partial or each.lost]
    made = [(rehearsals[number], report_of(rehearsals[number], strategies[number].about())) for number in begun]
    _print(made, form)
    code = 0
    for strategy, (rehearsal, _) in zip(strategies, made, strict=False):
        code = max(code, _defects(strategy, rehearsal, shrink=shrink))
    if picture:
        # Last: a disk that is full then costs the picture, not the commands that replay what went wrong.
        _draw(made, Path(picture))
    return INTERRUPTED if any(each.interrupted for each in rehearsals) else code


def _runs(strategies: Sequence[_Strategy], processes: int | None, trace: str) -> "tuple[Rehearsal, ...]":
    from edgewise.cli.simulating import rehearsed
    from edgewise.twin.rehearsal import usable_processors

    seeds = strategies[0].wanted.seeds
    each = " each" if len(strategies) > 1 else ""
    changes = " and ".join(dict.fromkeys(strategy.about().change for strategy in strategies))
    what = f"{len(seeds)} run{'s' * (len(seeds) != 1)}{each} of {changes}"
    make = partial(rehearsed, [strategy.plan for strategy in strategies], seeds, processes=processes or usable_processors(), what=what)
    if not trace:
        return make()
    from edgewise.twin.run import run

    try:
        with Path(trace).open("w", encoding="utf-8") as file:
            return make(runner=partial(run, sink=partial(print, file=file)))
    except OSError as error:
        raise CommandError(f"the trace cannot be written: {error.strerror or error}", trace) from None


def _print(made: "Sequence[tuple[Rehearsal, Report]]", form: Form) -> None:
    import msgspec

    from edgewise.cli import output
    from edgewise.twin.report import compare
    from edgewise.twin.tables import comparison_table, report_table

    comparison = compare(*made) if len(made) == 2 and all(report.runs for _, report in made) else None
    if form == "json":
        output.out(output.as_json(msgspec.to_builtins(comparison or made[0][1])))
    elif comparison is not None:
        output.out(comparison_table(comparison, colour=output.in_colour()))
    else:
        for _, report in made:
            output.out(report_table(report, colour=output.in_colour()))


def _draw(made: "Sequence[tuple[Rehearsal, Report]]", path: Path) -> None:
    from edgewise.cli import output
    from edgewise.twin.picture import draw, write

    for letter, (rehearsal, report) in zip("ab", made, strict=False):
        results = rehearsal.runs or rehearsal.partial
        if not results:
            continue
        target = path if len(made) == 1 else path.with_name(f"{path.stem}-{letter}{path.suffix}")
        output.note("picture: " + ", ".join(str(written) for written in write(draw(results, report), target)))


# ---- what does not hold ----


def _defects(strategy: _Strategy, rehearsal: "Rehearsal", *, shrink: bool) -> int:
    """Tell runs in which an invariant did not hold, or that gave nothing, with the command that makes each again; return the exit code."""
    from edgewise.cli import output

    failed = [result for result in (*rehearsal.runs, *rehearsal.partial) if result.violations]
    if failed:
        output.note(f"error: invariants did not hold in {len(failed)} of {rehearsal.planned} runs: a defect of edgewise, please report it")
    for result in failed[:_REPLAYS_MAX]:
        first = result.violations[0]
        more = f" (and {len(result.violations) - 1} more)" if len(result.violations) > 1 else ""
        output.note(f"  {first.invariant} at {first.at:.3f} s, {first.subject}: {first.message}{more}")
        output.note(f"    replay it: {_command(strategy, strategy.plan(result.seed))}")
    if failed and shrink:
        _shrink(strategy, failed[0], failed[0].violations[0])
    shown: set[str] = set()
    for lost in rehearsal.lost[:_REPLAYS_MAX]:
        output.note(f"error: the run with seed {lost.seed} gave no result: {lost.reason}")
        output.note(f"    replay it: {_command(strategy, strategy.plan(lost.seed))}")
        if lost.details and lost.details not in shown:
            shown.add(lost.details)
            output.note("\n".join(f"    {line}" for line in lost.details.splitlines()[-4:]))
    return 1 if failed or rehearsal.lost else 0


def _shrink(strategy: _Strategy, result: "RunResult", violation: "Violation") -> None:
    from edgewise.cli import output
    from edgewise.cli.simulating import stoppable
    from edgewise.twin.run import run
    from edgewise.twin.shrink import shrink

    tried = 0
    with stoppable() as stop:

        def fails(plan: "Plan") -> bool:
            nonlocal tried
            if stop():
                return False
            tried += 1
            return any(found.invariant == violation.invariant for found in run(plan, stop=stop).violations)

        output.note(
            f"looking for fewer faults that break {violation.invariant} (at most {_SHRINK_RUNS} runs; Ctrl-C keeps the best so far)"
        )
        whole = strategy.plan(result.seed)
        smaller = shrink(whole, fails, _SHRINK_RUNS)
    faults = len(smaller.only) if smaller.only is not None else result.faults
    output.note(f"  {faults} of {result.faults} faults and {len(smaller.acts)} of {len(whole.acts)} acts do it ({tried} runs)")
    output.note(f"    replay it: {_command(strategy, smaller)}")


def _command(strategy: _Strategy, plan: "Plan") -> str:
    """Return the one command that makes the run of `plan` again."""
    wanted = strategy.wanted
    words = ["edgewise", "simulate"]
    for name in wanted.files:
        words += ["-f", name]
    if wanted.namespace != "default":
        words += ["-n", wanted.namespace]
    if wanted.chaos:
        words.append("--chaos")
    else:
        words += ["--fleet", wanted.fleet, *(["--classes", wanted.classes] if wanted.classes else []), "--scenario", wanted.scenario]
    words += [*(["--exact"] if wanted.exact else []), "--seed", str(plan.seed)]
    if plan.only is not None:
        words += ["--only", ",".join(map(str, plan.only)) or "none"]
    kept = _kept_acts(strategy, plan)
    if kept is not None:
        words += ["--acts", ",".join(map(str, kept)) or "none"]
    return shlex.join(words)


def _kept_acts(strategy: _Strategy, plan: "Plan") -> tuple[int, ...] | None:
    """Return the numbers, from 1, of the acts of a plan among those that its seed gives; None: all of them."""
    everything = strategy.whole(plan.seed).acts
    if len(plan.acts) == len(everything):
        return None
    left = list(plan.acts)
    numbers = []
    for number, act in enumerate(everything, start=1):
        if left and act == left[0]:
            numbers.append(number)
            left.pop(0)
    return tuple(numbers)
