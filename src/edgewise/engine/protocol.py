"""What the engine is told (events) and what it asks for (effects).

The shell feeds one event at a time and carries out the effects in order. A `Persist` always comes first among the effects of its step and
is a barrier: the shell adopts the new state and goes on to the other effects only once the records are on the disk. When that fails it
drops state and effects, tells the engine `StorageFailed`, and offers the event again later.

An effect with an `id` comes back exactly once as `Done(id, result)`, unless the agent dies, in which case recovery finds out what became
of it. Paths are relative to the device's data folder.
"""

from typing import Literal

import msgspec

from edgewise.engine.records import Record
from edgewise.resources.artifact import Probe, Variant
from edgewise.resources.traffic import Traffic
from edgewise.wire.desired import ArtifactTarget, DeviceDesired
from edgewise.wire.report import Item, Lane

Slot = Literal["a", "b"]
ProbeKind = Literal["start", "readiness", "liveness"]
FetchStage = Literal["Download", "Verify", "Install"]


class Now(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The time of a step. Deadlines use `monotonic` (seconds, never goes back within a boot); `wall` only dates events."""

    wall: float
    monotonic: float


# ---- events ----


class Desired(msgspec.Struct, frozen=True, kw_only=True, tag="desired", gc=False):
    """A desired state arrived, from whoever carries it. Older or equal positions of the same epoch are ignored."""

    document: DeviceDesired


class Done(msgspec.Struct, frozen=True, kw_only=True, tag="done", gc=False):
    """An effect ended."""

    id: int
    result: "Result"


class FetchProgress(msgspec.Struct, frozen=True, kw_only=True, tag="fetch-progress", gc=False):
    """A fetch entered its next stage. `tree` is what it installs, once the fetch knows: kept from removal while the fetch is being tried
    again."""

    id: int
    stage: FetchStage
    tree: str = ""


class Exited(msgspec.Struct, frozen=True, kw_only=True, tag="exited", gc=False):
    """A workload process ended by itself. `code` is the exit status, negative for a signal."""

    instance: str
    slot: Slot
    launch_id: str
    code: int


class RunningSlot(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the supervisor says of one slot. `exit_code` is None while it runs. `active`: it takes the traffic. `address` is where the
    instance's service listens, if it has one. `runs_for`: seconds since its process was started; None when the supervisor does not say."""

    instance: str
    slot: Slot
    launch_id: str
    revision: str
    exit_code: int | None = None
    active: bool = False
    address: str = ""
    runs_for: float | None = None


class Observed(msgspec.Struct, frozen=True, kw_only=True, tag="observed", gc=False):
    """After a start of the agent: what the supervisor runs, and which installed trees are whole on the disk. Comes before anything
    else."""

    slots: tuple[RunningSlot, ...]
    installed: tuple[str, ...]
    boot_id: str


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag="heartbeat", gc=False):
    """A workload called the local API's heartbeat."""

    instance: str


class ContactChanged(msgspec.Struct, frozen=True, kw_only=True, tag="contact", gc=False):
    """The control plane was reached (`online`), or has not been for a while. `last_contact` is monotonic; None: never since the agent's
    start."""

    online: bool
    last_contact: float | None


class StorageFailed(msgspec.Struct, frozen=True, kw_only=True, tag="storage-failed", gc=False):
    """The journal did not take records: `full`, `read-only` or `damaged`. Nothing was decided; what runs, runs on."""

    kind: Literal["full", "read-only", "damaged"]
    message: str


class StorageRecovered(msgspec.Struct, frozen=True, kw_only=True, tag="storage-recovered", gc=False):
    """The journal takes records again."""


class Tick(msgspec.Struct, frozen=True, kw_only=True, tag="tick", gc=False):
    """Time passed: sent at `next_wake(state)`."""


Event = Desired | Done | FetchProgress | Exited | Observed | Heartbeat | ContactChanged | StorageFailed | StorageRecovered | Tick


# ---- results of effects ----


class Fetched(msgspec.Struct, frozen=True, kw_only=True, tag="fetched", gc=False):
    """Verified and installed. `tree` is the installed folder's name (the variant's own digest); `variant` comes out of the signed
    manifest;
    `parameters` are the declared ones after defaults, checked."""

    tree: str
    variant: Variant
    parameters: dict[str, str | int | float | bool]


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed", gc=False):
    """It did not work. `kind`: `transient` (network, full disk: refuses nothing, tried again with back-off), `untrusted`
    (verification failed:
    tried again slowly, what runs runs on), `invalid` (signed but cannot run here: counts as a failed Install and is refused)."""

    kind: Literal["transient", "untrusted", "invalid"]
    reason: str
    message: str


