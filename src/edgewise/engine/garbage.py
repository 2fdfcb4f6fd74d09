"""Leftovers: trees that no instance needs, all that is left of instances that are gone, and in the end the device itself."""

from edgewise.engine.model import Live, State, Step, empty, replace
from edgewise.engine.protocol import Emit, Finished, Forget, Remove, Result
from edgewise.engine.records import Gone
from edgewise.engine.update import FETCHING
from edgewise.resources.states import UpdateState
from edgewise.wire.report import DeviceReport


def keep_trees(live: dict[str, Live], step: Step) -> tuple[str, ...]:
    """Return the trees that must stay: committed, previous and candidate of every instance, what runs, and what is being fetched."""
    keep: set[str] = set()
    for kept in step.durable.instances.values():
        keep.update(release.tree for release in (kept.committed, kept.previous, kept.candidate) if release is not None)
    for one in live.values():
        keep.update(slot.release.tree for slot in one.slots.values() if slot.release is not None)
        if one.update.fetched is not None:
            keep.add(one.update.fetched.tree)
        if one.update.tree and one.update.state in (*FETCHING, UpdateState.FAILED) and not one.update.refused:
            keep.add(one.update.tree)
    return tuple(sorted(keep))


def advance(state: State, live: dict[str, Live], step: Step) -> tuple[State, dict[str, Live]]:
    """Ask for a removal when one is due and nothing is being fetched or removed."""
    names = tuple(sorted(name for name, one in live.items() if _deserted(one, step)))
    if step.remove_due is None and not (step.removing or step.fetching) and _left_behind(live, step):
        step.remove_due = step.now.monotonic
    due = step.remove_due is not None and step.now.monotonic >= step.remove_due
    if step.removing or step.fetching or not (due or (names and step.remove_due is None)):
        return state, live
    keep, job = keep_trees({name: one for name, one in live.items() if name not in names}, _without(step, names)), step.effect_id()
    step.removing, step.remove_due = job, None
    step.effects.append(Remove(id=job, keep_trees=keep, instances=names))
    return replace(state, removing_names=names, keeping=keep), live


def _left_behind(live: dict[str, Live], step: Step) -> bool:
    """Whether there are trees that nobody needs, while no instance is on its way: a superseded candidate leaves its tree without a
    commit that would tidy up, and the next ones theirs, for as long as a rollout holds the last of them on trial."""
    quiet = all(
        one.update.state is UpdateState.IDLE or (one.update.state is UpdateState.PROBATION and one.update.settled is not None)
        for one in live.values()
    )
    return quiet and not step.installed <= set(keep_trees(live, step))


def _without(step: Step, names: tuple[str, ...]) -> Step:
    """Return a step that knows nothing of the instances about to go, to ask which trees are needed without them."""
    if not names:
        return step
    other = Step.__new__(Step)
    left = {name: kept for name, kept in step.durable.instances.items() if name not in names}
    other.durable = replace(step.durable, instances=left)
    return other


def _deserted(live: Live, step: Step) -> bool:
    """Whether an instance should not be here, runs nothing, and its removal has not been asked for."""
    idle = live.update.state is UpdateState.IDLE or (live.update.state is UpdateState.FAILED and live.update.retry_at is None)
    gone = step.durable.document is not None and step.desired(live) is None
    return gone and empty(live) and idle and not live.removed


def removed(state: State, result: Result, step: Step) -> State:
    """Take in the end of a removal."""
    step.removing = 0
    if not isinstance(result, Finished):
        step.remove_due = step.now.monotonic + step.limits.remove_retry_seconds
        return replace(state, removing_names=(), keeping=())
    live = state.live
    step.installed &= frozenset(state.keeping)
    gone = {name: replace(live[name], removed=True) for name in state.removing_names if name in live and empty(live[name])}
    return replace(state, removing_names=(), keeping=(), live={**live, **gone})


def forget_gone(live: dict[str, Live], told: dict[str, str], step: Step) -> tuple[dict[str, Live], dict[str, str]]:
    """Drop instances whose last report is in the outbox. The report comes first: a power cut in between only repeats it. Returns what is
    left, and who was told gone."""
    if step.blocked:
        return live, told
    result = dict(live)
    for name in sorted(live):
        if live[name].removed and (live[name].told_gone or not live[name].uid):
            if name in step.durable.instances:
                step.record(Gone(instance=name))
            told = {**told, name: live[name].uid}
            del result[name]
    return result, told


def leave(state: State, step: Step) -> State:
    """Once a decommissioned device holds nothing any more, say so and end."""
    document = state.durable.document
    if document is None or not document.decommission or state.observed_at is None or state.storage is not None:
        return state
    if state.live or state.removing or state.fetching:
        return state
    step.effects.append(Emit(lane="status", item=DeviceReport(device=state.device, decommissioned=True)))
    step.effects.append(Forget())
    return replace(state, left=True)
