"""The update of an instance, told as stories."""

import pytest
from engine_rig import APP, Rig, want
from update_rig import committed, order

from edgewise.engine.limits import EngineLimits
from edgewise.engine.protocol import Activate, Failed, Fetch, FetchProgress, Persist, Remove, Tick
from edgewise.engine.records import Adopted, Committed, Installed, Refused
from edgewise.engine.update import fetch_pause
from edgewise.resources.states import DeviceUpdate, InstanceState, UpdateState


def test_first_install_goes_through_every_state() -> None:
    rig = Rig()
    rig.log.clear()
    fetch = next(effect for effect in rig.desire(want("r1", probation_seconds=5)) if isinstance(effect, Fetch))
    rig.run(answer=lambda effect: not isinstance(effect, Fetch))
    rig.post(FetchProgress(id=fetch.id, stage="Verify"))
    rig.post(FetchProgress(id=fetch.id, stage="Install"))
    rig.run(10)
    assert order(rig) == ["Adopted", "Fetch", "Installed", "Start a", "Activate a", "Committed", "Remove"] or order(rig)[:2] == [
        "Remove",
        "Adopted",
    ]
    updates = [status.update for status in rig.statuses()]
    assert [state for index, state in enumerate(updates) if index == 0 or updates[index - 1] != state] == [
        UpdateState.DOWNLOAD,
        UpdateState.VERIFY,
        UpdateState.INSTALL,
        UpdateState.PROBATION,
        UpdateState.COMMIT,
        UpdateState.IDLE,
    ]
    states = [status.state for status in rig.statuses()]
    assert [state for index, state in enumerate(states) if index == 0 or states[index - 1] != state] == [
        InstanceState.PENDING,
        InstanceState.STARTING,
        InstanceState.RUNNING,
    ]
    status = rig.status()
    assert (status.revision, status.committed, status.previous, status.ready, status.slot) == ("r1", "r1", "", True, "a")
    assert (status.variant, status.address, status.observed_epoch) == ("only", "127.0.0.1:8000", 1)
    assert rig.device().update is DeviceUpdate.UP_TO_DATE


def test_a_model_is_swapped_hot() -> None:
    rig = committed("r1")
    rig.desire(want("r2", probation_seconds=1))
    rig.run(10)
    assert order(rig) == ["Adopted", "Fetch", "Installed", "Start b", "Activate b", "Stop a", "Committed", "Remove"]
    assert all(status.state is InstanceState.RUNNING for status in rig.statuses())
    assert rig.status().previous == "r1"
    assert rig.revisions() == ["r2"]


def test_a_bundle_is_replaced_in_order_and_keeps_its_slot() -> None:
    rig = committed("r1", kind="bundle")
    rig.desire(want("r2", kind="bundle", probation_seconds=1))
    rig.run(10)
    assert order(rig) == ["Adopted", "Fetch", "Installed", "Stop a", "Start a", "Committed", "Remove"]


def test_no_probation_commits_as_soon_as_it_serves() -> None:
    rig = committed("r1")
    rig.desire(want("r2", probation_seconds=0))
    rig.run(0.1)
    assert rig.status().committed == "r2"


def test_hold_stays_in_probation_until_a_later_document_lets_go() -> None:
    rig = committed("r1")
    rig.desire(want("r2", probation_seconds=1, hold=True))
    rig.run(3600)
    assert (rig.status().update, rig.status().committed, rig.status().revision) == (UpdateState.PROBATION, "r1", "r2")
    rig.log.clear()
    rig.desire(want("r2", probation_seconds=1))
    rig.run(1)
    assert order(rig) == ["Adopted", "Committed", "Remove"]


def test_equal_content_changes_the_position_only() -> None:
    rig = committed("r1")
    rig.desire(want("r1", probation_seconds=1))
    assert order(rig) == ["Advanced"]
    assert rig.device().observed.n == rig.n
    assert rig.statuses() == []


@pytest.mark.parametrize(("epoch", "n", "taken"), [(1, 1, False), (1, 0, False), (1, 2, True), (2, 1, True), (0, 9, True)])
def test_positions(epoch: int, n: int, taken: bool) -> None:
    rig = committed("r1")
    from engine_rig import document

    from edgewise.engine.protocol import Desired

    rig.post(Desired(document=document(n, want("r2"), epoch=epoch)))
    assert ("Adopted" in order(rig)) is taken


