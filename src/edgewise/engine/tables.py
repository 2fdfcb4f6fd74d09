"""The state tables: how an instance's update and each of its slots move. The diagrams in docs/engine.md are made from them.

A pair that is not in a table does not happen: `next_update` and `next_phase` raise `KeyError` on it, and the exhaustive test shows that
no event of the outside leads there.
"""

from enum import StrEnum
from typing import Final

from edgewise.resources.states import InstanceState, UpdateState


class UpdateEvent(StrEnum):
    """What moves an update."""

    WANTED = "wanted"
    KEPT = "kept here"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    INSTALLING = "installing"
    INSTALLED = "installed"
    INTERRUPTED = "interrupted"
    INVALID = "invalid"
    RETRY = "retry due"
    SUPERSEDED = "superseded"
    WITHDRAWN = "withdrawn"
    PASSED = "passed"
    FAILED = "failed"
    RETURNED = "returned"
    SETTLED = "reported"


class SlotPhase(StrEnum):
    """What a slot does. `Probing`: its process exists but has not passed its start probe."""

    EMPTY = "Empty"
    STARTING = "Starting"
    PROBING = "Probing"
    UP = "Up"
    STOPPING = "Stopping"
    WAITING = "Waiting"
    BROKEN = "Broken"


class SlotEvent(StrEnum):
    """What moves a slot."""

    START = "start"
    STARTED = "started"
    START_FAILED = "start failed"
    PASSED = "start probe passed"
    EXITED = "exited"
    OVERDUE = "start overdue"
    UNWELL = "liveness failed"
    STOP = "stop"
    STOPPED = "stopped"
    STOPPED_TO_RESTART = "stopped to restart"
    RETRY = "restart due"
    GIVE_UP = "failed too often"
    REVIVE = "new tries"
    CLEAR = "not wanted"


_FETCHING: Final = (UpdateState.DOWNLOAD, UpdateState.VERIFY, UpdateState.INSTALL)

UPDATE_TABLE: Final[dict[tuple[UpdateState, UpdateEvent], UpdateState]] = {
    (UpdateState.IDLE, UpdateEvent.WANTED): UpdateState.DOWNLOAD,
    (UpdateState.IDLE, UpdateEvent.KEPT): UpdateState.PROBATION,
    **{(state, UpdateEvent.DOWNLOADING): UpdateState.DOWNLOAD for state in _FETCHING},
    **{(state, UpdateEvent.VERIFYING): UpdateState.VERIFY for state in _FETCHING},
    **{(state, UpdateEvent.INSTALLING): UpdateState.INSTALL for state in _FETCHING},
    **{(state, UpdateEvent.INSTALLED): UpdateState.PROBATION for state in _FETCHING},
    **{(state, UpdateEvent.INTERRUPTED): UpdateState.FAILED for state in _FETCHING},
    **{(state, UpdateEvent.INVALID): UpdateState.FAILED for state in _FETCHING},
    **{(state, UpdateEvent.WITHDRAWN): UpdateState.IDLE for state in _FETCHING},
    (UpdateState.FAILED, UpdateEvent.RETRY): UpdateState.DOWNLOAD,
    (UpdateState.FAILED, UpdateEvent.WITHDRAWN): UpdateState.IDLE,
    (UpdateState.FAILED, UpdateEvent.SETTLED): UpdateState.IDLE,
    (UpdateState.PROBATION, UpdateEvent.PASSED): UpdateState.COMMIT,
    (UpdateState.PROBATION, UpdateEvent.FAILED): UpdateState.ROLLBACK,
    (UpdateState.PROBATION, UpdateEvent.WITHDRAWN): UpdateState.ROLLBACK,
    (UpdateState.PROBATION, UpdateEvent.SUPERSEDED): UpdateState.IDLE,
    (UpdateState.COMMIT, UpdateEvent.SETTLED): UpdateState.IDLE,
    (UpdateState.ROLLBACK, UpdateEvent.FAILED): UpdateState.FAILED,
    (UpdateState.ROLLBACK, UpdateEvent.RETURNED): UpdateState.IDLE,
    (UpdateState.ROLLBACK, UpdateEvent.SUPERSEDED): UpdateState.IDLE,
}

SLOT_TABLE: Final[dict[tuple[SlotPhase, SlotEvent], SlotPhase]] = {
    (SlotPhase.EMPTY, SlotEvent.START): SlotPhase.STARTING,
    (SlotPhase.EMPTY, SlotEvent.GIVE_UP): SlotPhase.BROKEN,
    (SlotPhase.STARTING, SlotEvent.STARTED): SlotPhase.PROBING,
    (SlotPhase.STARTING, SlotEvent.START_FAILED): SlotPhase.WAITING,
    (SlotPhase.PROBING, SlotEvent.PASSED): SlotPhase.UP,
    (SlotPhase.PROBING, SlotEvent.EXITED): SlotPhase.WAITING,
    (SlotPhase.PROBING, SlotEvent.OVERDUE): SlotPhase.STOPPING,
    (SlotPhase.PROBING, SlotEvent.STOP): SlotPhase.STOPPING,
    (SlotPhase.UP, SlotEvent.EXITED): SlotPhase.WAITING,
    (SlotPhase.UP, SlotEvent.UNWELL): SlotPhase.STOPPING,
    (SlotPhase.UP, SlotEvent.STOP): SlotPhase.STOPPING,
    (SlotPhase.STOPPING, SlotEvent.STOPPED): SlotPhase.EMPTY,
    (SlotPhase.STOPPING, SlotEvent.STOPPED_TO_RESTART): SlotPhase.WAITING,
    (SlotPhase.WAITING, SlotEvent.RETRY): SlotPhase.STARTING,
    (SlotPhase.WAITING, SlotEvent.GIVE_UP): SlotPhase.BROKEN,
    (SlotPhase.WAITING, SlotEvent.CLEAR): SlotPhase.EMPTY,
    (SlotPhase.BROKEN, SlotEvent.REVIVE): SlotPhase.WAITING,
    (SlotPhase.BROKEN, SlotEvent.CLEAR): SlotPhase.EMPTY,
}

INSTANCE_STATE: Final[dict[SlotPhase, InstanceState]] = {
    SlotPhase.EMPTY: InstanceState.PENDING,
    SlotPhase.STARTING: InstanceState.STARTING,
    SlotPhase.PROBING: InstanceState.STARTING,
    SlotPhase.UP: InstanceState.RUNNING,
    SlotPhase.STOPPING: InstanceState.STOPPING,
    SlotPhase.WAITING: InstanceState.ERRORED,
    SlotPhase.BROKEN: InstanceState.BROKEN,
}
"""What an instance is said to do, from the slot that serves it."""


def next_update(state: UpdateState, event: UpdateEvent) -> UpdateState:
    """Return where `event` moves an update. Raises `KeyError` when the table has no such pair."""
    return UPDATE_TABLE[state, event]


def next_phase(phase: SlotPhase, event: SlotEvent) -> SlotPhase:
    """Return where `event` moves a slot. Raises `KeyError` when the table has no such pair."""
    return SLOT_TABLE[phase, event]
