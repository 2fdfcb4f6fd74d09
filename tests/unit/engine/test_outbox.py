"""What the device has to say: lanes, numbers, marks, budgets, and what a cut or a failing disk does to them."""

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewise.engine.limits import EngineLimits
from edgewise.engine.outbox import LANES, Outbox, ReportLimits, open_outbox
from edgewise.ports.files import Damaged, FilesError, Full, ReadOnly
from edgewise.twin._nodes import nodes
from edgewise.twin.disk import Crash, PowerCut, RecordingDisk
from edgewise.wire.report import EventReport, Report, ReportAnswer

SMALL = EngineLimits(outbox_segment_bytes=400, outbox_telemetry_bytes_max=2_000, outbox_reserve_numbers=4, outbox_item_bytes_max=600)


def item(number: int, size: int = 0) -> EventReport:
    return EventReport(device="dev", at=1.0, type="Normal", reason="R", message=f"{number}{'x' * size}")


class Tokens:
    def __init__(self) -> None:
        self.count = 0

    def token(self, size: int) -> bytes:
        self.count += 1
        return self.count.to_bytes(size, "big")

    def uniform(self, low: float, high: float) -> float:
        return low


def opened(disk: RecordingDisk, tokens: Tokens | None = None, limits: EngineLimits = SMALL) -> Outbox:
    return open_outbox(disk, tokens or Tokens(), "session", limits)


def answer(**marks: int) -> ReportAnswer:
    return ReportAnswer(marks=marks, time=0.0)  # type: ignore[arg-type]


def numbers(report: Report) -> dict[str, list[int]]:
    return {lane: list(range(items.first, items.first + len(items.items))) for lane, items in report.lanes.items()}


def balanced(outbox: Outbox) -> None:
    for counts in outbox.counts().values():
        assert counts.produced == counts.acknowledged + counts.held + counts.dropped


def test_items_come_back_until_they_are_acknowledged() -> None:
    outbox = opened(RecordingDisk())
    assert outbox.empty
    for number in range(5):
        outbox.append("events", item(number))
    assert numbers(outbox.next_report()) == {"events": [1, 2, 3, 4, 5]}
    assert [one.message for one in outbox.next_report().lanes["events"].items] == list("01234")  # type: ignore[union-attr]
    outbox.acknowledge(answer(events=3))
    assert numbers(outbox.next_report()) == {"events": [4, 5]}
    outbox.acknowledge(answer(events=5))
    assert outbox.empty
    assert outbox.next_report().lanes == {}
    assert outbox.counts()["events"].acknowledged == 5


def test_urgent_lanes_go_first_and_limits_hold() -> None:
    outbox = opened(RecordingDisk())
    for lane in reversed(LANES):
        for number in range(3):
            outbox.append(lane, item(number))
    assert list(outbox.next_report().lanes) == list(LANES)
    assert numbers(outbox.next_report(ReportLimits(items_max=4))) == {"alerts": [1, 2, 3], "status": [1]}
    few = outbox.next_report(ReportLimits(bytes_max=1))
    assert numbers(few) == {"alerts": [1]}, "one item goes however large it is"


def test_a_restart_goes_on_with_numbers_marks_and_incarnation() -> None:
    disk, tokens = RecordingDisk(), Tokens()
    outbox = opened(disk, tokens)
    for number in range(8):
        outbox.append("status", item(number))
    outbox.acknowledge(answer(status=0))
    outbox.next_report()
    outbox.acknowledge(answer(status=6))
    outbox.close()
    again = opened(disk, tokens)
    assert again.incarnation == outbox.incarnation
    again.append("status", item(8))
    assert numbers(again.next_report()) == {"status": [7, 8, 9]}
    assert again.counts()["status"].produced == 9
    balanced(again)


def test_segments_roll_and_go_when_all_of_them_is_acknowledged() -> None:
    disk = RecordingDisk()
    outbox = opened(disk)
    for number in range(60):
        outbox.append("status", item(number))
    assert len(disk.list("outbox/status")) > 3
    seen = []
    while not outbox.empty:
        report = outbox.next_report(ReportLimits(items_max=7))
        seen += [one.message for one in report.lanes["status"].items]  # type: ignore[union-attr]
        outbox.acknowledge(answer(status=numbers(report)["status"][-1]))
        balanced(outbox)
    assert seen == [str(number) for number in range(60)]
    assert len(disk.list("outbox/status")) <= 2


