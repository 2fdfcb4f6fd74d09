"""How the steps of a rollout are told: in its status, and in the event log."""

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final

import msgspec

from edgewise.controllers.documents import event
from edgewise.controllers.judging import Judged
from edgewise.controllers.members import Members
from edgewise.controllers.rows import RolloutRow
from edgewise.controllers.view import FleetView
from edgewise.delivery.rollout import Signal, Standing
from edgewise.delivery.stages import pace_of
from edgewise.resources.rollout import RolloutStatus
from edgewise.resources.states import AnalysisState, RolloutState
from edgewise.store.contract import EventRow

_WARNINGS: Final = frozenset({Signal.ABORT, Signal.OVER_BUDGET, Signal.ANALYSIS_FAILED, Signal.INCONCLUSIVE, Signal.OUT_OF_REACH})
_SENT_BACK: Final = frozenset({Signal.OVER_BUDGET, Signal.ANALYSIS_FAILED})
_WORDS_MAX: Final = 1000


class Telling(msgspec.Struct, frozen=True, kw_only=True):
    """What a step is told by. `rollout` is as it was before the step."""

    rollout: RolloutRow
    members: Members
    judged: Judged
    left_out: dict[str, str]


def message_of(signal: Signal, telling: Telling) -> str:
    """Return what a rollout's status says after a step."""
    told = _MESSAGES.get(signal)
    return told(telling)[:_WORDS_MAX] if told is not None else ""


def _over_budget(telling: Telling) -> str:
    tally = telling.members.tally
    return f"{tally.failed} of {tally.touched} devices failed, more than {pace_of(telling.rollout.spec.strategy).failure_budget}"


def _no_difference(telling: Telling) -> str:
    words = _words(telling, AnalysisState.SUCCESSFUL)
    return f"no difference, so {telling.rollout.spec.from_revision} is kept (onNoDifference: keep): {words}"


def _inconclusive(telling: Telling) -> str:
    # An A/B may be undecided although nothing is worse: that is said too.
    words = _words(telling, AnalysisState.INCONCLUSIVE) or _words(telling, AnalysisState.SUCCESSFUL)
    return f"no verdict ({words}): resume to observe again, promote to go on, or abort"


def _asked(telling: Telling) -> str:
    return f"{telling.members.tally.held} devices hold the new revision, warm: promote to have all switch, or abort"


def _out_of_reach(telling: Telling) -> str:
    tally = telling.members.tally
    if tally.touched:
        return f"no device that has this revision can be reached ({tally.unreached}): it goes on when one can; or abort it"
    left_out = telling.left_out
    why = f" ({'; '.join(f'{device}: {why}' for device, why in islice(sorted(left_out.items()), 3))})" if left_out else ""
    return f"no device that can be reached can take this revision{why}: it goes on when one can; or abort it"


def _all_done(telling: Telling) -> str:
    pending = telling.members.tally.pending
    behind = f"{pending} devices cannot take this revision and stay on the one before" if pending else ""
    return "; ".join(part for part in (_won(telling), behind) if part)


def _failed(telling: Telling) -> str:
    text = _words(telling, AnalysisState.FAILED)
    match telling.rollout.status.phase:
        case "Shadow":
            return f"the shadow never became a canary: {text}"
        case "AB":
            return f"the old revision won: {text}"
        case _:
            return text


def _judged(telling: Telling) -> str:
    words = _words(telling, AnalysisState.SUCCESSFUL)
    match telling.judged.winner:
        case "new":
            return f"the new revision won: {words}"
        case "none":
            return f"no difference, and the new revision goes to all (onNoDifference: promote): {words}"
        case _:
            return words


def _won(telling: Telling) -> str:
    """Return how an A/B ended, which is what one asks of it afterwards."""
    match telling.rollout.status.winner:
        case "":
            return ""
        case "none":
            return "no difference; the new revision was promoted (onNoDifference: promote)"
        case winner:
            return f"the {winner} revision won"


def _words(telling: Telling, state: AnalysisState) -> str:
    verdicts = (verdict for verdict in telling.judged.verdicts if verdict.state is state)
    return "; ".join(text for verdict in verdicts if (text := _verdict(verdict.metric, verdict.message)))


def _verdict(metric: str, message: str) -> str:
    if not message:
        return ""
    return message if message.startswith(metric) else f"{metric}: {message}"


def _unchanged(telling: Telling) -> str:
    return telling.rollout.status.message


_MESSAGES: Final[Mapping[Signal, Callable[[Telling], str]]] = {
    Signal.OVER_BUDGET: _over_budget,
    Signal.ANALYSIS_FAILED: _failed,
    Signal.NO_DIFFERENCE: _no_difference,
    Signal.JUDGED: _judged,
    Signal.INCONCLUSIVE: _inconclusive,
    Signal.ASKED: _asked,
    Signal.OUT_OF_REACH: _out_of_reach,
    Signal.ABORT: lambda _: "aborted by a person",
    Signal.ALL_DONE: _all_done,
    Signal.BACK: _unchanged,
    Signal.BACK_ABORTED: _unchanged,
}


def failures_of(view: FleetView, rollout: RolloutRow, members: Members) -> dict[str, str]:
    """Return the first few failed devices with the reason."""
    failures = dict(rollout.status.failures)
    room = view.limits.controllers.failures_named_max - len(failures)
    failed = (device for device in members.on(Standing.FAILED) if device not in failures)
    for device in sorted(islice(failed, max(0, room))):
        seen = members.instances[device].seen
        deadline = pace_of(rollout.spec.strategy).device_deadline
        reason, message = seen.reason or f"not healthy within {deadline}", seen.message or trouble(view, device)
        failures[device] = f"{reason}: {message}"[:300] if message else reason
    return failures


def trouble(view: FleetView, device: str) -> str:
    """Return what keeps a device from taking anything over. Then its instances say nothing of what they were last given."""
    known = view.devices.get(device)
    conditions = known.status.conditions if known is not None else ()
    return next((f"{each.reason}: {each.message}" for each in conditions if each.type == "StorageFailed" and each.status == "True"), "")


def events_of(signal: Signal, status: RolloutStatus, telling: Telling, now: float) -> tuple[EventRow, ...]:
    """Return what the event log says of a step to `status`."""
    before, spec = telling.rollout.status, telling.rollout.spec
    opened = status.wave != before.wave
    told = signal is Signal.PROMOTE or (signal is Signal.JUDGED and bool(status.message))
    if status.state is before.state and not opened and not told:
        return ()
    text = status.state.value
    if opened:
        reason, text = "RolloutWave", f"wave {status.wave} of {status.waves} ({status.phase})"
    elif signal is Signal.JUDGED:
        reason, text = "RolloutJudged", f"wave {status.wave} of {status.waves} ({status.phase}) is Successful"
    else:
        reason = f"Rollout{status.state.value}"
    message = f"{telling.rollout.key.name} to version {spec.version or spec.to_revision}: {text}"
    if status.message:
        message = f"{message}: {status.message}"
    if signal in _SENT_BACK:
        message += "".join(f"; likely cause: {each.cause} ({each.evidence}): {each.advice}" for each in status.explanations[:1])
    warning = signal in _WARNINGS or status.state is RolloutState.ROLLED_BACK
    return (event(now, reason, message[:_WORDS_MAX], telling.rollout.key, warning=warning),)
