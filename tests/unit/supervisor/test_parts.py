"""The supervisor's parts by themselves, in an empty folder and without processes."""

import os
from pathlib import Path

import pytest

from edgewise.supervisor import stale
from edgewise.supervisor.cgroups import find_cgroups
from edgewise.supervisor.files import read_object, replace_object
from edgewise.supervisor.launch import supervisor_argv
from edgewise.supervisor.limits import SupervisorLimits
from edgewise.supervisor.logs import LogFile
from edgewise.supervisor.main import read_command_line


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_every_limit_is_a_number_and_can_be_set():
    for name in SupervisorLimits.__annotations__:
        assert getattr(SupervisorLimits(), name) >= 0
        assert getattr(SupervisorLimits({name: 3}), name) == 3
    with pytest.raises(ValueError, match="no limit called"):
        SupervisorLimits({"no_such": 1})


def test_the_command_line():
    settings = read_command_line(["--data", "/d", "--limit", "slots_max=3", "--", "agent", "--data", "x"])
    assert (settings.data, settings.limits.slots_max, settings.agent) == ("/d", 3, ["agent", "--data", "x"])
    assert read_command_line(["--data", "/d", "--"]).agent == []
    assert read_command_line(["--data", "/d"]).agent[1:] == ["-m", "edgewise.agent", "--data", "/d"]
    argv = supervisor_argv("/d", ["agent"], ["slots_max=2"])
    read = read_command_line(argv[4:])
    assert (argv[1:3], read.data, read.limits.slots_max, read.agent) == (["-I", "-S"], "/d", 2, ["agent"])
    for wrong in ([], ["--data"], ["--data", ""], ["-x", "y"], ["--data", "d", "--limit", "slots_max"]):
        with pytest.raises(ValueError):
            read_command_line(wrong)


def test_objects_are_replaced_whole(here):
    replace_object("kept.json", {"a": 1})
    replace_object("kept.json", {"b": [2]})
    assert read_object("kept.json") == {"b": [2]}
    assert names(".") == ["kept.json"]
    assert Path("kept.json").stat().st_mode & 0o777 == 0o600
    Path("kept.json").write_text("{")
    assert read_object("kept.json") == {}
    assert read_object("missing.json") == {}


@pytest.mark.parametrize(("size", "files"), [(999, 1), (1000, 1), (1001, 2)])
def test_a_log_rotates_when_it_would_grow_over_its_limit(here, size, files):
    log = LogFile("x", SupervisorLimits({"log_file_bytes_max": 1000}))
    log.take(b"a" * 500)
    log.take(b"b" * (size - 500))
    log.close()
    assert len(names("logs/x")) == files


@pytest.mark.parametrize("count", [1, 2, 3])
def test_as_many_log_files_as_allowed(here, count):
    log = LogFile("x", SupervisorLimits({"log_file_bytes_max": 100, "log_files_max": count}))
    for n in range(10):
        log.take(b"%d" % n * 90)
    log.close()
    kept = names("logs/x")
    assert kept == ["current.log", *(f"current.log.{n}" for n in range(1, count))]
    assert [Path(f"logs/x/{name}").read_text()[0] for name in kept] == [str(n) for n in range(9, 9 - count, -1)]


@pytest.mark.parametrize(("size", "kept"), [(999, True), (1000, True), (1001, False)])
def test_output_over_the_allowance_is_dropped_and_counted(here, size, kept):
    log = LogFile("x", SupervisorLimits({"log_burst_bytes": 1000, "log_bytes_per_second": 0}))
    assert log.take(b"a" * size) is kept
    log.mark("end")
    log.close()
    text = Path("logs/x/current.log").read_text()
    assert (
        text == ("a" * size if kept else f"[edgewise] {size} bytes of output dropped: more than 0 bytes per second\n") + "[edgewise] end\n"
    )


