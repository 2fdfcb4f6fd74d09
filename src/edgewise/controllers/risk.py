"""The risk of giving devices a revision, from what the view knows of them; and what the end of a rollout teaches.

What was predicted is kept in memory until the rollout ends: after a restart of the control plane nothing is learned from those that were
given the revision before it, because what is known of a device now may be what the update did to it. Nor does a superseded rollout teach
anything, or a workload's first one, which places instances and updates none. What is learned is one document for the whole fleet, written
in the transaction that ends the rollout.
"""

from collections.abc import Collection, Iterator
from typing import Final

import msgspec

from edgewise.controllers.documents import create, put_spec, uid_of
from edgewise.controllers.members import Members
from edgewise.controllers.rows import RISK, DeviceRow, RiskRow, RolloutRow, Said, WorkloadKey
from edgewise.controllers.view import FleetView
from edgewise.controllers.work import Work
from edgewise.delivery.risk import (
    NAMES,
    Features,
    Outcome,
    RiskModel,
    calibration,
    history_of,
    learned,
    packed,
    predict,
    probability,
    saturating,
    short,
    source_of,
    tells,
    unpacked,
    vector,
    weights_of,
)
from edgewise.resources.rollout import RolloutRisk
from edgewise.resources.states import Connection, Health
from edgewise.resources.version import version_key
from edgewise.store.contract import Key, Write

RISK_KEY: Final = Key(RISK, "", "fleet")
_DAY: Final = 86_400.0
_HEALTH: Final = {Health.DEGRADED: 0.5, Health.ERROR: 1.0}
_ENDED: Final = {"Succeeded": False, "Held": False, "Failed": True}
"""Of where a member stands: whether its update failed. Everything else is still on its way, or nobody can tell."""


class Risks:
    """What is predicted of some devices now."""

    __slots__ = ("_known", "_model", "_now", "_outdated", "_view", "_weights")

    def __init__(self, view: FleetView, devices: Collection[str], now: float) -> None:
        self._view = view
        self._now = now
        self._model = model_of(view)
        self._weights = weights_of(self._model)
        self._known: dict[str, tuple[tuple[float, ...], float]] = {}
        versions = {row.status.agent_version for name in devices if (row := view.devices.get(name)) is not None}
        newest = max(map(version_key, versions), default=())
        self._outdated = {version for version in versions if version and version_key(version) < newest}

    def of(self, device: str) -> float:
        """Return how likely an update fails on a device; 0 for one that is not known."""
        row = self._view.devices.get(device)
        return self._look(row)[1] if row is not None else 0.0

    def given(self, rollout: RolloutRow, device: str) -> None:
        """Remember what was predicted of a device as it was given a rollout's revision."""
        row = self._view.devices.get(device)
        said = said_of(self._view, rollout)
        if row is not None and len(said) < self._view.limits.controllers.predictions_max:
            said[device] = packed(*self._look(row))

    def _look(self, row: DeviceRow) -> tuple[tuple[float, ...], float]:
        known = self._known.get(row.facts.name)
        if known is None:
            numbers = vector(self._features(row))
            known = self._known[row.facts.name] = (numbers, probability(numbers, self._weights))
        return known

    def _features(self, row: DeviceRow) -> Features:
        status, capacity = row.status, row.facts.capacity
        room, link = self._view.room(row.facts.name), self._view.sites.get(row.facts.site)
        past = status.history
        known_for = max(0.0, self._now - past.since) if past.since else 0.0
        device, of_class, of_site, new = history_of(self._model, row.facts.name, row.facts.device_class, row.facts.site, self._now)
        online = status.connection is Connection.ONLINE
        return Features(
            device_failures=device,
            class_failures=of_class,
            site_failures=of_site,
            disk_short=short(room.disk, capacity.disk),
            memory_short=short(room.memory, capacity.memory),
            unhealthy=_HEALTH.get(status.health, 0.0),
            offline_share=past.offline_seconds / known_for if known_for else 0.0,
            # Of the first day nothing is said by the day.
            unsteady=saturating((past.outages + past.restarts) * _DAY / max(known_for, _DAY)),
            silent=0.0 if online or not status.last_seen else saturating((self._now - status.last_seen) / _DAY),
            metered=1.0 if link is not None and link.link.metered else 0.0,
            agent_behind=1.0 if status.agent_version in self._outdated else 0.0,
            class_new=new,
        )


