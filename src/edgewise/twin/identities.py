"""What people do about the identities of a run: new hardware gets in under an old name, a clone's victim gets in again, and a backup that
knows too little or too much of who is who is put right."""

import copy
from typing import TYPE_CHECKING, Final

from edgewise.controllers.rows import AgentRow
from edgewise.twin.admitting import key_digest
from edgewise.twin.device import SimDevice, Watch

if TYPE_CHECKING:
    from edgewise.twin.world import World

__all__ = ["Identities"]

_REJOIN_SECONDS: Final = 30.0
_PATIENCE: Final = 5


class Identities:
    """Hardware that is replaced, clones, and the people who tell the control plane about them: as soon as it is there to be told, and again
    after a backup made it forget."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._clones: dict[tuple[int, str], SimDevice] = {}
        self._replaced: dict[str, None] = {}
        self._cloned: dict[str, None] = {}
        self._doubtful: dict[str, int] = {}
        self._looking = False

    def replace(self, name: str) -> None:
        """Put new hardware in a device's place: people take the old agent out of use."""
        self._replaced[name] = None
        self._world.devices[name].replace_hardware(self._world.token_of(name))
        self.tend()

    def clone(self, number: int, name: str) -> None:
        """Let a second device show the identity of a device, and whatever is on its disk."""
        world, device = self._world, self._world.devices[name]
        if not device.powered:
            return
        link = world.network.add_device(f"{name}#{number}", world.twins[name].site)
        around = world.surroundings(Watch())
        around.learn(world.around.versions)
        twin = SimDevice(around, world.twins[name], world.classes[world.twins[name].device_class], link, token="")
        twin.chance = world.kernel.stream("clone", number, name)
        twin.hardware = device.hardware
        twin.disk = copy.deepcopy(device.disk)
        self._clones[number, name] = twin
        self._cloned[name] = None
        twin.power_on()

    def unclone(self, number: int, name: str) -> None:
        """Take the second device away; people let the real one in again."""
        twin = self._clones.pop((number, name), None)
        if twin is not None:
            twin.power_off(None)
            self.tend()

    def rotten(self, name: str) -> None:
        """Have a look at a device that may have lost its identity."""
        self._doubtful[name] = 0
        self._look_later()

    def restored(self) -> None:
        """Have a look at all devices: the backup may not know them."""
        self._doubtful.update(dict.fromkeys(self._world.devices, 0))
        self._look_later()

    def tend(self) -> None:
        """Tell the control plane what it does not know, if it is there."""
        world = self._world
        if not world.control.up:
            return  # `tend` comes again when it starts
        for name in self._replaced:
            agent = self._agent(name)
            if agent is not None and not agent.spec.revoked and agent.spec.key_digest != key_digest(world.devices[name].key):
                world.people.revoke(agent.key.name)
        for name in self._cloned:
            agent = self._agent(name)
            if agent is not None and agent.spec.quarantined and not any(cloned == name for _, cloned in self._clones):
                world.people.approve(agent.key.name)

    def _agent(self, name: str) -> AgentRow | None:
        row = self._world.control.view.devices.get(name)
        return self._world.control.view.agents.get(row.spec.agent) if row is not None else None

    def _look_later(self) -> None:
        if self._doubtful and not self._looking:
            self._looking = True
            self._world.kernel.after(_REJOIN_SECONDS, self._look)

    def _look(self) -> None:
        """Let devices join anew whose identity is worth nothing any more."""
        world = self._world
        self._looking = False
        if world.control.up:
            for name in list(self._doubtful):
                device = world.devices[name]
                if name in world.lost or device.gone:
                    del self._doubtful[name]
                    row = world.control.view.devices.get(name)
                    if device.gone and row is not None and not row.spec.decommission:
                        world.people.device("decommission", name)  # the backup has undone it
                elif device.up and device.resident is None:
                    self._doubtful[name] += 1
                    if self._doubtful[name] >= _PATIENCE:
                        del self._doubtful[name]
                        self.replace(name)  # what is left of its identity cannot be read
                elif device.resident is not None:
                    del self._doubtful[name]
                    known = world.control.view.agents.get(device.agent)
                    if known is None or known.spec.revoked:
                        self.replace(name)
        self._look_later()
