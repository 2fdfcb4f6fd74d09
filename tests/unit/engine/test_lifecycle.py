"""Starting, probing, crashing, restarting, giving up, stopping, leaving."""

import pytest
from engine_rig import APP, Rig, want

from edgewise.engine.limits import EngineLimits
from edgewise.engine.machine import next_wake
from edgewise.engine.protocol import (
    Activate,
    ContactChanged,
    Emit,
    Exited,
    Failed,
    Forget,
    Heartbeat,
    Persist,
    Probed,
    Remove,
    RunProbe,
    Start,
    Started,
    Stop,
    StorageFailed,
    Tick,
)
from edgewise.engine.records import Broke
from edgewise.resources.artifact import Command, Probe, Probes
from edgewise.resources.states import Health, InstanceState
from edgewise.wire.report import DeviceReport, InstanceReport


def committed(kind: str = "model", **fields: object) -> Rig:
    rig = Rig(**fields)  # type: ignore[arg-type]
    rig.desire(want("r1", kind=kind, probation_seconds=0))
    rig.run(1)
    assert rig.status().committed == "r1"
    rig.log.clear()
    return rig


def test_a_crash_is_restarted_with_back_off_then_broken() -> None:
    rig = committed(limits=EngineLimits(failures_max=4))
    begin, times = rig.time, []
    rig.crashing = {"r1"}
    rig.exit("a")
    for _ in range(60):
        before = len(rig.started)
        rig.run(1)
        if len(rig.started) > before:
            times.append(round(rig.time - begin))
    assert times == [1, 3, 7, 15]
    assert (rig.status().state, rig.status().restarts, rig.status().exit_code) == (InstanceState.BROKEN, 4, 1)
    assert rig.device().health is Health.DEGRADED
    assert rig.reasons()[-1] == "Broken"
    rig.log.clear()
    rig.run(100_000)
    assert rig.log == []


def test_a_device_is_degraded_while_an_instance_is_in_error() -> None:
    rig = committed()
    rig.exit("a")
    assert (rig.status().state, rig.device().health) == (InstanceState.ERRORED, Health.DEGRADED)
    rig.run(5)
    assert (rig.status().state, rig.device().health) == (InstanceState.RUNNING, Health.HEALTHY)


def test_a_device_is_degraded_while_an_instance_never_came_to_run() -> None:
    rig = Rig()
    rig.crashing = {"r1"}
    rig.desire(want("r1"))
    rig.run(100)
    assert (rig.status().state, rig.status().committed, rig.device().health) == (InstanceState.ERRORED, "", Health.DEGRADED)


def test_back_off_ends_at_its_limit_and_stable_running_begins_anew() -> None:
    rig = committed(limits=EngineLimits(failures_max=100))
    rig.crashing = {"r1"}
    rig.exit("a")
    rig.run(600)
    starts = len(rig.started)
    rig.run(600)
    assert len(rig.started) - starts == 10
    rig.crashing = set()
    rig.run(60 + rig.limits.stable_seconds + 5)
    assert rig.status().state is InstanceState.RUNNING
    rig.exit("a")
    starts = len(rig.started)
    rig.run(1)
    assert len(rig.started) == starts + 1


def broken() -> Rig:
    rig = committed(limits=EngineLimits(failures_max=2))
    rig.crashing = {"r1"}
    rig.exit("a")
    rig.run(100)
    assert rig.status().state is InstanceState.BROKEN
    rig.crashing = set()
    return rig


def test_broken_stays_broken_over_a_restart_of_the_agent_and_a_reboot() -> None:
    rig = broken()
    for reboot in (False, True):
        rig.restart(reboot=reboot)
        rig.run(1000)
        assert rig.status().state is InstanceState.BROKEN
        assert rig.revisions() == []


def test_a_new_document_for_it_gives_new_tries() -> None:
    rig = broken()
    rig.desire(want("r1", probation_seconds=7))
    rig.run(5)
    assert (rig.status().state, rig.device().health) == (InstanceState.RUNNING, Health.HEALTHY)


def test_a_document_that_does_not_speak_of_it_gives_none() -> None:
    rig = broken()
    rig.desire(want("r1", probation_seconds=0), want("x1", "ns/other"))
    rig.run(50)
    assert rig.status().state is InstanceState.BROKEN


