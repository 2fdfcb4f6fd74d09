"""What an instance's slots should hold, and the next steps towards it.

A model is swapped hot: the new one starts in the other slot, takes over when it is ready, and only then does the old one stop. Anything
else is replaced in order: the old one stops, then the new one starts. The same code goes forward and back. A model whose trial is held
with a
`traffic` runs beside the committed one, which goes on serving and passes on what the traffic says.
"""

from edgewise.engine import lifecycle, routing
from edgewise.engine.model import SLOTS, Live, Step, empty, refused, replace, slot_of, with_slot
from edgewise.engine.protocol import Slot
from edgewise.engine.records import Release
from edgewise.engine.tables import SlotPhase
from edgewise.resources.states import UpdateState
from edgewise.resources.traffic import Traffic
from edgewise.wire.desired import InstanceDesired


def target(live: Live, want: InstanceDesired | None, step: Step) -> Release | None:
    """Return the release that should serve now, or None when nothing should run."""
    if (want is None and step.durable.document is not None) or live.removed or suspended(live, want, step):
        return None
    kept = step.kept(live)
    if (live.update.state is UpdateState.PROBATION or live.interim) and beside(live, want, step) is None:
        return kept.candidate
    return kept.committed if kept.committed is not None and usable(live, kept.committed, step) else None


def beside(live: Live, want: InstanceDesired | None, step: Step) -> Traffic | None:
    """Return what the candidate is to see while it is held beside the committed revision; None when it is to take over. One that already
    has taken over keeps the traffic."""
    if want is None or not want.hold or want.traffic is None or live.update.state is not UpdateState.PROBATION:
        return None
    kept = step.kept(live)
    candidate, committed = kept.candidate, kept.committed
    if (
        candidate is None
        or committed is None
        or candidate.revision == committed.revision
        or not candidate.type == committed.type == "model"
    ):
        return None
    if not usable(live, committed, step):
        return None
    name = slot_of(live, candidate.revision)
    taken = name is not None and (live.slots[name].active or live.slots[name].activation)
    return None if taken else want.traffic


def waits_well(live: Live, candidate: Release) -> bool:
    """Whether a candidate that is held beside the committed revision is ready."""
    name = slot_of(live, candidate.revision)
    return name is not None and routing.waits(live.slots[name])


def usable(live: Live, release: Release, step: Step) -> bool:
    """Whether a release can run: its tree is whole, or it runs already."""
    name = slot_of(live, release.revision)
    return release.tree in step.installed or (name is not None and live.slots[name].phase in lifecycle.RUNS)


def exclusive_until(live: Live, want: InstanceDesired | None, step: Step) -> float | None:
    """Return when an exclusive instance must be stopped unless the control plane is reached again (monotonic); None: never."""
    if want is None or not want.exclusive or step.online:
        return None
    share = step.limits.exclusive_share * want.lost_after_seconds
    if step.contact is not None:
        return step.contact + share
    observed = step.observed_at or 0.0
    runs = any(slot.phase in lifecycle.RUNS for slot in live.slots.values())
    return observed + min(step.limits.exclusive_grace_seconds, share) if runs else observed


def suspended(live: Live, want: InstanceDesired | None, step: Step) -> bool:
    """Whether an exclusive instance must not run because another copy may run elsewhere. While the journal takes nothing, the word that it
    was moved may wait to be written: then contact alone starts nothing."""
    if want is not None and want.exclusive and step.storage is not None and empty(live):
        return True
    until = exclusive_until(live, want, step)
    return until is not None and step.now.monotonic >= until


def _grace(live: Live, want: InstanceDesired | None, step: Step) -> float | None:
    """Return how long a stop may take where another copy may start elsewhere soon (seconds); None: as long as usual."""
    if want is None or not suspended(live, want, step):
        return None
    left = (1.0 - step.limits.exclusive_share) * want.lost_after_seconds
    return min(step.limits.stop_grace_seconds, left / 2)


def settled(live: Live, goal: Release | None) -> bool:
    """Whether the slots hold what they should, it serves well, and nothing else is left."""
    if goal is None:
        return empty(live)
    name = slot_of(live, goal.revision)
    if name is None:
        return False
    slot = live.slots[name]
    serves = slot.phase is SlotPhase.UP and slot.ready and slot.active and not slot.activation
    return serves and all(live.slots[other].phase is SlotPhase.EMPTY for other in SLOTS if other != name)


def advance(live: Live, want: InstanceDesired | None, step: Step) -> Live:
    """Take the next steps towards what should run."""
    goal = target(live, want, step)
    if goal is None:
        for name in SLOTS:
            if not _stranger(live, name, want, step):
                live = _leave(live, name, step, grace=_grace(live, want, step))
        return live
    if goal.type != "model":
        return _replace(live, goal, step)
    traffic, candidate = beside(live, want, step), step.kept(live).candidate
    return _swap(live, goal, step) if traffic is None or candidate is None else _pair(live, goal, candidate, traffic, step)


