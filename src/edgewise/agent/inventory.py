"""What this device has: looked up by reading a few small files, nothing else. Heavy libraries are not asked.

Sources: proc(5), sysfs (Documentation/ABI in the kernel tree), cgroup v2's `memory.max` and `cpu.max`, os-release(5), and the names of the
`*.dist-info` folders (PyPA's binary distribution format), which carry a package's version without importing anything.
"""

import os
import sys
from collections.abc import Iterable
from typing import Final

import msgspec

from edgewise.resources.device import Accelerator, AcceleratorKind, Capacity

_READ_BYTES_MAX: Final = 64 * 1024
_MEMORY_STEP: Final = 2**20
_DISK_STEP: Final = 2**26
_RESERVE_SHARE: Final = 20
_RESERVE_BYTES_MIN: Final = 64 * 2**20
_ENTRIES_MAX: Final = 10_000

_RUNTIMES: Final = {
    "onnxruntime": "onnxruntime",
    "onnxruntime-gpu": "onnxruntime",
    "onnxruntime-openvino": "onnxruntime",
    "onnxruntime-directml": "onnxruntime",
    "openvino": "openvino",
    "ai-edge-litert": "litert",
    "tflite-runtime": "litert",
    "tensorrt": "tensorrt",
    "torch": "torch",
    "wasmtime": "wasmtime",
}
_DEVICE_FILES: Final[tuple[tuple[str, str, str, AcceleratorKind], ...]] = (
    # folder, prefix, name, kind
    ("dev", "apex_", "coral", "tpu"),
    ("dev", "hailo", "hailo", "npu"),
    ("dev", "myriad", "myriad", "vpu"),
    ("dev/accel", "accel", "accel", "npu"),
)
_GPU_VENDORS: Final = {"0x8086": ("intel", True), "0x1002": ("amd", False), "0x10de": ("nvidia", False), "0x13b5": ("mali", True)}
_NETWORK_PREFIXES: Final = (
    ("lo", ""),
    ("veth", ""),
    ("docker", ""),
    ("br-", ""),
    ("cni", ""),
    ("virbr", ""),
    ("wl", "wifi"),
    ("ww", "cellular"),
    ("wg", "tunnel"),
    ("tun", "tunnel"),
    ("tap", "tunnel"),
    ("can", "can"),
    ("e", "ethernet"),
)
"""First match wins; an empty kind is not told."""


