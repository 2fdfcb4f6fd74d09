"""Fleets that are made up, and fleets and classes that are read from files."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec

from edgewise.resources.device import Accelerator, AcceleratorKind, Capacity
from edgewise.resources.errors import Invalid, Problem
from edgewise.resources.manifests import LIMITS as MANIFEST_LIMITS
from edgewise.resources.manifests import load_as, nearest
from edgewise.resources.meta import Name
from edgewise.resources.quantity import Quantity, milli, whole
from edgewise.resources.validation import label_problem
from edgewise.resources.validation import problems as resource_problems
from edgewise.twin.fleet import DeviceClass, Energy, LinkQuality, TwinDevice, TwinFleet, TwinSite
from edgewise.twin.kernel import Kernel, Stream
from edgewise.twin.library import read_bounded
from edgewise.twin.plan import Subject

__all__ = ["DEFAULT_CLASSES", "LIMITS", "FleetLimits", "is_made_up", "load_classes", "load_fleet", "made_fleet"]

_GIB: Final = 2**30
_RUNTIMES: Final = {"onnxruntime": "1.20.0", "python": "3.11.2"}


class FleetLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How big a fleet may be: bytes of its file or of a file of classes, devices, sites, classes. Where a fleet is made up, at most
    `devices_per_site` share a site, and there are `sites_least` sites where there are twice as many devices."""

    file_bytes_max: int = 512_000_000
    classes_bytes_max: int = 1_000_000
    devices_max: int = 200_000
    sites_max: int = 50_000
    classes_max: int = 1_000
    devices_per_site: int = 25
    sites_least: int = 4
    problems_max: int = 25


LIMITS: Final = FleetLimits()

DEFAULT_CLASSES: Final[tuple[DeviceClass, ...]] = (
    DeviceClass(
        name="raspberry-pi-4",
        capacity=Capacity(
            architecture="aarch64",
            cpu_milli=4_000,
            memory_nominal=4 * _GIB,
            memory=3 * _GIB,
            disk=24 * _GIB,
            runtimes=_RUNTIMES,
        ),
        speed=1.0,
        disk_bytes_per_second=20_000_000.0,
        boot_seconds=35.0,
        energy=Energy(idle_watts=2.7, busy_watts=6.4),
        weight=4.0,
    ),
    DeviceClass(
        name="raspberry-pi-5",
        capacity=Capacity(
            architecture="aarch64",
            cpu_milli=4_000,
            memory_nominal=8 * _GIB,
            memory=7 * _GIB,
            disk=48 * _GIB,
            runtimes=_RUNTIMES,
        ),
        speed=2.2,
        disk_bytes_per_second=60_000_000.0,
        boot_seconds=25.0,
        energy=Energy(idle_watts=3.3, busy_watts=9.0),
        weight=3.0,
    ),
    DeviceClass(
        name="jetson-orin-nano",
        capacity=Capacity(
            architecture="aarch64",
            cpu_milli=6_000,
            memory_nominal=8 * _GIB,
            memory=6 * _GIB,
            disk=200 * _GIB,
            accelerators=(Accelerator(name="orin", kind="gpu", memory=6 * _GIB, shared_memory=True),),
            runtimes={**_RUNTIMES, "tensorrt": "8.6.2"},
        ),
        speed=4.0,
        disk_bytes_per_second=300_000_000.0,
        boot_seconds=40.0,
        energy=Energy(idle_watts=5.0, busy_watts=15.0),
        weight=1.5,
    ),
    DeviceClass(
        name="industrial-pc",
        capacity=Capacity(
            architecture="x86_64",
            cpu_milli=8_000,
            memory_nominal=16 * _GIB,
            memory=14 * _GIB,
            disk=200 * _GIB,
            runtimes={**_RUNTIMES, "openvino": "2025.1.0"},
        ),
        speed=5.0,
        disk_bytes_per_second=400_000_000.0,
        boot_seconds=50.0,
        energy=Energy(idle_watts=12.0, busy_watts=35.0),
        weight=1.0,
    ),
    DeviceClass(
        name="solar-camera",
        capacity=Capacity(
            architecture="aarch64",
            cpu_milli=4_000,
            memory_nominal=2 * _GIB,
            memory=1536 * 2**20,
            disk=12 * _GIB,
            runtimes=_RUNTIMES,
        ),
        speed=0.7,
        disk_bytes_per_second=12_000_000.0,
        boot_seconds=40.0,
        clock_drift_ppm=60.0,
        throttles_above_celsius=75.0,
        energy=Energy(idle_watts=1.3, busy_watts=3.4, battery_watt_hours=60.0, harvest_watts=20.0),
        weight=0.5,
    ),
)

