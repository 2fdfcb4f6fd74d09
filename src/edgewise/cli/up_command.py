"""`up`: starts a control plane in this process."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgewise.cli.failures import CommandError

if TYPE_CHECKING:
    from edgewise.client.context import Context, Contexts
    from edgewise.control.config import Ready


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("up")(up)


def up(
    *,
    data: Annotated[str, typer.Option("--data", metavar="FOLDER", help="Where everything is kept.")] = "~/.local/share/edgewise",
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="What to call this control plane; the context's name too.")
    ] = "edgewise",
    api_host: Annotated[str, typer.Option("--api-host", metavar="HOST", help="Where people connect.")] = "127.0.0.1",
    api_port: Annotated[int, typer.Option("--api-port", metavar="PORT", min=0, max=65535, help="0 takes any free one.")] = 7420,
    gateway_host: Annotated[str, typer.Option("--gateway-host", metavar="HOST", help="Where devices connect.")] = "0.0.0.0",  # noqa: S104 - devices come from elsewhere
    gateway_port: Annotated[int, typer.Option("--gateway-port", metavar="PORT", min=0, max=65535, help="0 takes any free one.")] = 7421,
    public_host: Annotated[
        list[str] | None,
        typer.Option("--public-host", metavar="HOST", help="Name or address under which devices and people reach it. May be repeated."),
    ] = None,
    new_admin_token: Annotated[bool, typer.Option("--new-admin-token", help="Make another admin token and print it once.")] = False,
    restored: Annotated[bool, typer.Option("--restored", help="The data folder comes from a backup: begin a new epoch.")] = False,
    write_context: Annotated[
        bool | None,
        typer.Option(
            "--write-context/--no-write-context",
            help="Write a context for this user; without either, at the first start if this user has none.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Literal["text", "json"], typer.Option("--output", "-o", help="How to print the addresses.")] = "text",
) -> None:
    """Start a control plane.

    It answers people (operator API) and devices (gateway). Ctrl-C stops it; devices run on without it.
    """
    try:
        from edgewise.control.config import ControlConfig
        from edgewise.control.process import DataError, ListenError, StoreError
        from edgewise.control.process import run as run_control
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing == "edgewise":
            raise
        raise CommandError(f"the control plane needs {missing}", hint="type pip install 'edgewise[control]'") from None
    config = ControlConfig(
        data=Path(data).expanduser().absolute(),
        api_host=api_host,
        api_port=api_port,
        gateway_host=gateway_host,
        gateway_port=gateway_port,
        public_hosts=tuple(public_host or ()),
        name=name,
        restored=restored,
        new_admin_token=new_admin_token,
    )

    def tell(ready: "Ready") -> None:
        written = _write_context(ready, name, write_context)
        _print(ready, written, output)

    try:
        run_control(config, tell)
    except (DataError, ListenError, StoreError) as error:
        raise CommandError(str(error), str(config.data)) from None


def _write_context(ready: "Ready", name: str, wanted: bool | None) -> str:
    """Write a context for this user where that is meant; return its name, or ''."""
    from edgewise.client.context import Context, contexts_path, read_contexts, write_contexts
    from edgewise.client.errors import ContextError

    if wanted is False or (wanted is None and not ready.first_start):
        return ""
    try:
        path = contexts_path()
        contexts = read_contexts(path)
        if wanted is None and contexts.contexts:
            return ""
        if ready.admin_token is None:
            sys.stderr.write("no context written: the admin token is shown once only (--new-admin-token makes another)\n")
            return ""
        key = ready.data / "offline" / "releases-1.pem"
        context = Context(
            address=ready.api_address,
            token=ready.admin_token,
            authority=ready.authority_pem,
            signing_key=str(key) if key.exists() else "",
        )
        write_contexts(path, _with(contexts, name, context))
    except ContextError as error:
        # The control plane runs; a context can be added later.
        sys.stderr.write(f"no context written: {error}\n")
        return ""
    return name


def _with(contexts: "Contexts", name: str, context: "Context") -> "Contexts":
    import msgspec

    return msgspec.structs.replace(contexts, current=name, contexts={**contexts.contexts, name: context})


def _print(ready: "Ready", context: str, form: str) -> None:
    from edgewise.cli import output

    if form == "json":
        import msgspec

        facts = {
            "apiAddress": ready.api_address,
            "gatewayAddresses": list(ready.gateway_addresses),
            "authorityHash": ready.authority_hash,
            "adminToken": ready.admin_token,
            "data": str(ready.data),
            "firstStart": ready.first_start,
            "context": context,
        }
        output.out(msgspec.json.encode(facts).decode() + "\n")
        return
    lines = [
        f"{'operator API':<16} {ready.api_address}",
        *(f"{'device gateway' if index == 0 else '':<16} {address}" for index, address in enumerate(ready.gateway_addresses)),
        f"{'authority':<16} {ready.authority_hash}",
        f"{'data':<16} {ready.data}",
    ]
    if ready.admin_token is not None:
        lines.append(f"{'admin token':<16} {ready.admin_token}   (shown this once)")
    if context:
        lines.append(f"{'context':<16} {context}, written for this user and in use")
    lines += ["", *_next_steps(ready, context)]
    output.out("\n".join(lines) + "\n")


def _next_steps(ready: "Ready", context: str) -> list[str]:
    steps = ["next, in another terminal:"]
    if not context and ready.admin_token is not None:
        add = f"edgewise context add edgewise --address {ready.api_address} --ca-hash {ready.authority_hash} --token-file -"
        steps.append(f"  {add}   # then paste the token and press Ctrl-D")
    if ready.first_start:
        steps.append("  edgewise token create --site lab > join.token")
        steps.append("  edgewise agent join --token-file join.token      # on the device")
    return [*steps, "  edgewise get devices"]
