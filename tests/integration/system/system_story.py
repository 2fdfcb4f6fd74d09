"""One small story, told twice by the same lines: by real processes, and in the twin; and what was decided in it, to be compared.

Everything is taken from what the control plane itself writes: its documents, version by version as a watch tells them, and its event log.
"""

import asyncio
import contextlib
import os
import signal
import statistics
import threading
import time
from collections import defaultdict

import msgspec
from system_fleet import PATIENCE, until, workload

from edgewise.cli.twin_commands import taken
from edgewise.resources.device import Device
from edgewise.resources.instance import Instance
from edgewise.resources.rollout import Rollout
from edgewise.resources.states import Connection, InstanceState, RolloutState, UpdateState
from edgewise.resources.workload import Disconnect
from edgewise.store.codec import decode
from edgewise.twin.change import change_plan
from edgewise.twin.fleet import LinkQuality
from edgewise.twin.observers import Observer
from edgewise.twin.plan import Profile
from edgewise.twin.scenario import Behaviour, Scenario
from edgewise.twin.vault import run_to_end
from edgewise.twin.world import World

LOST_AFTER = "6s"
"""How long the recorder's users bear a silent device. Offline is a device that is silent for so long: the usual 20 s are too long here."""
_ENDED = {RolloutState.SUCCEEDED, RolloutState.ROLLED_BACK, RolloutState.ABORTED, RolloutState.SUPERSEDED}
_LAST_WORDS_SECONDS = 0.5
_RESTING = {UpdateState.IDLE, UpdateState.FAILED}


class Record:
    """What a control plane decided, as its documents and events show it. Other threads write into it.

    Compared is what somebody decides, in the order in which that one decided it:

    - of a rollout its states and waves, of a wave its members, of an instance what the control plane tells its device (version, run or stop,
      hold, rollout, wave, number of the copy), of a device its connection: each is a document of its own, and a watch tells all its versions;
    - of an instance on its device what it keeps and what it refuses, from its reports: the last report says all of it;
    - who said what of what in the event log, which is numbered and leaves nothing out: what a device says of an instance is how its update
      went, step by step.

    Not compared is the order between subjects, which is a race for real, and the fleeting states of an update (Download, Verify, Install,
    Commit) in instances' documents: a device reports what is there when it reports, so that on a busy machine states are left out.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self.rollouts, self.instances, self.devices = {}, {}, {}
        self.lines = defaultdict(list)
        """What was decided of each subject, in order: (time, words)."""
        self.waves = {}
        """When each wave began, by rollout and number, as the rollout's own document says."""
        self.brought = defaultdict(set)
        """Which devices a wave of a rollout brought which revision to."""
        self.marks = {}
        """When the story did something, by what it did: `kill`, `back`."""
        self.starts = defaultdict(list)
        """How long starts took, by workload, as the devices say."""

    def take(self, at, resource):
        """Note a version of a document."""
        with self._lock:
            name = resource.metadata.name
            match resource:
                case Rollout(status=status):
                    self.rollouts[name] = resource
                    if status.wave and status.wave_started_at:
                        self.waves.setdefault((name, status.wave), status.wave_started_at)
                    self._say(at, f"rollout {name}", (f"{status.state.value}, wave {status.wave} of {status.waves}",))
                case Instance():
                    self.instances[name] = resource
                    self._instance(at, name, resource.spec, resource.status)
                case Device():
                    self.devices[name] = resource
                    self._say(at, f"device {name}", (resource.status.connection.value,))

    def gone(self, at, kind, name):
        """Note that a document was removed."""
        with self._lock:
            if kind == "Instance" and self.instances.pop(name, None) is not None:
                self._say(at, f"instance {name}: told", ("gone",))

    def _say(self, at, subject, words):
        """Note what is new. Revisions become versions in the end, when all rollouts are known: documents of two kinds race."""
        if not self.lines[subject] or self.lines[subject][-1][1] != words:
            self.lines[subject].append((at, words))

    def _instance(self, at, name, spec, status):
        if spec.wave:
            self.brought[spec.rollout, spec.wave].add((spec.device, spec.revision))
        hold = ", held" if spec.hold else ""
        place = f"{hold}, by {spec.rollout or 'nobody'}, wave {spec.wave}, copy {spec.epoch}"
        self._say(at, f"instance {name}: told", (spec.desired, spec.revision, place))
        if status.committed:
            self._say(at, f"instance {name}: keeps", (status.committed, *(part for each in status.refused for part in ("but not", each))))
        if status.ready_at > status.started_at > 0 and status.ready_at not in dict(self.starts[spec.workload]):
            self.starts[spec.workload].append((status.ready_at, status.started_at))

    def events(self, rows):
        """Note the event log. Texts hold times and addresses; what counts is who said what of what, and in which order."""
        for row in rows:
            if row.type != "Audit":
                self.lines[f"said by {row.source} of {row.about or 'itself'}"].append((row.received_at, (row.reason,)))

    def look(self, question):
        """Ask something while nobody writes."""
        with self._lock:
            return question(self)

    def start_seconds(self, name):
        """Return how long a start of a workload took, the median."""
        return statistics.median(ready - started for ready, started in self.starts[name])

    def orders(self):
        """Return what was decided of each subject, in order, without times; and who was in which wave."""
        versions = {each.spec.to_revision: f"v{each.spec.version}" for each in self.rollouts.values()}
        found = {
            subject: [" ".join(versions.get(word, word) for word in words).replace(" ,", ",") for _, words in lines]
            for subject, lines in self.lines.items()
        }
        for (name, wave), brought in self.brought.items():
            if name in self.rollouts:
                to = self.rollouts[name].spec.to_revision
                found[f"members of {name}, wave {wave}"] = sorted(device for device, revision in brought if revision == to)
        return dict(sorted(found.items()))

    def durations(self):
        """Return how long each rollout and each of its waves took, by the control plane's clock, and the parts of the outage; seconds."""
        found = {}
        for name, one in sorted(self.rollouts.items()):
            status = one.status
            began = [self.waves[key] for key in sorted(self.waves) if key[0] == name]
            found[name] = status.finished_at - status.started_at
            if len(began) > 1:
                for number, (start, end) in enumerate(zip(began, [*began[1:], status.finished_at], strict=True), 1):
                    found[f"{name}, wave {number}"] = end - start
        return {**found, **self._outage()}

    def _outage(self):
        victim = Story.victim
        changes = [(at, words) for at, (words,) in self.lines[f"device {victim}"] if at >= self.marks["kill"]]
        (offline, _), (online, _) = changes
        moved = max(
            lines[0][0] for subject, lines in self.lines.items() if subject.startswith(f"instance {Story.recorder}.") and "keeps" in subject
        )
        return {
            f"{victim} dead until it is Offline": offline - self.marks["kill"],
            f"{victim} Offline until its copy is kept elsewhere": moved - offline,
            f"{victim} started until it is Online": online - self.marks["back"],
        }


