"""What the view keeps of each document: no more than decisions need, with equal parts shared."""

from typing import Final, TypeVar

import msgspec

from edgewise.delivery.facts import DeviceFacts, Room
from edgewise.delivery.placement import Request
from edgewise.delivery.risk import RiskModel
from edgewise.delivery.rollout import Seen
from edgewise.delivery.templates import Unready
from edgewise.resources.config import SecretSpec
from edgewise.resources.device import AgentSpec, AgentStatus, DeviceSpec, DeviceStatus
from edgewise.resources.instance import InstanceSpec
from edgewise.resources.rollout import RolloutSpec, RolloutStatus
from edgewise.resources.workload import Template, WorkloadSpec, WorkloadStatus
from edgewise.store.contract import Key

WorkloadKey = tuple[str, str]
"""Namespace and name."""

_NO_SEEN: Final = Seen()


class DeviceRow(msgspec.Struct, kw_only=True):
    """A device. `room` is what its instances leave free, computed when asked for (None: not since something changed)."""

    key: Key
    uid: str
    generation: int
    revision: int
    status_revision: int
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: DeviceSpec
    status: DeviceStatus
    facts: DeviceFacts
    room: Room | None = None


class AgentRow(msgspec.Struct, kw_only=True):
    """An agent."""

    key: Key
    uid: str
    generation: int
    revision: int
    status_revision: int
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: AgentSpec
    status: AgentStatus


class InstanceRow(msgspec.Struct, kw_only=True):
    """A workload on a device."""

    key: Key
    uid: str
    generation: int
    revision: int
    spec: InstanceSpec
    seen: Seen = _NO_SEEN

    @property
    def running(self) -> bool:
        """Whether the control plane wants it to run."""
        return self.spec.desired == "Running"


class RevisionRow(msgspec.Struct, kw_only=True):
    """An immutable revision of a workload."""

    key: Key
    uid: str
    generation: int
    revision: int
    workload: str
    hash: str
    number: int
    template: Template


class RolloutRow(msgspec.Struct, kw_only=True):
    """A rollout."""

    key: Key
    uid: str
    generation: int
    revision: int
    status_revision: int
    created_at: float
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: RolloutSpec
    status: RolloutStatus

    @property
    def number(self) -> int:
        """The N of WORKLOAD-N."""
        return int(self.key.name.rpartition("-")[2])


class WorkloadRow(msgspec.Struct, kw_only=True):
    """A workload. `target` is the revision that its spec means now (None: to be resolved); `unplaced` the devices to look at again (None:
    all of them). `short`: all devices were looked at, and too few could take a replica. `exhausted`: none of those that are not members of
    the open wave yet can take the new revision; `left_out` says of a few why they take no part in it. `requests` are kept by revision."""

    key: Key
    uid: str
    generation: int
    revision: int
    status_revision: int
    labels: dict[str, str]
    annotations: dict[str, str]
    deleted_at: float | None
    spec: WorkloadSpec
    status: WorkloadStatus
    target: Template | Unready | None = None
    target_hash: str = ""
    unplaced: set[str] | None = None
    short: bool = False
    exhausted: bool = False
    left_out: dict[str, str] = {}
    requests: dict[str, Request] = {}

    @property
    def name(self) -> WorkloadKey:
        """Namespace and name."""
        return (self.key.namespace, self.key.name)


class EvidenceSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of the evidence of a workload's rollout."""

    stored: bytes = b""


EVIDENCE: Final = "RolloutEvidence"
"""The kind of the documents that keep it, one per workload, named like that."""


class EvidenceRow(msgspec.Struct, kw_only=True):
    """The evidence of a workload's rollout, as it was kept last."""

    key: Key
    uid: str
    generation: int
    stored: bytes


RISK: Final = "RiskModel"
"""The kind of the one document that keeps what was learned of failing updates."""


class RiskRow(msgspec.Struct, kw_only=True):
    """What was learned of failing updates, as it was kept last."""

    key: Key
    uid: str
    generation: int
    model: RiskModel


class Said(msgspec.Struct, kw_only=True):
    """What was predicted of the members of one rollout, by device (`delivery.risk.packed`)."""

    rollout: str
    devices: dict[str, bytes] = {}


class SecretRow(msgspec.Struct, kw_only=True):
    """A secret or a kept copy of one: `original` is the address under which it was encrypted."""

    key: Key
    original: Key
    spec: SecretSpec
    revision: int


class ContentRow(msgspec.Struct, kw_only=True):
    """A config or a kept copy of one."""

    key: Key
    data: dict[str, str]
    digest: str
    revision: int


T = TypeVar("T")


class Shared:
    """Equal values kept once. Forgets all it knows when it holds too many: what is in use stays in use."""

    __slots__ = ("_limit", "_values")

    def __init__(self, limit: int = 20_000) -> None:
        self._values: dict[object, object] = {}
        self._limit = limit

    def of(self, key: object, value: T) -> T:
        """Return the value first seen under `key`; `key` must tell `value`'s type and contents."""
        known = self._values.get(key)
        if known is not None:
            return known  # type: ignore[return-value]  # equal keys mean equal values of one type
        if len(self._values) >= self._limit:
            self._values.clear()
        self._values[key] = value
        return value
