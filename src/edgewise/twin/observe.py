"""What a run is asked about afterwards: the timeline, who ran what, how long workloads were not there, how rollouts went.

Everything is counted as it changes; nothing walks the fleet. What comes before `begin` (the warm-up) is not told.
"""

from typing import Final

import msgspec

from edgewise.controllers.rows import RolloutRow
from edgewise.controllers.view import FleetView
from edgewise.resources.states import Connection, DeviceUpdate, RolloutState
from edgewise.store.contract import Change, Key
from edgewise.twin.kernel import EPOCH, Kernel
from edgewise.twin.result import Counts, Moment, RolloutResult, WorkloadResult

__all__ = ["OVER", "Observations", "ObserveLimits"]


class ObserveLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`moments_max`: lines of the timeline kept; `counts_max`: samples for the picture (then every other one goes, and they come half as
    often); `counts_seconds`: how often at most, at first."""

    moments_max: int = 5_000
    counts_max: int = 600
    counts_seconds: float = 1.0


LIMITS: Final = ObserveLimits()

OVER: Final = frozenset({RolloutState.SUCCEEDED, RolloutState.ROLLED_BACK, RolloutState.ABORTED, RolloutState.SUPERSEDED})
"""States from which a rollout does not go on."""


class _Place:
    """An instance on a device, as users see it. `since`: when `bad` and `wanted` last changed."""

    __slots__ = ("longest", "powered", "ready", "run", "since", "unavailable", "version", "wanted", "wanted_seconds")

    def __init__(self, now: float, *, powered: bool) -> None:
        self.wanted = False
        self.ready = False
        self.powered = powered
        self.version = ""
        self.since = now
        self.unavailable = 0.0
        self.wanted_seconds = 0.0
        self.run = 0.0
        self.longest = 0.0


class _Rollout(msgspec.Struct, kw_only=True):
    name: str
    workload: str
    row: RolloutRow
    state: RolloutState
    wave: int
    rollback_at: float | None = None


class Observations:
    """Gathers. `view` is the control plane's present one."""

    def __init__(self, kernel: Kernel, limits: ObserveLimits = LIMITS) -> None:
        self._kernel = kernel
        self._limits = limits
        self.began_at: float | None = None
        self.timeline: list[Moment] = []
        self.counts: list[Counts] = []
        self.failed: dict[str, None] = {}
        self.rollout_began: list[str] = []
        self._counts_seconds = limits.counts_seconds
        self._places: dict[tuple[str, str], _Place] = {}
        self._of_device: dict[str, list[tuple[str, str]]] = {}
        self._by_key: dict[Key, tuple[str, str]] = {}
        self._off: set[str] = set()
        self._versions: dict[tuple[str, str], int] = {}
        self._updating: set[str] = set()
        self._offline: set[str] = set()
        self._rollouts: dict[tuple[str, int, str], _Rollout] = {}
        self._restarts: dict[str, int] = {}
        self._starts: dict[tuple[str, str], str] = {}

    # ---- the frame ----

    def begin(self) -> None:
        """Count from now on."""
        now = self.began_at = self._kernel.now
        for place in self._places.values():
            place.since = now
            place.unavailable = place.wanted_seconds = place.longest = place.run = 0.0
        self._restarts.clear()
        self.timeline.clear()
        self.counts.clear()
        self.failed.clear()
        for key in [key for key, known in self._rollouts.items() if known.state in OVER]:
            del self._rollouts[key]
        self._sample()

    def _at(self) -> float:
        return round(self._kernel.now - (self.began_at or 0.0), 6)

    def moment(self, kind: str, subject: str, message: str = "", until: float | None = None) -> None:
        """Note something for the timeline."""
        if self.began_at is None or len(self.timeline) >= self._limits.moments_max:
            return
        self.timeline.append(
            msgspec.convert({"at": self._at(), "kind": kind, "subject": subject, "message": message, "until": until}, Moment)
        )

    # ---- devices ----

    def powered(self, device: str, *, on: bool) -> None:
        """Note that a device has power, or has none."""
        if on:
            self._off.discard(device)
        else:
            self._off.add(device)
        for key in self._of_device.get(device, ()):
            place = self._places[key]
            self._settle(place)
            place.powered = on

    def ready(self, device: str, instance: str, version: str, *, ready: bool) -> None:
        """Note that an instance became ready, or is not any more."""
        place = self._place(device, instance)
        if (place.ready, place.version) == (ready, version) or (not ready and place.version != version):
            return
        self._settle(place)
        if place.ready:
            self._count(instance, place.version, -1)
        place.ready, place.version = ready, version
        if ready:
            self._count(instance, version, 1)
        self._sample()

    def started(self, device: str, instance: str, revision: str) -> None:
        """Note that a process was started: a restart, where the one before it was of the same revision."""
        key = (device, instance)
        if self._starts.get(key) == revision:
            self._restarts[instance] = self._restarts.get(instance, 0) + 1
        self._starts[key] = revision

    def failure(self, device: str, instance: str, revision: str) -> None:
        """Note that a revision failed on a device."""
        if self.began_at is not None and device not in self.failed:
            self.failed[device] = None
            self.moment("failure", device, f"{instance} {revision}")

    def _place(self, device: str, instance: str) -> _Place:
        key = (device, instance)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _Place(self._kernel.now, powered=device not in self._off)
            self._of_device.setdefault(device, []).append(key)
        return place

    def _settle(self, place: _Place) -> None:
        now = self._kernel.now
        seconds, place.since = now - place.since, now
        if not place.wanted or not place.powered:
            place.run = 0.0
            return
        place.wanted_seconds += seconds
        if place.ready:
            place.run = 0.0
            return
        place.unavailable += seconds
        place.run += seconds
        place.longest = max(place.longest, place.run)

    def _count(self, instance: str, version: str, step: int) -> None:
        key = (instance, version)
        self._versions[key] = self._versions.get(key, 0) + step

    # ---- the control plane ----

    def wrote(self, view: FleetView, changes: tuple[Change, ...]) -> None:
        """Note what the control plane wrote."""
        for change in changes:
            kind = change.key.kind
            if kind == "Instance":
                if change.spec_changed or change.document is None:
                    self._instance(view, change)
            elif kind == "Device":
                self._device(view, change.key.name)
            elif kind == "Rollout":
                self._rollout(view, change.key)

    def reread(self, view: FleetView) -> None:
        """Take everything from a view that was filled again: a restored backup forgets."""
        wanted: set[tuple[str, str]] = set()
        for device, rows in sorted(view.on_device.items()):
            for (namespace, name), row in sorted(rows.items()):
                key = self._by_key[row.key] = (device, f"{namespace}/{name}")
                if row.running:
                    wanted.add(key)
                    self._want(key, wanted=True)
        for key, place in self._places.items():
            if place.wanted and key not in wanted:
                self._want(key, wanted=False)
        there = {rollout.uid for rollouts in view.rollouts.values() for rollout in rollouts.values()}
        for forgotten in [key for key, known in self._rollouts.items() if known.row.uid not in there and known.state not in OVER]:
            del self._rollouts[forgotten]
        for rollouts in view.rollouts.values():
            for rollout in rollouts.values():
                self._rollout(view, rollout.key)
        self._updating.clear()
        self._offline.clear()
        for device in view.devices:
            self._device(view, device)

    def _instance(self, view: FleetView, change: Change) -> None:
        key = self._by_key.get(change.key)
        if change.document is None:
            if key is not None:
                self._want(key, wanted=False)
            return
        workload, _, device = _named(view, change.key)
        if not device:
            return
        if key is None:
            key = self._by_key[change.key] = (device, f"{change.key.namespace}/{workload}")
        row = view.on_device.get(device, {}).get((change.key.namespace, workload))
        self._want(key, wanted=row is not None and row.running)

    def _want(self, key: tuple[str, str], *, wanted: bool) -> None:
        place = self._place(*key)
        if place.wanted != wanted:
            self._settle(place)
            place.wanted = wanted

    def _device(self, view: FleetView, name: str) -> None:
        row = view.devices.get(name)
        updating = row is not None and row.status.update is DeviceUpdate.UPDATING
        offline = row is not None and row.status.connection is not Connection.ONLINE
        before = len(self._updating), len(self._offline)
        (self._updating.add if updating else self._updating.discard)(name)
        (self._offline.add if offline else self._offline.discard)(name)
        if (len(self._updating), len(self._offline)) != before:
            self._sample()

    def _rollout(self, view: FleetView, key: Key) -> None:
        name_of = key.name.rpartition("-")[0]
        workload = f"{key.namespace}/{name_of}"
        row = next((row for row in view.rollouts.get((key.namespace, name_of), {}).values() if row.key == key), None)
        if row is None:
            return
        status = row.status
        name = (workload, row.number, row.uid)
        known = self._rollouts.get(name)
        subject = f"{key.namespace}/{key.name}"
        if known is None and status.finished_at is not None and status.finished_at - EPOCH < (self.began_at or 0.0):
            return  # over before this run began to count
        if known is None:
            known = self._rollouts[name] = _Rollout(name=key.name, workload=workload, row=row, state=RolloutState.PENDING, wave=0)
            self.rollout_began.append(subject)
            self.moment("rollout", subject, f"to {row.spec.version or row.spec.to_revision}")
        if status.wave != known.wave and status.wave:
            self.moment("wave", subject, f"wave {status.wave} of {status.waves}")
        if status.state is not known.state:
            if status.state in (RolloutState.ROLLING_BACK, RolloutState.ROLLED_BACK) and known.rollback_at is None:
                known.rollback_at = self._kernel.now
                self.moment("rollback", subject, status.message)
            elif status.state is not RolloutState.PROGRESSING or known.state is RolloutState.PAUSED:
                self.moment("rollout", subject, status.state.value if not status.message else f"{status.state.value}: {status.message}")
        for device, reason in sorted(status.failures.items()):
            if self.began_at is not None and device not in self.failed:
                self.failed[device] = None
                self.moment("failure", device, f"{workload}: {reason}")
        known.row, known.state, known.wave = row, status.state, status.wave

    # ---- samples ----

    def _sample(self) -> None:
        """Keep one sample at most every so many seconds: the last one of such a while counts."""
        if self.began_at is None:
            return
        at = self._at()
        counts = Counts(
            at=at,
            versions={f"{name} {version}": count for (name, version), count in sorted(self._versions.items()) if count},
            updating=len(self._updating),
            offline=len(self._offline),
        )
        if len(self.counts) > 1 and at - self.counts[-2].at < self._counts_seconds:
            self.counts[-1] = counts
            return
        self.counts.append(counts)
        if len(self.counts) > self._limits.counts_max:
            self.counts = [*self.counts[::2], counts] if len(self.counts) % 2 == 0 else self.counts[::2]
            self._counts_seconds *= 2

    # ---- results ----

    def rollouts(self) -> tuple[RolloutResult, ...]:
        """Return how rollouts went, in the order of their names."""
        return tuple(self._result(self._rollouts[name]) for name in sorted(self._rollouts))

    def _result(self, known: _Rollout) -> RolloutResult:
        base = self.began_at or 0.0
        status, spec = known.row.status, known.row.spec
        members = status.members
        total = members.pending + members.updating + members.succeeded + members.failed + members.unreached
        return RolloutResult(
            name=known.name,
            workload=known.workload,
            version=spec.version,
            state=status.state.value,
            started_at=round((status.started_at or known.row.created_at) - EPOCH - base, 6),
            ended_at=None if status.finished_at is None else round(status.finished_at - EPOCH - base, 6),
            rollback_at=None if known.rollback_at is None else round(known.rollback_at - base, 6),
            members=total,
            touched=status.touched,
            failed=members.failed,
            unreached=members.unreached,
            message=status.message,
            failures={name: status.failures[name] for name in sorted(status.failures)},
        )

    def workloads(self) -> tuple[WorkloadResult, ...]:
        """Return what users of each workload noticed."""
        sums: dict[str, list[float]] = {}
        for (_, instance), place in sorted(self._places.items()):
            self._settle(place)
            total = sums.setdefault(instance, [0.0, 0.0, 0.0])
            total[0] += place.unavailable
            total[1] += place.wanted_seconds
            total[2] = max(total[2], place.longest)
        return tuple(
            WorkloadResult(
                workload=name,
                unavailable_seconds=round(unavailable, 6),
                wanted_seconds=round(wanted, 6),
                unavailable_minutes_max=round(longest / 60.0, 6),
                restarts=self._restarts.get(name, 0),
            )
            for name, (unavailable, wanted, longest) in sorted(sums.items())
            if wanted or unavailable
        )


def _named(view: FleetView, key: Key) -> tuple[str, str, str]:
    """Split an Instance's name into workload and device: both may hold dots."""
    parts = key.name.split(".")
    for cut in range(1, len(parts)):
        workload, device = ".".join(parts[:cut]), ".".join(parts[cut:])
        row = view.on_device.get(device, {}).get((key.namespace, workload))
        if row is not None and row.key == key:
            return workload, ".", device
    return "", "", ""
