"""What devices send: exactly once, only their own, within limits."""

import math

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewise.controllers import gateway
from edgewise.controllers.answers import Refusal
from edgewise.controllers.limits import ReportLimits
from edgewise.controllers.sessions import Session, next_session
from edgewise.controllers.tokens import JoinTokenSpec, create_join_token
from edgewise.resources.device import Capacity
from edgewise.resources.instance import InstanceStatus
from edgewise.store.codec import encode
from edgewise.store.contract import ANY, ConflictError, Key, PutStatus, Transaction
from edgewise.wire.desired import Position
from edgewise.wire.enrolment import JoinRequest
from edgewise.wire.report import DeviceReport, EventReport, FrameReport, InstanceReport, LaneItems, Report, Series


@pytest.fixture
def two(fleet):
    fleet.join("d0")
    fleet.join("d1")
    return fleet


def happened(device, text):
    return EventReport(device=device, at=1.0, type="Normal", reason="Noted", message=text)


def report(first, *items, lane="events", incarnation="o1", session="s1", dropped=0):
    return Report(incarnation=incarnation, session=session, lanes={lane: LaneItems(first=first, items=items, dropped=dropped)})


def send(fleet, message, agent="d0"):
    decision = gateway.decide_report(message, agent, fleet.view, fleet.now)
    if not isinstance(decision, Refusal):
        gateway.settle(fleet.view, decision, fleet.store.write(decision.transaction))
    return decision


def texts(fleet):
    return [event.message for event in fleet.store.events if event.reason == "Noted"]


def test_items_take_effect_once(two):
    first = send(two, report(1, happened("d0", "a"), happened("d0", "b")))
    assert first.answer.marks == {"events": 2}
    again = send(two, report(1, happened("d0", "a"), happened("d0", "b"), happened("d0", "c")))
    assert again.answer.marks == {"events": 3}
    assert texts(two) == ["a", "b", "c"]
    assert send(two, report(2, happened("d0", "b"))).answer.marks == {"events": 3}
    assert texts(two) == ["a", "b", "c"]


def test_marks_survive_a_restart(two):
    send(two, report(1, happened("d0", "a")))
    two.start()
    send(two, report(1, happened("d0", "a"), happened("d0", "b")))
    assert texts(two) == ["a", "b"]


def test_a_gap_of_dropped_items_is_passed(two):
    send(two, report(1, happened("d0", "a")))
    decision = send(two, report(10, happened("d0", "j"), dropped=8))
    assert decision.answer.marks == {"events": 10}
    assert decision.transaction.marks[0].dropped == 8


def test_a_new_outbox_begins_anew(two):
    send(two, report(5, happened("d0", "a")))
    assert send(two, report(1, happened("d0", "b"), incarnation="o2")).answer.marks == {"events": 1}
    assert texts(two) == ["a", "b"]


