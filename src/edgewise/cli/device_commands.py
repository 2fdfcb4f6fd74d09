"""`device decommission|label|clear-refused|cordon|uncordon`."""

import sys
from typing import Annotated

import typer

from edgewise.cli import options
from edgewise.cli.failures import CommandError
from edgewise.cli.session import connected, run

Device = Annotated[str, typer.Argument(metavar="DEVICE", help="Name of the device.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    device = typer.Typer(help="Steer single devices.", no_args_is_help=True, rich_markup_mode=None)
    device.command("decommission")(decommission)
    device.command("label")(label)
    device.command("clear-refused")(clear_refused)
    device.command("cordon")(cordon)
    device.command("uncordon")(uncordon)
    app.add_typer(device, name="device")


def decommission(
    *,
    device: Device,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    context: options.ContextName = "",
) -> None:
    """Have a device stop everything, forget its identity and leave the fleet. It must join anew to come back."""
    if not yes:
        if not sys.stdin.isatty():
            raise CommandError("a decommissioned device must join anew to come back", hint="add --yes if that is meant")
        if not typer.confirm(f"decommission {device}? It stops everything and must join anew to come back.", err=True):
            raise typer.Exit(1)
    run(_decommission(device, context))


async def _decommission(device: str, context: str) -> None:
    from edgewise.cli import output

    async with connected(context, "") as client:
        await client.decommission(device)
    output.out(f"device/{device} decommissioned\n")


def label(
    *,
    device: Device,
    labels: Annotated[list[str], typer.Argument(metavar="KEY=VALUE… KEY-…", help="Labels to set, and labels to remove (KEY-).")],
    context: options.ContextName = "",
) -> None:
    """Set or remove labels of a device."""
    from edgewise.cli.words import pairs_of

    removed = [text[:-1] for text in labels if text.endswith("-") and "=" not in text]
    given = pairs_of((text for text in labels if not (text.endswith("-") and "=" not in text)), "label")
    check_labels(given)
    run(_label(device, given, removed, context))


def check_labels(labels: dict[str, str]) -> None:
    """Raise `CommandError` for the first label that a device cannot have."""
    from edgewise.resources.validation import label_problem

    for key, value in labels.items():
        problem = label_problem(key, value)
        if problem is not None:
            raise CommandError(problem, f"{key}={value}")


async def _label(device: str, given: dict[str, str], removed: list[str], context: str) -> None:
    from edgewise.cli import output
    from edgewise.cli.words import labels

    async with connected(context, "") as client:
        after = await client.label(device, given, removed)
    output.out(f"device/{device} labeled: {labels(after.metadata.labels)}\n")


def clear_refused(device: Device, context: options.ContextName = "") -> None:
    """Let a device try revisions again that it refuses since they failed on it."""
    run(_clear_refused(device, context))


async def _clear_refused(device: str, context: str) -> None:
    from edgewise.cli import output

    async with connected(context, "") as client:
        await client.clear_refused(device)
    output.out(f"device/{device} cleared\n")


def cordon(device: Device, context: options.ContextName = "") -> None:
    """Keep new instances away from a device; what runs there, runs on."""
    run(_cordon(device, context, unschedulable=True))


def uncordon(device: Device, context: options.ContextName = "") -> None:
    """Let new instances come to a device again."""
    run(_cordon(device, context, unschedulable=False))


async def _cordon(device: str, context: str, *, unschedulable: bool) -> None:
    from edgewise.cli import output

    async with connected(context, "") as client:
        await client.cordon(device, unschedulable=unschedulable)
    output.out(f"device/{device} {'cordoned' if unschedulable else 'uncordoned'}\n")
