"""`events` and `logs`: what happened, and what workloads wrote."""

from typing import TYPE_CHECKING, Annotated

import typer

from edgewise.cli import options
from edgewise.cli.failures import CommandError
from edgewise.cli.session import connected, run

if TYPE_CHECKING:
    from edgewise.client.answers import Event
    from edgewise.client.fleet import Client


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("events")(events)
    app.command("logs")(logs)


def events(
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing events as they come.")] = False,
    about: Annotated[str, typer.Option("--about", metavar="KIND/NAME", help="Only about this, such as workload/inspector.")] = "",
    source: Annotated[str, typer.Option("--source", metavar="NAME", help="Only from this device, user, or control.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most this many, the last ones.")] = 100,
    output: Annotated[options.OutputFormat, typer.Option("--output", "-o", help="table, wide or json.")] = "table",
    namespace: options.Namespace = "",
    context: options.ContextName = "",
) -> None:
    """Show what happened in the fleet, oldest first."""
    if output not in {"table", "wide", "json"}:
        raise CommandError(f"events cannot be printed as {output}", hint="use -o table, wide or json")
    run(_events(about, source, limit, output, follow=follow, namespace=namespace, context=context))


async def _events(about: str, source: str, limit: int, form: options.OutputFormat, *, follow: bool, namespace: str, context: str) -> None:
    from edgewise.cli import output

    async with connected(context, namespace) as client:
        subject = about_of(about, client.namespace)
        known = await client.events(about=subject, source=source, limit=limit)
        output.out(event_lines(known, form, headers=True))
        if not follow:
            if not known:
                output.note("no events found")
            return
        after = max((event.number for event in known), default=0)
        async for event in client.follow_events(about=subject, source=source, after=after):
            output.out(event_lines([event], form, headers=False))


def about_of(text: str, namespace: str) -> str:
    """Return what the event log calls a subject: `workload/inspector` is `Workload/NAMESPACE/inspector`. Raises `CommandError`."""
    from edgewise.cli.words import kind_of

    if not text:
        return ""
    word, *rest = text.split("/")
    kind = kind_of(word)
    if len(rest) == 2:
        return f"{kind.name}/{rest[0]}/{rest[1]}"
    return f"{kind.name}/{namespace if kind.namespaced else ''}/{'/'.join(rest)}" if rest else f"{kind.name}/"


def event_lines(known: "list[Event] | tuple[Event, ...]", form: options.OutputFormat, *, headers: bool) -> str:
    """Return events as lines: fixed columns first, the message last, so that lines that come later align."""
    import msgspec

    from edgewise.cli.output import painted
    from edgewise.cli.words import moment

    if form == "json":
        return "".join(msgspec.json.encode(event).decode() + "\n" for event in known)
    lines = [f"{'TIME':<20}   {'TYPE':<7}   {'REASON':<20}   {'SOURCE':<16}   MESSAGE"] if headers and known else []
    for event in known:
        subject = f" ({event.about})" if event.about and form == "wide" else ""
        kind = painted(event.type) + " " * (7 - len(event.type))
        lines.append(f"{moment(event.at):<20}   {kind}   {event.reason:<20}   {event.source:<16}   {_about(event)}{event.message}{subject}")
    return "".join(line + "\n" for line in lines)


def _about(event: "Event") -> str:
    """Return which workload a device speaks of: its messages name the revision only."""
    kind, _, name = event.about.partition("/")
    workload = name.rpartition("/")[2].removesuffix(f".{event.source}")
    return f"{workload}: " if kind == "Instance" and workload and workload not in event.message else ""


def logs(
    *,
    instance: Annotated[str, typer.Argument(metavar="DEVICE/WORKLOAD", help="Whose output, and on which device.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing what is written.")] = False,
    tail: Annotated[int, typer.Option("--tail", min=0, max=100_000, help="Begin with the last so many lines.")] = 200,
    namespace: options.Namespace = "",
    context: options.ContextName = "",
) -> None:
    """Show what a workload wrote on a device."""
    device, slash, workload = instance.partition("/")
    if not (slash and device and workload) or "/" in workload:
        raise CommandError(f"{instance!r} is not DEVICE/WORKLOAD", hint="such as edge-1/inspector")
    run(_logs(device, workload, tail, follow=follow, namespace=namespace, context=context))


async def _logs(device: str, workload: str, tail: int, *, follow: bool, namespace: str, context: str) -> None:
    from edgewise.cli import output

    async with connected(context, namespace) as client:
        last = await _copy(client, device, workload, tail, follow=follow)
    if last and not last.endswith("\n"):
        output.out("\n")


async def _copy(client: "Client", device: str, workload: str, tail: int, *, follow: bool) -> str:
    from edgewise.cli import output

    last = ""
    async for text in client.logs(device, workload, follow=follow, tail=tail):
        if text:
            output.out(printable(text))
            last = text
    return last


def printable(text: str) -> str:
    """Return a workload's output without what could steer the terminal: it comes from a device, and devices can be captured."""
    return "".join(each if each in "\n\t" or each.isprintable() else "\ufffd" for each in text.replace("\r\n", "\n"))
