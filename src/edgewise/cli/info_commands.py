"""`version` and `schema`."""

from typing import Annotated

import typer

from edgewise.cli import options
from edgewise.cli.session import connected, run


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.command("version")(version)
    app.command("schema")(schema)


def version(
    *,
    client: Annotated[bool, typer.Option("--client", help="Do not ask the control plane.")] = False,
    context: options.ContextName = "",
) -> None:
    """Print the versions of command and control plane."""
    from importlib.metadata import version as installed

    from edgewise.cli import output
    from edgewise.client.errors import ContextError

    output.out(f"edgewise {installed('edgewise')}\n")
    if client:
        return
    try:
        output.out(f"control plane {run(_version(context))}\n")
    except ContextError:
        if context:
            raise
        output.note("no control plane is known here (edgewise context add)")


async def _version(context: str) -> str:
    async with connected(context, "") as fleet:
        return (await fleet.version()).version


def schema(kind: Annotated[str, typer.Argument(metavar="[KIND]", help="Only this kind.")] = "") -> None:
    """Print the JSON Schema of resources."""
    from edgewise.cli import output
    from edgewise.cli.words import kind_of
    from edgewise.resources.schema import json_schema, kind_schema

    output.out(output.as_json(kind_schema(kind_of(kind)) if kind else json_schema()))