def test_lanes_are_apart(two):
    send(two, report(1, happened("d0", "a"), lane="alerts"))
    assert send(two, report(1, happened("d0", "b"), lane="events")).answer.marks == {"events": 1}
    assert texts(two) == ["a", "b"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_order_of_repeats_is_exactly_once(make, data):
    fleet = make.Fleet()
    fleet.join("d0")
    acknowledged, produced = 0, 0
    for _ in range(data.draw(st.integers(1, 12))):
        produced = max(produced, acknowledged) + data.draw(st.integers(0, 3))
        first = data.draw(st.integers(max(1, acknowledged - 2), acknowledged + 1))
        items = [happened("d0", str(number)) for number in range(first, produced + 1)]
        if data.draw(st.booleans()):
            fleet.start()
        marks = send(fleet, report(first, *items)).answer.marks
        if items:
            acknowledged = marks["events"]
    assert texts(fleet) == [str(number) for number in range(1, acknowledged + 1)]


def test_another_agents_device_is_refused_whole(two):
    refusal = send(two, report(1, happened("d0", "mine"), happened("d1", "not mine")))
    assert (refusal.status, refusal.answer.reason) == (403, "NotYourDevice")
    assert texts(two) == []


def test_unknown_agent(two):
    assert send(two, report(1), agent="nobody").answer.reason == "UnknownAgent"


@pytest.mark.parametrize(("field", "reason"), [("revoked", "Revoked"), ("quarantined", "Quarantined")])
def test_agents_out_of_use(two, field, reason):
    agent = two.get("Agent", "d0", "")
    two.put(msgspec.structs.replace(agent, spec=msgspec.structs.replace(agent.spec, **{field: True})))
    assert send(two, report(1, happened("d0", "a"))).answer.reason == reason
    assert gateway.decide_desired("d0", None, two.view, two.seal).answer.reason == reason
    assert gateway.decide_renew("d0", "key-d0", two.view).answer.reason == reason


@pytest.mark.parametrize(("count", "refused"), [(9, False), (10, False), (11, True)])
def test_item_limit(two, count, refused):
    limits = ReportLimits(items_max=10)
    decision = gateway.decide_report(report(1, *[happened("d0", "x")] * count), "d0", two.view, two.now, limits)
    assert isinstance(decision, Refusal) == refused
    if refused:
        assert decision.status == 413


def series(count=1, name="m", value=1.0):
    return Series(
        name=name, unit="1", type="gauge", instance="shop/app", revision="r", count=count, sum=value, sum_squares=value, min=value,
        max=value, last=value,
    )  # fmt: skip


def frame(device="d0", start=0.0, end=1.0, samples=b"", many=1):
    return FrameReport(device=device, boot_id="b", start=start, end=end, monotonic=0.0, series=(series(),) * many, samples=samples)


@pytest.mark.parametrize(("count", "refused"), [(9, False), (10, False), (11, True)])
def test_series_limit(two, count, refused):
    decision = gateway.decide_report(report(1, frame(many=count), lane="telemetry"), "d0", two.view, two.now, ReportLimits(series_max=10))
    assert isinstance(decision, Refusal) == refused


@pytest.mark.parametrize(("size", "kept"), [(99, 99), (100, 100), (101, 0)])
def test_sample_limit(two, size, kept):
    limits = ReportLimits(samples_bytes_max=100)
    decision = gateway.decide_report(report(1, frame(samples=b"x" * size), lane="telemetry"), "d0", two.view, two.now, limits)
    assert len(decision.transaction.frames[0].body) == kept


@pytest.mark.parametrize(("size", "kept"), [(99, 99), (100, 100), (101, 100)])
def test_long_messages_are_cut(two, size, kept):
    decision = gateway.decide_report(
        report(1, happened("d0", "x" * size)), "d0", two.view, two.now, ReportLimits(message_characters_max=100)
    )
    assert len(decision.transaction.events[0].message) == kept


@pytest.mark.parametrize("at", [math.nan, math.inf, -math.inf, 1e300])
def test_times_that_are_none(two, at):
    send(two, report(1, msgspec.structs.replace(happened("d0", "x"), at=at), frame(start=at)))
    assert two.store.events[-1].at == two.now


NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("wrong", "boot", "monotonic", "end", "kept"),
    [
        (0.0, "b", 900.0, NOW - 100, NOW - 100),  # a clock that is right
        (59.0, "b", 900.0, NOW - 41, NOW - 41),  # nearly
        (-86_400.0, "b", 900.0, NOW - 86_500, NOW - 100),
        (86_400.0, "b", 900.0, NOW + 86_300, NOW - 100),
        (1000.0 - NOW, "b", 900.0, 900.0, NOW - 100),
        (0.0, "b", 900.0, 900.0, NOW - 100),  # was at 1970 then, has been set right since
        (1000.0 - NOW, "earlier", 900.0, 900.0, NOW - 100),
        (0.0, "earlier", 900.0, NOW - 5000, NOW - 5000),
        (0.0, "b", 0.0, NOW - 5000, NOW - 5000),  # says nothing of its monotonic time
        (0.0, "b", 2e9, 900.0, NOW),  # nonsense
    ],
)
def test_a_wrong_clock_is_set_right_by_when_the_report_was_sent(two, wrong, boot, monotonic, end, kept):
    two.now = NOW
    item = msgspec.structs.replace(frame(start=end - 2, end=end), boot_id=boot, monotonic=monotonic)
    sent = msgspec.structs.replace(report(1, item, lane="telemetry"), sent_at=NOW + wrong, monotonic=1000.0, boot_id="b")
    (row,) = gateway.decide_report(sent, "d0", two.view, NOW).transaction.frames
    assert (row.start, row.end) == (pytest.approx(kept - 2), pytest.approx(kept))
    told = msgspec.structs.replace(happened("d0", "x"), at=NOW + wrong - 100)
    sent = msgspec.structs.replace(report(1, told), sent_at=NOW + wrong)
    (event,) = gateway.decide_report(sent, "d0", two.view, NOW).transaction.events
    assert event.at == pytest.approx(NOW - 100 + (wrong if abs(wrong) < 60 else 0), abs=1e-3)


