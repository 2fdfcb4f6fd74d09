"""One simulated device, alone: it does what a real one does, and what can happen to it happens."""

import msgspec
import pytest
from device_rig import NAME, Rig

from edgewise.resources.states import InstanceState, UpdateState
from edgewise.resources.traffic import Traffic
from edgewise.twin.fleet import DeviceClass, Energy
from edgewise.twin.kernel import EPOCH
from edgewise.twin.link import Refused
from edgewise.twin.plan import Profile
from edgewise.twin.scenario import Behaviour
from edgewise.wire.desired import DeviceDesired, Position
from edgewise.wire.report import EventReport, FrameReport

FAST = Profile(disk="plain", install="modelled")
GOOD = Behaviour(metrics={"model.accuracy": (0.97, 0.01)}, metric_seconds=10.0, samples_per_second=10.0)


def reasons(rig):
    return [item.reason for item in rig.control.items if isinstance(item, EventReport)]


def started(rig, *versions):
    rig.device.power_on()
    rig.control.want(*versions)
    rig.run(60)
    return rig


@pytest.mark.parametrize("bundle", [False, True])
@pytest.mark.parametrize("profile", [Profile(), FAST])
def test_it_joins_installs_runs_and_updates(bundle, profile):
    rig = started(Rig(bundle=bundle, profile=profile), "1")
    assert rig.device.agent == "agent-dev-key-0"
    assert rig.device.ready() == {NAME: "1"}
    assert rig.device.whole(rig.library.made("1").variants[0])
    rig.control.want("2")
    rig.run(60)
    assert rig.device.ready() == {NAME: "2"}
    assert rig.seen.commits == ["rev-1", "rev-2"]
    assert rig.control.statuses()[NAME].status.state is InstanceState.RUNNING
    assert [item.capacity for item in rig.control.device() if item.capacity] == [rig.device.capacity]
    for counts in rig.device.counts().values():
        assert counts.produced == counts.acknowledged + counts.held + counts.dropped
        assert counts.held == 0


def test_it_tells_what_it_has_again_when_the_control_plane_was_set_back_to_a_backup():
    rig = started(Rig(profile=FAST), "1")
    rig.control.items.clear()
    rig.control.want("2")
    rig.run(60)
    assert [item for item in rig.control.device() if item.capacity] == []
    for epoch in (2, 3):
        rig.control.items.clear()
        rig.control.tell(msgspec.structs.replace(rig.control.document, position=Position(epoch, 1)))
        rig.run(60)
        [told] = [item for item in rig.control.device() if item.capacity]
        assert (told.capacity, told.agent_version, told.boot_id) == (rig.device.capacity, "twin", rig.device.boot_id)


@pytest.mark.parametrize("bundle", [False, True])
@pytest.mark.parametrize("fails", ["does-not-load", "crashes-at-start", "crashes", "hangs", "leaks", "probe-fails"])
@pytest.mark.parametrize("skip", [False, True])
def test_a_bad_version_is_taken_back(bundle, fails, skip):
    bad = Behaviour(version="2", fails=fails, fails_after_seconds=3.0)
    rig = started(Rig(bad, bundle=bundle, skip_probes=skip), "1")
    rig.control.want("2", probation_seconds=90.0, deadline_seconds=120.0)
    rig.run(400)
    assert rig.device.ready() == {NAME: "1"}
    assert rig.device.refused() == {NAME: ("rev-2",)}
    assert rig.seen.refusals == ["rev-2"]
    assert "RolledBack" in reasons(rig)
    starts = rig.seen.starts.count("rev-2")
    rig.run(600)
    assert rig.seen.starts.count("rev-2") == starts


@pytest.mark.parametrize("fails", ["crashes", "hangs", "probe-fails"])
def test_leaving_out_probes_that_pass_changes_little(fails):
    ends = []
    for skip in (False, True):
        rig = started(Rig(Behaviour(version="2", fails=fails, fails_after_seconds=33.0), bundle=True, skip_probes=skip), "1")
        rig.control.want("2", probation_seconds=90.0)
        while not rig.seen.refusals:
            rig.run(0.5)
        ends.append(rig.kernel.now)
    assert abs(ends[0] - ends[1]) <= 5.0


