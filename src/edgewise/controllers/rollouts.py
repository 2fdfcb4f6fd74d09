"""How a workload's rollout goes on: members are filled into the open wave, judged, released, or sent back.

What a rollout wants of its instances is derived each time from the instances themselves, so a decision that was written in part goes on
where it was. The steps themselves are the table in `delivery/rollout.py`.
"""

from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import Final

import msgspec

from edgewise.controllers.documents import event, put_labelled, put_spec, put_status
from edgewise.controllers.members import Members
from edgewise.controllers.placements import is_judged, request_for, silent_since
from edgewise.controllers.rows import InstanceRow, RolloutRow, WorkloadRow
from edgewise.controllers.view import FleetView
from edgewise.controllers.work import Work
from edgewise.delivery.analysis import gives_up_at, judge, overall
from edgewise.delivery.placement import Offer, Request, fitting
from edgewise.delivery.rollout import (
    TABLE,
    Candidate,
    Effect,
    Facts,
    Signal,
    Standing,
    Tally,
    bad_news,
    choose,
    nothing_known,
    signal_of,
    wave_count,
    wave_need,
)
from edgewise.delivery.variants import meets
from edgewise.resources.quantity import fraction, seconds
from edgewise.resources.rollout import MemberCounts, MetricVerdict, RolloutStatus
from edgewise.resources.states import AnalysisState, RolloutState
from edgewise.store.contract import EventRow, Write

_WARNINGS: Final = frozenset({Signal.ABORT, Signal.OVER_BUDGET, Signal.ANALYSIS_FAILED, Signal.INCONCLUSIVE, Signal.OUT_OF_REACH})
_FINAL: Final = frozenset({RolloutState.SUCCEEDED, RolloutState.ROLLED_BACK, RolloutState.ABORTED, RolloutState.SUPERSEDED})


def step(view: FleetView, row: WorkloadRow, rollout: RolloutRow, members: Members, work: Work) -> None:
    """Gather what the rollout of a workload wants now."""
    moving = _Moving(view, row, rollout, members, work)
    earliest = members.expire(work.now, view.reach, view, view.limits.liveness)
    back = True
    match rollout.status.state:
        case RolloutState.ROLLING_BACK:
            back = not moving.send_back() and (members.tally.updating == 0 or not rollout.spec.from_revision)
        case RolloutState.PROGRESSING | RolloutState.PAUSED if not rollout.spec.paused:
            # What failed comes first: nobody else is given a revision that is about to be taken back.
            if bad_news(moving.facts(back=True)) is None:
                moving.release()
                moving.fill()
        case _:
            if bad_news(moving.facts(back=True)) is None:
                moving.release()
    if moving.wrote:
        # What it says of the members is only true once this is applied.
        return
    facts = moving.facts(back=back)
    signal = signal_of(facts)
    transition = TABLE.get((rollout.status.state, signal)) if signal is not None else None
    if signal is not None and transition is not None:
        moving.change(signal, *transition)
        return
    moving.note(facts)
    _wake(view, rollout, earliest, moving.silent_at())


def _wake(view: FleetView, rollout: RolloutRow, earliest: float | None, silent_at: float | None) -> None:
    """Look again when something comes due by itself."""
    status, canary = rollout.status, rollout.spec.strategy.canary
    due = [] if earliest is None else [earliest]
    if silent_at is not None:
        due.append(silent_at)
    if status.state is RolloutState.PROGRESSING and status.healthy_since is not None and status.analysis is not AnalysisState.SUCCESSFUL:
        due.append(status.healthy_since + seconds(canary.observe_for))
        if is_judged(rollout):
            due.append(gives_up_at(rollout.spec.strategy.analysis, status.healthy_since))
    ahead = [at for at in due if at > view.now]
    if ahead:
        view.timers.sooner(("workload", rollout.key.namespace, rollout.spec.workload), min(ahead))