@pytest.mark.parametrize("sent_at", [math.nan, math.inf, -1e308, 1e308])
def test_a_sending_time_that_is_none_sets_nothing_right(two, sent_at):
    sent = msgspec.structs.replace(report(1, frame(start=NOW - 10, end=NOW - 5)), sent_at=sent_at)
    (row,) = gateway.decide_report(sent, "d0", two.view, NOW).transaction.frames
    assert (row.start, row.end) == (NOW - 10, NOW - 5)


@pytest.mark.parametrize("text", ["", "a\nb", "x" * 513, "\x00"])
def test_names_that_no_store_takes(two, text):
    assert send(two, report(1, incarnation=text)).status == 400
    assert send(two, report(1, session=text)).status == 400
    assert isinstance(send(two, report(2**62, happened("d0", "x"))), Refusal)


def test_device_report_merges(two):
    capacity = Capacity(cpu_milli=1, memory=2, disk=3)
    send(two, report(1, DeviceReport(device="d0", capacity=capacity), DeviceReport(device="d0", boot_id="b2"), lane="status"))
    status = two.get("Device", "d0", "").status
    assert (status.capacity, status.boot_id, status.connection.value) == (capacity, "b2", "Online")
    assert two.view.devices["d0"].facts.capacity == capacity


@pytest.mark.parametrize(
    ("item", "kept"),
    [
        ({"agent_version": "2", "capabilities": ("traffic", "a" * 65)}, ("a" * 64, "traffic")),
        ({"agent_version": "2", "capabilities": tuple("a" for _ in range(33))}, ("a",) * 32),
        ({"agent_version": "0"}, ()),
        ({"boot_id": "b2"}, ("zstd",)),
    ],
    ids=["others", "many", "an-older-agent", "nothing-said"],
)
def test_what_an_agent_can_do_goes_with_its_version(two, item, kept):
    send(two, report(1, DeviceReport(device="d0", agent_version="1", capabilities=("zstd",)), lane="status"))
    send(two, report(2, DeviceReport(device="d0", **item), lane="status"))
    assert two.get("Device", "d0", "").status.capabilities == kept


def test_oversized_inventory_is_not_taken(two):
    before = two.get("Device", "d0", "").status.capacity
    capacity = Capacity(network={f"eth{n}": "x" * 100 for n in range(1000)})
    send(two, report(1, DeviceReport(device="d0", capacity=capacity), lane="status"))
    assert two.get("Device", "d0", "").status.capacity == before


def test_report_about_a_removed_instance_is_taken_and_forgotten(two):
    decision = send(two, report(1, InstanceReport(device="d0", name="shop/gone", uid="u", status=InstanceStatus()), lane="status"))
    assert decision.answer.marks == {"status": 1}
    assert decision.transaction.writes == ()


