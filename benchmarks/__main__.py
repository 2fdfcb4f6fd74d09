"""Run benchmarks, print a table, optionally write JSON."""

import argparse
import importlib
import os
import platform
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.row import Row

MODULES = (
    "placement",
    "analysis_false_rollbacks",
    "analysis_detection",
    "store",
    "agent_memory",
    "agent_wire",
    "fetch",
    "gateway_reports",
    "gateway_desired",
    "gateway_reconnect",
    "control_memory",
    "serve_swaps",
    "serve_shadow",
    "serve_infer",
    "twin_exchanges",
    "twin_rehearsal",
    "twin_hours",
    "twin_fleet",
)


def main() -> int:
    """Return 0 when every benchmark ran, whether or not its target was met."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure everything against its baseline.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of: {', '.join(MODULES)} (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    chosen = parser.parse_args()
    unknown = sorted(set(chosen.names) - set(MODULES))
    if unknown:
        parser.error(f"no benchmark called {', '.join(unknown)}; there are {', '.join(MODULES)}")
    rows: list[Row] = []
    broken: list[str] = []
    for name in MODULES:
        if chosen.names and name not in chosen.names:
            continue
        started = time.monotonic()
        print(f"{name} …", file=sys.stderr, flush=True)
        try:
            measured: Iterable[Row] = importlib.import_module(f"benchmarks.{name}").measure()
            rows.extend(measured)
        except Exception as error:  # noqa: BLE001 - one broken benchmark must not hide the others
            broken.append(name)
            print(f"{name} broke: {type(error).__name__}: {error}", file=sys.stderr)
        print(f"{name} took {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    _show(rows)
    if chosen.json:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
    return 1 if broken else 0


def _show(rows: list[Row]) -> None:
    table = Table(title=f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, Linux {platform.release()}")
    for column in ("what", "value", "unit", "baseline", "ratio", "to reach", "met"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.value:,.4g}",
            row.unit,
            "" if row.baseline is None else f"{row.baseline:,.4g}",
            "" if row.ratio is None else f"{row.ratio:.2f}",
            row.target,
            {True: "yes", False: "NO", None: ""}[row.met],
        )
    Console(width=120).print(table)
    for row in rows:
        if row.note:
            print(f"{row.name}: {row.note}")


if __name__ == "__main__":
    sys.exit(main())
