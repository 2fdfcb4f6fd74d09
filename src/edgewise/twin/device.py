"""A simulated device: it outlives starts of its agent, power cuts and hardware, and runs the real engine, journal, outbox and link decisions.

`Surroundings` is what all devices of a run share; there is one per run. A `SimDevice` begins without power.
"""

from collections.abc import Callable
from typing import Literal, Protocol

from edgewise.engine.lane_state import LaneCounts
from edgewise.engine.limits import EngineLimits
from edgewise.engine.model import State
from edgewise.ports.files import Files
from edgewise.resources.artifact import Manifest
from edgewise.twin.fleet import DeviceClass, TwinDevice
from edgewise.twin.kernel import Kernel
from edgewise.twin.link import Link
from edgewise.twin.plan import Profile
from edgewise.twin.scenario import Behaviour
from edgewise.wire.report import Lane


class Contents(Protocol):
    """What the control plane serves, as the device may look it up once a transfer has brought it."""

    def manifest(self, digest: str) -> Manifest | None:
        """Return the manifest with this digest (`ArtifactTarget.digest`)."""
        ...

    def content(self, digest: str) -> bytes:
        """Return a file's bytes. Only asked for where installs are real."""
        ...


class Watch:
    """Hears of what happens on devices. Override what matters; `instance` is NAMESPACE/NAME."""

    def started(self, device: "SimDevice", instance: str, revision: str) -> None:
        """A process of this revision was started."""

    def ready(self, device: "SimDevice", instance: str, version: str, ready: bool) -> None:  # noqa: FBT001 - as it reads
        """An instance became ready in an artifact version, or is not any more."""

    def committed(self, device: "SimDevice", instance: str, revision: str) -> None:
        """An update was committed."""

    def refused(self, device: "SimDevice", instance: str, revision: str) -> None:
        """A revision is refused on this device from now on."""


class Surroundings:
    """What all devices of a run share."""

    __slots__ = ("behaviours", "contents", "kernel", "limits", "make_disk", "profile", "versions", "watch")

    def __init__(
        self,
        kernel: Kernel,
        profile: Profile,
        *,
        contents: Contents,
        make_disk: Callable[[str, int], Files],
        behaviours: tuple[Behaviour, ...] = (),
        new_versions: frozenset[str] = frozenset(),
        watch: Watch | None = None,
        limits: EngineLimits | None = None,
    ) -> None:
        raise NotImplementedError


class SimDevice:
    """One device. `device.name` names it for good; `agent` (after it joined) and `key` change with its hardware."""

    def __init__(self, around: Surroundings, device: TwinDevice, sort: DeviceClass, link: Link, *, token: str) -> None:
        raise NotImplementedError

    # ---- what WORLD does to it ----

    def power_on(self) -> None:
        """Boot: after `sort.boot_seconds` the supervisor and the agent start."""

    def power_off(self, crash: str | None = None) -> None:
        """Lose power at once. `crash` says what becomes of unsynced writes (FaultRule.crash); None: a clean shutdown."""

    def reboot(self) -> None: ...
    def kill_agent(self) -> None: ...
    def kill_supervisor(self) -> None: ...
    def replace_hardware(self, token: str) -> None: ...
    def disk_full(self, *, on: bool) -> None: ...
    def disk_error(self, *, on: bool) -> None: ...
    def read_only(self, *, on: bool) -> None: ...
    def sync_failure(self) -> None: ...
    def bit_rot(self) -> None: ...
    def set_clock(self, seconds: float | None) -> None:
        """Let the wall clock jump by `seconds`; None: to 1970."""

    def set_battery(self, share: float) -> None: ...
    def heat(self, celsius: float | None) -> None: ...
    def disturb(self, instance: str, how: Literal["crash", "hang", "leak"]) -> None:
        """Disturb what runs of `instance` ("": everything)."""

    # ---- what invariants look at ----

    name: str
    agent: str
    powered: bool
    up: bool
    joined: bool
    state: State | None
    disk: Files
    energy_watt_hours: float

    def running(self) -> "tuple[object, ...]":
        """The processes that live: .instance .slot .revision .version .ready .tree_whole"""
        return ()

    def counts(self) -> dict[Lane, LaneCounts]:
        """Return what became of each lane's items under the present incarnation."""
        return {}

    def ready(self) -> dict[str, str]:
        """Return the instances that are ready, and their artifact versions."""
        return {}

    def refused(self) -> dict[str, tuple[str, ...]]:
        """Return the refused revisions by instance."""
        return {}
