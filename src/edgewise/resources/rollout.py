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


class SideEstimate(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What one side reached of a metric: its mean or quantile, over how many samples of how many devices."""

    value: float
    samples: int = 0
    devices: int = 0


class Difference(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The new revision less the one before, in the metric's unit, and between what bounds it truly lies (None: no bound yet) with a
    probability of at least `confidence`, whenever and however often one looks."""

    value: float
    low: float | None = None
    high: float | None = None
    confidence: float = 0.98


Finding = Literal["", "worse", "within", "same", "better"]
"""How the new revision compares: worse by more than the margin; at most so much worse; nowhere farther off than the margin; better."""


class MetricVerdict(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What was measured of one metric and how it was judged, in words in `message`. Of a comparison: both sides, their `difference`, the
    `margin` in the metric's unit, and the e-values: `harm` speaks for "worse by more than the margin", `soundness` for "by less than the
    margin"; while the opposite is true either reaches 1 / `error_rate` with at most that probability. `dropped` reports were of no use,
    `clipped` devices stand so far outside that their value was taken to be less extreme."""

    metric: str
    state: AnalysisState
    mean: float | None = None
    samples: int = 0
    message: str = ""
    quantile: float | None = None
    direction: Literal["", "higher", "lower"] = ""
    new: SideEstimate | None = None
    old: SideEstimate | None = None
    difference: Difference | None = None
    margin: float | None = None
    finding: Finding = ""
    harm: float | None = None
    soundness: float | None = None
    error_rate: float = 0.0
    dropped: int = 0
    clipped: int = 0


RolloutPhase = Literal["", "Shadow", "Canary", "AB", "BlueGreen"]
"""What a wave does: the new revision sees copies of requests, takes over for good, shares the requests, or waits warm and takes over."""

Winner = Literal["", "new", "old", "none"]
"""Which revision an A/B found better; `none`: they differ by no more than the margins."""


class StageVerdict(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How one wave was judged, and when. `controls`: the devices on the revision before that it was compared with."""

    wave: int
    phase: RolloutPhase
    state: AnalysisState
    at: float = 0.0
    message: str = ""
    verdicts: tuple[MetricVerdict, ...] = ()
    controls: tuple[str, ...] = ()


class RolloutRisk(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What was predicted of a rollout's updates before they began, by `rules` or by a `model` that the fleet's history taught, and what
    came of the `ended` ones: so many failures were `predicted` (a sum of probabilities), so many `failed`. `riskiest` names a few devices
    with their risk and what spoke against them. `taught`: the rollout said something of its devices, so it was learned from. Of the last
    `scored` predictions of all rollouts: the `brier` score (mean squared error; `base`: of always saying the share that failed) and the
    expected calibration `error`."""

    source: Literal["rules", "model"] = "rules"
    ended: int = 0
    predicted: float = 0.0
    failed: int = 0
    riskiest: tuple[str, ...] = ()
    taught: bool = False
    scored: int = 0
    brier: float = 0.0
    base: float = 0.0
    error: float = 0.0


class Explanation(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Why some devices of a rollout most likely failed: the `cause` in a few words, the `evidence` for it, and what to do next. `devices`
    names the first few of the `count`."""

    cause: str
    evidence: str
    advice: str
    count: int = 0
    devices: tuple[str, ...] = ()


class RolloutStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What was seen of a rollout. `wave` counts from 1 while progressing; `members` are totals, for a member's own state see its
    Instance.
    `touched` counts devices that were ever given `to_revision`; `failures` are the first few failed devices with their reason, and
    `explanations` why they most likely failed. `phase` says
    what the open wave does; `left_out` names a few devices that take no part in it, and why. `controls` are devices on the revision before
    that the wave is compared with. `winner` is how an A/B ended: `new`, `old`, or `none` for no difference.
    `risk`: what was predicted, as of the last wave that opened or the end. `stages` remember how the waves so far were judged."""

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
    explanations: tuple[Explanation, ...] = ()
    analysis: AnalysisState = AnalysisState.PENDING
    verdicts: tuple[MetricVerdict, ...] = ()
    controls: tuple[str, ...] = ()
    left_out: dict[str, str] = {}
    risk: RolloutRisk | None = None
    winner: Winner = ""
    stages: tuple[StageVerdict, ...] = ()
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