def test_over_budget_the_oldest_of_the_lane_are_dropped_and_counted() -> None:
    disk = RecordingDisk()
    outbox = opened(disk)
    for number in range(200):
        outbox.append("telemetry", item(number))
        balanced(outbox)
    counts = outbox.counts()["telemetry"]
    assert counts.dropped > 100
    assert counts.produced == 200
    assert sum(entry.size for entry in disk.list("outbox/telemetry")) <= SMALL.outbox_telemetry_bytes_max
    report = outbox.next_report()
    assert report.lanes["telemetry"].dropped == counts.dropped
    assert report.lanes["telemetry"].first == counts.dropped + 1


def test_over_the_whole_budget_the_least_urgent_lane_gives() -> None:
    limits = EngineLimits(outbox_segment_bytes=400, outbox_bytes_max=6_000, outbox_item_bytes_max=600)
    outbox = opened(RecordingDisk(), limits=limits)
    for number in range(40):
        outbox.append("events", item(number))
        outbox.append("telemetry", item(number))
        outbox.append("alerts", item(number))
    counts = outbox.counts()
    assert counts["telemetry"].dropped > 0
    assert counts["alerts"].dropped == 0


@pytest.mark.parametrize(("size", "kept"), [(-1, 1), (0, 1), (1, 0)])
def test_the_limit_of_an_item(size: int, kept: int) -> None:
    import msgspec

    outbox = opened(RecordingDisk())
    room = SMALL.outbox_item_bytes_max - len(msgspec.msgpack.encode(item(1, 300))) + 300
    outbox.append("events", item(1, room + size))
    counts = outbox.counts()["events"]
    assert (counts.held, counts.dropped, counts.produced) == (kept, 1 - kept, 1)
    outbox.append("events", item(2))
    assert len(outbox.next_report().lanes["events"].items) >= 1
    balanced(outbox)


def test_a_mark_beyond_what_was_numbered_begins_a_new_incarnation_with_all_that_is_held() -> None:
    disk, tokens = RecordingDisk(), Tokens()
    outbox = opened(disk, tokens)
    outbox.append("events", item(1))
    before = outbox.incarnation
    outbox.acknowledge(answer(events=50))
    assert outbox.incarnation != before
    assert numbers(outbox.next_report()) == {"events": [1]}
    assert opened(disk, tokens).incarnation == outbox.incarnation


def test_a_mark_that_is_old_or_of_an_unknown_lane_changes_nothing() -> None:
    outbox = opened(RecordingDisk())
    for number in range(3):
        outbox.append("events", item(number))
    outbox.acknowledge(answer(events=2))
    outbox.acknowledge(answer(events=1, other=7))
    assert numbers(outbox.next_report()) == {"events": [3]}


def test_a_lost_lane_or_name_begins_a_new_incarnation() -> None:
    for lost in ("outbox/status/00000001", "outbox/incarnation"):
        disk, tokens = RecordingDisk(), Tokens()
        before = opened(disk, tokens).incarnation
        assert opened(disk, tokens).incarnation == before
        disk.remove(lost)
        assert opened(disk, tokens).incarnation != before


def test_damage_loses_only_what_was_damaged_and_begins_a_new_incarnation() -> None:
    disk, tokens = RecordingDisk(), Tokens()
    outbox = opened(disk, tokens)
    for number in range(5):
        outbox.append("events", item(number))
    outbox.close()
    data = bytearray(disk.read("outbox/events/00000001", 9999))
    data[data.index(item(2).message.encode() + b"") + 0] ^= 0
    at = data.index(b"message") if b"message" in data else 0
    data[data.index(b"\xa12", at)] ^= 0xFF
    disk.replace("outbox/events/00000001", bytes(data))
    again = opened(disk, tokens)
    assert again.incarnation != outbox.incarnation
    messages = []
    while not again.empty:
        report = again.next_report()
        messages += [one.message for one in report.lanes["events"].items]  # type: ignore[union-attr]
        again.acknowledge(answer(events=numbers(report)["events"][-1]))
    assert messages == ["0", "1", "3", "4"]
    assert again.counts()["events"].dropped == 1
    balanced(again)


LIVE = "outbox/status/00000001"


def decayed(disk: RecordingDisk, at: int, *, cut: bool = False) -> None:
    """Turn the bits of one byte of the segment that is being written, or cut it short there, under an outbox that is open."""
    found = dict(nodes(disk.root))[LIVE]
    data = bytearray(found.seen)
    data[at] ^= 0xFF
    found.rot(bytes(data[:at] if cut else data))


def told(outbox: Outbox, most: int = 50) -> list[str]:
    """Return what the outbox says until it has nothing more to say, or says nothing though it has."""
    messages: list[str] = []
    for _ in range(most):
        report = outbox.next_report()
        if not report.lanes:
            return messages
        messages += [one.message for one in report.lanes["status"].items]  # type: ignore[union-attr]
        outbox.acknowledge(answer(status=numbers(report)["status"][-1]))
        balanced(outbox)
    return messages


