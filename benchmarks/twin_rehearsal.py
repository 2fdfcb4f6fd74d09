"""The rehearsal that a user waits for: the demo's workloads on 1,000 devices, 20 runs on 2 cores.

The baseline is a single run alone in one process, times ten: what 2 cores would need if nothing but the runs cost anything, and each
warmed its fleet up for itself.
`EDGEWISE_BENCH_TWIN_REHEARSAL=100` takes a quick look at a smaller fleet.
"""

import os
import time
from collections.abc import Iterator
from typing import Final

from benchmarks._twin import demo_plan
from benchmarks.row import Row
from edgewise.twin.rehearsal import rehearse
from edgewise.twin.run import carry_on, warmed

DEVICES: Final = int(os.environ.get("EDGEWISE_BENCH_TWIN_REHEARSAL", "1000"))
_RUNS: Final = 20
_PROCESSES: Final = 2
_SECONDS_MAX: Final = 60.0


def measure() -> Iterator[Row]:
    """Yield the row of the rehearsal."""
    plan = demo_plan(DEVICES, 1)
    started = time.process_time()
    world = warmed(plan)
    warm_up = time.process_time() - started
    one = carry_on(world, plan)
    alone = time.process_time() - started
    del world
    began, used = time.monotonic(), os.times()
    rehearsal = rehearse(lambda seed: demo_plan(DEVICES, seed), seeds=range(1, _RUNS + 1), processes=_PROCESSES)
    took, after = time.monotonic() - began, os.times()
    spent = after.children_user + after.children_system - used.children_user - used.children_system
    baseline = alone * _RUNS / _PROCESSES
    yield Row(
        name=f"twin: rehearsal of {_RUNS} runs, {DEVICES:,} devices, {_PROCESSES} cores",
        unit="s",
        value=took,
        baseline=baseline,
        ratio=took / baseline,
        target=f"under {_SECONDS_MAX:.0f}",
        met=took < _SECONDS_MAX if DEVICES >= 1_000 else None,
        note=(
            f"{len(rehearsal.runs)} runs whole, {len(rehearsal.lost)} lost; {spent:.0f} s of processor time in the workers; one run alone "
            f"{alone:.1f} s, {warm_up:.1f} s of them to warm up, for {one.exchanges:,} exchanges ({one.warm_up_exchanges:,} to warm up) "
            f"and {one.simulated_seconds:.0f} simulated seconds; the same run in the rehearsal: {one == rehearsal.runs[0]}"
        ),
    )
