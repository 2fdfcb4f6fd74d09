"""The device gateway: a plain ASGI application behind uvicorn, for agents over mutual TLS.

`ROUTES` is the one table of what there is, by which methods, and who may: `agent` takes a client certificate of this fleet, `anyone` also
comes without (the body must then prove what it asks for). Whatever is not in the table is a 404, and nobody's.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, Literal
from urllib.parse import parse_qs

import msgspec

from edgewise.control.enrolment import Enrolment
from edgewise.control.messages import (
    Disconnected,
    Refusal,
    answer,
    answer_empty,
    busy,
    decoded,
    read_body,
    refusal_of,
    refuse,
)
from edgewise.control.peer import SCOPE_KEY, Connection, Receive, Scope, Send, respond
from edgewise.control.polls import Woken
from edgewise.control.reports import Reports
from edgewise.control.sealing import Sealer
from edgewise.control.services import Services
from edgewise.controllers import answers
from edgewise.controllers.gateway import decide_desired, decide_session
from edgewise.store.contract import OverloadedError, StoreClosedError, StoreError, StoreFullError
from edgewise.trust.repository import is_repository_file
from edgewise.wire.desired import DesiredState, Position, parse_position
from edgewise.wire.enrolment import JoinRequest, RenewRequest

_LOG: Final = logging.getLogger("edgewise.control.gateway")
_JOIN: Final = msgspec.msgpack.Decoder(JoinRequest)
_RENEW: Final = msgspec.msgpack.Decoder(RenewRequest)

Who = Literal["agent", "anyone"]
Handler = Callable[["Gateway", Scope, Receive, Send, str], Awaitable[None]]


class Route(msgspec.Struct, frozen=True):
    """What is behind a path. With `parameter`, the path goes on with one more part."""

    who: Who
    methods: frozenset[str]
    handler: Handler
    parameter: bool = False


class Gateway:
    """The ASGI application. Belongs to one event loop."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._limits = services.limits
        self._reports = Reports(services)
        self._enrolment = Enrolment(services)
        self._sealer = Sealer(services)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            return
        try:
            route, parameter = _route(scope)
            await route.handler(self, scope, receive, send, parameter)
        except Refusal as refusal:
            await refuse(send, refusal)
        except (Disconnected, TimeoutError):  # gone, or so slow that its connection was dropped
            return
        except StoreError as error:
            await refuse(send, self._store_refusal(error))
        except Exception:  # noqa: BLE001 - said in the log; the device is told that it is not its fault
            _LOG.exception("a request failed: %s %s", scope["method"], scope["path"])
            await refuse(send, Refusal(500, "Internal", "something failed inside; the control plane's log says more", close=True))

    # ---- the handlers, as the table names them ----

    async def report(self, scope: Scope, receive: Receive, send: Send, _parameter: str) -> None:
        """`POST /v1/report`."""
        await answer(send, await self._reports.take(scope, receive, agent_of(scope)))

    async def desired(self, scope: Scope, _receive: Receive, send: Send, _parameter: str) -> None:
        """`GET /v1/desired?after=EPOCH.N&wait=SECONDS&session=NAME`."""
        agent = agent_of(scope)
        after, wait, session = self._asked(scope)
        if session is not None:
            await self._check_session(agent, session)
        state = self._state(agent, after)
        if state is None and wait > 0:
            state = await self._wait(scope, agent, after, wait)
        if state is None:
            await answer_empty(send)
        else:
            await answer(send, state)

    async def join(self, scope: Scope, receive: Receive, send: Send, _parameter: str) -> None:
        """`POST /v1/join`."""
        body = await read_body(scope, receive, self._limits.enrolment_body_bytes_max)
        await answer(send, await self._enrolment.join(decoded(_JOIN, body)))

    async def renew(self, scope: Scope, receive: Receive, send: Send, _parameter: str) -> None:
        """`POST /v1/renew`."""
        body = await read_body(scope, receive, self._limits.enrolment_body_bytes_max)
        connection: Connection = scope[SCOPE_KEY]
        await answer(send, await self._enrolment.renew(decoded(_RENEW, body), connection.agent))

    async def blob(self, scope: Scope, _receive: Receive, send: Send, digest: str) -> None:
        """`GET|HEAD /v1/blobs/DIGEST`."""
        self._check_agent(agent_of(scope))
        await self._services.transfers.serve(scope, send, digest)

    async def repository(self, scope: Scope, _receive: Receive, send: Send, name: str) -> None:
        """`GET|HEAD /v1/repository/NAME`."""
        self._check_agent(agent_of(scope))
        data = self._services.repository.get(name) if is_repository_file(name) else None
        if data is None:
            raise Refusal(404, "NotFound", "the signed repository has no such file")
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(data))]
        await respond(send, 200, headers, b"" if scope["method"] == "HEAD" else data)

    async def stream(self, scope: Scope, receive: Receive, send: Send, identifier: str) -> None:
        """`POST /v1/streams/ID`."""
        agent = agent_of(scope)
        self._check_agent(agent)
        connection: Connection = scope[SCOPE_KEY]
        await self._services.streams.receive(agent, identifier, receive, connection)
        await answer_empty(send)

    # ---- the long poll ----

    async def _check_session(self, agent: str, session: str) -> None:
        services = self._services
        refused = decide_session(session, agent, services.runner.view, services.clock.wall())
        if refused is not None:
            await self._reports.quarantine(agent, refused)
            raise refusal_of(refused)

    def _asked(self, scope: Scope) -> tuple[Position | None, float, str | None]:
        try:
            query = parse_qs(scope["query_string"].decode("ascii"), max_num_fields=8, keep_blank_values=True)
            after = query.get("after", [""])[-1]
            wait = float(query.get("wait", [str(self._limits.poll_seconds_default)])[-1])
            position = parse_position(after) if after else None
        except ValueError as error:
            raise Refusal(400, "BadRequest", "the query is after=EPOCH.N and wait=SECONDS") from error
        if not 0 <= wait < float("inf"):
            raise Refusal(400, "BadRequest", "wait is a number of seconds")
        session = query["session"][-1] if "session" in query else None
        return position, min(wait, self._limits.poll_seconds_max), session

    def _state(self, agent: str, after: Position | None) -> DesiredState | None:
        """Return what is to be answered now, or None. Raises `Refusal`."""
        decided = decide_desired(agent, after, self._services.runner.view, self._sealer.seal)
        if isinstance(decided, answers.Refusal):
            raise refusal_of(decided)
        streams = self._services.streams.requests(agent)
        if not streams:
            return decided
        if decided is not None:
            return msgspec.structs.replace(decided, streams=streams)
        position = after if after is not None else self._services.runner.view.position
        return DesiredState(position=position, streams=streams)

    async def _wait(self, scope: Scope, agent: str, after: Position | None, wait: float) -> DesiredState | None:
        services, connection = self._services, scope[SCOPE_KEY]
        loop = asyncio.get_running_loop()
        services.runner.poll_opened(agent, services.clock.wall())
        try:
            poll = services.polls.open(agent, wait, loop.time())
            connection.on_lost = partial(services.polls.close_poll, agent, poll)
            woken = await poll
            if woken is Woken.CHANGED:
                # Nothing may be new: then the agent is asked for a sign of life.
                return self._state(agent, after)
        finally:
            connection.on_lost = None
            services.runner.poll_closed(agent, services.clock.wall())
        if woken is Woken.SUPERSEDED:
            raise Refusal(409, "Superseded", "a newer poll of this agent took over", close=True)
        if woken is Woken.CLOSED:
            raise busy(self._limits, "the control plane is going down, or this agent may not wait")
        return None

    # ---- parts ----

    def _check_agent(self, agent: str) -> None:
        refused = answers.refused_agent(self._services.runner.view.agents.get(agent))
        if refused is not None:
            raise refusal_of(refused)

    def _store_refusal(self, error: StoreError) -> Refusal:
        match error:
            case OverloadedError():
                return busy(self._limits, "the store has too much to write", retry_after=error.retry_after)
            case StoreFullError():
                return busy(self._limits, "the control plane's disk is full", retry_after=30.0)
            case StoreClosedError():
                return busy(self._limits, "the control plane is going down")
            case _:
                _LOG.error("the store failed: %s", error)
                return busy(self._limits, "the store failed")