def test_gone_removes_only_what_should_stop(two):
    two.publish("1")
    two.apply("1")
    two.until(lambda: two.state(1) == "Succeeded")
    uid = two.instances()["d0"].metadata.uid
    two.devices["d0"].report("status", InstanceReport(device="d0", name="shop/app", uid=uid, status=InstanceStatus(), gone=True))
    assert "d0" in two.instances()
    two.devices["d0"].status.clear()
    two.devices["d0"].act()
    two.run(2)
    assert two.versions()["d0"] == "1"


def test_concurrent_device_changes_conflict_and_are_decided_again(two):
    first = gateway.decide_report(report(1, DeviceReport(device="d0", boot_id="b1"), lane="status"), "d0", two.view, two.now)
    device = two.get("Device", "d0", "")
    status = msgspec.structs.replace(device.status, agent_version="9")
    two.write(Transaction(now=0, writes=(PutStatus(key=Key("Device", "", "d0"), status=encode(status), expect=ANY),)))
    with pytest.raises(ConflictError):
        two.store.write(first.transaction)
    send(two, report(1, DeviceReport(device="d0", boot_id="b1"), lane="status"))
    after = two.get("Device", "d0", "").status
    assert (after.boot_id, after.agent_version) == ("b1", "9")


# ---- sessions ----


def test_restarts_are_not_clones():
    session = None
    for name in ("a", "a", "b", "c", "d", "d"):
        session = next_session(session, name)
    assert session.flips == 0


def test_one_delayed_message_is_not_a_clone(two):
    for number, name in enumerate("abaabbb", 1):
        assert not isinstance(send(two, report(number, happened("d0", "x"), session=name)), Refusal)


def test_alternation_quarantines(two):
    answers = [send(two, report(n, happened("d0", "x"), session=s)) for n, s in enumerate("ababa", 1)]
    refusal = answers[-1]
    assert [isinstance(answer, Refusal) for answer in answers] == [False, False, False, False, True]
    two.write(refusal.transaction)
    assert two.get("Agent", "d0", "").spec.quarantined
    for session in "ab":
        assert send(two, report(9, happened("d0", "x"), session=session)).answer.reason == "Quarantined"
    assert any(event.reason == "Quarantined" and event.type == "Warning" for event in two.store.events)
    assert Session("a", "b", 3) == two.view.sessions["d0"]


def test_polls_count_like_reports(two):
    answers = [
        gateway.decide_session(session, "d0", two.view, two.now)
        if turn % 2
        else send(two, report(turn + 1, happened("d0", "x"), session=session))
        for turn, session in enumerate("aabba")
    ]
    assert not any(isinstance(answer, Refusal) for answer in answers)
    assert gateway.decide_session("b", "d0", two.view, two.now) is None
    refusal = gateway.decide_session("a", "d0", two.view, two.now)
    assert refusal.answer.reason == "Quarantined"
    two.write(refusal.transaction)
    assert gateway.decide_session("a", "d0", two.view, two.now).answer.reason == "Quarantined"
    assert gateway.decide_session("a", "d0", two.view, two.now).transaction is None
    assert gateway.decide_session("a", "nobody", two.view, two.now).answer.reason == "UnknownAgent"


@pytest.mark.parametrize("session", ["", "a\nb", "x" * 513])
def test_a_poll_under_no_session(two, session):
    assert gateway.decide_session(session, "d0", two.view, two.now).status == 400


def test_an_operator_lets_a_quarantined_agent_in_again(two):
    for number, session in enumerate("ababa", 1):
        answer = send(two, report(number, happened("d0", "x"), session=session))
    two.write(answer.transaction)
    agent = two.get("Agent", "d0", "")
    two.put(msgspec.structs.replace(agent, spec=msgspec.structs.replace(agent.spec, quarantined=False)))
    assert not isinstance(send(two, report(9, happened("d0", "y"), session="b")), Refusal)


def let_in_again_after_quarantine(fleet, told):
    """Two devices show the identity of d0, both under the numbering `one`; then a person lets it in again."""
    for number, session in enumerate("ababa", told):
        answer = send(fleet, report(number, happened("d0", "x"), session=session))
    fleet.write(answer.transaction)
    agent = fleet.get("Agent", "d0", "")
    fleet.put(msgspec.structs.replace(agent, spec=msgspec.structs.replace(agent.spec, quarantined=False)))


