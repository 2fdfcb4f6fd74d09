"""The scenarios that come with Edgewise, and those that people write: strict YAML, and rules for what makes sense.

scenario("partition") or scenario("./night-shift.yaml") -> Scenario, or raises Invalid with every problem, its line and the nearest name
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec

from edgewise.resources.errors import Error, Invalid, Problem
from edgewise.resources.manifests import load_as, nearest
from edgewise.resources.quantity import seconds
from edgewise.twin.fleet import TwinFleet
from edgewise.twin.scenario import Behaviour, FaultKind, FaultRule, Scenario, Select
from edgewise.twin.schedule import ANONYMOUS, selected

__all__ = ["LIMITS", "LibraryLimits", "UnknownScenario", "check", "names", "parse", "problems", "read_bounded", "scenario"]


class UnknownScenario(Error):
    """No scenario has that name, and no file either, or the file cannot be read."""


class LibraryLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one scenario may hold: bytes of its file, rules and behaviours; how often faults may come and how long they may go on,
    in seconds."""

    file_bytes_max: int = 1_000_000
    rules_max: int = 200
    behaviours_max: int = 200
    every_seconds_min: float = 1.0
    lasts_seconds_max: float = 366 * 86_400.0


LIMITS: Final = LibraryLimits()
_SUFFIXES: Final = (".yaml", ".yml", ".json")


def names() -> tuple[str, ...]:
    """Return the names of the scenarios that come with Edgewise: calm first, the others by name."""
    found = sorted(item.name.removesuffix(".yaml") for item in _folder().iterdir() if item.name.endswith(".yaml"))
    return tuple(sorted(found, key=lambda name: (name != "calm", name)))


def scenario(name_or_path: str, fleet: TwinFleet | None = None) -> Scenario:
    """Return the scenario of that name, or the one in the file at that path (what ends in .yaml, .yml or .json, or holds a slash). With
    `fleet`, what its rules select must be there.

    Raises `UnknownScenario`, or `Invalid` with everything that is wrong, its line and what was probably meant.
    """
    if "/" not in name_or_path and not name_or_path.endswith(_SUFFIXES):
        if name_or_path not in names():
            hint = nearest(name_or_path, names())
            hint = hint if hint.startswith("did") else f"there are {', '.join(names())}"
            raise UnknownScenario(f"there is no scenario {name_or_path!r} ({hint}; a file's name ends in .yaml)")
        return parse((_folder() / f"{name_or_path}.yaml").read_bytes(), f"scenario {name_or_path}", fleet)
    path = Path(name_or_path)
    return parse(read_bounded(path, LIMITS.file_bytes_max, "the scenario"), str(path), fleet)


def parse(text: str | bytes, source: str = "", fleet: TwinFleet | None = None) -> Scenario:
    """Return the scenario in `text`. Raises `Invalid`."""
    return load_as(text, Scenario, source, rules=partial(problems, fleet=fleet))


def check(wanted: Scenario, fleet: TwinFleet) -> None:
    """Raise `Invalid` when `wanted` makes no sense, or selects what is not in `fleet`."""
    found = tuple(msgspec.structs.replace(problem, source=f"scenario {wanted.name}") for problem in problems(wanted, fleet))
    if found:
        raise Invalid(found)


def read_bounded(path: Path, bytes_max: int, what: str, hint: str = "") -> bytes:
    """Return the bytes of a file that a person named. Raises `UnknownScenario` (as every such failure) in words for people."""
    more = f" ({hint})" if hint else ""
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise UnknownScenario(f"cannot read {what} {path}: {error.strerror or error}{more}") from None
    if len(data) > bytes_max:
        raise UnknownScenario(f"cannot read {what} {path}: larger than {bytes_max} bytes")
    return data


def _folder() -> Path:
    return Path(str(files("edgewise.twin"))) / "scenarios"


# ---- rules ----


def problems(wanted: Scenario, fleet: TwinFleet | None = None, limits: LibraryLimits = LIMITS) -> Iterator[Problem]:
    """Yield what makes no sense in a scenario; with `fleet`, also what selects something that is not there."""
    end = seconds(wanted.lasts)
    if not 0 < end <= limits.lasts_seconds_max:
        yield Problem(path="lasts", message="must be more than 0 and at most a year")
    if seconds(wanted.settle) > limits.lasts_seconds_max:
        yield Problem(path="settle", message="must be at most a year")
    for field, count, most in (
        ("faults", len(wanted.faults), limits.rules_max),
        ("behaviours", len(wanted.behaviours), limits.behaviours_max),
    ):
        if count > most:
            yield Problem(path=field, message=f"{count} entries, at most {most} are allowed")
            return
    for index, rule in enumerate(wanted.faults):
        path = f"faults[{index}]"
        yield from _times(path, rule, end, limits)
        yield from _fitting(path, rule)
        if rule.select.share == 0:
            yield Problem(path=f"{path}.select.share", message="must be more than 0: nobody would be hit", hint="remove the rule")
        if rule.fault in ANONYMOUS and rule.select != Select():
            yield Problem(path=f"{path}.select", message=f"{rule.fault} hits the control plane, not devices", hint="remove this line")
        elif fleet is not None:
            yield from _selects(f"{path}.select", rule.select, fleet)
    for index, behaviour in enumerate(wanted.behaviours):
        yield from _behaviour(f"behaviours[{index}]", behaviour, fleet)


