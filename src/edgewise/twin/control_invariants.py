"""Invariants of what the control plane decides and keeps."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import msgspec

from edgewise.controllers.gateway import ReportDecision
from edgewise.controllers.reconcile import Decision
from edgewise.controllers.rows import RolloutRow
from edgewise.delivery.stages import pace_of, stage_at
from edgewise.resources.instance import InstanceSpec
from edgewise.resources.quantity import share_of
from edgewise.resources.states import Connection
from edgewise.store.contract import Put
from edgewise.twin.observers import Observer
from edgewise.wire.desired import DesiredState
from edgewise.wire.report import EventReport, Report

if TYPE_CHECKING:
    from edgewise.twin.world import World

_SPEC: Final = msgspec.msgpack.Decoder(InstanceSpec)


class _Given(msgspec.Struct, frozen=True):
    """An instance that a decision gives a rollout's revision."""

    rollout: RolloutRow
    device: str


def _given(world: "World", decision: Decision) -> Iterable[_Given]:
    """Yield what a decision moves on to the revision of a rollout."""
    view = world.control.view
    for transaction in decision.transactions:
        for write in transaction.writes:
            if not isinstance(write, Put) or write.key.kind != "Instance":
                continue
            spec = _SPEC.decode(write.spec)
            rollout = view.rollouts.get((write.key.namespace, spec.workload), {}).get(spec.rollout)
            members = view.members.get((write.key.namespace, spec.workload))
            before = members.instances.get(spec.device) if members is not None else None
            if rollout is None or before is None or spec.wave == 0 or spec.revision != rollout.spec.to_revision:
                continue
            if before.spec.revision != spec.revision:
                yield _Given(rollout, spec.device)


class BudgetKept(Observer):
    """budget-kept. Counts, from the instances alone, those that refuse the revision."""

    def decided(self, world: "World", decision: Decision) -> None:
        """See `Observer`."""
        for given in _given(world, decision):
            rollout, to = given.rollout, given.rollout.spec.to_revision
            members = world.control.view.members[rollout.key.namespace, rollout.spec.workload]
            touched = [each for each in members.instances.values() if each.running and each.spec.revision == to]
            failed = sum(to in each.seen.refused for each in touched if not 0 < each.seen.observed_epoch < each.spec.epoch)
            budget = float(pace_of(rollout.spec.strategy).failure_budget[:-1])
            if failed * 100 > budget * len(touched):
                told = f"{failed} of {len(touched)} failed, the budget is {budget:g} %"
                world.violated("budget-kept", rollout.key.name, f"{given.device} was given {to}: {told}")


class WavesKept(Observer):
    """waves-kept. A member out of reach makes room for another one."""

    def decided(self, world: "World", decision: Decision) -> None:
        """See `Observer`."""
        given: dict[str, list[_Given]] = {}
        for each in _given(world, decision):
            given.setdefault(f"{each.rollout.key.namespace}/{each.rollout.key.name}", []).append(each)
        for name, fresh in given.items():
            self._look(world, name, fresh)

    def _look(self, world: "World", name: str, fresh: list[_Given]) -> None:
        rollout = fresh[0].rollout
        status, size = rollout.status, stage_at(rollout.spec, rollout.status.wave).size
        if not rollout.spec.from_revision or status.wave >= status.waves or status.wave == 0:
            return
        view = world.control.view
        running = [each for each in view.members[rollout.key.namespace, rollout.spec.workload].instances.values() if each.running]
        carry = [each.spec.device for each in running if each.spec.revision == rollout.spec.to_revision]
        away = sum(view.devices[device].status.connection is not Connection.ONLINE for device in carry if device in view.devices)
        allowed = share_of(size, len(running)) + away
        if len(carry) + len(fresh) > allowed:
            told = f"wave {status.wave} ({size}) allows {allowed} of {len(running)}"
            world.violated("waves-kept", name, f"{len(carry) + len(fresh)} devices carry the new revision: {told}")


class OwnDevices(Observer):
    """own-devices."""

    def reported(self, world: "World", agent: str, report: Report, decision: ReportDecision) -> None:
        """See `Observer`."""
        own = _devices(world, agent)
        named = {item.device for items in report.lanes.values() for item in items.items}
        for device in sorted(named - own):
            world.violated("own-devices", agent, f"a report about {device} was taken")
        for write in decision.transaction.writes:
            key = write.key
            mine = {"Agent": key.name == agent, "Device": key.name in own}.get(key.kind, any(key.name.endswith(f".{name}") for name in own))
            if not mine:
                world.violated("own-devices", agent, f"a report changed {key.kind} {key.name}")
        for event in decision.transaction.events:
            if event.source not in own and event.source != "control":
                world.violated("own-devices", agent, f"a report told an event of {event.source}")

    def told(self, world: "World", agent: str, desired: DesiredState) -> None:
        """See `Observer`."""
        own = _devices(world, agent)
        for document in desired.devices:
            if document.device not in own:
                world.violated("own-devices", agent, f"it was shown what {document.device} is to run")


def _devices(world: "World", agent: str) -> set[str]:
    """Return the devices that an agent speaks for, by their own documents."""
    row = world.control.view.agents.get(agent)
    names = row.spec.devices if row is not None else ()
    view = world.control.view
    return {name for name in names if name in view.devices and view.devices[name].spec.agent == agent}


class AcknowledgedKept(Observer):
    """acknowledged-kept. A backup knows nothing of what was acknowledged after it: then counting begins anew. A numbering that nobody heard
    of yet may have come with the last write of a control plane that died of it."""

    def __init__(self) -> None:
        self._marks: dict[str, tuple[str, dict[str, int]]] = {}
        self._earlier: dict[str, set[str]] = {}
        self._known = True

    def reported(self, world: "World", agent: str, report: Report, decision: ReportDecision) -> None:
        """See `Observer`."""
        if decision.disowned:
            return
        incarnation, marks = self._marks.get(agent, ("", {}))
        if incarnation != report.incarnation:
            self._earlier.setdefault(agent, set()).add(incarnation)
            marks = {}
        fresh = sum(
            isinstance(item, EventReport)
            for lane, items in report.lanes.items()
            for number, item in enumerate(items.items, items.first)
            if number > marks.get(lane, 0)
        )
        told = sum(event.source != "control" for event in decision.transaction.events)
        if told != fresh:
            world.violated("acknowledged-kept", agent, f"{told} events took effect, {fresh} were new")
        for lane, number in decision.answer.marks.items():
            if number < marks.get(lane, 0):
                world.violated("acknowledged-kept", agent, f"{lane}: acknowledged up to {marks[lane]} before, and up to {number} now")
        self._marks[agent] = (report.incarnation, {**marks, **{str(lane): mark for lane, mark in decision.answer.marks.items()}})

    def lived(self, world: "World", what: str) -> None:
        """See `Observer`."""
        if what == "restored":
            self._known = False
            self._earlier.clear()
        if what != "started":
            return
        kept = {agent: (marks.incarnation, dict(marks.numbers)) for agent, marks in world.control.view.marks.items()}
        if self._known:
            for agent, (incarnation, numbers) in self._marks.items():
                there = kept.get(agent, ("", {}))
                if there[0] not in (incarnation, "", *self._earlier.get(agent, ())):
                    continue
                lost = [lane for lane, number in numbers.items() if there[0] != incarnation or there[1].get(lane, 0) < number]
                lost = [lane for lane in lost if numbers[lane]]
                if lost:
                    world.violated("acknowledged-kept", agent, f"{', '.join(lost)}: a start of the control plane has forgotten what it had")
        self._marks, self._known = kept, True
