"""The command line against a real control plane: what a person types, and what comes of it."""

import json
import os
import signal
import stat
import time

import pytest
import yaml

WORKLOAD = """
apiVersion: edgewise/v1alpha1
kind: Workload
metadata: {name: NAME, namespace: line-3, labels: {line: "3"}}
spec:
  artifact: {name: inspector, version: "1"}
  placement: {everyMatchingDevice: {}, selector: {matchExpressions: [{key: camera, operator: Exists}]}}
"""
PARAMETERS = '  parameters: {code: "1e3", word: "no"}\n'
SITE = "apiVersion: edgewise/v1alpha1\nkind: Site\nmetadata: {name: NAME}\nspec: {timeZone: Europe/Berlin}\n"


@pytest.fixture(scope="module")
def pushed(fleet):
    """An artifact version in the namespace line-3."""
    (fleet.folder / "model.onnx").write_bytes(os.urandom(100_000))
    return fleet.type("artifact", "push", "model.onnx", "--name", "inspector", "-n", "line-3")


def test_up_wrote_a_context_that_only_its_user_can_read(fleet):
    assert stat.S_IMODE(fleet.contexts.stat().st_mode) == 0o600
    out, _ = fleet.type("context", "show")
    assert fleet.facts["apiAddress"] in out
    assert fleet.facts["authorityHash"] in out
    assert fleet.facts["adminToken"] not in out
    assert "releases-1.pem" in out
    assert fleet.type("context", "list")[0].split()[-4:] == ["*", "edgewise", fleet.facts["apiAddress"], "default"]


def test_version(fleet):
    out, _ = fleet.type("version")
    assert out.startswith("edgewise 0.")
    assert "control plane 0." in out


def test_apply_get_describe_delete(fleet):
    first = fleet.type("apply", "-f", "-", stdin=SITE.replace("NAME", "hall").encode())
    assert first == ("site/hall created\n", "")
    again = fleet.type("apply", "-f", "-", stdin=SITE.replace("NAME", "hall").encode())
    assert again[0] == "site/hall unchanged\n"
    (fleet.folder / "hall.yaml").write_text(SITE.replace("NAME", "hall").replace("Berlin", "Paris"))
    assert fleet.type("apply", "--dry-run", "-f", "hall.yaml")[0] == "site/hall configured (dry run)\n"
    assert "Europe/Berlin" in fleet.type("get", "sites")[0]
    assert fleet.type("apply", "-f", "hall.yaml")[0] == "site/hall configured\n"
    assert "Europe/Paris" in fleet.type("get", "site", "hall")[0]
    assert fleet.type("get", "site/hall", "-o", "name")[0] == "site/hall\n"
    described, _ = fleet.type("describe", "site", "hall")
    assert "timeZone: Europe/Paris" in described
    assert "Apply" in described
    assert fleet.type("delete", "site", "hall")[0] == "site/hall deleted\n"
    out, err = fleet.type("delete", "site/hall", code=1)
    assert out == ""
    assert err.startswith("error: ")
    assert fleet.type("delete", "--ignore-not-found", "-f", "hall.yaml") == ("", "")


def test_what_get_prints_can_be_applied_again(fleet, pushed):
    fleet.type("apply", "-f", "-", stdin=(WORKLOAD.replace("NAME", "again") + PARAMETERS).encode())
    for form in ("yaml", "json"):
        one, _ = fleet.type("get", "workload", "again", "-n", "line-3", "-o", form)
        assert fleet.type("apply", "-f", "-", stdin=one.encode())[0] == "workload/again unchanged\n"
        many, _ = fleet.type("get", "workloads", "-A", "-o", form)
        assert "workload/again unchanged\n" in fleet.type("apply", "-f", "-", stdin=many.encode())[0]
    assert yaml.safe_load(one)["spec"]["parameters"] == {"code": "1e3", "word": "no"}
    fleet.type("delete", "workload", "again", "-n", "line-3")


def test_selectors_and_namespaces(fleet, pushed):
    fleet.type("apply", "-f", "-", stdin=WORKLOAD.replace("NAME", "chosen").encode())
    assert "chosen" in fleet.type("get", "wl", "-n", "line-3", "-l", "line=3")[0]
    out, err = fleet.type("get", "wl", "-n", "line-3", "-l", "line=4")
    assert (out, err) == ("", "no workloads found in the namespace line-3\n")
    assert fleet.type("get", "wl")[1] == "no workloads found in the namespace default\n"
    table, _ = fleet.type("get", "wl", "-A", "--no-headers")
    assert table.split()[:2] == ["line-3", "chosen"]
    listed = json.loads(fleet.type("get", "wl", "-A", "-o", "json")[0])
    assert listed["kind"] == "WorkloadList"
    fleet.type("delete", "workload", "chosen", "-n", "line-3")


