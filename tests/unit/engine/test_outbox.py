"""What the device has to say: lanes, numbers, marks, budgets, and what a cut or a failing disk does to them."""

import pytest
from outbox_rig import SMALL, Tokens, answer, balanced, item, numbers, opened

from edgewise.engine.limits import EngineLimits
from edgewise.engine.outbox import LANES, ReportLimits
from edgewise.ports.files import Damaged, FilesError, Full, ReadOnly
from edgewise.twin.disk import Crash, RecordingDisk


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
