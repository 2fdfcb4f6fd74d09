"""What a shadow costs the requests that it sees: the median latency all of them mirrored beside none, in turns in one run."""

import json
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks._serve_load import binary_request, json_request
from benchmarks._serve_models import CNN, SHAPES, TINY, save_models
from benchmarks._serve_pair import Client, p50, slots
from benchmarks.row import Row

_ROUNDS = 12
_SECONDS = 1.0
_SETTLE_SECONDS = 0.2


def measure() -> Iterable[Row]:
    """Measure a tiny model and a convolutional one."""
    with tempfile.TemporaryDirectory() as folder:
        trees = save_models(Path(folder))
        for name, request, pause in ((TINY, json_request, 0.004), (CNN, binary_request, 0.02)):
            data = request("/v2/models/m/infer", np.zeros(SHAPES[name], dtype="float32"))
            yield from _model(name, trees[name], data, pause)


def _model(name: str, tree: Path, data: bytes, pause: float) -> Iterable[Row]:
    with slots() as place:
        serving, candidate = place.start(tree, "m-1"), place.start(tree, "m-2")
        serving.order("POST", "/activate")
        shadow = json.dumps({"mode": "shadow", "target": str(candidate.control), "revision": "m-2"}).encode()
        client = Client(place.address, data, kept=1, pause=pause)
        thread = threading.Thread(target=client.run)
        thread.start()
        found: dict[bytes, list[float]] = {shadow: [], b'{"mode": "none"}': []}
        try:
            time.sleep(_SECONDS)
            for turn in range(2 * _ROUNDS):
                order = list(found)[turn % 2]
                assert serving.order("PUT", "/traffic", order)[0] == 200
                time.sleep(_SETTLE_SECONDS)
                begun = time.perf_counter()
                time.sleep(_SECONDS)
                found[order].append(p50(client.seen.between(begun, time.perf_counter())))
        finally:
            client.stopping = True
            thread.join()
        mirrored, dropped = serving.metric("edgewise_serve_copies_total"), serving.metric("edgewise_serve_copies_dropped_total")
    on, off = (median(each) for each in found.values())
    note = (
        f"medians of {_ROUNDS} stretches each; {mirrored:.0f} requests mirrored, {dropped:.0f} left out, {client.seen.dropped} unanswered"
    )
    yield Row(
        name=f"shadow at 100 %: p50 of the primary, {name}",
        unit="ms",
        value=on * 1e3,
        baseline=off * 1e3,
        ratio=on / off,
        target="p50 grows by at most 10 % while a core is free",
        met=on / off <= 1.1,
        note=note,
    )
