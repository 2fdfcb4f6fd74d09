"""A journal that takes nothing, and what is told of the device."""

from engine_rig import APP, Rig, want

from edgewise.engine.machine import next_wake
from edgewise.engine.protocol import Desired, Emit, Failed, Fetch, Persist, RunProbe, StorageFailed, StorageRecovered, Tick
from edgewise.resources.states import DeviceUpdate, Health, InstanceState, UpdateState
from edgewise.wire.desired import Position
from edgewise.wire.report import DeviceReport, EventReport, InstanceReport


def committed() -> Rig:
    rig = Rig()
    rig.desire(want("r1", probation_seconds=0))
    rig.run(1)
    rig.log.clear()
    return rig


def test_what_runs_runs_on_while_the_disk_takes_nothing() -> None:
    rig = committed()
    rig.disk_ok = False
    rig.desire(want("r2"))
    rig.run(100)
    assert rig.status().state is InstanceState.RUNNING
    assert not any(isinstance(effect, Fetch) for effect in rig.log)
    rig.exit("a")
    rig.run(5)
    assert rig.status().state is InstanceState.RUNNING
    assert len([effect for effect in rig.log if isinstance(effect, RunProbe)]) >= 10


def test_storage_failures_show_in_health_and_end() -> None:
    rig = committed()
    rig.disk_ok = False
    rig.desire(want("r2"))
    assert rig.device().health is Health.DEGRADED
    condition = (rig.device().conditions or ())[0]
    assert (condition.type, condition.reason, condition.message) == ("StorageFailed", "DiskFull", "no room")
    assert rig.reasons() == ["StorageFailed"]
    rig.run(300)
    assert rig.reasons() == ["StorageFailed"]
    rig.disk_ok = True
    rig.run(30)
    assert rig.device().health is Health.HEALTHY
    assert rig.reasons() == ["StorageFailed", "StorageRecovered"]


def test_health_is_an_error_when_the_disk_is_read_only_or_damaged() -> None:
    for kind in ("read-only", "damaged"):
        rig = committed()
        rig.post(StorageFailed(kind=kind, message=kind))  # type: ignore[arg-type]
        assert rig.device().health is Health.ERROR


def test_the_shell_may_say_that_the_journal_is_well_again() -> None:
    rig = committed()
    rig.post(StorageFailed(kind="full", message="x"))
    rig.post(StorageRecovered())
    assert rig.device().health is Health.HEALTHY


def test_a_device_whose_disk_fails_sleeps_between_the_tries() -> None:
    rig = committed()
    rig.desire(want("r2", probation_seconds=1))
    rig.run(1)
    rig.disk_ok = False
    before = len(rig.log)
    rig.run(100)
    ticks = len(rig.log) - before
    assert ticks < 200
    wake = next_wake(rig.state)
    assert wake is not None
    assert wake > rig.time
    rig.disk_ok = True
    rig.run(30)
    assert rig.status().committed == "r2"


def test_a_failed_trial_goes_back_although_the_refusal_cannot_be_written_and_it_is_written_later() -> None:
    rig = committed()
    rig.desire(want("r2", probation_seconds=100))
    rig.run(3)
    rig.disk_ok = False
    rig.crashing = {"r2"}
    rig.exit("b")
    rig.run(20)
    assert rig.revisions() == ["r1"]
    assert rig.state.owed
    rig.disk_ok = True
    rig.run(20)
    assert not rig.state.owed
    assert rig.state.durable.instances[APP].refused.keys() == {"r2"}


def test_nothing_is_installed_on_a_record_that_is_not_written() -> None:
    rig = committed()
    effects = rig.desire(want("r2", probation_seconds=1))
    fetch = next(effect for effect in effects if isinstance(effect, Fetch))
    rig.disk_ok = False
    rig.post(StorageFailed(kind="full", message="x"))
    rig.done(fetch, rig.fetched("r2"))
    rig.run(60)
    assert rig.started == ["r1"]
    rig.disk_ok = True
    rig.run(20)
    assert rig.status().committed == "r2"
    assert sum(isinstance(effect, Fetch) for effect in rig.log) == 1


def test_a_document_offered_again_is_taken_when_the_disk_takes_it() -> None:
    from engine_rig import document

    rig = committed()
    rig.disk_ok = False
    event = Desired(document=document(9, want("r2", probation_seconds=0)))
    rig.post(event)
    assert rig.state.durable.document.position.n == 1
    rig.disk_ok = True
    rig.post(event)
    rig.run(20)
    assert rig.status().committed == "r2"


# ---- reports ----


def emitted(rig: Rig, kind: type) -> list[object]:
    return [effect.item for effect in rig.log if isinstance(effect, Emit) and isinstance(effect.item, kind)]


def test_the_first_report_of_a_start_is_whole_and_the_next_say_what_changed() -> None:
    rig = Rig(start=False)
    rig.observe()
    rig.desire(want("r1", probation_seconds=0))
    rig.run(5)
    first, *others = emitted(rig, DeviceReport)
    assert (first.health, first.update, first.boot_id, first.conditions) == (Health.HEALTHY, DeviceUpdate.UNKNOWN, "boot-1", ())
    assert all(report.health is None and report.boot_id is None for report in others)
    assert [report.update for report in others] == [DeviceUpdate.UPDATING, DeviceUpdate.UP_TO_DATE]
    assert others[0].observed == rig.state.durable.document.position


