"""`apply --rehearse` against a real control plane with a real device: what is well goes ahead, what is not is refused and nothing is applied."""

import io
import json
import signal
import time

import pytest

PROGRAM = """
import time
while True:
    time.sleep(0.2)
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
  artifact: {name: greeter, version: "VERSION"}
  placement: {everyMatchingDevice: {}}
  strategy: {canary: {waves: [100%], observeFor: 0s, BUDGET}, probation: 2s}
"""
SCENARIO = """
name: bad-day
behaviours:
- {workload: greeter, version: new, fails: BEHAVIOUR}
"""
BUDGET = "failureBudget: 5%"


@pytest.fixture(scope="module")
def device(fleet):
    """A device that is online, two versions, and scenarios in which the new one is bad."""
    folder = str(fleet.folder / "device")
    token, _ = fleet.type("token", "create", "--site", "lab")
    fleet.type("agent", "join", "--token-file", "-", "--name", "edge-1", "--data", folder, stdin=token.encode())
    (fleet.folder / "greeter").mkdir()
    (fleet.folder / "greeter.yaml").write_text(ARTIFACT)
    for version in ("1", "2"):
        (fleet.folder / "greeter" / "main.py").write_text(PROGRAM + f"# {version}\n")
        fleet.type("artifact", "push", "-f", "greeter.yaml", "--version", version)
    (fleet.folder / "bad.yaml").write_text(SCENARIO.replace("BEHAVIOUR", "crashes-at-start"))
    process = fleet.start("agent", "run", "--data", folder)
    try:
        deadline = time.monotonic() + 30
        while not json.loads(fleet.type("get", "device", "edge-1", "-o", "json")[0])["status"].get("agentVersion"):
            assert time.monotonic() < deadline, "it reported nothing"
            time.sleep(0.05)
        yield folder
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=40)


def change(fleet, version, budget=BUDGET):
    (fleet.folder / "change.yaml").write_text(WORKLOAD.replace("VERSION", version).replace("BUDGET", budget))
    return "change.yaml"


def rehearsed(fleet, version, *words, budget=BUDGET, code=0):
    return fleet.type("apply", "--rehearse", "--runs", "1", "-f", change(fleet, version, budget), *words, code=code)


def version_of(fleet):
    return json.loads(fleet.type("get", "workload", "greeter", "-o", "json")[0])["spec"]["artifact"]["version"]


def test_a_first_rollout_is_rehearsed_then_applied(fleet, device):
    out, err = rehearsed(fleet, "1")
    assert out == "workload/greeter created\n"
    assert "1 device, 1 site, 1 class, 0 workloads, 2 versions" in err
    assert "assumed: default/greeter is new to the fleet" in err
    assert "predicted: default/greeter 1: takes " in err
    assert "none of 1 devices fail" in err
    assert not (fleet.folder / "rehearsal.svg").exists()
    assert "Succeeded" in fleet.type("rollout", "watch", "greeter", "--timeout", "40")[0]


def test_a_change_that_is_predicted_to_fail_is_refused_with_reason_and_picture(fleet, device):
    out, err = rehearsed(fleet, "2", "--scenario", "bad.yaml", "--seed", "7", code=1)
    assert out == ""
    assert "error: nothing was applied: the rehearsal gives 2 reasons against it" in err
    assert "default/greeter 2: 100 % of the devices that get it fail (1 of 1, p95 of the runs); its failureBudget is 5%" in err
    assert "default/greeter 2: it is rolled back in 1 of 1 runs" in err
    assert "edgewise simulate -f change.yaml --fleet fleet.json --scenario bad.yaml --runs 1 --seed 7" in err
    assert "picture: rehearsal.svg" in err
    assert (fleet.folder / "rehearsal.svg").read_text().startswith("<?xml")
    assert version_of(fleet) == "1"


def test_a_good_change_goes_ahead_with_a_picture_where_one_is_asked_for(fleet, device):
    out, err = rehearsed(fleet, "2", "--picture", "change.png", budget=BUDGET + ", unavailabilityBudget: 1h")
    assert out == "workload/greeter configured\n"
    assert "picture: change.png" in err
    assert (fleet.folder / "change.png").read_bytes().startswith(b"\x89PNG")
    assert version_of(fleet) == "2"
    assert "Succeeded" in fleet.type("rollout", "watch", "greeter", "--timeout", "40")[0]


def test_a_dry_run_rehearses_and_applies_nothing(fleet, device):
    # Two runs: in processes of their own.
    out, err = fleet.type("apply", "--rehearse", "--dry-run", "--runs", "2", "-f", change(fleet, "1"))
    assert out.startswith("workload/greeter configured (dry run)\n")
    assert "2 runs of default/greeter 2 to 1" in err
    assert "predicted: default/greeter 1: takes " in err
    assert version_of(fleet) == "2"


def test_ctrl_c_during_a_rehearsal_applies_nothing(fleet, device):
    process = fleet.start("apply", "--rehearse", "--runs", "1000", "-f", change(fleet, "1"))
    try:
        reader = io.TextIOWrapper(process.stderr)
        while not (line := reader.readline()).startswith("simulating 1000 runs"):
            assert line
        process.send_signal(signal.SIGINT)
        err = reader.read()
        assert process.wait(timeout=40) == 130
    finally:
        process.kill()
        process.communicate()
    assert err.endswith("nothing was applied\n")
    assert version_of(fleet) == "2"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--scenario", "clam"], "did you mean 'calm'?"),
        (["--scenario", "nowhere.yaml"], "cannot read the scenario nowhere.yaml"),
        (["--picture", "x.pdf"], "a picture is an .svg or a .png"),
        (["--runs", "0"], "--runs"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_done(fleet, device, words, said):
    before = version_of(fleet)
    code = 2 if "--runs" in words else 1
    _, err = fleet.type("apply", "--rehearse", "-f", change(fleet, "3"), *words, code=code)
    assert said in err
    assert "predicted" not in err
    assert version_of(fleet) == before


@pytest.mark.parametrize("words", [["--scenario", "calm"], ["--runs", "3"], ["--seed", "0"], ["--picture", "x.svg"]])
def test_options_of_a_rehearsal_need_one(fleet, words):
    _, err = fleet.type("apply", "-f", "change.yaml", *words, code=1)
    assert "add --rehearse" in err
