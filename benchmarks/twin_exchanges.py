"""How many exchanges a second one core simulates: reports and polls of a steady fleet of 10,000 devices, each through the real outbox,
both codecs, the gateway's decisions and the store in memory.

The baseline is the codec alone: the same reports and answers, written and read once on each side, with nothing decided or kept.
`EDGEWISE_BENCH_TWIN_STEADY` sets another number of devices.
"""

import cProfile
import os
import pstats
import statistics
import time
from collections.abc import Iterator
from typing import Final

import msgspec

from benchmarks._twin import fleet_plan, joined
from benchmarks.row import Row
from edgewise.controllers.gateway import ReportDecision
from edgewise.twin.observers import Observer
from edgewise.twin.world import World
from edgewise.wire.report import Report, ReportAnswer

DEVICES: Final = int(os.environ.get("EDGEWISE_BENCH_TWIN_STEADY", "10000"))
_CADENCE: Final = 60.0
_SETTLE_SECONDS: Final = 180.0
_SLICE_SECONDS: Final = 20.0
_SLICES: Final = 6
_PROFILED_SECONDS: Final = 20.0
_SAMPLES: Final = 2_000
_LEAST: Final = 5_000.0


class _Sampler(Observer):
    """Keeps some reports and their answers."""

    def __init__(self) -> None:
        self.kept: list[tuple[Report, ReportAnswer]] = []
        self.keeping = False

    def reported(self, world: World, agent: str, report: Report, decision: ReportDecision) -> None:
        """See `Observer`."""
        del world, agent
        if self.keeping and len(self.kept) < _SAMPLES:
            self.kept.append((report, decision.answer))


def measure() -> Iterator[Row]:
    """Yield the row of exchanges."""
    sampler = _Sampler()
    world = World(fleet_plan(DEVICES, _CADENCE), observers=(sampler,))
    joined(world)
    world.begin()
    world.advance(1.0)
    while not world.at_rest():
        world.advance(10.0)
    world.advance(_SETTLE_SECONDS)
    slices = [_rate(world, _SLICE_SECONDS) for _ in range(_SLICES)]
    rate = statistics.median(slices)
    sampler.keeping = True
    top = _profile(world)
    bare = _bare(sampler.kept)
    world.close()
    yield Row(
        name=f"twin: exchanges of one core, {DEVICES:,} devices",
        unit="1/s",
        value=rate,
        baseline=bare,
        ratio=rate / bare,
        target=f"at least {_LEAST:,.0f}",
        met=rate >= _LEAST,
        note=(
            f"median of {_SLICES} slices ({min(slices):,.0f} to {max(slices):,.0f}), {1e6 / rate:.0f} µs of processor time each; baseline: "
            f"only the codec, both ways; most time in {top}"
        ),
    )


def _rate(world: World, seconds: float) -> float:
    before, started = world.control.exchanges, time.process_time()
    world.advance(seconds)
    return (world.control.exchanges - before) / (time.process_time() - started)


def _profile(world: World) -> str:
    """Return the five functions with the most time of their own."""
    profile = cProfile.Profile(time.process_time)  # on the wall's clock, whoever is interrupted by other work looks slow
    profile.runcall(world.advance, _PROFILED_SECONDS)
    stats = pstats.Stats(profile)
    times = sorted(((own, name) for name, (_, _, own, _, _) in stats.stats.items()), reverse=True)  # type: ignore[attr-defined]  # not in its stubs
    whole = sum(own for own, _ in times)
    return ", ".join(f"{_named(*name)} {own / whole:.0%}" for own, name in times[:5])


def _named(path: str, line: int, function: str) -> str:
    where = path.rpartition("/")[2].removesuffix(".py")
    return f"{where}.{function}" if line else function.strip("<>").replace("built-in method ", "").replace("method ", "")


def _bare(samples: list[tuple[Report, ReportAnswer]]) -> float:
    """Return how many exchanges a second the codec alone would allow."""
    encoder, reports, answers = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Report), msgspec.msgpack.Decoder(ReportAnswer)
    started = time.process_time()
    for report, answer in samples:
        reports.decode(encoder.encode(report))
        answers.decode(encoder.encode(answer))
    return len(samples) / (time.process_time() - started)
