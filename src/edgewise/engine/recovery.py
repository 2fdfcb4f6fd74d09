"""After a start of the agent: the journal's fold says what should be, one look at the supervisor says what is."""

from collections.abc import Iterable

from edgewise.engine import probes
from edgewise.engine.limits import EngineLimits
from edgewise.engine.model import SLOTS, Live, SlotView, State, Step, Update, empty, replace
from edgewise.engine.protocol import Observed, RunningSlot, Slot
from edgewise.engine.records import Durable, Kept, Record, Refusal, Release, Snapshot, fold
from edgewise.engine.tables import SlotPhase
from edgewise.resources.states import UpdateState


def recover(records: Iterable[Record], device: str, limits: EngineLimits | None = None, damage: str = "") -> State:
    """Return the state after a start: the fold of the journal's records. `damage` says what the journal lost, if it lost anything;
    it is reported. Nothing runs, in the engine's eyes, until `Observed` comes."""
    durable = Durable()
    for record in records:
        durable = fold(durable, record)
    live = {name: Live(name=name, uid=kept.uid) for name, kept in durable.instances.items()}
    return State(device=device, limits=limits or EngineLimits(), durable=durable, live=live, damage=damage)


def snapshot(state: State) -> tuple[Record, ...]:
    """Return records that stand for all that the journal must keep: what a compacted journal begins with."""
    return (Snapshot(durable=state.durable),)


def observe(live: dict[str, Live], event: Observed, step: Step, *, first: bool) -> dict[str, Live]:
    """Take in what runs. Known revisions are adopted as they are; what exited meanwhile counts as a crash; all else will be stopped."""
    found: dict[str, dict[Slot, RunningSlot]] = {}
    for running in event.slots:
        found.setdefault(running.instance, {})[running.slot] = running
    result = {}
    for name in sorted({*live, *found}):
        one = live.get(name) or Live(name=name, uid="")
        slots: dict[Slot, SlotView] = {slot: SlotView() for slot in SLOTS}
        one = replace(one, slots=slots)
        for slot, running in found.get(name, {}).items():
            one = replace(one, slots={**one.slots, slot: _slot(running, step.kept(one), step)})
        if first:
            _tell_resumed(one, step)
            one = _trial(one, step)
        result[name] = one
    return result


def _tell_resumed(live: Live, step: Step) -> None:
    """Say that a committed revision that should run and does not is started from what the device has: a person will want to know."""
    kept = step.kept(live)
    committed = kept.committed
    wanted = step.durable.document is None or step.desired(live) is not None
    if committed is not None and kept.broken != committed.revision and wanted and empty(live):
        step.tell("Normal", "Resumed", f"nothing ran after a start: revision {committed.revision} is started from local state", live.name)


def _trial(live: Live, step: Step) -> Live:
    candidate = step.kept(live).candidate
    if candidate is None:
        return live
    return replace(live, update=Update(state=UpdateState.PROBATION, revision=candidate.revision, recovering=True))


def _slot(running: RunningSlot, kept: Kept, step: Step) -> SlotView:
    release = _release(running.revision, kept)
    if running.exit_code is not None:
        if release is None:
            return SlotView()
        trouble = Refusal(reason="Crashed", message=f"revision {running.revision} ended while the agent was away ({running.exit_code})")
        due = step.now.monotonic + step.limits.restart_delay_seconds
        return SlotView(
            phase=SlotPhase.WAITING,
            release=release,
            revision=release.revision,
            address=running.address,
            failures=1,
            trouble=trouble,
            exit_code=running.exit_code,
            due=due,
        )
    slot = SlotView(
        phase=SlotPhase.UP,
        release=release,
        revision=running.revision,
        launch_id=running.launch_id,
        address=running.address,
        since=step.now.monotonic,
        active=running.active or (release is not None and release.type != "model"),
        ready=True,
        started_at=step.now.wall - (running.runs_for or 0.0),
        ready_at=step.now.wall,
        heartbeat=step.now.monotonic,
    )
    proven = running.active or (kept.committed is not None and kept.committed.revision == running.revision)
    start = probes.probe_of(slot, "start", step.limits)
    if start is not None and not proven:
        slot = replace(slot, phase=SlotPhase.PROBING, ready=False, due=step.now.monotonic + start.period_seconds * start.failure_threshold)
    return probes.begin(slot, step, soon=True)


def _release(revision: str, kept: Kept) -> Release | None:
    return next((one for one in (kept.candidate, kept.committed, kept.previous) if one is not None and one.revision == revision), None)
