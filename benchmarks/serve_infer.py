"""Inference over HTTP beside a bare ASGI endpoint on uvicorn that hands the body to ONNX Runtime: the protocol, its checks and its
measurements on one side, nothing of that on the other. Both run at once and are measured in turns, so that both see the same machine.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks import _serve_load as load
from benchmarks._serve_load import Load, binary_request, json_request, request
from benchmarks._serve_models import CNN, SHAPES, TINY, save_models
from benchmarks._serve_servers import Started, bare_server, edgewise_server
from benchmarks.row import Row

ROUNDS = 9
SECONDS = 1.0
WARM_UP_SECONDS = 1.0
CONNECTIONS = (1, 8)
RATIO = 0.6
_INFER = "/v2/models/m/infer"


def _in_turns(tree: Path, name: str, connections: int) -> tuple[dict[str, list[Load]], float]:
    """Return what each form of asking gave, round by round, and the server's memory in MB."""
    array = np.random.default_rng(1).standard_normal(SHAPES[name]).astype("float32")
    with edgewise_server(tree) as ours, bare_server(tree, SHAPES[name]) as bare:
        plans: dict[str, tuple[Started, bytes]] = {
            "binary": (ours, binary_request(_INFER, array)),
            "JSON": (ours, json_request(_INFER, array)),
            "bare": (bare, request("/", array.tobytes(), {})),
        }
        loads: dict[str, list[Load]] = {form: [] for form in plans}
        for server, data in plans.values():
            load.measure(server.address, data, connections=connections, seconds=WARM_UP_SECONDS)
        for _ in range(ROUNDS):
            for form, (server, data) in plans.items():
                loads[form].append(load.measure(server.address, data, connections=connections, seconds=SECONDS))
        return loads, ours.resident_mb()


def _rows(name: str, tree: Path, connections: int) -> Iterator[Row]:
    """Rows of one model."""
    loads, memory = _in_turns(tree, name, connections)
    for form in ("binary", "JSON"):
        ratios = [one.per_second / other.per_second for one, other in zip(loads[form], loads["bare"], strict=True)]
        judged = form == "binary" and name == TINY
        yield Row(
            name=f"inference, {name} model, {form}, {connections} connection{'s' if connections > 1 else ''}",
            unit="1/s",
            value=median(each.per_second for each in loads[form]),
            baseline=median(each.per_second for each in loads["bare"]),
            ratio=median(ratios),
            target=f"at least {RATIO} of a bare endpoint" if judged else "for information",
            met=median(ratios) >= RATIO if judged else None,
            note=f"p50 {median(each.p50 for each in loads[form]) * 1e3:.2f} ms, bare "
            f"{median(each.p50 for each in loads['bare']) * 1e3:.2f} ms; "
            f"rounds {', '.join(f'{each:.2f}' for each in ratios)}; server's memory {memory:.0f} MB (PSS)",
        )


def measure() -> Iterator[Row]:
    """Measure both models."""
    with tempfile.TemporaryDirectory() as folder:
        trees = save_models(Path(folder))
        for name in (TINY, CNN):
            for connections in CONNECTIONS:
                yield from _rows(name, trees[name], connections)
