"""Exit codes, errors, and that `edgewise --help` is quick because it imports nothing heavy."""

import io
import resource
import subprocess
import sys

import pytest

from edgewise.cli import failures, installing, main
from edgewise.cli.artifact_commands import _Draft, release_of
from edgewise.cli.context_commands import checked_address
from edgewise.cli.failures import CommandError
from edgewise.cli.log_commands import about_of, event_lines, printable
from edgewise.cli.rollout_commands import _why, rollout_line
from edgewise.client.answers import Event
from edgewise.client.errors import Conflict, Denied, Unreachable
from edgewise.resources.errors import Invalid, Problem
from edgewise.resources.meta import Metadata
from edgewise.resources.rollout import Rollout, RolloutSpec, RolloutStatus

HEAVY = ("asyncio", "httpx", "msgspec", "yaml", "rich", "tuf", "cryptography", "litestar", "uvicorn", "numpy", "click")


@pytest.fixture
def typed(monkeypatch, tmp_path):
    def run(*words):
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        monkeypatch.setenv("EDGEWISE_CONFIG", str(tmp_path / "contexts.json"))
        code = main.run(words)
        return code, out.getvalue(), err.getvalue()

    return run


def test_help_imports_nothing_heavy():
    code = f"import sys; from edgewise.cli import main; main.run(['--help']); print([n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_is_quick():
    def cost(program):
        """Return the processor's time that a program takes: how long it waits for its turn on a busy machine says nothing."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    helped = min(cost("from edgewise.cli import main; main.run(['--help'])") for _ in range(5))
    assert helped - min(cost("pass") for _ in range(5)) < 0.3


@pytest.mark.parametrize("words", [["--help"], ["apply", "--help"], ["rollout", "-h"], ["agent", "join", "-h"], ["up", "--help"]])
def test_every_help_is_no_error(typed, words):
    code, out, err = typed(*words)
    assert (code, err) == (0, "")
    assert out.startswith("Usage: edgewise")


def test_wrong_usage_is_2_and_other_errors_1(typed):
    code, _, err = typed("get", "--nothing")
    assert code == 2
    assert err == "error: No such option: --nothing\n  type edgewise get --help\n"
    code, _, err = typed("get", "devices")
    assert code == 1
    assert err.startswith("error: no context yet: type edgewise up")


def test_errors_are_what_where_and_what_to_do(capsys):
    assert failures.tell(CommandError("what", "where", "hint")) == 1
    assert capsys.readouterr().err == "error: what\n  where\n  hint\n"
    assert (
        failures.tell(Invalid((Problem(path="a", message="b", source="f", line=1, column=2), Problem(path="c", message="d", hint="e"))))
        == 1
    )
    assert capsys.readouterr().err == "error: not valid, 2 problems\n  f:1:2: a: b\n  c: d (e)\n"
    assert failures.tell(Unreachable("gone")) == 1
    assert "is the control plane running there?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "hinted"),
    [
        (Conflict("it changed meanwhile", None), True),
        (Conflict("Site lab cannot be deleted: devices stand there", None), False),
        (Denied("to apply takes the role operator, this is viewer"), True),
        (Denied("nobody may delete Rollout"), False),
    ],
)
def test_hints_fit_their_errors(capsys, error, hinted):
    failures.tell(error)
    assert (len(capsys.readouterr().err.splitlines()) > 1) is hinted


@pytest.mark.parametrize("words", [(), ("rollout",)])
def test_nothing_asked_for_is_answered_with_help(typed, words):
    code, _, err = typed(*words)
    assert code == 2
    assert err.startswith("Usage: edgewise")


def test_a_rollout_that_failed_says_why_and_where_to_look():
    status = RolloutStatus(message="2 of 2 devices failed", failures={f"edge-{index}": "Crashed: boom" for index in range(7)})
    rollout = Rollout(metadata=Metadata(name="camera-2"), spec=RolloutSpec(workload="camera", to_revision="ab"), status=status)
    where, hint = _why(rollout)
    assert where.splitlines() == ["2 of 2 devices failed", *(f"edge-{index}: Crashed: boom" for index in range(5)), "… and 2 more"]
    assert "edgewise logs edge-0/camera" in hint


def test_a_defect_is_told_without_a_traceback_unless_asked_for(capsys, monkeypatch):
    assert failures.tell(ZeroDivisionError("x")) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ZeroDivisionError: x\n")
    assert "Traceback" not in said
    monkeypatch.setenv("EDGEWISE_DEBUG", "1")
    failures.tell(ZeroDivisionError("x"))
    assert "ZeroDivisionError: x" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (BrokenPipeError(), 141)])
def test_ctrl_c_and_closed_pipes(monkeypatch, error, code):
    def app(*_, **__):
        raise error

    monkeypatch.setattr("edgewise.cli.app.app", app)
    monkeypatch.setattr(failures, "pipe_closed", lambda: 141)
    assert main.run([]) == code


def test_addresses():
    assert checked_address("https://a:1/") == "https://a:1"
    assert checked_address("edge.example") == "https://edge.example:7420"
    assert checked_address("[::1]:9") == "https://[::1]:9"
    for wrong in ("http://a", "https://", "https://a:x", "https://a/b", "https://u@a", "https://a?b"):
        with pytest.raises(CommandError, match="is not an address"):
            checked_address(wrong)


def test_subjects_of_events():
    assert about_of("", "n") == ""
    assert about_of("workload/a", "n") == "Workload/n/a"
    assert about_of("wl/m/a", "n") == "Workload/m/a"
    assert about_of("device/edge-1", "n") == "Device//edge-1"
    assert about_of("device", "n") == "Device/"


def test_event_lines():
    event = Event(number=1, at=1_800_000_000.0, type="Warning", reason="Refused", message="no", source="edge-1", about="Workload/n/a")
    assert event_lines([event], "table", headers=True).splitlines()[0].split() == ["TIME", "TYPE", "REASON", "SOURCE", "MESSAGE"]
    assert event_lines([event], "table", headers=False).split() == ["2027-01-15T08:00:00Z", "Warning", "Refused", "edge-1", "no"]
    assert "(Workload/n/a)" in event_lines([event], "wide", headers=False)
    assert '"number":1' in event_lines([event], "json", headers=False)
    named = Event(
        number=2, at=1.0, type="Normal", reason="Installed", message="it is there", source="edge-1", about="Instance/n/cam.edge-1"
    )
    assert event_lines([named], "table", headers=False).endswith("   cam: it is there\n")


def test_a_captured_device_cannot_steer_the_terminal():
    assert printable("a\x1b[2Jb\r\nc\td\x07\u202e") == "a\ufffd[2Jb\nc\td\ufffd\ufffd"


def test_a_rollout_in_one_line(make):
    line = rollout_line(make("Rollout"))
    assert line == "inspector-2   Progressing   wave 2/3   1 done, 1 updating, 1 failed, 1 unreached, analysis Running"


# ---- artifacts ----


def test_what_is_pushed_from_the_command_line(tmp_path):
    one = release_of(_Draft("model.onnx", "a", "1", (), ""), "n")
    assert (one.variants[0].name, one.variants[0].runtime, one.type, one.namespace) == ("default", "onnxruntime", "model", "n")
    folder = tmp_path / "ir"
    folder.mkdir()
    for name in ("model.xml", "model.bin"):
        (folder / name).touch()
    assert release_of(_Draft(str(folder), "a", "1", (), ""), "n").variants[0].runtime == "openvino"
    (folder / "model.tflite").touch()
    assert release_of(_Draft(str(folder), "a", "1", (), ""), "n").variants[0].runtime == ""
    two = release_of(_Draft("", "a", "", ("name=x,path=m.onnx,precision=int8", "name=y,path=z,runtime=openvino"), ""), "n")
    assert [(each.name, each.precision, each.runtime) for each in two.variants] == [("x", "int8", "onnxruntime"), ("y", "", "openvino")]
    (tmp_path / "artifact.yaml").write_text(
        "type: bundle\nname: b\nnamespace: m\nvariants: [{name: p, path: tree, command: {argv: [x]}}]\n"
    )
    file = release_of(_Draft("", "", "2", (), str(tmp_path / "artifact.yaml")), "n")
    assert (file.name, file.version, file.type, file.namespace, file.folder) == ("b", "2", "bundle", "m", str(tmp_path))


@pytest.mark.parametrize(
    ("draft", "said"),
    [
        (_Draft("m", "", "", (), ""), "say what to call it"),
        (_Draft("m", "a", "", ("name=x,path=y",), ""), "do not go together"),
        (_Draft("m", "a", "", (), "file"), "do not go together"),
        (_Draft("", "a", "", (), ""), "say what to publish"),
        (_Draft("", "a", "", ("name=x",), ""), "needs name and path"),
        (_Draft("", "a", "", ("name=x,path=y,colour=red",), ""), "has no colour"),
        (_Draft("", "a", "", ("name=X,path=y",), ""), "name"),
        (_Draft("", "a", "", ("name=x,path=y,precision=int2",), ""), "int2"),
    ],
)
def test_what_cannot_be_pushed(draft, said):
    with pytest.raises(CommandError, match=said):
        release_of(draft, "n")


# ---- installing ----


def test_the_units_plan_for_the_machine_and_for_a_user():
    system = installing.plan("/var/lib/edgewise", for_user=False)
    assert system.path == "/etc/systemd/system/edgewise-agent.service"
    assert "User=edgewise" in system.text
    assert "NoNewPrivileges=yes" in system.text
    assert ("systemctl", "enable", "--now", "edgewise-agent.service") in system.steps
    assert ("chown", "-R", "edgewise:edgewise", "/var/lib/edgewise") in system.steps
    user = installing.plan("/home/me/data", for_user=True)
    assert user.path.endswith("systemd/user/edgewise-agent.service")
    assert "User=" not in user.text
    assert "WantedBy=default.target" in user.text
    assert "NoNewPrivileges=yes" in user.text
    assert all("useradd" not in step and "chown" not in step for step in user.steps)


def test_no_data_folder_writes_its_own_lines_into_a_unit():
    with pytest.raises(CommandError, match="cannot stand in a unit file"):
        installing.plan("/var/lib/x\nExecStart=/bin/sh", for_user=False)


def test_installing_changes_nothing_when_dry(typed, tmp_path):
    code, out, err = typed("agent", "install", "--user", "--dry-run", "--data", str(tmp_path))
    assert code == 0
    assert f"--data {tmp_path}" in out
    assert "systemctl --user enable --now edgewise-agent.service" in err


def test_installing_is_refused_before_anything_changed_when_it_cannot_work(monkeypatch, tmp_path):
    with pytest.raises(CommandError, match="has not joined"):
        installing.check(str(tmp_path), for_user=True)
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "config.json").write_text("{}")
    installing.check(str(tmp_path), for_user=True)
    home = tmp_path / "home"
    (home / "venv").mkdir(parents=True)
    home.chmod(0o700)
    monkeypatch.setattr(installing.sys, "prefix", str(home / "venv"))
    with pytest.raises(CommandError, match="may not enter"):
        installing.check(str(tmp_path), for_user=False)


def test_a_folder_that_others_may_not_enter_is_found(tmp_path):
    outer = installing.closed_to_others(str(tmp_path))  # pytest's own folders may be closed
    home = tmp_path / "home"
    (home / "venv").mkdir(parents=True)
    home.chmod(0o750)
    assert installing.closed_to_others(str(home / "venv")) == (outer or home)
    home.chmod(0o755)
    assert installing.closed_to_others(str(home / "venv")) == outer


def test_installing_stops_at_the_first_step_that_fails(monkeypatch, tmp_path):
    monkeypatch.setattr(installing.shutil, "which", lambda _: "/bin/true")
    plan = installing.Plan(
        path=str(tmp_path / "deep" / "unit"), text="[Unit]\n", steps=(("true",), ("false",), ("touch", str(tmp_path / "after")))
    )
    with pytest.raises(CommandError, match="false failed with 1"):
        installing.carry_out(plan)
    assert (tmp_path / "deep" / "unit").read_text() == "[Unit]\n"
    assert not (tmp_path / "after").exists()
    monkeypatch.setattr(installing.shutil, "which", lambda _: None)
    with pytest.raises(CommandError, match="no systemd"):
        installing.carry_out(plan)