def test_clearing_refusals_gives_new_tries() -> None:
    rig = broken()
    rig.desire(want("r1", probation_seconds=0), cleared_refusals=1)
    rig.run(5)
    assert rig.status().state is InstanceState.RUNNING


def test_a_new_revision_replaces_a_broken_one() -> None:
    rig = broken()
    rig.desire(want("r2", probation_seconds=0))
    rig.run(5)
    assert (rig.status().state, rig.status().committed) == (InstanceState.RUNNING, "r2")


def test_starts_that_are_hindered_never_break_it() -> None:
    rig = committed(limits=EngineLimits(failures_max=2))
    rig.start_result = lambda _: Failed(kind="transient", reason="DiskFull", message="no room")
    rig.exit("a")
    rig.run(3600)
    assert (rig.status().state, rig.status().reason) == (InstanceState.ERRORED, "DiskFull")
    rig.start_result = None
    rig.run(60)
    assert rig.status().state is InstanceState.RUNNING


def test_an_exit_that_is_heard_of_before_the_start_is_confirmed_is_not_lost() -> None:
    rig = committed()
    rig.exit("a")
    rig.run(1, answer=lambda effect: not isinstance(effect, Start))
    start = next(effect for effect in rig.pending.values() if isinstance(effect, Start))
    rig.post(Exited(instance=APP, slot="a", launch_id="quick", code=-9))
    rig.done(start, Started(launch_id="quick"))
    assert (rig.status().state, rig.status().exit_code) == (InstanceState.ERRORED, -9)
    rig.run(3)
    assert rig.status().state is InstanceState.RUNNING


def test_an_exit_of_a_former_launch_or_of_nobody_changes_nothing() -> None:
    rig = committed()
    for instance, slot, launch in ((APP, "a", "launch-0"), (APP, "b", "launch-1"), ("ns/nobody", "a", "launch-1")):
        assert rig.post(Exited(instance=instance, slot=slot, launch_id=launch, code=1)) == []  # type: ignore[arg-type]


def test_a_start_probe_that_never_answers_is_restarted_after_its_deadline() -> None:
    probes = Probes(start=Probe(http_path="/up", period_seconds=2, failure_threshold=5))
    rig = committed("bundle", probes=probes)
    rig.exit("a")
    rig.bad = {"r1"}
    rig.run(1.5)
    rig.log.clear()
    rig.run(10.5)
    assert len([effect for effect in rig.log if isinstance(effect, Stop)]) == 1
    assert rig.status().reason == "StartProbeFailed"
    rig.bad = set()
    rig.run(30)
    assert rig.status().state is InstanceState.RUNNING


def test_what_is_awaited_is_asked_quickly_then_at_its_period() -> None:
    probes = Probes(start=Probe(http_path="/up", period_seconds=2, failure_threshold=50))
    rig = Rig(probes=probes)
    rig.bad = {"r1"}
    rig.desire(want("r1", kind="bundle"))
    rig.run(1)
    assert len([effect for effect in rig.log if isinstance(effect, RunProbe)]) >= 4
    rig.run(10)
    rig.log.clear()
    rig.run(20)
    assert len([effect for effect in rig.log if isinstance(effect, RunProbe)]) == 10


def test_readiness_gates_ready_and_not_the_process() -> None:
    probes = Probes(readiness=Probe(http_path="/ready", period_seconds=1, failure_threshold=3))
    rig = committed("bundle", probes=probes)
    rig.run(5)
    assert rig.status().ready
    rig.bad = {"r1"}
    rig.run(1.5)
    assert rig.status().ready
    rig.run(3)
    assert (rig.status().ready, rig.status().state, rig.started) == (False, InstanceState.RUNNING, ["r1"])
    rig.bad = set()
    rig.run(2)
    assert rig.status().ready


def test_readiness_gates_the_commit() -> None:
    rig = Rig(probes=Probes(readiness=Probe(http_path="/ready", period_seconds=1)))
    rig.bad = {"r1"}
    rig.desire(want("r1", kind="bundle", probation_seconds=1, deadline_seconds=100))
    rig.run(50)
    assert rig.status().committed == ""
    rig.bad = set()
    rig.run(5)
    assert rig.status().committed == "r1"


