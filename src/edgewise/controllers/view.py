"""The control plane's view of the fleet: indexed, changed per document, never loaded for a decision.

The shell makes one `FleetView`, feeds it every document once (`apply` of a `Change` each, then `loaded`), and every change after that.
Changes may come twice and, for different documents, in any order; an older change of a document than the one applied is ignored.
Decisions read the view and what it marked as changed; the view itself decides nothing.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from edgewise.controllers._apply import apply_change
from edgewise.controllers._apply_workloads import track
from edgewise.controllers.limits import Limits
from edgewise.controllers.members import Members
from edgewise.controllers.metrics import WaveMetrics
from edgewise.controllers.patience import deadline
from edgewise.controllers.presence import Presence
from edgewise.controllers.rows import (
    EVIDENCE,
    RISK,
    AgentRow,
    ContentRow,
    DeviceRow,
    EvidenceRow,
    InstanceRow,
    RevisionRow,
    RiskRow,
    RolloutRow,
    Said,
    SecretRow,
    Shared,
    WorkloadKey,
    WorkloadRow,
)
from edgewise.controllers.sessions import Session
from edgewise.controllers.timers import TimerKey, Timers
from edgewise.controllers.tokens import AccessTokenRow, JoinTokenRow
from edgewise.delivery.facts import NOTHING, Demand, Room, VersionFacts, demand_of, room_of
from edgewise.resources.kinds import KINDS
from edgewise.resources.site import SiteSpec
from edgewise.resources.states import Connection
from edgewise.store.contract import Change, Document, Key, Mark
from edgewise.wire.desired import Position

VIEWED: Final = (*(kind.name for kind in KINDS), "JoinToken", "AccessToken", "ConfigSnapshot", "SecretSnapshot", EVIDENCE, RISK)
"""The kinds of documents that a view is filled with at the start."""


class AgentMarks:
    """Up to which number each lane of an agent's latest outbox is kept."""

    __slots__ = ("incarnation", "numbers")

    def __init__(self, incarnation: str) -> None:
        self.incarnation = incarnation
        self.numbers: dict[str, int] = {}