ROUTES: Final[Mapping[str, Route]] = {
    "/v1/report": Route("agent", frozenset({"POST"}), Gateway.report),
    "/v1/desired": Route("agent", frozenset({"GET"}), Gateway.desired),
    "/v1/join": Route("anyone", frozenset({"POST"}), Gateway.join),
    "/v1/renew": Route("anyone", frozenset({"POST"}), Gateway.renew),
    "/v1/blobs/": Route("agent", frozenset({"GET", "HEAD"}), Gateway.blob, parameter=True),
    "/v1/repository/": Route("agent", frozenset({"GET", "HEAD"}), Gateway.repository, parameter=True),
    "/v1/streams/": Route("agent", frozenset({"POST"}), Gateway.stream, parameter=True),
}
"""Everything that the gateway answers."""


def agent_of(scope: Scope) -> str:
    """Return the agent that the request comes from. Raises `Refusal` without a client certificate: the table asks for one."""
    agent: str | None = scope[SCOPE_KEY].agent
    if agent is None:
        raise Refusal(401, "NoCertificate", "this takes a client certificate of this fleet")
    return agent


def _route(scope: Scope) -> tuple[Route, str]:
    path: str = scope["path"]
    route, parameter = ROUTES.get(path), ""
    if route is None or route.parameter:
        base, slash, parameter = path.rpartition("/")
        route = ROUTES.get(base + slash)
        if route is None or not route.parameter or not parameter or len(parameter) > 200:
            raise Refusal(404, "NotFound", "there is nothing here")
    if route.who == "agent" and scope[SCOPE_KEY].agent is None:
        raise Refusal(401, "NoCertificate", "this takes a client certificate of this fleet")
    if scope["method"] not in route.methods:
        raise Refusal(405, "MethodNotAllowed", f"this takes {' or '.join(sorted(route.methods))}")
    return route, parameter
