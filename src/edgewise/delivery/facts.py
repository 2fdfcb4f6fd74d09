"""What delivery knows: of a device, of the room left on it, of an artifact version and of what an instance of it would take."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from edgewise.resources.artifact import ArtifactType, Manifest, Parameter, Precision, Profile, Variant, VariantRequirements
from edgewise.resources.device import Capacity
from edgewise.resources.quantity import milli, whole
from edgewise.resources.workload import Peripheral, Resources


class DeviceFacts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A device, as far as placement is concerned. `labels` are the user's. `online`: the control plane hears from it. `leaving`: it is
    being decommissioned or removed."""

    name: str
    capacity: Capacity
    site: str = ""
    device_class: str = ""
    labels: dict[str, str] = {}
    unschedulable: bool = False
    leaving: bool = False
    online: bool = False


class Attributes(Mapping[str, str]):
    """A device's labels as selectors see them: `site`, `class`, `device` and the typed capacity, then the user's. The built-in ones
    win, because a device brings its own labels when it joins. Computed when asked, so that it costs nothing to make."""

    __slots__ = ("_facts",)

    def __init__(self, facts: DeviceFacts) -> None:
        self._facts = facts

    def __getitem__(self, key: str) -> str:
        value: str | None = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def get(self, key: str, default: Any = None, /) -> Any:
        """Return an attribute. The inherited way goes through an exception, and most labels are asked of most devices."""
        facts = self._facts
        if key in _BUILT_IN:
            return _BUILT_IN[key](facts) or default
        if key.startswith("runtime."):
            return facts.capacity.runtimes.get(key.removeprefix("runtime."), default)
        return facts.labels.get(key, default)

    def __iter__(self) -> Iterator[str]:
        facts = self._facts
        names = {*_BUILT_IN, *(f"runtime.{runtime}" for runtime in facts.capacity.runtimes), *facts.labels}
        return iter(sorted(name for name in names if self.get(name) is not None))

    def __len__(self) -> int:
        return sum(1 for _ in self)


_BUILT_IN: Final[dict[str, Callable[[DeviceFacts], str]]] = {
    "site": lambda facts: facts.site,
    "class": lambda facts: facts.device_class,
    "device": lambda facts: facts.name,
    "capacity.cpu": lambda facts: f"{facts.capacity.cpu_milli}m",
    "capacity.memory": lambda facts: str(facts.capacity.memory),
    "capacity.disk": lambda facts: str(facts.capacity.disk),
    "capacity.architecture": lambda facts: facts.capacity.architecture,
}


class Demand(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What an instance takes of a device: thousandths of a core, bytes of memory and disk, peripherals."""

    cpu_milli: int = 0
    memory: int = 0
    disk: int = 0
    peripherals: tuple[Peripheral, ...] = ()


NOTHING = Demand()


class Room(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is free on a device, how many instances it has, and which peripherals they share or own."""

    cpu_milli: int
    memory: int
    disk: int
    instances: int = 0
    shared: frozenset[str] = frozenset()
    owned: frozenset[str] = frozenset()


class VariantFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A variant without its list of files. `size` in bytes."""

    name: str
    runtime: str
    precision: Precision
    requirements: VariantRequirements
    profile: Profile
    size: int


class VersionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact version without its lists of files. `target`, `digest` and `length` lead to its signed manifest."""

    artifact: str
    version: str
    type: ArtifactType
    target: str
    digest: str
    length: int
    variants: tuple[VariantFacts, ...]
    parameters: dict[str, Parameter] = {}


def version_facts(manifest: Manifest, target: str, digest: str, length: int) -> VersionFacts:
    """Return what delivery keeps of a signed manifest."""
    return VersionFacts(
        artifact=manifest.artifact,
        version=manifest.version,
        type=manifest.type,
        target=target,
        digest=digest,
        length=length,
        variants=tuple(_variant_facts(variant) for variant in manifest.variants),
        parameters=manifest.parameters,
    )


def _variant_facts(variant: Variant) -> VariantFacts:
    return VariantFacts(
        name=variant.name,
        runtime=variant.runtime,
        precision=variant.precision,
        requirements=variant.requirements,
        profile=variant.profile,
        size=sum(file.size for file in variant.files),
    )


def demand_of(resources: Resources, peripherals: tuple[Peripheral, ...], variant: VariantFacts | None) -> Demand:
    """Return what an instance reserves: what the workload may use, at least what the variant requires; its files count as disk."""
    memory = whole(resources.memory) if resources.memory is not None else 0
    disk = 0
    if variant is not None:
        memory = max(memory, whole(variant.requirements.memory))
        disk = max(variant.size, whole(variant.requirements.disk))
    return Demand(
        cpu_milli=milli(resources.cpu) if resources.cpu is not None else 0,
        memory=memory,
        disk=disk,
        peripherals=peripherals,
    )


def room_of(capacity: Capacity, demands: tuple[Demand, ...]) -> Room:
    """Return what `demands` leave of `capacity`. Free amounts may be negative: a device that shrank keeps what it has."""
    if not demands:
        return Room(cpu_milli=capacity.cpu_milli, memory=capacity.memory, disk=capacity.disk)
    taken = [peripheral for demand in demands for peripheral in demand.peripherals]
    return Room(
        cpu_milli=capacity.cpu_milli - sum(demand.cpu_milli for demand in demands),
        memory=capacity.memory - sum(demand.memory for demand in demands),
        disk=capacity.disk - sum(demand.disk for demand in demands),
        instances=len(demands),
        shared=frozenset(peripheral.name for peripheral in taken if peripheral.access == "read"),
        owned=frozenset(peripheral.name for peripheral in taken if peripheral.access == "exclusive"),
    )


def room_less(room: Room, demand: Demand) -> Room:
    """Return what one more instance leaves of `room`."""
    return Room(
        cpu_milli=room.cpu_milli - demand.cpu_milli,
        memory=room.memory - demand.memory,
        disk=room.disk - demand.disk,
        instances=room.instances + 1,
        shared=room.shared | {peripheral.name for peripheral in demand.peripherals if peripheral.access == "read"},
        owned=room.owned | {peripheral.name for peripheral in demand.peripherals if peripheral.access == "exclusive"},
    )
