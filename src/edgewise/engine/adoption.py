"""Taking over a desired state: what it must be to be believed, and what follows from it before anything is started."""

from typing import Final

from edgewise.engine.model import Live, Step, replace
from edgewise.engine.records import Adopted, Advanced, Broke, Cleared, Refusal, Refused
from edgewise.wire.desired import DeviceDesired, InstanceDesired

TAKEN_BACK: Final = "Rejected"
"""Why a revision is refused that did not fail here, but elsewhere."""


def adopt(document: DeviceDesired, live: dict[str, Live], step: Step) -> None:
    """Take `document` over unless it is for another device, or not newer in the same epoch."""
    old = step.durable.document
    if document.device != step.device or (old is not None and not _newer(document, old)):
        return
    if old is not None and replace(document, position=old.position) == old:
        step.record(Advanced(position=document.position))
        return
    step.record(Adopted(document=document))
    if old is not None and document.cleared_refusals > old.cleared_refusals:
        step.record(Cleared())
        step.tell("Normal", "RefusalsCleared", "refused revisions are forgotten, broken instances are tried again")
    before = {want.name: want for want in old.instances} if old is not None else {}
    for want in document.instances:
        _instance(want, before.get(want.name), live.get(want.name), step)


def telling_of(document: DeviceDesired) -> tuple[int, int]:
    """Return what changes when everything is to be told again: a store that was set back to a backup has lost what it acknowledged, and
    what another device told under this one's name may be wrong."""
    return document.position.epoch, document.tell_again


def _newer(document: DeviceDesired, old: DeviceDesired) -> bool:
    return document.position.epoch != old.position.epoch or document.position.n > old.position.n


def _instance(want: InstanceDesired, before: InstanceDesired | None, live: Live | None, step: Step) -> None:
    kept = step.durable.instances.get(want.name)
    if kept is not None and kept.broken and want != before:
        step.record(Broke(instance=want.name, revision=""))
    if live is None or live.uid != want.uid:
        return
    held = {release.revision for release in (kept.committed, kept.previous, kept.candidate) if release is not None} if kept else set()
    for revision in want.rejected:
        if revision in (held | {live.update.revision}) and (kept is None or revision not in kept.refused):
            refusal = Refusal(reason=TAKEN_BACK, message="the rollout took this revision back")
            step.record(Refused(instance=want.name, uid=want.uid, revision=revision, refusal=refusal))
            if kept is not None and kept.previous is not None and kept.previous.revision == revision:
                step.leave_behind()
            step.tell("Warning", "Refused", f"revision {revision} is refused here: {refusal.message}", want.name)