def test_a_link_in_place_of_a_log_is_not_followed(here):
    Path("logs/x").mkdir(parents=True)
    Path("precious").write_text("precious")
    Path("logs/x/current.log").symlink_to("../../precious")
    log = LogFile("x", SupervisorLimits())
    assert log.take(b"overwritten") is False
    log.close()
    assert Path("precious").read_text() == "precious"


def fake_cgroup(folder, controllers="cpu memory pids"):
    own = folder / "unit"
    own.mkdir()
    (own / "cgroup.controllers").write_text(controllers)
    for name in ("cgroup.procs", "cgroup.subtree_control"):
        (own / name).write_text("")
    (own / "supervisor").mkdir()
    (own / "supervisor" / "cgroup.procs").write_text("")
    (folder / "self").write_text("1:name=systemd:/x\n0::/unit\n")
    return own


def test_limits_by_cgroup(tmp_path):
    own = fake_cgroup(tmp_path)
    cgroups = find_cgroups(str(tmp_path), str(tmp_path / "self"))
    assert (own / "supervisor" / "cgroup.procs").read_text() == str(os.getpid())
    part = own / "launch"
    part.mkdir()
    for name in ("memory.max", "cpu.max", "pids.max", "memory.oom.group", "cgroup.kill"):
        (part / name).write_text("")
    assert cgroups.create("launch", 1 << 20, 500, 64) == str(part)
    assert {name: (part / name).read_text() for name in ("memory.max", "cpu.max", "pids.max", "memory.oom.group")} == {
        "memory.max": "1048576",
        "cpu.max": "50000 100000",
        "pids.max": "64",
        "memory.oom.group": "1",
    }
    cgroups.kill(str(part))
    assert (part / "cgroup.kill").read_text() == "1"


@pytest.mark.parametrize("controllers", ["", "cpu pids"])
def test_no_cgroups_without_the_memory_controller(tmp_path, controllers):
    fake_cgroup(tmp_path, controllers)
    assert find_cgroups(str(tmp_path), str(tmp_path / "self")) is None


def test_no_cgroups_where_they_cannot_be_split(tmp_path):
    own = fake_cgroup(tmp_path)
    (own / "cgroup.subtree_control").unlink()
    assert find_cgroups(str(tmp_path), str(tmp_path / "self")) is None
    assert find_cgroups(str(tmp_path), str(tmp_path / "missing")) is None


def test_notes_of_launches(here):
    Path(stale.FOLDER).mkdir(parents=True)
    stale.note_launch(stale.Trace("aa", 7, 8), "boot-1")
    stale.note_launch(stale.Trace("bb", 0, 0), "boot-1")
    stale.note_launch(stale.Trace("cc", 9, 9), "boot-0")
    found = {trace.launch_id: (trace.pid, trace.started) for trace in stale.noted_launches("boot-1")}
    assert found == {"aa": (7, 8), "bb": (0, 0)}
    assert names(stale.FOLDER) == ["aa", "bb"]
    stale.forget_launch("aa")
    stale.forget_launch("aa")
    assert names(stale.FOLDER) == ["bb"]


@pytest.mark.parametrize(
    ("environment", "launch"),
    [
        (b"", b""),
        (b"A=1\0B=2\0", b""),
        (b"EDGEWISE_LAUNCH=aa\0B=2\0", b"aa"),
        (b"A=1\0EDGEWISE_LAUNCH=aa\0", b"aa"),
        (b"A=1\0EDGEWISE_LAUNCH=aa", b"aa"),
        (b"A=EDGEWISE_LAUNCH=aa\0", b""),
        (b"XEDGEWISE_LAUNCH=aa\0", b""),
    ],
)
def test_the_launch_in_an_environment(environment, launch):
    assert stale._launch_in(environment) == launch


def test_this_process_has_a_start_time_and_no_other_launch():
    assert stale.started_at(os.getpid()) > 0
    assert stale.started_at(2**22 + 1) == 0
    assert stale.processes_of([stale.Trace("no such launch", 0, 0)]) == []
