"""How the control plane of a run dies and comes back: killed, killed at a write, set back to a backup."""

from typing import TYPE_CHECKING

from edgewise.twin.scenario import Fault

if TYPE_CHECKING:
    from edgewise.twin.world import World

__all__ = ["ControlOutages"]


class ControlOutages:
    """What takes the control plane away twice must bring it back twice."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._downs = 0
        self._backups: dict[int, object] = {}
        self._deaths: list[float] = []
        world.control.on_killed = self._killed

    def down(self) -> None:
        """Kill the control plane."""
        self._downs += 1
        self._world.control.kill()
        self._said("killed")

    def back(self) -> None:
        """Bring the control plane back."""
        self._downs = max(0, self._downs - 1)
        if self._downs == 0 and not self._world.control.up:
            self._world.control.start()

    def dies_at_write(self, fault: Fault) -> None:
        """Let the control plane die at its next write, and come back after the fault's time."""
        self._deaths.append(fault.lasts)
        self._world.control.kill_at_write(committed=fault.rule.amount >= 0.5)

    def back_up(self, number: int) -> None:
        """Keep a backup for the fault of that number."""
        if self._world.control.up:
            self._backups[number] = self._world.control.backup()

    def restore(self, fault: Fault) -> None:
        """Set the store back to its backup; the control plane is away for as long as the fault lasts."""
        world, backup = self._world, self._backups.pop(fault.number, None)
        world.control.kill()
        if backup is not None:
            world.control.vault.restore(backup, int(world.kernel.wall))
            world.lived("restored")
        self._said("restored from a backup")
        self._away(fault.lasts)

    def _killed(self) -> None:
        """Plan the return of a control plane that died at a write."""
        self._said("died while it wrote")
        self._away(self._deaths.pop(0) if self._deaths else self._world.limits.retry_seconds)

    def _away(self, seconds: float) -> None:
        self._downs += 1
        self._world.pending += 1
        self._world.kernel.after(seconds, self._return)

    def _return(self) -> None:
        self._world.pending -= 1
        self.back()

    def _said(self, what: str) -> None:
        self._world.observations.moment("control", "control plane", what)
