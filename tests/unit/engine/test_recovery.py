"""What a start of the agent makes of the journal and of what really runs."""

import msgspec
import pytest
from engine_rig import ADDRESS, APP, Rig, want

from edgewise.engine.limits import EngineLimits
from edgewise.engine.machine import handle, recover, sealed_secrets, snapshot
from edgewise.engine.protocol import Activate, Emit, Failed, Fetch, Now, Persist, Remove, RunningSlot, RunProbe, Start, Stop, Tick
from edgewise.engine.records import Adopted, Committed, Durable, Installed, Refused, Release, Tried, fold
from edgewise.resources.artifact import Probe, Probes
from edgewise.resources.states import Health, InstanceState, UpdateState
from edgewise.wire.desired import SealedSecret
from edgewise.wire.report import InstanceReport


def committed(*revisions: str, kind: str = "model", probes: Probes | None = None) -> Rig:
    rig = Rig(probes=probes)
    for revision in revisions or ("r1",):
        rig.desire(want(revision, kind=kind, probation_seconds=0))
        rig.run(1)
    rig.log.clear()
    return rig


def acts(rig: Rig) -> list[str]:
    return [type(effect).__name__ for effect in rig.log if isinstance(effect, Start | Stop | Activate | Fetch | Persist)]


@pytest.mark.parametrize("kind", ["model", "bundle"])
def test_what_runs_is_adopted_and_never_restarted(kind: str) -> None:
    rig = committed(kind=kind)
    rig.restart()
    rig.run(60)
    assert acts(rig) == []
    assert (rig.status().state, rig.status().ready, rig.status().slot) == (InstanceState.RUNNING, True, "a")
    assert rig.status().address == ADDRESS
    assert rig.statuses() == [rig.status()]


def test_what_is_adopted_was_started_when_it_was_started() -> None:
    rig = committed()
    rig.running[APP, "a"] = msgspec.structs.replace(rig.running[APP, "a"], runs_for=500.0)
    rig.restart()
    assert rig.status().started_at == 1e9 + rig.time - 500


def test_after_a_reboot_the_committed_revision_is_started_from_local_state_alone() -> None:
    rig = committed("r1", "r2")
    rig.fetch_result = lambda _: Failed(kind="transient", reason="Unreachable", message="no network")
    rig.restart(reboot=True)
    rig.run(10)
    assert acts(rig) == ["Start", "Activate"]
    assert rig.revisions() == ["r2"]


def test_what_the_journal_does_not_know_is_stopped() -> None:
    rig = committed()
    rig.running["ns/stranger", "a"] = RunningSlot(instance="ns/stranger", slot="a", launch_id="x", revision="r9")
    rig.running[APP, "b"] = RunningSlot(instance=APP, slot="b", launch_id="y", revision="r0")
    rig.restart()
    rig.run(5)
    assert sorted((effect.instance, effect.slot) for effect in rig.log if isinstance(effect, Stop)) == [(APP, "b"), ("ns/stranger", "a")]
    assert rig.revisions() == ["r1"]
    assert list(rig.state.live) == [APP]
    assert not any(isinstance(effect, Emit) and isinstance(effect.item, InstanceReport) and effect.item.name != APP for effect in rig.log)


def test_what_ended_while_the_agent_was_away_is_a_crash() -> None:
    rig = committed()
    rig.running[APP, "a"] = msgspec.structs.replace(rig.running[APP, "a"], exit_code=-11)
    rig.restart()
    assert (rig.status().state, rig.status().reason) == (InstanceState.ERRORED, "Crashed")
    rig.run(5)
    assert rig.status().state is InstanceState.RUNNING
    assert acts(rig) == ["Start", "Activate"]


def trial(**fields: object) -> Rig:
    rig = committed()
    rig.desire(want("r2", hold=True, **fields))
    rig.run(5)
    rig.log.clear()
    return rig


def test_a_trial_goes_on_and_its_clock_begins_anew() -> None:
    rig = committed()
    rig.desire(want("r2", probation_seconds=30))
    rig.run(20)
    rig.restart()
    rig.run(20)
    assert (rig.status().update, rig.status().committed) == (UpdateState.PROBATION, "r1")
    assert rig.started == ["r1", "r2"]
    rig.run(20)
    assert rig.status().committed == "r2"