def test_a_workload_is_described_with_its_placement(fleet, pushed):
    device = "apiVersion: edgewise/v1alpha1\nkind: Device\nmetadata: {name: bare}\n"
    fleet.type("apply", "-f", "-", stdin=device.encode())
    out, _ = fleet.type("apply", "--dry-run", "-f", "-", stdin=WORKLOAD.replace("NAME", "planned").encode())
    assert "workload/planned created (dry run)" in out
    assert "bare" in out
    assert "camera must be set, is not set" in out
    fleet.type("apply", "-f", "-", stdin=WORKLOAD.replace("NAME", "planned").encode())
    described, _ = fleet.type("describe", "workload", "planned", "-n", "line-3")
    assert "every matching device, camera Exists, prefer quality" in described
    assert "camera must be set, is not set" in described
    assert max(len(line) for line in fleet.type("get", "devices", "-o", "wide")[0].splitlines()) < 200
    assert all(len(line) <= 100 for line in fleet.type("get", "devices")[0].splitlines())
    fleet.type("delete", "workload", "planned", "-n", "line-3")


def test_a_dry_run_says_why_a_workload_would_run_nowhere(fleet, pushed):
    text = WORKLOAD.replace("NAME", "planned") + "  parameters: {nope: 1, neither: 2}\n"
    out, err = fleet.type("apply", "--dry-run", "-f", "-", stdin=text.encode())
    assert out == "workload/planned created (dry run)\n"
    assert "warning: parameters.neither: the artifact declares no parameter" in err
    assert "parameters.nope: the artifact declares no parameter" in err


def test_what_is_asked_for_together_is_one_document_for_programs(fleet, pushed):
    both = json.loads(fleet.type("get", "artifacts,artifactversions", "-A", "-o", "json")[0])
    assert (both["apiVersion"], both["kind"]) == ("edgewise/v1alpha1", "List")
    assert {item["kind"] for item in both["items"]} == {"Artifact", "ArtifactVersion"}
    assert next(item["status"]["latest"] for item in both["items"] if item["kind"] == "Artifact") == "1"


def test_only_what_was_taken_back_can_be_tried_again(fleet, pushed):
    fleet.type("apply", "-f", "-", stdin=WORKLOAD.replace("NAME", "steady").encode())
    assert "no revision of steady was taken back" in fleet.type("rollout", "retry", "steady", "-n", "line-3", code=1)[1]
    fleet.type("delete", "workload", "steady", "-n", "line-3")


def test_problems_name_file_line_path_and_nearest_name(fleet):
    (fleet.folder / "bad").mkdir(exist_ok=True)
    (fleet.folder / "bad" / "camera.yaml").write_text(WORKLOAD.replace("placement:", "placment:").replace('version: "1"', "version: 1"))
    out, err = fleet.type("apply", "-f", "bad", code=1)
    assert out == ""
    assert err.startswith("error: not valid, 4 problems\n  bad/camera.yaml:4:18: metadata.name: 'NAME' does not fit")
    assert 'bad/camera.yaml:6:40: spec.artifact.version: must be a string (write "1")' in err
    assert "bad/camera.yaml:7:3: spec: unknown field 'placment' (did you mean 'placement'?)" in err


