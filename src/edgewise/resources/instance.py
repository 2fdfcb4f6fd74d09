"""A workload on a device."""

from typing import Literal

import msgspec

from edgewise.resources.meta import ApiVersion, Metadata, Name
from edgewise.resources.states import InstanceState, UpdateState
from edgewise.resources.traffic import Traffic


class InstanceSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What the control plane wants on one device. `revision` is a WorkloadRevision's hash. `hold`: stay in Probation until told
    otherwise; `traffic`, together with it: which requests the candidate sees meanwhile (without it, all of them).
    `rejected` are revisions that a rollout's analysis took back: the device refuses them. `epoch` grows whenever the instance is placed
    anew, so that a copy that comes back late is known as old. `wave` is the rollout wave that brought `revision`."""

    workload: Name
    device: Name
    revision: str
    variant: Name
    epoch: int = 1
    desired: Literal["Running", "Stopped"] = "Running"
    hold: bool = False
    traffic: Traffic | None = None
    rejected: tuple[str, ...] = ()
    rollout: str = ""
    wave: int = 0
    assigned_at: float = 0.0


class InstanceStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """What the device reports. `revision` is what runs now, `committed` the last one it committed (and would go back to),
    `previous` the one
    kept beside it. `update_revision` is the one that `update` speaks of. `refused` are revisions it will not start until a person
    clears them.
    `address` is where it serves on the device. While an installation that failed is tried again, `retry_seconds` says within what time of
    the last try the next one comes, and `reason` and `message` why; otherwise it is 0. `traffic` is in force between the revision that
    serves and the one on trial."""

    observed_epoch: int = 0
    state: InstanceState = InstanceState.PENDING
    update: UpdateState = UpdateState.IDLE
    revision: str = ""
    committed: str = ""
    previous: str = ""
    update_revision: str = ""
    variant: str = ""
    slot: str = ""
    ready: bool = False
    restarts: int = 0
    exit_code: int | None = None
    refused: tuple[str, ...] = ()
    reason: str = ""
    message: str = ""
    address: str = ""
    started_at: float = 0.0
    ready_at: float = 0.0
    retry_seconds: float = 0.0
    traffic: Traffic | None = None


class Instance(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="kind", tag="Instance", forbid_unknown_fields=True):
    """A workload on a device, named WORKLOAD.DEVICE."""

    metadata: Metadata
    spec: InstanceSpec
    api_version: ApiVersion = "edgewise/v1alpha1"
    status: InstanceStatus = InstanceStatus()