def _stranger(live: Live, name: Slot, want: InstanceDesired | None, step: Step) -> bool:
    """Whether a slot runs something that a damaged journal has forgotten and that may be what is wanted: it runs on until that is known."""
    slot = live.slots[name]
    if slot.release is not None or slot.phase is not SlotPhase.UP or suspended(live, want, step):
        return False
    if step.durable.document is None:
        return True
    return want is not None and slot.revision == want.revision and not refused(step.kept(live), want, want.revision)


def _leave(live: Live, name: Slot, step: Step, *, grace: float | None = None) -> Live:
    """Empty a slot, whatever it does. One that is just starting is stopped once it has."""
    slot = live.slots[name]
    if slot.phase in lifecycle.RUNS:
        return lifecycle.stop(live, name, step, grace=grace)
    if slot.phase in (SlotPhase.WAITING, SlotPhase.BROKEN):
        return lifecycle.clear(live, name)
    return with_slot(live, name, replace(slot, restart=False)) if slot.restart else live


def _pair(live: Live, committed: Release, candidate: Release, traffic: Traffic, step: Step) -> Live:
    """Keep the committed revision serving and the candidate ready beside it."""
    names = {release.revision: slot_of(live, release.revision) for release in (committed, candidate)}
    for name in SLOTS:
        if name not in names.values():
            live = _leave(live, name, step)
    for release in (committed, candidate):
        found = names[release.revision]
        if found is not None:
            live = _maintain(live, found, step, is_goal=release is committed, serve=release is committed)
            continue
        free = next((name for name in SLOTS if live.slots[name].phase is SlotPhase.EMPTY), None)
        if free is not None:
            live = _begin(live, free, release, step)
    first, second = names[committed.revision], names[candidate.revision]
    return live if first is None or second is None else routing.towards(live, first, second, traffic, step)


def _swap(live: Live, goal: Release, step: Step) -> Live:
    name = slot_of(live, goal.revision)
    if name is None:
        return _start_beside(live, goal, step)
    other: Slot = "b" if name == "a" else "a"
    live = routing.clear(routing.clear(live, name, other, step), other, name, step)
    alone = routing.cleared(live.slots[name]) and routing.cleared(live.slots[other])
    live = _maintain(live, name, step, is_goal=True, serve=alone)
    if live.slots[name].active:
        return _leave(live, other, step) if alone else live
    if _incumbent(live, other, step):
        return _maintain(live, other, step, is_goal=False)
    return live if live.slots[other].active else _leave(live, other, step)


def _incumbent(live: Live, name: Slot, step: Step) -> bool:
    """Whether a slot holds the committed release while its successor is on its way: it goes on serving, restarts and all."""
    committed = step.kept(live).committed
    return live.update.state is UpdateState.PROBATION and committed is not None and live.slots[name].revision == committed.revision


def _start_beside(live: Live, goal: Release, step: Step) -> Live:
    free = next((name for name in SLOTS if live.slots[name].phase is SlotPhase.EMPTY), None)
    if free is None:
        for name in SLOTS:
            if not live.slots[name].active:
                live = _leave(live, name, step)
        return live
    return _begin(live, free, goal, step)


def _begin(live: Live, name: Slot, goal: Release, step: Step) -> Live:
    if step.kept(live).broken == goal.revision:
        return lifecycle.give_up(live, name, goal, step)
    return lifecycle.start(live, name, goal, step)


def _replace(live: Live, goal: Release, step: Step) -> Live:
    name = slot_of(live, goal.revision)
    for other in SLOTS:
        if other != name:
            live = _leave(live, other, step)
    if name is not None:
        return _maintain(live, name, step, is_goal=True)
    return _begin(live, "a", goal, step) if empty(live) else live


def _maintain(live: Live, name: Slot, step: Step, *, is_goal: bool, serve: bool = True) -> Live:
    """Keep what a slot holds running: restart it when that is due, let it take the traffic once it is ready and may `serve`."""
    slot, kept = live.slots[name], step.kept(live)
    committed = kept.committed is not None and kept.committed.revision == slot.revision
    if slot.phase is SlotPhase.BROKEN and kept.broken != slot.revision:
        return lifecycle.revive(live, name, step)
    if slot.phase is SlotPhase.WAITING:
        if is_goal and committed and live.update.state is not UpdateState.PROBATION and lifecycle.overdone(slot, step):
            return lifecycle.broke(live, name, step)
        due = slot.due is None or step.now.monotonic >= slot.due
        return lifecycle.start(live, name, slot.release, step) if due and slot.release is not None else live
    if not serve or slot.phase is not SlotPhase.UP or not slot.ready or slot.active or slot.release is None or slot.release.type != "model":
        return live
    free = not any(view.activation for view in live.slots.values())
    allowed = is_goal or not any(view.active for view in live.slots.values())
    if free and allowed and step.now.monotonic >= slot.activation_due:
        return lifecycle.activate(live, name, step)
    return live
