"""Durable transactions per second of the SQLite store, through asyncio, on one core.

`python benchmarks/store.py [--seconds S] [--callers N] [--cores N] [--json FILE] [--folder DIR]`. Each caller awaits its own small
transactions one after the other: a status and a mark (what a device's report is), or a frame and a mark. Every one counted was
acknowledged after its commit.
"""

import argparse
import asyncio
import json
import os
import resource
import tempfile
import time
from pathlib import Path

import uvloop

from edgewise.store.contract import FrameRow, Key, Mark, Put, PutStatus, StoreLimits, Transaction, Written
from edgewise.store.sqlite import SqliteStore, open_store

STATUSES = [os.urandom(250) for _ in range(64)]
SUMMARY = os.urandom(200)
BODY = os.urandom(400)


async def fill(store: SqliteStore, devices: int) -> None:
    for first in range(0, devices, 500):
        writes = tuple(
            Put(key=key(number), spec=os.urandom(150), labels={"site": "lab"}, uid=f"{number:032x}", status=STATUSES[0])
            for number in range(first, min(first + 500, devices))
        )
        await store.write(Transaction(now=1e9, writes=writes))


def key(number: int) -> Key:
    return Key("Instance", "default", f"inspector.device-{number:05}")


def status(number: int, turn: int) -> Transaction:
    return Transaction(
        now=1e9,
        writes=(PutStatus(key=key(number), status=STATUSES[turn % 64], missing_ok=True),),
        marks=(Mark(agent=f"device-{number:05}", incarnation="0123456789abcdef", lane="status", number=turn),),
    )


def frame(number: int, turn: int) -> Transaction:
    name = f"device-{number:05}"
    return Transaction(
        now=1e9,
        frames=(FrameRow(device=name, start=1e9 + turn, end=1e9 + turn + 60, summary=SUMMARY, body=BODY),),
        marks=(Mark(agent=name, incarnation="0123456789abcdef", lane="telemetry", number=turn),),
    )


async def measure(name: str, make, callers: int, seconds: float, folder: str) -> dict[str, object]:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        store = await open_store(Path(place) / "store.db", StoreLimits())
        await fill(store, callers)
        latencies: list[float] = []
        count = 0
        end = time.perf_counter() + seconds

        async def caller(number: int) -> None:
            nonlocal count
            turn = 1
            while (began := time.perf_counter()) < end:
                written = await store.write(make(number, turn))
                assert isinstance(written, Written)
                turn += 1
                count += 1
                if (turn + number) % 8 == 0:
                    latencies.append(time.perf_counter() - began)

        cpu, wall = time.process_time(), time.perf_counter()
        await asyncio.gather(*(caller(number) for number in range(callers)))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        await store.close()
    latencies.sort()
    return {
        "name": name,
        "callers": callers,
        "per_second": round(count / wall),
        "cpu_microseconds_each": round(cpu / count * 1e6, 1),
        "cores_busy": round(cpu / wall, 2),
        "latency_p50_ms": round(latencies[len(latencies) // 2] * 1e3, 1),
        "latency_p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1e3, 1),
        "rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--callers", type=int, default=5000)
    parser.add_argument("--cores", type=int, default=1, help="how many cores to use; 0 for all")
    parser.add_argument("--json", default="")
    parser.add_argument("--folder", default="", help="where the store is made: the disk that is measured")
    arguments = parser.parse_args()
    if arguments.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-arguments.cores :])
    results = []
    for name, make in (("status + mark", status), ("frame + mark", frame)):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            result = runner.run(measure(name, make, arguments.callers, arguments.seconds, arguments.folder or tempfile.gettempdir()))
        results.append(result)
        print("  ".join(f"{label} {value}" for label, value in result.items()))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
