"""The resident agent, put together: files, engine, links, local API, and what the main thread does now and then.

Threads: the main one waits and does chores, `engine` decides, `uplink` and `downlink` talk to the control plane, `workload-api` to the
workloads, `supervisor-link` hears of exits; short-lived ones carry out effects.
"""

import gc
import os
import threading
from functools import partial

from edgewise.agent.aggregate import AggregateLimits, Aggregator, Window
from edgewise.agent.carrier import Carrier
from edgewise.agent.chores import Inventory, Renewal, Reporter, read_boot_id, stuck
from edgewise.agent.config import AgentConfig, TimeFloor
from edgewise.agent.errands import Errands
from edgewise.agent.errors import TlsFailed
from edgewise.agent.helper import Helper
from edgewise.agent.http import Endpoint
from edgewise.agent.limits import LIMITS, AgentLimits
from edgewise.agent.links import LinkParts, Links
from edgewise.agent.log import Log
from edgewise.agent.loop import Loop
from edgewise.agent.outlet import Outlet
from edgewise.agent.schedule import Schedule
from edgewise.agent.slots import Slots, SupervisorGone
from edgewise.agent.statusfile import StatusFile
from edgewise.agent.supervisor_link import SupervisorRefused
from edgewise.agent.telemetry import frame
from edgewise.agent.tls import client_context, distrusting_context
from edgewise.agent.views import views
from edgewise.agent.workers import Pool, Stepper
from edgewise.agent.workload_api import ApiCalls, WorkloadApi
from edgewise.engine import machine, recovery, resident, trees
from edgewise.engine.identity import CERTIFICATE_PATH, KEY_PATH, IdentityDamaged, forget, mend, read_certificates
from edgewise.engine.journal import open_journal
from edgewise.engine.model import State
from edgewise.engine.outbox import open_outbox
from edgewise.engine.protocol import Desired, Event, Heartbeat, Observed
from edgewise.engine.records import Record
from edgewise.ports.clock import SystemClock
from edgewise.ports.files import Files, FilesError
from edgewise.ports.randomness import SystemRandomness
from edgewise.resources.instance import InstanceStatus
from edgewise.wire.desired import DeviceDesired

CLEAN, FAILED, SUPERVISOR_GONE, STUCK = 0, 1, 4, 70
_JOIN_SECONDS = 2.0
_CRASH_GRACE_SECONDS = 60.0
_HEARTBEAT_SECONDS = 0.5