class Started(msgspec.Struct, frozen=True, kw_only=True, tag="started", gc=False):
    """The process exists; `address` is where the instance's service listens, if it has one."""

    launch_id: str
    address: str = ""


class Stopped(msgspec.Struct, frozen=True, kw_only=True, tag="stopped", gc=False):
    """No process of the slot is left."""

    code: int | None = None


class Probed(msgspec.Struct, frozen=True, kw_only=True, tag="probed", gc=False):
    """A probe's answer."""

    ok: bool
    message: str = ""


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag="finished", gc=False):
    """Done, with nothing to say (Activate, Route, Remove)."""


Result = Fetched | Failed | Started | Stopped | Probed | Finished


# ---- effects ----


class Persist(msgspec.Struct, frozen=True, kw_only=True, tag="persist", gc=False):
    """Append `records` to the journal and sync it, before any other effect of this step."""

    records: tuple[Record, ...]


class Fetch(msgspec.Struct, frozen=True, kw_only=True, tag="fetch", gc=False):
    """Fetch, verify and install one variant in a short-lived process; `FetchProgress` and then `Done` with `Fetched` or `Failed`."""

    id: int
    instance: str
    revision: str
    artifact: ArtifactTarget
    parameters: dict[str, str | int | float | bool]


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag="cancel", gc=False):
    """Give up the effect `id`; its `Done` still comes (`Failed`, `transient`)."""

    id: int


class Launch(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """All that is needed to start a slot. `driver` says how: `process` runs the signed command, `model` the model server over the
    tree."""

    driver: Literal["process", "model"]
    revision: str
    tree: str
    variant: Variant
    parameters: dict[str, str | int | float | bool]
    config: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    memory: int | None = None
    cpu_milli: int | None = None


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start", gc=False):
    """Start a slot that is empty; `Done` with `Started` or `Failed`. A model server takes no traffic before `Activate`."""

    id: int
    instance: str
    slot: Slot
    launch: Launch


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop", gc=False):
    """Stop a slot: drain and terminate, kill after `grace_seconds`; `Done` with `Stopped`. No error when nothing runs."""

    id: int
    instance: str
    slot: Slot
    grace_seconds: float


class Activate(msgspec.Struct, frozen=True, kw_only=True, tag="activate", gc=False):
    """Let a ready slot take the instance's traffic from now on; `Done` with `Finished` or `Failed`. Nothing to do for plain processes."""

    id: int
    instance: str
    slot: Slot


class Route(msgspec.Struct, frozen=True, kw_only=True, tag="route", gc=False):
    """Tell the model server in `slot`, which serves, what of its traffic the one in `to`, which runs `revision`, is to see from now on;
    `Done`
    with `Finished` or `Failed`."""

    id: int
    instance: str
    slot: Slot
    to: Slot
    revision: str
    traffic: Traffic


class RunProbe(msgspec.Struct, frozen=True, kw_only=True, tag="probe", gc=False):
    """Run one HTTP or command probe once; `Done` with `Probed`. Heartbeat probes are the engine's own."""

    id: int
    instance: str
    slot: Slot
    kind: ProbeKind
    probe: Probe


class Remove(msgspec.Struct, frozen=True, kw_only=True, tag="remove", gc=False):
    """Remove installed and staged trees other than those to keep, and all that is left of `instances`; `Done` with `Finished` or
    `Failed`."""

    id: int
    keep_trees: tuple[str, ...]
    instances: tuple[str, ...] = ()


class Emit(msgspec.Struct, frozen=True, kw_only=True, tag="emit", gc=False):
    """Append an item to the outbox."""

    lane: Lane
    item: Item


class Forget(msgspec.Struct, frozen=True, kw_only=True, tag="forget", gc=False):
    """The device was decommissioned and everything has stopped: remove identity and data once the outbox is empty, then end."""


Effect = Persist | Fetch | Cancel | Start | Stop | Activate | Route | RunProbe | Remove | Emit | Forget
