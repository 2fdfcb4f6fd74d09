"""A device by hand: join, run, a workload on it, its log, its rollout, and the ways to stop."""

import json
import signal

import pytest

PROGRAM = """
import time
print("hello from the edge", flush=True)
while True:
    time.sleep(0.2)
    print("still here", flush=True)
"""
ARTIFACT = """
type: bundle
name: greeter
variants:
- {name: python, path: greeter, command: {argv: ["${python}", "-u", "${bundle}/main.py"]}}
"""
WORKLOAD = """
apiVersion: edgewise/v1alpha1
kind: Workload
metadata: {name: greeter}
spec:
  artifact: {name: greeter, version: "1"}
  placement: {everyMatchingDevice: {}, selector: {matchLabels: {camera: front}}}
  strategy: {canary: {waves: [100%], observeFor: 0s}, probation: 0s}
"""


@pytest.fixture(scope="module")
def device(fleet):
    """A joined device with its supervisor and agent running; yields its data folder."""
    folder = str(fleet.folder / "device")
    token, _ = fleet.type("token", "create", "--site", "lab")
    out, err = fleet.type(
        "agent", "join", "--token-file", "-", "--name", "edge-1", "--data", folder, "--label", "camera=front", "--class", "box",
        "--capacity", "memory=1Gi,peripheral=front-camera", stdin=token.encode(),
    )  # fmt: skip
    assert out == "device/edge-1 joined\n"
    assert f"edgewise agent run --data {folder}" in err
    process = fleet.start("agent", "run", "--data", folder)
    try:
        yield folder
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_a_token_works_once_and_a_device_joins_once(fleet, device, tmp_path):
    token, _ = fleet.type("token", "create", "--site", "lab")
    (tmp_path / "join.token").write_text(token)
    words = ["agent", "join", "--token-file", str(tmp_path / "join.token"), "--name"]
    _, err = fleet.type(*words, "edge-9", "--data", device, code=1)
    assert "--force" in err
    fleet.type(*words, "edge-2", "--data", str(tmp_path / "two"))
    _, err = fleet.type(*words, "edge-3", "--data", str(tmp_path / "three"), code=1)
    assert "edgewise token create" in err
    assert token.strip() not in err
    for wrong, said in (
        (["--label", "site=x"], "built in"),
        (["--capacity", "wings=2"], "no capacity"),
        (["--telemetry-window", "x"], "duration"),
        (["--poll-wait", "x"], "duration"),
        (["--poll-wait", "1h"], "5 s to 240 s"),
    ):
        _, err = fleet.type(*words, "edge-4", "--data", str(tmp_path / "four"), *wrong, code=1)
        assert said in err
    fleet.type("device", "decommission", "edge-2", "--yes")


def test_a_workload_from_push_to_log(fleet, device, tools):
    (fleet.folder / "greeter").mkdir()
    (fleet.folder / "greeter" / "main.py").write_text(PROGRAM)
    (fleet.folder / "greeter.yaml").write_text(ARTIFACT)
    fleet.type("artifact", "push", "-f", "greeter.yaml", "--version", "1")
    planned, _ = fleet.type("apply", "--dry-run", "-f", "-", stdin=WORKLOAD.encode())
    assert "edge-1" in planned
    fleet.type("apply", "-f", "-", stdin=WORKLOAD.encode())
    watched, _ = fleet.type("rollout", "watch", "greeter", "--timeout", "90")
    assert "Succeeded" in watched
    assert "greeter-1" in fleet.type("rollout", "history", "greeter")[0]
    tools.until(lambda: "Running" in fleet.type("get", "instances")[0])
    tools.until(lambda: "1 ready of 1" in fleet.type("describe", "workload", "greeter")[0])
    assert "greeter" in fleet.type("describe", "device", "edge-1")[0]
    assert "wave 1/1" in watched
    assert "Succeeded" in fleet.type("describe", "rollout", "greeter-1")[0]
    assert "Running, ready" in fleet.type("describe", "instance", "greeter.edge-1")[0]
    log, _ = fleet.type("logs", "edge-1/greeter", "--tail", "3")
    assert "still here" in log


def test_a_log_is_followed_until_ctrl_c(fleet, device, tools):
    process = fleet.start("logs", "edge-1/greeter", "-f", "--tail", "1")
    try:
        assert tools.read_line(process, 60)
        assert tools.read_line(process, 60) == b"still here\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, err) == (130, b"")


def test_the_device_says_what_runs_without_asking_anybody(fleet, device, tools):
    out, _ = fleet.type("agent", "status", "--data", device)
    assert "edge-1" in out
    assert "default/greeter" in out
    tools.until(lambda: json.loads(fleet.type("agent", "status", "--data", device, "-o", "json")[0])["instances"][0]["ready"])
    facts = json.loads(fleet.type("agent", "status", "--data", device, "-o", "json")[0])
    assert facts["instances"][0]["name"] == "default/greeter"
    assert facts["supervisor"]["agent_state"] == "running"


def test_stopping_the_agent_stops_no_workload_and_workloads_when_asked(fleet, device):
    before = json.loads(fleet.type("agent", "status", "--data", device, "-o", "json")[0])["slots"]
    assert fleet.type("agent", "stop", "--data", device)[0] == "agent stopped; workloads run on\n"
    after = json.loads(fleet.type("agent", "status", "--data", device, "-o", "json")[0])
    assert after["supervisor"]["agent_state"] == "stopped"
    assert [(slot["pid"], slot.get("exit_code")) for slot in after["slots"]] == [(before[0]["pid"], None)]
    assert fleet.type("agent", "stop", "--workloads", "--data", device)[0] == "agent and workloads stopped\n"
    _, err = fleet.type("agent", "status", "--data", device, code=1)
    assert "nothing runs on this device" in err