def test_a_document_for_another_device_is_not_taken() -> None:
    rig = committed("r1")
    rig.desire(want("r2"), device="other")
    assert order(rig) == []


def test_a_start_that_never_gets_ready_is_taken_back_and_refused() -> None:
    rig = committed("r1")
    rig.bad = {"r2"}
    rig.desire(want("r2", deadline_seconds=30))
    rig.run(60)
    assert order(rig) == ["Adopted", "Fetch", "Installed", "Start b", "Refused", "Stop b", "Remove"]
    assert [status.update for status in rig.statuses()][-3:] == [UpdateState.ROLLBACK, UpdateState.FAILED, UpdateState.IDLE]
    status = rig.status()
    assert (status.revision, status.committed, status.refused, status.reason) == ("r1", "r1", ("r2",), "DeadlineExceeded")
    assert rig.device().update is DeviceUpdate.OUT_OF_DATE
    rig.log.clear()
    rig.desire(want("r2", deadline_seconds=31))
    rig.run(60)
    assert "Fetch" not in order(rig)


def test_a_failure_after_the_swap_swaps_back_hot() -> None:
    rig = committed("r1")
    rig.desire(want("r2", probation_seconds=600))
    rig.run(5)
    assert rig.revisions() == ["r2"]
    rig.log.clear()
    rig.exit("b")
    rig.run(1.5)
    assert order(rig) == ["Start b", "Activate b"]
    rig.log.clear()
    rig.exit("b")
    rig.run(5)
    assert order(rig) == ["Refused", "Start a", "Activate a", "Remove"]
    assert rig.status().reason == "Crashed"
    assert rig.reasons() == ["Crashed", "Refused", "RolledBack"]


def test_liveness_in_probation_fails_it() -> None:
    rig = committed("r1")
    rig.desire(want("r2", probation_seconds=600))
    rig.run(5)
    rig.log.clear()
    rig.bad = {"r2"}
    rig.run(40)
    assert order(rig) == ["Refused", "Stop b", "Start a", "Activate a", "Remove"] or order(rig) == [
        "Refused",
        "Start a",
        "Activate a",
        "Stop b",
        "Remove",
    ]
    assert rig.status().reason == "LivenessFailed"


def test_a_bundle_that_crashes_goes_back_in_order() -> None:
    rig = committed("r1", kind="bundle")
    rig.crashing = {"r2"}
    rig.desire(want("r2", kind="bundle"))
    rig.run(10)
    assert order(rig) == ["Adopted", "Fetch", "Installed", "Stop a", "Start a", "Start a", "Refused", "Start a", "Remove"]
    assert rig.started == ["r1", "r2", "r2", "r1"]
    assert rig.revisions() == ["r1"]


def test_a_first_install_that_fails_leaves_nothing_running() -> None:
    rig = Rig()
    rig.crashing = {"r1"}
    rig.desire(want("r1"))
    rig.run(60)
    assert rig.status().state is InstanceState.ERRORED
    assert rig.status().refused == ("r1",)
    assert rig.revisions() == []
    assert rig.trees == set()


@pytest.mark.parametrize("crashes", [1, 2])
def test_the_limit_of_crashes_in_probation(crashes: int) -> None:
    rig = committed("r1", limits=EngineLimits(probation_crashes_max=1))
    rig.desire(want("r2", probation_seconds=30))
    rig.run(3)
    for _ in range(crashes):
        rig.exit("b")
        rig.run(5)
    rig.run(60)
    assert rig.status().committed == ("r2" if crashes == 1 else "r1")


def test_a_transient_failure_is_tried_again_with_back_off() -> None:
    rig = committed("r1")
    failures = [Failed(kind="transient", reason="Unreachable", message="no network")] * 3
    rig.fetch_result = lambda _: failures.pop() if failures else None
    rig.desire(want("r2", probation_seconds=1))
    rig.run(0)
    status = rig.status()
    assert (status.update, status.reason, status.state) == (UpdateState.FAILED, "Unreachable", InstanceState.RUNNING)
    rig.run(60)
    assert rig.status().committed == "r2"
    assert rig.status().refused == ()
    assert rig.reasons().count("UpdateFailed") == 1


