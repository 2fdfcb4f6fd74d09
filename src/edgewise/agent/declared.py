"""Capacity that a person declares at join, in place of what the device would say of itself."""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from edgewise.resources.device import Accelerator, Capacity
from edgewise.resources.quantity import milli, whole

_RUNTIME: Final = "runtime."


def read_capacity(pairs: Iterable[str]) -> Capacity:
    """Read `memory=512Mi`, `cpu=2`, `disk=8Gi`, `architecture=aarch64`, `peripheral=front-camera`, `runtime.NAME=VERSION` and
    `accelerator=NAME[:KIND[:MEMORY]]`; peripherals, runtimes and accelerators may come more than once. Raises `ValueError`."""
    capacity = Capacity()
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not value:
            raise ValueError(f"{pair!r} is not NAME=VALUE, such as memory=512Mi")
        if name.startswith(_RUNTIME):
            capacity = msgspec.structs.replace(capacity, runtimes={**capacity.runtimes, name[len(_RUNTIME) :]: value})
        elif name in _FIELDS:
            capacity = _FIELDS[name](capacity, value)
        else:
            raise ValueError(f"{name!r} is no capacity that can be declared; these are: {', '.join(_FIELDS)}, {_RUNTIME}NAME")
    return capacity


def _accelerator(text: str) -> Accelerator:
    name, _, rest = text.partition(":")
    kind, _, memory = rest.partition(":")
    try:
        return msgspec.convert({"name": name, "kind": kind or "other", "memory": whole(memory) if memory else 0}, Accelerator)
    except msgspec.ValidationError as error:
        raise ValueError(f"{text!r} is not NAME[:KIND[:MEMORY]] with a kind of gpu, npu, tpu, vpu or other") from error


_FIELDS: Final[dict[str, Callable[[Capacity, str], Capacity]]] = {
    "memory": lambda seen, text: msgspec.structs.replace(seen, memory=whole(text), memory_nominal=whole(text)),
    "disk": lambda seen, text: msgspec.structs.replace(seen, disk=whole(text)),
    "cpu": lambda seen, text: msgspec.structs.replace(seen, cpu_milli=milli(text)),
    "architecture": lambda seen, text: msgspec.structs.replace(seen, architecture=text),
    "peripheral": lambda seen, text: msgspec.structs.replace(seen, peripherals=(*seen.peripherals, text)),
    "accelerator": lambda seen, text: msgspec.structs.replace(seen, accelerators=(*seen.accelerators, _accelerator(text))),
}