class _Moving:
    """One look at one rollout."""

    __slots__ = ("members", "rollout", "row", "verdicts", "view", "work", "wrote")

    def __init__(self, view: FleetView, row: WorkloadRow, rollout: RolloutRow, members: Members, work: Work) -> None:
        self.view = view
        self.row = row
        self.rollout = rollout
        self.members = members
        self.work = work
        self.wrote = False
        self.verdicts: tuple[MetricVerdict, ...] = rollout.status.verdicts

    # ---- members ----

    def fill(self) -> None:
        """Give the new revision to as many instances as the open wave still needs."""
        status, tally = self.rollout.status, self.members.tally
        need = wave_need(self.rollout.spec.strategy.canary, status.wave, status.waves, tally)
        request = request_for(self.view, self.row, self.rollout.spec.to_revision)
        if need == 0 or request is None or self.row.exhausted:
            return
        offers = self._offers(request)
        classes = Counter(
            self.view.devices[device].facts.device_class
            for device, instance in self.members.instances.items()
            if instance.running and instance.spec.revision == self.rollout.spec.to_revision and device in self.view.devices
        )
        candidates = [
            Candidate(
                device=device,
                device_class=self.view.devices[device].facts.device_class,
                online=device not in self.members.offline,
                midway=self.members.instances[device].spec.revision != self.rollout.spec.from_revision,
            )
            for device in offers
        ]
        if status.wave < status.waves:
            # Before the last wave only what can be reached is worth asking.
            candidates = [candidate for candidate in candidates if candidate.online]
        chosen = choose(candidates, need, classes)
        if not chosen:
            self.row.exhausted = True
            return
        hold = is_judged(self.rollout) and status.analysis is not AnalysisState.SUCCESSFUL
        for device in chosen:
            self._give(self.members.instances[device], offers[device], hold=hold)

    def _offers(self, request: Request) -> dict[str, Offer]:
        to = self.rollout.spec.to_revision
        offers: dict[str, Offer] = {}
        last = self.rollout.status.wave >= self.rollout.status.waves
        for device, instance in self.members.instances.items():
            if last and len(offers) + self.work.written >= self.view.limits.controllers.decision_writes_max:
                # All of them are next, in whatever order: what does not fit into this decision is looked at in the next one.
                break
            # A device that refuses a revision is not asked again before a person clears that.
            asked = instance.running and instance.spec.revision != to and to not in instance.seen.refused
            if asked and device in self.view.devices:
                facts = self.view.devices[device].facts
                offer = fitting(request, facts, self.work.room_without(device, self.row.name))
                if offer is not None:
                    offers[device] = offer
        return offers

    def _give(self, instance: InstanceRow, offer: Offer, *, hold: bool) -> None:
        to = self.rollout.spec.to_revision
        spec = msgspec.structs.replace(
            instance.spec,
            revision=to,
            variant=offer.variant,
            hold=hold,
            rejected=tuple(revision for revision in instance.spec.rejected if revision != to),
            rollout=self.rollout.key.name,
            wave=self.rollout.status.wave,
            assigned_at=self.work.now,
        )
        self.work.take(offer.device, offer.demand, self.row.name)
        self._write(put_spec(instance, spec))

    def _write(self, write: Write) -> None:
        self.wrote = True
        if not self.work.full:
            self.work.add((write,))

    def release(self) -> None:
        """Let instances commit once their wave was judged."""
        if self.rollout.status.analysis is not AnalysisState.SUCCESSFUL or not self.members.tally.holding:
            return
        for instance in self.members.instances.values():
            if instance.running and instance.spec.hold and instance.spec.revision == self.rollout.spec.to_revision:
                # From now on it has the time again that one device has, to commit.
                self._write(put_spec(instance, msgspec.structs.replace(instance.spec, hold=False, assigned_at=self.work.now)))

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
        for instance in self.members.instances.values():
            spec, seen = instance.spec, instance.seen
            failed = to in seen.refused or self.members.standing_of(spec.device) is Standing.FAILED
            if instance.running and spec.revision == to and (self.rollout.spec.abort or failed):
                rejected = (*spec.rejected, to) if to not in spec.rejected else spec.rejected
                self._write(put_spec(instance, msgspec.structs.replace(spec, desired="Stopped", hold=False, rejected=rejected)))
        return self.wrote

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

    # ---- steps ----

    def facts(self, *, back: bool) -> Facts:
        """Return what the next step depends on."""
        status, tally = self.rollout.status, self.members.tally
        verdict = AnalysisState.SUCCESSFUL
        if is_judged(self.rollout) and status.analysis is not AnalysisState.SUCCESSFUL and status.wave > 0:
            wave = self.view.metrics.get(f"{self.row.key.namespace}/{self.row.key.name}")
            analysis = self.rollout.spec.strategy.analysis
            error_rate = fraction(self.rollout.spec.strategy.error_rate)
            self.verdicts = judge(analysis, wave.of() if wave is not None else {}, error_rate, status.healthy_since, self.work.now)
            verdict = overall(self.verdicts)
        need = wave_need(self.rollout.spec.strategy.canary, status.wave, status.waves, tally) if status.wave else 0
        silent_at = self.silent_at()
        return Facts(
            spec=self.rollout.spec,
            status=status,
            tally=tally,
            now=self.work.now,
            filled=need == 0 or self.row.exhausted,
            verdict=verdict,
            back=back,
            silent=silent_at is not None and self.work.now >= silent_at,
            word=status.observed_generation != self.rollout.generation,
        )

    def silent_at(self) -> float | None:
        """Return when nobody will have been able to tell for as long as one device may take how the revision does; None: somebody can."""
        status, touched = self.rollout.status, self.members.tally.touched
        if status.wave == 0 or not nothing_known(self.members.tally):
            return None
        since = [status.wave_started_at]
        if touched:
            since += [silent_since(self.view, device) for device, instance in self.members.instances.items() if self._touched(instance)]
        return max(since) + seconds(self.rollout.spec.strategy.canary.device_deadline)

    def change(self, signal: Signal, state: RolloutState, effect: Effect) -> None:
        """Gather one transition: the rollout, and what of the workload changes with it, in one transaction."""
        now = self.work.now
        status = self._counted(frozen=self.rollout.status.state is RolloutState.ROLLING_BACK)
        status = msgspec.structs.replace(
            status,
            state=state,
            observed_generation=self.rollout.generation,
            finished_at=now if state in _FINAL else None,
            message=self._message(signal),
        )
        status = _EFFECTS[effect](self, status, signal)
        writes: list[Write] = [put_status(self.rollout, status)]
        if effect is Effect.HOLD:
            writes.append(put_labelled(self.rollout, msgspec.structs.replace(self.rollout.spec, paused=True)))
        workload = self._workload(effect)
        if workload is not None:
            writes.append(workload)
        self.wrote = True
        self.work.add(writes, self._events(signal, state, status))

    def note(self, facts: Facts) -> None:
        """Keep what the status counts current, not more often than the limit says."""
        if self.rollout.status.state is RolloutState.ROLLING_BACK:
            return
        status = self._counted(frozen=False)
        if facts.verdict is AnalysisState.RUNNING and status.analysis is AnalysisState.PENDING:
            status = msgspec.structs.replace(status, analysis=AnalysisState.RUNNING)
        if status != self.rollout.status and due(self.view, self.row):
            self.wrote = True
            self.work.add((put_status(self.rollout, status),))

    def _counted(self, *, frozen: bool) -> RolloutStatus:
        status, tally, limits = self.rollout.status, self.members.tally, self.view.limits.controllers
        if frozen or status.wave == 0:
            return status
        named = status.touched_devices
        if len(named) < min(limits.touched_devices_named_max, tally.touched):
            carried = (device for device, instance in sorted(self.members.instances.items()) if self._touched(instance))
            fresh = (device for device in carried if device not in named)
            named = (*named, *islice(fresh, limits.touched_devices_named_max - len(named)))
        return msgspec.structs.replace(
            status,
            members=_member_counts(tally),
            touched=max(status.touched, tally.touched, len(named)),
            touched_devices=named,
            failures=self._failures() if tally.failed else status.failures,
            verdicts=self.verdicts,
        )

    def _touched(self, instance: InstanceRow) -> bool:
        return instance.running and instance.spec.revision == self.rollout.spec.to_revision

    def _failures(self) -> dict[str, str]:
        failures = dict(self.rollout.status.failures)
        room = self.view.limits.controllers.failures_named_max - len(failures)
        failed = (device for device in self.members.on(Standing.FAILED) if device not in failures)
        for device in sorted(islice(failed, max(0, room))):
            seen = self.members.instances[device].seen
            deadline = self.rollout.spec.strategy.canary.device_deadline
            reason, message = seen.reason or f"not healthy within {deadline}", seen.message or self._trouble(device)
            failures[device] = f"{reason}: {message}"[:300] if message else reason
        return failures

    def _trouble(self, device: str) -> str:
        """Return what keeps a device from taking anything over. Then its instances say nothing of what they were last given."""
        known = self.view.devices.get(device)
        conditions = known.status.conditions if known is not None else ()
        return next((f"{each.reason}: {each.message}" for each in conditions if each.type == "StorageFailed" and each.status == "True"), "")

    def _workload(self, effect: Effect) -> Write | None:
        """Return what a step changes of the workload's status, or None."""
        known, to = self.row.status, self.rollout.spec.to_revision
        if effect is Effect.FINISH:
            status = msgspec.structs.replace(known, stable_revision=to)
        elif effect is Effect.SEND_BACK and to not in known.rejected and to != self.rollout.spec.from_revision:
            kept = self.view.limits.controllers.rejected_kept
            status = msgspec.structs.replace(known, rejected=(*known.rejected, to)[-kept:])
        else:
            return None
        return put_status(self.row, status) if status != known else None

    def _message(self, signal: Signal) -> str:
        tally, status = self.members.tally, self.rollout.status
        match signal:
            case Signal.OVER_BUDGET:
                budget = self.rollout.spec.strategy.canary.failure_budget
                text = f"{tally.failed} of {tally.touched} devices failed, more than {budget}"
            case Signal.ANALYSIS_FAILED:
                text = self._judgement(AnalysisState.FAILED)
            case Signal.INCONCLUSIVE:
                text = f"no verdict ({self._judgement(AnalysisState.INCONCLUSIVE)}): resume to observe again, promote to go on, or abort"
            case Signal.OUT_OF_REACH if tally.touched:
                text = f"no device that has this revision can be reached ({tally.unreached}): it goes on when one can; or abort it"
            case Signal.OUT_OF_REACH:
                text = "no device that can be reached can take this revision: it goes on when one can; or abort it"
            case Signal.ABORT:
                text = "aborted by a person"
            case Signal.ALL_DONE:
                text = f"{tally.pending} devices cannot take this revision and stay on the one before" if tally.pending else ""
            case Signal.BACK | Signal.BACK_ABORTED:
                text = status.message
            case _:
                text = ""
        return text

    def _judgement(self, state: AnalysisState) -> str:
        return "; ".join(f"{verdict.metric}: {verdict.message}" for verdict in self.verdicts if verdict.state is state)

    def _events(self, signal: Signal, state: RolloutState, status: RolloutStatus) -> tuple[EventRow, ...]:
        opened = status.wave != self.rollout.status.wave
        if state is self.rollout.status.state and not opened and signal is not Signal.PROMOTE:
            return ()
        reason = "RolloutWave" if opened else f"Rollout{state.value}"
        text = f"wave {status.wave} of {status.waves}" if opened else state.value
        spec = self.rollout.spec
        message = f"{self.rollout.key.name} to version {spec.version or spec.to_revision}: {text}"
        if status.message:
            message = f"{message}: {status.message}"
        warning = signal in _WARNINGS or state is RolloutState.ROLLED_BACK
        return (event(self.work.now, reason, message[:1000], self.rollout.key, warning=warning),)


