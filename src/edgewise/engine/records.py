"""What the engine's journal holds: a record is a fact that must survive a power cut.

`fold` is the only place where durable state changes, at run time and at recovery alike, so what is in memory is always what the journal
says. A record that makes no sense where it stands (its predecessor was lost with a damaged part of the journal) changes nothing.
"""

from typing import Final, assert_never

import msgspec

from edgewise.resources.artifact import ArtifactType, Variant
from edgewise.resources.meta import Scalar
from edgewise.wire.desired import DeviceDesired, Position, SealedSecret

REFUSALS_KEPT: Final = 100
"""How many refused revisions an instance remembers; beyond it the oldest is forgotten."""


class Release(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A revision that was verified and installed here, with all that is needed to start it again without a network. Bytes of memory,
    thousandths of a core. `secrets` stay sealed."""

    revision: str
    type: ArtifactType
    tree: str
    variant: Variant
    parameters: dict[str, Scalar] = {}
    config: dict[str, str] = {}
    secrets: tuple[SealedSecret, ...] = ()
    memory: int | None = None
    cpu_milli: int | None = None


class Refusal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Why a revision is not started here again until a person clears it."""

    reason: str
    message: str = ""


class Kept(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The durable part of one instance. `committed` is the way back, `previous` the one before it, `candidate` is on trial. `attempts`
    counts how often the trial was begun or taken up again. `broken` names the revision that failed too often."""

    uid: str
    committed: Release | None = None
    previous: Release | None = None
    candidate: Release | None = None
    attempts: int = 0
    refused: dict[str, Refusal] = {}
    broken: str = ""


class Durable(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """All that survives: the adopted document and the instances that have something on this device."""

    document: DeviceDesired | None = None
    instances: dict[str, Kept] = {}


# ---- records ----


class Adopted(msgspec.Struct, frozen=True, kw_only=True, tag="adopted", gc=False):
    """A desired state was taken over."""

    document: DeviceDesired


class Advanced(msgspec.Struct, frozen=True, kw_only=True, tag="advanced", gc=False):
    """A desired state arrived that differs from the adopted one in its position only."""

    position: Position


class Cleared(msgspec.Struct, frozen=True, kw_only=True, tag="cleared", gc=False):
    """A person cleared this device's refusals; what was broken gets new tries."""


class Installed(msgspec.Struct, frozen=True, kw_only=True, tag="installed", gc=False):
    """A release is installed and on trial from now on. It takes the place of a former candidate."""

    instance: str
    uid: str
    release: Release


class Tried(msgspec.Struct, frozen=True, kw_only=True, tag="tried", gc=False):
    """The trial of the candidate was taken up for the `attempts`-th time."""

    instance: str
    revision: str
    attempts: int


class Committed(msgspec.Struct, frozen=True, kw_only=True, tag="committed", gc=False):
    """The candidate passed its trial and is the way back from now on."""

    instance: str
    revision: str


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused", gc=False):
    """A revision failed here and is not started again until a person clears it. A candidate of that revision is given up."""

    instance: str
    uid: str
    revision: str
    refusal: Refusal


class Abandoned(msgspec.Struct, frozen=True, kw_only=True, tag="abandoned", gc=False):
    """The candidate was given up without being refused: nobody wants it any more."""

    instance: str
    revision: str


class Broke(msgspec.Struct, frozen=True, kw_only=True, tag="broke", gc=False):
    """An instance failed too often in a row and is left alone. An empty `revision` gives it new tries."""

    instance: str
    revision: str


class Gone(msgspec.Struct, frozen=True, kw_only=True, tag="gone", gc=False):
    """Nothing of the instance is left on the device."""

    instance: str


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot", gc=False):
    """All of the durable state at once: how a compacted journal begins."""

    durable: Durable


Record = Adopted | Advanced | Cleared | Installed | Tried | Committed | Refused | Abandoned | Broke | Gone | Snapshot


def fold(durable: Durable, record: Record) -> Durable:
    """Return the durable state after `record`."""
    match record:
        case Snapshot():
            durable = record.durable
        case Adopted():
            durable = msgspec.structs.replace(durable, document=record.document)
        case Advanced():
            if durable.document is not None:
                document = msgspec.structs.replace(durable.document, position=record.position)
                durable = msgspec.structs.replace(durable, document=document)
        case Cleared():
            cleared = {name: msgspec.structs.replace(kept, refused={}, broken="") for name, kept in durable.instances.items()}
            durable = msgspec.structs.replace(durable, instances=cleared)
        case Gone():
            left = {name: kept for name, kept in durable.instances.items() if name != record.instance}
            durable = msgspec.structs.replace(durable, instances=left)
        case Installed() | Tried() | Committed() | Refused() | Abandoned() | Broke():
            kept_or_none = _fold_instance(durable.instances.get(record.instance), record)
            if kept_or_none is not None:
                durable = msgspec.structs.replace(durable, instances={**durable.instances, record.instance: kept_or_none})
        case _:
            assert_never(record)
    return durable


def _fold_instance(kept: Kept | None, record: Installed | Tried | Committed | Refused | Abandoned | Broke) -> Kept | None:
    match record:
        case Installed():
            kept = kept or Kept(uid=record.uid)
            return msgspec.structs.replace(kept, candidate=record.release, attempts=1, broken="")
        case Refused():
            kept = kept or Kept(uid=record.uid)
            candidate = None if kept.candidate and kept.candidate.revision == record.revision else kept.candidate
            previous = None if kept.previous and kept.previous.revision == record.revision else kept.previous
            refused = {**kept.refused, record.revision: record.refusal}
            while len(refused) > REFUSALS_KEPT:
                refused.pop(next(iter(refused)))
            return msgspec.structs.replace(kept, candidate=candidate, previous=previous, refused=refused)
        case Broke():
            return kept and msgspec.structs.replace(kept, broken=record.revision)
        case Tried() | Committed() | Abandoned():
            if kept is None or kept.candidate is None or kept.candidate.revision != record.revision:
                return kept
            return _fold_trial(kept, kept.candidate, record)
        case _:
            assert_never(record)


def _fold_trial(kept: Kept, candidate: Release, record: Tried | Committed | Abandoned) -> Kept:
    match record:
        case Tried():
            return msgspec.structs.replace(kept, attempts=record.attempts)
        case Abandoned():
            return msgspec.structs.replace(kept, candidate=None, attempts=0)
        case Committed():
            return msgspec.structs.replace(
                kept, candidate=None, attempts=0, committed=candidate, previous=_previous_after_commit(kept, candidate), broken=""
            )
        case _:
            assert_never(record)


def _previous_after_commit(kept: Kept, candidate: Release) -> Release | None:
    """Return what is kept beside the new release: the former committed one, unless it is the same again (repaired) or refused."""
    if kept.committed is None or kept.committed.revision == candidate.revision:
        return kept.previous if kept.previous and kept.previous.revision != candidate.revision else None
    return None if kept.committed.revision in kept.refused else kept.committed
