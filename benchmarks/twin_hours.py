"""Device-hours per hour of `make soak` and per CI run, and power cuts tried. For information: how much a release rests on.

Soak hours are taken from a timed sample of chaos seeds, as `make soak` makes them, on one core. Power cuts are those of the scenarios
of `tests/powercut`, one scenario in every way, without the second cut.
"""

import time
from collections.abc import Iterator
from typing import Final

from benchmarks.row import Row
from edgewise.twin.chaos import chaos_plan
from edgewise.twin.powercuts import SCENARIOS, run_power_cuts
from edgewise.twin.run import run

_SEEDS: Final = 12
_CI_SECONDS: Final = 120.0


def measure() -> Iterator[Row]:
    """Yield what a soak hour, a CI run and the power cuts are worth."""
    started, hours, faults, broken = time.process_time(), 0.0, 0, 0
    for seed in range(1, _SEEDS + 1):
        result = run(chaos_plan(seed))
        hours += result.device_hours
        faults += result.faults
        broken += len(result.violations)
    spent = time.process_time() - started
    note = f"{_SEEDS} seeds in {spent:.0f} s of processor time: {hours:.0f} device-hours, {faults} faults, {broken} violations"
    for name, seconds in (("hour of soak on one core", 3600.0), ("CI run of two minutes", _CI_SECONDS)):
        yield Row(
            name=f"twin: device-hours in an {name}" if name.startswith("hour") else f"twin: device-hours in a {name}",
            unit="h",
            value=hours / spent * seconds,
            target="for information",
            met=None,
            note=note,
        )
    started = time.process_time()
    cuts = run_power_cuts(SCENARIOS, second=0.0)
    yield Row(
        name="twin: power cuts tried, without second cuts",
        unit="cuts",
        value=cuts.cuts,
        target="none bricked, none mixed",
        met=not cuts.bricked and not cuts.mixed and not cuts.failures,
        note=f"{cuts} ({time.process_time() - started:.0f} s of processor time)",
    )
