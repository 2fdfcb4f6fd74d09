"""What one decision gathers: writes in bounded transactions, and the room that its own placements take."""

from collections.abc import Sequence

from edgewise.controllers.limits import ControllerLimits
from edgewise.controllers.rows import RiskRow, WorkloadKey
from edgewise.controllers.view import FleetView
from edgewise.delivery.facts import Demand, Room, room_less, room_of
from edgewise.store.contract import EventRow, Transaction, Write


class Work:
    """Gathers groups of writes; a group is written together, groups share transactions of a bounded size, in order."""

    __slots__ = ("_events", "_limits", "_rooms", "_transactions", "_writes", "now", "risk", "view", "written")

    def __init__(self, view: FleetView, now: float) -> None:
        self.view = view
        self.now = now
        self.written = 0
        self.risk: RiskRow | None = None
        """What was learned within this decision, once something was."""
        self._limits: ControllerLimits = view.limits.controllers
        self._transactions: list[Transaction] = []
        self._writes: list[Write] = []
        self._events: list[EventRow] = []
        self._rooms: dict[str, Room] = {}

    @property
    def full(self) -> bool:
        """Whether the rest must wait for the next decision."""
        return self.written >= self._limits.decision_writes_max

    def add(self, writes: Sequence[Write], events: Sequence[EventRow] = (), most: int | None = None) -> None:
        """Gather a group. `most` bounds the transaction that it shares more than the limit does."""
        most = self._limits.transaction_writes_max if most is None else most
        if self._writes and len(self._writes) + len(writes) > most:
            self.cut()
        self._writes.extend(writes)
        self._events.extend(events)
        self.written += len(writes) + len(events)

    def cut(self) -> None:
        """Let what comes next be written separately."""
        if self._writes or self._events:
            self._transactions.append(Transaction(now=self.now, writes=tuple(self._writes), events=tuple(self._events)))
            self._writes, self._events = [], []

    def transactions(self) -> tuple[Transaction, ...]:
        """Return everything gathered."""
        self.cut()
        return tuple(self._transactions)

    # ---- room ----

    def room(self, device: str) -> Room:
        """Return what is free on a device, less what this decision placed there."""
        room = self._rooms.get(device)
        return room if room is not None else self.view.room(device)

    def room_without(self, device: str, workload: WorkloadKey) -> Room:
        """Return what would be free on a device without its instance of `workload`."""
        if device in self._rooms:
            own = self.view.on_device.get(device, {}).get(workload)
            room = self._rooms[device]
            if own is None:
                return room
            for demand in self.view.taken(workload, own):
                room = Room(
                    cpu_milli=room.cpu_milli + demand.cpu_milli,
                    memory=room.memory + demand.memory,
                    disk=room.disk + demand.disk,
                    instances=room.instances - 1,
                    shared=room.shared,
                    owned=room.owned - {peripheral.name for peripheral in demand.peripherals},
                )
            return room
        others = tuple(
            taken for key, row in self.view.on_device.get(device, {}).items() if key != workload for taken in self.view.taken(key, row)
        )
        return room_of(self.view.devices[device].facts.capacity, others)

    def take(self, device: str, demand: Demand, workload: WorkloadKey, *, beside: bool = False) -> None:
        """Note that this decision places an instance of `workload` on a device: in the place of the one that it has, if any, or beside
        that."""
        room = self.room(device) if beside else self.room_without(device, workload)
        self._rooms[device] = room_less(room, demand)