def status_of(count: int, acknowledged: int = 0, limits: EngineLimits = EngineLimits()) -> tuple[RecordingDisk, Outbox, list[int]]:  # noqa: B008 - frozen
    """Return an outbox whose first segment holds `count` items, some of which are acknowledged, and where each of them begins."""
    disk, starts = RecordingDisk(), []
    outbox = opened(disk, limits=limits)
    for number in range(count):
        starts.append(len(disk.read(LIVE, 99_999)))
        outbox.append("status", item(number))
        if number + 1 == acknowledged:
            told(outbox)
    outbox.flush()
    return disk, outbox, starts


@pytest.mark.parametrize("acknowledged", [0, 2])
@pytest.mark.parametrize("part", [0, 4, 8, 40])  # length, checksum, kind, payload
@pytest.mark.parametrize("hit", [2, 4, 6])  # the first that waits (or not), one in the middle, the last
def test_an_item_that_rots_under_an_open_outbox_is_dropped_and_all_others_go(hit: int, part: int, acknowledged: int) -> None:
    disk, outbox, starts = status_of(7, acknowledged)
    decayed(disk, starts[hit] + part)
    assert told(outbox) == [str(number) for number in range(acknowledged, 7) if number != hit]
    counts = outbox.counts()["status"]
    assert (counts.produced, counts.acknowledged, counts.held, counts.dropped) == (7, 6, 0, 1)
    outbox.append("status", item(7))
    report = outbox.next_report()
    assert numbers(report) == {"status": [8]}
    assert report.lanes["status"].dropped == 1
    assert told(outbox) == ["7"]


@pytest.mark.parametrize("acknowledged", [0, 2])
def test_a_header_that_rots_under_an_open_outbox_hides_nothing(acknowledged: int) -> None:
    disk, outbox, _ = status_of(5, acknowledged)
    decayed(disk, 2)
    outbox.append("status", item(5))
    assert told(outbox) == [str(number) for number in range(acknowledged, 6)]
    assert outbox.counts()["status"].dropped == 0


@pytest.mark.parametrize("later", [0, 1, 9])
@pytest.mark.parametrize(("acknowledged", "at"), [(0, 3), (3, 5), (3, 1), (3, 0)])
def test_a_segment_that_is_cut_short_under_an_open_outbox_loses_only_what_was_cut(acknowledged: int, at: int, later: int) -> None:
    disk, outbox, starts = status_of(6, acknowledged)
    decayed(disk, starts[at] + 5, cut=True)
    for number in range(6, 6 + later):
        outbox.append("status", item(number))
    left = range(acknowledged, max(acknowledged, at))
    assert told(outbox) == [str(number) for number in (*left, *range(6, 6 + later))]
    assert outbox.empty
    counts = outbox.counts()["status"]
    assert (counts.produced, counts.dropped) == (6 + later, 6 - acknowledged - len(left))
    outbox.append("status", item(99))
    assert told(outbox) == ["99"]


def test_what_comes_after_damage_survives_a_restart_under_numbers_that_were_not_used() -> None:
    disk, outbox, starts = status_of(6)
    decayed(disk, starts[4])
    sent = outbox.next_report()
    assert numbers(sent) == {"status": [1, 2, 3, 4]}
    outbox.acknowledge(answer(status=4))
    assert numbers(outbox.next_report()) == {"status": [6]}
    outbox.append("status", item(6))
    outbox.flush()
    again = opened(disk.crash(Crash.DROPPED), Tokens(), EngineLimits())
    assert told(again)[-1] == "6"
    assert again.empty
    again.append("status", item(7))
    assert numbers(again.next_report())["status"][0] > 7


def test_a_segment_that_cannot_be_read_for_now_is_given_up_only_for_what_comes_later() -> None:
    disk, outbox, _ = status_of(3)
    disk.broken = True
    assert outbox._lanes["status"].take(9, 999) == (0, [])
    assert outbox.counts()["status"].held == 3
    disk.broken = False
    assert told(outbox) == ["0", "1", "2"]
    assert outbox.counts()["status"].dropped == 0