class Runtime:
    """One agent from start to end. Raises `FilesError`, `IdentityDamaged`, `TlsFailed`, `SupervisorGone` when it cannot even start."""

    def __init__(self, data_folder: str, files: Files, config: AgentConfig, log: Log, limits: AgentLimits = LIMITS) -> None:
        self._data, self._files, self._config, self._log, self._limits = data_folder, files, config, log, limits
        self._clock, self._randomness = SystemClock(), SystemRandomness()
        self._began = self._clock.monotonic()
        self._poke = threading.Event()
        self._ending = False
        self._exit_status = CLEAN
        self._boot_id = read_boot_id()
        self._beats: dict[str, float] = {}
        self._forgetting_since: float | None = None
        self._published: State | None = None
        floor = TimeFloor(files, self._clock)
        opened = open_journal(files)
        self._journal = opened.journal
        self._box = open_outbox(files, self._randomness, session=self._randomness.token(16).hex())
        self._outlet = Outlet(self._box, lambda: self._links.wake_uplink())  # noqa: PLW0108  # the links come below
        self._pool = Pool("chore", 2, limits.worker_idle_seconds, log)
        self._errands = Errands(data_folder, files, config, floor, Helper(limits=limits), state=lambda: self._loop.state)
        self._loop: Loop[State] = Loop(
            machine,
            recovery.recover(opened.records, config.device, damage=opened.damage),
            clock=self._clock,
            persist=self._persist,
            carry=lambda effect: self._carrier.carry(effect),  # noqa: PLW0108  # the carrier comes below
            log=log,
            adopted=self._adopted,
            taken=self._taken,
            on_crash=self._crashed,
            limits=limits,
        )
        self._slots = Slots(data_folder, device=config.device, on_exit=self._loop.post, on_gone=self._supervisor_gone)
        self._carrier = Carrier(
            self._slots,
            self._errands,
            log,
            post=self._loop.post,
            emit=self._outlet.append,
            forget=self._forget,
            gone=self._supervisor_gone,
            limits=limits,
        )
        self._api = self._make_api()
        self._renewal = Renewal(self._errands, self._clock, self._randomness, log, renewed=self._renewed, limits=limits)
        self._links = Links(self._link_parts(floor), resident.position(self._loop.state))
        if self._loop.state.durable.document is not None:
            self._links.downlink.note(self._loop.state.durable.document)
        self._engine = Stepper("engine", self._loop.step, log)
        self._inventory = Inventory(data_folder, config, self._outlet, self._boot_id, state=lambda: self._loop.state, limits=limits)
        self._schedule = self._make_schedule()

    def run(self) -> int:
        """Work until told to stop. Returns the exit status."""
        self._api.start()
        self._adopted(self._loop.state)
        running = self._slots.observe()
        self._loop.post(Observed(slots=running, installed=trees.whole_trees(self._files), boot_id=self._boot_id))
        self._engine.start()
        self._links.start()
        self._open_secrets()
        # What is there now stays for good: keep the collector from touching, and so from dirtying, these pages.
        gc.collect()
        gc.freeze()
        while not self._ending:
            wait = self._schedule.run_due()
            self._poke.wait(wait)
            self._poke.clear()
        self._close()
        return self._exit_status

    def stop(self, status: int = CLEAN) -> None:
        """End soon. Workloads run on. From any thread or a signal handler."""
        self._exit_status = self._exit_status or status
        self._ending = True
        self._poke.set()

    # ---- putting together ----

    def _make_api(self) -> WorkloadApi:
        calls = ApiCalls(heartbeat=self._heartbeat, secret=self._errands.secrets.get, window=self._window)
        aggregator = Aggregator(AggregateLimits(window_seconds=self._config.telemetry_seconds or AggregateLimits().window_seconds))
        return WorkloadApi(self._data, device=self._config.device, calls=calls, aggregator=aggregator, clock=self._clock)

    def _link_parts(self, floor: TimeFloor) -> LinkParts:
        return LinkParts(
            data_folder=self._data,
            poll_seconds=self._config.poll_seconds,
            boot_id=self._boot_id,
            session=self._box.session,
            clock=self._clock,
            randomness=self._randomness,
            log=self._log,
            limits=self._limits,
            floor=floor,
            outlet=self._outlet,
            endpoint=self._endpoint,
            contact=self._loop.post,
            take=self._take,
            distrust=self._distrusted,
        )

    def _make_schedule(self) -> Schedule:
        schedule = Schedule(self._clock.monotonic, self._log)
        reporter = Reporter(StatusFile(self._files), self._config, self._clock, loop=self._loop, links=self._links, limits=self._limits)
        schedule.add("inventory", self._inventory.run)
        schedule.add("renewal", self._renewal.run, after=self._limits.renew_first_seconds)
        schedule.add("status", lambda: reporter.run(self._renewal.not_after), after=1.0)
        schedule.add("forget", self._forget_when_told, after=None)
        schedule.add("contact", self._links.contact.check)
        schedule.add("watchdog", self._watch, after=self._limits.watchdog_seconds)
        return schedule

    def _endpoint(self) -> Endpoint:
        """Return how to connect. A damaged identity must not keep the device from its work: then it runs on, and trusts nobody."""
        folder = self._data.rstrip("/")
        try:
            if mend(self._files):
                self._log.warning("the certificate file was damaged, and is whole again from its copy")
            certificates = read_certificates(self._files)
            authority = certificates.authority if certificates is not None else ""
            context = client_context(authority, f"{folder}/{CERTIFICATE_PATH}", f"{folder}/{KEY_PATH}")
        except (IdentityDamaged, FilesError, TlsFailed) as error:
            self._log.error(
                "the identity cannot be used; have the device join again with a new token (`edgewise agent join --force`)", error
            )
            context = distrusting_context()
        return Endpoint(addresses=self._config.addresses, context=context, proxy=self._config.proxy)

    # ---- the engine's thread ----

    def _persist(self, records: tuple[Record, ...]) -> None:
        resident.persist(self._journal, records, self._outlet.make_room, self._loop.state)

    def _adopted(self, state: State) -> None:
        """Have the local API know of an instance before its process starts and asks."""
        if self._published is not None and state.live is self._published.live and state.durable is self._published.durable:
            return
        shown = views(state)
        try:
            self._api.publish(shown)
        except OSError as error:
            self._log.error("the local workload API cannot be offered", error)
        self._errands.secrets.keep(shown)
        before, self._published = self._published, state
        if self._inventory.outdated(state):
            self._schedule.ask("inventory")
            self._poke.set()
        if before is None or _told(before) != _told(state):
            self._schedule.ask("status", after=self._limits.status_soon_seconds)
            self._poke.set()

    def _taken(self, event: Event, state: State) -> None:
        self._outlet.flush()
        known = resident.exit_known(event)
        if known:
            self._acknowledge(known)
        if isinstance(event, Observed):
            for launch_id in resident.exits_found(event.slots):
                self._acknowledge(launch_id)
            self._pool.submit(self._report_healthy)
        problem = resident.compacted(self._journal, state)
        if problem is not None:
            self._log.warning("the journal could not be compacted", problem)

    def _crashed(self, event: Event, _error: Exception) -> None:
        """Take note of a defect. A start afresh finds out what is so: but not at once again, and not for what the control plane sent."""
        if not isinstance(event, Desired) and self._clock.monotonic() - self._began > _CRASH_GRACE_SECONDS:
            self.stop(STUCK)

    # ---- other threads ----

    def _take(self, document: DeviceDesired) -> None:
        if document.device == self._config.device:
            self._loop.post(Desired(document=document))
            self._schedule.ask("contact")
            self._poke.set()
        else:
            self._log.warning("a desired state for another device was passed over", document.device[:128])

    def _heartbeat(self, instance: str) -> None:
        now = self._clock.monotonic()
        if now - self._beats.get(instance, -_HEARTBEAT_SECONDS) >= _HEARTBEAT_SECONDS:
            self._beats[instance] = now
            self._loop.post(Heartbeat(instance=instance))

    def _window(self, window: Window) -> None:
        if self._config.telemetry_seconds:
            self._outlet.append("telemetry", frame(window, self._config.device, self._boot_id))
            self._outlet.flush()

    def _acknowledge(self, launch_id: str) -> None:
        def tell() -> None:
            try:
                self._slots.acknowledge(launch_id)
            except SupervisorRefused as refused:
                self._log.warning("an exit could not be acknowledged", refused)
            except SupervisorGone:
                self._supervisor_gone()

        self._pool.submit(tell)

    def _report_healthy(self) -> None:
        try:
            self._slots.report_healthy()
        except SupervisorGone:
            self._supervisor_gone()

    def _open_secrets(self) -> None:
        """Open the secrets of what runs already: it may ask for them again."""
        for name, view in views(self._loop.state).items():
            if view.secrets:
                self._pool.submit(partial(self._errands.open_secrets, name, view.revision))

    def _distrusted(self) -> None:
        if self._renewal.distrusted():
            self._schedule.ask("renewal")
            self._poke.set()

    def _renewed(self) -> None:
        self._links.renew_endpoint()

    def _supervisor_gone(self) -> None:
        self._log.error("the supervisor is gone")
        self.stop(SUPERVISOR_GONE)

    def _forget(self) -> None:
        self._forgetting_since = self._clock.monotonic()
        self._schedule.ask("forget")
        self._poke.set()

    # ---- the main thread ----

    def _watch(self) -> float:
        if stuck(self._loop, self._clock.monotonic(), self._limits) or not self._engine.alive:
            self._log.error("the engine's thread does not come back; starting afresh")
            os._exit(STUCK)
        return self._limits.watchdog_seconds

    def _forget_when_told(self) -> float | None:
        """Decommissioned: once the control plane knows that all has stopped (or after a while), forget everything and end."""
        since = self._forgetting_since
        if since is None:
            return None
        if resident.may_forget(since, self._clock.monotonic(), self._limits, told=self._outlet.empty):
            self.stop()
        return resident.FORGET_POLL_SECONDS

    def _close(self) -> None:
        self._links.stop(_JOIN_SECONDS)
        self._engine.stop()
        self._loop.stop()
        self._engine.join(_JOIN_SECONDS)
        self._errands.stop()
        self._api.close()
        self._outlet.close()
        self._journal.close()
        if self._forgetting_since is not None:
            self._remove_all()
        self._slots.close()

    def _remove_all(self) -> None:
        try:
            forget(self._files)
            self._slots.stop_all()
        except FilesError as error:
            self._log.error("not everything could be removed", error)
        except SupervisorGone:
            return


def _told(state: State) -> dict[str, InstanceStatus | None]:
    """Return what was last told of each instance."""
    return {name: live.reported for name, live in state.live.items()}