def test_the_control_planes_own_rules_are_told_as_well(fleet, pushed):
    missing = WORKLOAD.replace("NAME", "warned").replace('"1"', '"77"')
    out, err = fleet.type("apply", "-f", "-", stdin=missing.encode())
    assert "workload/warned created" in out
    assert "warning: artifact inspector has no version 77" in err
    fleet.type("delete", "workload", "warned", "-n", "line-3")
    _, err = fleet.type("apply", "-f", "-", stdin=SITE.replace("NAME}", "x, generation: 9}").encode(), code=1)
    assert "generation" in err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["get", "devics"], 1, "there is no kind 'devics'\n  did you mean 'devices'?"),
        (["get", "site", "nowhere"], 1, "error: "),
        (["get"], 2, "type edgewise get --help"),
        (["get", "sites", "-o", "xml"], 2, "xml"),
        (["aply"], 2, "No such command"),
        (["apply", "-f", "absent.yaml"], 1, "absent.yaml cannot be read: No such file or directory"),
        (["logs", "edge-1"], 1, "'edge-1' is not DEVICE/WORKLOAD"),
        (["logs", "edge-1/inspector"], 1, "no device edge-1"),
        (["rollout", "pause", "nothing"], 1, "error: "),
        (["rollout", "watch", "nothing"], 1, "error: "),
        (["device", "label", "edge-1", "site=x"], 1, "'site' is built in"),
        (["device", "decommission", "edge-1"], 1, "add --yes"),
        (["device", "decommission", "edge-1", "--yes"], 1, "error: "),
        (["artifact", "push", "--name", "x"], 1, "say what to publish"),
        (["artifact", "push", "absent.onnx", "--name", "x"], 1, "there is no file or folder"),
        (["token", "create"], 2, "--site"),
        (["token", "create", "--site", "lab", "--ttl", "soon"], 1, "is not a duration"),
        (["context", "use", "other"], 1, "there is no context 'other'; there are edgewise"),
        (["get", "sites", "--context", "other"], 1, "there is no context 'other'"),
        (["agent", "status", "--data", "absent"], 1, "this device has not joined"),
        (["agent", "run", "--data", "absent"], 1, "type edgewise agent join"),
        (["agent", "stop", "--data", "absent"], 1, "nothing runs on this device"),
    ],
)
def test_errors_say_what_and_what_next(fleet, words, code, said):
    _, err = fleet.type(*words, code=code)
    assert said in err
    assert err.startswith("error: ")


def test_publishing(fleet, pushed):
    out, err = pushed
    assert out == "artifactversion/inspector:1 published (1 variant, 98Ki)\n"
    assert "upload: 98Ki" in err
    out, _ = fleet.type("get", "artifactversions", "-n", "line-3")
    assert "inspector:1" in out
    (fleet.folder / "tree").mkdir()
    (fleet.folder / "tree" / "main.py").write_text("print()")
    (fleet.folder / "artifact.yaml").write_text(
        'type: bundle\nname: camera\nvariants:\n- name: python\n  path: tree\n  command: {argv: ["${python}", "${bundle}/main.py"]}\nparameters: {rate: {type: integer, default: 10}}\n'
    )
    assert fleet.type("artifact", "push", "-f", "artifact.yaml", "--version", "v1", "-n", "line-3")[0].startswith(
        "artifactversion/camera:v1 published"
    )
    described, _ = fleet.type("describe", "artifactversion", "camera:v1", "-n", "line-3")
    assert "rate: integer, default 10" in described
    out, _ = fleet.type("artifact", "push", "--name", "inspector", "--variant", "name=a,path=model.onnx,precision=fp32", "-n", "line-3")
    assert "inspector:2 published" in out
    (fleet.folder / "tree" / "main.py").write_text("print(1)")
    _, err = fleet.type("artifact", "push", "-f", "artifact.yaml", "--version", "v1", "-n", "line-3", code=1)
    assert "versions are immutable" in err


def test_secrets_are_never_shown(fleet):
    secret = "apiVersion: edgewise/v1alpha1\nkind: Secret\nmetadata: {name: rtsp}\nspec: {data: {password: hunter2}}\n"
    fleet.type("apply", "-f", "-", stdin=secret.encode())
    for words in (["get", "secrets", "-o", "yaml"], ["get", "secret", "rtsp", "-o", "json"], ["describe", "secret", "rtsp"], ["events"]):
        out, err = fleet.type(*words)
        assert "hunter2" not in out + err
    assert "password" in fleet.type("describe", "secret", "rtsp")[0]


def test_tokens_are_printed_alone_and_can_be_revoked(fleet):
    out, err = fleet.type("token", "create", "--site", "lab", "--uses", "2", "--label", "camera=front")
    assert out.startswith("ewj1.")
    assert out.count("\n") == 1
    assert err == ""
    listed, _ = fleet.type("token", "list")
    assert "lab" in listed
    assert "0/2" in listed
    identifier = listed.splitlines()[1].split()[0]
    assert "revoked" in fleet.type("token", "revoke", identifier)[0]
    assert fleet.type("token", "list")[1] == "no join tokens found\n"