def test_numbers_of_telemetry_that_was_sent_and_lost_are_not_used_again() -> None:
    disk, tokens = RecordingDisk(), Tokens()
    outbox = opened(disk, tokens)
    for number in range(3):
        outbox.append("telemetry", item(number))
    sent = numbers(outbox.next_report())["telemetry"]
    outbox.append("telemetry", item(3))
    sent += numbers(outbox.next_report())["telemetry"]
    outbox.acknowledge(answer(telemetry=max(sent)))
    again = opened(disk.crash(Crash.DROPPED), tokens)
    again.append("telemetry", item(99))
    while not again.empty:
        report = again.next_report()
        for number, one in enumerate(report.lanes["telemetry"].items, report.lanes["telemetry"].first):
            assert one.message != "99" or number > max(sent)  # type: ignore[union-attr]
        again.acknowledge(answer(telemetry=numbers(report)["telemetry"][-1]))
    balanced(again)


def test_telemetry_is_synced_seldom_and_status_before_each_report() -> None:
    disk = RecordingDisk()
    outbox = opened(disk, limits=EngineLimits())
    before = len([line for line in disk.trace if line.startswith("sync")])
    for number in range(12):
        outbox.append("telemetry", item(number))
        outbox.flush()
        outbox.next_report()
    assert len([line for line in disk.trace if line.startswith("sync")]) == before + 1
    for number in range(12):
        outbox.append("status", item(number))
        outbox.next_report()
    assert len([line for line in disk.trace if line.startswith("sync")]) == before + 1 + 12


@pytest.mark.parametrize("fault", [Full, ReadOnly, Damaged])
def test_a_disk_that_takes_nothing_is_worked_around_in_memory(fault: type[FilesError]) -> None:
    disk, tokens = RecordingDisk(), Tokens()
    outbox = opened(disk, tokens)
    outbox.append("status", item(0))
    outbox.flush()
    disk.fail_at, disk.fail_on, disk.fail_with = disk.operations + 1, True, fault
    for number in range(1, 30):
        outbox.append("status", item(number))
        outbox.flush()
        balanced(outbox)
    assert outbox.problem is not None
    got, marks = [], {}
    while not outbox.empty:
        report = outbox.next_report()
        got += [one.message for one in report.lanes["status"].items]  # type: ignore[union-attr]
        marks = {"status": numbers(report)["status"][-1]}
        outbox.acknowledge(answer(**marks))
    assert got == [str(number) for number in range(30)]
    disk.fail_at = None
    outbox.append("status", item(30))
    outbox.flush()
    assert outbox.problem is None
    assert [one.message for one in outbox.next_report().lanes["status"].items] == ["30"]  # type: ignore[union-attr]
    balanced(outbox)


def test_what_a_failed_sync_lost_is_written_again() -> None:
    """After a failed sync the system takes for clean what never reached the disk: it reads well, and the next sync succeeds."""
    for later in (False, True):
        disk = RecordingDisk()
        outbox = opened(disk)
        outbox.append("events", item(1))
        outbox.flush()
        outbox.append("events", item(2))
        outbox.append("events", item(3))
        disk.failing_syncs = 1
        outbox.flush()
        assert outbox.problem is not None
        if later:
            outbox.append("events", item(4))
        outbox.flush()
        assert outbox.problem is None
        assert outbox.counts()["events"].held == 3 + later
        again = opened(disk.crash(Crash.DROPPED))
        assert again.next_report().lanes["events"].items == tuple(item(n) for n in range(1, 4 + later))


def test_memory_is_bounded_while_the_disk_takes_nothing() -> None:
    disk = RecordingDisk()
    outbox = opened(disk, limits=EngineLimits(outbox_memory_bytes_max=2_000))
    disk.fail_at, disk.fail_on, disk.fail_with = disk.operations + 1, True, ReadOnly
    for number in range(200):
        outbox.append("events", item(number))
        outbox.append("alerts", item(number))
    balanced(outbox)
    counts = outbox.counts()
    assert counts["events"].dropped == 200
    assert 0 < counts["alerts"].held < 200


def test_a_disk_that_was_read_only_from_the_start() -> None:
    disk = RecordingDisk()
    disk.fail_at, disk.fail_on, disk.fail_with = 1, True, ReadOnly
    outbox = opened(disk)
    outbox.append("status", item(1))
    assert [one.message for one in outbox.next_report().lanes["status"].items] == ["1"]  # type: ignore[union-attr]


def test_an_item_that_cannot_be_read_is_dropped_and_the_others_go() -> None:
    disk, tokens = RecordingDisk(), Tokens()
    outbox = opened(disk, tokens)
    outbox._lanes["events"].append(b"\x81\xa4item\xa6future")
    outbox.append("events", item(2))
    assert outbox.next_report().lanes == {}
    assert [one.message for one in outbox.next_report().lanes["events"].items] == ["2"]  # type: ignore[union-attr]
    assert outbox.counts()["events"].dropped == 1
    balanced(outbox)


