"""What every disk of a device must do. A new implementation adds one entry to `MAKERS`."""

import pytest

from edgewise.ports.disk import DiskFiles
from edgewise.ports.files import Damaged, Entry, FilesError, Full, Missing, PathRefused
from edgewise.twin.disk import RecordingDisk
from edgewise.twin.plain import PlainDisk

MAKERS = {
    "disk": lambda folder, limit: DiskFiles(str(folder), limit),
    "recording": lambda _, limit: RecordingDisk(capacity=limit) if limit else RecordingDisk(),
    "plain": lambda _, limit: PlainDisk(limit) if limit else PlainDisk(),
}


@pytest.fixture(params=sorted(MAKERS))
def maker(request, tmp_path):
    made = []

    def make(limit=None):
        made.append(MAKERS[request.param](tmp_path, limit))
        return made[-1]

    yield make
    for files in made:
        if isinstance(files, DiskFiles):
            files.close()


@pytest.fixture
def files(maker):
    return maker()


def append(files, path, data):
    appender = files.appender(path)
    appender.append(data)
    appender.sync()
    appender.close()


def test_replace_and_read(files):
    files.make_folder("a/b")
    files.make_folder("a/b")
    files.make_folder("a")
    files.replace("a/b/x", b"one")
    files.replace("a/b/x", b"three")
    files.replace("top", b"", 0o755)
    assert files.read("a/b/x", 5) == b"three"
    assert files.read_at("a/b/x", 2, 99) == b"ree"
    assert files.read_at("a/b/x", 1, 2) == b"hr"
    assert files.read_at("a/b/x", 9, 2) == b""
    assert files.read("top", 0) == b""
    with pytest.raises(Damaged):
        files.read("a/b/x", 4)


def test_list(files):
    assert files.list("") == ()
    assert files.list("nothing/here") == ()
    files.make_folder("b/inner")
    files.make_folder("bb")
    files.replace("b/z", b"12")
    append(files, "b/a", b"123")
    files.replace("c", b"")
    assert files.list("b") == (
        Entry(name="a", kind="file", size=3),
        Entry(name="inner", kind="folder"),
        Entry(name="z", kind="file", size=2),
    )
    assert [entry.name for entry in files.list("")] == ["b", "bb", "c"]
    assert files.list("b/inner") == files.list("bb") == ()


def test_what_is_missing(files):
    files.make_folder("a")
    for act in (
        lambda: files.read("x", 1),
        lambda: files.read("no/x", 1),
        lambda: files.read_at("a/x", 0, 1),
        lambda: files.replace("no/x", b""),
        lambda: files.appender("no/x"),
        lambda: files.rename("x", "y"),
        lambda: files.rename("no/x", "y"),
        lambda: files.sync_folder("no"),
    ):
        with pytest.raises(Missing):
            act()
    files.replace("x", b"1")
    with pytest.raises(Missing):
        files.rename("x", "no/x")
    files.remove("y")
    files.remove("no/such/thing")
    assert files.read("x", 1) == b"1"


def test_a_folder_is_no_file_and_a_file_no_folder(files):
    files.make_folder("folder/inner")
    files.replace("file", b"1")
    for act in (
        lambda: files.read("folder", 1),
        lambda: files.read_at("folder", 0, 1),
        lambda: files.replace("folder", b""),
        lambda: files.appender("folder"),
        lambda: files.make_folder("file"),
        lambda: files.make_folder("file/inner"),
        lambda: files.list("file"),
        lambda: files.list("file/inner"),
        lambda: files.sync_folder("file"),
        lambda: files.read("file/x", 1),
        lambda: files.replace("file/x", b""),
        lambda: files.appender("file/x"),
        lambda: files.remove("file/x"),
        lambda: files.rename("file/x", "y"),
        lambda: files.rename("folder", "file"),
        lambda: files.rename("file", "folder"),
    ):
        with pytest.raises(PathRefused):
            act()
    for target in ("folder/inner/deeper", "folder/inner"):
        with pytest.raises(FilesError):
            files.rename("folder", target)
    assert files.read("file", 1) == b"1"
    assert [entry.name for entry in files.list("folder")] == ["inner"]


