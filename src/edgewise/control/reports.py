"""Reports: admission, decoding within bounds, and one at a time per agent from the decision to the commit."""

import asyncio
from typing import Final

import msgspec

from edgewise.control.messages import busy, decoded, read_body, refusal_of, unpacked
from edgewise.control.peer import Receive, Scope
from edgewise.control.services import Services
from edgewise.controllers import answers
from edgewise.controllers.gateway import decide_report, settle
from edgewise.store.contract import ConflictError
from edgewise.wire.report import Report, ReportAnswer

_REPORT: Final = msgspec.msgpack.Decoder(Report)


class Reports:
    """Reports under way."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._limits = services.limits
        self._count = 0
        self._bytes = 0
        self._agents: dict[str, list[asyncio.Future[None]]] = {}

    async def take(self, scope: Scope, receive: Receive, agent: str) -> ReportAnswer:
        """Read, decide, write; return the answer once everything is durable. Raises `Refusal`, `StoreError`, `Disconnected`."""
        limits = self._limits
        if self._count >= limits.reports_in_flight_max or self._bytes >= limits.report_bytes_in_flight_max:
            raise busy(limits, "too many reports at the moment")
        self._count += 1
        size = 0
        try:
            body = await read_body(scope, receive, limits.report_body_bytes_max)
            body = unpacked(scope, body, limits.report_decoded_bytes_max)
            size = len(body)
            self._bytes += size
            report = decoded(_REPORT, body)
            waiting = self._agents.get(agent)
            if waiting is None:
                self._agents[agent] = []
            else:
                await self._wait_turn(agent, waiting)
            try:
                return await self._write(agent, report)
            finally:
                self._next(agent)
        finally:
            self._count -= 1
            self._bytes -= size

    async def _wait_turn(self, agent: str, waiting: list[asyncio.Future[None]]) -> None:
        """Wait behind the agent's report that is under way: this is a retry whose first answer was lost, or a second device."""
        if len(waiting) >= self._limits.reports_waiting_max:
            raise busy(self._limits, "this agent has too many reports under way", status=429)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn in waiting:
                waiting.remove(turn)
            else:  # it was this one's turn already
                self._next(agent)
            raise

    def _next(self, agent: str) -> None:
        waiting = self._agents[agent]
        while waiting:
            turn = waiting.pop(0)
            if not turn.done():
                turn.set_result(None)
                return
        del self._agents[agent]

    async def _write(self, agent: str, report: Report) -> ReportAnswer:
        services, runner = self._services, self._services.runner
        for _ in range(self._limits.answer_conflicts_max):
            now = services.clock.wall()
            decision = decide_report(report, agent, runner.view, now)
            if isinstance(decision, answers.Refusal):
                if decision.transaction is not None:
                    await self.quarantine(agent, decision)
                raise refusal_of(decision)
            runner.heard(agent, now)
            try:
                written = await runner.write(decision.transaction)
            except ConflictError as error:
                await runner.conflicted(error)
                continue
            settle(runner.view, decision, written)
            if written.changes:
                runner.stir()
            return decision.answer
        raise busy(self._limits, "what this report is about changes too often at the moment")

    async def quarantine(self, agent: str, decision: answers.Refusal) -> None:
        """Write down that two devices showed one identity, and end the poll that waits."""
        services = self._services
        if decision.transaction is None:
            return
        try:
            await services.runner.commit(decision.transaction)
        except ConflictError as error:
            await services.runner.conflicted(error)
        services.polls.end(agent)
