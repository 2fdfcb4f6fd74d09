"""Made-up results, for what is made of results; and lets the tests in this folder import their helpers."""

import sys
from pathlib import Path

import pytest

from edgewise.twin.kernel import Kernel
from edgewise.twin.result import Counts, Moment, RolloutResult, RunResult, Violation, WorkloadResult

sys.path.insert(0, str(Path(__file__).parent))

WORKLOAD = "default/inspector"
NEW = f"{WORKLOAD} 2"
OLD = f"{WORKLOAD} 1"


def made(seed, *, back=False, ended=True, devices=100, pace=1.0, failed=(), violations=(), interrupted=False):
    """A rollout from version 1 to 2 in three waves, as a run would tell it. `pace` 2: twice as slow."""
    chance = Kernel(seed).stream("made")
    starts = [30.0]
    for _ in range(2):
        starts.append(starts[-1] + pace * chance.uniform(240, 420))
    sizes = [devices // 10, devices // 2, devices]
    end = starts[-1] + pace * chance.uniform(200, 400)
    turned = starts[1] + 90.0 if back else None
    moved = [min(devices, size) for size in sizes]
    cut = chance.uniform(200, 500)
    timeline = [Moment(at=0.0, kind="change", subject=WORKLOAD, message="version 2")]
    counts = []
    for at in range(0, int(end) + 600, max(15, int(15 * pace))):
        new = 0.0
        for index, start in enumerate(starts):
            if at >= start and not (turned and index > 1):
                before = moved[index - 1] if index else 0
                new = before + (moved[index] - before) * min(1.0, (at - start) / (pace * 120))
        if turned and at >= turned:
            new = max(0.0, (new if at < turned + 60 else moved[1]) * (1 - (at - turned) / 150))
        offline = devices // 5 if cut <= at < cut + 180 else 0
        updating = 0 if new in (0, devices) else devices // 20
        down = len(failed) if at > starts[1] else 0
        counts.append(
            Counts(
                at=float(at),
                versions={OLD: max(0, devices - int(new) - updating), NEW: max(0, int(new) - down)},
                updating=updating,
                offline=offline,
            )
        )
    for wave, start in enumerate(starts[:2] if back else starts, 1):
        timeline.append(Moment(at=start, kind="wave", subject="inspector-2", message=f"wave {wave} of 3: {moved[wave - 1]} devices"))
    timeline.append(Moment(at=cut, kind="fault", subject="hall-2", message="partition", until=cut + 180))
    timeline.append(Moment(at=cut + 300, kind="fault", subject="device-7", message="power-cut", until=cut + 330))
    timeline.append(Moment(at=cut + 340, kind="fault", subject="device-9", message="power-cut", until=cut + 350))
    timeline.append(Moment(at=cut + 400, kind="fault", subject="control plane", message="control-kill", until=cut + 460))
    timeline += [Moment(at=starts[1] + 20, kind="failure", subject=device, message="it crashed") for device in failed]
    if turned:
        end = turned + 160
        timeline.append(Moment(at=turned, kind="rollback", subject="inspector-2", message="accuracy 0.82 is below 0.9"))
    rollout = RolloutResult(
        name="inspector-2",
        workload=WORKLOAD,
        version="2",
        state="RolledBack" if back else "Succeeded" if ended else "Progressing",
        started_at=30.0,
        ended_at=end if ended else None,
        rollback_at=turned,
        members=devices,
        touched=moved[1] if back else devices,
        failed=len(failed),
        message=f"accuracy 0.8{seed} is below 0.9" if back else "",
    )
    return RunResult(
        seed=seed,
        trace_hash=f"{seed:032x}",
        simulated_seconds=end + 1200,
        device_hours=devices * (end + 1200) / 3600,
        exchanges=devices * 40,
        events=devices * 300,
        devices=devices,
        devices_failed=tuple(failed),
        rollouts=(rollout,),
        workloads=(
            WorkloadResult(
                workload=WORKLOAD,
                unavailable_seconds=pace * chance.uniform(100, 900),
                wanted_seconds=devices * end,
                unavailable_minutes_max=chance.uniform(0.5, 3),
                restarts=devices,
            ),
        ),
        site_bytes={"hall-1": int(chance.uniform(3e7, 4e7)), "hall-2": int(chance.uniform(1e6, 2e6))},
        energy_watt_hours=devices * 2.5 * end / 3600,
        settled_at=end + 60 if ended else None,
        timeline=tuple(sorted(timeline, key=lambda moment: moment.at)),
        counts=tuple(counts),
        faults=4,
        violations=tuple(violations),
        interrupted=interrupted,
    )


@pytest.fixture
def made_run():
    return made


@pytest.fixture
def violation():
    return Violation(invariant="one-revision-whole", at=77.0, subject="device-3", message="two revisions run in slot a")