def test_room_can_be_made_for_the_journal() -> None:
    disk = RecordingDisk()
    outbox = opened(disk)
    for number in range(20):
        outbox.append("events", item(number))
        outbox.append("telemetry", item(number))
    used = disk.used_bytes()
    assert outbox.make_room()
    assert disk.used_bytes() < used
    counts = outbox.counts()
    assert counts["telemetry"].dropped > 0
    assert counts["events"].dropped == 0
    empty = opened(RecordingDisk())
    assert not empty.make_room()


class ControlPlane:
    """Keeps what it takes, once; a number means one item for ever."""

    def __init__(self) -> None:
        self.marks: dict[tuple[str, str], int] = {}
        self.kept: dict[tuple[str, str, int], str] = {}

    def receive(self, report: Report) -> ReportAnswer:
        marks = {}
        for lane, items in report.lanes.items():
            mark = self.marks.get((report.incarnation, lane), 0)
            for number, one in enumerate(items.items, items.first):
                key = (report.incarnation, lane, number)
                assert self.kept.setdefault(key, one.message) == one.message, "a number means one item"  # type: ignore[union-attr]
                assert number > mark or key in self.kept
            marks[lane] = self.marks[report.incarnation, lane] = max(mark, items.first + len(items.items) - 1)
        return answer(**marks)


happenings = st.one_of(
    st.tuples(st.just("append"), st.sampled_from(LANES), st.integers(0, 300)),
    st.tuples(st.just("flush"), st.none(), st.none()),
    st.tuples(st.just("report"), st.integers(1, 6), st.sampled_from(["taken", "answer lost", "lost"])),
    st.tuples(st.just("crash"), st.sampled_from(Crash), st.booleans()),
    st.tuples(st.just("cut"), st.integers(0, 12), st.sampled_from(Crash)),
    st.tuples(st.just("fault"), st.integers(1, 6), st.sampled_from([Full, ReadOnly, Damaged])),
)


class Story:
    def __init__(self) -> None:
        self.disk, self.tokens, self.control = RecordingDisk(), Tokens(), ControlPlane()
        self.outbox = opened(self.disk, self.tokens)
        self.count = 0
        self.safe: set[str] = set()
        self.unsafe: set[str] = set()
        self.faulty = False

    def play(self, what: str, first: object, second: object) -> None:
        try:
            getattr(self, f"_{what}")(first, second)
            balanced(self.outbox)
        except PowerCut:
            self._crash(self.how)

    how = Crash.DROPPED

    def _append(self, lane: str, size: int) -> None:
        self.count += 1
        if lane != "telemetry":
            self.unsafe.add(str(self.count) + "x" * size)
        self.outbox.append(lane, item(self.count, size))  # type: ignore[arg-type]

    def _flush(self, _: None, __: None) -> None:
        self.outbox.flush()
        if self.outbox.problem is None and not self.faulty:
            self.safe |= self.unsafe
            self.unsafe.clear()

    def _report(self, items: int, fate: str) -> None:
        report = self.outbox.next_report(ReportLimits(items_max=items))
        if fate == "lost" or not report.lanes:
            return
        given = self.control.receive(report)
        if fate == "taken":
            self.outbox.acknowledge(given)

    def _crash(self, how: Crash, clean: bool = False) -> None:
        if clean and not self.disk.dead:
            self.outbox.close()
        self.disk = self.disk.crash(how)
        self.unsafe.clear()
        self.outbox = opened(self.disk, self.tokens)

    def _cut(self, after: int, how: Crash) -> None:
        self.disk.cut_after = self.disk.operations + after
        self.how = how

    def _fault(self, after: int, fault: type[FilesError]) -> None:
        self.disk.fail_at, self.disk.fail_with = self.disk.operations + after, fault
        self.faulty = True


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(happenings, min_size=4, max_size=60))
def test_whatever_is_cut_numbers_mean_one_item_counts_balance_and_what_was_flushed_arrives(story: list) -> None:
    life = Story()
    for what, first, second in story:
        life.play(what, first, second)
    life.disk.cut_after = life.disk.fail_at = None
    with contextlib.suppress(PowerCut):
        life.outbox.flush()
    if life.disk.dead:
        life._crash(life.how)
    dropped = sum(counts.dropped for counts in life.outbox.counts().values())
    for _ in range(400):
        if life.outbox.empty:
            break
        report = life.outbox.next_report(ReportLimits(items_max=9))
        life.outbox.acknowledge(life.control.receive(report))
        balanced(life.outbox)
    assert life.outbox.empty
    if not dropped and not life.faulty:
        assert life.safe <= set(life.control.kept.values()), "what was flushed arrives"
