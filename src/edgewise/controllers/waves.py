"""What a rollout's open wave wants of the instances: who gets the revision next, what those that have it do, who goes back.

All of it is derived each time from the instances themselves, so a decision that was written in part goes on where it was.
"""

from collections import Counter
from collections.abc import Iterator

import msgspec

from edgewise.controllers.documents import put_spec
from edgewise.controllers.members import Members
from edgewise.controllers.placements import request_for
from edgewise.controllers.risk import Risks
from edgewise.controllers.rows import DeviceRow, InstanceRow, RolloutRow, WorkloadRow
from edgewise.controllers.view import FleetView
from edgewise.controllers.work import Work
from edgewise.delivery.placement import Offer, Rejected, Request, fitting, judge
from edgewise.delivery.rollout import Candidate, Standing, choose, wave_need
from edgewise.delivery.stages import ALL, Stage, stage_at
from edgewise.delivery.variants import meets
from edgewise.resources.quantity import share_of
from edgewise.resources.states import AnalysisState
from edgewise.store.contract import Write

BESIDE = "traffic"
"""The capability of an agent that can hold a revision beside the one that serves."""


class Waves:
    """One look at the members of one rollout."""

    __slots__ = ("members", "rollout", "row", "stage", "view", "work", "wrote")

    def __init__(self, view: FleetView, row: WorkloadRow, rollout: RolloutRow, members: Members, work: Work) -> None:
        self.view = view
        self.row = row
        self.rollout = rollout
        self.members = members
        self.work = work
        self.stage: Stage = stage_at(rollout.spec, rollout.status.wave)
        self.wrote = False

    @property
    def need(self) -> int:
        """How many more instances the open wave needs."""
        over = self.rollout.status.analysis is AnalysisState.SUCCESSFUL and not self.stage.commits
        return wave_need(self.stage.size, self.members.tally) if self.rollout.status.wave and not over else 0

    @property
    def _last(self) -> bool:
        return self.rollout.status.wave >= self.rollout.status.waves

    @property
    def _holds(self) -> bool:
        return self.stage.hold and self.rollout.status.analysis is not AnalysisState.SUCCESSFUL

    def _write(self, write: Write) -> None:
        self.wrote = True
        if not self.work.full:
            self.work.add((write,))

    def carried(self, instance: InstanceRow) -> bool:
        """Return whether an instance carries the new revision."""
        return instance.running and instance.spec.revision == self.rollout.spec.to_revision

    # ---- forward ----

    def fill(self) -> None:
        """Give the new revision to as many instances as the open wave still needs."""
        need = self.need
        request = request_for(self.view, self.row, self.rollout.spec.to_revision)
        if need == 0 or request is None or self.row.exhausted:
            return
        self.row.left_out = {}
        offers = self._offers(request)
        # Before the last wave only what can be reached is worth asking.
        asked = offers if self._last else [device for device in offers if device not in self.members.offline]
        risks = Risks(self.view, asked, self.work.now)
        chosen = choose((self._candidate(self.members.instances[device], risks) for device in asked), need, self._classes())
        if not chosen:
            self.row.exhausted = True
            return
        for device in chosen:
            self._give(self.members.instances[device], offers[device])
            risks.given(self.rollout, device)

    def _candidate(self, instance: InstanceRow, risks: Risks) -> Candidate:
        device = instance.spec.device
        return Candidate(
            device=device,
            device_class=self.view.devices[device].facts.device_class,
            online=device not in self.members.offline,
            midway=instance.spec.revision != self.rollout.spec.from_revision,
            risk=risks.of(device),
        )

    def _classes(self) -> Counter[str]:
        devices = self.view.devices
        return Counter(
            devices[device].facts.device_class
            for device, instance in self.members.instances.items()
            if device in devices and self.carried(instance) and instance.spec.traffic == self.stage.traffic
        )

    def _offers(self, request: Request) -> dict[str, Offer]:
        to = self.rollout.spec.to_revision
        offers: dict[str, Offer] = {}
        for device, instance in self.members.instances.items():
            if self._last and len(offers) + self.work.written >= self.view.limits.controllers.decision_writes_max:
                # All of them are next, in whatever order: what does not fit into this decision is looked at in the next one.
                break
            # A device that refuses a revision is not asked again before a person clears that.
            asked = instance.running and instance.spec.revision != to and to not in instance.seen.refused
            known = self.view.devices.get(device)
            if asked and known is not None:
                offer = self._offer(request, known, instance)
                if offer is not None:
                    offers[device] = offer
        return offers

    def _offer(self, request: Request, known: DeviceRow, instance: InstanceRow) -> Offer | None:
        device = instance.spec.device
        if not self.stage.beside:
            return fitting(request, known.facts, self.work.room_without(device, self.row.name))
        why = self._barred(known, instance)
        room = self.work.room(device)
        offer = fitting(request, known.facts, room) if not why else None
        if offer is None and len(self.row.left_out) < self.view.limits.controllers.failures_named_max:
            self.row.left_out[device] = (why or _no_room(judge(request, known.facts, room)))[:300]
        return offer

    def _barred(self, known: DeviceRow, instance: InstanceRow) -> str:
        """Return why a device cannot run both revisions side by side, or nothing."""
        if BESIDE not in known.status.capabilities:
            agent = f"its agent (version {known.status.agent_version})" if known.status.agent_version else "its agent"
            return f"{agent} cannot run two revisions side by side: update it"
        revision = self.view.revisions.get(self.row.name, {}).get(self.rollout.spec.to_revision)
        version = self.view.version_of(self.row.key.namespace, revision) if revision is not None else None
        if version is not None and version.type != "model":
            return f"an artifact of type {version.type} has no requests that two revisions could share"
        if self.stage.paired and instance.seen.committed != self.rollout.spec.from_revision:
            return "it does not run the revision before yet, so there is nothing to compare with"
        return ""

    def _give(self, instance: InstanceRow, offer: Offer) -> None:
        to = self.rollout.spec.to_revision
        spec = msgspec.structs.replace(
            instance.spec,
            revision=to,
            variant=offer.variant,
            hold=self._holds,
            traffic=self.stage.traffic,
            rejected=tuple(revision for revision in instance.spec.rejected if revision != to),
            rollout=self.rollout.key.name,
            wave=self.rollout.status.wave,
            assigned_at=self.work.now,
        )
        self.work.take(offer.device, offer.demand, self.row.name, beside=self.stage.beside)
        self._write(put_spec(instance, spec))

    def adapt(self) -> bool:
        """Let those that an earlier stage held beside the old revision do what the open one wants: as many as it needs, the others go
        back until it is their turn. Those that a superseded rollout left so go back too. Return whether something was written."""
        if self.rollout.status.analysis is AnalysisState.SUCCESSFUL or not self.rollout.spec.from_revision:
            return False
        written = self.work.written
        astray: list[InstanceRow] = []
        for instance in self.members.instances.values():
            if not instance.running or not instance.spec.hold:
                continue
            if not self.carried(instance):
                if instance.spec.traffic is not None:
                    self._withdraw(instance)
            elif instance.spec.traffic != self.stage.traffic:
                astray.append(instance)
        keep = self._kept(astray)
        for instance in astray:
            if instance.spec.device in keep:
                self._follow(instance)
            elif self.rollout.spec.to_revision not in instance.seen.refused or self.stage.size != ALL:
                self._withdraw(instance)
        return self.work.written > written

    def _kept(self, astray: list[InstanceRow]) -> set[str]:
        if self.stage.beside or self.stage.size == ALL:
            return {instance.spec.device for instance in astray if self.rollout.spec.to_revision not in instance.seen.refused}
        tally = self.members.tally
        room = share_of(self.stage.size, tally.total) - (tally.touched - len(astray))
        well = (instance for instance in astray if self.members.standing_of(instance.spec.device) is Standing.HELD)
        risks = Risks(self.view, [instance.spec.device for instance in astray], self.work.now)
        candidates = (self._candidate(instance, risks) for instance in well if instance.spec.device in self.view.devices)
        return set(choose(candidates, max(0, room), self._classes()))

    def _follow(self, instance: InstanceRow) -> None:
        spec, traffic = instance.spec, self.stage.traffic
        if spec.traffic is not None and traffic is not None and spec.traffic.mode == traffic.mode:
            # Only the share changed: nobody has to become ready again.
            self._write(put_spec(instance, msgspec.structs.replace(spec, traffic=traffic)))
            return
        wave, now = self.rollout.status.wave, self.work.now
        self._write(
            put_spec(instance, msgspec.structs.replace(spec, traffic=traffic, hold=self._holds, wave=wave, assigned_at=now)),
        )

    def _withdraw(self, instance: InstanceRow) -> None:
        """Take a revision back that never served, without a word against it."""
        stable = self.rollout.spec.from_revision
        request = request_for(self.view, self.row, stable)
        variant = self._variant_back(instance.spec.device, request, instance.spec.variant)
        spec = msgspec.structs.replace(
            instance.spec, revision=stable, variant=variant, hold=False, traffic=None, wave=0, assigned_at=self.work.now
        )
        self._write(put_spec(instance, spec))

    def release(self) -> None:
        """Let instances commit once their wave was judged."""
        if self.rollout.status.analysis is not AnalysisState.SUCCESSFUL or not self.members.tally.holding or not self.stage.commits:
            return
        for instance in self.members.instances.values():
            if instance.spec.hold and self.carried(instance):
                # From now on it has the time again that one device has, to commit.
                self._write(put_spec(instance, msgspec.structs.replace(instance.spec, hold=False, traffic=None, assigned_at=self.work.now)))

    # ---- back ----

    def send_back(self) -> bool:
        """Take the new revision back from every instance that has it, and the one between from those midway. Return whether something
        is still to be written."""
        to, stable = self.rollout.spec.to_revision, self.rollout.spec.from_revision
        if not stable:
            return self._stop_failed()
        request = request_for(self.view, self.row, stable)
        for device, instance in self.members.instances.items():
            spec = instance.spec
            if not instance.running or (spec.revision == stable and not spec.hold):
                continue
            rejected = (*spec.rejected, to) if spec.revision == to and to not in spec.rejected else spec.rejected
            back = msgspec.structs.replace(
                spec,
                revision=stable,
                variant=self._variant_back(device, request, spec.variant),
                hold=False,
                traffic=None,
                rejected=rejected,
                rollout=self.rollout.key.name,
                wave=0,
                assigned_at=self.work.now,
            )
            self._write(put_spec(instance, back))
        return self.wrote

    def _stop_failed(self) -> bool:
        """Stop a first rollout where it failed, or everywhere when a person aborts it: there is nothing to go back to."""
        to = self.rollout.spec.to_revision
        for instance in self._failed_first():
            spec = instance.spec
            rejected = (*spec.rejected, to) if to not in spec.rejected else spec.rejected
            stopped = msgspec.structs.replace(spec, desired="Stopped", hold=False, traffic=None, rejected=rejected)
            self._write(put_spec(instance, stopped))
        return self.wrote

    def _failed_first(self) -> Iterator[InstanceRow]:
        for instance in self.members.instances.values():
            refused = self.rollout.spec.to_revision in instance.seen.refused
            failed = refused or self.members.standing_of(instance.spec.device) is Standing.FAILED
            if self.carried(instance) and (self.rollout.spec.abort or failed):
                yield instance

    def _variant_back(self, device: str, request: Request | None, current: str) -> str:
        """Return the variant to go back to. What ran before fits, whatever the device has free now."""
        known = self.view.devices.get(device)
        if request is None or known is None:
            return current
        offer = fitting(request, known.facts, self.work.room_without(device, self.row.name))
        if offer is not None:
            return offer.variant
        runs = (variant.name for variant in request.variants if meets(variant.requirements, known.facts.capacity))
        return next(runs, current)


def _no_room(judged: Offer | Rejected) -> str:
    return f"no room for both revisions: {judged.reason}" if isinstance(judged, Rejected) else ""
