"""The state tables, every pair of them, and the page that is made from them."""

import importlib.util
from pathlib import Path

import pytest
from engine_rig import APP, Rig, want

from edgewise.engine.machine import handle
from edgewise.engine.protocol import (
    ContactChanged,
    Desired,
    Done,
    Event,
    Exited,
    Failed,
    Fetch,
    FetchProgress,
    Finished,
    Heartbeat,
    Now,
    Observed,
    Probed,
    Route,
    RunningSlot,
    Start,
    Started,
    Stop,
    Stopped,
    StorageFailed,
    StorageRecovered,
    Tick,
)
from edgewise.engine.tables import INSTANCE_STATE, SLOT_TABLE, UPDATE_TABLE, SlotEvent, SlotPhase, UpdateEvent, next_phase, next_update
from edgewise.resources.states import InstanceState, UpdateState
from edgewise.wire.desired import Traffic

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("state", UpdateState)
@pytest.mark.parametrize("event", UpdateEvent)
def test_every_pair_of_the_update_table(state: UpdateState, event: UpdateEvent) -> None:
    if (state, event) in UPDATE_TABLE:
        assert next_update(state, event) is UPDATE_TABLE[state, event]
    else:
        with pytest.raises(KeyError):
            next_update(state, event)


@pytest.mark.parametrize("phase", SlotPhase)
@pytest.mark.parametrize("event", SlotEvent)
def test_every_pair_of_the_slot_table(phase: SlotPhase, event: SlotEvent) -> None:
    if (phase, event) in SLOT_TABLE:
        assert next_phase(phase, event) is SLOT_TABLE[phase, event]
    else:
        with pytest.raises(KeyError):
            next_phase(phase, event)


def reachable(table: dict, start: object) -> set:
    found, todo = {start}, [start]
    while todo:
        here = todo.pop()
        for (state, _), after in table.items():
            if state == here and after not in found:
                found.add(after)
                todo.append(after)
    return found


def test_every_state_is_reached_and_left_again() -> None:
    assert reachable(UPDATE_TABLE, UpdateState.IDLE) == set(UpdateState)
    assert reachable(SLOT_TABLE, SlotPhase.EMPTY) == set(SlotPhase)
    assert all(UpdateState.IDLE in reachable(UPDATE_TABLE, state) for state in UpdateState)
    assert all(SlotPhase.EMPTY in reachable(SLOT_TABLE, phase) for phase in SlotPhase)


def test_every_event_is_used_and_every_phase_is_a_state_of_an_instance() -> None:
    assert {event for _, event in UPDATE_TABLE} == set(UpdateEvent)
    assert {event for _, event in SLOT_TABLE} == set(SlotEvent)
    assert set(INSTANCE_STATE) == set(SlotPhase)
    assert set(INSTANCE_STATE.values()) == set(InstanceState) - {InstanceState.STOPPED}


def test_commit_is_entered_from_probation_alone_and_nothing_else_leads_to_it() -> None:
    assert {state for (state, _), after in UPDATE_TABLE.items() if after is UpdateState.COMMIT} == {UpdateState.PROBATION}


# ---- every situation, every event of the outside ----


def updated(rig: Rig, **fields: object) -> Rig:
    rig.desire(want("r1", probation_seconds=0))
    rig.run(2)
    if fields:
        rig.desire(want("r2", **fields))
    return rig


def in_stage(stage: str) -> Rig:
    rig = updated(Rig(), probation_seconds=0)
    fetch = next(effect for effect in rig.pending.values() if isinstance(effect, Fetch))
    rig.post(FetchProgress(id=fetch.id, stage=stage))  # type: ignore[arg-type]
    return rig


def in_probation(*, slot_phase: SlotPhase) -> Rig:
    rig = Rig()
    rig.bad = {"r2"} if slot_phase is SlotPhase.PROBING else set()
    updated(rig, hold=True)
    rig.run(1, answer=lambda effect: not (isinstance(effect, Start) and slot_phase is SlotPhase.STARTING))
    if slot_phase is SlotPhase.WAITING:
        rig.exit("b")
    return rig


