"""What must happen now and then: server certificates, the repository's expiring metadata, compaction, polls that end, idle connections."""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from edgewise.control.memory import Trimmer, give_back
from edgewise.control.services import Services
from edgewise.control.serving import HttpServer
from edgewise.control.tls import load_new_certificate
from edgewise.controllers.documents import event
from edgewise.store.contract import StoreError, Transaction
from edgewise.trust.repository import MetadataRefused

_LOG: Final = logging.getLogger("edgewise.control.maintenance")
_TICK_SECONDS: Final = 0.5
_SWEEP_TICKS: Final = 10
_WARN_SECONDS: Final = 30 * 86_400.0
_WARN_EVERY_SECONDS: Final = 86_400.0


class Maintenance:
    """Chores of a running control plane. `contexts` are the TLS contexts that get new certificates."""

    def __init__(self, services: Services, contexts: tuple[ssl.SSLContext, ssl.SSLContext], hosts: Sequence[str]) -> None:
        self._services = services
        self.contexts = contexts
        self._hosts = hosts
        self._certificate_at = 0.0
        self._warned_at = 0.0
        self._trimmer = Trimmer()

    async def begin(self, *, restored: bool) -> None:
        """Do what must be done before anybody is answered. Raises what goes wrong."""
        await self._certificates()
        now = self._services.clock.wall()
        if restored:
            await self._services.repository.advance(now)
        await self._services.repository.refresh(now)

    async def run(self, servers: Sequence[HttpServer]) -> None:
        """Go on until cancelled. A chore that fails is said in the log, and tried again the next time."""
        limits = self._services.limits
        async with asyncio.TaskGroup() as chores:
            chores.create_task(self._tick(servers))
            chores.create_task(self._every(limits.repository_check_seconds, self._certificates))
            chores.create_task(self._every(limits.repository_check_seconds, self._repository))
            chores.create_task(self._every(limits.store_compact_seconds, self._compact))

    async def _tick(self, servers: Sequence[HttpServer]) -> None:
        loop = asyncio.get_running_loop()
        count = 0
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._services.polls.tick(loop.time())
            count += 1
            if count % _SWEEP_TICKS == 0:
                for server in servers:
                    server.sweep()
                if self._trimmer.due(sum(server.connections for server in servers)):
                    await asyncio.to_thread(give_back)

    async def _every(self, seconds: float, chore: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await chore()
            except (StoreError, MetadataRefused, OSError):
                _LOG.exception("a chore failed and is tried again")

    async def _certificates(self) -> None:
        services, now = self._services, self._services.clock.wall()
        if now < self._certificate_at:
            return
        lifetime = services.limits.server_certificate_seconds
        load_new_certificate(self.contexts, services.issuer, self._hosts, now, lifetime)
        self._certificate_at = now + lifetime / 2

    async def _repository(self) -> None:
        services, now = self._services, self._services.clock.wall()
        await services.repository.refresh(now)
        expiring = services.repository.expiring(now, _WARN_SECONDS)
        if expiring and now > self._warned_at + _WARN_EVERY_SECONDS:
            self._warned_at = now
            roles = ", ".join(sorted(expiring))
            message = f"the signed repository's {roles} metadata expires within 30 days: devices will then refuse it; sign it again"
            await services.store.write(Transaction(now=now, events=(event(now, "RepositoryExpiring", message, warning=True),)))

    async def _compact(self) -> None:
        await self._services.store.compact(self._services.limits.changes_kept)