def _times(path: str, rule: FaultRule, end: float, limits: LibraryLimits) -> Iterator[Problem]:
    start = seconds(rule.at)
    if start >= end:
        yield Problem(path=f"{path}.at", message=f"{rule.at} is not before the scenario's end", hint="let the scenario's `lasts` be longer")
    if rule.every is not None and rule.until is None:
        yield Problem(path=f"{path}.every", message="needs until: when it stops coming", hint="such as until: 20m")
    if rule.every is not None and seconds(rule.every) < limits.every_seconds_min:
        yield Problem(path=f"{path}.every", message=f"must be at least {limits.every_seconds_min:g}s")
    if rule.until is None:
        return
    if seconds(rule.until) <= start:
        yield Problem(path=f"{path}.until", message=f"{rule.until} is not after {rule.at}, when it begins")
    if rule.every is None and (rule.together or rule.fault in ANONYMOUS):
        hint = "give every, or together: false" if rule.fault not in ANONYMOUS else "give every"
        yield Problem(path=f"{path}.until", message="has no meaning for what comes once", hint=hint)


def _always(_: float) -> str:
    return ""


def _positive(value: float) -> str:
    return "" if value > 0 else "must be given and more than 0"


def _portion(value: float) -> str:
    return "" if 0 <= value <= 1 else "must be a share from 0 to 1"


_SECONDS: Final[dict[FaultKind, tuple[str, Callable[[float], str]]]] = {
    "clock": ("how far the clock jumps (0: to 1970)", _always),
    "control-restore": ("how old the backup is", _positive),
    "slow-store": ("how long a write takes", _positive),
}
_AMOUNTS: Final[dict[FaultKind, tuple[str, Callable[[float], str]]]] = {
    "battery": ("the share that is left", _portion),
    "heat": ("degrees Celsius", _positive),
    "control-kill-at-write": ("less than 0.5: before the commit, else after it", _portion),
    "disk-full": ("the share that is full", _portion),
    "workload-leak": ("bytes per second", _always),
}


def _fitting(path: str, rule: FaultRule) -> Iterator[Problem]:
    """Yield what does not go with a rule's kind of fault."""
    kind = rule.fault
    if rule.quality is not None and kind != "link":
        yield Problem(path=f"{path}.quality", message=f"is for the fault link, not for {kind}", hint="fault: link")
    if rule.quality is None and kind == "link":
        yield Problem(path=path, message="a fault link needs quality", hint="such as quality: {loss: 0.1, latencySeconds: 0.5}")
    if rule.direction != "both" and kind != "partition":
        yield Problem(path=f"{path}.direction", message=f"is for the fault partition, not for {kind}")
    if rule.crash != "any" and kind not in {"power-cut", "battery"}:
        yield Problem(path=f"{path}.crash", message=f"is for the fault power-cut, not for {kind}")
    for field, value, table in (("seconds", rule.seconds, _SECONDS), ("amount", rule.amount, _AMOUNTS)):
        known = table.get(kind)
        if known is None and value != 0:
            meant = "; ".join(f"{name}: {words}" for name, (words, _) in table.items())
            yield Problem(path=f"{path}.{field}", message=f"means nothing for {kind}", hint=f"it is for {meant}")
        elif known is not None and (wrong := known[1](value)):
            yield Problem(path=f"{path}.{field}", message=f"{wrong} ({known[0]})")


def _selects(path: str, select: Select, fleet: TwinFleet) -> Iterator[Problem]:
    there = (
        ("sites", select.sites, {site.name for site in fleet.sites}),
        ("classes", select.classes, {sort.name for sort in fleet.classes}),
        ("devices", select.devices, {device.name for device in fleet.devices}),
    )
    before = len(select.sites) + len(select.classes) + len(select.devices) + len(select.labels)
    found = 0
    for field, wanted, known in there:
        for index, name in enumerate(wanted):
            if name not in known:
                found += 1
                yield Problem(path=f"{path}.{field}[{index}]", message=f"the fleet has no {name!r}", hint=_hint(name, known))
    for key, value in select.labels.items():
        if not any(device.labels.get(key) == value for device in fleet.devices):
            found += 1
            values = {device.labels[key] for device in fleet.devices if key in device.labels}
            hint = _hint(value, values) if values else _hint(key, {name for device in fleet.devices for name in device.labels})
            yield Problem(path=f"{path}.labels.{key}", message=f"no device of the fleet has the label {key}={value}", hint=hint)
    if not found and before and not selected(select, fleet):
        yield Problem(path=path, message="no device of the fleet is all of that")


def _hint(word: str, known: Iterable[str]) -> str:
    # Big fleets have many names: look among those that begin alike.
    words = sorted(known)
    if len(words) > 2_000:
        words = [name for name in words if name[:1] == word[:1]][:2_000]
    return nearest(word, words)


def _behaviour(path: str, behaviour: Behaviour, fleet: TwinFleet | None) -> Iterator[Problem]:
    if behaviour.share == 0:
        yield Problem(path=f"{path}.share", message="must be more than 0: it would be nowhere", hint="remove the behaviour")
    if behaviour.analysis and behaviour.metrics:
        yield Problem(path=f"{path}.metrics", message="has no place beside analysis", hint="remove one of the two")
    for name, (_, deviation) in behaviour.metrics.items():
        if deviation < 0:
            yield Problem(path=f"{path}.metrics.{name}[1]", message="a standard deviation must not be negative")
    if fleet is not None and behaviour.device_class:
        known = {sort.name for sort in fleet.classes}
        if behaviour.device_class not in known:
            message = f"the fleet has no class {behaviour.device_class!r}"
            yield Problem(path=f"{path}.deviceClass", message=message, hint=nearest(behaviour.device_class, known))
