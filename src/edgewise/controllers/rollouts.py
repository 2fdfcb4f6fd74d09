"""How a workload's rollout goes on: its open wave is filled, judged, released, or sent back.

What a wave wants of its instances is `waves.py`, what the evidence says `judging.py`, how a step is told `telling.py`. The steps themselves
are the table in `delivery/rollout.py`.
"""

from collections.abc import Callable
from itertools import islice
from typing import Final

import msgspec

from edgewise.controllers.documents import delete_any, put_labelled, put_status
from edgewise.controllers.explaining import explanations_of
from edgewise.controllers.judging import Judged, controls_of, due_at, evidence_key, judged, kept
from edgewise.controllers.members import Members
from edgewise.controllers.placements import silent_since
from edgewise.controllers.risk import ended, risk_of
from edgewise.controllers.rows import RolloutRow, WorkloadRow
from edgewise.controllers.telling import Telling, events_of, failures_of, message_of
from edgewise.controllers.view import FleetView
from edgewise.controllers.waves import Waves
from edgewise.controllers.work import Work
from edgewise.delivery.rollout import TABLE, Effect, Facts, Signal, Tally, bad_news, nothing_known, signal_of
from edgewise.delivery.stages import pace_of, stage_at, stages_of
from edgewise.resources.quantity import seconds
from edgewise.resources.rollout import MemberCounts, RolloutStatus, StageVerdict
from edgewise.resources.states import AnalysisState, RolloutState
from edgewise.store.contract import Write

_FINAL: Final = frozenset({RolloutState.SUCCEEDED, RolloutState.ROLLED_BACK, RolloutState.ABORTED, RolloutState.SUPERSEDED})
_ENDING: Final = frozenset({Effect.SEND_BACK, Effect.FINISH})
_ASKING: Final = frozenset({Effect.HOLD, Effect.ASK})


def step(view: FleetView, row: WorkloadRow, rollout: RolloutRow, members: Members, work: Work) -> None:
    """Gather what the rollout of a workload wants now."""
    moving = _Moving(view, row, rollout, members, work)
    waves = moving.waves
    earliest = members.expire(work.now, view.reach, view, view.limits.liveness)
    back = True
    match rollout.status.state:
        case RolloutState.ROLLING_BACK:
            back = not waves.send_back() and (members.tally.updating == 0 or not rollout.spec.from_revision)
        case RolloutState.PROGRESSING | RolloutState.PAUSED if not rollout.spec.paused:
            # What failed comes first: nobody else is given a revision that is about to be taken back.
            if bad_news(moving.facts(back=True)) is None:
                waves.release()
                if not waves.adapt():
                    waves.fill()
        case _:
            if bad_news(moving.facts(back=True)) is None:
                waves.release()
    if waves.wrote:
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
    due = [*due_at(rollout), *(at for at in (earliest, silent_at) if at is not None)]
    ahead = [at for at in due if at > view.now]
    if ahead:
        view.timers.sooner(("workload", rollout.key.namespace, rollout.spec.workload), min(ahead))