def scan(data_folder: str, root: str = "/", packages: Iterable[str] | None = None) -> Capacity:
    """Return what the device has. `packages` are the folders where Python packages are installed."""
    nominal = _memory_total(root)
    limit = _cgroup_number(root, "memory.max")
    usable = min(nominal, limit) if limit is not None else nominal
    reserve = max(_RESERVE_BYTES_MIN, usable // _RESERVE_SHARE)
    machine = os.uname().machine if root == "/" else ""
    return Capacity(
        architecture=machine,
        cpu_milli=_cpu_milli(root),
        memory_nominal=nominal,
        memory=max(0, usable - reserve) // _MEMORY_STEP * _MEMORY_STEP,
        disk=_disk(data_folder),
        accelerators=_accelerators(root, nominal),
        runtimes=_runtimes(sys.path if packages is None else packages),
        peripherals=tuple(name for name in _names(root, "dev") if name.startswith("video") and name[5:].isdigit()),
        os=_os(root),
        kernel=os.uname().release if root == "/" else "",
        network=_network(root),
    )


def declared_over(seen: Capacity, declared: Capacity) -> Capacity:
    """Return `seen` with whatever a person declared in its place, field by field."""
    return msgspec.structs.replace(
        seen, **{name: value for name in Capacity.__struct_fields__ if (value := getattr(declared, name)) != getattr(Capacity(), name)}
    )


def _text(root: str, path: str) -> str:
    """Return a small file's text; empty when it is not there or cannot be read."""
    try:
        with open(os.path.join(root, path), "rb") as file:  # noqa: PTH118, PTH123  # pathlib would be loaded for this alone
            return file.read(_READ_BYTES_MAX).decode("utf-8", "replace").strip(" \t\r\n\0")
    except OSError:
        return ""


def _names(root: str, folder: str) -> list[str]:
    try:
        return sorted(os.listdir(os.path.join(root, folder)))[:_ENTRIES_MAX]  # noqa: PTH118, PTH208  # as above
    except OSError:
        return []


def _memory_total(root: str) -> int:
    for line in _text(root, "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def _cgroup_number(root: str, name: str) -> int | None:
    """Return the smallest limit of the agent's own cgroup and those above it, or None."""
    own = next((line[3:] for line in _text(root, "proc/self/cgroup").splitlines() if line.startswith("0::")), "/")
    parts = [part for part in own.split("/") if part and part != ".."]
    found: list[int] = []
    for depth in range(len(parts) + 1):
        words = _text(root, "/".join(["sys/fs/cgroup", *parts[:depth], name])).split()
        if not words or not words[0].isdigit():
            continue
        found.append(int(words[0]) * 1000 // int(words[1]) if len(words) > 1 else int(words[0]))
    return min(found, default=None)


def _cpu_milli(root: str) -> int:
    cores = len(os.sched_getaffinity(0)) * 1000
    limit = _cgroup_number(root, "cpu.max")
    return cores if limit is None else max(1, min(cores, limit))


def _disk(data_folder: str) -> int:
    try:
        seen = os.statvfs(data_folder)
    except OSError:
        return 0
    return seen.f_blocks * seen.f_frsize // _DISK_STEP * _DISK_STEP


def _accelerators(root: str, memory: int) -> tuple[Accelerator, ...]:
    found: list[Accelerator] = []
    nvidia = _names(root, "proc/driver/nvidia/gpus")
    for gpu in nvidia:
        lines = _text(root, f"proc/driver/nvidia/gpus/{gpu}/information").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("Model:")), "nvidia")
        found.append(Accelerator(name=model, kind="gpu"))
    if "Jetson" in _text(root, "proc/device-tree/model") and not nvidia:
        found.append(Accelerator(name="jetson", kind="gpu", memory=memory, shared_memory=True))
    for card in _names(root, "sys/class/drm"):
        if not (card.startswith("card") and card[4:].isdigit()):
            continue
        name, shared = _GPU_VENDORS.get(_text(root, f"sys/class/drm/{card}/device/vendor"), ("", False))
        if not name or (name == "nvidia" and nvidia):
            continue
        vram = _text(root, f"sys/class/drm/{card}/device/mem_info_vram_total")
        found.append(Accelerator(name=name, kind="gpu", memory=int(vram) if vram.isdigit() else 0, shared_memory=shared))
    for folder, prefix, name, kind in _DEVICE_FILES:
        found.extend(Accelerator(name=name, kind=kind) for each in _names(root, folder) if _is_numbered(each, prefix))
    return tuple(found)


def _is_numbered(name: str, prefix: str) -> bool:
    rest = name[len(prefix) :]
    return name.startswith(prefix) and (not rest or rest.isdigit())


def _runtimes(packages: Iterable[str]) -> dict[str, str]:
    found = {"python": ".".join(str(part) for part in sys.version_info[:3])}
    for folder in packages:
        if not folder:
            continue
        for entry in _names(folder, ""):
            if not entry.endswith(".dist-info"):
                continue
            name, _, version = entry[: -len(".dist-info")].rpartition("-")
            runtime = _RUNTIMES.get(name.lower().replace("_", "-"))
            if runtime is not None and version:
                found.setdefault(runtime, version)
    return found


def _os(root: str) -> str:
    lines = (_text(root, "etc/os-release") or _text(root, "usr/lib/os-release")).splitlines()
    return next((line.partition("=")[2].strip("\"'") for line in lines if line.startswith("PRETTY_NAME=")), "Linux")


def _network(root: str) -> dict[str, str]:
    kinds = {
        name: next((kind for prefix, kind in _NETWORK_PREFIXES if name.startswith(prefix)), "other")
        for name in _names(root, "sys/class/net")
    }
    return {name: kind for name, kind in kinds.items() if kind}
