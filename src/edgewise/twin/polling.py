"""Long polls at the simulated control plane: the newest of an agent wins, a change wakes them, and they end when their time is over."""

from typing import TYPE_CHECKING, Final

import msgspec

from edgewise.controllers import answers
from edgewise.controllers.desired import decide_desired, refresh
from edgewise.controllers.gateway import decide_session
from edgewise.store.contract import Key
from edgewise.twin.connections import Caller
from edgewise.twin.link import Answered, Outcome, Refused, Request
from edgewise.wire.desired import DesiredState, Position, parse_position

if TYPE_CHECKING:
    from edgewise.twin.control import SimControl

__all__ = ["Polling", "refused_as"]

_ENCODER: Final = msgspec.msgpack.Encoder()
_SLOT_SECONDS: Final = 0.5
_NOTHING: Final = Answered()


def refused_as(decided: answers.Refusal) -> Refused:
    """Return a refusal that the controllers decided, as the device gets it."""
    answer = decided.answer
    return Refused(status=decided.status, reason=answer.reason, message=answer.message, retry_after=answer.retry_after)


class _Poll:
    """An open poll."""

    __slots__ = ("after", "agent", "caller", "open", "until")

    def __init__(self, caller: Caller, agent: str, after: Position | None, until: float) -> None:
        self.caller = caller
        self.agent = agent
        self.after = after
        self.until = until
        self.open = True


class Polling:
    """The open polls."""

    def __init__(self, control: "SimControl") -> None:
        self._control = control
        self._polls: dict[str, _Poll] = {}
        self._by_caller: dict[Caller, _Poll] = {}
        self._slots: dict[int, list[_Poll]] = {}

    def forget(self) -> list[Caller]:
        """Die; return who waited."""
        callers = [poll.caller for poll in self._polls.values()]
        self._polls, self._by_caller, self._slots = {}, {}, {}
        return callers

    def hung_up(self, caller: Caller) -> None:
        """Forget a poll whose connection has gone."""
        poll = self._by_caller.get(caller)
        if poll is not None:
            self._end(poll)

    def turn_away(self, agent: str, refused: Refused) -> None:
        """End the poll of an agent that may no longer wait."""
        poll = self._polls.get(agent)
        if poll is not None:
            self._end(poll)
            poll.caller.reply(refused)

    def desired(self, request: Request, caller: Caller) -> None:
        """Answer a poll, now or later."""
        agent, now = request.agent, self._control.kernel.wall
        try:
            after = parse_position(request.path) if request.path else None
        except ValueError:
            caller.reply(Refused(status=400, reason="BadRequest", message="the query is after=EPOCH.N and wait=SECONDS"))
            return
        if request.session:
            refused = decide_session(request.session, agent, self._control.view, now)
            if refused is not None:
                self._control.quarantine(agent, refused)
                caller.reply(refused_as(refused))
                return
        decided = decide_desired(agent, after, self._control.view, self._seal)
        wait = min(request.wait, self._control.limits.poll_seconds_max)
        if decided is None and wait > 0:
            self._open(agent, after, wait, caller)
            return
        self._answer(agent, caller, decided)

    def _answer(self, agent: str, caller: Caller, decided: "DesiredState | answers.Refusal | None") -> None:
        outcome: Outcome
        if decided is None:
            outcome = _NOTHING
        elif isinstance(decided, answers.Refusal):
            outcome = refused_as(decided)
        else:
            if self._control.witness is not None:
                self._control.witness.told(agent, decided)
            outcome = Answered(body=_ENCODER.encode(decided))
        self._control.exchanges += 1
        self._control.note("desired", agent, outcome)
        caller.reply(outcome)

    def _open(self, agent: str, after: Position | None, wait: float, caller: Caller) -> None:
        self._control.view.poll_opened(agent, self._control.kernel.wall)
        self._control.note_heard(agent)
        older = self._polls.get(agent)
        until = self._control.kernel.now + wait
        poll = self._polls[agent] = self._by_caller[caller] = _Poll(caller, agent, after, until)
        slot = int(until / _SLOT_SECONDS) + 1
        due = self._slots.get(slot)
        if due is None:
            due = self._slots[slot] = []
            self._control.kernel.at(slot * _SLOT_SECONDS, self._control.alive(lambda: self._expire(slot)))
        due.append(poll)
        if older is not None:
            self._end(older)
            older.caller.reply(Refused(status=409, reason="Superseded", message="a newer poll of this agent took over"))

    def _expire(self, slot: int) -> None:
        for poll in self._slots.pop(slot):
            if poll.open:
                self._end(poll)
                self._answer(poll.agent, poll.caller, None)

    def _end(self, poll: _Poll) -> None:
        poll.open = False
        self._by_caller.pop(poll.caller, None)
        if self._polls.get(poll.agent) is poll:
            del self._polls[poll.agent]
        now = self._control.kernel.wall
        self._control.view.poll_closed(poll.agent, now)
        self._control.hear(poll.agent, now)
        due = self._control.view.timers.next()
        if due is not None and (self._control.wake_at is None or due < self._control.wake_at):
            self._control.stir()

    def wake(self, agent: str) -> None:
        """Answer the poll of `agent`, with nothing when nothing is new for it."""
        poll = self._polls.get(agent)
        if poll is None:
            return
        decided = decide_desired(agent, poll.after, self._control.view, self._seal)
        self._end(poll)
        self._answer(agent, poll.caller, decided)

    def polling(self, agent: str) -> bool:
        """Whether a poll of `agent` waits here."""
        return agent in self._polls

    def refresh(self) -> None:
        """Give numbers to the documents that changed, and answer the polls of their agents."""
        view = self._control.view
        if not view.unrendered and not view.presence.asked:
            return
        woken = refresh(view)
        if woken:
            for agent in sorted(woken):
                self.wake(agent)

    def _seal(self, key: Key, device: str) -> bytes:
        return f"{key.namespace}/{key.name} for {device}".encode()
