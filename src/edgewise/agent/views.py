"""What the local workload API knows of each instance, taken from the engine's state."""

from edgewise.agent.workload_answers import InstanceView
from edgewise.engine.model import SLOTS, Live, SlotView, State
from edgewise.engine.records import Kept, Release
from edgewise.engine.tables import SlotPhase


def views(state: State) -> dict[str, InstanceView]:
    """Return a view of every instance that runs, or may start, on this device."""
    return {name: _view(name, live, state.durable.instances.get(name)) for name, live in state.live.items() if not live.removed}


def _view(name: str, live: Live, kept: Kept | None) -> InstanceView:
    slots = [view for key in SLOTS if (view := live.slots[key]).phase is not SlotPhase.EMPTY]
    slots.sort(key=lambda view: not view.active)
    first = slots[0] if slots else None
    release = first.release if first is not None else None
    release = release or _starting(kept)
    if release is None:
        return InstanceView(name=name, revision=first.revision if first is not None else "", address=_address(slots))
    return InstanceView(
        name=name,
        revision=release.revision,
        also_running=tuple(each.revision for each in slots[1:] if each.revision and each.revision != release.revision),
        address=_address(slots),
        ready=first is not None and first.phase is SlotPhase.UP and first.ready and first.active,
        parameters=release.parameters,
        config=release.config,
        secrets=tuple(secret.name for secret in release.secrets),
    )


def _address(slots: list[SlotView]) -> str:
    return next((slot.address for slot in slots if slot.address), "")


def _starting(kept: Kept | None) -> Release | None:
    return (kept.candidate or kept.committed) if kept is not None else None


def release_of(state: State, instance: str, revision: str) -> Release | None:
    """Return the release that `revision` of an instance stands for, if the journal knows it."""
    kept = state.durable.instances.get(instance)
    known = (kept.candidate, kept.committed, kept.previous) if kept is not None else ()
    return next((each for each in known if each is not None and each.revision == revision), None)
