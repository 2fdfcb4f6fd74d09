"""A rig around the pure machine: it keeps the state, answers effects, moves the time, and watches the invariants at every step."""

from collections.abc import Callable

import msgspec

from edgewise.engine.limits import EngineLimits
from edgewise.engine.machine import handle, next_wake, recover
from edgewise.engine.protocol import (
    Activate,
    Cancel,
    ContactChanged,
    Desired,
    Done,
    Effect,
    Emit,
    Event,
    Exited,
    Failed,
    Fetch,
    Fetched,
    Finished,
    Forget,
    Now,
    Observed,
    Persist,
    Probed,
    Remove,
    Result,
    Route,
    RunningSlot,
    RunProbe,
    Start,
    Started,
    Stop,
    Stopped,
    StorageFailed,
    Tick,
)
from edgewise.engine.records import Durable, Record, fold
from edgewise.resources.artifact import Command, File, Probes, Variant
from edgewise.resources.instance import InstanceStatus
from edgewise.wire.desired import ArtifactTarget, DeviceDesired, InstanceDesired, Position
from edgewise.wire.report import DeviceReport, EventReport, InstanceReport

DIGEST = f"sha256:{'0' * 64}"
APP = "ns/app"
ADDRESS = "127.0.0.1:8000"


def want(revision: str, name: str = APP, kind: str = "model", **fields: object) -> InstanceDesired:
    target = ArtifactTarget(target=f"releases/{revision}", digest=DIGEST, length=1, type=kind, variant="only")  # type: ignore[arg-type]
    return InstanceDesired(name=name, uid=fields.pop("uid", f"uid-{name}"), epoch=1, revision=revision, artifact=target, **fields)  # type: ignore[arg-type]


def document(n: int, *instances: InstanceDesired, epoch: int = 1, device: str = "dev", **fields: object) -> DeviceDesired:
    return DeviceDesired(device=device, uid="uid-dev", position=Position(epoch, n), instances=instances, **fields)  # type: ignore[arg-type]


