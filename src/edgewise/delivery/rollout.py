"""How a rollout goes on: a table of states and signals, what one member's state is, and which devices come next.

A rollout's membership is not stored: an instance is a member once its spec carries the rollout's revision. `signal_of` says what follows
from the members' counts, the analysis, a person's word and the time; `TABLE` says what that means in each state.
"""

import heapq
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from edgewise.delivery.stages import Pace, Stage, pace_of, stage_at
from edgewise.resources.instance import InstanceSpec
from edgewise.resources.quantity import CountOrPercentage, share_of
from edgewise.resources.rollout import RolloutSpec, RolloutStatus, Winner
from edgewise.resources.states import AnalysisState, InstanceState, RolloutState, UpdateState
from edgewise.resources.traffic import Traffic


class Signal(StrEnum):
    """What may happen to a rollout."""

    START = "Start"
    SUPERSEDE = "Supersede"
    ABORT = "Abort"
    OVER_BUDGET = "OverBudget"
    ANALYSIS_FAILED = "AnalysisFailed"
    PROMOTE = "Promote"
    PAUSE = "Pause"
    RESUME = "Resume"
    INCONCLUSIVE = "Inconclusive"
    HEALTHY = "Healthy"
    UNHEALTHY = "Unhealthy"
    OUT_OF_REACH = "OutOfReach"
    ASKED = "Asked"
    JUDGED = "Judged"
    NO_DIFFERENCE = "NoDifference"
    WAVE_DONE = "WaveDone"
    ALL_DONE = "AllDone"
    BACK = "Back"
    BACK_ABORTED = "BackAborted"


class Effect(StrEnum):
    """What a transition does besides changing the state. `OpenWave`: the first or next wave begins. `Observe` and `Wait`: the time of
    observation begins or is begun anew. `Release`: the wave's instances may commit. `SendBack`: every touched instance goes back and
    refuses the revision. `Finish`: the revision is the stable one now. `Hold`: a person must say how to go on. `Ask`: all is well, and a
    person says when to go on."""

    NONE = "None"
    OPEN_WAVE = "OpenWave"
    OBSERVE = "Observe"
    WAIT = "Wait"
    RELEASE = "Release"
    SEND_BACK = "SendBack"
    FINISH = "Finish"
    HOLD = "Hold"
    ASK = "Ask"


_P, _H, _R = RolloutState.PROGRESSING, RolloutState.PAUSED, RolloutState.ROLLING_BACK

TABLE: Final[Mapping[tuple[RolloutState, Signal], tuple[RolloutState, Effect]]] = {
    (RolloutState.PENDING, Signal.START): (_P, Effect.OPEN_WAVE),
    (RolloutState.PENDING, Signal.SUPERSEDE): (RolloutState.SUPERSEDED, Effect.NONE),
    (RolloutState.PENDING, Signal.ABORT): (_R, Effect.SEND_BACK),
    (_P, Signal.SUPERSEDE): (RolloutState.SUPERSEDED, Effect.NONE),
    (_P, Signal.ABORT): (_R, Effect.SEND_BACK),
    (_P, Signal.OVER_BUDGET): (_R, Effect.SEND_BACK),
    (_P, Signal.ANALYSIS_FAILED): (_R, Effect.SEND_BACK),
    (_P, Signal.NO_DIFFERENCE): (_R, Effect.SEND_BACK),
    (_P, Signal.PROMOTE): (_P, Effect.RELEASE),
    (_P, Signal.PAUSE): (_H, Effect.NONE),
    (_P, Signal.INCONCLUSIVE): (_H, Effect.HOLD),
    (_P, Signal.OUT_OF_REACH): (_H, Effect.NONE),
    (_P, Signal.HEALTHY): (_P, Effect.OBSERVE),
    (_P, Signal.UNHEALTHY): (_P, Effect.WAIT),
    (_P, Signal.ASKED): (_H, Effect.ASK),
    (_P, Signal.JUDGED): (_P, Effect.RELEASE),
    (_P, Signal.WAVE_DONE): (_P, Effect.OPEN_WAVE),
    (_P, Signal.ALL_DONE): (RolloutState.SUCCEEDED, Effect.FINISH),
    (_H, Signal.SUPERSEDE): (RolloutState.SUPERSEDED, Effect.NONE),
    (_H, Signal.ABORT): (_R, Effect.SEND_BACK),
    (_H, Signal.OVER_BUDGET): (_R, Effect.SEND_BACK),
    (_H, Signal.ANALYSIS_FAILED): (_R, Effect.SEND_BACK),
    (_H, Signal.PROMOTE): (_P, Effect.RELEASE),
    (_H, Signal.RESUME): (_P, Effect.WAIT),
    (_R, Signal.SUPERSEDE): (RolloutState.SUPERSEDED, Effect.NONE),
    (_R, Signal.BACK): (RolloutState.ROLLED_BACK, Effect.NONE),
    (_R, Signal.BACK_ABORTED): (RolloutState.ABORTED, Effect.NONE),
}
"""What each signal means in each state; a pair that is not here means nothing."""

