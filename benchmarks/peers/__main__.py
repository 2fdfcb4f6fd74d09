"""Measure the model server beside MLServer and BentoML in one run, in turns; print a table, optionally write JSON.

The same models, one worker and one thread each, the same load generator. MLServer speaks JSON alone over HTTP, so that is what its binary
rows stand beside; BentoML takes the tensor's bytes as the body there.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from benchmarks.__main__ import _show
from benchmarks._serve_load import Load, binary_request, json_request, measure, request
from benchmarks._serve_models import CNN, SHAPES, TINY, save_models
from benchmarks._serve_servers import Started, edgewise_server
from benchmarks.peers._servers import bentoml, mlserver
from benchmarks.row import Row

ROUNDS = 5
SECONDS = 2.0
WARM_UP_SECONDS = 1.0
CONNECTIONS = 4
TIMES = {"mlserver": 2.0, "bentoml": 3.0}
NAMES = {"mlserver": "MLServer", "bentoml": "BentoML"}
MEMORY = 0.6
INFER = "/v2/models/m/infer"


def main() -> int:
    """Measure everything; return 0 whether or not the targets were met."""
    parser = argparse.ArgumentParser(prog="make bench-peers", description="Measure the model server beside others.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    chosen = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        trees = save_models(Path(folder))
        for name in (TINY, CNN):
            for row in _measured(name, trees[name]):
                print(
                    f"{row.name}: {row.value:,.4g} {row.unit} and {row.baseline:,.4g}, ratio {row.ratio:.2f}", file=sys.stderr, flush=True
                )
                rows.append(row)
    _show(rows)
    if chosen.json:
        chosen.json.write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
    return 0


def _measured(name: str, tree: Path) -> Iterator[Row]:
    array = np.random.default_rng(1).standard_normal(SHAPES[name]).astype("float32")
    ours = {"JSON": json_request(INFER, array), "binary": binary_request(INFER, array)}
    nested = json.dumps({"x": array.tolist()}).encode()
    theirs = {
        "mlserver": {"JSON": ours["JSON"], "binary": ours["JSON"]},
        "bentoml": {
            "JSON": request("/predict", nested, {"Content-Type": "application/json"}),
            "binary": request("/raw", array.tobytes(), {"Content-Type": "application/octet-stream"}),
        },
    }
    with edgewise_server(tree) as edgewise, mlserver(tree) as ml, bentoml(tree, SHAPES[name]) as bento:
        servers = {"edgewise": edgewise, "mlserver": ml, "bentoml": bento}
        for form, data in ours.items():
            plans = {"edgewise": data, **{peer: asked[form] for peer, asked in theirs.items()}}
            for connections in (1, CONNECTIONS):
                loads = _in_turns(servers, plans, connections)
                yield from _rows(f"{name}, {form}, {connections} {'connections' if connections > 1 else 'connection'}", loads)
        if name == CNN:
            yield from _memory(servers)


def _in_turns(servers: dict[str, Started], plans: dict[str, bytes], connections: int) -> dict[str, list[Load]]:
    for peer, data in plans.items():
        measure(servers[peer].address, data, connections=connections, seconds=WARM_UP_SECONDS)
    loads: dict[str, list[Load]] = {peer: [] for peer in plans}
    for _ in range(ROUNDS):
        for peer, data in plans.items():
            loads[peer].append(measure(servers[peer].address, data, connections=connections, seconds=SECONDS))
    return loads


def _rows(what: str, loads: dict[str, list[Load]]) -> Iterator[Row]:
    """Rates and medians are medians over the rounds; ratios are medians of each round's own ratio, so that both saw the same machine."""
    mine = loads["edgewise"]
    for peer, times in TIMES.items():
        rates = [one.per_second / other.per_second for one, other in zip(mine, loads[peer], strict=True)]
        waits = [other.p50 / one.p50 for one, other in zip(mine, loads[peer], strict=True)]
        yield Row(
            name=f"{what}: requests, beside {NAMES[peer]}",
            unit="1/s",
            value=median(one.per_second for one in mine),
            baseline=median(one.per_second for one in loads[peer]),
            ratio=median(rates),
            target=f"at least {times:g} x",
            met=median(rates) >= times,
            note=f"rounds: {', '.join(f'{each:.1f}' for each in rates)}",
        )
        yield Row(
            name=f"{what}: p50, beside {NAMES[peer]}",
            unit="ms",
            value=median(one.p50 for one in mine) * 1e3,
            baseline=median(one.p50 for one in loads[peer]) * 1e3,
            ratio=median(waits),
            target=f"{times:g} x as quick",
            met=median(waits) >= times,
            note=f"ratio: theirs over ours; rounds: {', '.join(f'{each:.1f}' for each in waits)}",
        )


def _memory(servers: dict[str, Started]) -> Iterator[Row]:
    used = {peer: server.resident_mb() for peer, server in servers.items()}
    for peer, target in (("mlserver", MEMORY), ("bentoml", None)):
        ratio = used["edgewise"] / used[peer]
        yield Row(
            name=f"memory with the CNN after load, beside {NAMES[peer]}",
            unit="MB",
            value=used["edgewise"],
            baseline=used[peer],
            ratio=ratio,
            target=f"at most {target} x" if target else "for information",
            met=ratio <= target if target else None,
            note="proportional set size of all its processes",
        )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