def test_after_a_reboot_in_probation_the_candidate_is_started_again() -> None:
    rig = trial()
    rig.restart(reboot=True)
    rig.run(5)
    assert rig.revisions() == ["r2"]
    assert (rig.status().committed, rig.status().update) == ("r1", UpdateState.PROBATION)


@pytest.mark.parametrize(("times", "fails"), [(2, False), (3, False), (4, True)])
def test_the_limit_of_recoveries(times: int, fails: bool) -> None:
    rig = trial()
    for _ in range(times):
        rig.restart(reboot=True)
        rig.run(5)
    assert (rig.status().refused == ("r2",)) is fails
    assert rig.revisions() == ["r1" if fails else "r2"]
    if fails:
        assert "TooManyRecoveries" in [record.refusal.reason for record in rig.records if isinstance(record, Refused)]


def test_a_trial_that_served_long_enough_gets_its_recoveries_back() -> None:
    rig = trial()
    for _ in range(10):
        rig.restart(reboot=True)
        rig.run(rig.limits.stable_seconds + 5)
    assert rig.status().refused == ()
    assert rig.revisions() == ["r2"]
    assert sum(isinstance(record, Tried) for record in rig.records) == 20


def test_a_superseded_trial_is_not_taken_up_again() -> None:
    rig = trial()
    rig.fetch_result = lambda _: Failed(kind="transient", reason="Unreachable", message="no network")
    rig.desire(want("r3"))
    rig.run(1)
    rig.restart(reboot=True)
    rig.run(5)
    assert rig.revisions() == ["r1"]
    rig.fetch_result = None
    rig.run(600)
    assert rig.status().committed == "r3"


def test_a_restart_in_the_middle_of_a_rollback_goes_on_with_it() -> None:
    rig = committed()
    rig.desire(want("r2", probation_seconds=600))
    rig.run(5)
    rig.exit("b")
    rig.run(1.5)
    rig.exit("b")
    rig.restart()
    rig.run(5)
    assert (rig.revisions(), rig.status().refused) == (["r1"], ("r2",))


@pytest.mark.parametrize("probes", [Probes(), Probes(start=Probe(http_path="/up", period_seconds=1, failure_threshold=3))])
def test_a_candidate_that_did_not_serve_yet_must_still_prove_itself(probes: Probes) -> None:
    rig = committed(probes=probes)
    rig.bad = {"r2"}
    rig.desire(want("r2", deadline_seconds=10))
    rig.run(1)
    rig.restart()
    rig.run(60)
    assert rig.status().refused == ("r2",)
    assert rig.revisions() == ["r1"]


def test_a_lost_tree_is_fetched_again() -> None:
    rig = committed()
    rig.trees.clear()
    rig.restart(reboot=True)
    rig.run(5)
    assert acts(rig)[:1] == ["Fetch"]
    assert rig.revisions() == ["r1"]
    assert rig.status().state is InstanceState.RUNNING


def test_a_lost_tree_of_the_candidate_falls_back_until_it_is_here_again() -> None:
    rig = trial()
    rig.trees.discard("tree-r2")
    rig.restart(reboot=True)
    rig.run(2)
    assert rig.started[2:] == ["r1", "r2"]
    assert rig.revisions() == ["r2"]
    assert [effect.revision for effect in rig.log if isinstance(effect, Fetch)] == ["r2"]


def test_a_running_process_whose_tree_is_lost_runs_on_while_it_is_fetched() -> None:
    rig = committed()
    rig.trees.clear()
    rig.restart()
    rig.run(60)
    assert rig.started == ["r1"]


def test_garbage_is_removed_at_the_start() -> None:
    rig = committed("r1", "r2")
    rig.trees |= {"tree-lost", "tree-old"}
    rig.restart()
    rig.run(1)
    assert rig.trees == {"tree-r1", "tree-r2"}


def test_damage_is_told_and_shown() -> None:
    rig = committed()
    rig.restart(damage="segment 1: 7 damaged bytes")
    assert rig.reasons() == ["JournalDamaged"]
    assert rig.device().health is Health.DEGRADED
    assert [condition.type for condition in rig.device().conditions or ()] == ["JournalDamaged"]


