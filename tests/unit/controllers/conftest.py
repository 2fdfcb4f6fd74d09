"""A fleet in memory: documents under the store's own rules, the view, the decisions, and devices that do as they are told at once."""

from types import SimpleNamespace

import msgspec
import pytest

from edgewise.controllers import gateway, reconcile
from edgewise.controllers.answers import Refusal
from edgewise.controllers.tokens import JoinTokenSpec, create_join_token
from edgewise.controllers.view import FleetView
from edgewise.resources.artifact import (
    Artifact,
    ArtifactSpec,
    ArtifactVersion,
    ArtifactVersionSpec,
    File,
    Manifest,
    Parameter,
    Profile,
    Variant,
    VariantRequirements,
)
from edgewise.resources.device import Capacity
from edgewise.resources.instance import Instance, InstanceStatus
from edgewise.resources.meta import Metadata
from edgewise.resources.states import InstanceState, UpdateState
from edgewise.resources.workload import (
    AnalysisMetric,
    ArtifactReference,
    Canary,
    Disconnect,
    EveryMatchingDevice,
    Placement,
    Strategy,
    Workload,
    WorkloadSpec,
)
from edgewise.store.codec import decode, encode_spec, encode_status, key_of
from edgewise.store.contract import ANY, ConflictError, Delete, Key, Put, StoreLimits, Transaction, Written
from edgewise.store.plan import planned
from edgewise.wire.enrolment import JoinRequest
from edgewise.wire.report import DeviceReport, FrameReport, InstanceReport, LaneItems, Report, Series

LIMITS = StoreLimits()
CAPACITY = Capacity(architecture="x86_64", cpu_milli=4000, memory=4 * 2**30, disk=32 * 2**30, runtimes={"python": "3.11"})


class Store:
    """The store's rules over a dictionary."""

    def __init__(self):
        self.documents = {}
        self.revision = 0
        self.events = []
        self.marks = []

    def write(self, transaction):
        changes = planned(transaction, self.documents, self.revision + 1, LIMITS)
        for change in changes:
            if change.document is None:
                del self.documents[change.key]
            else:
                self.documents[change.key] = change.document
        if changes:
            self.revision += 1
        self.events += transaction.events
        self.marks += transaction.marks
        return Written(revision=self.revision, changes=changes)


