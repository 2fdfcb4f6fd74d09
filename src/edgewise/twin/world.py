"""One run: builds the whole world of a plan, lets acts and faults come in their time, and says when everything has come to rest.

`run.py` drives it to its end. For numbers and experiments it can be driven by hand: `World(plan)`, `advance(seconds)`, `begin()`. A world
that is warmed up can begin any plan that warms up alike (`plan.warm_up_of`).
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from edgewise.controllers.gateway import ReportDecision
from edgewise.controllers.reconcile import Decision
from edgewise.engine.model import State
from edgewise.engine.protocol import Effect, Event
from edgewise.resources.artifact import ArtifactVersion
from edgewise.resources.meta import Metadata
from edgewise.resources.quantity import seconds
from edgewise.resources.site import Site, SiteSpec
from edgewise.store.contract import Change
from edgewise.twin import faults
from edgewise.twin.asfound import AsFound
from edgewise.twin.control import SimControl, Witness
from edgewise.twin.device import SimDevice, Surroundings, Watch
from edgewise.twin.disk import ENDLESS, RecordingDisk
from edgewise.twin.fleet import DeviceClass, TwinDevice
from edgewise.twin.identities import Identities
from edgewise.twin.kernel import Kernel
from edgewise.twin.network import Network
from edgewise.twin.observe import Observations
from edgewise.twin.observers import EngineStep, Observer
from edgewise.twin.outages import ControlOutages
from edgewise.twin.overlaps import Overlaps
from edgewise.twin.people import Operator
from edgewise.twin.plain import PlainDisk
from edgewise.twin.plan import Act, Plan, Subject, new_versions, told
from edgewise.twin.publish import Published
from edgewise.twin.rest import Rest
from edgewise.twin.result import RunResult, Violation
from edgewise.twin.scenario import Fault
from edgewise.twin.schedule import kept, schedule
from edgewise.twin.trust import SharedChecks, TwinRepository, verifying
from edgewise.twin.vault import MemoryVault, SqliteVault, Vault
from edgewise.twin.workloads import Behaviours
from edgewise.wire.desired import DesiredState
from edgewise.wire.report import Report

__all__ = ["MakeDevice", "World", "WorldLimits"]

MakeDevice = Callable[..., SimDevice]


_KEEP_FRESH_SECONDS: Final = 6 * 3600.0
_STRIDE_SECONDS_MAX: Final = 86_400.0


class WorldLimits(msgspec.Struct, frozen=True, kw_only=True):
    """`first_power_per_second`: how many devices are switched on in a second, at the start. `retry_seconds`: when people try again what
    they could not do because the control plane was away. `violations_max` are kept. `check_seconds`: how often a run looks whether
    everything is at rest."""

    first_power_per_second: float = 500.0
    retry_seconds: float = 5.0
    cut_seconds: float = 10.0
    violations_max: int = 100
    check_seconds: float = 1.0


LIMITS: Final = WorldLimits()


class World(Watch, Witness):
    """The world of one plan."""

    def __init__(
        self,
        plan: Plan,
        *,
        observers: Sequence[Observer] = (),
        sink: Callable[[str], None] | None = None,
        make_device: MakeDevice = SimDevice,
        limits: WorldLimits = LIMITS,
    ) -> None:
        self.plan = plan
        self.limits = limits
        self.kernel = Kernel(plan.seed if plan.warm_up_seed is None else plan.warm_up_seed, sink)
        self.repository = TwinRepository(self.kernel.stream("repository"), self.kernel.wall) if plan.profile.trust == "tuf" else None
        """The signed repository, where devices verify it."""
        self.published = Published(plan.profile.install, self._release if self.repository is not None else None)
        self.vault: Vault = SqliteVault(lambda: self.kernel.wall) if plan.profile.store == "sqlite" else MemoryVault()
        self.control = SimControl(
            self.kernel,
            self.vault,
            blob_size=self.published.size,
            repository=self._file,
            root=self.repository.root if self.repository is not None else b"",
            certificate_seconds=plan.profile.certificate_seconds,
        )
        self.control.witness = self
        self.network = Network(self.kernel, self.control)
        self.people = Operator(self.kernel, self.control, self.published)
        self.observations = Observations(self.kernel)
        self.faults: tuple[Fault, ...] = ()
        self.faults_begun = 0
        self.devices: dict[str, SimDevice] = {}
        self.twins: dict[str, TwinDevice] = {device.name: device for device in plan.fleet.devices}
        self.classes: dict[str, DeviceClass] = {sort.name: sort for sort in plan.fleet.classes}
        self.lost: dict[str, None] = {}
        """Devices that never come back."""
        self.violations: list[Violation] = []
        self.t0: float | None = None
        self.settled_at: float | None = None
        self._offs: dict[str, int] = {}
        self.pending = 0
        """Acts and faults that have not come, or not ended, yet."""
        self._turns, self._asleep = list[float](), 0.0
        self._for_rollout: list[Fault] = []
        self.found = AsFound(self)
        self.identities = Identities(self)
        self.overlaps = Overlaps()
        self.outages = ControlOutages(self)
        self.exchanges_before = 0
        """Exchanges of the warm-up."""
        self._energy_before = 0.0
        self._bytes_before: dict[str, int] = {}
        self._rest = Rest(self)
        self._hooks(observers)
        self._build(make_device)
        self._keep_fresh()
        self._take_up(plan)

    def _hooks(self, observers: Sequence[Observer]) -> None:
        """Call only what observers override."""

        def overriding(name: str) -> tuple[Observer, ...]:
            return tuple(each for each in observers if getattr(type(each), name) is not getattr(Observer, name))

        self._observers = tuple(observers)
        self._on_stepped = overriding("stepped")
        self._on_started = overriding("started")
        self._on_ready = overriding("ready")
        self._on_committed = overriding("committed")
        self._on_refused = overriding("refused")
        self._on_wrote = overriding("wrote")
        self._on_decided = overriding("decided")
        self._on_reported = overriding("reported")
        self._on_told = overriding("told")
        self._on_lived = overriding("lived")
        for observer in overriding("ticked"):
            if observer.every is not None:
                self._tick_later(observer, observer.every)

    def _tick_later(self, observer: Observer, every: float) -> None:
        def tick() -> None:
            observer.ticked(self)
            self.kernel.after(max(every, self.stride), tick)

        self.kernel.after(every, tick)

    # ---- building ----

    def _build(self, make_device: MakeDevice) -> None:
        plan, fleet = self.plan, self.plan.fleet
        self.control.start()
        overall = plan.scenario.link
        for site in fleet.sites:
            self.network.add_site(site.name, overall if overall is not None else site.link)
            self.people.apply(Site(metadata=Metadata(name=site.name), spec=SiteSpec(failover_domain=site.failover_domain)))
            self.control.make_token(_token(site.name), site.name)
        self.around = self.surroundings(self)
        before: list[Subject] = [*fleet.artifacts, *fleet.versions, *map(self.found.placed, fleet.workloads)]
        for resource in before:
            self.people.complete(resource)
            self.people.apply(resource)
        gap = 1.0 / self.limits.first_power_per_second
        for number, device in enumerate(fleet.devices):
            link = self.network.add_device(device.name, device.site)
            made = make_device(self.around, device, self.classes[device.device_class], link, token=_token(device.site))
            self.devices[device.name] = made
            self.kernel.at(number * gap, made.power_on)

    def surroundings(self, watch: Watch) -> Surroundings:
        """Return what devices share whose doings `watch` hears of."""
        recording = self.plan.profile.disk == "recording"
        return Surroundings(
            self.kernel,
            self.plan.profile,
            contents=self.published,
            make_disk=lambda _name, capacity: RecordingDisk(capacity=capacity or ENDLESS) if recording else PlainDisk(capacity or ENDLESS),
            behaviours=self.plan.scenario.behaviours,
            new_versions=new_versions(self.plan),
            watch=watch,
            resolve=verifying(self.repository.manifests, SharedChecks()) if self.repository is not None else None,
        )

    def _file(self, name: str) -> bytes | None:
        return self.repository.file(name) if self.repository is not None else None

    def _release(self, version: ArtifactVersion) -> None:
        if self.repository is not None:
            self.repository.publish(version, self.kernel.wall)

    def _keep_fresh(self) -> None:
        """Sign the online roles again in time, as a control plane that runs does."""
        if self.repository is not None:
            if self.control.up:
                self.repository.keep_fresh(self.kernel.wall)
            self.kernel.after(_KEEP_FRESH_SECONDS, self._keep_fresh)

    def token_of(self, name: str) -> str:
        """Return what a device joins with."""
        return _token(self.twins[name].site)

    # ---- the run ----

    @property
    def check_seconds(self) -> float:
        """How often a run looks whether everything is at rest: less often in a large fleet."""
        return self.limits.check_seconds * max(1.0, len(self.devices) / 5_000.0)

    @property
    def stride(self) -> float:
        """How far a run may go before it looks again: as long as every device lies in a drawer, to the next act or fault."""
        if not self.pending or any(device.powered for device in self.devices.values()):
            return self.check_seconds
        ahead = min((at for at in self._turns if at > self.kernel.now), default=0.0) - self.kernel.now
        return max(self.check_seconds, min(ahead, _STRIDE_SECONDS_MAX))

    def _take_up(self, plan: Plan) -> None:
        """Take up what only the run decides, not how it warmed up."""
        self.plan = plan
        self.faults = kept(schedule(plan.scenario, plan.fleet, plan.seed), plan.only)
        for observer in self._observers:
            observer.began(self)

    def begin(self, plan: Plan | None = None) -> None:
        """Begin to count: from now on acts and faults come, those of `plan` where it is given. It must warm up as the world's own does."""
        if plan is not None and plan is not self.plan:
            self.around.behaviours = Behaviours(self.kernel, plan.scenario.behaviours, new_versions(plan))
            self._take_up(plan)
        self.found.let_go()
        if self.plan.warm_up_seed is not None:
            self.kernel.reseed(self.plan.seed)
            self.kernel.note("begin", "run", str(self.plan.seed))
        t0 = self.t0 = self.kernel.now
        self.exchanges_before = self.control.exchanges
        self.observations.began_at = t0
        self.observations.begin()
        self._bytes_before = self.network.bytes_by_site()
        self._energy_before = sum(device.energy_watt_hours for device in self.devices.values())
        self._turns = [t0 + at for fault in self.faults for at in (fault.at, fault.at + fault.lasts)] + [
            t0 + act.at for act in self.plan.acts
        ]
        for act in self.plan.acts:
            self.pending += 1
            self.kernel.at(t0 + act.at, self._act_call(act))
        for fault in self.faults:
            self.pending += 1
            if fault.rule.during_rollout:
                self._for_rollout.append(fault)
            else:
                self._fault_at(fault, t0)

    def _act_call(self, act: Act) -> Callable[[], None]:
        def call() -> None:
            if not self.control.up:
                self.kernel.after(self.limits.retry_seconds, call)
                return
            self.pending -= 1
            if act.apply is not None:
                self.people.complete(act.apply)
            self.people.act(act)
            self.observations.moment("change", *told(act))

        return call

    def _fault_at(self, fault: Fault, base: float) -> None:
        if fault.rule.fault == "control-restore":
            self.kernel.at(base + fault.at - fault.rule.seconds, lambda: self.outages.back_up(fault.number))
        self.kernel.at(base + fault.at, lambda: self._begin_fault(fault))

    def _begin_fault(self, fault: Fault) -> None:
        rule = fault.rule
        self.faults_begun += 1
        whom = ",".join(fault.devices) if len(fault.devices) <= 3 else f"{len(fault.devices)} devices"
        self.kernel.note("fault", rule.fault, f"{fault.number} {whom}")
        at = self.kernel.now - (self.t0 or 0.0)
        self.observations.moment("fault", rule.fault, whom, round(at + fault.lasts, 6) if fault.lasts else None)
        faults.begin(self, fault)
        self.kernel.after(fault.lasts, lambda: self._end_fault(fault))

    def _end_fault(self, fault: Fault) -> None:
        self.pending -= 1
        if fault.lasts:
            self.kernel.note("fault-over", fault.rule.fault, str(fault.number))
        faults.end(self, fault)

    def advance(self, by: float) -> None:
        """Let `by` seconds pass."""
        self._asleep += by if by > self.check_seconds else 0.0
        self.kernel.run(self.kernel.now + by)

    @property
    def bound(self) -> float:
        """When the run ends at the latest."""
        scenario = self.plan.scenario
        base = self.t0 if self.t0 is not None else self.plan.warm_up
        return base + seconds(scenario.lasts) + seconds(scenario.settle)

    def over(self) -> bool:
        """Tell whether everything has come, ended and settled."""
        if self.pending and not self._only_waiting_for_rollouts():
            return False
        if not self.at_rest() or self._rest.dark():
            return False
        self.settled_at = self.kernel.now
        return True

    def _only_waiting_for_rollouts(self) -> bool:
        """Faults that wait for a rollout do not keep a run going in which there is none."""
        return bool(self._for_rollout) and self.pending == len(self._for_rollout)

    def finish(self) -> None:
        """End the run: let observers look once more."""
        for observer in self._observers:
            observer.ended(self)

    # ---- at rest ----

    def reachable(self, name: str) -> bool:
        """Tell whether a device has power and a way to the control plane, and may use it."""
        return self._rest.reachable(name)

    def at_rest(self) -> bool:
        """Tell whether no rollout goes on, every reachable device is up to date, and every workload that can run does."""
        return not self._rest.unsettled()

    def unsettled(self) -> str:
        """Return what is not at rest yet, in words, or nothing."""
        return self._rest.unsettled()

    # ---- what faults do ----

    def is_on(self, name: str) -> bool:
        """Tell whether no fault has taken a device's power."""
        return not self._offs.get(name) and name not in self.lost

    def power_off(self, name: str, crash: str) -> None:
        """Take a device's power. What takes it twice must give it back twice."""
        self._offs[name] = self._offs.get(name, 0) + 1
        if self._offs[name] > 1 or name in self.lost:
            return
        self.network.links[name].dark = True
        self.devices[name].power_off(crash)

    def power_on(self, name: str) -> None:
        """Give a device its power back."""
        self._offs[name] = max(0, self._offs.get(name, 0) - 1)
        if self._offs[name] or name in self.lost:
            return
        self.network.links[name].dark = False
        self.devices[name].power_on()

    def replace_hardware(self, name: str) -> None:
        """Put new hardware in a device's place, and give it power: people take the old agent out of use first."""
        self._offs[name] = max(0, self._offs.get(name, 0) - 1)
        self.network.links[name].dark = False
        self.identities.replace(name)
        if self._offs[name]:
            self.devices[name].power_off("dropped")

    # ---- device.Watch ----

    def stepped(self, device: SimDevice, event: Event, before: State, after: State, effects: list[Effect]) -> None:
        """See `Watch`."""
        if self._on_stepped:
            step = EngineStep(event, before, after, effects)
            for observer in self._on_stepped:
                observer.stepped(self, device, step)

    def started(self, device: SimDevice, instance: str, revision: str) -> None:
        """See `Watch`."""
        self.observations.started(device.name, instance, revision)
        for observer in self._on_started:
            observer.started(self, device, instance, revision)

    def ready(self, device: SimDevice, instance: str, version: str, *, ready: bool) -> None:
        """See `Watch`."""
        self.observations.ready(device.name, instance, version, ready=ready)
        for observer in self._on_ready:
            observer.ready(self, device, instance, version, ready=ready)

    def committed(self, device: SimDevice, instance: str, revision: str) -> None:
        """See `Watch`."""
        for observer in self._on_committed:
            observer.committed(self, device, instance, revision)

    def refused(self, device: SimDevice, instance: str, revision: str) -> None:
        """See `Watch`."""
        for observer in self._on_refused:
            observer.refused(self, device, instance, revision)

    def failed(self, device: SimDevice, instance: str, revision: str) -> None:
        """See `Watch`."""
        self.observations.failure(device.name, instance, revision)

    def power(self, device: SimDevice, *, on: bool) -> None:
        """See `Watch`."""
        self.observations.powered(device.name, on=on)

    def cut(self, device: SimDevice) -> None:
        """See `Watch`. Whoever cut it lets it come back a while later."""
        self.kernel.after(self.limits.cut_seconds, lambda: device.power_on() if self.is_on(device.name) else None)

    # ---- control.Witness ----

    def wrote(self, changes: tuple[Change, ...]) -> None:
        """See `Witness`."""
        view = self.control.view
        self.observations.wrote(view, changes)
        if self.found.cordoned:
            self.found.wrote(changes)
        if self._for_rollout and self.observations.rollout_began and self.t0 is not None:
            self._rollout_began()
        for observer in self._on_wrote:
            observer.wrote(self, changes)

    def decided(self, decision: Decision) -> None:
        """See `Witness`."""
        for observer in self._on_decided:
            observer.decided(self, decision)

    def reported(self, agent: str, report: Report, decision: ReportDecision) -> None:
        """See `Witness`."""
        for observer in self._on_reported:
            observer.reported(self, agent, report, decision)

    def told(self, agent: str, desired: DesiredState) -> None:
        """See `Witness`."""
        for observer in self._on_told:
            observer.told(self, agent, desired)

    def lived(self, what: str) -> None:
        """See `Witness`."""
        if what == "started":
            self.observations.reread(self.control.view)
            self.kernel.after(self.limits.retry_seconds, self.identities.tend)
        elif what == "restored":
            self.identities.restored()
        for observer in self._on_lived:
            observer.lived(self, what)

    def _rollout_began(self) -> None:
        waiting, self._for_rollout = self._for_rollout, []
        for fault in waiting:
            self._fault_at(fault, self.kernel.now)

    # ---- results ----

    def violated(self, invariant: str, subject: str, message: str) -> None:
        """Note that an invariant did not hold."""
        self.kernel.note("violation", subject, f"{invariant} {message}")
        if len(self.violations) < self.limits.violations_max:
            at = round(self.kernel.now - (self.t0 or 0.0), 6)
            self.violations.append(Violation(invariant=invariant, at=at, subject=subject, message=message))

    def result(self, *, interrupted: bool = False) -> RunResult:
        """Return what the run gave."""
        observations, now = self.observations, self.kernel.now
        t0 = self.t0 if self.t0 is not None else now
        energy = sum(device.energy_watt_hours for device in self.devices.values()) - self._energy_before
        return RunResult(
            seed=self.plan.seed,
            trace_hash=self.kernel.trace.hash(),
            simulated_seconds=round(now - t0, 6),
            device_hours=round((now - self._asleep) * len(self.devices) / 3600.0, 6),
            exchanges=self.control.exchanges,
            warm_up_exchanges=self.exchanges_before,
            events=self.kernel.called,
            devices=len(self.devices),
            devices_failed=tuple(sorted(observations.failed)),
            rollouts=observations.rollouts(),
            workloads=observations.workloads(),
            site_bytes={name: size - self._bytes_before.get(name, 0) for name, size in sorted(self.network.bytes_by_site().items())},
            energy_watt_hours=round(energy, 6),
            settled_at=None if self.settled_at is None else round(self.settled_at - t0, 6),
            timeline=tuple(observations.timeline),
            counts=tuple(observations.counts),
            faults=self.faults_begun,
            violations=tuple(self.violations),
            interrupted=interrupted,
        )

    def close(self) -> None:
        """Let go of what the run held outside of memory."""
        self.vault.close()


def _token(site: str) -> str:
    return f"token-{site}"