_LINKS: Final[tuple[tuple[float, LinkQuality], ...]] = (
    (0.5, LinkQuality(latency_seconds=0.015, jitter_seconds=0.005, bandwidth=100_000_000.0)),
    (0.3, LinkQuality(latency_seconds=0.03, jitter_seconds=0.01, bandwidth=25_000_000.0)),
    (0.2, LinkQuality(latency_seconds=0.06, jitter_seconds=0.04, bandwidth=10_000_000.0, loss=0.005, metered=True)),
)
"""Fibre, DSL and mobile, and how many sites have which."""


# ---- made up ----


def made_fleet(count: int, classes: tuple[DeviceClass, ...] = DEFAULT_CLASSES, seed: int = 0, limits: FleetLimits = LIMITS) -> TwinFleet:
    """Return a fleet of `count` devices of `classes` (by their weights) at as many sites as that takes. The same device of the same seed
    is of the same class in a bigger fleet too. Raises `Invalid` for a count that is out of bounds or classes without weight."""
    if not 1 <= count <= limits.devices_max:
        raise Invalid((Problem(path="fleet", message=f"{count} devices; from 1 to {limits.devices_max} are possible"),))
    if sum(sort.weight for sort in classes) <= 0:
        raise Invalid((Problem(path="classes", message="no class has a weight above 0"),))
    kernel = Kernel(seed)
    needed = max(-(-count // limits.devices_per_site), min(limits.sites_least, -(-count // 2)))
    sites = tuple(_site(f"site-{number:0{_width(needed)}d}", kernel) for number in range(1, needed + 1))
    devices = tuple(
        TwinDevice(
            name=f"device-{number + 1:0{_width(count)}d}",
            site=sites[number * needed // count].name,
            device_class=_weighted([(sort.weight, sort.name) for sort in classes], kernel.stream("made", "device", number)),
        )
        for number in range(count)
    )
    return TwinFleet(sites=sites, classes=classes, devices=devices)


def is_made_up(fleet: TwinFleet) -> bool:
    """Return whether a fleet was made up: it was never seen, so labels may be given to its devices."""
    return fleet.taken_at == 0 and not fleet.workloads


def _site(name: str, kernel: Kernel) -> TwinSite:
    stream = kernel.stream("made", "site", name)
    point, link = stream.unit(), _LINKS[-1][1]
    for share, quality in _LINKS:
        if point < share:
            link = quality
            break
        point -= share
    return TwinSite(name=name, link=link)


def _weighted(options: list[tuple[float, str]], stream: Stream) -> str:
    point = stream.unit() * sum(weight for weight, _ in options)
    for weight, name in options:
        if point < weight:
            return name
        point -= weight
    return next(name for weight, name in reversed(options) if weight > 0)


def _width(count: int) -> int:
    return max(2, len(str(count)))


# ---- classes from a file ----


class _AcceleratorEntry(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    name: str
    kind: AcceleratorKind = "other"
    memory: Quantity = 0
    shared_memory: bool = False


class _ClassEntry(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A class as people write it: quantities instead of bytes."""

    name: Name
    architecture: str = "aarch64"
    cpu: Quantity = 4
    memory: Quantity = "2Gi"
    disk: Quantity = "16Gi"
    disk_bytes_per_second: Quantity = "40M"
    runtimes: dict[str, str] = msgspec.field(default_factory=lambda: dict(_RUNTIMES))
    accelerators: tuple[_AcceleratorEntry, ...] = ()
    peripherals: tuple[str, ...] = ()
    speed: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    boot_seconds: Annotated[float, msgspec.Meta(ge=0)] = 30.0
    clock_drift_ppm: float = 20.0
    throttles_above_celsius: float = 80.0
    energy: Energy = Energy()
    weight: Annotated[float, msgspec.Meta(ge=0)] = 1.0


class _ClassesFile(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    classes: Annotated[tuple[_ClassEntry, ...], msgspec.Meta(min_length=1)]


def load_classes(path: Path, limits: FleetLimits = LIMITS) -> tuple[DeviceClass, ...]:
    """Return the classes in the YAML file at `path` (`classes: [{name: pi, memory: 4Gi, weight: 3}, …]`). Raises `Invalid`, or
    `UnknownScenario` when the file cannot be read."""
    text = read_bounded(path, limits.classes_bytes_max, "the classes")
    return tuple(_class(entry) for entry in load_as(text, _ClassesFile, str(path), rules=_classes_problems).classes)


def _class(entry: _ClassEntry) -> DeviceClass:
    capacity = Capacity(
        architecture=entry.architecture,
        cpu_milli=milli(entry.cpu),
        memory_nominal=whole(entry.memory),
        memory=whole(entry.memory),
        disk=whole(entry.disk),
        runtimes=entry.runtimes,
        accelerators=tuple(
            Accelerator(name=item.name, kind=item.kind, memory=whole(item.memory), shared_memory=item.shared_memory)
            for item in entry.accelerators
        ),
        peripherals=entry.peripherals,
    )
    return DeviceClass(
        name=entry.name,
        capacity=capacity,
        speed=entry.speed,
        disk_bytes_per_second=float(whole(entry.disk_bytes_per_second)),
        boot_seconds=entry.boot_seconds,
        clock_drift_ppm=entry.clock_drift_ppm,
        throttles_above_celsius=entry.throttles_above_celsius,
        energy=entry.energy,
        weight=entry.weight,
    )


def _classes_problems(file: _ClassesFile) -> Iterator[Problem]:
    if len(file.classes) > LIMITS.classes_max:
        yield Problem(path="classes", message=f"{len(file.classes)} classes, at most {LIMITS.classes_max} are allowed")
    seen: dict[str, int] = {}
    for index, entry in enumerate(file.classes):
        path = f"classes[{index}]"
        if seen.setdefault(entry.name, index) != index:
            yield Problem(path=f"{path}.name", message=f"{entry.name!r} is there twice", hint="remove one of the two")
        for field, quantity in (
            ("cpu", entry.cpu),
            ("memory", entry.memory),
            ("disk", entry.disk),
            ("diskBytesPerSecond", entry.disk_bytes_per_second),
            *((f"accelerators[{number}].memory", item.memory) for number, item in enumerate(entry.accelerators)),
        ):
            yield from _quantity(f"{path}.{field}", quantity, least=0 if field.startswith("acc") else 1)
    if file.classes and not any(entry.weight > 0 for entry in file.classes):
        yield Problem(path="classes", message="no class has a weight above 0")


def _quantity(path: str, quantity: Quantity, least: int) -> Iterator[Problem]:
    try:
        good = milli(quantity) >= least
    except (ValueError, OverflowError):
        good = False
    if not good:
        yield Problem(path=path, message=f"must be {'more than' if least else 'at least'} 0, is {quantity}")


# ---- fleets from files ----


def load_fleet(path: Path, limits: FleetLimits = LIMITS) -> TwinFleet:
    """Return the fleet in the file at `path`, as `edgewise twin snapshot -o` writes it. Raises `Invalid`, or `UnknownScenario` when the
    file cannot be read."""
    text = read_bounded(path, limits.file_bytes_max, "the fleet", "a fleet is a file of edgewise twin snapshot -o, or a number of devices")
    _check_version(text, str(path))
    try:
        fleet = msgspec.json.decode(text, type=TwinFleet)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        if len(text) <= MANIFEST_LIMITS.text_bytes_max:
            # The strict reader is slow, and says line, path and the nearest name. It reads YAML too.
            return _sound(load_as(text, TwinFleet, str(path)), str(path), limits)
        message, _, where = str(error).partition(" - at `$")
        hint = "write one with: edgewise twin snapshot -o fleet.json"
        raise Invalid((Problem(path=where.rstrip("`").removeprefix("."), message=message, hint=hint, source=str(path)),)) from None
    return _sound(fleet, str(path), limits)


class _Stamp(msgspec.Struct, frozen=True, rename="camel"):
    twin_fleet_version: int = 1


def _check_version(text: bytes, source: str) -> None:
    """Raise `Invalid` for a fleet of another version of Edgewise. What cannot be read at all is for others to tell."""
    try:
        version = msgspec.json.decode(text, type=_Stamp).twin_fleet_version
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return
    if version != 1:
        message, hint = f"is {version}, this edgewise reads 1", "take the snapshot again: edgewise twin snapshot -o fleet.json"
        raise Invalid((Problem(path="twinFleetVersion", message=message, hint=hint, source=source),))


def _sound(fleet: TwinFleet, source: str, limits: FleetLimits) -> TwinFleet:
    found: list[Problem] = []
    for problem in _fleet_problems(fleet, limits):
        found.append(msgspec.structs.replace(problem, source=source))
        if len(found) >= limits.problems_max:
            break
    if found:
        raise Invalid(found)
    return fleet


def _fleet_problems(fleet: TwinFleet, limits: FleetLimits) -> Iterator[Problem]:
    for field, count, most in (
        ("devices", len(fleet.devices), limits.devices_max),
        ("sites", len(fleet.sites), limits.sites_max),
        ("classes", len(fleet.classes), limits.classes_max),
    ):
        if count > most:
            yield Problem(path=field, message=f"{count} entries, at most {most} are allowed")
            return
        if count == 0:
            yield Problem(path=field, message="must not be empty")
    yield from _unique("sites", (site.name for site in fleet.sites))
    yield from _unique("classes", (sort.name for sort in fleet.classes))
    yield from _unique("devices", (device.name for device in fleet.devices))
    yield from _devices(fleet)
    yield from _resources("artifacts", fleet.artifacts)
    yield from _resources("versions", fleet.versions)
    yield from _resources("workloads", fleet.workloads)


def _devices(fleet: TwinFleet) -> Iterator[Problem]:
    sites, classes = {site.name for site in fleet.sites}, {sort.name for sort in fleet.classes}
    for index, device in enumerate(fleet.devices):
        for field, name, known in (("site", device.site, sites), ("deviceClass", device.device_class, classes)):
            if name not in known:
                hint = nearest(name, known) if len(known) <= 2_000 else ""
                yield Problem(path=f"devices[{index}].{field}", message=f"{name!r} is not among the fleet's {field}s", hint=hint)
        for key, value in device.labels.items():
            if (reason := label_problem(key, value)) is not None:
                yield Problem(path=f"devices[{index}].labels.{key}", message=reason)


def _resources(field: str, resources: Sequence[Subject]) -> Iterator[Problem]:
    for index, resource in enumerate(resources):
        for problem in resource_problems(resource):
            yield msgspec.structs.replace(problem, path=f"{field}[{index}].{problem.path}")


def _unique(path: str, names: Iterable[str]) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield Problem(path=f"{path}[{index}].name", message=f"{name!r} is there twice")
        seen.add(name)