def due(view: FleetView, row: WorkloadRow) -> bool:
    """Return whether statuses that only count may be written now; if not, the workload is looked at again when they may."""
    key = ("counts", *row.name)
    if key in view.counts_due:
        return True
    view.timers.sooner(key, view.now + view.limits.controllers.counts_interval_seconds)
    return False


def _member_counts(tally: Tally) -> MemberCounts:
    return MemberCounts(
        pending=tally.pending,
        updating=tally.updating + tally.held + tally.unready,
        succeeded=tally.succeeded,
        failed=tally.failed,
        unreached=tally.unreached,
    )


def _open_wave(moving: _Moving, status: RolloutStatus, signal: Signal) -> RolloutStatus:
    del signal
    spec, now = moving.rollout.spec, moving.work.now
    return msgspec.structs.replace(
        status,
        wave=status.wave + 1,
        waves=wave_count(spec.strategy.canary, first=not spec.from_revision),
        wave_started_at=now,
        healthy_since=None,
        analysis=AnalysisState.PENDING,
        verdicts=(),
        started_at=status.started_at or now,
    )


def _observe(moving: _Moving, status: RolloutStatus, signal: Signal) -> RolloutStatus:
    del signal
    running = AnalysisState.RUNNING if is_judged(moving.rollout) else AnalysisState.PENDING
    return msgspec.structs.replace(status, healthy_since=moving.work.now, analysis=running)