def test_a_hot_swap_serves_all_the_time_and_an_ordered_one_does_not():
    gaps = []
    for bundle in (False, True):
        rig = started(Rig(bundle=bundle), "1")
        rig.control.want("2")
        rig.run(60)
        downs = [at for at, version, ready in rig.seen.readiness if version == "1" and not ready]
        ups = [at for at, version, ready in rig.seen.readiness if version == "2" and ready]
        gaps.append(ups[0] - downs[0])
    assert gaps[0] <= 0.0
    assert 0.5 < gaps[1] < 5.0


def test_a_power_cut_brings_back_what_was_committed_without_the_control_plane():
    for crash in ("all", "dropped", "torn", "garbage", "names-dropped", "contents-dropped", "any"):
        rig = started(Rig(bundle=True), "1")
        rig.control.up = False
        rig.device.power_off(crash)
        assert rig.device.ready() == {}
        assert not rig.device.up
        rig.run(30)
        rig.device.power_on()
        rig.run(60)
        assert rig.device.ready() == {NAME: "1"}, crash


def test_power_cuts_all_through_an_update_leave_the_old_or_the_new():
    for after in range(0, 90, 3):
        rig = started(Rig(bundle=after % 2 == 0), "1")
        rig.control.want("2")
        rig.run(after / 10)
        rig.device.power_off("any")
        rig.run(1)
        rig.device.power_on()
        rig.run(25)
        rig.run(200)
        assert rig.device.ready() == {NAME: "2"}
        assert rig.device.refused() == {}


def test_an_agent_that_is_killed_touches_no_workload_and_loses_no_exit():
    rig = started(Rig(), "1")
    before = len(rig.seen.readiness)
    sessions = {request.session for request in rig.control.requests if request.purpose == "desired"}
    rig.device.kill_agent()
    rig.device.disturb(NAME, "crash")
    rig.run(60)
    assert len({request.session for request in rig.control.requests if request.purpose == "desired"}) == len(sessions) + 1
    assert rig.device.ready() == {NAME: "1"}
    assert [ready for _, _, ready in rig.seen.readiness[before:]] == [False, True]
    assert rig.control.statuses()[NAME].status.restarts == 1
    assert rig.seen.starts == ["rev-1", "rev-1"]
    rig.device.kill_agent()
    rig.run(60)
    assert len(rig.seen.readiness) == before + 2


def test_a_supervisor_that_is_killed_takes_everything_along_and_all_comes_back():
    rig = started(Rig(), "1")
    rig.device.kill_supervisor()
    assert rig.device.running() == ()
    rig.run(60)
    assert rig.device.ready() == {NAME: "1"}
    assert rig.seen.starts == ["rev-1", "rev-1"]


@pytest.mark.parametrize("how", ["crash", "hang", "leak"])
@pytest.mark.parametrize("skip", [False, True])
def test_what_is_disturbed_recovers(how, skip):
    rig = started(Rig(bundle=True, skip_probes=skip), "1")
    rig.device.disturb("", how)
    rig.run(1 if how == "leak" else 0.01)
    rig.run(120)
    assert rig.device.ready() == {NAME: "1"}
    assert [ready for _, _, ready in rig.seen.readiness] == [True, False, True]


def test_a_full_disk_delays_an_update_and_loses_nothing():
    rig = started(Rig(), "1")
    rig.device.disk_full(on=True)
    rig.control.want("2")
    rig.run(120)
    assert rig.device.ready() == {NAME: "1"}
    rig.device.disk_full(on=False)
    rig.run(400)
    assert rig.device.ready() == {NAME: "2"}
    assert rig.device.refused() == {}


@pytest.mark.parametrize("fault", ["disk_error", "read_only"])
@pytest.mark.parametrize("profile", [Profile(), FAST])
def test_a_disk_that_fails_keeps_what_runs_running(fault, profile):
    rig = started(Rig(profile=profile), "1")
    getattr(rig.device, fault)(on=True)
    rig.control.want("2")
    rig.run(120)
    assert rig.device.ready() == {NAME: "1"}
    getattr(rig.device, fault)(on=False)
    rig.run(400)
    assert rig.device.ready() == {NAME: "2"}


def test_an_agent_that_cannot_read_its_disk_starts_again_until_it_can():
    rig = started(Rig(), "1")
    rig.device.disk_error(on=True)
    rig.device.kill_agent()
    rig.run(100)
    assert rig.device.agent == ""
    assert rig.device.ready() == {NAME: "1"}
    rig.device.disk_error(on=False)
    rig.run(100)
    assert rig.device.agent


