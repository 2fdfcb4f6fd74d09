"""Uplink, downlink and contact: what they wait, tell and remember."""

import msgspec
import pytest

from edgewise.agent.contact import Contact
from edgewise.agent.downlink import Downlink
from edgewise.agent.errors import ProtocolBroken, Refused, TlsFailed, Unreachable
from edgewise.agent.limits import LIMITS
from edgewise.agent.uplink import Uplink
from edgewise.engine.backoff import Backoff
from edgewise.engine.protocol import ContactChanged
from edgewise.wire.desired import ArtifactTarget, DesiredState, DeviceDesired, InstanceDesired, Position, StreamRequest
from edgewise.wire.enrolment import ErrorAnswer
from edgewise.wire.report import DeviceReport, LaneItems, Report, ReportAnswer


def refused(status: int, retry_after: float | None = None) -> Refused:
    return Refused(status, ErrorAnswer(reason="R", message="m"), retry_after)


class FakeClient:
    def __init__(self) -> None:
        self.idle = 0.0
        self.closed = 0

    def idle_for(self) -> float:
        return self.idle

    def close(self) -> None:
        self.closed += 1
        self.idle = 0.0


class FakeLink:
    def __init__(self) -> None:
        self.client = FakeClient()
        self.answers: list[object] = []
        self.sent: list[object] = []

    def _next(self, call: object) -> object:
        self.sent.append(call)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def report(self, report):
        return self._next(report)

    def desired(self, after, wait):
        return self._next((after, wait))


class FakeOutlet:
    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.marks: list[ReportAnswer] = []

    @property
    def empty(self):
        return not self.reports

    def next_report(self):
        return self.reports[0] if self.reports else None

    def acknowledge(self, answer):
        self.marks.append(answer)
        self.reports.pop(0)


ITEM = DeviceReport(device="d")
REPORT = Report(incarnation="i", session="s", lanes={"status": LaneItems(first=1, items=(ITEM,))})
ANSWER = ReportAnswer(marks={}, time=5.0)


@pytest.fixture
def told():
    return []


@pytest.fixture
def contact(clock, told):
    return Contact(clock, told.append, 20.0)


@pytest.fixture
def up(clock, randomness, contact, log):
    class World:
        pass

    world = World()
    world.link, world.outlet, world.times, world.distrust = FakeLink(), FakeOutlet(), [], []
    world.backoff = Backoff(randomness, 2.0, 30.0)
    world.uplink = Uplink(
        world.link,
        world.outlet,
        contact,
        world.backoff,
        log,
        clock=clock,
        boot_id="boot",
        on_time=world.times.append,
        on_distrust=lambda: world.distrust.append(1),
    )
    return world


def test_nothing_to_send_sends_nothing_and_waits_for_ever(up):
    assert up.uplink.step() is None
    assert up.link.sent == []


def test_what_comes_within_a_moment_goes_together(up, clock):
    up.outlet.reports.append(REPORT)
    up.link.answers.append(ANSWER)
    wait = up.uplink.step()
    assert wait == LIMITS.coalesce_seconds
    assert up.link.sent == []
    clock.time += wait
    assert up.uplink.step() == 0.0
    stamped = msgspec.structs.replace(REPORT, sent_at=clock.wall(), monotonic=clock.monotonic(), boot_id="boot")
    assert up.link.sent == [stamped]
    assert up.outlet.marks == [ANSWER]
    assert up.times == [5.0]


def test_a_backlog_goes_without_pauses(up, clock):
    up.outlet.reports += [REPORT, REPORT]
    up.link.answers += [ANSWER, ANSWER]
    clock.time += up.uplink.step()
    assert up.uplink.step() == 0.0
    assert up.uplink.step() == 0.0
    assert len(up.link.sent) == 2


