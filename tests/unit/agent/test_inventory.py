"""What a device has, read from a made-up root."""

import msgspec
import pytest

from edgewise.agent.declared import read_capacity
from edgewise.agent.inventory import declared_over, scan
from edgewise.resources.device import Accelerator, Capacity


@pytest.fixture
def root(tmp_path):
    def put(path: str, text: str = "") -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    put("proc/meminfo", "MemTotal:        4000000 kB\nMemFree: 1 kB\n")
    put("etc/os-release", 'NAME="X"\nPRETTY_NAME="Some Linux 12"\n')
    for interface in ("lo", "eth0", "wlan0", "docker0", "veth12"):
        (tmp_path / "sys/class/net" / interface).mkdir(parents=True)
    for name in ("video0", "video1", "videoX", "apex_0", "null"):
        put(f"dev/{name}")
    put("proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t\t Orin\nIRQ: 1\n")
    put("sys/class/drm/card0/device/vendor", "0x1002\n")
    put("sys/class/drm/card0/device/mem_info_vram_total", "8589934592\n")
    put("sys/class/drm/card0-HDMI-A-1/status", "")
    put("sys/class/drm/card1/device/vendor", "0x1234\n")
    return tmp_path


def test_a_device_is_read_from_small_files(root):
    packages = root / "site"
    for name in ("onnxruntime_gpu-1.20.1", "ai_edge_litert-2.1.0", "numpy-2.0"):
        (packages / f"{name}.dist-info").mkdir(parents=True)
    seen = scan(str(root), str(root), [str(packages), str(root / "nowhere"), ""])
    assert seen.memory_nominal == 4000000 * 1024
    assert 0.9 * seen.memory_nominal < seen.memory < seen.memory_nominal
    assert seen.memory % 2**20 == 0
    assert seen.os == "Some Linux 12"
    assert seen.network == {"eth0": "ethernet", "wlan0": "wifi"}
    assert seen.peripherals == ("video0", "video1")
    assert seen.accelerators == (
        Accelerator(name="Orin", kind="gpu"),
        Accelerator(name="amd", kind="gpu", memory=8589934592),
        Accelerator(name="coral", kind="tpu"),
    )
    assert seen.runtimes["onnxruntime"] == "1.20.1"
    assert seen.runtimes["litert"] == "2.1.0"
    assert "numpy" not in seen.runtimes
    assert seen.cpu_milli >= 1000
    assert seen.disk > 0


def test_the_cgroup_limits_what_is_usable(root):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text("0::/system.slice/edgewise.service\n")
    for folder, memory, cpu in (
        ("", "max", "max 100000"),
        ("system.slice", "1000000000", "max 100000"),
        ("system.slice/edgewise.service", "max", "50000 100000"),
    ):
        place = root / "sys/fs/cgroup" / folder
        place.mkdir(parents=True, exist_ok=True)
        (place / "memory.max").write_text(memory)
        (place / "cpu.max").write_text(cpu)
    seen = scan(str(root), str(root), [])
    assert seen.memory < 1_000_000_000 < seen.memory_nominal
    assert seen.cpu_milli == 500


def test_an_empty_machine_is_no_error(tmp_path):
    seen = scan(str(tmp_path / "nowhere"), str(tmp_path), [])
    assert (seen.memory, seen.disk, seen.accelerators, seen.os) == (0, 0, (), "Linux")


def test_the_real_machine_is_stable(tmp_path):
    assert scan(str(tmp_path)) == scan(str(tmp_path))


def test_what_is_declared_wins_field_by_field(root):
    seen = scan(str(root), str(root), [])
    both = declared_over(seen, Capacity(memory=5, peripherals=("front-camera",)))
    assert (both.memory, both.peripherals) == (5, ("front-camera",))
    assert msgspec.structs.replace(both, memory=seen.memory, peripherals=seen.peripherals) == seen


def test_declared_capacity_is_read():
    capacity = read_capacity(
        [
            "memory=512Mi",
            "cpu=500m",
            "disk=8Gi",
            "architecture=aarch64",
            "peripheral=a",
            "peripheral=b",
            "runtime.onnxruntime=1.20",
            "accelerator=hailo:npu:1Gi",
        ]
    )
    assert capacity == Capacity(
        memory=512 * 2**20,
        memory_nominal=512 * 2**20,
        cpu_milli=500,
        disk=8 * 2**30,
        architecture="aarch64",
        peripherals=("a", "b"),
        runtimes={"onnxruntime": "1.20"},
        accelerators=(Accelerator(name="hailo", kind="npu", memory=2**30),),
    )


@pytest.mark.parametrize("text", ["memory", "memory=", "memory=lots", "colour=red", "accelerator=x:toaster"])
def test_what_cannot_be_declared_is_refused(text):
    with pytest.raises(ValueError):
        read_capacity([text])