def test_liveness_restarts_after_its_threshold_and_not_before() -> None:
    probes = Probes(liveness=Probe(http_path="/live", period_seconds=10, failure_threshold=3))
    rig = committed("bundle", probes=probes)
    rig.bad = {"r1"}
    rig.run(25)
    assert rig.started == ["r1"]
    rig.run(10)
    rig.bad = set()
    rig.run(5)
    assert rig.started == ["r1", "r1"]
    assert rig.status().restarts == 1


def test_a_command_probe_is_run_and_a_failed_effect_counts_as_no() -> None:
    probes = Probes(liveness=Probe(command=Command(argv=("check",)), period_seconds=1, failure_threshold=2))
    rig = committed("bundle", probes=probes)
    for _ in range(2):
        rig.run(1.1, answer=lambda effect: not isinstance(effect, RunProbe))
        probe = next(effect for effect in rig.pending.values() if isinstance(effect, RunProbe))
        rig.done(probe, Failed(kind="transient", reason="Lost", message="no answer"))
    assert "LivenessFailed" in rig.reasons()


def test_heartbeats() -> None:
    probes = Probes(
        start=Probe(heartbeat=True, period_seconds=5, failure_threshold=4),
        liveness=Probe(heartbeat=True, period_seconds=5, failure_threshold=2),
    )
    rig = Rig(probes=probes)
    rig.desire(want("r1", kind="bundle", probation_seconds=0))
    rig.run(10)
    assert rig.status().state is InstanceState.STARTING
    rig.post(Heartbeat(instance=APP))
    rig.run(0)
    assert (rig.status().state, rig.status().committed) == (InstanceState.RUNNING, "r1")
    for _ in range(10):
        rig.run(4)
        rig.post(Heartbeat(instance=APP))
    assert rig.started == ["r1"]
    rig.run(20)
    assert rig.started == ["r1", "r1"]
    assert not any(isinstance(effect, RunProbe) for effect in rig.log)
    assert rig.post(Heartbeat(instance="ns/nobody")) == []


def test_an_idle_model_wakes_the_device_every_ten_seconds_and_says_nothing() -> None:
    rig = committed()
    rig.run(20)
    rig.log.clear()
    rig.run(1000)
    assert len([effect for effect in rig.log if isinstance(effect, RunProbe)]) == 100
    assert not any(isinstance(effect, Emit | Persist) for effect in rig.log)


def test_an_idle_bundle_without_probes_never_wakes_the_device() -> None:
    rig = committed("bundle")
    rig.run(5)
    assert next_wake(rig.state) is None


def test_a_stopped_instance_leaves_nothing_and_says_so_once() -> None:
    rig = committed()
    rig.desire(want("r1", desired="Stopped"))
    rig.run(5)
    assert [type(effect) for effect in rig.log if isinstance(effect, Stop | Remove)] == [Stop, Remove]
    assert [effect.instances for effect in rig.log if isinstance(effect, Remove)] == [(APP,)]
    reports = [effect.item for effect in rig.log if isinstance(effect, Emit) and isinstance(effect.item, InstanceReport)]
    assert [report.gone for report in reports][-1:] == [True]
    assert sum(report.gone for report in reports) == 1
    assert (rig.state.durable.instances, rig.state.live, rig.trees) == ({}, {}, set())
    rig.log.clear()
    rig.run(50)
    assert rig.log == []


def test_an_instance_that_was_never_here_is_said_to_be_gone() -> None:
    rig = Rig()
    rig.desire(want("r1", desired="Stopped"))
    rig.run(1)
    reports = [effect.item for effect in rig.log if isinstance(effect, Emit) and isinstance(effect.item, InstanceReport)]
    assert [(report.name, report.uid, report.gone) for report in reports] == [(APP, f"uid-{APP}", True)]
    rig.log.clear()
    rig.desire(want("r1", desired="Stopped"))
    assert not any(isinstance(effect, Emit) and isinstance(effect.item, InstanceReport) for effect in rig.log)


def test_an_instance_that_is_missing_from_the_document_leaves() -> None:
    rig = committed()
    rig.desire()
    rig.run(5)
    assert (rig.state.live, rig.revisions(), rig.trees) == ({}, [], set())


