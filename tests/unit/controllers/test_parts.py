"""Small parts: timers, sessions, shared values, presence, tokens, actions, limits of one decision."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.controllers import reconcile
from edgewise.controllers.actions import clear_rejected
from edgewise.controllers.metrics import WaveMetrics
from edgewise.controllers.presence import Presence
from edgewise.controllers.rows import Shared
from edgewise.controllers.timers import Timers
from edgewise.controllers.tokens import AccessTokenSpec, create_access_token, revoke_access_token
from edgewise.controllers.view import FleetView
from edgewise.store.contract import Change, Key
from edgewise.wire.report import InstanceReport, Series


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 50), st.booleans()), max_size=40), st.integers(0, 50))
def test_timers_are_a_map_with_an_order(steps, now):
    timers, model = Timers(), {}
    for key, due, sooner in steps:
        if sooner:
            timers.sooner((key,), due)
            model[key,] = min(due, model.get((key,), due))
        else:
            timers.at((key,), due)
            model[key,] = due
    assert timers.next() == min(model.values(), default=None)
    popped = list(timers.pop(now))
    assert sorted(popped) == sorted(key for key, due in model.items() if due <= now)
    assert len(set(popped)) == len(popped)
    assert timers.next() == min((due for due in model.values() if due > now), default=None)


def test_shared_values_are_one_and_bounded():
    shared = Shared(limit=2)
    first = shared.of(("a",), [1])
    assert shared.of(("a",), [1]) is first
    shared.of(("b",), [2])
    shared.of(("c",), [3])
    assert shared.of(("a",), [1]) is not first


def test_presence_counts_polls():
    presence = Presence(100.0)
    assert presence.last("a") == 100.0
    presence.opened("a", 110.0)
    presence.opened("a", 111.0)
    presence.closed("a", 112.0)
    assert presence.polling("a")
    presence.closed("a", 113.0)
    assert not presence.polling("a")
    presence.closed("a", 114.0)
    assert presence.last("a") == 114.0
    assert presence.last("a", 200.0) == 200.0


def series(**fields):
    known = {
        "name": "m", "unit": "1", "type": "gauge", "instance": "shop/app", "revision": "r", "count": 10, "sum": 5.0, "sum_squares": 1.0,
        "min": 0.0, "max": 1.0, "last": 0.5,
    }  # fmt: skip
    return Series(**{**known, **fields})


def test_metrics_count_only_what_is_asked():
    wave = WaveMetrics("r", 1, frozenset({"m"}))
    assert wave.add("d0", series())
    assert wave.add("d1", series(count=30, sum=30.0))
    for other in (series(name="x"), series(revision="q"), series(count=0), series(sum=float("nan")), series(sum=float("inf"))):
        assert not wave.add("d0", other)
    assert (wave.of()["m"].wave.count, wave.of()["m"].wave.total) == (40, 35.0)


def test_cumulative_series_count_their_growth():
    wave = WaveMetrics("r", 1, frozenset({"m"}))
    for count, total in ((10, 5.0), (15, 8.0), (15, 8.0), (4, 1.0)):
        wave.add("d0", series(count=count, sum=total, temporality="cumulative"))
    assert (wave.of()["m"].wave.count, wave.of()["m"].wave.total) == (19, 9.0)


def test_access_tokens(fleet):
    spec = AccessTokenSpec(digest="ab" * 32, name="ann", role="admin", expires_at=fleet.now + 1)
    fleet.write(create_access_token(spec, user="root", now=fleet.now, epoch=1, revision=0))
    row = fleet.view.access_tokens["ab" * 8]
    assert row.spec == spec
    assert [event.type for event in fleet.store.events] == ["Audit"]
    fleet.write(revoke_access_token(row, user="root", now=fleet.now))
    assert fleet.view.access_tokens == {}


def test_clear_rejected_tries_again(fleet):
    for number in range(3):
        fleet.join(f"d{number}")
    fleet.publish("1")
    fleet.publish("2")
    fleet.apply("1")
    fleet.until(lambda: fleet.state(1) == "Succeeded")
    fleet.bad.add("2")
    fleet.apply("2")
    fleet.until(lambda: fleet.state(2) == "RolledBack")
    fleet.bad.clear()
    fleet.run(60)
    assert fleet.state(3) is None
    fleet.write(clear_rejected(fleet.view, ("shop", "app"), "ann", fleet.now))
    fleet.until(lambda: fleet.state(3) == "Succeeded")
    assert set(fleet.versions().values()) == {"2"}
    assert clear_rejected(fleet.view, ("shop", "app"), "ann", fleet.now) is None
    assert clear_rejected(fleet.view, ("shop", "nope"), "ann", fleet.now) is None


def test_deciding_again_on_the_same_view_is_the_same(fleet):
    for number in range(5):
        fleet.join(f"d{number}")
    fleet.publish("1")
    fleet.apply("1")
    for _ in range(30):
        first = reconcile.handle(reconcile.Changed(), fleet.view, fleet.now)
        second = reconcile.handle(reconcile.Changed(), fleet.view, fleet.now)
        assert first.transactions == second.transactions
        if not first.transactions:
            break
        for transaction in first.transactions:
            fleet.write(transaction)
    else:
        raise AssertionError("no end")


def test_a_conflict_leaves_nothing_undone(fleet):
    for number in range(5):
        fleet.join(f"d{number}")
    fleet.publish("1")
    fleet.apply("1")
    dropped = 0
    for turn in range(60):
        decision = reconcile.handle(reconcile.Changed(), fleet.view, fleet.now)
        for transaction in decision.transactions:
            dropped += turn % 2 == 0
            if turn % 2 == 0:
                # As if another writer had been faster: nothing is written, and it is asked again.
                break
            fleet.write(transaction)
    assert dropped
    fleet.until(lambda: fleet.state(1) == "Succeeded")
    assert len(fleet.versions()) == 5


def test_changes_may_come_twice_and_out_of_order(fleet):
    for number in range(3):
        fleet.join(f"d{number}")
    fleet.publish("1")
    fleet.publish("2")
    changes = []
    write = fleet.store.write

    def recorded(transaction):
        written = write(transaction)
        changes.extend(written.changes)
        return written

    fleet.store.write = recorded
    fleet.apply("1")
    fleet.until(lambda: fleet.state(1) == "Succeeded")
    fleet.apply("2")
    fleet.until(lambda: fleet.state(2) == "Succeeded")
    assert len(changes) > 30
    for change in (*changes[::-1], *changes):
        fleet.view.apply(change)
    assert fleet.settle() == 0
    members = fleet.view.members["shop", "app"]
    assert (members.running, members.ready, len(members.instances)) == (3, 3, 3)


def test_a_removed_document_does_not_come_back(fleet):
    fleet.publish("1")
    fleet.apply("1", replicas=0)
    document = fleet.store.documents[Key("Workload", "shop", "app")]
    fleet.delete("Workload", "shop", "app")
    fleet.view.apply(Change(revision=document.revision, key=document.key, document=document))
    assert ("shop", "app") not in fleet.view.workloads


@pytest.mark.parametrize("kind", ["Pipeline", "", "workload"])
def test_unknown_kinds_pass(kind):
    view = FleetView(1, 0.0)
    view.apply(Change(revision=7, key=Key(kind, "", "x"), document=None))
    assert view.revision == 7


def test_status_counts_are_written_at_most_once_a_second(fleet):
    for number in range(20):
        fleet.join(f"d{number:02}")
    fleet.publish("1")
    fleet.apply("1", observe="30s")
    fleet.run(2)
    fleet.transactions.clear()
    for step in range(10):
        for device in fleet.devices.values():
            name = "shop/app"
            device.status[name] = msgspec.structs.replace(device.status[name], restarts=step, ready=step % 2 == 0)
            uid = fleet.instances()[device.name].metadata.uid
            device.report("status", InstanceReport(device=device.name, name=name, uid=uid, status=device.status[name]))
        fleet.now += 0.3
        fleet.settle()
    written = [w.key for t in fleet.transactions for w in t.writes]
    assert written.count(Key("Workload", "shop", "app")) <= 4
