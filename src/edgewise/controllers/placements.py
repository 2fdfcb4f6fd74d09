"""Which devices a workload's instances are on, kept right per changed device.

A workload remembers the devices to look at again (`unplaced`); everything else was judged before and did not change, so the outcome is the
same as if all had been looked at.
"""

from collections import Counter
from collections.abc import Iterable

import msgspec

from edgewise.controllers.documents import create, delete_any, put_spec, uid_of
from edgewise.controllers.members import Members
from edgewise.controllers.rows import InstanceRow, RolloutRow, WorkloadRow
from edgewise.controllers.view import FleetView
from edgewise.controllers.work import Work
from edgewise.delivery.placement import (
    Holder,
    Offer,
    Rejected,
    Request,
    fitting,
    judge,
    load_of,
    must_leave,
    offer_for,
    pick,
    request_of,
    surplus,
)
from edgewise.delivery.stages import stage_at
from edgewise.delivery.variants import ranked
from edgewise.resources.instance import InstanceSpec
from edgewise.resources.quantity import seconds
from edgewise.resources.states import AnalysisState, Connection, InstanceState, RolloutState
from edgewise.resources.workload import Template, WorkloadSpec
from edgewise.store.contract import Key, Write


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What a new instance is given."""

    revision: str
    hold: bool = False
    rollout: str = ""
    wave: int = 0


def assignment(row: WorkloadRow, rollout: RolloutRow | None) -> Assignment | None:
    """Return what a new instance gets now: the revision that is stable, or the new one once its last wave is open. None: there is
    nothing that may run."""
    if rollout is None:
        revision = row.status.stable_revision
        return Assignment(revision=revision) if revision else None
    status = rollout.status
    if status.state in (RolloutState.PROGRESSING, RolloutState.PAUSED) and 0 < status.waves <= status.wave:
        hold = stage_at(rollout.spec, status.wave).hold and status.analysis is not AnalysisState.SUCCESSFUL
        return Assignment(revision=rollout.spec.to_revision, hold=hold, rollout=rollout.key.name, wave=status.wave)
    return Assignment(revision=rollout.spec.from_revision) if rollout.spec.from_revision else None


def request_for(view: FleetView, row: WorkloadRow, revision: str) -> Request | None:
    """Return what a revision of a workload asks of a device; None when the revision or its version is not known."""
    known = row.requests.get(revision)
    if known is None:
        template = view.revisions.get(row.name, {}).get(revision)
        known = template_request(view, row.key.namespace, row.spec, template.template) if template is not None else None
        if known is not None:
            row.requests[revision] = known
    return known


def template_request(view: FleetView, namespace: str, spec: WorkloadSpec, template: Template) -> Request | None:
    """Return what a template asks of a device under a workload's placement; None when its version is not known."""
    version = view.versions.get((namespace, template.artifact), {}).get(template.version)
    if version is None:
        return None
    return request_of(
        spec.placement.selector,
        template.resources,
        template.peripherals,
        ranked(version.variants, spec.placement.prefer),
        connected=spec.placement.replicas is not None,
    )


def place(view: FleetView, row: WorkloadRow, members: Members, rollout: RolloutRow | None, work: Work) -> None:
    """Stop what may not stay, start what is missing."""
    changed = {*view.devices, *members.instances} if row.unplaced is None else row.unplaced
    open_ones = _Placing(view, row, members, work)
    for device in sorted(changed & members.instances.keys()):
        open_ones.check(device)
    given = assignment(row, rollout)
    request = request_for(view, row, given.revision) if given is not None else None
    if given is not None and request is not None:
        if row.spec.placement.replicas is None:
            open_ones.everywhere(changed, request, given)
        else:
            open_ones.replicas(row.spec.placement.replicas, changed, request, given)
        if rollout is None:
            open_ones.catch_up(changed, request, given)
    elif row.spec.placement.replicas is not None:
        open_ones.fewer(row.spec.placement.replicas)
    row.unplaced = open_ones.left


