"""`token create` for devices, `access-token create` for people and programs. The token alone goes to standard output."""

import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgewise.cli import options
from edgewise.cli.session import connected, run

if TYPE_CHECKING:
    from edgewise.client.fleet import TokenKind


Identifier = Annotated[str, typer.Argument(metavar="ID", help="As list prints it.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    token = typer.Typer(help="Tokens with which devices join.", no_args_is_help=True, rich_markup_mode=None)
    token.command("create")(create)
    token.command("list")(list_join)
    token.command("revoke")(revoke_join)
    app.add_typer(token, name="token")
    access = typer.Typer(help="Tokens with which people and programs use the API.", no_args_is_help=True, rich_markup_mode=None)
    access.command("create")(create_access)
    access.command("list")(list_access)
    access.command("revoke")(revoke_access)
    app.add_typer(access, name="access-token")


def create(
    *,
    site: Annotated[str, typer.Option("--site", metavar="NAME", help="Where the devices stand; the site is made if need be.")],
    ttl: Annotated[str, typer.Option("--ttl", metavar="DURATION", help="How long the token is valid.")] = "10m",
    uses: Annotated[int, typer.Option("--uses", min=1, max=100_000, help="How many devices may join with it.")] = 1,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Label of the devices; may be repeated.")] = None,
    context: options.ContextName = "",
) -> None:
    """Make a token for devices to join with, and print it."""
    from edgewise.cli.words import pairs_of

    text = run(_create(site, _duration(ttl), uses, pairs_of(label or [], "label"), context))
    print_token(text, "keep it in a file, then on the device: edgewise agent join --token-file FILE")


async def _create(site: str, ttl: str, uses: int, labels: dict[str, str], context: str) -> str:
    async with connected(context, "") as client:
        return await client.create_join_token(site, ttl=ttl, uses=uses, labels=labels)


def create_access(
    *,
    role: Annotated[Literal["viewer", "operator", "admin"], typer.Option("--role", help="What its holder may do.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Whose token it is; stands in the audit record.")] = "",
    ttl: Annotated[str, typer.Option("--ttl", metavar="DURATION", help="How long the token is valid.")] = "30d",
    context: options.ContextName = "",
) -> None:
    """Make a token for the operator API, and print it."""
    text = run(_create_access(name or role, role, _duration(ttl), context))
    print_token(text, "keep it in a file, then where it is used: edgewise context add NAME --address … --token-file FILE --ca-hash …")


async def _create_access(name: str, role: Literal["viewer", "operator", "admin"], ttl: str, context: str) -> str:
    async with connected(context, "") as client:
        return await client.create_access_token(name, role, ttl=ttl)


def list_join(*, context: options.ContextName = "") -> None:
    """List the join tokens that exist; their text is never shown again."""
    run(_list("join", ["SITE", "USED"], context))


def list_access(*, context: options.ContextName = "") -> None:
    """List the access tokens that exist; their text is never shown again."""
    run(_list("access", ["NAME", "ROLE"], context))


async def _list(kind: "TokenKind", titles: list[str], context: str) -> None:
    from edgewise.cli import output
    from edgewise.cli.words import moment

    async with connected(context, "") as client:
        tokens = await client.tokens(kind)
    if not tokens:
        output.note(f"no {kind} tokens found")
        return
    rows = [
        [each.id, *([each.site or "-", f"{each.used}/{each.uses}"] if kind == "join" else [each.name, each.role]), moment(each.expires_at)]
        for each in tokens
    ]
    output.out(output.table(["ID", *titles, "EXPIRES"], rows))


def revoke_join(identifier: Identifier, *, context: options.ContextName = "") -> None:
    """Take a join token out of use; devices that joined with it stay."""
    run(_revoke("join", identifier, context))


def revoke_access(identifier: Identifier, *, context: options.ContextName = "") -> None:
    """Take an access token out of use, at once."""
    run(_revoke("access", identifier, context))


async def _revoke(kind: "TokenKind", identifier: str, context: str) -> None:
    from edgewise.cli import output

    async with connected(context, "") as client:
        await client.revoke_token(kind, identifier)
    output.out(f"{kind} token {identifier} revoked\n")


def print_token(text: str, hint: str) -> None:
    """Print a token alone; what to do with it, for people only."""
    from edgewise.cli import output

    output.out(text.strip() + "\n")
    if sys.stderr.isatty():
        output.note(f"shown this once: {hint}")


def _duration(text: str) -> str:
    from edgewise.cli.failures import CommandError
    from edgewise.resources.quantity import seconds

    try:
        seconds(text)
    except ValueError as error:
        raise CommandError(str(error), "--ttl") from None
    return text