class _Moving:
    """One look at one rollout."""

    __slots__ = ("judged", "members", "rollout", "row", "view", "waves", "work")

    def __init__(self, view: FleetView, row: WorkloadRow, rollout: RolloutRow, members: Members, work: Work) -> None:
        self.view = view
        self.row = row
        self.rollout = rollout
        self.members = members
        self.work = work
        self.waves = Waves(view, row, rollout, members, work)
        self.judged: Judged = judged(view, rollout, work.now)

    def facts(self, *, back: bool) -> Facts:
        """Return what the next step depends on."""
        silent_at = self.silent_at()
        return Facts(
            spec=self.rollout.spec,
            status=self.rollout.status,
            tally=self.members.tally,
            now=self.work.now,
            filled=self.waves.need == 0 or self.row.exhausted,
            verdict=self.judged.state,
            winner=self.judged.winner,
            back=back,
            silent=silent_at is not None and self.work.now >= silent_at,
            word=self.rollout.status.observed_generation != self.rollout.generation,
        )

    def silent_at(self) -> float | None:
        """Return when nobody will have been able to tell for as long as one device may take how the revision does; None: somebody can."""
        status, touched = self.rollout.status, self.members.tally.touched
        if status.wave == 0 or not nothing_known(self.members.tally):
            return None
        since = [status.wave_started_at]
        if touched:
            carried = (device for device, instance in self.members.instances.items() if self.waves.carried(instance))
            since += [silent_since(self.view, device) for device in carried]
        return max(since) + seconds(pace_of(self.rollout.spec.strategy).device_deadline)

    def change(self, signal: Signal, state: RolloutState, effect: Effect) -> None:
        """Gather one transition: the rollout, and what of the workload changes with it, in one transaction."""
        now, before = self.work.now, self.rollout
        status = self._counted(frozen=before.status.state is RolloutState.ROLLING_BACK)
        telling = self._telling()
        status = msgspec.structs.replace(
            status,
            state=state,
            observed_generation=before.generation,
            finished_at=now if state in _FINAL else None,
            message=message_of(signal, telling),
        )
        status = _EFFECTS[effect](self, status, signal)
        status, taught = self._risked(status, effect)
        writes: list[Write] = [put_status(before, status), *taught]
        if effect in _ASKING:
            writes.append(put_labelled(before, msgspec.structs.replace(before.spec, paused=True)))
        if state in _FINAL and self.row.name in self.view.evidence:
            writes.append(delete_any(evidence_key(self.row.name), ""))
        workload = self._workload(effect)
        if workload is not None:
            writes.append(workload)
        self.work.add(writes, events_of(signal, status, telling, now))

    def _risked(self, status: RolloutStatus, effect: Effect) -> tuple[RolloutStatus, tuple[Write, ...]]:
        """Say what was predicted of the members and what came of it; at the end, learn from it."""
        if effect in _ENDING:
            risk, taught = ended(self.view, self.rollout, self.members, self.work)
            return msgspec.structs.replace(status, risk=risk), taught
        risk = risk_of(self.view, self.rollout, self.members) if effect is Effect.OPEN_WAVE else status.risk
        return msgspec.structs.replace(status, risk=risk), ()

    def note(self, facts: Facts) -> None:
        """Keep what the status counts, and the evidence, current, not more often than the limits say."""
        if self.rollout.status.state is RolloutState.ROLLING_BACK:
            return
        status = self._counted(frozen=False)
        if facts.verdict is AnalysisState.RUNNING and status.analysis is AnalysisState.PENDING:
            status = msgspec.structs.replace(status, analysis=AnalysisState.RUNNING)
        # Whom a wave is compared with must be known before it says anything.
        chosen = status.controls != self.rollout.status.controls
        if status != self.rollout.status and (chosen or due(self.view, self.row)):
            self.work.add((put_status(self.rollout, status),))
        evidence = kept(self.view, self.row.name, self.work.now)
        if evidence is not None:
            self.work.add((evidence,))

    def _telling(self) -> Telling:
        return Telling(rollout=self.rollout, members=self.members, judged=self.judged, left_out=self.row.left_out)

    def _counted(self, *, frozen: bool) -> RolloutStatus:
        status, tally, limits = self.rollout.status, self.members.tally, self.view.limits.controllers
        if frozen or status.wave == 0:
            return status
        named = status.touched_devices
        if len(named) < min(limits.touched_devices_named_max, tally.touched):
            carried = (device for device, instance in sorted(self.members.instances.items()) if self.waves.carried(instance))
            fresh = (device for device in carried if device not in named)
            named = (*named, *islice(fresh, limits.touched_devices_named_max - len(named)))
        return msgspec.structs.replace(
            status,
            members=_member_counts(tally),
            touched=max(status.touched, tally.touched, len(named)),
            touched_devices=named,
            failures=failures_of(self.view, self.rollout, self.members) if tally.failed else status.failures,
            explanations=explanations_of(self.view, self.row, self.rollout, self.members) if tally.failed else status.explanations,
            verdicts=self.judged.verdicts,
            controls=controls_of(self.view, self.rollout, self.members),
            left_out=dict(self.row.left_out) if self.waves.stage.beside else {},
        )

    def _workload(self, effect: Effect) -> Write | None:
        """Return what a step changes of the workload's status, or None."""
        known, to = self.row.status, self.rollout.spec.to_revision
        if effect is Effect.FINISH:
            status = msgspec.structs.replace(known, stable_revision=to)
        elif effect is Effect.SEND_BACK and to not in known.rejected and to != self.rollout.spec.from_revision:
            limit = self.view.limits.controllers.rejected_kept
            status = msgspec.structs.replace(known, rejected=(*known.rejected, to)[-limit:])
        else:
            return None
        return put_status(self.row, status) if status != known else None


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
        phase=stage_at(spec, status.wave + 1).phase,
        wave=status.wave + 1,
        waves=len(stages_of(spec)),
        wave_started_at=now,
        healthy_since=None,
        analysis=AnalysisState.PENDING,
        verdicts=(),
        controls=(),
        left_out={},
        started_at=status.started_at or now,
    )


