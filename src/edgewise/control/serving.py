"""Two uvicorn servers in one event loop: sockets, TLS, and an end that keeps nobody waiting."""

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import Generator
from typing import Any, Final

import uvicorn
from uvicorn.server import Server

from edgewise.control.accepting import Door
from edgewise.control.limits import ControlLimits
from edgewise.control.peer import PeerProtocol, sweep

_BACKLOG: Final = 4_096
_STEP_SECONDS: Final = 0.02


class ListenError(Exception):
    """An address cannot be listened on. The message says which, why, and what to do."""


class _Server(Server):
    """uvicorn's server with our way of accepting connections, and without its signal handlers: the process has its own."""

    def __init__(self, config: uvicorn.Config, limits: ControlLimits) -> None:
        super().__init__(config)
        self._limits = limits

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept."""
        config = self.config
        make: Any = config.http_protocol_class
        tls = config.ssl
        if tls is None:
            raise ListenError("a server without TLS was asked for")

        def make_protocol() -> asyncio.Protocol:
            protocol: asyncio.Protocol = make(config=config, server_state=self.server_state, app_state={})
            return protocol

        doors = [Door(listener, tls, make_protocol, self._limits) for listener in sockets or ()]
        self.servers: Any = doors
        for door in doors:
            door.open()
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals alone."""
        yield


class HttpServer:
    """One server: `application` over TLS on one socket."""

    def __init__(self, application: Any, listener: socket.socket, tls: ssl.SSLContext, limits: ControlLimits, *, anonymous: bool) -> None:
        """`anonymous`: connections without a client certificate are as good as others."""
        protocol = type("BoundProtocol", (PeerProtocol,), {"limits": limits, "anonymous_allowed": anonymous})
        config = uvicorn.Config(
            application,
            http=protocol,
            loop="none",
            ws="none",
            lifespan="off",
            interface="asgi3",
            ssl_context_factory=lambda _config, _default: tls,
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            backlog=_BACKLOG,
            timeout_graceful_shutdown=max(1, round(limits.shutdown_seconds)),
        )
        self._listener = listener
        self._server = _Server(config, limits)
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._listener.getsockname()[1])

    async def start(self) -> None:
        """Begin to answer."""
        self._task = asyncio.create_task(self._server.serve([self._listener]), name=f"server {self.port}")
        while not self._server.started:
            if self._task.done():
                await self._task
                raise ListenError(f"the server on port {self.port} ended at once")
            await asyncio.sleep(_STEP_SECONDS)

    def sweep(self) -> None:
        """Close connections that are idle or stuck for too long."""
        sweep(self._server.server_state.connections, time.monotonic())

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._server.server_state.connections)

    async def ended(self) -> None:
        """Return, or raise, when the server ends by itself."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def stop(self, seconds: float) -> None:
        """Take no more connections, give requests under way up to `seconds`, then close everything."""
        self._server.should_exit = True
        state, until = self._server.server_state, time.monotonic() + seconds
        while state.tasks and time.monotonic() < until:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(_STEP_SECONDS)
        while self._task is not None and not self._task.done():
            for connection in list(state.connections):
                connection.transport.abort()
            if time.monotonic() > until + seconds:
                for task in list(state.tasks):
                    task.cancel()
            await asyncio.sleep(_STEP_SECONDS)
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises `ListenError`."""
    try:
        version = ipaddress.ip_address(host).version if host else 4
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        address: tuple[Any, ...] = (host, port)
    except ValueError:
        try:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        except OSError as error:
            raise ListenError(f"{host} is not an address of this machine: {error.strerror}") from error
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.settimeout(0)
    except OSError as error:
        listener.close()
        raise ListenError(
            f"cannot listen on {host} port {port}: {error.strerror}: is another process there? choose another port"
        ) from error
    return listener