class Rig:
    """One device's engine. `bad` revisions never get ready; `crashing` ones end at once; `probes` are what variants declare."""

    def __init__(self, limits: EngineLimits | None = None, *, start: bool = True, probes: Probes | None = None) -> None:
        self.limits = limits or EngineLimits()
        self.records: list[Record] = []
        self.durable, self.folded = Durable(), 0
        self.time = 1000.0
        self.n = 0
        self.bad: set[str] = set()
        self.crashing: set[str] = set()
        self.fetch_result: Callable[[Fetch], Result | None] | None = None
        self.start_result: Callable[[Start], Result | None] | None = None
        self.probes = probes or Probes()
        self.running: dict[tuple[str, str], RunningSlot] = {}
        self.trees: set[str] = set()
        self.disk_ok = True
        self.boots = 0
        self.log: list[Effect] = []
        self.pending: dict[int, Effect] = {}
        self.started: list[str] = []
        self.launches = 0
        self.forgotten = False
        self.routed: dict[str, Route] = {}
        self.state = recover((), "dev", self.limits)
        if start:
            self.observe()
            self.run()
            self.log.clear()

    # ---- feeding ----

    def observe(self, *, reboot: bool = True) -> list[Effect]:
        if reboot:
            self.boots += 1
            self.running.clear()
        return self.post(Observed(slots=tuple(self.running.values()), installed=tuple(sorted(self.trees)), boot_id=f"boot-{self.boots}"))

    def restart(self, *, reboot: bool = False, damage: str = "") -> list[Effect]:
        """Start the agent anew on what the journal holds."""
        self.state = recover(self.records, "dev", self.limits, damage)
        self.pending.clear()
        self.durable, self.folded = Durable(), 0
        self.ids: set[int] = set()
        self.told: dict[str, InstanceReport] = {}
        return self.observe(reboot=reboot)

    ids: set[int]
    told: dict[str, InstanceReport]

    def desire(self, *instances: InstanceDesired, **fields: object) -> list[Effect]:
        self.n += 1
        return self.post(Desired(document=document(self.n, *instances, **fields)))

    def post(self, event: Event) -> list[Effect]:
        """Do one step, as the shell does."""
        before = self.state
        state, effects = handle(before, event, Now(wall=1e9 + self.time, monotonic=self.time))
        records = [record for effect in effects if isinstance(effect, Persist) for record in effect.records]
        if records and not self.disk_ok:
            if not isinstance(event, StorageFailed):
                self.post(StorageFailed(kind="full", message="no room"))
            return [] if isinstance(event, StorageFailed | Desired | Tick) else self.post(event)
        self.records.extend(records)
        self.state = state
        for effect in effects:
            self._carry(effect)
        self.log.extend(effects)
        self._watch(effects)
        return effects

    def _carry(self, effect: Effect) -> None:
        if hasattr(effect, "id") and not isinstance(effect, Cancel):
            ids = self.__dict__.setdefault("ids", set())
            assert effect.id not in ids, "ids are never used twice"
            ids.add(effect.id)
            self.pending[effect.id] = effect
        match effect:
            case Start():
                key = (effect.instance, effect.slot)
                assert self.running.get(key) is None or self.running[key].exit_code is not None, "a slot is started only when it is empty"
                assert effect.launch.tree in self.trees, "only whole trees are started"
                self.started.append(effect.launch.revision)
                kept = self.state.durable.instances[effect.instance]
                committed = kept.committed.revision if kept.committed else ""
                assert effect.launch.revision not in kept.refused or effect.launch.revision == committed, "what is refused is never started"
                known = [release.revision for release in (kept.candidate, kept.committed) if release]
                assert effect.launch.revision in known, "what is started is in the journal"
            case Remove():
                self.removed_while_fetching = any(isinstance(each, Fetch) for each in self.pending.values())
                assert not self.removed_while_fetching, "nothing is removed while something is fetched"
            case Fetch():
                assert not any(isinstance(each, Remove) for each in self.pending.values())
                assert sum(isinstance(each, Fetch) for each in self.pending.values()) == 1, "one fetch at a time"
            case Emit(item=InstanceReport() as item):
                told = self.__dict__.setdefault("told", {})
                assert item.gone or told.get(item.name) != item, "nothing is told twice"
                told[item.name] = item
            case Forget():
                self.forgotten = True

    def _watch(self, effects: list[Effect]) -> None:
        persists = [index for index, effect in enumerate(effects) if isinstance(effect, Persist)]
        assert persists in ([], [0]), "records come first, at once"
        for record in self.records[self.folded :]:
            self.durable = fold(self.durable, record)
        self.folded = len(self.records)
        durable = self.durable
        for record in self.state.owed:
            durable = fold(durable, record)
        assert durable == self.state.durable, "what is in memory is what the journal says"
        for live in self.state.live.values():
            assert sum(slot.active for slot in live.slots.values()) <= 1, "at most one slot takes the traffic"

    # ---- answering ----

    def done(self, effect: Effect, result: Result) -> list[Effect]:
        del self.pending[effect.id]  # type: ignore[union-attr]
        return self.post(Done(id=effect.id, result=result))  # type: ignore[union-attr]

    def answer(self, effect: Effect) -> None:
        """Answer one effect as a healthy device would."""
        match effect:
            case Fetch():
                result = self.fetch_result(effect) if self.fetch_result else None
                self.done(effect, result or self.fetched(effect.revision, effect.artifact.type))
            case Start():
                self._answer_start(effect)
            case Stop():
                self.running.pop((effect.instance, effect.slot), None)
                self.done(effect, Stopped(code=0))
            case Activate():
                for key, slot in list(self.running.items()):
                    if key[0] == effect.instance:
                        self.running[key] = msgspec.structs.replace(slot, active=key[1] == effect.slot)
                self.done(effect, Finished())
            case Route():
                slot = self.running.get((effect.instance, effect.slot))
                if slot is None or slot.exit_code is not None:
                    self.done(effect, Failed(kind="transient", reason="NotRunning", message="nothing runs there"))
                    return
                self.routed[slot.launch_id] = effect
                self.done(effect, Finished())
            case RunProbe():
                slot = self.running.get((effect.instance, effect.slot))
                self.done(effect, Probed(ok=slot is not None and slot.exit_code is None and slot.revision not in self.bad, message="asked"))
            case Remove():
                self.trees &= set(effect.keep_trees)
                self.done(effect, Finished())

    def fetched(self, revision: str, kind: str = "model") -> Fetched:
        tree = f"tree-{revision}"
        self.trees.add(tree)
        command = Command(argv=("run",)) if kind == "bundle" else None
        variant = Variant(name="only", files=(File(path="main", digest=DIGEST, size=1),), command=command, probes=self.probes)
        return Fetched(tree=tree, variant=variant, parameters={})

    def _answer_start(self, effect: Start) -> None:
        result = self.start_result(effect) if self.start_result else None
        if isinstance(result, Failed):
            self.done(effect, result)
            return
        self.launches += 1
        launch_id = f"launch-{self.launches}"
        slot = RunningSlot(
            instance=effect.instance, slot=effect.slot, launch_id=launch_id, revision=effect.launch.revision, address=ADDRESS
        )
        self.running[effect.instance, effect.slot] = slot
        self.done(effect, Started(launch_id=launch_id, address=ADDRESS))
        if effect.launch.revision in self.crashing:
            self.exit(effect.slot, effect.instance)

    def exit(self, slot: str, instance: str = APP, code: int = 1) -> list[Effect]:
        running = self.running.pop((instance, slot))
        return self.post(Exited(instance=instance, slot=slot, launch_id=running.launch_id, code=code))  # type: ignore[arg-type]

    def run(self, seconds: float = 0.0, *, answer: Callable[[Effect], bool] = lambda _: True) -> None:
        """Answer everything and let `seconds` pass."""
        end = self.time + seconds
        for _ in range(20_000):
            waiting = [effect for effect in self.pending.values() if answer(effect)]
            if waiting:
                self.answer(waiting[0])
                continue
            wake = next_wake(self.state)
            if wake is None or max(wake, self.time) > end:
                self.time = end
                return
            self.time = max(self.time, wake)
            self.post(Tick())
        raise AssertionError("it does not come to rest")

    # ---- looking ----

    def take(self, kind: type) -> list[Effect]:
        """Return the effects of a kind since the last `take` of any kind, and forget all of them."""
        found = [effect for effect in self.log if isinstance(effect, kind)]
        self.log.clear()
        return found

    def statuses(self, name: str = APP) -> list[InstanceStatus]:
        return [e.item.status for e in self.log if isinstance(e, Emit) and isinstance(e.item, InstanceReport) and e.item.name == name]

    def status(self, name: str = APP) -> InstanceStatus:
        reported = self.state.live[name].reported
        assert reported is not None
        return reported

    def device(self) -> DeviceReport:
        assert self.state.reported is not None
        return self.state.reported

    def reasons(self) -> list[str]:
        return [effect.item.reason for effect in self.log if isinstance(effect, Emit) and isinstance(effect.item, EventReport)]

    def route(self, slot: str, name: str = APP) -> tuple[str, str, float] | None:
        """Return what the model server in a slot was told: mode, revision of the candidate and share; None: nothing."""
        told = self.routed.get(self.running[name, slot].launch_id)
        return None if told is None else (told.traffic.mode, told.revision, told.traffic.share)

    def revisions(self) -> list[str]:
        return sorted(slot.revision for slot in self.running.values())

    def contact(self, *, online: bool) -> list[Effect]:
        return self.post(ContactChanged(online=online, last_contact=self.time))