def _observe(moving: _Moving, status: RolloutStatus, signal: Signal) -> RolloutStatus:
    del signal
    running = AnalysisState.RUNNING if moving.waves.stage.metrics else AnalysisState.PENDING
    return msgspec.structs.replace(status, healthy_since=moving.work.now, analysis=running)


def _wait(moving: _Moving, status: RolloutStatus, signal: Signal) -> RolloutStatus:
    del moving, signal
    analysis = status.analysis if status.analysis is AnalysisState.SUCCESSFUL else AnalysisState.PENDING
    return msgspec.structs.replace(status, healthy_since=None, analysis=analysis)


def _release(moving: _Moving, status: RolloutStatus, signal: Signal) -> RolloutStatus:
    by_a_person = signal is Signal.PROMOTE
    since = status.healthy_since if status.healthy_since is not None else moving.work.now
    status = _remembered(moving, status, AnalysisState.SUCCESSFUL, "promoted by a person" if by_a_person else "")
    return msgspec.structs.replace(
        status,
        analysis=AnalysisState.SUCCESSFUL,
        promoted=status.promoted + by_a_person,
        healthy_since=since,
        winner="" if by_a_person else moving.judged.winner,
    )


def _send_back(moving: _Moving, status: RolloutStatus, signal: Signal) -> RolloutStatus:
    no_difference = signal is Signal.NO_DIFFERENCE
    failed = AnalysisState.FAILED if signal is Signal.ANALYSIS_FAILED else status.analysis
    analysis = AnalysisState.SUCCESSFUL if no_difference else failed
    # What failed is said by the verdicts themselves.
    said = "" if signal is Signal.ANALYSIS_FAILED else "no difference" if no_difference else status.message
    status = _remembered(moving, status, analysis, said)
    decided = no_difference or signal is Signal.ANALYSIS_FAILED
    return msgspec.structs.replace(status, analysis=analysis, winner=moving.judged.winner if decided else "")


def _hold(moving: _Moving, status: RolloutStatus, signal: Signal) -> RolloutStatus:
    del signal
    return _remembered(moving, msgspec.structs.replace(status, analysis=AnalysisState.INCONCLUSIVE), AnalysisState.INCONCLUSIVE, "")


def _remembered(moving: _Moving, status: RolloutStatus, state: AnalysisState, message: str) -> RolloutStatus:
    """Return a status that remembers how its open wave was judged: the first one's and the last ones' of many."""
    if status.wave == 0:
        return status
    verdict = StageVerdict(
        wave=status.wave,
        phase=status.phase,
        state=state,
        at=moving.work.now,
        message=message,
        verdicts=moving.judged.verdicts,
        controls=status.controls,
    )
    earlier = tuple(known for known in status.stages if known.wave != status.wave)
    most = moving.view.limits.controllers.stages_kept
    if len(earlier) >= most:
        earlier = (earlier[0], *earlier[len(earlier) - most + 2 :])
    return msgspec.structs.replace(status, stages=(*earlier, verdict))


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
    Effect.ASK: _as_is,
}


def superseded(rollout: RolloutRow, by: str, now: float) -> RolloutStatus:
    """Return the status of a rollout that a newer one takes over."""
    state, _ = TABLE[rollout.status.state, Signal.SUPERSEDE]
    return msgspec.structs.replace(rollout.status, state=state, finished_at=now, message=f"superseded by {by}")
