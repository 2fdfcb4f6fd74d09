"""What happens to a fleet while it is simulated: scenarios as people write them in YAML, and the schedule of single faults drawn from one.

A scenario says what, to whom and how often; `schedule.py` draws from it, the fleet and a seed the faults that really come, each with its
number. A failing run is shrunk by leaving out faults of the schedule.
"""

from typing import Annotated, Literal

import msgspec

from edgewise.resources.quantity import Duration
from edgewise.twin.fleet import LinkQuality, Share

FaultKind = Literal[
    "partition",  # the link carries nothing; `direction`
    "captive-portal",  # every exchange is answered with nonsense
    "link",  # the link has `quality` meanwhile
    "power-cut",  # off at once, unsynced writes go the way of `crash`, on again after `lasts`
    "reboot",  # a clean restart of the device
    "agent-kill",  # kill -9 of the agent only
    "supervisor-kill",  # kill -9 of the supervisor, workloads end with it
    "lost",  # the device never comes back
    "absent",  # off for `lasts` (weeks), then back
    "replaced",  # new hardware under the same name: empty disk, joins anew
    "cloned",  # a second device shows the same identity
    "disk-full",
    "disk-error",  # reads and writes fail with an I/O error
    "disk-read-only",
    "sync-failure",  # one fdatasync fails
    "bit-rot",  # a bit of a file at rest flips, or a file is cut short
    "clock",  # the device's wall clock jumps by `seconds`, or to 1970
    "battery",  # the battery holds `amount` (share of full) and the sun is gone
    "heat",  # `amount` degrees Celsius: throttles
    "workload-crash",
    "workload-hang",
    "workload-leak",
    "control-kill",  # kill -9 of the control plane, back after `lasts`
    "control-kill-at-write",  # as before, at its next write: `amount` < 0.5 before the commit, else after it
    "control-restore",  # the store is set back to a backup of `seconds` ago, with a new epoch
    "slow-store",  # every write takes `seconds`
]


class Select(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """Whom a fault hits: all that match, or `share` of them (at least one), drawn anew each time; with `same`, the same ones each time.
    With `whole_sites` it is sites that are drawn and hit, with all their devices that match. Empty: every device."""

    sites: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    share: Share = 1.0
    same: bool = False
    whole_sites: bool = False


class FaultRule(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """Faults of one kind. It comes once `at` a time, or again and again at `every` on average (exponential), between `at` and `until`.
    `together`: all that are hit are hit at the same moment; otherwise each device (or site, with `select.wholeSites`) at its own,
    between `at` and `until`. `during_rollout`: its times count from the moment when the run's first rollout began."""

    fault: FaultKind
    at: Duration = "0s"
    every: Duration | None = None
    until: Duration | None = None
    lasts: Duration = "60s"
    select: Select = Select()
    together: bool = True
    during_rollout: bool = False
    direction: Literal["both", "up", "down"] = "both"
    quality: LinkQuality | None = None
    crash: Literal["any", "all", "dropped", "torn", "garbage", "names-dropped", "contents-dropped", "reordered", "mixed"] = "any"
    seconds: float = 0.0
    amount: float = 0.0


class Behaviour(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """How a workload behaves where all of the given match; the first that matches counts. `workload` is NAME or NAMESPACE/NAME; `version`
    an artifact version, or `new` (the one a rollout of the run moves to) or `old`. `share`: on that share of the devices (drawn once per
    device), elsewhere the next that matches counts."""

    workload: str = ""
    version: str = ""
    variant: str = ""
    device_class: str = ""
    share: Share = 1.0
    start_seconds: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    fails: Literal["", "does-not-load", "crashes-at-start", "crashes", "hangs", "leaks", "probe-fails", "slow-probes"] = ""
    fails_after_seconds: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    analysis: Literal["", "passes", "fails"] = ""
    """The metrics that the workload's own analysis asks for are safely inside its bounds, or outside. Only in scenarios: a plan's
    behaviours say them as `metrics` (see `expected.py`)."""
    metrics: dict[str, tuple[float, float]] = {}
    """Metric to mean and standard deviation, reported every `metric_seconds`."""
    metric_seconds: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    samples_per_second: Annotated[float, msgspec.Meta(ge=0)] = 10.0
    busy: Share = 0.3
    """The share of the time that the device computes for it."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """What happens around a change. `lasts` bounds the faults; afterwards the fleet gets `settle` to come to rest."""

    name: str
    description: str = ""
    lasts: Duration = "30m"
    settle: Duration = "30m"
    link: LinkQuality | None = None
    faults: tuple[FaultRule, ...] = ()
    behaviours: tuple[Behaviour, ...] = ()


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault of a schedule. `number` names it in `--only`; times in seconds since the scenario's start (the end of the warm-up), or
    since the first rollout began where `rule.during_rollout` says so. `lasts` 0: it is over at once, or comes to no end. `devices` are
    those hit; empty for faults of the control plane. `rule` says the rest."""

    number: int
    at: float
    lasts: float
    rule: FaultRule
    devices: tuple[str, ...] = ()
