"""A full disk on which the only segment of a lane has to go: whatever cuts that short, what was dropped is counted."""

import itertools

import pytest
from outbox_rig import Tokens, balanced, item, opened

from edgewise.engine import emptied
from edgewise.engine.lane_state import LaneState
from edgewise.ports.files import Damaged, Full
from edgewise.twin.disk import Crash, PowerCut, RecordingDisk
from edgewise.twin.kernel import Stream

ITEMS = 4
"""As many as one segment holds."""


def filled(tokens: Tokens, dropped: int = 0) -> RecordingDisk:
    """Return a full disk with one segment of items, behind as many that were dropped."""
    disk = RecordingDisk()
    outbox = opened(disk, tokens)
    for number in range(dropped):
        outbox.append("events", item(number))
    while outbox.counts()["events"].held:
        outbox.make_room()
    for number in range(ITEMS):
        outbox.append("events", item(number))
    outbox.flush()
    assert outbox.counts()["events"].dropped == dropped
    disk = disk.crash(Crash.ALL)
    disk.capacity = disk.used + 8
    return disk


def made_room(disk: RecordingDisk, tokens: Tokens) -> None:
    """Let a device start, find the journal's disk full, and make room until the events had to go."""
    outbox = opened(disk, tokens)
    while outbox.counts()["events"].held:
        assert outbox.make_room()
    outbox.append("events", item(99))
    outbox.flush()


def cut(disk: RecordingDisk, tokens: Tokens, operation: int) -> bool:
    """Cut the power before an operation of that. Returns whether there was one."""
    disk.cut_after = disk.operations + operation
    try:
        made_room(disk, tokens)
    except PowerCut:
        return True
    return False


def counted(disk: RecordingDisk, tokens: Tokens, before: int, incarnation: str) -> None:
    """See that a device that starts on what is left knows of every item."""
    outbox = opened(disk, tokens)
    counts = outbox.counts()["events"]
    assert counts.held + counts.dropped >= before + ITEMS
    assert outbox.incarnation == incarnation
    balanced(outbox)


@pytest.mark.parametrize("how", Crash)
def test_what_is_dropped_from_the_only_segment_is_counted_whenever_the_power_goes(how: Crash) -> None:
    tokens = Tokens()
    base = filled(tokens, dropped=3)
    incarnation = opened(base.copy(), tokens).incarnation
    for first in itertools.count():
        disk = base.copy()
        if not cut(disk, tokens, first):
            break
        left = disk.crash(how, Stream(first))
        left.capacity = base.capacity
        counted(left.copy(), tokens, 3, incarnation)
        for second in itertools.count():
            again = left.copy()
            if not cut(again, tokens, second):
                break
            counted(again.crash(how, Stream(second)), tokens, 3, incarnation)
    assert first > 5


@pytest.mark.parametrize("fault", [Full, Damaged])
@pytest.mark.parametrize("late", [False, True])
def test_what_is_dropped_is_counted_when_an_operation_fails_and_the_power_goes(fault: type[Full | Damaged], late: bool) -> None:
    tokens = Tokens()
    base = filled(tokens, dropped=3)
    for at, how in itertools.product(range(1, 16), Crash):
        disk = base.copy()
        outbox = opened(disk, tokens)
        disk.fail_at, disk.fail_with, disk.fail_late = disk.operations + at, fault, late
        for _ in range(8):
            outbox.make_room()
            balanced(outbox)
        left = disk.crash(how, Stream(at))
        left.capacity = base.capacity
        after = opened(left, tokens)
        counts = after.counts()["events"]
        assert counts.held + counts.dropped >= 3 + ITEMS
        balanced(after)


def test_numbers_and_incarnation_go_on_behind_a_segment_that_was_emptied() -> None:
    tokens = Tokens()
    disk = filled(tokens)
    outbox = opened(disk, tokens)
    while outbox.counts()["events"].held:
        assert outbox.make_room()
    outbox.append("events", item(99))
    outbox.flush()
    assert outbox.problem is None
    again = opened(disk.crash(Crash.DROPPED), tokens)
    assert again.incarnation == outbox.incarnation
    report = again.next_report().lanes["events"]
    assert (report.items, report.dropped) == ((item(99),), ITEMS)
    assert report.first > ITEMS
    assert not [entry.name for entry in disk.list("outbox/events") if entry.name.startswith("emptied")]


def test_a_segment_from_which_nothing_can_be_gained_is_left_as_it_is() -> None:
    disk = RecordingDisk()
    outbox = opened(disk)
    disk.capacity = disk.used
    before = disk.operations
    assert not outbox.make_room()
    assert disk.operations == before


def test_a_name_says_the_number_and_the_counts() -> None:
    state = LaneState(mark=2**63, acknowledged=2**63, dropped=2**63, skipped=2**63, last=2**63, ceiling=2**63)
    name = emptied.name_of(99_999_999, state)
    assert len(name) < 255
    assert emptied.read(name) == emptied.Emptied(name, 99_999_999, state)


@pytest.mark.parametrize(
    "name", ["00000001", "new", "emptied", "emptied-x", "emptied-00000001-", "emptied-00000001-zz", "emptied-00000001-00"]
)
def test_other_names_say_nothing(name: str) -> None:
    assert emptied.read(name) is None


def test_a_name_that_was_changed_says_nothing() -> None:
    name = emptied.name_of(7, LaneState(last=3))
    assert emptied.read(name.replace("00000007", "00000008")) is None
    assert emptied.read(name[:-1] + ("0" if name[-1] != "0" else "1")) is None


def test_a_name_that_came_back_to_life_behind_a_later_segment_is_not_believed() -> None:
    """The segment that came after it says all that the name did."""
    disk, tokens = RecordingDisk(), Tokens()
    outbox = opened(disk, tokens)
    outbox.append("events", item(1))
    outbox.flush()
    name = emptied.name_of(0, LaneState(mark=50, last=50, dropped=50))
    disk.appender(f"outbox/events/{name}").sync()
    again = opened(disk.copy(), tokens)
    assert again.counts()["events"].dropped == 0
    assert again.next_report().lanes["events"].items == (item(1),)
    opened(disk, tokens)
    assert name not in {entry.name for entry in disk.list("outbox/events")}
