"""`context add|use|list|show|remove`: which control plane, with which token. The file can be read by its user only."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewise.cli.failures import CommandError

if TYPE_CHECKING:
    from edgewise.client.context import Contexts

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the context.")]
_TOKEN_BYTES_MAX = 8_192
_CA_BYTES_MAX = 100_000


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    context = typer.Typer(help="Which control plane is asked, and as whom.", no_args_is_help=True, rich_markup_mode=None)
    context.command("add")(add)
    context.command("use")(use)
    context.command("list")(show_all)
    context.command("show")(show)
    context.command("remove")(remove)
    app.add_typer(context, name="context")


def add(
    *,
    name: Name,
    address: Annotated[str, typer.Option("--address", metavar="URL", help="Of the operator API: https://HOST:7420.")],
    token_file: Annotated[str, typer.Option("--token-file", metavar="FILE", help="File with the access token, or - for standard input.")],
    ca_hash: Annotated[str, typer.Option("--ca-hash", metavar="sha256:…", help="Hash of the authority, as edgewise up prints it.")] = "",
    ca_file: Annotated[
        str, typer.Option("--ca-file", metavar="FILE", help="The authority's certificate in PEM, instead of its hash.")
    ] = "",
    namespace: Annotated[str, typer.Option("--namespace", "-n", metavar="NAME", help="Namespace where none is given.")] = "default",
    signing_key: Annotated[str, typer.Option("--signing-key", metavar="FILE", help="Release key that artifact push signs with.")] = "",
    use: Annotated[bool, typer.Option("--use/--no-use", help="Use it from now on.")] = True,
) -> None:
    """Add or replace a context."""
    import msgspec

    from edgewise.cli import output
    from edgewise.client.context import Context, contexts_path, read_contexts, write_contexts

    if bool(ca_hash) == bool(ca_file):
        raise CommandError("say how to know the control plane", hint="give --ca-hash sha256:… or --ca-file FILE")
    location = checked_address(address)
    authority = _read(ca_file, _CA_BYTES_MAX) if ca_file else fetched_authority(location, ca_hash)
    key = str(Path(signing_key).expanduser().absolute()) if signing_key else ""
    context = Context(address=location, token=read_token(token_file), authority=authority, namespace=namespace, signing_key=key)
    path = contexts_path()
    contexts = read_contexts(path)
    current = name if use or not contexts.current else contexts.current
    write_contexts(path, msgspec.structs.replace(contexts, current=current, contexts={**contexts.contexts, name: context}))
    output.out(f"context/{name} added{' and in use' if current == name else ''}\n")


def use(name: Name) -> None:
    """Use another context from now on."""
    import msgspec

    from edgewise.cli import output
    from edgewise.client.context import choose_context, contexts_path, read_contexts, write_contexts

    path = contexts_path()
    contexts = read_contexts(path)
    choose_context(contexts, name)
    write_contexts(path, msgspec.structs.replace(contexts, current=name))
    output.out(f"context/{name} in use\n")


def show_all() -> None:
    """List all contexts."""
    from edgewise.cli import output

    contexts = _contexts()
    if not contexts.contexts:
        output.note("no contexts found: edgewise up makes one, edgewise context add another")
        return
    rows = [
        ["*" if name == contexts.current else "", name, each.address, each.namespace] for name, each in sorted(contexts.contexts.items())
    ]
    output.out(output.table(["CURRENT", "NAME", "ADDRESS", "NAMESPACE"], rows))


def show(name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the context; the current one if not given.")] = "") -> None:
    """Show one context, without its token."""
    from edgewise.cli import output
    from edgewise.client.context import choose_context, contexts_path
    from edgewise.trust.authority import authority_hash
    from edgewise.trust.tokens import secret_digest

    chosen, context = choose_context(_contexts(), name)
    lines = {
        "Name": chosen,
        "Address": context.address,
        "Namespace": context.namespace,
        "Authority": authority_hash(context.authority),
        "Token": f"… (digest begins with {secret_digest(context.token)[:16]})",
        "Signing key": context.signing_key or "-",
        "File": str(contexts_path()),
    }
    output.out("".join(f"{title + ':':<14}{value}\n" for title, value in lines.items()))


def remove(name: Name) -> None:
    """Forget a context and its token."""
    import msgspec

    from edgewise.cli import output
    from edgewise.client.context import choose_context, contexts_path, read_contexts, write_contexts

    path = contexts_path()
    contexts = read_contexts(path)
    choose_context(contexts, name)
    rest = {other: each for other, each in contexts.contexts.items() if other != name}
    current = contexts.current if contexts.current != name else ""
    write_contexts(path, msgspec.structs.replace(contexts, current=current, contexts=rest))
    output.out(f"context/{name} removed\n")


def checked_address(address: str) -> str:
    """Return `https://HOST:PORT` of an address that a person wrote. Raises `CommandError`."""
    from urllib.parse import urlsplit

    parts = urlsplit(address if "://" in address else f"https://{address}")
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme != "https" or not parts.hostname or port == -1 or parts.path not in {"", "/"} or parts.query or parts.username:
        raise CommandError(f"{address!r} is not an address", hint="write https://HOST:7420")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"https://{host}:{port or 7420}"


def fetched_authority(address: str, wanted: str) -> str:
    """Return the root certificate (PEM) that the server at `address` shows, when its hash is `wanted`. Raises `CommandError`."""
    import hashlib
    import re
    import ssl

    if not re.fullmatch(r"sha256:[0-9a-f]{64}", wanted):
        raise CommandError("the hash of an authority is sha256: and 64 hexadecimal digits", "--ca-hash")
    for certificate in _served(address):
        if f"sha256:{hashlib.sha256(certificate).hexdigest()}" == wanted:
            return ssl.DER_cert_to_PEM_cert(certificate)
    raise CommandError(
        f"{address} does not belong to the authority with this hash", wanted, "check both; if they are right, somebody is in between"
    )


def _served(address: str) -> tuple[bytes, ...]:
    import socket
    from urllib.parse import urlsplit

    from edgewise.agent.tls import blind_context, served_chain

    parts = urlsplit(address)
    host = parts.hostname or ""
    try:
        with (
            socket.create_connection((host, parts.port or 7420), timeout=10) as plain,
            blind_context().wrap_socket(plain, server_hostname=host) as connection,
        ):
            return served_chain(connection)
    except OSError as error:
        from edgewise.client.errors import Unreachable

        raise Unreachable(f"cannot reach {address}: {error.strerror or error}") from None


def read_token(file: str) -> str:
    """Return the access token in a file or on standard input (`-`). Raises `CommandError`; its message does not repeat the text."""
    from edgewise.trust.tokens import is_access_token

    text = _read(file, _TOKEN_BYTES_MAX).strip()
    if not is_access_token(text):
        raise CommandError("this is not an access token; those begin with ewo1_", file)
    return text


def _read(file: str, limit: int) -> str:
    from edgewise.client.files import read_bounded

    data = sys.stdin.buffer.read(limit + 1) if file == "-" else read_bounded(Path(file), limit)
    if len(data) > limit:
        raise CommandError(f"larger than {limit} bytes", file)
    return data.decode("utf-8", "replace")


def _contexts() -> "Contexts":
    from edgewise.client.context import contexts_path, read_contexts

    return read_contexts(contexts_path())
