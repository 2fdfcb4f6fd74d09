"""The seam for invariants: who looks at a run while it goes on, and says what did not hold.

An observer costs nothing for what it does not ask for: `World` calls only what a class overrides.
"""

from typing import TYPE_CHECKING

import msgspec

from edgewise.controllers.gateway import ReportDecision
from edgewise.controllers.reconcile import Decision
from edgewise.engine.model import State
from edgewise.engine.protocol import Effect, Event
from edgewise.store.contract import Change
from edgewise.wire.desired import DesiredState
from edgewise.wire.report import Report

if TYPE_CHECKING:
    from edgewise.twin.device import SimDevice
    from edgewise.twin.world import World

__all__ = ["EngineStep", "Observer"]


class EngineStep(msgspec.Struct, frozen=True):
    """One decision of an engine: `after` and `effects` follow from `before` and `event`."""

    event: Event
    before: State
    after: State
    effects: list[Effect]


class Observer:
    """Looks at a run. Override what matters, and call `world.violated(…)` for what did not hold. `every`: seconds between calls of
    `ticked`; None: never."""

    every: float | None = None

    def began(self, world: "World") -> None:
        """Look at the world before anything happened; again when a world that warmed up for several runs takes up this one."""

    def stepped(self, world: "World", device: "SimDevice", step: EngineStep) -> None:
        """Look at what a device's engine decides, before it is written down."""

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

    def reported(self, world: "World", agent: str, report: Report, decision: ReportDecision) -> None:
        """Look at a report that took effect and is about to be answered."""

    def told(self, world: "World", agent: str, desired: DesiredState) -> None:
        """Look at a desired state on its way to an agent."""

    def lived(self, world: "World", what: str) -> None:
        """Hear that the control plane was `killed`, `started` or `restored`."""

    def ticked(self, world: "World") -> None:
        """Look at the world, every `every` seconds."""

    def ended(self, world: "World") -> None:
        """Look at the world at the end of the run."""