def model_of(view: FleetView) -> RiskModel:
    """Return what was learned so far."""
    return view.risk.model if view.risk is not None else RiskModel()


def said_of(view: FleetView, rollout: RolloutRow) -> dict[str, bytes]:
    """Return what was predicted of a rollout's members, by device."""
    workload: WorkloadKey = (rollout.key.namespace, rollout.spec.workload)
    said = view.said.get(workload)
    if said is None or said.rollout != rollout.key.name:
        said = view.said[workload] = Said(rollout=rollout.key.name)
    return said.devices


def risk_of(view: FleetView, rollout: RolloutRow, members: Members) -> RolloutRisk | None:
    """Return what was predicted of a rollout and what came of it so far."""
    said = said_of(view, rollout)
    if not said:
        return rollout.status.risk
    return _risk(view, rollout, members, model_of(view))


def ended(view: FleetView, rollout: RolloutRow, members: Members, work: Work) -> tuple[RolloutRisk | None, tuple[Write, ...]]:
    """Return what a rollout that ends now says of the predictions, and the write that remembers what it taught."""
    if not said_of(view, rollout):
        return rollout.status.risk, ()
    known = work.risk or view.risk
    model = known.model if known is not None else RiskModel()
    outcomes = list(_outcomes(view, rollout, members))
    after = learned(model, outcomes, work.now)
    risk = msgspec.structs.replace(_risk(view, rollout, members, after), taught=tells(outcomes))
    if after == model:
        return risk, ()
    write: Write
    if known is None:
        uid, generation = uid_of(RISK_KEY, view.epoch, view.revision), 1
        write = create(RISK_KEY, uid, after)
    else:
        uid, generation = known.uid, known.generation + 1
        write = put_spec(known, after)
    # Another rollout that ends in this very decision goes on from here.
    work.risk = RiskRow(key=RISK_KEY, uid=uid, generation=generation, model=after)
    return risk, (write,)


def _outcomes(view: FleetView, rollout: RolloutRow, members: Members) -> Iterator[Outcome]:
    to = rollout.spec.to_revision
    for device, kept in said_of(view, rollout).items():
        instance, row, stands = members.instances.get(device), view.devices.get(device), members.standing_of(device)
        if instance is None or row is None or stands is None or stands.value not in _ENDED or instance.spec.revision != to:
            continue
        numbers, said = unpacked(kept)
        yield Outcome(
            device=device,
            device_class=row.facts.device_class,
            site=row.facts.site,
            features=numbers,
            probability=said,
            failed=_ENDED[stands.value],
        )


def _risk(view: FleetView, rollout: RolloutRow, members: Members, model: RiskModel) -> RolloutRisk:
    outcomes = list(_outcomes(view, rollout, members))
    scores = calibration(model)
    return RolloutRisk(
        source=source_of(model_of(view)),
        ended=len(outcomes),
        predicted=round(sum(each.probability for each in outcomes), 3),
        failed=sum(each.failed for each in outcomes),
        riskiest=_riskiest(view, rollout),
        scored=scores.predictions,
        brier=round(scores.brier, 4),
        base=round(scores.base, 4),
        error=round(scores.error, 4),
    )


def _riskiest(view: FleetView, rollout: RolloutRow) -> tuple[str, ...]:
    """Return the members most at risk, with what spoke against them."""
    said = ((unpacked(kept), device) for device, kept in said_of(view, rollout).items())
    first = sorted((-chance, device, numbers) for (numbers, chance), device in said)[: view.limits.controllers.riskiest_named_max]
    model = model_of(view)
    words: list[str] = []
    for chance, device, numbers in first:
        reasons = predict(Features(**dict(zip(NAMES, numbers, strict=True))), model).reasons
        words.append(f"{device} ({-chance:.0%}): {'; '.join(reasons) or 'nothing speaks against it'}"[:300])
    return tuple(words)