def test_lanes() -> None:
    rig = committed()
    rig.crashing = {"r2"}
    rig.desire(want("r2"))
    rig.run(30)
    for effect in rig.log:
        if isinstance(effect, Emit):
            assert effect.lane == ("events" if isinstance(effect.item, EventReport) else "status")


def test_events_name_the_device_the_instance_and_both_clocks() -> None:
    rig = committed()
    rig.time += 5
    rig.exit("a", code=-9)
    event = emitted(rig, EventReport)[0]
    assert (event.device, event.about, event.type, event.reason) == ("dev", APP, "Warning", "Crashed")
    assert (event.at, event.monotonic) == (1e9 + rig.time, rig.time)
    assert "signal 9" in event.message


def test_the_story_of_an_update_in_events() -> None:
    rig = committed()
    rig.desire(want("r2", probation_seconds=0))
    rig.run(5)
    rig.crashing = {"r3"}
    rig.desire(want("r3"))
    rig.run(30)
    assert rig.reasons() == ["Installed", "Committed", "Installed", "Crashed", "Crashed", "Refused", "RolledBack"]


def test_recovery_after_a_crash_is_told() -> None:
    rig = committed()
    rig.exit("a")
    rig.run(5)
    assert rig.reasons() == ["Crashed", "Recovered"]


def test_update_of_the_device() -> None:
    rig = committed()
    rig.fetch_result = lambda _: Failed(kind="transient", reason="Unreachable", message="")
    rig.desire(want("r2"))
    rig.run(1)
    assert rig.device().update is DeviceUpdate.OUT_OF_DATE
    rig.fetch_result = None
    rig.run(3)
    assert rig.device().update is DeviceUpdate.UPDATING
    rig.run(20)
    assert rig.device().update is DeviceUpdate.UP_TO_DATE


def test_no_storm_while_a_fetch_is_retried_for_hours() -> None:
    rig = committed()
    rig.fetch_result = lambda _: Failed(kind="transient", reason="Unreachable", message="no network")
    rig.desire(want("r2"))
    rig.run(20_000)
    assert len(emitted(rig, EventReport)) == 1
    told = [item.status.retry_seconds for item in emitted(rig, InstanceReport)]
    assert told == [0, 2, 4, 8, 16, 32, 64, 128, 256, 300]  # once per doubling, however long it lasts
    assert not any(isinstance(effect, Persist) for effect in rig.log[5:])


def test_while_a_fetch_is_tried_again_it_is_told_why_and_within_what_time() -> None:
    rig = committed()
    rig.fetch_result = lambda _: Failed(kind="transient", reason="DiskFull", message="12 bytes are needed, 3 are free")
    rig.desire(want("r2"))
    for _ in range(10):
        rig.run(3)
        status = rig.status()
        assert (status.update, status.reason, status.message) == (UpdateState.FAILED, "DiskFull", "12 bytes are needed, 3 are free")
        assert 2 <= status.retry_seconds <= 32
    rig.fetch_result = None
    rig.run(60)
    assert (rig.status().committed, rig.status().reason, rig.status().retry_seconds) == ("r2", "", 0)


def test_what_waits_for_a_journal_that_takes_nothing_says_so() -> None:
    rig = committed()
    rig.fetch_result = lambda _: Failed(kind="transient", reason="Unreachable", message="no network")
    rig.desire(want("r2"))
    rig.run(1)
    rig.desire(want("r3"))
    rig.post(StorageFailed(kind="full", message="no room"))
    assert (rig.status().state, rig.status().ready, rig.status().reason) == (InstanceState.RUNNING, True, "DiskFull")
    assert "no room" in rig.status().message
    rig.post(StorageRecovered())
    rig.run(60)
    assert rig.status().reason == "Unreachable"


def test_a_status_is_told_only_when_it_changed() -> None:
    rig = committed()
    for _ in range(50):
        rig.time += 1
        rig.post(Tick())
    assert emitted(rig, InstanceReport) == emitted(rig, DeviceReport) == []
    assert rig.status().update is UpdateState.IDLE


def test_everything_is_told_again_after_the_control_plane_was_restored_from_a_backup() -> None:
    rig = committed()
    rig.__dict__["told"].clear()  # it was told to another one
    rig.desire(want("r1", probation_seconds=0), epoch=2)
    assert [item.status.committed for item in emitted(rig, InstanceReport)] == ["r1"]
    assert [(item.update, item.observed) for item in emitted(rig, DeviceReport)] == [(DeviceUpdate.UP_TO_DATE, Position(2, 2))]
    rig.log.clear()
    rig.desire(want("r1", probation_seconds=0), epoch=2)
    assert emitted(rig, InstanceReport) == []


def test_everything_is_told_again_once_after_another_device_may_have_told_it() -> None:
    rig = committed()
    for _ in range(2):
        rig.__dict__["told"].clear()
        rig.desire(want("r1", probation_seconds=0), tell_again=1)
    assert [item.status.committed for item in emitted(rig, InstanceReport)] == ["r1"]
    assert [item.update for item in emitted(rig, DeviceReport)] == [DeviceUpdate.UP_TO_DATE, None]