def _wait(moving: _Moving, status: RolloutStatus, signal: Signal) -> RolloutStatus:
    del moving, signal
    analysis = status.analysis if status.analysis is AnalysisState.SUCCESSFUL else AnalysisState.PENDING
    return msgspec.structs.replace(status, healthy_since=None, analysis=analysis)


def _release(moving: _Moving, status: RolloutStatus, signal: Signal) -> RolloutStatus:
    promoted = status.promoted + 1 if signal is Signal.PROMOTE else status.promoted
    since = status.healthy_since if status.healthy_since is not None else moving.work.now
    return msgspec.structs.replace(status, analysis=AnalysisState.SUCCESSFUL, promoted=promoted, healthy_since=since)


def _send_back(moving: _Moving, status: RolloutStatus, signal: Signal) -> RolloutStatus:
    del moving
    failed = signal is Signal.ANALYSIS_FAILED
    return msgspec.structs.replace(status, analysis=AnalysisState.FAILED if failed else status.analysis)


def _hold(moving: _Moving, status: RolloutStatus, signal: Signal) -> RolloutStatus:
    del moving, signal
    return msgspec.structs.replace(status, analysis=AnalysisState.INCONCLUSIVE)


def _as_is(moving: _Moving, status: RolloutStatus, signal: Signal) -> RolloutStatus:
    del moving, signal
    return status


_EFFECTS: Final[dict[Effect, Callable[[_Moving, RolloutStatus, Signal], RolloutStatus]]] = {
    Effect.NONE: _as_is,
    Effect.OPEN_WAVE: _open_wave,
    Effect.OBSERVE: _observe,
    Effect.WAIT: _wait,
    Effect.RELEASE: _release,
    Effect.SEND_BACK: _send_back,
    Effect.FINISH: _as_is,
    Effect.HOLD: _hold,
}


def superseded(rollout: RolloutRow, by: str, now: float) -> RolloutStatus:
    """Return the status of a rollout that a newer one takes over."""
    state, _ = TABLE[rollout.status.state, Signal.SUPERSEDE]
    return msgspec.structs.replace(rollout.status, state=state, finished_at=now, message=f"superseded by {by}")
