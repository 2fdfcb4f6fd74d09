"""What the device has to say, on a disk that rots: what can still be read is sent, the rest counts as dropped."""

import pytest
from outbox_rig import Tokens, answer, balanced, item, numbers, opened

from edgewise.engine.limits import EngineLimits
from edgewise.engine.outbox import Outbox
from edgewise.twin._nodes import nodes
from edgewise.twin.disk import Crash, RecordingDisk


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