def test_an_instance_made_anew_with_the_same_name_is_another_one() -> None:
    rig = committed()
    rig.desire(want("r1", uid="another", probation_seconds=0))
    rig.run(10)
    reports = [effect.item for effect in rig.log if isinstance(effect, Emit) and isinstance(effect.item, InstanceReport)]
    assert [report.uid for report in reports if report.gone] == [f"uid-{APP}"]
    assert rig.state.durable.instances[APP].uid == "another"
    assert rig.status().state is InstanceState.RUNNING
    assert rig.started == ["r1", "r1"]


def test_an_instance_that_is_wanted_again_while_it_stops_runs_again() -> None:
    rig = committed()
    rig.desire()
    stop = next(effect for effect in rig.pending.values() if isinstance(effect, Stop))
    rig.desire(want("r1"))
    rig.answer(stop)
    rig.run(5)
    assert rig.status().state is InstanceState.RUNNING


def test_leaving_in_the_middle_of_a_fetch_cancels_it() -> None:
    rig = Rig()
    rig.desire(want("r1"))
    rig.desire()
    fetch = next(iter(rig.pending.values()))
    rig.done(fetch, rig.fetched("r1"))
    rig.run(5)
    assert (rig.started, rig.trees, rig.state.live) == ([], set(), {})


def test_a_removal_that_fails_is_tried_again() -> None:
    rig = committed()
    rig.desire()
    rig.run(0, answer=lambda effect: not isinstance(effect, Remove))
    rig.done(
        next(effect for effect in rig.pending.values() if isinstance(effect, Remove)),
        Failed(kind="transient", reason="DiskFailed", message=""),
    )
    rig.run(10)
    assert APP in rig.state.live
    rig.run(rig.limits.remove_retry_seconds)
    assert rig.state.live == {}


def test_a_stop_that_fails_is_tried_again() -> None:
    rig = committed()
    rig.desire()
    rig.done(
        next(effect for effect in rig.pending.values() if isinstance(effect, Stop)), Failed(kind="transient", reason="Lost", message="")
    )
    rig.run(rig.limits.stop_retry_seconds + 1)
    assert rig.state.live == {}


def test_decommissioning_stops_and_removes_everything_then_says_so_then_forgets() -> None:
    rig = committed()
    rig.desire(want("r1"), decommission=True)
    rig.run(5)
    last = [effect for effect in rig.log if isinstance(effect, Emit | Forget)][-2:]
    assert isinstance(last[0], Emit)
    assert isinstance(last[0].item, DeviceReport)
    assert last[0].item.decommissioned
    assert isinstance(last[1], Forget)
    assert (rig.revisions(), rig.trees) == ([], set())
    assert next_wake(rig.state) is None
    assert rig.post(Tick()) == []
    rig.restart()
    rig.run(5)
    assert rig.forgotten


def test_a_decommissioned_device_without_instances_forgets_too() -> None:
    rig = Rig()
    rig.desire(decommission=True)
    rig.run(1)
    assert rig.forgotten


EXCLUSIVE = {"exclusive": True, "lost_after_seconds": 100.0, "probation_seconds": 0.0}


def exclusive() -> Rig:
    rig = Rig()
    rig.contact(online=True)
    rig.desire(want("r1", **EXCLUSIVE))
    rig.run(5)
    assert rig.status().state is InstanceState.RUNNING
    return rig


@pytest.mark.parametrize(("seconds", "runs"), [(69.9, True), (70.1, False)])
def test_an_exclusive_instance_stops_before_others_may_start_it(seconds: float, runs: bool) -> None:
    rig = exclusive()
    rig.contact(online=False)
    rig.run(seconds)
    assert rig.revisions() == (["r1"] if runs else [])
    if not runs:
        assert (rig.status().state, rig.status().reason) == (InstanceState.STOPPED, "LostContact")
    rig.contact(online=True)
    rig.run(5)
    assert (rig.revisions(), rig.status().state) == (["r1"], InstanceState.RUNNING)


def test_a_lost_connection_stops_nothing_else() -> None:
    rig = committed()
    rig.contact(online=False)
    rig.run(10_000)
    assert rig.started == ["r1"]


def test_an_exclusive_instance_is_not_started_after_a_reboot_before_there_is_contact() -> None:
    rig = exclusive()
    rig.restart(reboot=True)
    rig.run(50)
    assert rig.revisions() == []
    rig.contact(online=True)
    rig.run(5)
    assert rig.revisions() == ["r1"]


