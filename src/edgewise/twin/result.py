"""What one run gave. Everything here is a function of the plan and the seed: no wall-clock time, no order of sets."""

from collections.abc import Callable
from typing import Literal

import msgspec


class Violation(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An invariant did not hold. `at` in simulated seconds; `subject` is a device, workload or rollout."""

    invariant: str
    at: float
    subject: str
    message: str


class Moment(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Something for the timeline. `until` for what lasts (faults)."""

    at: float
    kind: Literal["change", "wave", "rollout", "fault", "failure", "rollback", "control"]
    subject: str
    message: str = ""
    until: float | None = None


class Counts(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How many devices run what at a time, for the picture. `versions` maps WORKLOAD VERSION to devices that run it ready; `updating` and
    `offline` count devices."""

    at: float
    versions: dict[str, int]
    updating: int = 0
    offline: int = 0


class RolloutResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How a rollout went. Times in simulated seconds; `ended_at` None: it had not ended when the run did. `state` is a `RolloutState`.
    `rollback_at`: when it began to roll back. `failures`: the first few devices that failed, with the reason."""

    name: str
    workload: str
    version: str
    state: str
    started_at: float
    ended_at: float | None
    rollback_at: float | None = None
    members: int = 0
    touched: int = 0
    failed: int = 0
    unreached: int = 0
    message: str = ""
    failures: dict[str, str] = {}


class WorkloadResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What users of a workload noticed. `unavailable_seconds`: device-seconds in which an instance that should have run was not ready, of
    `wanted_seconds`; `unavailable_minutes_max`: the longest such time on one device, in minutes."""

    workload: str
    unavailable_seconds: float
    wanted_seconds: float
    unavailable_minutes_max: float
    restarts: int = 0


class RunResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One run. `exchanges` are full report or desired exchanges, `warm_up_exchanges` those of them in the warm-up, which runs of a
    rehearsal share; bytes are those on each site's link, both ways."""

    seed: int
    trace_hash: str
    simulated_seconds: float
    device_hours: float
    exchanges: int
    events: int
    devices: int
    devices_failed: tuple[str, ...] = ()
    rollouts: tuple[RolloutResult, ...] = ()
    workloads: tuple[WorkloadResult, ...] = ()
    site_bytes: dict[str, int] = {}
    energy_watt_hours: float = 0.0
    settled_at: float | None = None
    timeline: tuple[Moment, ...] = ()
    counts: tuple[Counts, ...] = ()
    faults: int = 0
    warm_up_exchanges: int = 0
    violations: tuple[Violation, ...] = ()
    interrupted: bool = False


class Progress(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How far a run is: simulated seconds gone of those that it lasts at most (it may end sooner), the warm-up included, and full
    exchanges since the warm-up."""

    seed: int
    simulated_seconds: float
    of_seconds: float
    exchanges: int = 0


ProgressCall = Callable[[Progress], None]
"""Called now and then (a thousand times a run or so) by `run.run(plan, progress=…)`."""

StopCall = Callable[[], bool]
"""Asked now and then by `run.run(plan, stop=…)`: once it is true the run ends early, and its result is `interrupted`."""
