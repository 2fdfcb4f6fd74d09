"""What the main thread does now and then: inventory, renewal, status, watchdog. Each returns the seconds until it is due again."""

import os
import threading
from collections.abc import Callable

from edgewise.agent.config import AgentConfig
from edgewise.agent.errands import Errands
from edgewise.agent.helper import HelperFailed
from edgewise.agent.inventory import declared_over, scan
from edgewise.agent.jobs import Renewed
from edgewise.agent.limits import AgentLimits
from edgewise.agent.links import Links
from edgewise.agent.log import Log
from edgewise.agent.loop import Loop
from edgewise.agent.outlet import Outlet
from edgewise.agent.statusfile import AgentStatus, StatusFile, instance_lines
from edgewise.agent.version import VERSION
from edgewise.engine import resident
from edgewise.engine.model import State
from edgewise.engine.renewing import Looked, Renewing
from edgewise.ports.clock import Clock
from edgewise.ports.randomness import Randomness
from edgewise.wire.report import DeviceReport
from edgewise.wire.version import CAPABILITIES


class Inventory:
    """Looks at the device now and then, and tells the control plane what it does not know."""

    def __init__(
        self, data_folder: str, config: AgentConfig, outlet: Outlet, boot_id: str, *, state: Callable[[], State], limits: AgentLimits
    ) -> None:
        self._data = data_folder
        self._config = config
        self._outlet = outlet
        self._boot_id = boot_id
        self._state = state
        self._limits = limits
        self._told = resident.Inventory()

    def outdated(self, state: State) -> bool:
        """Whether the control plane has forgotten what it was told."""
        return self._told.outdated(state)

    def run(self) -> float:
        """Look once."""
        capacity = declared_over(scan(self._data), self._config.capacity)
        report = DeviceReport(
            device=self._config.device, capacity=capacity, agent_version=VERSION, boot_id=self._boot_id, capabilities=CAPABILITIES
        )
        if self._told.news(report, self._state()):
            self._outlet.append("status", report)
            self._outlet.flush()
        return self._limits.inventory_seconds


class Renewal:
    """Keeps the certificate fresh, in a thread of its own while the helper process works. `distrusted` comes from the links when the
    control plane turned the identity down."""

    def __init__(
        self, errands: Errands, clock: Clock, randomness: Randomness, log: Log, *, renewed: Callable[[], None], limits: AgentLimits
    ) -> None:
        self._errands = errands
        self._clock = clock
        self._log = log
        self._renewed = renewed
        self._limits = limits
        self._lock = threading.Lock()
        self._decisions = Renewing(clock.monotonic(), limits, randomness)
        self.not_after = 0.0

    def distrusted(self) -> bool:
        """Renew at the next `run`, whatever the certificate says, but not again and again. Returns whether that is due now."""
        with self._lock:
            return self._decisions.distrusted(self._clock.monotonic())

    def run(self) -> float:
        """Begin a renewal if it is time."""
        with self._lock:
            force = self._decisions.begin(self._clock.monotonic())
        if force is not None:
            threading.Thread(target=self._work, args=(force,), name="renew", daemon=True).start()
        return min(60.0, self._limits.renew_retry_seconds)

    def _work(self, force: bool) -> None:  # a thread takes positions
        looked = Looked(well=False)
        try:
            looked = self._take(self._errands.renew(force=force))
        except HelperFailed as error:
            self._log.warning("the certificate could not be looked at", error)
        except Exception as error:  # noqa: BLE001  # the next try may work
            self._log.error(f"renewal: {type(error).__name__}", error)
        with self._lock:
            self._decisions.ended(self._clock.monotonic(), looked)

    def _take(self, result: Renewed) -> Looked:
        self.not_after = result.not_after
        if result.renewed:
            self._log.info("the certificate was renewed")
            self._renewed()
        if result.error:
            self._log.warning("the certificate was not renewed", result.error)
        return Looked(well=not result.error, due_in=result.due_in)


class Reporter:
    """Writes the status file."""

    def __init__(
        self, file: StatusFile, config: AgentConfig, clock: Clock, *, loop: Loop[State], links: Links, limits: AgentLimits
    ) -> None:
        self._file = file
        self._config = config
        self._clock = clock
        self._loop = loop
        self._links = links
        self._limits = limits

    def run(self, not_after: float) -> float:
        """Write it if it is news."""
        state = self._loop.state
        document, contact = state.durable.document, self._links.contact
        now = self._clock.wall()
        self._file.write(
            AgentStatus(
                version=VERSION,
                pid=os.getpid(),
                device=self._config.device,
                written_at=now,
                online=contact.online,
                last_contact=now - (self._clock.monotonic() - contact.last) if contact.online and contact.last is not None else 0.0,
                position=str(document.position) if document is not None else "",
                certificate_not_after=not_after,
                storage=state.storage.message if state.storage is not None else "",
                instances=instance_lines(state),
            )
        )
        return self._limits.status_seconds


def stuck(loop: Loop[State], monotonic: float, limits: AgentLimits) -> bool:
    """Tell whether the engine's thread has been busy with one event for far too long: the disk hangs, or a defect."""
    since = loop.busy_since
    return since is not None and monotonic - since > limits.stuck_seconds


def read_boot_id() -> str:
    """Return the kernel's name for this boot (random(4)), or an empty text."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123  # pathlib would be loaded for this alone
            return file.read(64).strip()
    except OSError:
        return ""
