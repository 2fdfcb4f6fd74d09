"""The file format, and the journal on it."""

import pytest
from engine_rig import APP, Rig, want
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.engine import resident, segments
from edgewise.engine.journal import open_journal
from edgewise.engine.limits import EngineLimits
from edgewise.engine.records import Broke, Record
from edgewise.engine.recovery import recover, snapshot
from edgewise.engine.segments import SegmentDamaged, SegmentNewer, frame, header, scan
from edgewise.ports.files import Damaged, Full
from edgewise.twin.disk import Crash, PowerCut, RecordingDisk

payloads = st.lists(st.binary(max_size=60), max_size=12)


def segment(contents: list[bytes], number: int = 3) -> bytes:
    data = header(7, number)
    for content in contents:
        data += frame(number, len(data), 1, content)
    return data


@settings(deadline=None)
@given(payloads)
def test_what_was_written_is_read(contents: list[bytes]) -> None:
    scanned = scan(segment(contents), 7)
    assert [one.payload for one in scanned.frames] == contents
    assert (scanned.torn, scanned.damaged, scanned.number) == (0, 0, 3)


@settings(deadline=None)
@given(payloads, st.data())
def test_a_cut_end_loses_only_what_was_cut(contents: list[bytes], data: st.DataObject) -> None:
    whole = segment(contents)
    keep = data.draw(st.integers(0, len(whole)))
    scanned = scan(whole[:keep], 7)
    assert [one.payload for one in scanned.frames] == contents[: len(scanned.frames)]
    assert scanned.good + scanned.torn == keep
    assert scanned.damaged == 0
    assert keep < len(whole) or len(scanned.frames) == len(contents)


