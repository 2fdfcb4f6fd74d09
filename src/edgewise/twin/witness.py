"""Who hears of what the simulated control plane does."""

from edgewise.controllers.gateway import ReportDecision
from edgewise.controllers.reconcile import Decision
from edgewise.store.contract import Change
from edgewise.wire.desired import DesiredState
from edgewise.wire.report import Report

__all__ = ["Witness"]


class Witness:
    """Hears of what the control plane does. Override what matters."""

    def wrote(self, changes: tuple[Change, ...]) -> None:
        """Hear of changes that were written and taken over."""

    def decided(self, decision: Decision) -> None:
        """Hear of a decision before it is written."""

    def reported(self, agent: str, report: Report, decision: ReportDecision) -> None:
        """Hear of a report that took effect and is about to be answered."""

    def told(self, agent: str, desired: DesiredState) -> None:
        """Hear of a desired state on its way to an agent."""

    def lived(self, what: str) -> None:
        """Hear that the control plane was `killed`, `started` or `restored`."""