class Device:
    """A device that obeys: fetches its desired state, runs it at once, reports. `bad` revisions (by version) fail in Probation."""

    def __init__(self, fleet, name, agent):
        self.fleet, self.name, self.agent = fleet, name, agent
        self.online = True
        self.dark = False
        self.slow = False
        self.stuck = set()
        self.killed_by = set()
        self.after = None
        self.told = {}
        self.status = {}
        self.refused = {}
        self.cleared = 0
        self.decommissioned = False
        self.sequence = {}
        self.session = f"session-{name}-1"
        self.incarnation = f"outbox-{name}"
        self.starts = []

    def report(self, lane, *items):
        first = self.sequence.get(lane, 1)
        self.sequence[lane] = first + len(items)
        report = Report(incarnation=self.incarnation, session=self.session, lanes={lane: LaneItems(first=first, items=items)})
        return self.fleet.report(self, report)

    def step(self):
        """Fetch, act, report. Return whether something happened."""
        if not self.online or self.dark:
            return False
        answer = gateway.decide_desired(self.agent, self.after, self.fleet.view, self.fleet.seal)
        if isinstance(answer, Refusal):
            return False
        if answer is not None:
            self.after = answer.position
            for document in answer.devices:
                if document.cleared_refusals > self.cleared:
                    self.cleared = document.cleared_refusals
                    self.refused.clear()
                self.told = {instance.name: instance for instance in document.instances}
                self.decommissioned = document.decommission
        return self.act()

    def act(self):
        items = []
        for name in list(self.status):
            if name not in self.told:
                del self.status[name]
        if any(told.artifact.target.endswith(f"/{version}.json") for told in self.told.values() for version in self.killed_by):
            self.online = False
            return False
        for name, told in sorted(self.told.items()):
            before = self.status.get(name)
            if told.desired == "Stopped":
                self.status.pop(name, None)
                items.append(InstanceReport(device=self.name, name=name, uid=told.uid, status=InstanceStatus(), gone=True))
                continue
            status = self.run(name, told, before)
            if status != before:
                self.status[name] = status
                items.append(InstanceReport(device=self.name, name=name, uid=told.uid, status=status))
        if self.decommissioned and not [item for item in items if not item.gone]:
            items.append(DeviceReport(device=self.name, decommissioned=True))
            self.online = False
        if items:
            self.online = True
            self.report("status", *items)
            if self.decommissioned:
                self.online = False
        return bool(items)

    def run(self, name, told, before):
        if before is None:
            before = InstanceStatus()
        refused = tuple(sorted({*self.refused.get(name, ()), *told.rejected}))
        self.refused[name] = refused
        revision = told.revision
        version = told.artifact.target.rpartition("/")[2].removesuffix(".json")
        base = msgspec.structs.replace(before, observed_epoch=told.epoch, refused=refused)
        if before.committed == revision:
            return msgspec.structs.replace(
                base, state=InstanceState.RUNNING, update=UpdateState.IDLE, revision=revision, update_revision="", ready=True, traffic=None
            )
        if revision in refused:
            return self.back(base, revision)
        if version in self.stuck or self.slow:
            return msgspec.structs.replace(base, update=UpdateState.DOWNLOAD, update_revision=revision)
        if version in self.fleet.bad or (self.name, version) in self.fleet.bad:
            self.refused[name] = (*refused, revision)
            failed = msgspec.structs.replace(base, refused=self.refused[name])
            return self.back(failed, revision)
        if before.update_revision != revision or before.update != UpdateState.PROBATION:
            self.starts.append((name, revision))
        held = msgspec.structs.replace(
            base,
            state=InstanceState.RUNNING,
            update=UpdateState.PROBATION,
            update_revision=revision,
            revision=revision,
            ready=True,
            variant=told.artifact.variant,
        )
        if told.hold and told.traffic is not None and before.committed and told.artifact.type == "model":
            return msgspec.structs.replace(held, revision=before.committed, traffic=told.traffic)
        held = msgspec.structs.replace(held, traffic=None)
        if told.hold:
            return held
        return msgspec.structs.replace(held, update=UpdateState.IDLE, update_revision="", committed=revision, previous=before.committed)

    def back(self, status, revision):
        return msgspec.structs.replace(
            status,
            state=InstanceState.RUNNING if status.committed else InstanceState.ERRORED,
            update=UpdateState.FAILED,
            update_revision=revision,
            revision=status.committed,
            traffic=None,
            ready=bool(status.committed),
            reason="ProbeFailed",
            message="it did not answer",
        )

    def able(self, *capabilities):
        """Say which agent this is, and what it can do."""
        self.report("status", DeviceReport(device=self.name, agent_version="1.0", capabilities=capabilities))

    def measure(self, workload, value, metric="accuracy", count=50, revision=None):
        revision = revision if revision is not None else self.status[workload].revision
        series = Series(
            name=metric, unit="1", type="gauge", instance=workload, revision=revision, count=count, sum=value * count,
            sum_squares=value * value * count, min=value, max=value, last=value,
        )  # fmt: skip
        now = self.fleet.now
        frame = FrameReport(device=self.name, boot_id="b", start=now - 1, end=now, monotonic=1.0, series=(series,))
        return self.report("telemetry", frame)