def test_roles_and_a_second_context_by_the_authoritys_hash(fleet):
    token, _ = fleet.type("access-token", "create", "--role", "viewer", "--name", "watcher")
    words = ["context", "add", "watch", "--address", fleet.facts["apiAddress"], "--token-file", "-", "--no-use"]
    assert fleet.type(*words, "--ca-hash", fleet.facts["authorityHash"], stdin=token.encode())[0] == "context/watch added\n"
    assert fleet.type("get", "sites", "--context", "watch")
    _, err = fleet.type("apply", "-f", "-", "--context", "watch", stdin=SITE.replace("NAME", "y").encode(), code=1)
    assert "takes the role operator, this is viewer" in err
    _, err = fleet.type(*words, "--ca-hash", "sha256:" + "0" * 64, stdin=token.encode(), code=1)
    assert "does not belong to the authority with this hash" in err
    _, err = fleet.type(*words, "--ca-hash", fleet.facts["authorityHash"], stdin=b"not a token", code=1)
    assert "not an access token" in err
    fleet.type("context", "use", "watch")
    assert "watcher" in fleet.type("access-token", "list", "--context", "edgewise")[0]
    fleet.type("context", "use", "edgewise")
    fleet.type("context", "remove", "watch")
    assert "watch" not in fleet.type("context", "list")[0]


def test_another_authority_is_not_believed(fleet, tmp_path):
    contexts = json.loads(fleet.contexts.read_text())
    from edgewise.trust.authority import create_authority

    contexts["contexts"]["edgewise"]["authority"] = create_authority("other", time.time()).root_cert_pem
    other = tmp_path / "contexts.json"
    other.write_text(json.dumps(contexts))
    other.chmod(0o600)
    before = fleet.environment
    fleet.environment = before | {"EDGEWISE_CONFIG": str(other)}
    try:
        _, err = fleet.type("get", "sites", code=1)
    finally:
        fleet.environment = before
    assert "does not come from the pinned authority" in err


def test_watching_and_following_end_with_ctrl_c(fleet, tools):
    fleet.type("apply", "-f", "-", stdin=SITE.replace("NAME", "watched").encode())
    for words in (["get", "sites", "-w"], ["events", "-f"], ["get", "sites", "-w", "-o", "json"]):
        process = fleet.start(*words)
        try:
            assert tools.read_line(process, 60)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == 130, err
        assert err == b""


def test_a_watch_prints_changes_as_they_come(fleet, tools):
    process = fleet.start("get", "sites", "-w", "--no-headers", "-o", "name")
    try:
        fleet.type("apply", "-f", "-", stdin=SITE.replace("NAME", "late").encode())
        seen = set()
        while b"site/late\n" not in seen:
            line = tools.read_line(process, 60)
            assert line
            seen.add(line)
    finally:
        process.kill()
        process.communicate()


def test_a_closed_pipe_is_no_trouble(fleet):
    process = fleet.start("schema")
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) in {0, 141}
    assert b"Traceback" not in err
    assert b"BrokenPipe" not in err


def test_cordon_and_labels(fleet):
    fleet.type("apply", "-f", "-", stdin=b"apiVersion: edgewise/v1alpha1\nkind: Device\nmetadata: {name: box, labels: {old: x}}\n")
    assert fleet.type("device", "cordon", "box")[0] == "device/box cordoned\n"
    assert "Cordoned" in fleet.type("get", "device", "box")[0]
    fleet.type("device", "uncordon", "box")
    assert fleet.type("device", "label", "box", "camera=front", "old-")[0] == "device/box labeled: camera=front\n"
    assert fleet.type("device", "clear-refused", "box")[0] == "device/box cleared\n"
    assert "Refused revisions:" in fleet.type("describe", "device", "box")[0]


def test_schema_and_help(fleet):
    assert "WorkloadSpec" in json.loads(fleet.type("schema")[0])["$defs"]
    assert "SiteSpec" in json.loads(fleet.type("schema", "site")[0])["$defs"]
    assert "artifact push" not in fleet.type("--help")[0]


def test_events_are_chosen_by_subject(fleet):
    fleet.type("apply", "-f", "-", stdin=SITE.replace("NAME", "told").encode())
    out, _ = fleet.type("events", "--about", "site/told")
    assert "Apply" in out
    assert fleet.type("events", "--about", "site/untold")[1] == "no events found\n"
    lines = fleet.type("events", "--limit", "1", "-o", "json")[0].splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["number"] > 0
