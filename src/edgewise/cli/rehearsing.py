"""`apply --rehearse`: a change on the twin of the fleet that runs, before the fleet has it."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from edgewise.cli import output
from edgewise.cli.failures import CommandError
from edgewise.cli.session import connected, run
from edgewise.cli.simulating import rehearsed
from edgewise.cli.twin_commands import shown_reading, taken, words
from edgewise.resources.meta import DEFAULT_NAMESPACE

if TYPE_CHECKING:
    from edgewise.client.fleet import Client
    from edgewise.resources.config import Config
    from edgewise.resources.kinds import Resource
    from edgewise.resources.workload import Workload
    from edgewise.twin.change import Rehearsed
    from edgewise.twin.fleet import TwinFleet
    from edgewise.twin.plan import Plan
    from edgewise.twin.rehearsal import Rehearsal
    from edgewise.twin.report import Report
    from edgewise.twin.verdict import Verdict

_PICTURE: Final = "rehearsal.svg"
"""Where a refused change is drawn when nobody said where."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """How to rehearse. `scenario` is a name or a file; `picture` a file, empty: a picture is drawn only when the change is refused.
    `files`: where the change was read from."""

    scenario: str
    runs: int
    seed: int
    picture: str
    files: tuple[str, ...]


def rehearse_first(resources: "Sequence[Resource]", wish: Wish, *, namespace: str = "", context: str = "") -> None:
    """Rehearse `resources` on the fleet that runs, and say what is predicted. Raises `CommandError` when the change should not be made,
    `Error` when it cannot be rehearsed, and `KeyboardInterrupt` when it is stopped."""
    from edgewise.twin import picture
    from edgewise.twin.change import change_plan
    from edgewise.twin.library import scenario
    from edgewise.twin.plan import Profile
    from edgewise.twin.rehearsal import usable_processors
    from edgewise.twin.report import about, change_words, report_of
    from edgewise.twin.verdict import judge

    wanted = scenario(wish.scenario)
    if wish.picture:
        picture.check_place(Path(wish.picture))
        picture.check()
    live = run(_live(resources, namespace, context))
    first = change_plan(live.fleet, live.change, wanted, wish.seed, Profile(disk="plain", install="modelled", invariants="cheap"))
    seeds = range(wish.seed, wish.seed + wish.runs)

    def plan_of(seed: int) -> "Plan":
        return msgspec.structs.replace(first.plan, seed=seed)

    subject = about(
        first.plan,
        change_words(first.plan),
        sources=wish.files,
        fleet=f"as it runs at {live.address}",
        assumptions=first.assumptions,
        misfits=first.misfits,
    )
    what = f"{wish.runs} run{'s' * (wish.runs != 1)} of {subject.change}"
    (made,) = rehearsed([plan_of], seeds, processes=usable_processors(), what=what)
    if made.interrupted:
        output.note("nothing was applied")
        raise KeyboardInterrupt
    verdict = judge(made, live.after(), first=live.new(), moves=first.moves)
    _tell(verdict, first)
    drawn = _drawn(made, report_of(made, subject), wish, refused=not verdict.allowed)
    if not verdict.allowed:
        raise _refusal(verdict, wish, live.namespace, drawn)
    if drawn:
        output.note(drawn)


class _Live:
    """The fleet that runs, and the change as it would be applied to it."""

    def __init__(self, fleet: "TwinFleet", change: "Sequence[Resource]", client: "Client") -> None:
        self.fleet = fleet
        self.change = change
        self.address = client.address
        self.namespace = client.namespace

    def workloads(self) -> "tuple[Workload, ...]":
        """Return the workloads of the change."""
        from edgewise.resources.workload import Workload

        return tuple(each for each in self.change if isinstance(each, Workload))

    def after(self) -> "Iterable[Workload]":
        """Return all workloads there will be, those of the change with the budgets that it gives them."""
        return {**{_name(each): each for each in self.fleet.workloads}, **{_name(each): each for each in self.workloads()}}.values()

    def new(self) -> set[str]:
        """Return the names of the workloads that the fleet does not run yet."""
        return {_name(each) for each in self.workloads()} - {_name(each) for each in self.fleet.workloads}


def _name(workload: "Workload") -> str:
    return f"{workload.metadata.namespace}/{workload.metadata.name}"


async def _live(resources: "Sequence[Resource]", namespace: str, context: str) -> _Live:
    from edgewise.resources.config import Config
    from edgewise.resources.workload import Workload

    async with connected(context, namespace) as client:
        change = client.checked(resources, namespace=namespace or None)
        versions = [
            f"{each.metadata.namespace}/{each.spec.artifact.name}:{each.spec.artifact.version}"
            for each in change
            if isinstance(each, Workload)
        ]
        with shown_reading() as told:
            fleet = await taken(client, told, versions)
        output.note(words(fleet, client.address))
        # In this process only: whether a Config of the change changes anything.
        known = [await _config(client, each) for each in change if isinstance(each, Config)]
        fleet = msgspec.structs.replace(fleet, configs=tuple(each for each in known if each is not None))
        return _Live(fleet, change, client)


async def _config(client: "Client", config: "Config") -> "Config | None":
    from edgewise.client.errors import NotFound
    from edgewise.resources.config import Config
    from edgewise.resources.meta import Metadata

    meta = config.metadata
    try:
        there = await client.get(Config, meta.name, namespace=meta.namespace)
    except NotFound:
        return None
    return Config(metadata=Metadata(name=meta.name, namespace=meta.namespace), spec=there.spec)


def _tell(verdict: "Verdict", first: "Rehearsed") -> None:
    for line in first.assumptions:
        output.note(f"assumed: {line}")
    for line in verdict.predictions:
        output.note(f"predicted: {line}")
    for line in (*first.misfits, *verdict.warnings):
        output.note(f"warning: {line}")


def _drawn(made: "Rehearsal", report: "Report", wish: Wish, *, refused: bool) -> str:
    """Draw the picture where one is wanted or needed; return where it is, or why there is none, in words."""
    from edgewise.twin import picture

    if not (refused or wish.picture) or not made.runs:
        return ""
    try:
        paths = picture.write(picture.draw(made.runs, report), Path(wish.picture or _PICTURE))
    except picture.NoPicture as error:
        if wish.picture and not refused:
            raise
        return str(error)
    return f"picture: {', '.join(str(path) for path in paths)}"


def _refusal(verdict: "Verdict", wish: Wish, namespace: str, drawn: str) -> CommandError:
    again = ["edgewise", "simulate", *(word for name in wish.files for word in ("-f", name)), "--fleet", "fleet.json"]
    again += ["-n", namespace] if namespace != DEFAULT_NAMESPACE else []
    again += ["--scenario", wish.scenario, "--runs", str(wish.runs), "--seed", str(wish.seed)]
    hints = [
        drawn,
        f"to look closer: edgewise twin snapshot -o fleet.json, then {shlex.join(again)}",
        "to make the change nevertheless: leave --rehearse out",
    ]
    count = "a reason" if len(verdict.reasons) == 1 else f"{len(verdict.reasons)} reasons"
    return CommandError(
        f"nothing was applied: the rehearsal gives {count} against it",
        "\n".join(verdict.reasons),
        "\n".join(line for line in hints if line),
    )