class FleetView:
    """Everything that decisions read. `now` is the latest time that a decision was asked at, `live` whether loading has
    ended."""

    def __init__(self, epoch: int, started_at: float, limits: Limits | None = None) -> None:
        self.epoch = epoch
        self.limits = limits or Limits()
        self.revision = 0
        self.now = started_at
        self.live = False
        self.sites: dict[str, SiteSpec] = {}
        self.devices: dict[str, DeviceRow] = {}
        self.agents: dict[str, AgentRow] = {}
        self.workloads: dict[WorkloadKey, WorkloadRow] = {}
        self.members: dict[WorkloadKey, Members] = {}
        self.revisions: dict[WorkloadKey, dict[str, RevisionRow]] = {}
        self.rollouts: dict[WorkloadKey, dict[str, RolloutRow]] = {}
        self.artifacts: dict[WorkloadKey, dict[str, str]] = {}
        self.versions: dict[WorkloadKey, dict[str, VersionFacts]] = {}
        self.configs: dict[Key, ContentRow] = {}
        self.secrets: dict[Key, SecretRow] = {}
        self.join_tokens: dict[str, JoinTokenRow] = {}
        self.access_tokens: dict[str, AccessTokenRow] = {}
        self.on_device: dict[str, dict[WorkloadKey, InstanceRow]] = {}
        self.marks: dict[str, AgentMarks] = {}
        self.sessions: dict[str, Session] = {}
        self.presence = Presence(started_at)
        self.metrics: dict[str, WaveMetrics] = {}
        self.evidence: dict[WorkloadKey, EvidenceRow] = {}
        self.risk: RiskRow | None = None
        self.said: dict[WorkloadKey, Said] = {}
        self.kept_at: dict[WorkloadKey, float] = {}
        self.timers = Timers()
        self.dirty: set[WorkloadKey] = set()
        self.stirred: dict[WorkloadKey, float] = {}
        self.counts_due: set[TimerKey] = set()
        self.leaving: set[str] = set()
        self.unrendered: set[str] = set()
        self.numbers: dict[str, int] = {}
        self.contents: dict[str, int] = {}
        self.shared = Shared()
        self.removed: dict[Key, int] = {}
        self.shortest_patience: float | None = None
        """How long an agent may be silent at the least (`patience`); None: to be looked for."""
        self._demands: dict[tuple[str, str, str, str], Demand] = {}

    # ---- being kept current ----

    def apply(self, change: Change) -> None:
        """Take over one change of a document."""
        apply_change(self, change)

    def load(self, documents: Iterable[Document]) -> None:
        """Take over documents of a list."""
        for document in documents:
            apply_change(self, Change(revision=document.revision, key=document.key, document=document))

    def loaded(self, revision: int) -> None:
        """End the loading: desired states count from `revision`, and every workload is looked at once."""
        self.live = True
        self.revision = max(self.revision, revision)
        self.dirty.update(self.workloads)
        self.dirty.update(self.members)
        self.unrendered.update(self.devices)

    def apply_mark(self, mark: Mark) -> None:
        """Take over a mark that the store keeps."""
        known = self.marks.get(mark.agent)
        if known is None or known.incarnation != mark.incarnation:
            known = self.marks[mark.agent] = AgentMarks(mark.incarnation)
        known.numbers[mark.lane] = max(mark.number, known.numbers.get(mark.lane, 0))

    def contact(self, agent: str, now: float) -> None:
        """Note that an authenticated request of `agent` came."""
        self.presence.contact(agent, now)
        self._returned(agent)

    def poll_opened(self, agent: str, now: float) -> None:
        """Note that a poll of `agent` waits: until `poll_closed`, the agent counts as heard."""
        self.presence.opened(agent, now)
        self._returned(agent)

    def poll_closed(self, agent: str, now: float) -> None:
        """Note that a poll of `agent` ended, answered or broken. From now on it has a deadline again: who waits for the next one of all
        (`timers.next()`) looks again."""
        presence = self.presence
        presence.closed(agent, now)
        if agent in presence.parked and not presence.polling(agent):
            presence.parked.discard(agent)
            self.timers.at(("agent", agent), deadline(self, agent, now))

    def _returned(self, agent: str) -> None:
        if agent not in self.presence.watched:
            self.presence.returned.add(agent)

    # ---- what decisions read ----

    @property
    def position(self) -> Position:
        """Where the view is."""
        return Position(self.epoch, self.revision)

    def reach(self, device: str) -> tuple[bool, float, str]:
        """Return whether a device is online, since when, and its site. Nothing that a device has a time for counts from before the control
        plane's own start: while that was away it heard of nothing, and after a restored backup it speaks of what was long ago."""
        row = self.devices.get(device)
        if row is None:
            return False, 0.0, ""
        return row.status.connection is Connection.ONLINE, max(row.status.last_seen, self.presence.started_at), row.spec.site

    def heard(self, device: str) -> float:
        """Return when the agent that speaks for a device last sent a request since the control plane's start, or 0."""
        row = self.devices.get(device)
        return self.presence.spoke(row.spec.agent) if row is not None else 0.0

    def ask(self, device: str) -> None:
        """Have the open poll of a device's agent ended: who is there polls again at once, who is not is silent from then on."""
        row = self.devices.get(device)
        if row is not None:
            self.presence.asked.add(row.spec.agent)

    def domain(self, site: str) -> str:
        """Return a site's failover domain."""
        spec = self.sites.get(site)
        return spec.failover_domain or site if spec is not None else site

    def room(self, device: str) -> Room:
        """Return what is free on a device. Raises `KeyError` when there is no such device."""
        row = self.devices[device]
        if row.room is None:
            instances = self.on_device.get(device)
            demands = tuple(taken for key, each in instances.items() for taken in self.taken(key, each)) if instances else ()
            row.room = room_of(row.facts.capacity, demands)
        return row.room

    def demand(self, workload: WorkloadKey, revision: str, variant: str) -> Demand:
        """Return what an instance takes; nothing when its revision is not known."""
        key = (*workload, revision, variant)
        known = self._demands.get(key)
        if known is None:
            row = self.revisions.get(workload, {}).get(revision)
            if row is None:
                return NOTHING
            version = self.version_of(workload[0], row)
            facts = next((facts for facts in version.variants if facts.name == variant), None) if version is not None else None
            known = demand_of(row.template.resources, row.template.peripherals, facts)
            if version is not None:
                self._demands[key] = known
        return known

    def taken(self, workload: WorkloadKey, row: InstanceRow) -> tuple[Demand, ...]:
        """Return what an instance takes of its device, once for each revision that it holds there."""
        spec = row.spec
        own = self.demand(workload, spec.revision, spec.variant)
        beside = spec.hold and spec.traffic is not None and row.seen.committed
        return (own, self.demand(workload, row.seen.committed, spec.variant)) if beside else (own,)

    def version_of(self, namespace: str, revision: RevisionRow) -> VersionFacts | None:
        """Return the artifact version that a revision runs."""
        return self.versions.get((namespace, revision.template.artifact), {}).get(revision.template.version)

    def active_rollout(self, workload: WorkloadKey) -> RolloutRow | None:
        """Return the workload's rollout that is not over."""
        return next((row for row in self.rollouts.get(workload, {}).values() if row.status.finished_at is None), None)

    def members_of(self, workload: WorkloadKey) -> Members:
        """Return the workload's instances; counted towards where its rollout goes."""
        members = self.members.get(workload)
        if members is None:
            members = self.members[workload] = Members()
            rollout = self.active_rollout(workload)
            if rollout is not None:
                track(self, rollout)
        return members

    def agent_of(self, device: str) -> AgentRow | None:
        """Return the agent that speaks for a device."""
        row = self.devices.get(device)
        return self.agents.get(row.spec.agent) if row is not None else None

    def instances_on(self, device: str) -> Iterator[tuple[WorkloadKey, InstanceRow]]:
        """Yield a device's instances in the order of their names."""
        return iter(sorted(self.on_device.get(device, {}).items()))

    # ---- what changed ----

    def mark_workload(self, workload: WorkloadKey, device: str | None = None) -> None:
        """Have a workload looked at: for one device, or as a whole."""
        row = self.workloads.get(workload)
        if row is not None:
            row.exhausted = False
            if device is None:
                row.unplaced, row.short = None, False
            elif row.unplaced is not None:
                row.unplaced.add(device)
        self.dirty.add(workload)

    def mark_device(self, device: str) -> None:
        """Have every workload look at a device again: it changed in a way that placement depends on."""
        for key, row in self.workloads.items():
            row.exhausted = False
            if row.unplaced is not None:
                row.unplaced.add(device)
            self.dirty.add(key)

    def forget_demands(self) -> None:
        """Compute anew what instances take, because revisions or versions changed."""
        self._demands.clear()
