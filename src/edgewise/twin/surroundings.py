"""What all devices of a run share: time, the profile, how workloads behave, what may be fetched, and who watches."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from edgewise.engine.limits import EngineLimits, LinkLimits
from edgewise.engine.model import State
from edgewise.engine.protocol import Effect, Event
from edgewise.resources.artifact import Manifest
from edgewise.twin.disk import TwinDisk
from edgewise.twin.fetching import Resolve, believed
from edgewise.twin.kernel import Kernel
from edgewise.twin.plan import Profile
from edgewise.twin.scenario import Behaviour
from edgewise.twin.workloads import Behaviours

if TYPE_CHECKING:
    from edgewise.twin.device import SimDevice


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

    def stepped(self, device: "SimDevice", event: Event, before: State, after: State, effects: list[Effect]) -> None:
        """Hear what the engine decides, before it is written down."""

    def started(self, device: "SimDevice", instance: str, revision: str) -> None:
        """Hear that a process of this revision was started."""

    def ready(self, device: "SimDevice", instance: str, version: str, *, ready: bool) -> None:
        """Hear that an instance became ready in an artifact version, or is not any more."""

    def committed(self, device: "SimDevice", instance: str, revision: str) -> None:
        """Hear that an update was committed (it is in the journal)."""

    def refused(self, device: "SimDevice", instance: str, revision: str) -> None:
        """Hear that a revision is refused on this device from now on (it is in the journal)."""

    def failed(self, device: "SimDevice", instance: str, revision: str) -> None:
        """Hear that a revision is refused because it failed there, not because it was taken back."""

    def power(self, device: "SimDevice", *, on: bool) -> None:
        """Hear that the device has power, or has lost it."""

    def cut(self, device: "SimDevice") -> None:
        """Hear that the disk cut the power in the middle of an operation; the device is off."""

    def crashed(self, device: "SimDevice", event: Event, error: Exception) -> None:
        """Hear of an exception out of the engine. The run ends with it unless this returns."""
        del device, event
        raise error


class Surroundings:
    """See above. `make_disk(device, bytes)` makes an empty disk. `new_versions` are those that behaviours call `new`, as
    `NAMESPACE/WORKLOAD VERSION`. `resolve` says how signatures are checked; the default believes."""

    __slots__ = (
        "behaviours",
        "contents",
        "kernel",
        "limits",
        "link_limits",
        "make_disk",
        "profile",
        "resolve",
        "skip_probes",
        "versions",
        "watch",
    )

    def __init__(
        self,
        kernel: Kernel,
        profile: Profile,
        *,
        contents: Contents,
        make_disk: Callable[[str, int], TwinDisk],
        behaviours: tuple[Behaviour, ...] = (),
        new_versions: frozenset[str] = frozenset(),
        watch: Watch | None = None,
        limits: EngineLimits | None = None,
        link_limits: LinkLimits | None = None,
        resolve: Resolve | None = None,
        skip_probes: bool | None = None,
    ) -> None:
        self.kernel = kernel
        self.profile = profile
        self.contents = contents
        self.make_disk = make_disk
        self.behaviours = Behaviours(kernel, behaviours, new_versions)
        self.watch = watch or Watch()
        self.limits = limits or EngineLimits()
        self.link_limits = link_limits or LinkLimits()
        self.resolve: Resolve = resolve or believed(contents)
        self.skip_probes = profile.disk == "plain" or profile.probes == "telling" if skip_probes is None else skip_probes
        """Whether probes that would pass are left out until something happens to their process."""
        self.versions: dict[tuple[str, str], str] = {}
        """The artifact version of each (instance, revision) that was ever fetched."""

    def version_of(self, instance: str, revision: str) -> str:
        """Return the artifact version that a revision runs."""
        return self.versions.get((instance, revision), "")

    def learn(self, versions: Mapping[tuple[str, str], str]) -> None:
        """Note versions that devices ran before the run began."""
        self.versions.update(versions)
