"""The update of an instance for which something else is wanted before it is over."""

from engine_rig import want
from update_rig import committed, order

from edgewise.engine.protocol import Cancel, Failed, Fetch
from edgewise.resources.states import UpdateState


def test_a_newer_revision_supersedes_a_fetch() -> None:
    rig = committed("r1")
    rig.desire(want("r2", probation_seconds=1))
    fetch = next(effect for effect in rig.log if isinstance(effect, Fetch))
    effects = rig.desire(want("r3", probation_seconds=1))
    assert [effect for effect in effects if isinstance(effect, Cancel)] == [Cancel(id=fetch.id)]
    assert not any(isinstance(effect, Fetch) for effect in effects)
    rig.done(fetch, Failed(kind="transient", reason="Cancelled", message=""))
    rig.run(10)
    assert rig.status().committed == "r3"
    assert rig.started == ["r1", "r3"]


def test_a_cancelled_fetch_that_came_through_all_the_same_is_garbage() -> None:
    rig = committed("r1")
    rig.desire(want("r2"))
    fetch = next(effect for effect in rig.log if isinstance(effect, Fetch))
    rig.desire(want("r1", probation_seconds=1))
    rig.done(fetch, rig.fetched("r2"))
    rig.run(10)
    assert rig.trees == {"tree-r1"}
    assert rig.status().update is UpdateState.IDLE


def test_a_newer_revision_in_probation_leaves_the_serving_candidate_up_and_the_way_back_as_it_is() -> None:
    rig = committed("r1")
    rig.desire(want("r2", hold=True))
    rig.run(5)
    rig.log.clear()
    rig.bad = {"r3"}
    rig.desire(want("r3", deadline_seconds=5))
    rig.run(2)
    assert "r2" in rig.revisions()
    rig.run(30)
    assert rig.status().committed == rig.status().revision == "r1"
    assert rig.status().refused == ("r3",)
    assert rig.started == ["r1", "r2", "r3", "r1"]


def test_a_newer_revision_before_the_candidate_serves_drops_the_candidate() -> None:
    rig = committed("r1")
    rig.bad = {"r2"}
    rig.desire(want("r2", deadline_seconds=500))
    rig.run(5)
    rig.desire(want("r3", probation_seconds=1))
    rig.run(10)
    assert rig.status().committed == "r3"
    assert rig.status().refused == ()
    assert rig.revisions() == ["r3"]


def test_a_superseded_candidate_that_fails_before_its_successor_comes_gives_way_to_the_committed_one() -> None:
    rig = committed("r1")
    rig.desire(want("r2", hold=True))
    rig.run(5)
    rig.fetch_result = lambda _: Failed(kind="transient", reason="Unreachable", message="no network")
    rig.desire(want("r3"))
    rig.run(1)
    rig.exit("b")
    rig.run(5)
    assert rig.revisions() == ["r1"]
    assert rig.status().refused == ("r2",)


def test_going_back_to_the_committed_revision_in_probation_refuses_nothing() -> None:
    rig = committed("r1")
    rig.desire(want("r2", hold=True))
    rig.run(5)
    rig.log.clear()
    rig.desire(want("r1"))
    rig.run(5)
    assert order(rig)[:5] == ["Adopted", "Abandoned", "Start a", "Activate a", "Stop b"]
    assert rig.trees == {"tree-r1"}
    assert (rig.status().update, rig.status().refused, rig.status().reason) == (UpdateState.IDLE, (), "")


def test_coming_back_to_a_serving_superseded_candidate_needs_no_fetch() -> None:
    rig = committed("r1")
    rig.desire(want("r2", hold=True))
    rig.run(5)
    rig.fetch_result = lambda _: Failed(kind="transient", reason="Unreachable", message="no network")
    rig.desire(want("r3"))
    rig.run(1)
    rig.log.clear()
    rig.desire(want("r2", probation_seconds=1))
    rig.run(20)
    assert "Fetch" not in order(rig)
    assert rig.status().committed == "r2"
    assert rig.started == ["r1", "r2"]


def test_a_rejected_candidate_is_taken_back() -> None:
    rig = committed("r1")
    rig.desire(want("r2", hold=True))
    rig.run(5)
    rig.desire(want("r1", rejected=("r2",)))
    rig.run(5)
    assert (rig.status().revision, rig.status().refused, rig.status().reason) == ("r1", ("r2",), "")
    assert "RolledBack" in rig.reasons()


def test_a_rejected_committed_revision_goes_to_the_kept_one_without_a_network() -> None:
    rig = committed("r1", "r2")
    rig.fetch_result = lambda _: Failed(kind="transient", reason="Unreachable", message="no network")
    rig.desire(want("r1", rejected=("r2",), probation_seconds=1))
    rig.run(10)
    assert order(rig) == ["Adopted", "Refused", "Installed", "Start a", "Activate a", "Stop b", "Committed", "Remove"]
    assert (rig.status().committed, rig.status().previous, rig.status().refused) == ("r1", "", ("r2",))
    assert rig.trees == {"tree-r1"}


def test_when_the_named_revision_is_refused_too_the_committed_one_stays() -> None:
    rig = committed("r1")
    rig.crashing = {"r2"}
    rig.desire(want("r2"))
    rig.run(20)
    rig.desire(want("r2", rejected=("r1",)))
    rig.run(20)
    assert (rig.status().committed, rig.revisions()) == ("r1", ["r1"])


def test_cleared_refusals_are_forgotten_and_tried_again() -> None:
    rig = committed("r1")
    rig.crashing = {"r2"}
    rig.desire(want("r2", probation_seconds=1))
    rig.run(20)
    rig.crashing = set()
    rig.desire(want("r2", probation_seconds=1), cleared_refusals=1)
    rig.run(20)
    assert (rig.status().committed, rig.status().refused) == ("r2", ())