@pytest.mark.parametrize(
    ("error", "least"), [(refused(503, 40.0), 40.0), (refused(429, 7.0), 7.0), (Unreachable("x"), 0.0), (ProtocolBroken("x"), 0.0)]
)
def test_a_failure_waits_and_retry_after_is_honoured(up, clock, error, least):
    up.outlet.reports.append(REPORT)
    up.link.answers.append(error)
    clock.time += up.uplink.step()
    wait = up.uplink.step()
    assert wait == least + 2.0
    up.uplink.hurry()
    clock.time += wait - 0.01
    assert up.uplink.step() == pytest.approx(0.01)
    assert len(up.link.sent) == 1
    clock.time += 0.02
    up.link.answers.append(ANSWER)
    up.uplink.step()
    clock.time += LIMITS.coalesce_seconds
    up.uplink.step()
    assert up.outlet.marks == [ANSWER]


def test_back_off_doubles_up_to_its_limit_and_begins_anew(randomness):
    backoff = Backoff(randomness, 2.0, 30.0)
    assert [backoff.next() for _ in range(6)] == [2, 4, 8, 16, 30, 30]
    backoff.reset()
    assert backoff.next(5.0) == 7.0


@pytest.mark.parametrize("error", [refused(401), refused(403), TlsFailed("x")])
def test_distrust_is_told(up, clock, error):
    up.outlet.reports.append(REPORT)
    up.link.answers.append(error)
    clock.time += up.uplink.step()
    up.uplink.step()
    assert up.distrust == [1]


def test_an_outcast_device_asks_seldom_until_it_shows_a_new_certificate(up, clock):
    up.outlet.reports.append(REPORT)
    up.link.answers += [refused(403)] * 9
    clock.time += up.uplink.step()
    waits = []
    for _ in range(9):
        waits.append(up.uplink.step())
        clock.time += waits[-1]
    assert waits[-1] == LIMITS.refused_backoff_seconds_max
    up.link.answers.append(refused(403))
    up.uplink.step()
    up.uplink.try_again()
    up.link.answers.append(ANSWER)
    assert up.uplink.step() == 0.0
    assert up.outlet.marks == [ANSWER]


def test_an_idle_connection_is_closed(up):
    up.link.client.idle = 10.0
    assert up.uplink.step() == pytest.approx(LIMITS.idle_connection_seconds - 10.0)
    up.link.client.idle = LIMITS.idle_connection_seconds
    assert up.uplink.step() is None
    assert up.link.client.closed == 1


@pytest.fixture
def poll_seconds():
    return LIMITS.poll_wait_seconds


@pytest.fixture
def down(randomness, contact, log, poll_seconds):
    class World:
        pass

    world = World()
    world.link, world.documents, world.streams, world.reached, world.distrust = FakeLink(), [], [], [], []
    world.downlink = Downlink(
        world.link,
        Position(1, 5),
        contact,
        Backoff(randomness, 2.0, 30.0),
        log,
        poll_seconds=poll_seconds,
        take=world.documents.append,
        take_stream=world.streams.append,
        on_reached=lambda: world.reached.append(1),
        on_distrust=lambda: world.distrust.append(1),
    )
    return world


def document(n: int, *instances: InstanceDesired) -> DeviceDesired:
    return DeviceDesired(device="d", uid="u", position=Position(1, n), instances=instances)


def instance(lost_after: float, exclusive: bool) -> InstanceDesired:
    artifact = ArtifactTarget(target="releases/n/a/1.json", digest="sha256:" + "0" * 64, length=1, type="model", variant="v")
    return InstanceDesired(
        name="n/w", uid="u", epoch=1, revision="r", artifact=artifact, lost_after_seconds=lost_after, exclusive=exclusive
    )


def test_polls_follow_each_other_and_carry_the_position(down):
    stream = StreamRequest(id="1", device="d", instance="n/w")
    down.link.answers += [DesiredState(position=Position(1, 7), devices=(document(7),), streams=(stream,)), None]
    assert down.downlink.step() == 0.0
    assert down.downlink.step() == 0.0
    assert down.link.sent == [(Position(1, 5), 240.0), (Position(1, 7), 240.0)]
    assert down.documents == [document(7)]
    assert down.streams == [stream]
    assert down.reached == [1]