def test_appender(files):
    appender = files.appender("log")
    assert appender.size == 0
    appender.append(b"hello ")
    appender.append(b"world")
    assert files.read("log", 99) == b"hello world"
    appender.sync()
    assert appender.size == 11
    appender.truncate(5)
    appender.append(b"!")
    appender.sync()
    appender.close()
    appender.close()
    again = files.appender("log")
    assert again.size == 6
    again.append(b"?")
    again.sync()
    again.close()
    assert files.read("log", 99) == b"hello!?"


def test_a_file_that_is_renamed_while_it_is_open_goes_on_under_its_new_name(files):
    files.make_folder("log")
    appender = files.appender("log/new")
    appender.append(b"1")
    appender.sync()
    files.rename("log/new", "log/1")
    appender.append(b"2")
    appender.sync()
    other = files.appender("log/new")
    other.append(b"other")
    other.close()
    appender.append(b"3")
    assert appender.size == 3
    appender.close()
    assert files.read("log/1", 9) == b"123"
    assert files.read("log/new", 9) == b"other"


def test_rename(files):
    files.make_folder("staging/t/inner")
    files.make_folder("trees")
    append(files, "staging/t/inner/x", b"1")
    files.replace("staging/t/y", b"2")
    files.rename("staging/t", "trees/t")
    assert files.list("staging") == ()
    assert files.read("trees/t/inner/x", 9) == b"1"
    assert files.read("trees/t/y", 9) == b"2"
    files.rename("trees/t/y", "trees/t/inner/x")
    assert files.read("trees/t/inner/x", 9) == b"2"
    assert [entry.name for entry in files.list("trees/t")] == ["inner"]
    files.make_folder("empty")
    files.rename("trees/t", "empty")
    assert files.read("empty/inner/x", 9) == b"2"
    files.make_folder("other/full")
    with pytest.raises(FilesError):
        files.rename("empty", "other")
    files.sync_folder("")
    files.sync_folder("empty/inner")


def test_remove(files):
    files.make_folder("a/b/c")
    files.make_folder("ab")
    files.replace("a/x", b"1")
    files.replace("a/b/y", b"1")
    files.replace("ab/z", b"1")
    files.remove("a/x")
    assert [entry.name for entry in files.list("a")] == ["b"]
    files.remove("a")
    files.remove("a")
    assert [entry.name for entry in files.list("")] == ["ab"]
    assert files.read("ab/z", 9) == b"1"
    files.make_folder("a/b")
    assert files.list("a/b") == ()


def test_what_is_removed_while_it_is_open_does_not_come_back(files):
    appender = files.appender("x")
    appender.append(b"1")
    files.remove("x")
    appender.append(b"2")
    appender.close()
    assert files.list("") == ()
    assert files.appender("x").size == 0


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a/..", ".", "", "a\0b", "a/" * 3000])
def test_paths_that_would_leave_are_refused(files, path):
    for act in (
        lambda: files.read(path, 1),
        lambda: files.read_at(path, 0, 1),
        lambda: files.replace(path, b""),
        lambda: files.appender(path),
        lambda: files.remove(path),
        lambda: files.rename(path, "x"),
        lambda: files.rename("x", path),
    ):
        with pytest.raises(PathRefused):
            act()


def test_paths_have_one_form(files):
    files.make_folder("a//b/")
    files.replace("a//x", b"1")
    assert files.read("a/x", 1) == b"1"
    assert [entry.name for entry in files.list("a/")] == ["b", "x"]


def test_a_disk_that_is_full(maker):
    files = maker(100)
    files.replace("a", b"x" * 60)
    assert files.free_bytes() == 40
    assert files.used_bytes() == 60
    with pytest.raises(Full) as caught:
        files.replace("b", b"x" * 41)
    assert caught.value.path == "b"
    assert [entry.name for entry in files.list("")] == ["a"]
    appender = files.appender("b")
    appender.append(b"x" * 40)
    appender.sync()
    with pytest.raises(Full):
        appender.append(b"x")
    assert files.free_bytes() == 0
    appender.truncate(10)
    appender.append(b"y")
    appender.sync()
    appender.close()
    assert files.read("b", 99) == b"x" * 10 + b"y"
    files.remove("a")
    assert files.free_bytes() == 89
    files.replace("b", b"")
    assert files.free_bytes() == 100