# ---- what the story waits for ----


def ended(record, name, version):
    """Whether the rollout of a version has ended."""
    mine = [each for each in record.rollouts.values() if each.spec.workload == name and each.spec.version == version]
    return any(each.status.state in _ENDED for each in mine)


def rests(record, name):
    """Whether all that should run of a workload runs, committed, and nothing else is left of it."""
    found = [each for each in record.instances.values() if each.spec.workload == name]
    return bool(found) and all(each.spec.desired == "Running" and _resting(each) for each in found)


def _resting(instance):
    spec, status = instance.spec, instance.status
    whole = status.revision == status.committed == spec.revision and status.ready and status.state is InstanceState.RUNNING
    return whole and status.update in _RESTING and status.observed_epoch == spec.epoch


def is_(record, device, connection):
    """Whether a device is Online, or Offline."""
    return record.devices[device].status.connection is connection


def there(record, devices):
    """Whether the agents of all devices have begun to talk. A device that has joined is Online before that."""
    return record.devices.keys() >= set(devices) and all(record.devices[each].status.agent_version for each in devices)


class Story:
    """An inspector on every device, in waves; a recorder in two copies. A device dies, its copy moves, the device comes back. The third
    version of the inspector does not even start."""

    inspector, recorder = "inspector", "recorder"
    victim = "c"

    def manifest(self, version):
        """Return the inspector in a version."""
        return workload(self.inspector, version, waves=(1, "100%"), observe="1s", probation="1s", deadline="2m")

    def copies(self):
        """Return the recorder."""
        return workload(self.recorder, 1, replicas=2, probation="500ms", disconnect=Disconnect(lost_after=LOST_AFTER))

    def first(self):
        """Return what is applied first."""
        return (self.manifest(1), self.copies())

    def tell(self, stage):
        """Tell it. `stage` is where it happens."""
        stage.begin(self.first())
        self._settled(stage, 1)
        stage.apply(self.manifest(2))
        self._settled(stage, 2)
        victim = self.victim
        stage.kill(victim)
        stage.until(lambda record: is_(record, victim, Connection.OFFLINE), f"{victim} Offline")
        stage.until(self._moved, "the recorder elsewhere")
        stage.back(victim)
        stage.until(lambda record: is_(record, victim, Connection.ONLINE), f"{victim} Online")
        stage.until(self._back, "everything at rest, and no copy too many")
        stage.apply(self.manifest(3))
        self._settled(stage, 3)

    def _moved(self, record):
        found = [each for each in record.instances.values() if each.spec.workload == self.recorder and each.spec.device != self.victim]
        return len(found) == 2 and all(map(_resting, found))

    def _back(self, record):
        copies = [each for each in record.instances.values() if each.spec.workload == self.recorder]
        anew = [each.status.started_at > record.marks["back"] for each in record.instances.values() if each.spec.device == self.victim]
        return len(copies) == 2 and all(anew) and rests(record, self.inspector) and rests(record, self.recorder)

    def _settled(self, stage, version):
        def look(record):
            return ended(record, self.inspector, str(version)) and rests(record, self.inspector) and rests(record, self.recorder)

        stage.until(look, f"{self.inspector} {version} at rest")


# ---- for real ----