def test_exclusive_instances_shorten_the_poll(down):
    for lost_after, exclusive, wait in [
        (90.0, True, 22.5),
        (5.0, True, 1.25),
        (3.0, True, 1.0),
        (9000.0, True, 240.0),
        (30.0, False, 240.0),
    ]:
        down.link.answers.append(DesiredState(position=Position(1, 7), devices=(document(7, instance(lost_after, exclusive)),)))
        down.downlink.step()
        assert down.downlink.wait == wait


@pytest.mark.parametrize(
    ("poll_seconds", "wait", "exclusive_wait"),
    [(4.0, 5.0, 5.0), (5.0, 5.0, 5.0), (60.0, 60.0, 22.5), (240.0, 240.0, 22.5), (241.0, 240.0, 22.5)],
)
def test_a_poll_waits_as_long_as_the_configuration_says(down, wait, exclusive_wait):
    down.link.answers += [None, DesiredState(position=Position(1, 7), devices=(document(7, instance(90.0, exclusive=True)),))]
    down.downlink.step()
    assert down.link.sent == [(Position(1, 5), wait)]
    down.downlink.step()
    assert down.downlink.wait == exclusive_wait


def test_a_superseded_poll_never_hammers(down):
    down.link.answers += [refused(409), refused(409), None]
    assert down.downlink.step() == 4.0
    assert down.downlink.step() == 6.0
    assert down.downlink.step() == 0.0


def test_the_downlink_honours_retry_after_and_backs_off(down):
    down.link.answers += [refused(503, 9.0), Unreachable("x")]
    assert down.downlink.step() == 11.0
    assert down.downlink.step() == 4.0


@pytest.mark.parametrize("watched", [False, True])
def test_contact_is_told_when_it_changes_and_seldom_where_silence_matters(contact, clock, told, watched):
    contact.watch(1000.0 if watched else None)
    assert not contact.failed()
    contact.reached()
    assert bool(told) is not watched, "where an exclusive copy runs, only what should run says that it is back"
    assert contact.reached(desired=True) is watched
    assert not contact.reached()
    assert told == [ContactChanged(online=True, last_contact=1000.0)]
    clock.time += 6
    contact.reached()
    assert told[-1] == ContactChanged(online=True, last_contact=1006.0 if watched else 1000.0)
    clock.time += 4
    contact.reached()
    assert len(told) == 1 + watched
    clock.time += 19
    assert not contact.failed()
    clock.time += 1
    assert contact.failed()
    assert not contact.failed()
    assert told[-1] == ContactChanged(online=False, last_contact=1010.0)
    assert contact.reached()


def test_a_device_that_never_reached_anybody_says_so_once(contact, clock, told):
    clock.time += 20
    contact.failed()
    contact.failed()
    assert told == [ContactChanged(online=False, last_contact=None)]


def test_a_silence_is_noticed_without_an_exchange_where_an_exclusive_copy_runs(contact, clock, told):
    contact.reached()
    assert contact.check() is None
    contact.watch(12.0)
    assert contact.check() == 6.0
    clock.time += 4
    contact.reached()
    assert contact.check() == 6.0
    clock.time += 5.9
    assert contact.check() == pytest.approx(0.1)
    assert told[-1].online
    clock.time += 0.1
    assert contact.check() == 6.0
    assert told[-1] == ContactChanged(online=False, last_contact=1004.0)
    assert contact.reached()
    contact.watch(None)
    assert contact.check() is None


def test_an_answer_that_a_busy_control_plane_did_not_count_is_no_contact(up, down, clock, told, contact):
    contact.reached()
    clock.time += 20
    up.outlet.reports.append(REPORT)
    up.link.answers.append(refused(503))
    up.uplink.step()
    clock.time += 1
    up.uplink.step()
    assert told[-1] == ContactChanged(online=False, last_contact=1000.0)
    down.link.answers.append(refused(429))
    down.downlink.step()
    assert not contact.online
