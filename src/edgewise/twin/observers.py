"""The seam for invariants: who looks at a run while it goes on, and says what did not hold.

An observer costs nothing for what it does not ask for: `World` calls only what a class overrides.
"""

from typing import TYPE_CHECKING

from edgewise.controllers.reconcile import Decision
from edgewise.store.contract import Change
from edgewise.twin.result import Violation

if TYPE_CHECKING:
    from edgewise.twin.device import SimDevice
    from edgewise.twin.world import World

__all__ = ["Observer"]


class Observer:
    """Looks at a run. Override what matters, and call `world.violated(…)` for what did not hold. `every`: seconds between calls of
    `ticked`; None: never."""

    every: float | None = None

    def began(self, world: "World") -> None:
        """Look at the world before anything happened."""

    def stepped(self, world: "World", device: "SimDevice") -> None:
        """Look at a device after its engine took a step."""

    def started(self, world: "World", device: "SimDevice", instance: str, revision: str) -> None:
        """Look at a device that starts a process."""

    def ready(self, world: "World", device: "SimDevice", instance: str, version: str, *, ready: bool) -> None:
        """Look at a device on which an instance became ready, or is not any more."""

    def committed(self, world: "World", device: "SimDevice", instance: str, revision: str) -> None:
        """Look at a device that committed an update."""

    def refused(self, world: "World", device: "SimDevice", instance: str, revision: str) -> None:
        """Look at a device that refuses a revision from now on."""

    def wrote(self, world: "World", changes: tuple[Change, ...]) -> None:
        """Look at what the control plane wrote and took over into its view."""

    def decided(self, world: "World", decision: Decision) -> None:
        """Look at a decision before it is written."""

    def lived(self, world: "World", what: str) -> None:
        """Hear that the control plane was `killed`, `started` or `restored`."""

    def ticked(self, world: "World") -> None:
        """Look at the world, every `every` seconds."""

    def ended(self, world: "World") -> None:
        """Look at the world at the end of the run."""


def violation(invariant: str, at: float, subject: str, message: str) -> Violation:
    """Return what did not hold."""
    return Violation(invariant=invariant, at=at, subject=subject, message=message)