def test_what_was_numbered_as_the_clone_did_is_not_taken_for_told(two):
    let_in_again_after_quarantine(two, told=5)
    shared = send(two, report(6, happened("d0", "mine"), session="c"))
    assert (shared.transaction.events, shared.transaction.marks) == ((), ())
    assert shared.answer.marks["events"] > 10**9  # beyond all that was ever numbered: the device numbers anew, and sends all again
    anew = send(two, report(6, happened("d0", "mine"), session="c", incarnation="another"))
    assert [row.message for row in anew.transaction.events] == ["mine"]
    assert anew.answer.marks == {"events": 6}


def test_a_device_that_was_let_in_again_is_asked_to_tell_everything_again(two):
    gateway.refresh(two.view)
    first = gateway.decide_desired("d0", None, two.view, lambda _key, _device: b"")
    let_in_again_after_quarantine(two, told=1)
    assert gateway.refresh(two.view) == {"d0"}
    after = gateway.decide_desired("d0", first.position, two.view, lambda _key, _device: b"")
    assert [document.tell_again for document in (*first.devices, *after.devices)] == [0, 1]


# ---- joining ----


def token(fleet, digest="f" * 64, **fields):
    spec = JoinTokenSpec(digest=digest, **{"expires_at": fleet.now + 600, "site": "north", **fields})
    known = spec.site in fleet.view.sites
    fleet.write(create_join_token(spec, known_site=known, user="ann", now=fleet.now, epoch=1, revision=fleet.store.revision))


def request(device="new", **fields):
    return JoinRequest(**{"secret": "s", "device": device, "signing_request": "r", "sealing_key": b"k" * 32, **fields})


def join(fleet, digest="f" * 64, key="key-new", **fields):
    return gateway.decide_join(request(**fields), digest, key, fleet.view, fleet.now)


def complete(fleet, decision):
    written = fleet.store.write(gateway.complete_join(decision, fleet.view, fleet.now, "s1", fleet.now + 90))
    gateway.settle_join(fleet.view, decision, written, fleet.now)


def test_join_makes_agent_device_and_site(fleet):
    token(fleet, labels={"line": "3"})
    complete(fleet, join(fleet, labels={"camera": "front", "line": "9"}, device_class="small"))
    device = fleet.get("Device", "new", "")
    assert (device.spec.site, device.spec.agent, device.spec.device_class) == ("north", "new", "small")
    assert device.metadata.labels == {"camera": "front", "line": "3"}
    assert fleet.get("Agent", "new", "").spec.devices == ("new",)
    assert fleet.get("Site", "north", "") is not None
    assert device.status.connection.value == "Online"


def test_a_token_is_used_once(fleet):
    token(fleet)
    first, second = join(fleet), join(fleet, device="other", key="key-2")
    complete(fleet, first)
    with pytest.raises(ConflictError):
        complete(fleet, second)
    assert join(fleet, device="other", key="key-2").answer.reason == "UsedToken"


@pytest.mark.parametrize(("used", "granted"), [(1, True), (2, True), (3, False)])
def test_uses(fleet, used, granted):
    token(fleet, uses=2)
    for number in range(used - 1):
        complete(fleet, join(fleet, device=f"d{number}", key=f"k{number}"))
    assert isinstance(join(fleet), Refusal) != granted


def test_a_lost_answer_may_be_asked_again_with_the_same_key(fleet):
    token(fleet)
    complete(fleet, join(fleet))
    again = join(fleet)
    assert again.agent == "new"
    complete(fleet, again)
    assert join(fleet, key="another").answer.reason == "UsedToken"
    assert len(fleet.all("Agent")) == 1


@pytest.mark.parametrize(("wait", "reason"), [(599.9, None), (600.0, "ExpiredToken"), (601.0, "ExpiredToken")])
def test_expiry(fleet, wait, reason):
    token(fleet)
    fleet.now += wait
    answer = join(fleet)
    assert (answer.answer.reason if isinstance(answer, Refusal) else None) == reason