def test_a_failed_sync_costs_nothing():
    rig = started(Rig(), "1")
    rig.device.sync_failure()
    rig.control.want("2")
    rig.run(200)
    assert rig.device.ready() == {NAME: "2"}


def test_a_download_goes_on_where_it_broke_off():
    for profile in (Profile(), FAST):
        rig = Rig(profile=profile)
        rig.control.broken_blobs = 3
        started(rig, "1")
        assert rig.device.ready() == {NAME: "1"}
        offsets = [request.offset for request in rig.control.requests if request.purpose == "blob"]
        assert offsets == [0, 0, 100, 200, 300, 0]


def test_metrics_are_summed_up_in_frames():
    rig = started(Rig(GOOD, profile=Profile(report_seconds=60.0)), "1")
    rig.run(600)
    frames = [item for item in rig.control.items if isinstance(item, FrameReport)]
    assert 9 <= len(frames) <= 11
    count = sum(series.count for frame in frames for series in frame.series)
    mean = sum(series.sum for frame in frames for series in frame.series) / count
    assert 5000 < count <= 6400
    assert mean == pytest.approx(0.97, abs=0.005)
    assert {(series.name, series.instance, series.revision) for frame in frames for series in frame.series} == {
        ("model.accuracy", NAME, "rev-1")
    }
    for frame in frames:
        for series in frame.series:
            assert series.min <= series.sum / series.count <= series.max
            assert series.sum_squares >= series.sum**2 / series.count


def measured(rig, seconds):
    """Return how many values of which metric each revision tells within a time."""
    rig.run(60)
    rig.control.items.clear()
    rig.run(seconds)
    found = {}
    for item in rig.control.items:
        for series in item.series if isinstance(item, FrameReport) else ():
            key = (series.name, series.revision)
            found[key] = found.get(key, 0) + series.count
    return found


@pytest.mark.parametrize("skip_probes", [False, True])
def test_both_revisions_measure_what_they_see_of_the_traffic(skip_probes):
    rig = started(Rig(GOOD, profile=Profile(disk="plain", install="modelled", report_seconds=60.0), skip_probes=skip_probes), "1")
    rig.control.want("2", hold=True, traffic=Traffic(mode="shadow", share=0.5))
    found = measured(rig, 600)
    assert rig.device.ready() == {NAME: "1"}
    assert set(found) == {("model.accuracy", "rev-1"), ("model.shadow.disagreement", "rev-2")}
    assert found["model.shadow.disagreement", "rev-2"] == pytest.approx(found["model.accuracy", "rev-1"] / 2, rel=0.1)
    rig.control.want("2", hold=True, traffic=Traffic(mode="split", share=0.25))
    found = measured(rig, 600)
    assert set(found) == {("model.accuracy", "rev-1"), ("model.accuracy", "rev-2")}
    assert found["model.accuracy", "rev-2"] == pytest.approx(found["model.accuracy", "rev-1"] / 3, rel=0.1)
    rig.control.want("2", hold=True, traffic=Traffic())
    assert set(measured(rig, 600)) == {("model.accuracy", "rev-1")}
    rig.control.want("2")
    assert set(measured(rig, 600)) == {("model.accuracy", "rev-2")}
    assert rig.device.ready() == {NAME: "2"}


def test_a_candidate_beside_comes_back_with_the_device():
    rig = started(Rig(GOOD, profile=FAST), "1")
    rig.control.want("2", hold=True, traffic=Traffic(mode="split", share=0.25))
    rig.run(60)
    rig.device.power_off()
    rig.device.power_on()
    rig.run(60)
    status = rig.control.statuses()[NAME].status
    assert (status.revision, status.committed, status.update_revision) == ("rev-1", "rev-1", "rev-2")
    assert status.traffic == Traffic(mode="split", share=0.25)
    assert rig.device.ready() == {NAME: "1"}


def test_an_idle_device_only_polls():
    rig = started(Rig(profile=Profile(disk="plain", install="modelled", poll_seconds=100.0, report_seconds=0.0)), "1")
    rig.run(300)
    rig.control.requests.clear()
    calls = rig.kernel.called
    rig.run(1000)
    assert {request.purpose for request in rig.control.requests} == {"desired"}
    assert 9 <= len(rig.control.requests) <= 10
    assert rig.kernel.called - calls <= 30  # two of them the other end's, for each poll