@settings(deadline=None)
@given(payloads, st.binary(min_size=1, max_size=80))
def test_garbage_behind_the_end_is_a_torn_tail(contents: list[bytes], garbage: bytes) -> None:
    scanned = scan(segment(contents) + garbage, 7)
    assert [one.payload for one in scanned.frames] == contents
    assert (scanned.torn, scanned.damaged) == (len(garbage), 0)


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=60), min_size=2, max_size=8), st.data())
def test_a_flipped_bit_is_never_believed(contents: list[bytes], data: st.DataObject) -> None:
    whole = bytearray(segment(contents))
    at = data.draw(st.integers(segments.HEADER_BYTES, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    scanned = scan(bytes(whole), 7)
    read = [one.payload for one in scanned.frames]
    assert len(read) == len(contents) - 1
    assert all(payload in contents for payload in read)
    hit = next(number for number in range(len(contents)) if at < len(segment(contents[: number + 1])))
    assert (scanned.damaged > 0) is (hit < len(contents) - 1), "damage in the middle is told from a torn tail"


def test_a_frame_from_another_place_or_segment_is_not_believed() -> None:
    moved = header(7, 3) + frame(3, 999, 1, b"x")
    foreign = header(7, 3) + frame(4, segments.HEADER_BYTES, 1, b"x")
    assert scan(moved, 7).frames == scan(foreign, 7).frames == ()


def test_headers() -> None:
    assert scan(b"", 7).good == 0
    assert scan(header(7, 1)[:5], 7).torn == 5
    with pytest.raises(SegmentNewer):
        scan(header(8, 1), 7)
    with pytest.raises(SegmentDamaged):
        scan(b"x" * 40, 7)
    broken = bytearray(header(7, 1))
    broken[9] ^= 1
    with pytest.raises(SegmentDamaged):
        scan(bytes(broken), 7)


def record(number: int) -> Record:
    return Broke(instance=APP, revision=f"r{number}")


SMALL = EngineLimits(journal_compact_bytes=200, journal_compact_growth=2, journal_bytes_max=4_000)


def test_records_come_back_in_order() -> None:
    disk = RecordingDisk()
    journal = open_journal(disk).journal
    for number in range(5):
        journal.append((record(number), record(number + 100)))
    opened = open_journal(disk)
    assert opened.records == tuple(record(n) for number in range(5) for n in (number, number + 100))
    assert opened.damage == ""


def test_a_journal_that_is_there_is_synced_before_it_is_believed() -> None:
    """After a kill of the agent, its last append may be in memory only."""
    disk = RecordingDisk()
    open_journal(disk).journal.append((record(1),))
    disk.appender("journal/00000001").append(frame(1, len(disk.read("journal/00000001", 9999)), 1, b"\x90"))
    open_journal(disk)
    assert disk.settled()


def test_compaction_leaves_one_segment_and_all_of_the_state() -> None:
    disk = RecordingDisk()
    journal = open_journal(disk, SMALL).journal
    while not journal.wants_compaction:
        journal.append((record(1),))
    journal.compact((record(2),))
    assert not journal.wants_compaction
    journal.append((record(3),))
    assert [entry.name for entry in disk.list("journal")] == ["00000002"]
    assert open_journal(disk, SMALL).records == (record(2), record(3))


@pytest.mark.parametrize("at", range(1, 7))
@pytest.mark.parametrize("fault", [Full, Damaged])
def test_a_failed_compaction_loses_nothing_that_comes_after(at: int, fault: type) -> None:
    disk = RecordingDisk()
    journal = open_journal(disk, SMALL).journal
    journal.append((record(1),))
    disk.fail_at, disk.fail_with = disk.operations + at, fault
    failed = False
    try:
        journal.compact((record(1),))
    except (Full, Damaged):
        failed = True
    disk.fail_at = None
    journal.append((record(2),))
    for how in Crash:
        assert open_journal(disk.crash(how), SMALL).records == (record(1), record(2))
    assert failed or at > 4


@pytest.mark.parametrize("after", [0, 1])
def test_a_rename_that_worked_and_said_it_failed_does_not_win(after: int) -> None:
    class Liar(RecordingDisk):
        lie = False

        def rename(self, source: str, target: str) -> None:
            super().rename(source, target)
            if self.lie:
                raise Damaged(source, "the folder could not be synced")

    disk = Liar()
    journal = open_journal(disk).journal
    journal.append((record(1),))
    disk.lie = True
    with pytest.raises(Damaged):
        journal.compact((record(1),))
    disk.lie = False
    for number in range(after):
        journal.append((record(2 + number),))
    expected = (record(1), *(record(2 + number) for number in range(after)))
    assert open_journal(disk.crash(Crash.DROPPED)).records == expected


@pytest.mark.parametrize("operation", [1, 2])
def test_a_failed_append_is_not_there_and_the_next_one_is(operation: int) -> None:
    disk = RecordingDisk()
    journal = open_journal(disk).journal
    journal.append((record(1),))
    disk.fail_at = disk.operations + operation
    with pytest.raises(Full):
        journal.append((record(2),))
    disk.fail_at = None
    journal.append((record(3),))
    for how in Crash:
        assert open_journal(disk.crash(how)).records == (record(1), record(3))


def test_damage_in_the_middle_is_passed_over_and_said() -> None:
    disk = RecordingDisk()
    journal = open_journal(disk).journal
    for number in range(3):
        journal.append((record(number),))
    data = bytearray(disk.read("journal/00000001", 9999))
    data[data.index(b"r1")] ^= 1
    disk.replace("journal/00000001", bytes(data))
    opened = open_journal(disk)
    assert opened.records == (record(0), record(2))
    assert "damaged bytes" in opened.damage
    assert opened.journal.wants_compaction
    opened.journal.compact(opened.records)
    assert not opened.journal.wants_compaction
    assert open_journal(disk).damage == ""


def test_a_journal_with_a_damaged_header_begins_anew_and_says_so() -> None:
    disk = RecordingDisk()
    open_journal(disk).journal.append((record(1),))
    disk.replace("journal/00000001", b"x" * 100)
    opened = open_journal(disk)
    assert opened.records == ()
    assert "header" in opened.damage
    opened.journal.append((record(2),))
    assert open_journal(disk).records == (record(2),)


@pytest.mark.parametrize("place", ["header", "record", "end", "everything"])
def test_what_the_disk_lost_of_an_open_journal_is_written_anew_from_what_is_known(place: str) -> None:
    """The journal looks at what is there again after a write that failed; by then it may have rotted."""
    disk, rig = RecordingDisk(), Rig()
    rig.desire(want("r1", probation_seconds=0))
    rig.run(1)
    journal = open_journal(disk).journal
    for each in rig.records:
        journal.append((each,))
    disk.fail_at, disk.fail_with = disk.operations + 1, Full
    with pytest.raises(Full):
        journal.append((record(1),))
    data = disk.read("journal/00000001", 99_999)
    at = {"header": 3, "record": 40, "end": journal.size - 1, "everything": 0}[place]
    disk.replace("journal/00000001", b"" if place == "everything" else data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with pytest.raises(Damaged):
        journal.append((record(1),))
    resident.persist(journal, (record(1),), lambda: False, rig.state)
    opened = open_journal(disk)
    assert opened.damage == ""
    assert recover(opened.records, "dev").durable == recover((*snapshot(rig.state), record(1)), "dev").durable
    resident.persist(opened.journal, (record(2),), lambda: False, rig.state)
    assert record(2) in open_journal(disk).records


def test_a_journal_of_a_newer_program_is_not_touched() -> None:
    disk = RecordingDisk()
    open_journal(disk)
    newer = bytearray(header(1, 1))
    newer[4] = 9
    newer = newer[:-4] + __import__("zlib").crc32(bytes(newer[:-4])).to_bytes(4, "little")
    disk.replace("journal/00000001", bytes(newer))
    with pytest.raises(SegmentNewer):
        open_journal(disk)
    assert disk.read("journal/00000001", 999) == bytes(newer)


def test_the_limit_of_the_journal() -> None:
    journal = open_journal(RecordingDisk(), SMALL).journal
    one = journal.size
    journal.append((record(1),))
    one = journal.size - one
    while journal.size + one <= SMALL.journal_bytes_max:
        journal.append((record(1),))
    with pytest.raises(Damaged, match="grow beyond"):
        journal.append((record(1),))
    assert SMALL.journal_bytes_max - one < journal.size <= SMALL.journal_bytes_max


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["append", "compact", "reopen"]), max_size=15), st.integers(0, 60), st.sampled_from(Crash))
def test_whatever_is_cut_the_journal_is_a_prefix_that_holds_all_that_was_confirmed(story: list[str], cut: int, how: Crash) -> None:
    disk = RecordingDisk()
    disk.cut_after = cut
    confirmed: list[Record] = []
    tried: list[Record] = []
    try:
        journal = open_journal(disk, SMALL).journal
        for number, what in enumerate(story):
            if what == "append":
                tried.append(record(number))
                journal.append((record(number),))
                confirmed.append(record(number))
            elif what == "compact":
                journal.compact(tuple(confirmed))
            else:
                journal = open_journal(disk, SMALL).journal
    except PowerCut:
        pass
    opened = open_journal(disk.crash(how), SMALL)
    assert opened.damage == ""
    assert list(opened.records) in (confirmed, tried)
