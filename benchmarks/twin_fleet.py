"""100,000 devices for one simulated hour: they join, poll and report every 5 minutes, and one rollout reaches all of them. It runs in a
process of its own, so that its memory is nobody else's.

It takes many minutes. `EDGEWISE_BENCH_TWIN_FLEET=10000` takes a quick look at a smaller fleet; `python -m benchmarks.twin_fleet N` is the
process itself.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Final

import msgspec

from benchmarks._twin import fleet_plan, joined
from benchmarks.row import Row
from edgewise.twin.world import World

DEVICES: Final = int(os.environ.get("EDGEWISE_BENCH_TWIN_FLEET", "100000"))
_CADENCE: Final = 300.0
_HOUR: Final = 3600.0
_SECONDS_MAX: Final = 600.0
_GIGABYTES_MAX: Final = 4.0


class _Told(msgspec.Struct, frozen=True):
    """What the process says. Times are seconds of its processor, `wall` of the clock on the wall; `done_at` is simulated."""

    devices: int
    joining: float
    rollout: float
    whole: float
    wall: float
    done_at: float
    ready: int
    exchanges: int
    gigabytes: float


def measure() -> Iterator[Row]:
    """Yield the rows of the big fleet."""
    command = [sys.executable, "-m", "benchmarks.twin_fleet", str(DEVICES)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    told = msgspec.json.decode(ran.stdout, type=_Told)
    full = told.devices == 100_000
    note = (
        f"{told.wall:.0f} s on the wall; of the processor's time joining took {told.joining:.0f} s, the rollout {told.rollout:.0f} s; "
        f"it was over after {told.done_at:.0f} simulated seconds with {told.ready:,} ready; {told.exchanges:,} exchanges"
    )
    yield Row(
        name=f"twin: {told.devices:,} devices, one simulated hour",
        unit="s",
        value=told.whole,
        target="under 10 minutes" if full else "100,000 devices: under 10 minutes",
        met=told.whole < _SECONDS_MAX if full else None,
        note=note,
    )
    yield Row(
        name=f"twin: {told.devices:,} devices, memory",
        unit="GB",
        value=told.gigabytes,
        target="under 4",
        met=told.gigabytes < _GIGABYTES_MAX if full else None,
    )


def run(devices: int) -> _Told:
    """Make the run."""
    wall, began = time.monotonic(), time.process_time()
    world = World(fleet_plan(devices, _CADENCE))
    joined(world)
    joining = time.process_time()
    print(f"joined after {joining - began:.0f} s", file=sys.stderr, flush=True)
    world.begin()
    world.advance(1.0)
    while not world.at_rest() and world.kernel.now < _HOUR:
        world.advance(world.check_seconds)
    done_at, done = world.kernel.now, time.process_time()
    print(f"rolled out after {done - joining:.0f} s", file=sys.stderr, flush=True)
    world.advance(_HOUR - world.kernel.now)
    told = _Told(
        devices=devices,
        joining=joining - began,
        rollout=done - joining,
        whole=time.process_time() - began,
        wall=time.monotonic() - wall,
        done_at=done_at,
        ready=sum(1 for device in world.devices.values() if device.ready()),
        exchanges=world.control.exchanges,
        gigabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    )
    world.close()
    return told


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(run(int(sys.argv[1]))))
