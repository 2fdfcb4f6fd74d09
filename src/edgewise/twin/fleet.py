"""A fleet as the twin knows it: what `edgewise twin snapshot` writes, what `--fleet N` makes up, and what every run starts from.

It holds no secrets: names of Secrets only, no tokens, keys, addresses or contents of Configs.
"""

from typing import Annotated, Literal

import msgspec

from edgewise.resources.artifact import Artifact, ArtifactVersion
from edgewise.resources.config import Config
from edgewise.resources.device import Capacity
from edgewise.resources.meta import LabelValue, Name, Scalar
from edgewise.resources.workload import Peripheral, Resources, Workload

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]


class LinkQuality(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """How messages cross a site's link. `bandwidth` in bits per second is shared by the site's devices. `loss`, `duplication` and
    `reordering` are shares of messages."""

    latency_seconds: Seconds = 0.03
    jitter_seconds: Seconds = 0.01
    bandwidth: Annotated[float, msgspec.Meta(gt=0)] = 20_000_000.0
    loss: Annotated[float, msgspec.Meta(ge=0, le=0.3)] = 0.0
    duplication: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.0
    reordering: Share = 0.0
    metered: bool = False


class TwinSite(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """A place and its link."""

    name: Name
    link: LinkQuality = LinkQuality()
    failover_domain: str = ""


class Energy(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """Power that a device draws, and where it comes from. `battery_watt_hours` 0: mains. `harvest_watts` is the peak at noon of a sun that
    shines from 6 to 18 o'clock local time."""

    idle_watts: Seconds = 2.5
    busy_watts: Seconds = 6.0
    battery_watt_hours: Seconds = 0.0
    harvest_watts: Seconds = 0.0


class DeviceClass(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """A sort of device: what it has and how fast it is. `speed` scales the time that work takes (2 is twice as fast as the reference).
    `weight` is the class's share where a fleet is made up."""

    name: Name
    capacity: Capacity = Capacity()
    speed: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    disk_bytes_per_second: Annotated[float, msgspec.Meta(gt=0)] = 40_000_000.0
    boot_seconds: Seconds = 20.0
    clock_drift_ppm: float = 20.0
    throttles_above_celsius: float = 80.0
    energy: Energy = Energy()
    weight: Annotated[float, msgspec.Meta(ge=0)] = 1.0


class History(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """What is known of a device's past, as rates. `update_failures`: the share of its updates that failed for the device's own reasons."""

    outages_per_day: Seconds = 0.0
    outage_seconds: Seconds = 300.0
    restarts_per_day: Seconds = 0.0
    update_failures: Share = 0.0
    offline: bool = False


class Running(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """An instance as it was when the snapshot was taken. `workload` is NAMESPACE/NAME."""

    workload: str
    version: str = ""
    committed: str = ""
    previous: str = ""
    refused: tuple[str, ...] = ()


class TwinDevice(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """One device. `capacity` overrides its class's."""

    name: Name
    site: Name
    device_class: Name
    labels: dict[str, LabelValue] = {}
    capacity: Capacity | None = None
    history: History = History()
    instances: tuple[Running, ...] = ()
    unschedulable: bool = False


class TakenBack(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """A revision that a rollout took back, and that the fleet does not try again before a person says so. `workload` is NAMESPACE/NAME, the
    rest is of the revision's template, without the contents of configs and secrets."""

    workload: str
    artifact: Name
    version: str
    resources: Resources = Resources()
    peripherals: tuple[Peripheral, ...] = ()
    parameters: dict[str, Scalar] = {}
    config: str = ""


class TwinFleet(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """A whole fleet, versioned. `taken_at` is seconds since 1970, 0 for a made-up fleet; `workloads`, `artifacts` and `versions` are what
    it ran then, `taken_back` what it will not run; `configs` stand in for those that workloads name, never with what they really hold;
    `secret_names` are NAMESPACE/NAME."""

    twin_fleet_version: Literal[1] = 1
    taken_at: float = 0.0
    sites: tuple[TwinSite, ...]
    classes: tuple[DeviceClass, ...]
    devices: tuple[TwinDevice, ...]
    artifacts: tuple[Artifact, ...] = ()
    versions: tuple[ArtifactVersion, ...] = ()
    workloads: tuple[Workload, ...] = ()
    configs: tuple[Config, ...] = ()
    secret_names: tuple[str, ...] = ()
    taken_back: tuple[TakenBack, ...] = ()