class _Placing:
    """One pass over the changed devices of one workload. `left` are those whose writes are not applied yet."""

    __slots__ = ("left", "members", "row", "stopping", "view", "work")

    def __init__(self, view: FleetView, row: WorkloadRow, members: Members, work: Work) -> None:
        self.view = view
        self.row = row
        self.members = members
        self.work = work
        self.left: set[str] = set()
        self.stopping: set[str] = set()

    def _write(self, device: str, write: Write) -> None:
        self.left.add(device)
        if not self.work.full:
            self.work.add((write,))

    def stop(self, device: str, instance: InstanceRow) -> None:
        """Stop an instance; its document goes when the device says that nothing is left."""
        self.stopping.add(device)
        self._write(device, put_spec(instance, msgspec.structs.replace(instance.spec, desired="Stopped", hold=False, traffic=None)))

    def check(self, device: str) -> None:
        """Stop an instance that may not stay where it is."""
        instance = self.members.instances[device]
        known = self.view.devices.get(device)
        if known is None:
            self.stopping.add(device)
            self._write(device, delete_any(instance.key, instance.uid))
        elif instance.running and must_leave(self.row.spec.placement.selector, known.facts) is not None:
            self.stop(device, instance)

    def everywhere(self, changed: Iterable[str], request: Request, given: Assignment) -> None:
        """Start an instance on each changed device that matches and has none."""
        for device in sorted(changed):
            instance = self.members.instances.get(device)
            if device not in self.view.devices or (instance is not None and instance.running):
                continue
            if self.work.full:
                self.left.add(device)
                continue
            offer = self._offer(device, request)
            if offer is not None:
                self._start(offer, given, instance.spec.epoch + 1 if instance is not None else 1)

    def _offer(self, device: str, request: Request) -> Offer | None:
        facts = self.view.devices[device].facts
        stopped = device in self.members.instances
        room = self.work.room_without(device, self.row.name) if stopped else self.work.room(device)
        return offer_for(request, facts, room)

    def replicas(self, wanted: int, changed: set[str], request: Request, given: Assignment) -> None:
        """Keep `wanted` instances: replace what was lost, stop what is too much."""
        self._lose()
        members = self.members
        need = wanted - (members.running - len(members.lost) - len(self.stopping & (members.instances.keys() - members.lost)))
        if self.row.spec.disconnect.exclusive:
            need -= self._leaving()
        if need <= 0:
            self.row.short = False
            self.fewer(wanted)
            return
        offers = [offer for device in sorted(self._candidates(changed)) if (offer := self._offer(device, request)) is not None]
        picked: list[Offer] = []
        if offers:
            picked = pick(offers, need, place_of=self._place_of, load_of=self._load_of, present=self._present())
        epoch = self._epoch()
        for offer in picked:
            self._start(offer, given, epoch)
        self.row.short = len(picked) < need

    def _present(self) -> dict[tuple[str, str], int]:
        """Return how many instances each (domain, site) has."""
        sites = dict(self.members.sites)
        for device in self.members.lost:
            site = self.members.site_of(device)
            if site is not None:
                sites[site] -= 1
        return {(self.view.domain(site), site): count for site, count in sites.items() if count > 0}

    def _candidates(self, changed: set[str]) -> set[str]:
        """Return the devices that may take a replica: when all the others were asked before in vain, only those that changed."""
        instances = self.members.instances
        asked = changed if self.row.short else self.view.devices.keys()
        free = asked - instances.keys()
        if self.members.running < len(instances):
            free |= {device for device in asked & instances.keys() if instances[device].spec.desired != "Running"}
        return free & self.view.devices.keys()

    def _epoch(self) -> int:
        """Return the epoch of new instances: a higher one when a copy may live on somewhere, because one was lost or is being stopped."""
        members = self.members
        anew = bool(members.lost) or len(members.instances) > members.running or bool(self.stopping)
        return members.highest_epoch + 1 if anew else max(1, members.highest_epoch)

    def _place_of(self, device: str) -> tuple[str, str]:
        site = self.view.devices[device].facts.site
        return self.view.domain(site), site

    def _load_of(self, device: str) -> int:
        return load_of(self.view.devices[device].facts, self.work.room(device))

    def _lose(self) -> None:
        """Give up the instances whose devices have been silent for too long; wait for the others."""
        disconnect = self.row.spec.disconnect
        if not disconnect.replace:
            return
        for device in self.members.offline - self.members.lost:
            due = silent_since(self.view, device) + seconds(disconnect.lost_after)
            if due <= self.work.now:
                self.members.lost.add(device)
            else:
                self.view.timers.sooner(("workload", *self.row.name), due)
        if disconnect.exclusive:
            # The first that such a device is told when it comes back must not be to run its copy again.
            for device in sorted(self.members.lost - self.stopping):
                self.stop(device, self.members.instances[device])

    def _leaving(self) -> int:
        """Return how many copies are to stop and may still run: nothing takes their place before that is over. One that was silent for
        longer than `lostAfter` has stopped by itself."""
        count = len(self.stopping - self.members.lost)
        for device, instance in self.members.instances.items():
            if instance.running or device in self.stopping:
                continue
            due = silent_since(self.view, device) + seconds(self.row.spec.disconnect.lost_after)
            if self.view.reach(device)[0] or due > self.work.now:
                count += 1
                self.view.timers.sooner(("workload", *self.row.name), due)
        return count

    def fewer(self, wanted: int) -> None:
        """Stop what is more than `wanted` among those that can be reached."""
        members = self.members
        if wanted == 0:
            for device, instance in sorted(members.instances.items()):
                if instance.running and device not in self.stopping:
                    self.stop(device, instance)
            return
        if members.running - len(members.offline) <= wanted:
            return
        reachable = [
            instance
            for device, instance in members.instances.items()
            if instance.running and device not in members.offline and device not in self.stopping
        ]
        crowd = Counter(self._place_of(instance.spec.device)[0] for instance in reachable)
        holders = [
            Holder(
                device=instance.spec.device,
                epoch=instance.spec.epoch,
                ready=instance.seen.ready,
                failed=instance.seen.state is InstanceState.BROKEN or instance.spec.revision in instance.seen.refused,
                crowd=crowd[self._place_of(instance.spec.device)[0]],
            )
            for instance in reachable
        ]
        for device in surplus(holders, wanted):
            self.stop(device, members.instances[device])

    def catch_up(self, changed: Iterable[str], request: Request, given: Assignment) -> None:
        """Bring instances that stayed on an older revision, because their device could not take the new one, to it once it can."""
        for device in sorted(changed):
            instance = self.members.instances.get(device)
            if instance is None or not instance.running or instance.spec.revision == given.revision or device in self.stopping:
                continue
            if given.revision in instance.seen.refused:
                continue
            facts = self.view.devices[device].facts
            offer = fitting(request, facts, self.work.room_without(device, self.row.name))
            if offer is not None:
                self._move(instance, offer, given)

    def _start(self, offer: Offer, given: Assignment, epoch: int) -> None:
        instance = self.members.instances.get(offer.device)
        if instance is not None:
            epoch = max(epoch, instance.spec.epoch + 1)
        spec = InstanceSpec(
            workload=self.row.key.name,
            device=offer.device,
            revision=given.revision,
            variant=offer.variant,
            epoch=epoch,
            hold=given.hold,
            rejected=instance.spec.rejected if instance is not None else (),
            rollout=given.rollout,
            wave=given.wave,
            assigned_at=self.work.now,
        )
        self.work.take(offer.device, offer.demand, self.row.name)
        if instance is not None:
            self._write(offer.device, put_spec(instance, spec))
            return
        key = Key("Instance", self.row.key.namespace, f"{self.row.key.name}.{offer.device}")
        self._write(offer.device, create(key, uid_of(key, self.view.epoch, self.view.revision), spec))

    def _move(self, instance: InstanceRow, offer: Offer, given: Assignment) -> None:
        spec = msgspec.structs.replace(
            instance.spec,
            revision=given.revision,
            variant=offer.variant,
            hold=given.hold,
            traffic=None,
            rollout=given.rollout,
            wave=given.wave,
            assigned_at=self.work.now,
        )
        self.work.take(offer.device, offer.demand, self.row.name)
        self._write(offer.device, put_spec(instance, spec))