def test_a_journal_that_was_lost_does_not_stop_what_is_wanted() -> None:
    rig = committed()
    rig.records.clear()
    rig.restart(damage="all of it")
    rig.run(30)
    assert rig.revisions() == ["r1"]
    rig.desire(want("r1", probation_seconds=1))
    rig.run(30)
    assert rig.started == ["r1"]
    assert rig.status().committed == "r1"


def test_a_journal_that_was_lost_stops_what_is_not_wanted() -> None:
    rig = committed()
    rig.records.clear()
    rig.restart(damage="all of it")
    rig.desire(want("r2", probation_seconds=1))
    rig.run(30)
    assert rig.revisions() == ["r2"]


def test_a_document_that_comes_before_the_observation_is_taken_and_waits() -> None:
    rig = Rig(start=False)
    rig.desire(want("r1"))
    assert acts(rig) == ["Persist"]
    assert not any(isinstance(effect, Emit) for effect in rig.log)
    rig.observe()
    rig.run(10)
    assert rig.status().committed == "r1"


def test_a_second_observation_counts_no_recovery_and_restarts_nothing() -> None:
    rig = trial()
    rig.observe(reboot=False)
    rig.run(5)
    assert not any(isinstance(record, Tried) for record in rig.records)
    assert rig.started == ["r1", "r2"]


def test_a_snapshot_stands_for_all_records() -> None:
    rig = trial()
    rig.bad = {"r3"}
    rig.desire(want("r3", deadline_seconds=2))
    rig.run(30)
    again = recover(snapshot(rig.state), "dev", rig.limits)
    assert again.durable == rig.state.durable == recover(rig.records, "dev", rig.limits).durable


def test_records_survive_the_wire() -> None:
    rig = trial()
    encoded = msgspec.msgpack.encode([*rig.records, *snapshot(rig.state)])
    from edgewise.engine.records import Record

    assert msgspec.msgpack.decode(encoded, type=list[Record]) == [*rig.records, *snapshot(rig.state)]


def test_a_record_without_its_predecessor_changes_nothing() -> None:
    empty = Durable()
    for record in (Committed(instance=APP, revision="r1"), Tried(instance=APP, revision="r1", attempts=2)):
        assert fold(empty, record) == empty
    rig = trial()
    assert fold(rig.state.durable, Committed(instance=APP, revision="r9")) == rig.state.durable


def test_refusals_are_bounded() -> None:
    from edgewise.engine.records import REFUSALS_KEPT, Refusal

    durable = Durable()
    for number in range(REFUSALS_KEPT + 1):
        durable = fold(durable, Refused(instance=APP, uid="u", revision=f"r{number}", refusal=Refusal(reason="Crashed")))
    assert len(durable.instances[APP].refused) == REFUSALS_KEPT
    assert "r0" not in durable.instances[APP].refused


def test_sealed_secrets_belong_to_the_revision_they_came_with() -> None:
    rig = Rig()
    for number in (1, 2):
        rig.desire(want(f"r{number}", probation_seconds=0, secrets=(SealedSecret(name="key", sealed=bytes([number])),)))
        rig.run(1)
    assert sealed_secrets(rig.state, APP, "r1")[0].sealed == b"\1"
    assert sealed_secrets(rig.state, APP, "r2")[0].sealed == b"\2"
    assert sealed_secrets(rig.state, APP, "r3") == sealed_secrets(rig.state, "ns/nobody", "r1") == ()
    starts = [effect for effect in rig.log if isinstance(effect, Start)]
    assert [start.launch.secrets for start in starts] == [("key",), ("key",)]


def test_handle_is_pure() -> None:
    rig = trial()
    before = msgspec.msgpack.encode(rig.state.durable)
    now = Now(wall=1.0, monotonic=rig.time + 100)
    assert handle(rig.state, Tick(), now) == handle(rig.state, Tick(), now)
    assert msgspec.msgpack.encode(rig.state.durable) == before


def test_limits_of_recovery_are_the_limits_given() -> None:
    assert recover((), "dev").limits == EngineLimits()
    release = Release(revision="r", type="model", tree="t", variant=Rig().fetched("r").variant)
    state = recover([Installed(instance=APP, uid="u", release=release), Committed(instance=APP, revision="r")], "dev")
    assert state.durable.instances[APP].committed == release
    assert isinstance(Adopted, type)
    assert not any(isinstance(effect, RunProbe | Remove) for effect in handle(state, Tick(), Now(wall=0.0, monotonic=0.0))[1])
