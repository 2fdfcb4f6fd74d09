"""Whether a change may go ahead: each budget at its edge, one under, one over, over all runs."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.resources.meta import Metadata
from edgewise.resources.workload import ArtifactReference, Canary, EveryMatchingDevice, Placement, Strategy, Workload, WorkloadSpec
from edgewise.twin.rehearsal import LostRun, Rehearsal
from edgewise.twin.result import RolloutResult, RunResult, Violation, WorkloadResult
from edgewise.twin.verdict import judge

NAME = "default/inspector"


def workload(name="inspector", **canary):
    spec = WorkloadSpec(
        artifact=ArtifactReference(name="model", version="2"),
        placement=Placement(every_matching_device=EveryMatchingDevice()),
        strategy=Strategy(canary=Canary(**canary)),
    )
    return Workload(metadata=Metadata(name=name, namespace="default"), spec=spec)


def run(seed=0, *, failed=0, touched=100, back=False, longest=0.0, ended=True, rollouts=True, name=NAME, message="", violations=()):
    rollout = RolloutResult(
        name="inspector-2",
        workload=name,
        version="2",
        state="RolledBack" if back else "Succeeded" if ended else "Paused",
        started_at=10.0,
        ended_at=130.0 + seed if ended else None,
        rollback_at=70.0 if back else None,
        members=touched,
        touched=touched,
        failed=failed,
        message=message,
    )
    return RunResult(
        seed=seed,
        trace_hash=f"{seed:032x}",
        simulated_seconds=600.0,
        device_hours=1.0,
        exchanges=1,
        events=1,
        devices=touched,
        rollouts=(rollout,) if rollouts else (),
        workloads=(
            WorkloadResult(
                workload=name, unavailable_seconds=longest, wanted_seconds=600.0, unavailable_minutes_max=round(longest / 60, 6)
            ),
        ),
        violations=violations,
    )


def rehearsed(*runs, **more):
    return Rehearsal(planned=more.pop("planned", len(runs)), runs=runs, **more)


def test_a_good_change_goes_ahead_and_says_what_to_expect():
    verdict = judge(rehearsed(*(run(seed, longest=2.0) for seed in range(20))), [workload(unavailability_budget="5s")])
    assert verdict.allowed
    assert verdict.reasons == verdict.warnings == ()
    assert verdict.predictions == (
        f"{NAME} 2: takes 2 min 9 s (2 min to 2 min 18 s), none of 100 devices fail, at most 2.0 s without a ready instance on a device",
    )


@pytest.mark.parametrize(
    ("budget", "failed", "touched", "allowed"),
    [
        ("5%", 4, 100, True),
        ("5%", 5, 100, True),
        ("5%", 6, 100, False),
        ("0%", 0, 100, True),
        ("0%", 1, 100, False),
        ("100%", 100, 100, True),
        ("33.3%", 1, 3, False),
        ("33.4%", 1, 3, True),
        ("5%", 0, 0, True),
    ],
)
def test_the_failure_budget(budget, failed, touched, allowed):
    verdict = judge(rehearsed(run(failed=failed, touched=touched)), [workload(failure_budget=budget)])
    assert verdict.allowed is allowed
    if not allowed:
        (reason,) = verdict.reasons
        assert f"({failed} of {touched}, p95 of the runs); its failureBudget is {budget}" in reason


@pytest.mark.parametrize(("bad", "allowed"), [(1, True), (2, False), (20, False)])
def test_one_run_of_twenty_may_be_worse_and_two_may_not(bad, allowed):
    runs = [run(seed, failed=50 * (seed < bad), longest=60.0 * (seed < bad)) for seed in range(20)]
    assert judge(rehearsed(*runs), [workload()]).allowed is allowed
    assert judge(rehearsed(*runs), [workload(failure_budget="100%", unavailability_budget="59s")]).allowed is allowed


@pytest.mark.parametrize(("back", "of", "allowed"), [(0, 4, True), (2, 4, True), (3, 4, False), (1, 1, False), (1, 2, True)])
def test_a_change_that_is_taken_back_in_most_runs_is_refused(back, of, allowed):
    runs = [run(seed, back=seed < back, message="accuracy is low" if seed else "") for seed in range(of)]
    verdict = judge(rehearsed(*runs), [workload()])
    assert verdict.allowed is allowed
    if not allowed:
        assert f"it is rolled back in {back} of {of} runs" in verdict.reasons[0]
        assert ("accuracy is low" in verdict.reasons[0]) == (of > 1)


@pytest.mark.parametrize(
    ("budget", "longest", "allowed"), [("30s", 29.0, True), ("30s", 30.0, True), ("30s", 30.1, False), ("0s", 0.0, True), (None, 9e9, True)]
)
def test_the_unavailability_budget(budget, longest, allowed):
    verdict = judge(rehearsed(run(longest=longest)), [workload(unavailability_budget=budget)])
    assert verdict.allowed is allowed
    assert verdict.reasons == (
        () if allowed else (f"{NAME}: a device is 30 s without a ready instance (p95 of the runs); its unavailabilityBudget is 30s",)
    )


def test_nobody_misses_what_was_never_there():
    assert judge(rehearsed(run(longest=99.0)), [workload(unavailability_budget="1s")], first={NAME}).allowed


def test_workloads_that_are_not_rolled_out_are_not_judged():
    verdict = judge(rehearsed(run(longest=99.0, rollouts=False)), [workload(unavailability_budget="1s")])
    assert verdict.allowed
    assert verdict.predictions == ("nothing is rolled out: the fleet runs this already",)


def test_each_workload_has_its_own_budget():
    other = "default/other"
    both = msgspec.structs.replace(run(failed=10), rollouts=(*run(failed=10).rollouts, *run(failed=10, name=other).rollouts))
    verdict = judge(rehearsed(both), [workload("other", failure_budget="5%"), workload(failure_budget="10%")])
    assert [reason.partition(":")[0] for reason in verdict.reasons] == [f"{other} 2"]
    assert [line.partition(":")[0] for line in verdict.predictions] == [f"{NAME} 2", f"{other} 2"]


@pytest.mark.parametrize(("there", "planned", "allowed"), [(0, 4, False), (1, 4, False), (2, 4, True), (4, 4, True)])
def test_without_results_there_is_no_telling(there, planned, allowed):
    lost = tuple(LostRun(seed=seed, reason="its process ended by signal 9") for seed in range(planned - there))
    verdict = judge(rehearsed(*(run(seed) for seed in range(there)), planned=planned, lost=lost), [workload()])
    assert verdict.allowed is allowed
    assert any("its process ended by signal 9 (seed 0)" in line for line in verdict.reasons + verdict.warnings) is bool(lost)


def test_a_rehearsal_that_was_stopped_allows_nothing():
    verdict = judge(rehearsed(run(), planned=1, interrupted=True), [workload()])
    assert verdict.reasons == ("the rehearsal was stopped after 1 of 1 runs",)


def test_what_is_against_no_budget_is_a_warning():
    broken = Violation(invariant="one-revision", at=1.0, subject="d", message="m")
    verdict = judge(rehearsed(run(0, ended=False), run(1, violations=(broken, broken))), [workload()])
    assert verdict.allowed
    assert verdict.warnings == (
        "in 1 of 2 runs the invariant one-revision did not hold: a defect of Edgewise, please report it",
        f"{NAME} 2: the rollout has not ended in 1 of 2 runs, it is Paused",
    )
    assert "longer than the rehearsal" in verdict.predictions[0]


RUNS = st.lists(
    st.builds(
        lambda failed, back, longest, ended: run(failed=failed, back=back, longest=longest, ended=ended or back),
        st.integers(0, 100),
        st.booleans(),
        st.floats(0, 1e6),
        st.booleans(),
    ),
    min_size=1,
    max_size=25,
)


@given(RUNS, st.integers(0, 100), st.integers(0, 100_000), st.randoms(use_true_random=False))
def test_it_says_why_whatever_the_order_and_a_larger_budget_never_refuses_more(runs, percent, patience, shuffler):
    budgets = {"failure_budget": f"{percent}%", "unavailability_budget": f"{patience}s"}
    verdict = judge(rehearsed(*runs), [workload(**budgets)])
    assert verdict.allowed is not bool(verdict.reasons)
    assert judge(rehearsed(*shuffler.sample(runs, len(runs))), [workload(**budgets)]) == verdict
    larger = {"failure_budget": "100%", "unavailability_budget": "365d"}
    assert len(judge(rehearsed(*runs), [workload(**larger)]).reasons) <= len(verdict.reasons)
    if 2 * sum(each.rollouts[0].state == "RolledBack" for each in runs) <= len(runs):
        assert judge(rehearsed(*runs), [workload(**larger)]).allowed
