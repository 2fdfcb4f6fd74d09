"""`apply`, `get`, `describe`, `delete`: what kubectl's do, for the kinds of a fleet."""

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from edgewise.cli import options
from edgewise.cli.failures import CommandError
from edgewise.cli.session import connected, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgewise.client.answers import AppliedResource
    from edgewise.client.errors import Error
    from edgewise.client.fleet import Client
    from edgewise.resources.kinds import Kind, Resource

Things = Annotated[list[str], typer.Argument(metavar="KIND [NAME…]", help="Such as devices, workload inspector, or device/edge-1.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("apply")(apply)
    app.command("get")(get)
    app.command("describe")(describe)
    app.command("delete")(delete)


def apply(
    *,
    filename: options.Files,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; say what would happen, and where workloads would run.")
    ] = False,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="First try it on a twin of the fleet; apply nothing when it would break a workload's budget.")
    ] = False,
    scenario: Annotated[
        str | None, typer.Option("--scenario", metavar="NAME|FILE", help="With --rehearse: what happens meanwhile; calm if not given.")
    ] = None,
    runs: Annotated[int | None, typer.Option("--runs", min=1, max=1000, help="With --rehearse: how many runs; 20 if not given.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="With --rehearse: the first run's seed; 1 if not given.")] = None,
    picture: Annotated[
        str,
        typer.Option("--picture", metavar="FILE", help="With --rehearse: where to draw it (.svg or .png); only if refused if not given."),
    ] = "",
    namespace: options.Namespace = "",
    context: options.ContextName = "",
) -> None:
    """Create or change what YAML or JSON files describe."""
    if not rehearse and (scenario is not None or runs is not None or seed is not None or picture):
        raise CommandError("--scenario, --runs, --seed and --picture are for --rehearse", hint="add --rehearse, or leave them out")
    resources = read_files(filename)
    if not resources:
        raise CommandError("nothing to apply", ", ".join(filename), "the files hold no resource")
    if rehearse:
        from edgewise.cli.rehearsing import Wish, rehearse_first

        wish = Wish(
            scenario="calm" if scenario is None else scenario,
            runs=20 if runs is None else runs,
            seed=1 if seed is None else seed,
            picture=picture,
            files=tuple(filename),
        )
        rehearse_first(resources, wish, namespace=namespace, context=context)
    run(_apply(resources, dry_run=dry_run, namespace=namespace, context=context))


async def _apply(resources: "Sequence[Resource]", *, dry_run: bool, namespace: str, context: str) -> None:
    async with connected(context, namespace) as client:
        # All are checked before the first is sent; then one by one, so that each is told as soon as it is done.
        for resource in client.checked(resources, namespace=namespace or None):
            applied = await client.apply(resource, dry_run=dry_run)
            for item in applied.items:
                _tell_applied(item, dry_run=dry_run)


def _tell_applied(item: "AppliedResource", *, dry_run: bool) -> None:
    from edgewise.cli import output

    for warning in item.warnings:
        output.note(f"warning: {warning}")
    name = f"{type(item.resource).__name__.lower()}/{item.resource.metadata.name}"
    output.out(f"{name} {item.result}{' (dry run)' if dry_run else ''}\n")
    if dry_run and item.placement:
        from edgewise.cli.describe import placement_table

        output.out(placement_table(item.placement, indent="  "))
    elif dry_run and name.startswith("workload/"):
        output.note("  it would run nowhere yet" + ("" if item.warnings else ": there is no device"))


def get(
    *,
    things: Things,
    output: options.Output = "table",
    selector: options.Selector = "",
    namespace: options.Namespace = "",
    all_namespaces: options.AllNamespaces = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on printing changes as they come.")] = False,
    no_headers: Annotated[bool, typer.Option("--no-headers", help="Leave the titles of the columns out.")] = False,
    context: options.ContextName = "",
) -> None:
    """List or show resources."""
    from edgewise.cli.words import kind_and_names, pairs_of

    wanted = kind_and_names(things)
    labels = pairs_of([selector], "label selector") if selector else {}
    if watch and len(wanted) != 1:
        raise CommandError("only one kind, or one resource, can be watched")
    if labels and any(name for _, name in wanted):
        raise CommandError("a selector and names do not go together", hint="leave one of the two out")
    run(_get(wanted, _Form(output, labels, all_namespaces, watch, not no_headers), namespace, context))


class _Form:
    """How `get` was asked to choose and print."""

    def __init__(self, output: options.OutputFormat, labels: dict[str, str], all_namespaces: bool, watch: bool, headers: bool) -> None:
        self.output = output
        self.labels = labels
        self.all_namespaces = all_namespaces
        self.watch = watch
        self.headers = headers


async def _get(wanted: "Sequence[tuple[Kind, str]]", form: _Form, namespace: str, context: str) -> None:
    from edgewise.cli import output
    from edgewise.client.errors import NotFound

    async with connected(context, namespace) as client:
        if form.watch:
            await _watch(client, wanted[0], form)
            return
        found: list[_Found] = []
        missing: Error | None = None
        for kind, names in _by_kind(wanted):
            items: list[Resource] = []
            try:
                if names:
                    for name in names:
                        items.append(await client.get(kind.type, name))  # noqa: PERF401 - those before the first that is missing are shown
                else:
                    items.extend(await client.list(kind.type, all_namespaces=form.all_namespaces, labels=form.labels))
            except NotFound as error:
                missing = error
            if not items and not names and form.output in {"table", "wide"}:
                place = "" if form.all_namespaces or not kind.namespaced else f" in the namespace {client.namespace}"
                output.note(f"no {kind.plural} found{place}")
            found.append(_Found(kind, items, named=bool(names)))
            if missing is not None:
                break
        _print_found([each for each in found if each.items or not (each.named or form.output in {"table", "wide"})], form)
        if missing is not None:
            raise missing


class _Found:
    """What was found of one kind. `named`: by name, not as a list."""

    def __init__(self, kind: "Kind", items: "Sequence[Resource]", *, named: bool) -> None:
        self.kind = kind
        self.items = items
        self.named = named


def _by_kind(wanted: "Sequence[tuple[Kind, str]]") -> "list[tuple[Kind, list[str]]]":
    """Return names that stand beside each other under their kind; no names stand for all."""
    groups: list[tuple[Kind, list[str]]] = []
    for kind, name in wanted:
        if not groups or groups[-1][0] is not kind or not name:
            groups.append((kind, []))
        if name:
            groups[-1][1].append(name)
    return groups


def _print_found(found: "Sequence[_Found]", form: _Form) -> None:
    """Print a table for each kind, or for programs one document that holds everything."""
    from edgewise.cli import output

    now = time.time()
    if form.output in {"json", "yaml"}:
        everything = [item for each in found for item in each.items]
        if len(found) == 1 and (not found[0].named or len(everything) == 1):
            each = found[0]
            text = (
                output.one(everything[0], form.output, now)
                if each.named
                else output.resources(each.kind, everything, form.output, now, namespaces=False)
            )
            output.out(text)
        elif found:
            both = output.listed("List", everything)
            output.out(output.as_json(both) if form.output == "json" else output.as_yaml(both))
        return
    for index, each in enumerate(found):
        namespaces = form.all_namespaces and not each.named
        text = output.resources(each.kind, each.items, form.output, now, namespaces=namespaces, headers=form.headers)
        output.out(("\n" if index and form.output != "name" else "") + text)


async def _watch(client: "Client", wanted: "tuple[Kind, str]", form: _Form) -> None:
    from edgewise.cli import output

    kind, name = wanted
    headers = form.headers
    least = await _widths(client, kind, name, form) if form.output in {"table", "wide"} else []
    async for change in client.watch(kind.type, all_namespaces=form.all_namespaces, labels=form.labels):
        if name and change.resource.metadata.name != name:
            continue
        if form.output in {"table", "wide"}:
            text = output.resources(
                kind, [change.resource], form.output, time.time(), namespaces=form.all_namespaces, headers=headers, least=least
            )
            if change.type == "DELETED":
                text = text.rstrip("\n") + "   (deleted)\n"
        else:
            text = ("---\n" if form.output == "yaml" and not headers else "") + output.one(change.resource, form.output, time.time())
        output.out(text)
        headers = False


async def _widths(client: "Client", kind: "Kind", name: str, form: _Form) -> list[int]:
    """Return how wide the columns of what is there now are: every change is printed by itself, and they are to align."""
    from edgewise.cli import output

    if name:
        there: Sequence[Resource] = (await client.get(kind.type, name),)
    else:
        there = await client.list(kind.type, all_namespaces=form.all_namespaces, labels=form.labels)
    return output.column_widths(kind, there, form.output, time.time(), namespaces=form.all_namespaces)


def describe(
    *,
    things: Things,
    namespace: options.Namespace = "",
    context: options.ContextName = "",
) -> None:
    """Show everything about resources.

    Where workloads run and why, what devices have and refuse, how rollouts went.
    """
    from edgewise.cli.words import kind_and_names

    run(_describe(kind_and_names(things), namespace, context))


async def _describe(wanted: "Sequence[tuple[Kind, str]]", namespace: str, context: str) -> None:
    from edgewise.cli import output
    from edgewise.cli.describe import described

    async with connected(context, namespace) as client:
        first = True
        for kind, name in wanted:
            resources = [await client.get(kind.type, name)] if name else await client.list(kind.type)
            for resource in resources:
                output.out(("" if first else "\n\n") + await described(client, resource, time.time()))
                first = False


def delete(
    *,
    things: Annotated[list[str] | None, typer.Argument(metavar="KIND NAME…", help="Such as workload inspector, or device/edge-1.")] = None,
    filename: Annotated[
        list[str] | None, typer.Option("--filename", "-f", metavar="FILE", help="Delete what these files describe.")
    ] = None,
    ignore_not_found: Annotated[bool, typer.Option("--ignore-not-found", help="It is no error when it is not there.")] = False,
    namespace: options.Namespace = "",
    context: options.ContextName = "",
) -> None:
    """Remove resources."""
    from edgewise.cli.words import kind_and_names
    from edgewise.resources.kinds import BY_TYPE

    if bool(things) == bool(filename):
        raise CommandError("say what to delete", hint="either KIND NAME…, or -f FILE")
    if filename:
        loaded = read_files(filename)
        wanted = [(BY_TYPE[type(each)], each.metadata.name, each.metadata.namespace or namespace) for each in loaded]
    else:
        wanted = [(kind, name, namespace) for kind, name in kind_and_names(things or [])]
    if any(not name for _, name, _ in wanted):
        raise CommandError("say which to delete", hint="a kind alone does not delete all of it: give names")
    run(_delete(wanted, ignore_not_found=ignore_not_found, namespace=namespace, context=context))


async def _delete(wanted: "Sequence[tuple[Kind, str, str]]", *, ignore_not_found: bool, namespace: str, context: str) -> None:
    from edgewise.cli import output
    from edgewise.client.errors import NotFound

    async with connected(context, namespace) as client:
        for kind, name, where in wanted:
            try:
                await client.delete(kind.type, name, namespace=where or None)
            except NotFound:
                if not ignore_not_found:
                    raise
                continue
            output.out(f"{kind.name.lower()}/{name} deleted\n")


def read_files(names: "Sequence[str]") -> "tuple[Resource, ...]":
    """Return the resources in files, folders and standard input (`-`), all problems told together."""
    from edgewise.client.files import load
    from edgewise.resources.errors import Invalid, Problem
    from edgewise.resources.manifests import LIMITS
    from edgewise.resources.manifests import load as load_text

    resources: list[Resource] = []
    problems: list[Problem] = []
    for name in names:
        try:
            if name == "-":
                resources.extend(load_text(sys.stdin.buffer.read(LIMITS.text_bytes_max + 1), "standard input"))
            else:
                resources.extend(load(name))
        except Invalid as error:
            problems.extend(error.problems)
    if problems:
        raise Invalid(problems)
    return tuple(resources)
