"""The data folder: a first start that may be killed at any moment, permissions, one process."""

import os
import shutil
import time
from itertools import cycle
from pathlib import Path

import pytest

from edgewise.control import data
from edgewise.control.data import DataError, open_data, write_durable
from edgewise.control.repository import open_repository
from edgewise.trust.authority import create_authority
from edgewise.trust.repository import add_release, create_repository


class Killed(BaseException):
    """As kill -9: nothing after it runs."""


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for part in ("offline", "online", "repository", "edgewise.json")
        for file in ([folder / part] if (folder / part).is_file() else (folder / part).rglob("*"))
        if file.is_file()
    }


def test_the_second_start_finds_what_the_first_made(tmp_path):
    first = open_data(tmp_path / "data", "line", time.time())
    first.close()
    before = contents(tmp_path / "data")
    second = open_data(tmp_path / "data", "other", time.time())
    second.close()
    assert (first.first_start, second.first_start) == (True, False)
    assert (first.name, second.name) == ("line", "line")
    assert contents(tmp_path / "data") == before
    assert {"authority-root.key", "root-1.pem", "targets.pem", "releases-1.pem", "README.txt"} == {
        file.name for file in (tmp_path / "data/offline").iterdir()
    }
    assert not [file for file in (tmp_path / "data/online").iterdir() if "root" in file.name and file.suffix != ".crt"]


def kill_at(monkeypatch, number: int, counted: list[int]) -> None:
    """Die at the `number`th operation on the disk."""

    def dying(real):
        def operation(*args, **options):
            counted.append(1)
            if len(counted) == number:
                raise Killed
            return real(*args, **options)

        return operation

    for owner, name in ((os, "fsync"), (os, "write"), (Path, "mkdir"), (Path, "rename"), (Path, "replace"), (shutil, "rmtree")):
        monkeypatch.setattr(owner, name, dying(getattr(owner, name)))


def test_a_first_start_that_is_killed_anywhere_is_finished_or_begun_anew(tmp_path, monkeypatch):
    """At every operation on the disk, in turn: the next start works, and keys and repository belong together."""
    # Making keys is slow: three sets in turn, so that keys of two sets side by side would still be seen.
    authorities = cycle([create_authority("x", time.time()) for _ in range(3)])
    repositories = cycle([create_repository(time.time()) for _ in range(3)])
    monkeypatch.setattr(data, "create_authority", lambda _name, _now: next(authorities))
    monkeypatch.setattr(data, "create_repository", lambda _now: next(repositories))
    monkeypatch.setattr(os, "fsync", lambda _handle: None)
    number, cuts = 0, 0
    while True:
        number += 1
        folder = tmp_path / f"data-{number}"
        counted: list[int] = []
        with pytest.MonkeyPatch.context() as dying:
            kill_at(dying, number, counted)
            try:
                open_data(folder, "line", time.time()).close()
            except Killed:
                cuts += 1
            else:
                break
        opened = open_data(folder, "line", time.time())
        opened.close()
        opened.keys.issuer()
        repository = open_repository(opened.repository, opened.keys)
        key = (folder / "offline" / "releases-1.pem").read_text()
        digest = f"sha256:{'1' * 64}"
        assert add_release(repository.role("releases"), "releases/n/a/1.json", digest, 5, key, time.time())
        assert not (folder / ".first-start").exists()
        assert (folder / "offline" / "authority-root.key").exists()
        shutil.rmtree(folder)
    assert cuts > 60


def test_no_key_is_readable_by_others(tmp_path):
    (tmp_path / "data").mkdir(mode=0o755)
    open_data(tmp_path / "data", "x", time.time()).close()
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    for file in (tmp_path / "data").rglob("*"):
        if file.parent.name in {"online", "offline"} or file.is_dir():
            assert file.stat().st_mode & 0o077 == 0, file


def test_a_folder_in_use_is_refused(tmp_path):
    first = open_data(tmp_path, "x", time.time())
    with pytest.raises(DataError, match="another control plane"):
        open_data(tmp_path, "x", time.time())
    first.close()
    open_data(tmp_path, "x", time.time()).close()


@pytest.mark.parametrize("missing", ["online/issuing.key", "online/at-rest.key", "online/online.pem"])
def test_a_missing_key_is_said_by_name(tmp_path, missing):
    open_data(tmp_path, "x", time.time()).close()
    (tmp_path / missing).unlink()
    with pytest.raises(DataError, match=missing):
        open_data(tmp_path, "x", time.time())


def test_the_offline_keys_may_be_taken_away(tmp_path):
    open_data(tmp_path, "x", time.time()).close()
    shutil.rmtree(tmp_path / "offline")
    open_data(tmp_path, "x", time.time()).close()


def test_data_without_its_marker_is_not_started_anew(tmp_path):
    open_data(tmp_path, "x", time.time()).close()
    (tmp_path / "edgewise.json").unlink()
    with pytest.raises(DataError, match="restore"):
        open_data(tmp_path, "x", time.time())


def test_a_newer_format_is_refused(tmp_path):
    open_data(tmp_path, "x", time.time()).close()
    write_durable(tmp_path / "edgewise.json", b'{"format": 2, "name": "x", "created_at": 0}')
    with pytest.raises(DataError, match="newer"):
        open_data(tmp_path, "x", time.time())
    write_durable(tmp_path / "edgewise.json", b"{")
    with pytest.raises(DataError, match="damaged"):
        open_data(tmp_path, "x", time.time())


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError):
        open_data(tmp_path / "file" / "data", "x", time.time())


def test_earlier_issuing_certificates_stay_believed(tmp_path):
    first = open_data(tmp_path, "x", time.time())
    first.close()
    (tmp_path / "online" / "issuing-1.crt").write_text(first.keys.issuing_certs_pem[0])
    second = open_data(tmp_path, "x", time.time())
    second.close()
    assert len(second.keys.issuing_certs_pem) == 2


def test_durable_writing_replaces_whole_files(tmp_path):
    path = tmp_path / "file"
    write_durable(path, b"old")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(data.os, "fsync", lambda _handle: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            write_durable(path, b"new")
    assert path.read_bytes() == b"old"
    write_durable(path, b"new", 0o644)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o644)