def test_what_cannot_be_trusted_is_tried_again_slowly_and_what_runs_runs_on() -> None:
    rig = committed("r1")
    rig.fetch_result = lambda _: Failed(kind="untrusted", reason="WrongDigest", message="not what was signed")
    rig.desire(want("r2"))
    rig.run(25)
    assert len(rig.take(Fetch)) == 1
    rig.run(3600)
    assert 3 <= len(rig.take(Fetch)) <= 10
    assert rig.status().update in (UpdateState.FAILED, UpdateState.DOWNLOAD)
    assert (rig.status().state, rig.status().revision, rig.status().refused) == (InstanceState.RUNNING, "r1", ())


def test_what_can_never_run_here_is_refused() -> None:
    rig = committed("r1")
    rig.fetch_result = lambda _: Failed(kind="invalid", reason="PathRefused", message="../x")
    rig.desire(want("r2"))
    rig.run(10)
    assert [type(record) for effect in rig.log if isinstance(effect, Persist) for record in effect.records] == [Adopted, Refused]
    assert (rig.status().update, rig.status().refused, rig.status().reason) == (UpdateState.IDLE, ("r2",), "PathRefused")


@pytest.mark.parametrize("kind", ["wasm", "image"])
def test_types_that_this_device_does_not_run_are_refused(kind: str) -> None:
    rig = Rig()
    rig.desire(want("r1", kind=kind))
    rig.run(1)
    assert (rig.status().state, rig.status().reason) == (InstanceState.ERRORED, "Unsupported")


def test_pauses_double_differ_by_instance_and_end() -> None:
    limits = EngineLimits()
    pauses = [fetch_pause("uid", attempt, limits, untrusted=False) for attempt in range(1, 20)]
    assert all(limits.fetch_delay_seconds / 2 <= pause <= limits.fetch_delay_seconds_max for pause in pauses)
    assert max(pauses) > limits.fetch_delay_seconds_max / 2
    assert len({fetch_pause(f"uid-{number}", 5, limits, untrusted=False) for number in range(50)}) == 50
    assert fetch_pause("uid", 10_000, limits, untrusted=True) <= limits.untrusted_delay_seconds_max


def test_being_offline_fails_no_deadline() -> None:
    rig = committed("r1")
    rig.fetch_result = lambda _: Failed(kind="transient", reason="Unreachable", message="no network")
    rig.desire(want("r2", deadline_seconds=10, probation_seconds=1))
    rig.run(3600)
    assert rig.status().refused == ()
    rig.fetch_result = None
    rig.run(400)
    assert rig.status().committed == "r2"


def test_a_disk_that_hinders_a_start_refuses_nothing() -> None:
    rig = committed("r1")
    rig.start_result = lambda _: Failed(kind="transient", reason="DiskFull", message="no room")
    rig.desire(want("r2", deadline_seconds=10, probation_seconds=1))
    rig.run(900)
    assert (rig.status().refused, rig.status().revision) == ((), "r1")
    rig.start_result = None
    rig.run(70)
    assert rig.status().committed == "r2"


def test_a_start_that_can_never_work_fails_at_once() -> None:
    rig = committed("r1")
    rig.start_result = lambda _: Failed(kind="invalid", reason="NoSuchCommand", message="main")
    rig.desire(want("r2"))
    rig.run(1)
    assert (rig.status().refused, rig.status().reason) == (("r2",), "NoSuchCommand")


def test_an_activation_that_keeps_failing_fails_the_trial() -> None:
    rig = committed("r1")
    rig.desire(want("r2"))
    for _ in range(rig.limits.activate_failures_max):
        rig.run(2, answer=lambda effect: not isinstance(effect, Activate))
        activate = next(effect for effect in rig.pending.values() if isinstance(effect, Activate))
        rig.done(activate, Failed(kind="transient", reason="Refused", message="no"))
    rig.run(5)
    assert (rig.status().refused, rig.status().reason) == (("r2",), "ActivateFailed")
    assert rig.revisions() == ["r1"]


def test_only_one_fetch_at_a_time() -> None:
    rig = Rig()
    rig.desire(*(want("r1", f"ns/{name}", probation_seconds=1) for name in "abc"))
    rig.run(20)
    assert [rig.status(f"ns/{name}").committed for name in "abc"] == ["r1"] * 3


