"""The control plane process: opens the data folder and the store, fills the view, runs controllers, gateway and API, and ends in order.

`run` is what `edgewise up` calls. `ControlPlane` is the same for those who have an event loop already.
"""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
from collections.abc import Callable
from typing import Final

from edgewise.control.api.app import build_api
from edgewise.control.api.tokens import ACCESS_TOKEN, make_access_token
from edgewise.control.config import ControlConfig, Ready, api_address, certificate_hosts, gateway_addresses
from edgewise.control.data import DataError, DataFolder, open_data
from edgewise.control.gateway import Gateway
from edgewise.control.maintenance import Maintenance
from edgewise.control.polls import Polls
from edgewise.control.repository import open_repository
from edgewise.control.runner import Runner
from edgewise.control.services import Services
from edgewise.control.serving import HttpServer, ListenError, listen
from edgewise.control.tls import api_context, gateway_context
from edgewise.controllers.view import FleetView
from edgewise.ports.clock import Clock, SystemClock
from edgewise.ports.randomness import SystemRandomness
from edgewise.store.blobs import FolderBlobs
from edgewise.store.contract import ANY, Delete, Key, Store, StoreError, Transaction
from edgewise.store.sqlite import open_store
from edgewise.trust.authority import authority_hash

__all__ = ["ControlConfig", "ControlPlane", "DataError", "ListenError", "Ready", "StoreError", "run"]

_LOG: Final = logging.getLogger("edgewise.control")
_FIRST_ADMIN: Final = "first-admin"
_TOKEN_SHOWN: Final = "first-token-shown"  # noqa: S105 - a file's name
_GC_THRESHOLDS: Final = (50_000, 50, 100)


