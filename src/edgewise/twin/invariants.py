"""What must hold in every run, by name: the promises of Edgewise as observers of a run. Each is shown to fail by a planted bug in the
tests.

Safety is judged at every step, liveness at the end of a run whose faults are over. Start reading at `INVARIANTS`; what looks at devices is
in `device_invariants.py` and `promise_invariants.py`, at the control plane in `control_invariants.py`, at the end in `rest_invariants.py`.
"""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from edgewise.twin.control_invariants import AcknowledgedKept, BudgetKept, OwnDevices, WavesKept
from edgewise.twin.device_invariants import (
    ExclusiveOnce,
    HealthyRunsOn,
    ItemsAddUp,
    JournalReadable,
    OneAtATime,
    RefusedStaysAway,
    WholeRevision,
)
from edgewise.twin.observers import Observer
from edgewise.twin.promise_invariants import (
    HotSwap,
    ItemsOutlive,
    OfflineStart,
    OnlyGiven,
    RefusedForCause,
    SaysWhy,
    ShadowAnswersNobody,
    TreesGo,
    WrittenKept,
)
from edgewise.twin.rest_invariants import Converges, NoneTooMany, PlanIsStable, TruthIsTold
from edgewise.twin.shadow_invariants import ShadowFirst

__all__ = ["INVARIANTS", "Invariant", "observers_for"]


class Invariant(msgspec.Struct, frozen=True, kw_only=True):
    """One promise. `cheap`: it is looked at in large fleets too."""

    promise: str
    observer: type[Observer]
    cheap: bool = False


INVARIANTS: Final[Mapping[str, Invariant]] = {
    "whole-revision": Invariant(
        promise="what starts is one revision, whole: the files of the signed variant, every byte of them", observer=WholeRevision
    ),
    "one-at-a-time": Invariant(
        promise="of an instance one slot takes the traffic; two plain processes of it never run side by side", observer=OneAtATime
    ),
    "refused-stays-away": Invariant(
        promise="a revision that a device refused is not started there again before a person clears it",
        observer=RefusedStaysAway,
        cheap=True,
    ),
    "healthy-runs-on": Invariant(
        promise="neither a lost connection nor a document that says the same again stops what runs well, unless it is exclusive",
        observer=HealthyRunsOn,
    ),
    "exclusive-once": Invariant(
        promise="an exclusive workload never runs on more devices than it has replicas, whatever the network does", observer=ExclusiveOnce
    ),
    "items-add-up": Invariant(
        promise="in every lane of every outbox: produced = acknowledged + held + dropped", observer=ItemsAddUp, cheap=True
    ),
    "journal-readable": Invariant(promise="no power cut leaves a journal that looks damaged", observer=JournalReadable, cheap=True),
    "written-kept": Invariant(promise="what a device committed or refused is so after every power cut", observer=WrittenKept, cheap=True),
    "items-outlive": Invariant(
        promise="alerts, statuses and events that a device wrote down outlive every power cut until they are acknowledged",
        observer=ItemsOutlive,
    ),
    "offline-start": Invariant(promise="after a boot what is committed runs again within a minute, network or not", observer=OfflineStart),
    "hot-swap": Invariant(promise="an update of a model stops what serves only once another one has taken over", observer=HotSwap),
    "shadow-never-serves": Invariant(
        promise="what is held in the shadow or warm answers nobody: its answers are compared, and never returned",
        observer=ShadowAnswersNobody,
    ),
    "shadow-first": Invariant(
        promise="a revision that has to go through the shadow serves nobody before it was judged; one that disagrees never does",
        observer=ShadowFirst,
    ),
    "refused-for-cause": Invariant(
        promise="a full disk, a lost network or a bad signature refuses nothing: it is tried again", observer=RefusedForCause
    ),
    "says-why": Invariant(
        promise="while a device tries an installation again, its status says why, and within what time it tries next", observer=SaysWhy
    ),
    "only-given": Invariant(
        promise="a device starts nothing but what was given to it: a bad revision reaches no more devices than waves and budget allow",
        observer=OnlyGiven,
    ),
    "trees-go": Invariant(
        promise="trees that no instance runs, returns to or tries are removed: versions do not fill a disk", observer=TreesGo
    ),
    "budget-kept": Invariant(
        promise="once more devices failed than the failure budget allows, no further device is given the revision", observer=BudgetKept
    ),
    "waves-kept": Invariant(promise="a wave gives the new revision to no more devices than it says", observer=WavesKept),
    "own-devices": Invariant(
        promise="a report changes, and a desired state shows, nothing of devices that the agent does not speak for", observer=OwnDevices
    ),
    "acknowledged-kept": Invariant(
        promise="what was acknowledged is kept by a control plane that dies, and takes effect exactly once", observer=AcknowledgedKept
    ),
    "plan-is-stable": Invariant(
        promise="at rest, planning everything again from the documents alone changes nothing: the incremental plan is the full plan",
        observer=PlanIsStable,
    ),
    "none-too-many": Invariant(
        promise="at rest no more devices run a workload than it has replicas, and none what was deleted", observer=NoneTooMany
    ),
    "truth-is-told": Invariant(promise="at rest, the control plane believes what the devices really run", observer=TruthIsTold),
    "converges": Invariant(
        promise="once the faults are over, every reachable device is up to date, every satisfiable workload runs, every rollout ends",
        observer=Converges,
        cheap=True,
    ),
}
"""Every invariant by its name."""


def observers_for(level: Literal["all", "cheap", "none"]) -> tuple[Observer, ...]:
    """Return fresh observers for one run."""
    if level == "none":
        return ()
    return tuple(each.observer() for each in INVARIANTS.values() if level == "all" or each.cheap)