def beside(mode: str, *, told: bool = True, crashed: bool = False) -> Rig:
    rig = updated(Rig(), hold=True, traffic=Traffic(mode=mode, share=0.5))  # type: ignore[arg-type]
    rig.run(1, answer=lambda effect: told or not isinstance(effect, Route))
    if crashed:
        rig.exit("b")
    return rig


def in_commit() -> Rig:
    rig = updated(Rig(), probation_seconds=0)
    while rig.state.live[APP].update.state is not UpdateState.COMMIT:
        waiting = list(rig.pending.values())
        if waiting:
            rig.answer(waiting[0])
        else:
            rig.time += 0.05
            rig.post(Tick())
    return rig


def in_rollback() -> Rig:
    rig = updated(Rig(), deadline_seconds=1)
    rig.bad = {"r2"}
    rig.run(3, answer=lambda effect: not isinstance(effect, Stop))
    return rig


def in_failed(kind: str) -> Rig:
    rig = Rig()
    rig.fetch_result = lambda effect: Failed(kind=kind, reason="No", message="no") if effect.revision == "r2" else None  # type: ignore[arg-type]
    updated(rig, probation_seconds=0)
    rig.answer(next(effect for effect in rig.pending.values() if isinstance(effect, Fetch)))
    return rig


def broken() -> Rig:
    rig = updated(Rig())
    rig.crashing = {"r1"}
    rig.exit("a")
    rig.run(400)
    return rig


def suspended() -> Rig:
    rig = Rig()
    rig.contact(online=True)
    rig.desire(want("r1", exclusive=True, lost_after_seconds=10, probation_seconds=0))
    rig.run(1)
    rig.contact(online=False)
    rig.run(20)
    return rig


def leaving() -> Rig:
    rig = updated(Rig())
    rig.desire()
    return rig


def unwritten() -> Rig:
    rig = updated(Rig())
    rig.post(StorageFailed(kind="full", message="x"))
    return rig


SITUATIONS = {
    "Idle": lambda: updated(Rig()),
    "Download": lambda: in_stage("Download"),
    "Verify": lambda: in_stage("Verify"),
    "Install": lambda: in_stage("Install"),
    "Probation, Starting": lambda: in_probation(slot_phase=SlotPhase.STARTING),
    "Probation, Probing": lambda: in_probation(slot_phase=SlotPhase.PROBING),
    "Probation, Up": lambda: in_probation(slot_phase=SlotPhase.UP),
    "Probation, Waiting": lambda: in_probation(slot_phase=SlotPhase.WAITING),
    "Probation, beside": lambda: beside("none"),
    "Probation, shadow": lambda: beside("shadow"),
    "Probation, split": lambda: beside("split"),
    "Probation, being told": lambda: beside("split", told=False),
    "Probation, crashed beside": lambda: beside("shadow", crashed=True),
    "Commit": in_commit,
    "Rollback": in_rollback,
    "Failed, waiting": lambda: in_failed("transient"),
    "Failed, for good": lambda: in_failed("invalid"),
    "Broken": broken,
    "Suspended": suspended,
    "Leaving": leaving,
    "Storage failed": unwritten,
    "Before the observation": lambda: Rig(start=False),
    "Nothing desired": Rig,
}


