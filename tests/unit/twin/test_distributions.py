"""Percentiles over runs, and what went wrong in words."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.twin.distributions import (
    Spread,
    began_at,
    change_seconds,
    devices_failed,
    distributions,
    nearest_rank,
    rollouts_of,
    spread,
    words,
)
from edgewise.twin.rehearsal import LostRun
from edgewise.twin.result import RolloutResult

NUMBERS = st.floats(min_value=0, max_value=1e9)


@pytest.mark.parametrize(
    ("count", "ranks"),
    [
        (1, (1, 1, 1)),
        (2, (1, 1, 2)),
        (3, (1, 2, 3)),
        (10, (1, 5, 10)),
        (19, (1, 10, 19)),
        (20, (1, 10, 19)),
        (21, (2, 11, 20)),
        (100, (5, 50, 95)),
    ],
)
def test_percentiles_are_nearest_rank(count, ranks):
    values = list(range(1, count + 1))
    assert spread(values) == Spread(p5=ranks[0], p50=ranks[1], p95=ranks[2])


@given(st.lists(NUMBERS, min_size=1), st.integers(min_value=1, max_value=100))
def test_a_percentile_is_a_value_below_or_at_which_so_many_are(values, percent):
    found = nearest_rank(sorted(values), percent)
    assert found in values
    assert sum(1 for value in values if value <= found) * 100 >= percent * len(values)
    assert sum(1 for value in values if value < found) * 100 < percent * len(values)


def test_what_had_not_ended_is_later_than_everything():
    assert spread([3.0, None, 1.0]) == Spread(p5=1.0, p50=3.0, p95=None)


@given(st.permutations([0.0, 5.0, None, 2.0]))
def test_the_order_of_runs_does_not_matter(values):
    assert spread(values) == Spread(p5=0.0, p50=2.0, p95=None)


def test_a_change_lasts_from_its_moment_to_the_end_of_its_last_rollout(made_run):
    run = made_run(1)
    assert began_at(run) == 0.0
    assert change_seconds(run) == run.rollouts[0].ended_at
    assert change_seconds(made_run(1, ended=False)) is None
    later = msgspec.structs.replace(run, timeline=())
    assert began_at(later) == 30.0
    assert change_seconds(later) == run.rollouts[0].ended_at - 30.0


def test_one_rollout_that_goes_on_keeps_the_change_open(made_run):
    run = made_run(1)
    other = RolloutResult(name="other-1", workload="default/other", version="5", state="Paused", started_at=40.0, ended_at=None)
    assert change_seconds(msgspec.structs.replace(run, rollouts=(*run.rollouts, other))) is None


def test_what_the_fleet_was_given_before_the_change_does_not_count(made_run):
    run = made_run(1)
    before = msgspec.structs.replace(run.rollouts[0], version="1", started_at=-600.0, ended_at=-500.0)
    again = msgspec.structs.replace(run.rollouts[0], started_at=5000.0, ended_at=6000.0, state="RolledBack")
    run = msgspec.structs.replace(run, rollouts=(again, before, *run.rollouts))
    assert rollouts_of(run) == {("default/inspector", "2"): again}


def test_figures_over_runs(made_run):
    runs = [made_run(seed, back=seed in (3, 7, 9), failed=("device-4",) if seed % 4 == 0 else ()) for seed in range(1, 21)]
    figures = distributions(runs)
    assert figures.runs == 20
    assert figures.change_seconds == spread(map(change_seconds, runs))
    assert figures.devices_failed == Spread(p5=0, p50=0, p95=1)
    assert list(figures.site_bytes) == ["hall-1", "hall-2"]
    assert figures.site_bytes["hall-1"].p5 == min(run.site_bytes["hall-1"] for run in runs)
    assert figures.exchanges == 20 * 4000
    (rollout,) = figures.rollouts
    assert (rollout.runs, rollout.states) == (20, {"RolledBack": 3, "Succeeded": 17})
    assert rollout.rollback_runs == 3
    assert rollout.rollback_seconds == spread(run.rollouts[0].rollback_at - 30.0 for run in runs if run.rollouts[0].rollback_at)
    (workload,) = figures.workloads
    assert workload.unavailable_minutes == spread(run.workloads[0].unavailable_seconds / 60 for run in runs)
    assert 0 < workload.unavailable_share.p50 < 0.05
    assert msgspec.json.decode(msgspec.json.encode(figures), type=type(figures)) == figures


def test_a_site_or_workload_that_a_run_does_not_have_counts_as_nothing(made_run):
    runs = [made_run(1), msgspec.structs.replace(made_run(2), site_bytes={}, workloads=(), rollouts=())]
    figures = distributions(runs)
    assert figures.site_bytes["hall-2"].p5 == 0
    assert figures.workloads[0].unavailable_minutes.p5 == 0.0
    assert figures.workloads[0].unavailable_share.p5 == 0.0
    assert figures.rollouts[0].runs == 1


def test_nothing_wrong_needs_no_words(made_run):
    assert words([made_run(1), made_run(2)]) == ()


def test_a_rollback_is_told_with_how_often_and_why(made_run):
    runs = [made_run(seed, back=seed in (3, 7, 9)) for seed in range(1, 21)]
    # The reasons differ in a number only, so they are one.
    assert words(runs) == ("in 3 of 20 runs default/inspector 2 was rolled back: accuracy 0.83 is below 0.9",)


def test_several_reasons_are_told_most_frequent_first(made_run):
    runs = [made_run(seed, back=True) for seed in range(1, 4)]
    runs[0] = msgspec.structs.replace(runs[0], rollouts=(msgspec.structs.replace(runs[0].rollouts[0], message="too many failed"),))
    assert words(runs)[0].endswith("accuracy 0.82 is below 0.9 (2 times); too many failed")


def test_everything_that_goes_wrong_has_its_sentence(made_run, violation):
    runs = [
        made_run(1, violations=[violation, violation]),
        made_run(2, ended=False),
        made_run(3, failed=("device-3", "device-1")),
        made_run(4, failed=("device-3",)),
    ]
    rollout = msgspec.structs.replace(runs[0].rollouts[0], unreached=4)
    runs[0] = msgspec.structs.replace(runs[0], rollouts=(rollout,))
    assert words(runs, [LostRun(seed=9, reason="MemoryError: ")]) == (
        "in 1 of 4 runs the invariant one-revision-whole did not hold: a defect of Edgewise",
        "1 of 5 runs gave no result (seed 9): MemoryError: ",
        "in 1 of 4 runs the rollout of default/inspector 2 had not ended: Progressing",
        "in 1 of 4 runs the rollout of default/inspector 2 ended without devices out of reach, at most 4 (they follow once back)",
        "in 1 of 4 runs the fleet had not come to rest when the run ended",
        "in 2 of 4 runs devices failed, at most 2 in one run; most often device-3 in 2, device-1 in 1",
    )


def test_the_reasons_of_failed_devices_are_told_and_all_that_failed_counted(made_run):
    run = made_run(3, failed=("device-1", "device-3"))
    rollout = msgspec.structs.replace(run.rollouts[0], failed=12, failures={"device-1": "not healthy within 10m", "device-3": "Crashed"})
    run = msgspec.structs.replace(run, rollouts=(rollout,))
    assert words([run]) == ("in the run 12 devices failed: device-1, device-3, … (Crashed; not healthy within 10m)",)
    assert devices_failed(run) == 12
    figures = distributions([run, made_run(4)])
    assert (figures.devices_failed.p5, figures.devices_failed.p95) == (0, 12)
    assert figures.devices_offline is not None
    assert (figures.devices_offline.p5, figures.devices_offline.p95) == (20, 20)


def test_a_single_run_is_told_without_counting(made_run):
    assert words([made_run(3, back=True, failed=("device-3", "device-1", "device-7", "device-5"))]) == (
        "in the run default/inspector 2 was rolled back: accuracy 0.83 is below 0.9",
        "in the run 4 devices failed: device-1, device-3, device-5, …",
    )
    assert words([made_run(3, failed=("device-3",))]) == ("in the run 1 device failed: device-3",)
