"""What follows from changes and from time. The shell's loop: apply changes to the view, `handle`, write, apply what was written, `handle`
again until nothing is left; then wait for the next change or until `wake_at`."""

import msgspec

from edgewise.controllers.view import FleetView
from edgewise.store.contract import Transaction


class Changed(msgspec.Struct, frozen=True, tag="changed"):
    """Changes were applied to the view, or agents were heard."""


class Tick(msgspec.Struct, frozen=True, tag="tick"):
    """Time passed."""


Event = Changed | Tick


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to write, in this order, each by itself, and when to ask again at the latest (wall clock; None: at the next change)."""

    transactions: tuple[Transaction, ...] = ()
    wake_at: float | None = None


def handle(event: Event, view: FleetView, now: float) -> Decision:
    """Return what follows now."""
    del event
    view.now = max(view.now, now)
    return Decision()