class ControlPlane:
    """A control plane in this process. Belongs to one event loop. Start it once, stop it in any case."""

    def __init__(self, config: ControlConfig, clock: Clock | None = None) -> None:
        self._config = config
        self._clock: Clock = clock or SystemClock()
        self._stack = contextlib.AsyncExitStack()
        self._data: DataFolder | None = None
        self._servers: tuple[HttpServer, ...] = ()
        self._services: Services | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def services(self) -> Services:
        """The parts, once started."""
        if self._services is None:
            raise RuntimeError("the control plane was not started")
        return self._services

    async def start(self) -> Ready:
        """Bring everything up; return once devices and people are answered. Raises `DataError`, `ListenError`, `StoreError`."""
        config, clock = self._config, self._clock
        try:
            gateway_socket = self._listen(config.gateway_host, config.gateway_port)
            api_socket = self._listen(config.api_host, config.api_port)
            data = self._data = open_data(config.data, config.name, clock.wall())
            self._stack.callback(data.close)
            store = await open_store(data.store)
            self._stack.push_async_callback(store.close)
            if config.restored:
                await store.bump_epoch()
            services = self._services = await self._assemble(data, store)
            maintenance = Maintenance(services, (gateway_context(data.keys), api_context()), certificate_hosts(config))
            await maintenance.begin(restored=config.restored)
            gateway_tls, api_tls = maintenance.contexts
            gateway = HttpServer(Gateway(services), gateway_socket, gateway_tls, config.limits, anonymous=False)
            api = HttpServer(build_api(services), api_socket, api_tls, config.limits, anonymous=True)
            self._servers = (gateway, api)
            services.gateway_addresses = gateway_addresses(config, gateway.port)
            gc.collect()
            gc.freeze()
            services.runner.start()
            for server in self._servers:
                await server.start()
            self._tasks = [asyncio.create_task(maintenance.run(self._servers), name="maintenance")]
            return Ready(
                api_address=api_address(config, api.port),
                gateway_addresses=services.gateway_addresses,
                authority_pem=data.keys.root_cert_pem,
                authority_hash=authority_hash(data.keys.root_cert_pem),
                admin_token=await self._admin_token(services, data),
                data=data.path,
                first_start=data.first_start,
            )
        except BaseException:
            await self.stop()
            raise

    def shown(self) -> None:
        """Note that the first admin token was shown to a person: it will not be made anew."""
        if self._data is not None and not self._data.noted(_TOKEN_SHOWN):
            self._data.note(_TOKEN_SHOWN)

    async def ended(self) -> None:
        """Return, or raise, when a part that must run has ended by itself."""
        parts = [asyncio.ensure_future(server.ended()) for server in self._servers]
        parts += [asyncio.ensure_future(self.services.runner.ended()), *self._tasks]
        done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        for part in done:
            part.result()

    async def stop(self) -> None:
        """End in order: polls and streams are answered, requests under way get a moment, what was accepted is written."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._services is not None:
            self._services.ending.set()
            self._services.polls.close()
            self._services.streams.close_all()
        await asyncio.gather(*(server.stop(self._config.limits.shutdown_seconds) for server in self._servers))
        if self._services is not None:
            await self._services.runner.stop()
        await self._stack.aclose()
        gc.unfreeze()

    def _listen(self, host: str, port: int) -> socket.socket:
        listener = listen(host, port)
        self._stack.callback(listener.close)
        return listener

    async def _assemble(self, data: DataFolder, store: Store) -> Services:
        polls = Polls()
        view = FleetView(store.epoch, self._clock.wall())
        runner = Runner(store, view, self._clock, self._config.limits, polls.wake)
        await runner.load()
        return Services(
            config=self._config,
            keys=data.keys,
            store=store,
            blobs=FolderBlobs(data.blobs),
            repository=open_repository(data.repository, data.keys),
            runner=runner,
            polls=polls,
            clock=self._clock,
            randomness=SystemRandomness(),
        )

    async def _admin_token(self, services: Services, data: DataFolder) -> str | None:
        """Return a new admin token when none was ever shown, or when one is asked for. One that was made and not shown, because the process
        died in between, is taken out of use."""
        first = not data.noted(_TOKEN_SHOWN)
        if not first and not self._config.new_admin_token:
            return None
        if first:
            rows = [row for row in services.runner.view.access_tokens.values() if row.spec.name == _FIRST_ADMIN]
            deletes = tuple(Delete(key=Key(ACCESS_TOKEN, "", row.key.name), expect=ANY, missing_ok=True) for row in rows)
            if deletes:
                await services.runner.commit(Transaction(now=self._clock.wall(), writes=deletes))
        lifetime = self._config.limits.first_token_seconds
        text, _ = await make_access_token(services, _FIRST_ADMIN, "admin", lifetime, "control")
        return text


def run(config: ControlConfig, on_ready: Callable[[Ready], None], clock: Clock | None = None) -> None:
    """Run a control plane until SIGINT or SIGTERM. `on_ready` is called once, when it answers: show the admin token there, it is kept
    nowhere. Raises `DataError`, `ListenError`, `StoreError`; whatever else comes out means that a part has failed."""
    import uvloop

    _raise_file_limit()
    uvloop.run(_main(config, on_ready, clock))


async def _main(config: ControlConfig, on_ready: Callable[[Ready], None], clock: Clock | None) -> None:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked.set)
    gc.set_threshold(*_GC_THRESHOLDS)
    plane = ControlPlane(config, clock)
    starting = asyncio.create_task(plane.start())
    waiting = asyncio.create_task(asked.wait())
    try:
        await asyncio.wait((starting, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return
        on_ready(starting.result())
        plane.shown()
        ended = asyncio.create_task(plane.ended())
        await asyncio.wait((ended, waiting), return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ended.result()
            raise StoreError("a part of the control plane has ended: its log says which")
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)
    finally:
        waiting.cancel()
        starting.cancel()
        await asyncio.gather(waiting, starting, return_exceptions=True)
        await plane.stop()


def _raise_file_limit() -> None:
    """Use as many file descriptors as the system allows: each connection takes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
