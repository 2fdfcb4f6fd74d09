"""Something that runs workloads, and the enrolled agent that speaks for it."""

from typing import Annotated, Literal

import msgspec

from edgewise.resources.meta import ApiVersion, Condition, Metadata
from edgewise.resources.states import AgentLifecycle, Connection, DeviceUpdate, Health

AcceleratorKind = Literal["gpu", "npu", "tpu", "vpu", "other"]
Bytes = Annotated[int, msgspec.Meta(ge=0)]


class Accelerator(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """An accelerator. `shared_memory`: it uses the device's own memory, as on a Jetson."""

    name: str
    kind: AcceleratorKind = "other"
    memory: Bytes = 0
    shared_memory: bool = False


class Capacity(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """What a device has. Memory and disk in bytes, `cpu_milli` in thousandths of a core. `memory` is what workloads may use,
    `memory_nominal` what is built in. `runtimes` maps a runtime's name (`onnxruntime`, `python`) to its version."""

    architecture: str = ""
    cpu_milli: int = 0
    memory_nominal: Bytes = 0
    memory: Bytes = 0
    disk: Bytes = 0
    accelerators: tuple[Accelerator, ...] = ()
    runtimes: dict[str, str] = {}
    peripherals: tuple[str, ...] = ()
    os: str = ""
    kernel: str = ""
    network: dict[str, str] = {}


class DeviceSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What a person says of a device. `unschedulable` keeps new instances away, as `kubectl cordon` does. `cleared_refusals` counts
    the times
    a person cleared the refused revisions."""

    agent: str = ""
    site: str = ""
    device_class: str = ""
    unschedulable: bool = False
    decommission: bool = False
    cleared_refusals: int = 0


class DeviceHistory(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """How well a device kept up since `since` (seconds since the Unix epoch; 0: nothing is known yet). `outages`: how often it went
    Offline; `offline_seconds`: how long those lasted together that are over; `restarts`: how often it came back with another boot id."""

    since: float = 0.0
    outages: int = 0
    offline_seconds: float = 0.0
    restarts: int = 0


class DeviceStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """What was seen of a device. `desired_number` is the newest desired state meant for it, `observed_number` the one it has taken over.
    `last_seen` is coarse: it is written when the connection changes. `capabilities` are what the agent can do beyond the first wire
    version."""

    observed_generation: int = 0
    connection: Connection = Connection.AWAITING_RECONNECT
    health: Health = Health.UNKNOWN
    update: DeviceUpdate = DeviceUpdate.UNKNOWN
    capacity: Capacity = Capacity()
    agent_version: str = ""
    capabilities: tuple[str, ...] = ()
    boot_id: str = ""
    desired_number: int = 0
    observed_number: int = 0
    last_seen: float = 0.0
    history: DeviceHistory = DeviceHistory()
    conditions: tuple[Condition, ...] = ()


class Device(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="kind", tag="Device", forbid_unknown_fields=True):
    """Something that runs workloads. Belongs to no namespace."""

    metadata: Metadata
    api_version: ApiVersion = "edgewise/v1alpha1"
    spec: DeviceSpec = DeviceSpec()
    status: DeviceStatus = DeviceStatus()


class AgentSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """An enrolled identity. `revoked` takes it out of use for good; `devices` are those it may speak for. `sealing_key` is its public
    X25519 key in URL-safe base64, to which secrets are sealed; `key_digest` is the SHA-256 of its public key (SPKI)."""

    devices: tuple[str, ...] = ()
    approved: bool = True
    revoked: bool = False
    quarantined: bool = False
    key_digest: str = ""
    sealing_key: str = ""


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, gc=False):
    """What was seen of an agent. Times in seconds since the Unix epoch. `quarantines` counts how often two devices showed this identity;
    `disowned` is the outbox's incarnation under which both numbered what they told the last time: nothing is taken under it any more."""

    observed_generation: int = 0
    lifecycle: AgentLifecycle = AgentLifecycle.ENROLLED
    certificate_serial: str = ""
    certificate_not_after: float = 0.0
    joined_at: float = 0.0
    message: str = ""
    quarantines: int = 0
    disowned: str = ""


class Agent(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field="kind", tag="Agent", forbid_unknown_fields=True):
    """An enrolled identity that speaks for the devices bound to it. Belongs to no namespace."""

    metadata: Metadata
    api_version: ApiVersion = "edgewise/v1alpha1"
    spec: AgentSpec = AgentSpec()
    status: AgentStatus = AgentStatus()