def silent_since(view: FleetView, device: str) -> float:
    """Return from when a silent device's deadlines count: its last contact, at the earliest the control plane's own start."""
    row = view.devices.get(device)
    if row is None:
        return view.presence.started_at
    seen = row.status.last_seen if row.status.connection is Connection.OFFLINE else 0.0
    return view.presence.last(row.spec.agent, seen)


class Explained(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """How one device stands to a workload: it runs it (`variant` is set), could run it (`variant` is set, `reason` says why it does
    not), or cannot (`reason` says why, in words with numbers)."""

    device: str
    running: bool = False
    variant: str = ""
    reason: str = ""


def explain(view: FleetView, namespace: str, name: str, spec: WorkloadSpec, template: Template) -> tuple[Explained, ...]:
    """Return for each device, by name, what becomes of it under a workload's spec and template. Nothing need be stored of the workload."""
    request = template_request(view, namespace, spec, template)
    if request is None:
        return ()
    members = view.members.get((namespace, name))
    work = Work(view, view.now)
    explained: list[Explained] = []
    for device in sorted(view.devices):
        facts = view.devices[device].facts
        instance = members.instances.get(device) if members is not None else None
        if instance is not None and instance.running:
            stays = must_leave(spec.placement.selector, facts)
            explained.append(Explained(device=device, running=stays is None, variant=instance.spec.variant, reason=stays or ""))
            continue
        match judge(request, facts, work.room_without(device, (namespace, name))):
            case Rejected(reason=reason):
                explained.append(Explained(device=device, reason=reason))
            case Offer(variant=variant):
                reason = "could run it; the replicas are placed elsewhere" if spec.placement.replicas is not None else ""
                explained.append(Explained(device=device, variant=variant, reason=reason))
    return tuple(explained)
