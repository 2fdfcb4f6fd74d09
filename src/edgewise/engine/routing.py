"""Which requests the slot that serves passes on to the candidate held beside it.

The serving model server is told once per change (`Route`) and does the rest itself: it answers on its own whenever the candidate does not,
so a
route that was not taken back in time costs nobody an answer. What it was told is forgotten with its process. After a start of the agent it
is
not known what it was told; it is told again.
"""

from typing import Final

from edgewise.engine.model import Live, SlotView, Step, Told, replace, with_slot
from edgewise.engine.protocol import Failed, Finished, Result, Route, Slot
from edgewise.engine.tables import SlotPhase
from edgewise.resources.traffic import Traffic

NOTHING: Final = Told(traffic=Traffic())
_PAIRS: Final[tuple[tuple[Slot, Slot], ...]] = (("a", "b"), ("b", "a"))


def cleared(slot: SlotView) -> bool:
    """Whether a slot passes nothing on, as far as is known, and is not being told anything."""
    return slot.phase is not SlotPhase.UP or (not slot.routing and (slot.told is None or slot.told.traffic.mode == "none"))


def clear(live: Live, name: Slot, other: Slot, step: Step) -> Live:
    """Have a slot pass nothing on any more. Whether it hears that or not, what comes next does not wait for more than its answer."""
    slot = live.slots[name]
    return live if slot.routing or cleared(slot) else _send(live, name, other, NOTHING, step)


def towards(live: Live, name: Slot, other: Slot, traffic: Traffic, step: Step) -> Live:
    """Tell the slot that serves what the candidate in `other` is to see, if it was not told so already."""
    slot, candidate = live.slots[name], live.slots[other]
    if not _serves(slot) or slot.routing or not waits(candidate) or step.now.monotonic < slot.route_due:
        return live
    told = Told(traffic=traffic, to=candidate.launch_id)
    return live if slot.told == told else _send(live, name, other, told, step)


def waits(slot: SlotView) -> bool:
    """Whether a candidate is ready, and not (about to be) the one that serves."""
    return slot.phase is SlotPhase.UP and slot.ready and not slot.active and not slot.activation


def in_force(live: Live, name: Slot, other: Slot) -> Traffic | None:
    """Return what the slot that serves was last told of the candidate in `other`, if both are well."""
    slot, candidate = live.slots[name], live.slots[other]
    if not _serves(slot) or not waits(candidate) or slot.told is None or slot.told.to != candidate.launch_id:
        return None
    return slot.told.traffic


def done(live: Live, name: Slot, result: Result, step: Step) -> Live:
    """Take in the end of a `Route`."""
    slot = live.slots[name]
    asked = slot.asked
    slot = replace(slot, routing=0, asked=None)
    if isinstance(result, Finished) and asked is not None:
        if asked.traffic != _traffic(slot) and asked.to:
            step.tell("Normal", "Routed", _said(asked.traffic), live.name)
        return with_slot(live, name, replace(slot, told=asked, route_failures=0, route_due=0.0))
    if asked is None or not asked.to:
        return with_slot(live, name, replace(slot, told=None))
    failures = slot.route_failures + 1
    if failures == 1:
        message = result.message if isinstance(result, Failed) else "no answer"
        step.tell("Warning", "RouteFailed", f"the model server did not take what the candidate is to see: {message}", live.name)
    pause = min(step.limits.route_retry_seconds * 2.0 ** min(failures - 1, 30), step.limits.route_retry_seconds_max)
    return with_slot(live, name, replace(slot, told=None, route_failures=failures, route_due=step.now.monotonic + pause))


def wake(live: Live) -> float | None:
    """Return when a route that failed is to be told again (monotonic), or None. Only asked while a candidate is held beside."""
    for name, other in _PAIRS:
        slot = live.slots[name]
        if slot.route_failures and not slot.routing and _serves(slot) and waits(live.slots[other]):
            return slot.route_due
    return None


def _serves(slot: SlotView) -> bool:
    return slot.phase is SlotPhase.UP and slot.ready and slot.active


def _send(live: Live, name: Slot, other: Slot, told: Told, step: Step) -> Live:
    job = step.effect_id()
    revision = live.slots[other].revision
    step.effects.append(Route(id=job, instance=live.name, slot=name, to=other, revision=revision, traffic=told.traffic))
    return with_slot(live, name, replace(live.slots[name], routing=job, asked=told))


def _traffic(slot: SlotView) -> Traffic | None:
    return slot.told.traffic if slot.told is not None and slot.told.to else None


def _said(traffic: Traffic) -> str:
    match traffic.mode:
        case "none":
            return "the candidate waits, warm, and sees no requests"
        case "shadow":
            return f"the candidate sees copies of {traffic.share:.0%} of the requests"
        case "split":
            return f"the candidate answers {traffic.share:.0%} of the requests"