ACTIVE: Final = frozenset({RolloutState.PENDING, _P, _H, _R})
"""The states of a rollout that is not over."""


class Standing(StrEnum):
    """Where one instance stands on its way to a revision. `Held`: well, but told to stay in Probation. `Unready`: it
    committed the revision and is not ready right now."""

    PENDING = "Pending"
    UPDATING = "Updating"
    HELD = "Held"
    UNREADY = "Unready"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNREACHED = "Unreached"


class Seen(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What decisions need of an instance's status; it is read from the same bytes as `InstanceStatus`."""

    observed_epoch: int = 0
    state: InstanceState = InstanceState.PENDING
    update: UpdateState = UpdateState.IDLE
    revision: str = ""
    committed: str = ""
    update_revision: str = ""
    ready: bool = False
    traffic: Traffic | None = None
    refused: tuple[str, ...] = ()
    reason: str = ""
    message: str = ""


def standing(spec: InstanceSpec, seen: Seen, to: str, *, online: bool, overdue: bool) -> Standing:
    """Return where an instance stands on its way to `to`. `overdue`: its deadline passed while the device was reachable."""
    if spec.revision != to:
        return Standing.PENDING
    # What is said of an older epoch is said of a copy that was placed before this one.
    known = _known(spec, seen, to, online=online) if not 0 < seen.observed_epoch < spec.epoch else None
    if known is not None:
        return known
    if not online:
        return Standing.UNREACHED
    return Standing.FAILED if overdue else Standing.UPDATING


def _known(spec: InstanceSpec, seen: Seen, to: str, *, online: bool) -> Standing | None:
    """Return what the device's own account decides, or None when it is still on its way."""
    # A fetch that failed and is tried again refuses nothing: only its deadline counts.
    if to in seen.refused:
        return Standing.FAILED
    if seen.committed == to and seen.revision == to:
        if seen.state is InstanceState.BROKEN:
            return Standing.FAILED
        # A restart in between is not a failure: it is observed until it is ready again, or Broken.
        return Standing.SUCCEEDED if seen.ready or not online else Standing.UNREADY
    on_trial = spec.hold and seen.ready and seen.update is UpdateState.PROBATION and seen.update_revision == to
    return Standing.HELD if on_trial and online and _in_place(spec.traffic, seen, to) else None


def _in_place(traffic: Traffic | None, seen: Seen, to: str) -> bool:
    """Whether a revision on trial stands where it is wanted. While the new one is not ready yet, what is ready is the old one beside it."""
    if traffic is None or not seen.committed:
        return seen.revision == to
    return seen.traffic is not None and seen.traffic.mode == traffic.mode


class Tally(msgspec.Struct, kw_only=True):
    """How many instances stand where. `holding`: those on the revision that are told to stay in Probation."""

    pending: int = 0
    updating: int = 0
    held: int = 0
    unready: int = 0
    succeeded: int = 0
    failed: int = 0
    unreached: int = 0
    holding: int = 0

    @property
    def touched(self) -> int:
        """Those that carry the revision."""
        return self.updating + self.held + self.unready + self.succeeded + self.failed + self.unreached

    @property
    def total(self) -> int:
        """All instances."""
        return self.pending + self.touched

    @property
    def well(self) -> int:
        """Those that run the revision and are well."""
        return self.held + self.succeeded


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollout's next step depends on. `filled`: the open wave has all its members. `verdict` is the analysis of the open wave,
    Successful when none is configured. `back`: everything that had to go back did. `silent`: for as long as a device may take, nobody could
    tell how the revision does. `word`: a person changed the rollout's spec since its last step. `winner`: how an A/B ends."""

    spec: RolloutSpec
    status: RolloutStatus
    tally: Tally
    now: float
    filled: bool = False
    verdict: AnalysisState = AnalysisState.SUCCESSFUL
    back: bool = False
    silent: bool = False
    word: bool = False
    winner: Winner = ""

    @property
    def stage(self) -> Stage:
        """What the open wave does."""
        return stage_at(self.spec, self.status.wave)

    @property
    def pace(self) -> Pace:
        """How many may fail."""
        return pace_of(self.spec.strategy)


def signal_of(facts: Facts) -> Signal | None:
    """Return what happens to a rollout now, the most urgent first, or None."""
    match facts.status.state:
        case RolloutState.PENDING:
            return Signal.ABORT if facts.spec.abort else Signal.START
        case RolloutState.PROGRESSING | RolloutState.PAUSED:
            return bad_news(facts) or _word(facts) or _progress(facts)
        case RolloutState.ROLLING_BACK:
            if not facts.back:
                return None
            return Signal.BACK_ABORTED if facts.spec.abort else Signal.BACK
        case _:
            return None


def bad_news(facts: Facts) -> Signal | None:
    """Return what takes the revision back now, whatever else may happen, or None."""
    if facts.spec.abort:
        return Signal.ABORT
    if over_budget(facts.pace, facts.tally):
        return Signal.OVER_BUDGET
    if facts.verdict is AnalysisState.FAILED and facts.status.analysis is not AnalysisState.SUCCESSFUL:
        return Signal.ANALYSIS_FAILED
    return None


def _word(facts: Facts) -> Signal | None:
    paused = facts.status.state is RolloutState.PAUSED
    if facts.spec.promote > facts.status.promoted:
        return Signal.PROMOTE
    if paused == facts.spec.paused or (paused and facts.silent and not facts.word):
        return None
    return Signal.RESUME if paused else Signal.PAUSE


def _progress(facts: Facts) -> Signal | None:
    status, tally = facts.status, facts.tally
    if status.state is RolloutState.PAUSED:
        return None
    if tally.total == 0:
        return Signal.ALL_DONE
    if status.analysis is AnalysisState.SUCCESSFUL and not facts.stage.commits:
        # Nobody commits anything: the next wave says what becomes of its members.
        return Signal.WAVE_DONE
    if not facts.filled:
        return None
    if facts.silent and (status.healthy_since is None or status.analysis is AnalysisState.SUCCESSFUL):
        return Signal.OUT_OF_REACH
    return _filled(facts)


def _filled(facts: Facts) -> Signal | None:
    status, tally, pace = facts.status, facts.tally, facts.pace
    settled = tally.updating == 0 and _tolerable(pace, tally.unready, tally) and not nothing_known(tally)
    if status.analysis is AnalysisState.SUCCESSFUL:
        done = Signal.ALL_DONE if status.wave >= status.waves else Signal.WAVE_DONE
        return done if settled and not tally.holding else None
    if status.healthy_since is None:
        return Signal.HEALTHY if settled else None
    # In a large fleet some device always starts or restarts: only more of them than may fail begin the observation anew.
    if not _tolerable(pace, tally.unready + tally.updating, tally):
        return Signal.UNHEALTHY
    return _observed(facts, status.healthy_since)


def _observed(facts: Facts, since: float) -> Signal | None:
    if facts.verdict is AnalysisState.INCONCLUSIVE:
        return Signal.INCONCLUSIVE
    if facts.now < since + facts.stage.observe or facts.verdict is not AnalysisState.SUCCESSFUL:
        return None
    ab = facts.spec.strategy.ab
    if facts.winner == "none" and ab is not None and ab.on_no_difference == "keep":
        return Signal.NO_DIFFERENCE
    return Signal.ASKED if facts.stage.asks else Signal.JUDGED


def nothing_known(tally: Tally) -> bool:
    """Whether nobody could tell yet how the revision does: there are instances, and every one that carries it is out of reach."""
    return tally.total > 0 and tally.touched == tally.unreached


def over_budget(pace: Pace, tally: Tally) -> bool:
    """Return whether more members failed than `failure_budget` of those opened."""
    return not _tolerable(pace, tally.failed, tally)


def _tolerable(pace: Pace, count: int, tally: Tally) -> bool:
    return count * 100 <= float(pace.failure_budget[:-1]) * tally.touched


def wave_need(size: CountOrPercentage, tally: Tally) -> int:
    """Return how many more instances a wave of a cumulative size needs. A member out of reach makes room for another one, but at most
    doubles what was asked for: a revision that takes devices off the network must not walk through the fleet."""
    target = share_of(size, tally.total)
    spare = min(tally.unreached, target) if tally.well == 0 and tally.updating == 0 else 0
    return max(0, min(tally.pending, target + spare - tally.touched))


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An instance that may be given the revision. `midway`: it is on a revision that was never found good. `risk`: how likely its update
    fails (`delivery/risk.py`)."""

    device: str
    device_class: str
    online: bool
    midway: bool
    risk: float = 0.0


def choose(candidates: Iterable[Candidate], need: int, touched_classes: Mapping[str, int]) -> list[str]:
    """Return at most `need` devices: those left midway by an earlier rollout first, then those that can be reached, one of each class
    before a second of any. Of a class the least at risk comes first, the most at risk last. Of classes that are equally far, the one
    with the most candidates comes first: a single canary stands for as many as can be. Then by name. `touched_classes` counts the
    members so far by class."""
    counts = dict(touched_classes)
    groups: dict[tuple[int, str], list[tuple[float, str]]] = {}
    sizes: dict[str, int] = {}
    for candidate in candidates:
        urgency = 0 if candidate.midway and candidate.online else 1 if candidate.online else 2
        groups.setdefault((urgency, candidate.device_class), []).append((candidate.risk, candidate.device))
        sizes[candidate.device_class] = sizes.get(candidate.device_class, 0) + 1
    heap: list[tuple[int, int, int, str]] = []
    for (urgency, name), devices in groups.items():
        devices.sort(reverse=True)
        heap.append((urgency, counts.get(name, 0), -sizes[name], name))
    heapq.heapify(heap)
    chosen: list[str] = []
    while heap and len(chosen) < need:
        urgency, count, size, name = heapq.heappop(heap)
        devices = groups[urgency, name]
        if count != counts.get(name, 0):
            heapq.heappush(heap, (urgency, counts.get(name, 0), size, name))
            continue
        chosen.append(devices.pop()[1])
        counts[name] = counts.get(name, 0) + 1
        if devices:
            heapq.heappush(heap, (urgency, counts[name], size, name))
    return chosen
