"""What each fault does to the world, and how it ends."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from edgewise.twin.scenario import Fault, FaultKind

if TYPE_CHECKING:
    from edgewise.twin.world import World

__all__ = ["TABLE", "begin", "end"]

Act = Callable[["World", Fault], None]


def begin(world: "World", fault: Fault) -> None:
    """Let a fault begin."""
    TABLE[fault.rule.fault][0](world, fault)


def end(world: "World", fault: Fault) -> None:
    """Let a fault that lasts end."""
    TABLE[fault.rule.fault][1](world, fault)


def _nothing(world: "World", fault: Fault) -> None:
    """Do nothing: it is over by itself."""


# ---- the network ----


def _partition(world: "World", fault: Fault) -> None:
    world.network.cut(fault.devices, fault.rule.direction)


def _partition_over(world: "World", fault: Fault) -> None:
    world.network.mend(fault.devices, fault.rule.direction)


def _portal(world: "World", fault: Fault) -> None:
    world.network.portal(fault.devices, on=True)


def _portal_over(world: "World", fault: Fault) -> None:
    world.network.portal(fault.devices, on=False)


def _link(world: "World", fault: Fault) -> None:
    if fault.rule.quality is not None:
        world.network.change(fault.number, fault.devices, fault.rule.quality)


def _link_over(world: "World", fault: Fault) -> None:
    world.network.restore(fault.number, fault.devices)


# ---- power ----


def _power_cut(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        world.power_off(name, fault.rule.crash)


def _power_back(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        world.power_on(name)


def _reboot(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        if world.is_on(name):
            world.devices[name].reboot()


def _agent_kill(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        if world.is_on(name):
            world.devices[name].kill_agent()


def _supervisor_kill(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        if world.is_on(name):
            world.devices[name].kill_supervisor()


def _lost(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        world.power_off(name, fault.rule.crash)
        world.lost[name] = None


def _replaced(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        world.power_off(name, fault.rule.crash)


def _replacement(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        if name not in world.lost:
            world.replace_hardware(name)


def _cloned(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        world.identities.clone(fault.number, name)


def _clone_gone(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        world.identities.unclone(fault.number, name)


# ---- disks ----


_DISK_FAULTS: Final[tuple[FaultKind, ...]] = ("disk-full", "disk-error", "disk-read-only")


def _disk(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        world.overlaps.begin("disk", name, fault.number, _DISK_FAULTS.index(fault.rule.fault))
        _set_disk(world, name, fault.rule.fault)


def _disk_over(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        left = world.overlaps.end("disk", name, fault.number)
        _set_disk(world, name, None if left is None else _DISK_FAULTS[int(left)])


def _set_disk(world: "World", name: str, kind: FaultKind | None) -> None:
    device = world.devices[name]
    match kind:
        case "disk-error":
            device.disk_error(on=True)
        case "disk-read-only":
            device.read_only(on=True)
        case _:
            device.disk_full(on=kind is not None)


def _sync_failure(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        world.devices[name].sync_failure()


def _bit_rot(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        world.devices[name].bit_rot()
        world.identities.rotten(name)


# ---- clock, energy, heat ----


def _clock(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        world.overlaps.begin("clock", name, fault.number, fault.rule.seconds)
        world.devices[name].set_clock(fault.rule.seconds or None)


def _clock_right(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        if world.overlaps.end("clock", name, fault.number) is None:
            world.devices[name].clock.correct()


def _battery(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        world.overlaps.begin("battery", name, fault.number, fault.rule.amount)
        world.devices[name].set_battery(fault.rule.amount)


def _sun_back(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        if world.overlaps.end("battery", name, fault.number) is None:
            world.devices[name].set_battery(None)


def _heat(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        world.overlaps.begin("heat", name, fault.number, fault.rule.amount)
        world.devices[name].heat(fault.rule.amount)


def _cool(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        world.devices[name].heat(world.overlaps.end("heat", name, fault.number))


# ---- workloads ----


def _crash(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        world.devices[name].disturb("", "crash")


def _hang(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        world.devices[name].disturb("", "hang")


def _leak(world: "World", fault: Fault) -> None:
    for name in fault.devices:
        world.devices[name].disturb("", "leak")


# ---- the control plane ----


def _control_kill(world: "World", _fault: Fault) -> None:
    world.outages.down()


def _control_back(world: "World", _fault: Fault) -> None:
    world.outages.back()


def _kill_at_write(world: "World", fault: Fault) -> None:
    world.outages.dies_at_write(fault)


def _restore(world: "World", fault: Fault) -> None:
    world.outages.restore(fault)


def _slow_store(world: "World", fault: Fault) -> None:
    world.overlaps.begin("store", "", fault.number, fault.rule.seconds)
    world.control.write_seconds = fault.rule.seconds


def _store_quick(world: "World", fault: Fault) -> None:
    world.control.write_seconds = world.overlaps.end("store", "", fault.number) or 0.0


TABLE: Final[Mapping[FaultKind, tuple[Act, Act]]] = {
    "partition": (_partition, _partition_over),
    "captive-portal": (_portal, _portal_over),
    "link": (_link, _link_over),
    "power-cut": (_power_cut, _power_back),
    "reboot": (_reboot, _nothing),
    "agent-kill": (_agent_kill, _nothing),
    "supervisor-kill": (_supervisor_kill, _nothing),
    "lost": (_lost, _nothing),
    "absent": (_power_cut, _power_back),
    "replaced": (_replaced, _replacement),
    "cloned": (_cloned, _clone_gone),
    "disk-full": (_disk, _disk_over),
    "disk-error": (_disk, _disk_over),
    "disk-read-only": (_disk, _disk_over),
    "sync-failure": (_sync_failure, _nothing),
    "bit-rot": (_bit_rot, _nothing),
    "clock": (_clock, _clock_right),
    "battery": (_battery, _sun_back),
    "heat": (_heat, _cool),
    "workload-crash": (_crash, _nothing),
    "workload-hang": (_hang, _nothing),
    "workload-leak": (_leak, _nothing),
    "control-kill": (_control_kill, _control_back),
    "control-kill-at-write": (_kill_at_write, _nothing),
    "control-restore": (_restore, _nothing),
    "slow-store": (_slow_store, _store_quick),
}
"""By kind: how it begins, and how it ends after it lasted. Everything in `FaultKind` is here (a test says so)."""
