"""What follows from changes and from time.

The shell's loop: apply changes to the view, `handle`, write each transaction, apply what was written, and `handle` again until nothing is
left; then wait for the next change, or until `wake_at`. After a `ConflictError` it lets the view catch up and handles again: what was not
written is decided anew, because a workload stays marked until a decision about it is empty.
"""

import msgspec

from edgewise.controllers import devices, liveness, workloads
from edgewise.controllers.view import FleetView
from edgewise.controllers.work import Work
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
    """Return what follows now. Both events mean the same to it; they are told apart in traces."""
    del event
    view.now = now = max(view.now, now)
    work = Work(view, now)
    _pop_timers(view, now)
    liveness.step(view, work)
    devices.step(view, work)
    work.cut()
    for key in [key for key, due in view.stirred.items() if due <= now]:
        del view.stirred[key]
        view.dirty.add(key)
    for key in sorted(view.dirty):
        if work.full:
            break
        before = work.written
        workloads.reconcile(view, key, work)
        work.cut()
        if work.written == before:
            view.dirty.discard(key)
            view.counts_due.discard(("counts", *key))
    return Decision(transactions=work.transactions(), wake_at=_wake_at(view))


def _pop_timers(view: FleetView, now: float) -> None:
    for key in view.timers.pop(now):
        match key:
            case ("agent", agent):
                liveness.expire(view, agent, now)
            case ("workload", namespace, name):
                view.dirty.add((namespace, name))
            case ("counts", namespace, name):
                view.counts_due.add(key)
                view.dirty.add((namespace, name))
            case ("leaving", device):
                view.leaving.add(device)
            case _:
                # `start`: the liveness step looks by itself.
                pass


def _wake_at(view: FleetView) -> float | None:
    times = [due for due in (view.timers.next(), min(view.stirred.values(), default=None)) if due is not None]
    return min(times) if times else None