def test_a_device_that_lost_its_control_plane_backs_off_and_catches_up():
    rig = started(Rig(GOOD, profile=Profile(poll_seconds=30.0)), "1")
    rig.control.up = False
    rig.run(1800)
    assert rig.device.counts()["telemetry"].held >= 28
    assert not rig.device.state.online
    requests = len(rig.control.requests)
    rig.run(600)
    assert len(rig.control.requests) - requests < 120
    rig.control.up = True
    rig.run(60)
    assert rig.device.counts()["telemetry"].held == 0
    assert rig.device.state.online


def test_an_exclusive_copy_stops_in_time_and_comes_back():
    rig = Rig()
    rig.device.power_on()
    rig.control.want("1", exclusive=True, lost_after_seconds=60.0)
    rig.run(120)
    assert rig.device.ready() == {NAME: "1"}
    waits = {request.wait for request in rig.control.requests if request.purpose == "desired"}
    assert min(waits) == 15.0
    rig.control.up = False
    cut = rig.kernel.now
    rig.run(60)
    assert rig.device.ready() == {}
    stopped = rig.seen.readiness[-1][0]
    assert stopped - cut <= 60.0
    rig.control.up = True
    rig.run(60)
    assert rig.device.ready() == {NAME: "1"}


def test_a_refused_identity_is_renewed_and_asked_seldom():
    rig = started(Rig(GOOD), "1")
    rig.control.refusing = Refused(status=403, reason="Revoked")
    rig.control.tell(rig.control.document)
    rig.run(3600)
    purposes = [request.purpose for request in rig.control.requests]
    assert 1 <= purposes.count("renew") <= 12
    rig.control.refusing = None
    rig.run(400)
    assert rig.device.counts()["telemetry"].held <= 1


def test_other_hardware_under_the_same_name_joins_anew():
    rig = started(Rig(), "1")
    rig.device.replace_hardware("another")
    rig.run(60)
    assert [(asked.secret, asked.signing_request) for asked in rig.control.joins] == [("secret", "dev-key-0"), ("another", "dev-key-1")]
    assert rig.device.agent == "agent-dev-key-1"
    assert rig.device.ready() == {NAME: "1"}


def test_a_join_without_an_answer_is_repeated_with_the_same_key():
    rig = Rig()
    rig.control.up = False
    rig.device.power_on()
    rig.run(60)
    rig.device.power_off("dropped")
    rig.device.power_on()
    rig.run(30)
    rig.control.up = True
    rig.control.want("1")
    rig.run(60)
    assert len(rig.control.joins) == 1
    assert rig.device.ready() == {NAME: "1"}


@pytest.mark.parametrize("fault", ["disk_full", "disk_error", "read_only"])
def test_a_join_whose_answer_the_disk_does_not_take_is_repeated(fault):
    rig = Rig()
    rig.control.want("1")
    rig.device.power_on()
    rig.run(20.005)
    getattr(rig.device, fault)(on=True)
    rig.run(120)
    assert not rig.device.joined or fault == "disk_error"
    assert len(rig.control.joins) < 20
    getattr(rig.device, fault)(on=False)
    rig.run(120)
    assert rig.device.ready() == {NAME: "1"}
    assert {asked.signing_request for asked in rig.control.joins} == {"dev-key-0"}


def test_a_decommissioned_device_says_so_and_forgets_everything():
    rig = started(Rig(), "1")
    rig.control.tell(DeviceDesired(device="dev", uid="u", position=Position(1, 9), decommission=True))
    rig.run(60)
    assert rig.device.gone
    assert not rig.device.joined
    assert rig.device.running() == ()
    assert rig.control.device()[-1].decommissioned
    requests = len(rig.control.requests)
    rig.run(600)
    assert len(rig.control.requests) == requests


def test_a_wrong_clock_harms_nothing_and_is_told():
    rig = started(Rig(GOOD), "1")
    rig.device.set_clock(None)
    assert rig.device.clock.wall() == pytest.approx(0.0, abs=1.0)
    rig.control.want("2")
    rig.run(120)
    assert rig.device.ready() == {NAME: "2"}
    rig.device.set_clock(EPOCH)
    rig.run(120)
    assert rig.device.ready() == {NAME: "2"}