def test_unknown_and_guessed_tokens(fleet):
    token(fleet, digest="ab" * 32)
    assert join(fleet).answer.reason == "UnknownToken"
    assert join(fleet, digest="ab" * 8 + "cd" * 24).answer.reason == "UnknownToken"


def test_taken_names_and_bad_input(fleet):
    fleet.join("d0")
    token(fleet)
    assert join(fleet, device="d0").answer.reason == "NameTaken"
    assert join(fleet, sealing_key=b"short").status == 400
    assert join(fleet, labels={"site": "south"}).answer.reason == "InvalidLabels"
    assert join(fleet, labels={f"l{n}": "x" for n in range(51)}).answer.reason == "InvalidLabels"
    assert join(fleet, capacity=Capacity(network={f"eth{n}": "x" * 100 for n in range(1000)})).status == 413


def test_renew(fleet):
    fleet.join("d0")
    assert gateway.decide_renew("d0", "another", fleet.view).answer.reason == "WrongKey"
    decision = gateway.decide_renew("d0", "key-d0", fleet.view)
    fleet.write(gateway.complete_renew(decision, fleet.view, fleet.now, "s2", fleet.now + 5))
    status = fleet.get("Agent", "d0", "").status
    assert (status.certificate_serial, status.certificate_not_after) == ("s2", fleet.now + 5)
    assert status.joined_at == fleet.now


# ---- desired states ----


def test_statuses_wake_nobody(two):
    two.publish("1")
    two.apply("1")
    two.settle()
    numbers = dict(two.view.numbers)
    two.run(30)
    assert two.state(1) == "Succeeded"
    assert two.view.numbers == numbers
    state = gateway.decide_desired("d0", None, two.view, two.seal)
    assert gateway.decide_desired("d0", state.position, two.view, two.seal) is None


def test_only_what_changed_is_told(two):
    two.publish("1")
    two.apply("1")
    two.until(lambda: two.state(1) == "Succeeded")
    before = gateway.decide_desired("d0", None, two.view, two.seal).position
    other = gateway.decide_desired("d1", None, two.view, two.seal).position
    device = two.get("Device", "d0", "")
    two.put(msgspec.structs.replace(device, spec=msgspec.structs.replace(device.spec, cleared_refusals=1)))
    assert gateway.refresh(two.view) == {"d0"}
    after = gateway.decide_desired("d0", before, two.view, two.seal)
    assert after.position > before
    assert after.devices[0].cleared_refusals == 1
    assert gateway.decide_desired("d1", other, two.view, two.seal) is None


def test_after_a_restart_or_restore_everything_is_told(two):
    two.publish("1")
    two.apply("1")
    two.run(3)
    state = gateway.decide_desired("d0", None, two.view, two.seal)
    two.start()
    again = gateway.decide_desired("d0", Position(2, 10**6), two.view, two.seal)
    assert again.devices[0].instances == state.devices[0].instances
    ahead = gateway.decide_desired("d0", Position(1, 10**6), two.view, two.seal)
    assert ahead.position == Position(1, 10**6 + 1)
    assert ahead.devices[0].position == ahead.position
    assert gateway.decide_desired("d0", ahead.position, two.view, two.seal) is None


def test_changes_in_any_order_never_lower_a_number(two):
    device = two.get("Device", "d0", "")
    gateway.refresh(two.view)
    two.view.revision += 5
    before = two.view.numbers["d0"]
    two.put(msgspec.structs.replace(device, spec=msgspec.structs.replace(device.spec, cleared_refusals=1)))
    gateway.refresh(two.view)
    middle = two.view.numbers["d0"]
    device = two.get("Device", "d0", "")
    two.put(msgspec.structs.replace(device, spec=msgspec.structs.replace(device.spec, cleared_refusals=2)))
    gateway.refresh(two.view)
    assert before < middle < two.view.numbers["d0"]
