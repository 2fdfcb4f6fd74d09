"""The instances of one workload, with everything that is counted over them kept current per change."""

from collections.abc import Callable, Iterator
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
        "_epochs",
        "_late",
        "_overdue",
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
        online, _, site = reach(device)
        self._stay(device, site if row.running else None)
        if online or not row.running:
            self.offline.discard(device)
            self.lost.discard(device)
        else:
            self.offline.add(device)
            # Its time begins anew when it is back.
            self._begin_anew(device)
        self._stand(device, self._stands(row, online=online))

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
        self._deadline = deadline
        if to == self.to:
            return
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

    def expire(self, now: float, reach: Reach, hearing: Hearing, limits: LivenessLimits) -> float | None:
        """Let those that are too long on their way fail; return when to look again, or None. Whoever is silent when its time is over is
        asked for a sign of life first: it may be out of reach, and nobody has noticed yet."""
        if not self.to or self.tally.updating == 0:
            return None
        earliest: float | None = None
        for device in list(self.on(Standing.UPDATING)):
            row = self.instances[device]
            if row.seen.committed == self.to:
                continue
            _, since, _ = reach(device)
            due = max(row.spec.assigned_at, since) + self._deadline
            if due <= now:
                due = self._last_word(device, due, now, hearing, limits)
            if due <= now:
                self._overdue.add(device)
                self.look(device, reach)
            elif earliest is None or due < earliest:
                earliest = due
        return earliest

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