def test_a_battery_that_runs_out_is_a_power_cut_and_the_sun_brings_the_device_back():
    energy = Energy(idle_watts=2.0, busy_watts=4.0, battery_watt_hours=4.0, harvest_watts=20.0)
    rig = started(Rig(energy=energy), "1")
    assert rig.device.ready() == {NAME: "1"}
    rig.device.set_battery(0.1)
    rig.run(1800)
    assert not rig.device.powered
    rig.run(3600)
    assert not rig.device.powered
    rig.device.set_battery(None)  # it is morning
    rig.run(3600)
    assert rig.device.ready() == {NAME: "1"}
    assert 1.0 < rig.device.energy_watt_hours < 10.0


def test_a_device_on_mains_draws_what_its_class_says():
    rig = Rig(Behaviour(busy=0.5), energy=Energy(idle_watts=2.0, busy_watts=6.0))
    started(rig, "1")
    rig.run(36_000)
    assert rig.device.energy_watt_hours == pytest.approx(40.0, rel=0.01)


def test_heat_and_a_slow_class_lengthen_starts():
    times = []
    for speed, celsius in ((1.0, None), (0.5, None), (1.0, 200.0)):
        rig = Rig(Behaviour(start_seconds=8.0), sort=DeviceClass(name="c", speed=speed))
        rig.device.heat(celsius)
        rig.device.power_on()
        rig.control.want("1")
        rig.run(200)
        times.append(rig.seen.readiness[0][0])
    assert times[0] < 32 < times[1] < 62 < times[2]


def test_a_usual_day_throttles_nothing_and_heat_comes_on_top_of_it():
    times = []
    for celsius in (None, 19.0, 30.0, 45.0):
        rig = Rig(Behaviour(start_seconds=8.0), sort=DeviceClass(name="c", throttles_above_celsius=80.0))
        rig.device.heat(celsius)
        rig.device.power_on()
        rig.control.want("1")
        rig.run(200)
        times.append(rig.seen.readiness[0][0])
    assert times[0] == times[1] < times[2] < times[3]


def test_behaviours_match_the_first_rule_and_shares_are_drawn_per_device():
    rig = Rig(
        Behaviour(workload="app", version="new", share=0.5, busy=0.9),
        Behaviour(workload="ns/app", variant="only", busy=0.1),
        Behaviour(busy=0.7),
    )
    rules = rig.around.behaviours
    rules.new = frozenset({f"{NAME} 2"})
    drawn = [rules.of(f"dev-{number}", "c", NAME, "2", "only").busy for number in range(200)]
    assert drawn == [rules.of(f"dev-{number}", "c", NAME, "2", "only").busy for number in range(200)]
    assert 70 < drawn.count(0.9) < 130
    assert set(drawn) == {0.9, 0.1}
    assert rules.of("dev", "c", NAME, "1", "only").busy == 0.1
    assert rules.of("dev", "c", "ns/other", "1", "only").busy == 0.7


@pytest.mark.parametrize("profile", [Profile(), FAST])
def test_the_same_seed_gives_the_same_trace(profile):
    def story(seed):
        bad = Behaviour(version="2", fails="crashes", fails_after_seconds=3.0)
        rig = started(Rig(bad, GOOD, seed=seed, profile=profile), "1")
        rig.control.want("2", probation_seconds=30.0)
        rig.run(10)
        rig.device.power_off("any")
        rig.device.power_on()
        rig.run(600)
        return rig.kernel.trace.hash(), rig.kernel.called

    assert story(1) == story(1)
    assert story(1) != story(2)


def test_two_instances_are_looked_after_one_by_one():
    rig = started(Rig(), "1", "2")
    rig.run(60)
    assert rig.device.ready() == {NAME: "1", f"{NAME}-1": "2"}
    rig.control.want("1")
    rig.run(60)
    assert rig.device.ready() == {NAME: "1"}
    assert rig.control.statuses()[f"{NAME}-1"].gone
    assert not rig.device.whole(rig.library.made("2").variants[0])


def test_status_of_an_update_is_told_in_steps():
    rig = started(Rig(), "1")
    updates = [item.status.update for item in rig.control.items if hasattr(item, "status")]
    assert [update for number, update in enumerate(updates) if update not in updates[:number]] == [
        UpdateState.DOWNLOAD,
        UpdateState.VERIFY,
        UpdateState.INSTALL,
        UpdateState.PROBATION,
        UpdateState.COMMIT,
        UpdateState.IDLE,
    ]