class Fleet:
    """Store, view and devices under one clock."""

    def __init__(self):
        self.store = Store()
        self.now = 1_000_000.0
        self.devices = {}
        self.bad = set()
        self.transactions = []
        self.largest = 0
        self.wake_at = None
        self.joins = 0
        self.start()

    def start(self):
        """Start the control plane (again): a fresh view from the documents."""
        self.view = FleetView(1, self.now)
        self.view.load(self.store.documents.values())
        for mark in self.store.marks:
            self.view.apply_mark(mark)
        self.view.loaded(self.store.revision)
        self.polling = set()
        self.refresh()

    def seal(self, key, device):
        return f"{key.kind}/{key.name} for {device}".encode()

    # ---- the shell ----

    def write(self, transaction):
        written = self.store.write(transaction)
        for change in written.changes:
            self.view.apply(change)
        return written

    def refresh(self):
        for agent in gateway.refresh(self.view) & self.polling:
            self.view.poll_closed(agent, self.now)
            self.polling.discard(agent)

    def settle(self, limit=200):
        """Handle until nothing is left. Return how many writes that took."""
        writes = 0
        for _ in range(limit):
            decision = reconcile.handle(reconcile.Changed(), self.view, self.now)
            self.wake_at = decision.wake_at
            if not decision.transactions:
                self.refresh()
                return writes
            for transaction in decision.transactions:
                self.largest = max(self.largest, len(transaction.writes))
                writes += len(transaction.writes)
                self.transactions.append(transaction)
                try:
                    self.write(transaction)
                except ConflictError:
                    break
        raise AssertionError(f"no end of decisions: {self.transactions[-3:]}")

    def report(self, device, report):
        decision = gateway.decide_report(report, device.agent, self.view, self.now)
        if isinstance(decision, Refusal):
            if decision.transaction is not None:
                self.write(decision.transaction)
            return decision
        written = self.store.write(decision.transaction)
        gateway.settle(self.view, decision, written)
        self.view.contact(device.agent, self.now)
        return decision

    def round(self):
        """Let presence follow the devices, then decide, then let every device do one step. Return whether something happened."""
        for device in self.devices.values():
            if device.online and not device.dark and device.agent not in self.polling:
                self.view.poll_opened(device.agent, self.now)
                self.polling.add(device.agent)
            elif not device.online and device.agent in self.polling:
                self.view.poll_closed(device.agent, self.now)
                self.polling.discard(device.agent)
        wrote = self.settle()
        moved = [device.step() for device in self.devices.values()]
        return bool(wrote) or any(moved)

    def run(self, seconds=0.0, step=1.0):
        """Let time pass."""
        end = self.now + seconds
        while True:
            for _ in range(60):
                if not self.round():
                    break
            else:
                raise AssertionError("the fleet does not come to rest")
            if self.now >= end:
                return
            self.now = min(end, self.now + step)

    def until(self, condition, seconds=600.0, step=1.0):
        end = self.now + seconds
        while not condition():
            assert self.now < end, f"not within {seconds} s: {self.summary()}"
            self.run()
            if condition():
                return
            self.now += step
            self.run()

    def summary(self):
        return [(r.metadata.name, r.status) for r in self.all("Rollout")] + [
            (i.metadata.name, i.spec, i.status) for i in self.all("Instance")
        ]

    # ---- the people ----

    def put(self, resource):
        key = key_of(resource)
        known = self.store.documents.get(key)
        write = Put(
            key=key,
            spec=encode_spec(resource),
            labels=resource.metadata.labels,
            expect=known.generation if known is not None else 0,
            uid=f"uid-{key.kind}-{key.name}-{self.store.revision}" if known is None else "",
            status=encode_status(resource) if known is None else b"",
        )
        self.write(Transaction(now=self.now, writes=(write,)))

    def delete(self, kind, namespace, name):
        self.write(Transaction(now=self.now, writes=(Delete(key=Key(kind, namespace, name), expect=ANY),)))

    def get(self, kind, name, namespace="shop"):
        document = self.store.documents.get(Key(kind, namespace, name))
        return decode(document) if document is not None else None

    def all(self, kind):
        return [decode(document) for key, document in sorted(self.store.documents.items()) if key.kind == kind]

    def all_keys(self, kind):
        return [key for key in self.store.documents if key.kind == kind]

    def join(self, name, site="north", device_class="small", labels=None, capacity=CAPACITY):
        self.joins += 1
        digest = f"{self.joins:064x}"[::-1]
        spec = JoinTokenSpec(digest=digest, expires_at=self.now + 600, site=site)
        known = site in self.view.sites
        self.write(create_join_token(spec, known_site=known, user="ann", now=self.now, epoch=1, revision=self.store.revision))
        request = JoinRequest(
            secret="s",
            device=name,
            signing_request="r",
            sealing_key=b"k" * 32,
            labels=labels or {},
            device_class=device_class,
            capacity=capacity,
        )
        decision = gateway.decide_join(request, digest, f"key-{name}", self.view, self.now)
        assert not isinstance(decision, Refusal), decision
        written = self.store.write(gateway.complete_join(decision, self.view, self.now, "serial", self.now + 1e6))
        gateway.settle_join(self.view, decision, written, self.now)
        device = self.devices[name] = Device(self, name, decision.agent)
        return device

    def publish(self, version, artifact="app", variants=None, parameters=None, kind="bundle"):
        if self.get("Artifact", artifact) is None:
            self.put(Artifact(metadata=Metadata(name=artifact, namespace="shop"), spec=ArtifactSpec(type=kind)))
        digest = "sha256:" + f"{abs(hash((artifact, version))):064x}"[-64:]
        manifest = Manifest(
            type=kind,
            namespace="shop",
            artifact=artifact,
            version=version,
            variants=variants or (variant("any"),),
            parameters=parameters or {"level": Parameter(type="integer", minimum=0, maximum=9)},
        )
        spec = ArtifactVersionSpec(manifest=manifest, target=f"releases/shop/{artifact}/{version}.json", digest=digest, length=100)
        self.put(ArtifactVersion(metadata=Metadata(name=f"{artifact}:{version}", namespace="shop"), spec=spec))

    def apply(self, version="1", name="app", artifact="app", **fields):
        self.put(workload(name, version, artifact, **fields))

    def instances(self, name="app"):
        return {i.spec.device: i for i in self.all("Instance") if i.spec.workload == name}

    def versions(self, name="app"):
        """What each device runs, by its own account."""
        by_hash = {r.spec.hash: r.spec.template.version for r in self.all("WorkloadRevision") if r.spec.workload == name}
        return {
            device: by_hash.get(instance.status.committed, instance.status.committed)
            for device, instance in self.instances(name).items()
            if instance.spec.desired == "Running"
        }

    def rollout(self, number, name="app"):
        return self.get("Rollout", f"{name}-{number}")

    def state(self, number, name="app"):
        rollout = self.rollout(number, name)
        return rollout.status.state.value if rollout is not None else None


