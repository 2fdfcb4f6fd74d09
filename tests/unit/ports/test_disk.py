"""The real disk: safe paths, durable writes, errors in the port's words."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewise.ports import disk as disk_module
from edgewise.ports.disk import DiskFiles
from edgewise.ports.files import Damaged, Entry, FilesError, Full, Missing, PathRefused, ReadOnly


@pytest.fixture
def files(tmp_path: Path) -> Iterator[DiskFiles]:
    folder = tmp_path / "data"
    folder.mkdir()
    found = DiskFiles(str(folder))
    yield found
    found.close()


def test_replace_read_and_modes(files: DiskFiles, tmp_path: Path) -> None:
    files.make_folder("a/b")
    files.replace("a/b/x", b"one")
    files.replace("a/b/x", b"two")
    files.replace("a/b/run", b"", 0o755)
    assert files.read("a/b/x", 3) == b"two"
    assert stat.S_IMODE((tmp_path / "data/a/b/x").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "data/a/b/run").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "data/a").stat().st_mode) == 0o700
    assert files.list("a/b") == (Entry(name="run", kind="file", size=0), Entry(name="x", kind="file", size=3))
    assert files.list("nothing") == ()
    with pytest.raises(Damaged, match="more than 2"):
        files.read("a/b/x", 2)
    with pytest.raises(Missing):
        files.read("a/b/y", 2)
    with pytest.raises(Missing):
        files.replace("nothing/x", b"")


def test_appender(files: DiskFiles) -> None:
    appender = files.appender("log")
    appender.append(b"hello ")
    appender.append(b"world")
    appender.sync()
    assert appender.size == 11
    appender.truncate(5)
    appender.append(b"!")
    appender.sync()
    appender.close()
    assert files.read("log", 99) == b"hello!"
    again = files.appender("log")
    assert again.size == 6
    again.close()
    again.close()
    assert files.read_at("log", 4, 99) == b"o!"
    assert files.read_at("log", 99, 9) == b""


def test_rename_and_remove(files: DiskFiles, tmp_path: Path) -> None:
    files.make_folder("staging/t/inner")
    files.replace("staging/t/inner/x", b"1")
    files.make_folder("trees")
    files.rename("staging/t", "trees/t")
    assert files.read("trees/t/inner/x", 9) == b"1"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (tmp_path / "data/trees/t/link").symlink_to(outside)
    os.mkfifo(tmp_path / "data/trees/t/pipe")
    assert {entry.name: entry.kind for entry in files.list("trees/t")} == {"inner": "folder", "link": "link", "pipe": "other"}
    files.sync_folder("trees")
    files.remove("trees/t")
    files.remove("trees/t")
    files.remove("no/such/thing")
    assert files.list("trees") == ()
    assert (outside / "kept").read_text() == "kept"
    with pytest.raises(Missing):
        files.rename("trees/t", "trees/u")
    with pytest.raises(Missing):
        files.sync_folder("nothing")


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a/..", ".", "", "a\0b", "a/" * 3000])
def test_paths_that_would_leave_are_refused(files: DiskFiles, path: str) -> None:
    for act in (
        lambda: files.read(path, 1),
        lambda: files.replace(path, b""),
        lambda: files.appender(path),
        lambda: files.remove(path),
        lambda: files.rename(path, "x"),
        lambda: files.rename("x", path),
    ):
        with pytest.raises(PathRefused):
            act()


def test_links_are_never_followed(files: DiskFiles, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    data = tmp_path / "data"
    (data / "folder").symlink_to(outside)
    (data / "file").symlink_to(outside / "secret")
    for act in (
        lambda: files.read("folder/secret", 99),
        lambda: files.read("file", 99),
        lambda: files.read_at("file", 0, 9),
        lambda: files.appender("file"),
        lambda: files.appender("folder/new"),
        lambda: files.replace("folder/new", b""),
        lambda: files.make_folder("folder/new"),
        lambda: files.list("folder"),
        lambda: files.sync_folder("folder"),
        lambda: files.remove("folder/secret"),
    ):
        with pytest.raises(PathRefused):
            act()
    files.replace("file", b"mine")
    assert (outside / "secret").read_text() == "secret"
    assert files.read("file", 9) == b"mine"
    files.remove("folder")
    assert (outside / "secret").exists()


def test_what_is_not_a_file_is_refused_and_does_not_block(files: DiskFiles, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "data/pipe")
    files.make_folder("folder")
    for path in ("pipe", "folder"):
        with pytest.raises(PathRefused):
            files.read(path, 1)
        with pytest.raises(FilesError):
            files.appender(path)


def test_a_left_over_of_a_cut_replace_is_no_obstacle(files: DiskFiles, tmp_path: Path) -> None:
    (tmp_path / "data/.x.new").symlink_to("/etc/passwd")
    files.replace("x", b"1")
    assert [entry.name for entry in files.list("")] == ["x"]


def test_quota(tmp_path: Path) -> None:
    files = DiskFiles(str(tmp_path), quota_bytes=100)
    files.replace("a", b"x" * 60)
    assert files.free_bytes() == 40
    with pytest.raises(Full):
        files.replace("b", b"x" * 41)
    appender = files.appender("b")
    appender.append(b"x" * 40)
    with pytest.raises(Full):
        appender.append(b"x")
    appender.close()
    assert files.free_bytes() == 0
    files.remove("a")
    assert files.free_bytes() == 60
    files.close()


def test_free_bytes_without_a_quota(files: DiskFiles) -> None:
    assert files.free_bytes() > 0


CODES = [
    (errno.ENOSPC, Full),
    (errno.EDQUOT, Full),
    (errno.EROFS, ReadOnly),
    (errno.EACCES, ReadOnly),
    (errno.EIO, Damaged),
    (errno.EINVAL, Damaged),
]


@pytest.mark.parametrize(("code", "error"), CODES)
@pytest.mark.parametrize("call", ["write", "fsync", "rename", "open"])
def test_errors_of_the_system_in_the_ports_words(
    files: DiskFiles, monkeypatch: pytest.MonkeyPatch, code: int, error: type[FilesError], call: str
) -> None:
    files.replace("x", b"old")
    real = os.open

    def fail(*args: object, **kwargs: object) -> int:
        if call == "open" and not args[1] & os.O_CREAT:  # type: ignore[operator]
            return real(*args, **kwargs)  # type: ignore[arg-type]
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(disk_module.os, call, fail)
    with pytest.raises(error) as caught:
        files.replace("x", b"new")
    monkeypatch.undo()
    assert caught.value.path == "x"
    assert files.read("x", 9) == (b"old" if call != "fsync" else files.read("x", 9))
    assert [entry.name for entry in files.list("")] == ["x"]


def test_a_failed_sync_is_never_repeated(files: DiskFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    appender = files.appender("x")
    appender.append(b"1")

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "bad")

    monkeypatch.setattr(disk_module.os, "fdatasync", fail)
    with pytest.raises(Damaged):
        appender.sync()
    monkeypatch.undo()
    with pytest.raises(Damaged, match="earlier"):
        appender.sync()
    appender.close()


def test_a_part_of_a_failed_append_is_counted(files: DiskFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    appender = files.appender("x")
    real = os.write
    calls = []

    def half(file: int, data: bytes) -> int:
        calls.append(1)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "full")
        return real(file, data[: len(data) // 2])

    monkeypatch.setattr(disk_module.os, "write", half)
    with pytest.raises(Full):
        appender.append(b"12345678")
    monkeypatch.undo()
    assert appender.size == 4
    appender.truncate(0)
    appender.append(b"ok")
    appender.sync()
    appender.close()
    assert files.read("x", 9) == b"ok"


def test_no_descriptor_is_left_open(files: DiskFiles) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        files.make_folder("a/b/c")
        files.replace("a/b/c/x", b"1")
        files.read("a/b/c/x", 9)
        files.list("a/b")
        files.used_bytes()
        for bad in ("a/b/c/missing", "a/b/c", "nothing/x"):
            with pytest.raises(FilesError):
                files.read(bad, 1)
        appender = files.appender("a/b/c/y")
        appender.close()
        files.remove("a")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Missing):
        DiskFiles(str(tmp_path / "nothing"))
