"""The disks of the twin: what a power cut leaves, faults that come and go, decay, and how small a plain disk is."""

import contextlib
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.engine.journal import open_journal
from edgewise.engine.outbox import open_outbox
from edgewise.ports.files import Damaged, FilesError, Full, ReadOnly
from edgewise.twin.disk import Crash, PowerCut, RecordingDisk
from edgewise.twin.kernel import Stream
from edgewise.twin.plain import PlainDisk


def written() -> RecordingDisk:
    """A file with two synced and two unsynced writes, and one whose name is unsynced."""
    disk = RecordingDisk()
    appender = disk.appender("log")
    appender.append(b"sync")
    appender.sync()
    appender.append(b"one.")
    appender.append(b"two.")
    disk.appender("new").append(b"text")
    return disk


@pytest.mark.parametrize(
    ("how", "found"),
    [
        (Crash.ALL, {"log": b"syncone.two.", "new": b"text"}),
        (Crash.DROPPED, {"log": b"sync"}),
        (Crash.TORN, {"log": b"syncone.", "new": b"te"}),
        (Crash.NAMES_DROPPED, {"log": b"syncone.two."}),
        (Crash.CONTENTS_DROPPED, {"log": b"sync", "new": b""}),
        (Crash.REORDERED, {"log": b"sync\0\0\0\0two.", "new": b"\0\0xt"}),
    ],
)
def test_what_a_power_cut_leaves(how, found):
    after = written().crash(how)
    assert {entry.name: after.read(entry.name, 99) for entry in after.list("")} == found
    assert after.settled()


def test_garbage_has_the_length_of_what_was_written():
    after = written().crash(Crash.GARBAGE)
    log = after.read("log", 99)
    assert log[:4] == b"sync"
    assert len(log) == 12
    assert log != b"syncone.two."


def test_a_mixture_is_drawn_and_the_same_draw_is_the_same():
    looks = {
        tuple(
            (entry.name, written().crash(Crash.MIXED, Stream(seed)).read(entry.name, 99))
            for entry in written().crash(Crash.MIXED, Stream(seed)).list("")
        )
        for seed in range(60)
    }
    assert len(looks) > 10
    assert all(dict(look)["log"].startswith(b"sync") for look in looks)


def test_ways_by_their_words():
    assert Crash.named("torn", Stream(1)) is Crash.TORN
    assert {Crash.named("any", Stream(seed)) for seed in range(100)} == set(Crash)
    with pytest.raises(ValueError, match="nonsense"):
        Crash.named("nonsense", Stream(1))


def test_a_cut_replace_may_leave_its_new_file_behind():
    disk = RecordingDisk()
    disk.replace("x", b"old")
    disk.cut_after = disk.operations
    with pytest.raises(PowerCut):
        disk.replace("x", b"new")
    with pytest.raises(PowerCut):
        disk.read("x", 9)
    assert [entry.name for entry in disk.crash(Crash.ALL).list("")] == [".x.new", "x"]
    after = disk.crash(Crash.DROPPED)
    assert [entry.name for entry in after.list("")] == ["x"]
    after.replace("x", b"new")
    assert [entry.name for entry in after.list("")] == ["x"]


def test_faults_come_and_go():
    disk = RecordingDisk()
    appender = disk.appender("x")
    disk.full = True
    with pytest.raises(Full):
        disk.replace("y", b"1")
    with pytest.raises(Full):
        appender.append(b"1")
    disk.full, disk.read_only = False, True
    with pytest.raises(ReadOnly):
        disk.make_folder("z")
    disk.read_only, disk.broken = False, True
    with pytest.raises(Damaged):
        disk.read("x", 9)
    disk.broken, disk.failing_syncs = False, 1
    appender.append(b"lost")
    with pytest.raises(Damaged):
        appender.sync()
    again = disk.appender("x")
    assert disk.read("x", 9) == b"lost"
    again.append(b"kept")
    again.sync()
    assert disk.read("x", 9) == b"lostkept"
    disk.sync_folder("")
    assert disk.crash(Crash.ALL).read("x", 9) == b"\0\0\0\0kept"


def test_rot_changes_one_bit_or_the_length_of_one_file():
    cut = 0
    for seed in range(40):
        disk = RecordingDisk()
        disk.make_folder("below")
        disk.replace("below/x", b"abcdefgh")
        disk.replace("y", b"other")
        rot = disk.rot(Stream(seed), "below")
        assert rot is not None
        assert rot.path == "below/x"
        found = disk.read("below/x", 9)
        assert disk.used_bytes() == len(found) + 5
        assert disk.read("y", 9) == b"other"
        if rot.cut:
            cut += 1
            assert found == b"abcdefgh"[: rot.bit // 8]
        else:
            assert sum((a ^ b).bit_count() for a, b in zip(found, b"abcdefgh", strict=True)) == 1
    assert 0 < cut < 40
    assert RecordingDisk().rot(Stream(1)) is None


def test_a_plain_disk_with_journal_and_outbox_takes_less_than_2_kilobytes():
    def disk() -> PlainDisk:
        found = PlainDisk()
        open_journal(found)
        open_outbox(found, Stream(1), "session")
        return found

    keep = [disk()]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        keep += [disk() for _ in range(200)]
        assert (tracemalloc.get_traced_memory()[0] - before) / 200 < 2_000
    finally:
        tracemalloc.stop()


def test_faults_of_a_plain_disk():
    disk = PlainDisk()
    appender = disk.appender("x")
    disk.fault = Full
    for act in (lambda: disk.replace("y", b"1"), lambda: appender.append(b"1"), lambda: disk.make_folder("z")):
        with pytest.raises(Full):
            act()
    disk.fault = Damaged
    with pytest.raises(Damaged):
        disk.read("x", 1)
    disk.fault = None
    appender.append(b"1")
    assert disk.crash(Crash.DROPPED).read("x", 1) == b"1"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["replace", "append", "truncate", "rename", "remove", "folder"]), st.sampled_from("abc"), st.integers(0, 9)
        )
    )
)
def test_a_plain_disk_counts_what_its_files_hold(steps):
    disk = PlainDisk()
    for what, name, size in steps:
        with contextlib.suppress(FilesError):
            match what:
                case "replace":
                    disk.replace(f"f/{name}", bytes(size))
                case "append":
                    disk.appender(f"f/{name}").append(bytes(size))
                case "truncate":
                    disk.appender(f"f/{name}").truncate(size)
                case "rename":
                    disk.rename(f"f/{name}", "f/b")
                case "remove":
                    disk.remove("f" if size == 9 else f"f/{name}")
                case _:
                    disk.make_folder("f")
        assert disk.used_bytes() == sum(entry.size for entry in disk.list("f"))