def test_an_exclusive_instance_is_not_started_where_there_never_was_contact() -> None:
    rig = exclusive()
    rig.restart(reboot=True)
    rig.post(ContactChanged(online=False, last_contact=None))
    rig.run(200)
    assert rig.started == ["r1"]


@pytest.mark.parametrize("reboot", [True, False])
def test_an_exclusive_instance_is_not_started_by_contact_while_the_word_that_moved_it_cannot_be_written(reboot: bool) -> None:
    """It runs elsewhere by now. The document that says so waits for the disk; the contact that it came with is known."""
    rig = exclusive()
    rig.contact(online=False)
    if reboot:
        rig.restart(reboot=True)
    rig.run(90)
    rig.disk_ok = False
    rig.desire(want("r1", desired="Stopped", **EXCLUSIVE))
    rig.contact(online=True)
    rig.run(100)
    assert rig.revisions() == []
    assert rig.status().reason == "DiskFull"
    rig.disk_ok = True
    rig.desire(want("r1", desired="Stopped", **EXCLUSIVE))
    rig.run(100)
    assert rig.started == ["r1"]


def test_an_exclusive_instance_starts_where_it_stays_once_the_disk_takes_records_again() -> None:
    rig = exclusive()
    rig.restart(reboot=True)
    rig.disk_ok = False
    rig.desire(want("r1", **{**EXCLUSIVE, "lost_after_seconds": 90.0}))
    rig.contact(online=True)
    rig.run(30)
    assert rig.revisions() == []
    rig.disk_ok = True
    rig.run(30)
    assert (rig.revisions(), rig.status().reason) == (["r1"], "")


def test_an_exclusive_instance_that_crashes_is_started_again_whatever_the_disk_takes() -> None:
    rig = exclusive()
    rig.disk_ok = False
    rig.post(StorageFailed(kind="full", message="no room"))
    rig.exit("a")
    rig.run(5)
    assert rig.started == ["r1", "r1"]


@pytest.mark.parametrize(("lost_after", "grace"), [(12.0, 1.8), (60.0, 9.0), (100.0, 10.0)])
def test_an_exclusive_instance_has_stopped_when_others_may_start_it(lost_after: float, grace: float) -> None:
    rig = Rig()
    rig.contact(online=True)
    rig.desire(want("r1", exclusive=True, lost_after_seconds=lost_after, probation_seconds=0.0))
    rig.run(1)
    rig.contact(online=False)
    rig.run(lost_after)
    (stop,) = (effect for effect in rig.log if isinstance(effect, Stop))
    assert stop.grace_seconds == pytest.approx(grace)


@pytest.mark.parametrize("contact", [True, False])
def test_an_exclusive_instance_that_runs_has_a_grace_after_a_restart_of_the_agent(contact: bool) -> None:
    rig = exclusive()
    rig.restart()
    rig.run(rig.limits.exclusive_grace_seconds - 0.1)
    assert rig.revisions() == ["r1"]
    if contact:
        rig.contact(online=True)
    rig.run(5)
    assert rig.revisions() == (["r1"] if contact else [])


def test_an_exclusive_trial_waits_for_contact_and_is_not_failed_by_its_deadline() -> None:
    rig = exclusive()
    rig.desire(want("r2", hold=True, deadline_seconds=50.0, **EXCLUSIVE))
    rig.run(5)
    rig.contact(online=False)
    rig.run(1000)
    assert (rig.revisions(), rig.status().refused) == ([], ())
    rig.contact(online=True)
    rig.run(5)
    assert rig.revisions() == ["r2"]


def test_an_answer_to_nothing_changes_nothing() -> None:
    rig = committed()
    from edgewise.engine.protocol import Done

    assert rig.post(Done(id=9999, result=Probed(ok=False))) == []


def test_probes_wait_for_their_answer() -> None:
    rig = committed()
    rig.run(100, answer=lambda effect: not isinstance(effect, RunProbe))
    assert sum(isinstance(effect, RunProbe) for effect in rig.pending.values()) == 1
    assert sum(isinstance(effect, Activate) for effect in rig.pending.values()) == 0


def test_broken_is_a_record() -> None:
    rig = broken()
    assert [record for record in rig.records if isinstance(record, Broke)] == [Broke(instance=APP, revision="r1")]