def events(rig: Rig) -> dict[str, Event]:
    """One of everything that may come from the outside, right or wrong for the moment."""
    jobs = [*rig.pending, 10_000]
    results = (
        Failed(kind="transient", reason="X", message="x"),
        Failed(kind="invalid", reason="X", message="x"),
        Finished(),
        Stopped(),
        Probed(ok=True),
    )
    found: dict[str, Event] = {"tick": Tick(), "storage recovered": StorageRecovered(), "heartbeat": Heartbeat(instance=APP)}
    for online in (True, False):
        found[f"contact {online}"] = ContactChanged(online=online, last_contact=rig.time)
    for kind in ("full", "read-only", "damaged"):
        found[f"storage {kind}"] = StorageFailed(kind=kind, message="x")  # type: ignore[arg-type]
    for job in jobs:
        for number, result in enumerate((*results, Started(launch_id="launch-x"), rig.fetched("r2"))):
            found[f"done {job} {number}"] = Done(id=job, result=result)
        found[f"progress {job}"] = FetchProgress(id=job, stage="Verify")
    for slot in ("a", "b"):
        for launch in ("launch-1", "launch-2", "launch-9"):
            found[f"exited {slot} {launch}"] = Exited(instance=APP, slot=slot, launch_id=launch, code=1)  # type: ignore[arg-type]
    n = rig.n + 1
    from engine_rig import document

    documents = {
        "same": (want("r1", probation_seconds=0),),
        "next": (want("r2", probation_seconds=0),),
        "next beside": (want("r2", hold=True, traffic=Traffic(mode="shadow")),),
        "after next": (want("r3", probation_seconds=0),),
        "rejected": (want("r1", rejected=("r2",)),),
        "all rejected": (want("r2", rejected=("r1", "r2")),),
        "stopped": (want("r1", desired="Stopped"),),
        "other uid": (want("r1", uid="other"),),
        "bundle": (want("b1", kind="bundle"),),
        "image": (want("i1", kind="image"),),
        "none": (),
    }
    for name, instances in documents.items():
        found[f"document {name}"] = Desired(document=document(n, *instances))
    found["document cleared"] = Desired(document=document(n, want("r2"), cleared_refusals=5))
    found["document decommission"] = Desired(document=document(n, want("r1"), decommission=True))
    running = RunningSlot(instance=APP, slot="a", launch_id="launch-1", revision="r1", active=True)
    seen = {"nothing": (), "one": (running,), "another": (RunningSlot(instance=APP, slot="b", launch_id="l", revision="r7"),)}
    for name, slots in seen.items():
        found[f"observed {name}"] = Observed(slots=slots, installed=tuple(sorted(rig.trees)), boot_id="b")
    return found


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_event_in_every_situation(situation: str) -> None:
    """Nothing from the outside leads off the tables, and from wherever it leads the device comes to rest."""
    make = SITUATIONS[situation]
    rig = make()
    update, state = rig.state.live.get(APP), rig.state
    if situation.split(",", maxsplit=1)[0] in set(UpdateState):
        assert update is not None
        assert update.update.state == situation.split(",", maxsplit=1)[0]
    for name, event in events(rig).items():
        first = handle(state, event, Now(wall=1e9 + rig.time, monotonic=rig.time))
        assert first == handle(state, event, Now(wall=1e9 + rig.time, monotonic=rig.time)), f"{name} is not pure"


@pytest.mark.parametrize("situation", [name for name in SITUATIONS if name != "Before the observation"])
@pytest.mark.parametrize("document", ["same", "next", "after next", "rejected", "stopped", "other uid", "bundle", "image", "none"])
def test_every_document_in_every_situation_comes_to_rest(situation: str, document: str) -> None:
    rig = SITUATIONS[situation]()
    rig.bad, rig.crashing, rig.fetch_result = set(), set(), None
    event = events(rig)[f"document {document}"]
    rig.post(event)
    rig.contact(online=True)
    rig.run(1200)
    live = rig.state.live.get(APP)
    if document in {"stopped", "none"}:
        assert live is None
        assert rig.revisions() == []
        return
    assert live is not None
    assert isinstance(event, Desired)
    revision = event.document.instances[0].revision
    kept = rig.state.durable.instances.get(APP)
    if document == "image":
        assert live.reported is not None
        assert live.reported.reason == "Unsupported"
    elif situation == "Broken" and document == "same":
        assert live.reported is not None
        assert live.reported.state is InstanceState.BROKEN
    elif kept is None or revision not in kept.refused:
        assert live.reported is not None
        assert (live.reported.revision, live.reported.committed, live.reported.state) == (revision, revision, InstanceState.RUNNING)
    assert live.update.state is UpdateState.IDLE


# ---- the page ----


def test_the_page_is_made_from_the_tables() -> None:
    path = ROOT / "docs" / "engine_tables.py"
    spec = importlib.util.spec_from_file_location("engine_tables", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs" / "engine.md").read_text()
    assert module.filled(page) == page, "run: python docs/engine_tables.py"
