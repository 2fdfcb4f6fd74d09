"""Options that many commands share, called as kubectl calls them."""

from typing import Annotated, Literal

import typer

OutputFormat = Literal["table", "wide", "json", "yaml", "name"]

Namespace = Annotated[
    str, typer.Option("--namespace", "-n", metavar="NAME", help="Namespace; the context's own if not given.", show_default=False)
]
AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Look in all namespaces.")]
ContextName = Annotated[
    str,
    typer.Option(
        "--context", metavar="NAME", envvar="EDGEWISE_CONTEXT", help="Context to use; the current one if not given.", show_default=False
    ),
]
Output = Annotated[OutputFormat, typer.Option("--output", "-o", help="How to print.")]
Selector = Annotated[str, typer.Option("--selector", "-l", metavar="KEY=VALUE,…", help="Only with these labels.", show_default=False)]
Files = Annotated[
    list[str], typer.Option("--filename", "-f", metavar="FILE", help="File or folder to read, or - for standard input. May be repeated.")
]
Workload = Annotated[str, typer.Argument(metavar="WORKLOAD", help="Name of the workload.")]