def variant(name, size=1000, runtime="", precision="", profile=None, **requirements):
    return Variant(
        name=name,
        files=(File(path="main.py", digest="sha256:" + "0" * 64, size=size),),
        runtime=runtime,
        precision=precision,
        requirements=VariantRequirements(**requirements),
        profile=profile or Profile(),
    )


def workload(name, version, artifact="app", *, replicas=None, selector=None, waves=(1, "50%", "100%"), observe="5s", budget="5%",
             deadline="60s", analysis=(), lost_after="60s", exclusive=False, labels=None, parameters=None, strategy=None,
             **fields):  # fmt: skip
    placement = Placement(replicas=replicas) if replicas is not None else Placement(every_matching_device=EveryMatchingDevice())
    if selector is not None:
        placement = msgspec.structs.replace(placement, selector=selector)
    canary = Canary(waves=waves, observe_for=observe, failure_budget=budget, device_deadline=deadline)
    return Workload(
        metadata=Metadata(name=name, namespace="shop", labels=labels or {}),
        spec=WorkloadSpec(
            artifact=ArtifactReference(name=artifact, version=version),
            placement=placement,
            parameters=parameters or {},
            strategy=strategy or Strategy(canary=canary, analysis=analysis),
            disconnect=Disconnect(lost_after=lost_after, exclusive=exclusive),
            **fields,
        ),
    )


@pytest.fixture
def fleet():
    return Fleet()


@pytest.fixture
def make():
    return SimpleNamespace(
        Fleet=Fleet, workload=workload, variant=variant, CAPACITY=CAPACITY, AnalysisMetric=AnalysisMetric, Instance=Instance
    )
