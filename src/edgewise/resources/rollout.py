"""One progressive move of a workload from one revision to another."""

from typing import Annotated, Literal

import msgspec

from edgewise.resources.meta import ApiVersion, Metadata, Name
from edgewise.resources.states import AnalysisState, RolloutState
from edgewise.resources.workload import Strategy


class RolloutSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """From where to where, and a person's word on it. `from_revision` is empty for a workload's first rollout. `promote` counts the times
    a person skipped the rest of the observation (each opens the next wave)."""

    workload: Name
    to_revision: str
    from_revision: str = ""
    version: str = ""
    strategy: Strategy = Strategy()
    paused: bool = False
    promote: Annotated[int, msgspec.Meta(ge=0)] = 0
    abort: bool = False


class MemberCounts(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How many devices stand where in a wave or rollout."""

    pending: int = 0
    updating: int = 0
    succeeded: int = 0
    failed: int = 0
    unreached: int = 0


class MetricVerdict(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What was measured of one metric and how it was judged."""

    metric: str
    state: AnalysisState
    mean: float | None = None
    samples: int = 0
    message: str = ""


RolloutPhase = Literal["", "Shadow", "Canary", "AB", "BlueGreen"]
"""What a wave does: the new revision sees copies of requests, takes over for good, shares the requests, or waits warm and takes over."""


class RolloutStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What was seen of a rollout. `wave` counts from 1 while progressing; `members` are totals, for a member's own state see its
    Instance.
    `touched` counts devices that were ever given `to_revision`; `failures` are the first few failed devices with their reason. `phase` says
    what the open wave does; `left_out` names a few devices that take no part in it, and why. `controls` are devices on the revision before
    that the wave is compared with. `winner` is how an A/B ended: `new`, `old`, or `none` for no difference."""

    observed_generation: int = 0
    state: RolloutState = RolloutState.PENDING
    phase: RolloutPhase = ""
    wave: int = 0
    waves: int = 0
    wave_started_at: float = 0.0
    healthy_since: float | None = None
    members: MemberCounts = MemberCounts()
    touched: int = 0
    touched_devices: tuple[str, ...] = ()
    failures: dict[str, str] = {}
    analysis: AnalysisState = AnalysisState.PENDING
    verdicts: tuple[MetricVerdict, ...] = ()
    controls: tuple[str, ...] = ()
    left_out: dict[str, str] = {}
    winner: Literal["", "new", "old", "none"] = ""
    promoted: int = 0
    started_at: float = 0.0
    finished_at: float | None = None
    message: str = ""


class Rollout(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="kind", tag="Rollout", forbid_unknown_fields=True):
    """One progressive move from one revision to another, named WORKLOAD-N."""

    metadata: Metadata
    spec: RolloutSpec
    api_version: ApiVersion = "edgewise/v1alpha1"
    status: RolloutStatus = RolloutStatus()


RolloutAction = Literal["pause", "resume", "promote", "abort"]