def test_committed_previous_and_candidate_trees_stay_and_others_go() -> None:
    rig = committed("r1", "r2")
    assert rig.trees == {"tree-r1", "tree-r2"}
    rig.desire(want("r3", probation_seconds=1))
    rig.run(0.5)
    assert rig.trees == {"tree-r1", "tree-r2", "tree-r3"}
    rig.run(10)
    assert rig.trees == {"tree-r2", "tree-r3"}


def test_the_tree_of_a_previous_revision_that_was_taken_back_goes() -> None:
    rig = committed("r1", "r2")
    rig.desire(want("r2", rejected=("r1",)))
    rig.run(5)
    assert (rig.trees, rig.status().previous) == ({"tree-r2"}, "")


def test_the_tree_of_a_trial_that_was_withdrawn_while_the_device_was_off_goes() -> None:
    rig = committed("r1")
    rig.desire(want("r2", hold=True))
    rig.run(5)
    rig.restart(reboot=True)
    rig.desire(want("r1"))
    rig.run(5)
    assert (rig.trees, rig.revisions()) == ({"tree-r1"}, ["r1"])


def test_the_tree_of_a_superseded_candidate_goes_when_the_committed_one_is_wanted_again() -> None:
    rig = committed("r1")
    rig.desire(want("r2", hold=True))
    rig.run(5)
    rig.fetch_result = lambda _: Failed(kind="transient", reason="Unreachable", message="no network")
    rig.desire(want("r3"))
    rig.run(1)
    rig.desire(want("r1"))
    rig.run(30)
    assert (rig.trees, rig.revisions()) == ({"tree-r1"}, ["r1"])


def test_what_a_withdrawn_fetch_staged_goes() -> None:
    rig = committed("r1")
    rig.fetch_result = lambda _: Failed(kind="transient", reason="Unreachable", message="no network")
    effects = rig.desire(want("r2"))
    fetch = next(effect for effect in effects if isinstance(effect, Fetch))
    rig.post(FetchProgress(id=fetch.id, stage="Install", tree="tree-r2"))
    rig.run(1)
    rig.log.clear()
    rig.desire(want("r1"))
    rig.run(1)
    assert [effect.keep_trees for effect in rig.log if isinstance(effect, Remove)] == [("tree-r1",)]


def test_a_partial_download_is_kept_while_it_is_retried() -> None:
    rig = committed("r1")
    rig.fetch_result = lambda _: Failed(kind="transient", reason="Unreachable", message="no network")
    effects = rig.desire(want("r2"))
    fetch = next(effect for effect in effects if isinstance(effect, Fetch))
    rig.post(FetchProgress(id=fetch.id, stage="Install", tree="tree-r2"))
    rig.run(1)
    rig.log.clear()
    rig.desire(want("r2"), want("x1", "ns/other", probation_seconds=0))
    rig.fetch_result = lambda effect: None if effect.instance == "ns/other" else Failed(kind="transient", reason="Unreachable", message="")
    rig.run(30)
    assert all("tree-r2" in effect.keep_trees for effect in rig.log if isinstance(effect, Remove))


def test_the_reported_message_is_bounded() -> None:
    rig = Rig()
    rig.fetch_result = lambda _: Failed(kind="invalid", reason="Bad", message="x" * 10_000)
    rig.desire(want("r1"))
    rig.run(1)
    assert len(rig.status().message) == rig.limits.message_chars_max


def test_a_tick_when_nothing_is_due_says_and_does_nothing() -> None:
    rig = committed("r1")
    rig.run(3)
    rig.log.clear()
    assert rig.post(Tick()) == []
    assert rig.state.live[APP].reported is not None
    assert [type(record) for record in rig.records].count(Installed) == 1
    assert [type(record) for record in rig.records].count(Committed) == 1


def test_the_tree_of_a_superseded_candidate_goes_while_the_next_one_is_held_on_trial() -> None:
    rig = committed("r1")
    for revision in ("r2", "r3", "r4"):
        rig.desire(want(revision, hold=True))
        rig.run(30)
    assert rig.status().update is UpdateState.PROBATION
    assert len(rig.state.installed) == 2