class RealStage:
    """Where it happens for real."""

    def __init__(self, fleet, inside=None):
        """`inside`: for each device, the words of a command that runs its processes somewhere."""
        self.fleet = fleet
        self._inside = inside or {}
        self.record = Record()
        self.rehearsable = []
        """Each change of the inspector, with the fleet as it was right before."""
        self._watching = [asyncio.run_coroutine_threadsafe(self._watch(kind), fleet._loop) for kind in (Rollout, Instance, Device)]
        self._first_event = max((each.number for each in fleet.events()), default=0)

    async def _watch(self, kind):
        async for change in self.fleet.client.watch(kind):
            if change.type == "DELETED":
                self.record.gone(time.time(), kind.__name__, change.resource.metadata.name)
            else:
                self.record.take(time.time(), change.resource)

    def snapshot(self):
        """Return the fleet as `edgewise twin snapshot` takes it."""
        return self.fleet.ask(taken(self.fleet.client, lambda what, count: None))

    def begin(self, resources):
        for each in resources:
            self.apply(each)

    def apply(self, one):
        if self.record.rollouts and one.metadata.name == Story.inspector:
            self.rehearsable.append((one, self.snapshot()))
        self.fleet.ask(self.fleet.client.apply(one))

    def kill(self, device):
        """Kill all its processes: held first, so that none of them sees and tells another's end."""
        self.record.marks["kill"] = time.time()
        for pid in self.fleet.devices[device].tree():
            os.kill(pid, signal.SIGSTOP)
        self.fleet.devices[device].kill()

    def back(self, device):
        self.record.marks["back"] = time.time()
        self.fleet.devices[device].start(self._inside.get(device, ()))

    def until(self, look, what):
        def broken():
            for each in self._watching:
                if each.done():
                    each.result()
            return self.record.look(look)

        until(broken, lambda: f"{what}: {self.record.orders()}", every=0.02)

    def close(self):
        """End the record: with the event log."""
        for each in self._watching:
            each.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                each.result(PATIENCE)
        rows, before = self.fleet.events(), None
        while rows != before:  # until the last words are there
            time.sleep(_LAST_WORDS_SECONDS)
            rows, before = self.fleet.events(), rows
        self.record.events([each for each in rows if each.number > self._first_event])
        return self.record


# ---- in the twin ----


class _Looking(Observer):
    """Reads what the control plane of the twin writes."""

    def __init__(self, record):
        self.record = record

    def wrote(self, world, changes):
        for change in changes:
            if change.document is None:
                self.record.gone(world.kernel.wall, change.key.kind, change.key.name)
            elif change.key.kind in ("Rollout", "Instance", "Device"):
                self.record.take(world.kernel.wall, decode(change.document))


class Circumstances(msgspec.Struct, frozen=True, kw_only=True):
    """What a twin of a fleet has to be told, as no document says it: how links are, how workloads behave, how long a device takes to boot."""

    link: LinkQuality
    behaviours: tuple[Behaviour, ...]
    boot_seconds: float

    def plan(self, fleet, resources):
        """Return the plan that rehearses `resources` on a snapshot, as `edgewise simulate` makes it."""
        classes = tuple(msgspec.structs.replace(each, boot_seconds=self.boot_seconds) for each in fleet.classes)
        scenario = Scenario(name="as-it-was", link=self.link, behaviours=self.behaviours)
        profile = Profile(disk="plain", install="modelled", invariants="cheap")
        return change_plan(msgspec.structs.replace(fleet, classes=classes), resources, scenario, 1, profile).plan


class TwinStage:
    """Where it happens in the twin: on a snapshot of the fleet from before the story."""

    def __init__(self, plan):
        self.record = Record()
        self.world = World(plan, observers=(_Looking(self.record),))
        while not self.world.at_rest() or self.world.kernel.now < 2.0:
            self.world.advance(0.5)
        self._first_event = max((each.number for each in self._events()), default=0)

    def _events(self):
        return run_to_end(self.world.vault.store.events(limit=10_000))

    def begin(self, resources):
        """Let the acts of the plan come: they are the story's first manifests."""
        assert len(self.world.plan.acts) == len(resources)
        self.world.begin()

    def apply(self, one):
        named = msgspec.structs.replace(one, metadata=msgspec.structs.replace(one.metadata, namespace="default"))
        self.world.people.apply(named)

    def kill(self, device):
        """Kill all its processes: the kernel that is left closes their connections."""
        self.record.marks["kill"] = self.world.kernel.wall
        self.world.devices[device].power_off("all")

    def back(self, device):
        self.record.marks["back"] = self.world.kernel.wall
        self.world.devices[device].power_on()

    def until(self, look, what):
        end = self.world.kernel.now + 600.0
        while not look(self.record):
            assert self.world.kernel.now < end, f"not in the twin: {what}: {self.record.orders()}"
            self.world.advance(0.02)

    def close(self):
        """End the record: with the event log."""
        self.world.advance(10.0)
        self.record.events([each for each in self._events() if each.number > self._first_event])
        self.world.finish()
        self.world.close()
        return self.record
