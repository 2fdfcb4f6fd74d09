"""A hundred hot swaps of a model under load: what is dropped, what is mixed, and what the slowest requests take meanwhile.

Four clients keep their connections, two open a new one for each request. Steady stretches lie between the swaps of the same run; a swap is
counted from the start of the new process to the end of the old one.
"""

import os
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks._serve_load import json_request
from benchmarks._serve_models import SHAPES, TINY, save_models
from benchmarks._serve_pair import Client, p50, p99, slots
from benchmarks.row import Row

SWAPS = int(os.environ.get("EDGEWISE_BENCH_SWAPS", "100"))
_STEADY_SECONDS = 0.5


def measure() -> Iterable[Row]:
    """Swap, and look at what the clients saw."""
    steady: list[float] = []
    swapping: list[float] = []
    with tempfile.TemporaryDirectory() as folder, slots() as place:
        tree = save_models(Path(folder))[TINY]
        data = json_request("/v2/models/m/infer", np.zeros(SHAPES[TINY], dtype="float32"))
        current = place.start(tree, "m-0")
        current.order("POST", "/activate")
        client = Client(place.address, data, kept=4, fresh=2)
        thread = threading.Thread(target=client.run)
        thread.start()
        try:
            time.sleep(2 * _STEADY_SECONDS)
            spans = []
            for number in range(1, SWAPS + 1):
                quiet = time.perf_counter()
                time.sleep(_STEADY_SECONDS)
                begun = time.perf_counter()
                following = place.start(tree, f"m-{number}")
                following.order("POST", "/activate")
                current.order("POST", "/drain")
                current.process.wait(60)
                current = following
                spans.append((quiet, begun, time.perf_counter()))
        finally:
            client.stopping = True
            thread.join()
        seen = client.seen
        for quiet, begun, ended in spans:
            steady += seen.between(quiet, begun)
            swapping += seen.between(begun, ended)
    steady.sort()
    swapping.sort()
    note = f"{SWAPS} swaps, {len(seen.taken)} requests; p50 {p50(steady) * 1e3:.2f} ms steady, {p50(swapping) * 1e3:.2f} ms while swapping"
    yield Row(name="hot swaps: dropped requests", unit="requests", value=seen.dropped, target="0", met=seen.dropped == 0, note=note)
    yield Row(name="hot swaps: mixed answers", unit="answers", value=seen.mixed, target="0", met=seen.mixed == 0)
    ratio = p99(swapping) / p99(steady)
    yield Row(
        name="hot swaps: p99 while a swap goes on",
        unit="ms",
        value=p99(swapping) * 1e3,
        baseline=p99(steady) * 1e3,
        ratio=ratio,
        target="at most twice the steady p99",
        met=ratio <= 2,
    )
