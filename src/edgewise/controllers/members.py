"""The instances of one workload, with everything that is counted over them kept current per change."""

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import Final, Protocol

from edgewise.controllers.limits import LivenessLimits
from edgewise.controllers.rows import InstanceRow
from edgewise.delivery.rollout import Standing, Tally, standing

_COUNTED: Final = {standing: standing.value.lower() for standing in Standing}

Reach = Callable[[str], tuple[bool, float, str]]
"""Of a device: whether it is online, since when (wall clock), and its site."""


class Hearing(Protocol):
    """Who was heard (the view)."""

    def heard(self, device: str) -> float:
        """Return when a device last sent a request (wall clock), or 0."""
        ...

    def ask(self, device: str) -> None:
        """Ask a device for a sign of life."""
        ...


class Members:
    """Instances by device. `running` counts those wanted; `offline` are the running ones on devices out of reach, `lost` those of them
    that are replaced elsewhere; `sites` counts the running ones by site. `tally` counts them on their way to `to`,
    the revision that the workload's rollout goes to."""

    __slots__ = (
        "_deadline",
        "_due",
        "_epochs",
        "_late",
        "_overdue",
        "_queue",
        "_silent",
        "_site",
        "_standing",
        "instances",
        "lost",
        "offline",
        "ready",
        "running",
        "sites",
        "tally",
        "to",
    )

    def __init__(self) -> None:
        self.instances: dict[str, InstanceRow] = {}
        self.running = 0
        self.ready = 0
        self.offline: set[str] = set()
        self.lost: set[str] = set()
        self.sites: dict[str, int] = {}
        self._epochs: dict[int, int] = {}
        self.to = ""
        self.tally = Tally()
        self._standing: dict[str, Standing] = {}
        self._site: dict[str, str] = {}
        self._overdue: set[str] = set()
        self._late: dict[str, float] = {}
        self._deadline = 0.0
        # Members that are on their way, the one whose time is over first on top: `_due` says which entries still count. Those whose time
        # is over are `_silent` until they had their last word. What is due may have moved on since, never back.
        self._queue: list[tuple[float, str]] = []
        self._due: dict[str, float] = {}
        self._silent: dict[str, None] = {}

    def put(self, row: InstanceRow, reach: Reach) -> InstanceRow | None:
        """Take over a row; return the one that it replaces."""
        device = row.spec.device
        before = self.instances.get(device)
        if before is not None:
            self._count(before, -1)
            if before.spec is not row.spec and before.spec.assigned_at != row.spec.assigned_at:
                self._begin_anew(device)
        self.instances[device] = row
        self._count(row, 1)
        self.look(device, reach)
        return before

    def remove(self, device: str) -> InstanceRow | None:
        """Forget an instance; return it."""
        row = self.instances.pop(device, None)
        if row is not None:
            self._count(row, -1)
            self._stand(device, None)
            self._stay(device, None)
            self.offline.discard(device)
            self.lost.discard(device)
            self._begin_anew(device)
            self._due.pop(device, None)
            self._silent.pop(device, None)
        return row

    def _begin_anew(self, device: str) -> None:
        self._overdue.discard(device)
        self._late.pop(device, None)

    @property
    def highest_epoch(self) -> int:
        """The highest epoch of the instances that there are, 0 without any. One that is gone was reported gone by its device, so that no
        copy of it can come back late."""
        return max(self._epochs, default=0)

    def _count(self, row: InstanceRow, step: int) -> None:
        epoch = row.spec.epoch
        self._epochs[epoch] = self._epochs.get(epoch, 0) + step
        if not self._epochs[epoch]:
            del self._epochs[epoch]
        if row.running:
            self.running += step
            self.ready += step * row.seen.ready
            if self.to and row.spec.hold and row.spec.revision == self.to:
                self.tally.holding += step

    def look(self, device: str, reach: Reach) -> None:
        """Look at one instance again: it or its device changed."""
        row = self.instances.get(device)
        if row is None:
            return
        online, since, site = reach(device)
        self._stay(device, site if row.running else None)
        if online or not row.running:
            self.offline.discard(device)
            self.lost.discard(device)
        else:
            self.offline.add(device)
            # Its time begins anew when it is back.
            self._begin_anew(device)
        self._stand(device, self._stands(row, online=online))
        self._expect(device, row, since)

    def _stay(self, device: str, site: str | None) -> None:
        before = self._site.get(device)
        if before == site:
            return
        if before is not None:
            self.sites[before] -= 1
            del self._site[device]
        if site is not None:
            self.sites[site] = self.sites.get(site, 0) + 1
            self._site[device] = site

    def site_of(self, device: str) -> str | None:
        """Return where a running instance is."""
        return self._site.get(device)

    def _stands(self, row: InstanceRow, *, online: bool) -> Standing | None:
        if not self.to or not row.running:
            return None
        return standing(row.spec, row.seen, self.to, online=online, overdue=row.spec.device in self._overdue)

    def _stand(self, device: str, now: Standing | None) -> None:
        before = self._standing.get(device)
        if before is now:
            return
        if before is not None:
            setattr(self.tally, _COUNTED[before], getattr(self.tally, _COUNTED[before]) - 1)
        if now is None:
            del self._standing[device]
        else:
            self._standing[device] = now
            setattr(self.tally, _COUNTED[now], getattr(self.tally, _COUNTED[now]) + 1)

    def track(self, to: str, deadline: float, reach: Reach) -> None:
        """Count towards another revision from now on (empty: none). `deadline` is what one device has for its update, in seconds."""
        if to == self.to:
            if deadline != self._deadline:
                self._deadline = deadline
                self._expect_all(reach)
            return
        self._deadline = deadline
        self.to = to
        self.tally = Tally()
        self._standing.clear()
        self._overdue.clear()
        self._late.clear()
        for device, row in self.instances.items():
            if row.running and to and row.spec.hold and row.spec.revision == to:
                self.tally.holding += 1
            online, _, _ = reach(device)
            self._stand(device, self._stands(row, online=online))
        self._expect_all(reach)

    def _expect_all(self, reach: Reach) -> None:
        self._queue.clear()
        self._due.clear()
        self._silent.clear()
        for device in self.on(Standing.UPDATING):
            self._expect(device, self.instances[device], reach(device)[1])

    def _expect(self, device: str, row: InstanceRow, since: float) -> None:
        """Note when the time of a member is over, while it is on its way."""
        if not self._waits(device, row):
            self._due.pop(device, None)
            self._silent.pop(device, None)
            return
        due = max(row.spec.assigned_at, since) + self._deadline
        if device not in self._silent and self._due.get(device) != due:
            self._due[device] = due
            heappush(self._queue, (due, device))

    def _waits(self, device: str, row: InstanceRow) -> bool:
        return self._standing.get(device) is Standing.UPDATING and row.seen.committed != self.to

    def expire(self, now: float, reach: Reach, hearing: Hearing, limits: LivenessLimits) -> float | None:
        """Let those that are too long on their way fail; return when to look again, or None. Whoever is silent when its time is over is
        asked for a sign of life first: it may be out of reach, and nobody has noticed yet."""
        if not self.to or self.tally.updating == 0:
            return None
        queue = self._queue
        while queue and (queue[0][0] <= now or self._due.get(queue[0][1]) != queue[0][0]):
            due, device = heappop(queue)
            if self._due.get(device) == due:
                del self._due[device]
                self._silent[device] = None
        earliest = [self._ask(device, now, reach, hearing, limits) for device in list(self._silent)]
        if queue:
            earliest.append(queue[0][0])
        return min(filter(None, earliest), default=None)

    def _ask(self, device: str, now: float, reach: Reach, hearing: Hearing, limits: LivenessLimits) -> float | None:
        """Let a member fail whose time is over and that had its last word; return when to look at it again, if it did not."""
        row = self.instances[device]
        since = reach(device)[1]
        due = max(row.spec.assigned_at, since) + self._deadline
        if due > now:
            del self._silent[device]
            self._expect(device, row, since)
            return None
        due = self._last_word(device, due, now, hearing, limits)
        if due > now:
            return due
        self._overdue.add(device)
        self.look(device, reach)
        return None

    def _last_word(self, device: str, due: float, now: float, hearing: Hearing, limits: LivenessLimits) -> float:
        """Return when a member whose time was over at `due` fails, or when to look at it again."""
        if device not in self._late:
            if hearing.heard(device) < due:
                hearing.ask(device)
                return now + limits.asked_every_seconds
            self._late[device] = now
        return self._late[device] + limits.last_word_seconds

    def on(self, where: Standing) -> Iterator[str]:
        """Yield the devices whose instance stands at `where`."""
        return (device for device, stands in self._standing.items() if stands is where)

    def standing_of(self, device: str) -> Standing | None:
        """Return where a device's instance stands, or None."""
        return self._standing.get(device)
