"""A running fleet as a twin: taken from a real control plane, without its secrets, ready to rehearse on."""

import base64
import json
import os
import stat

import pytest

from edgewise.twin.generate import load_fleet

RESOURCES = """
apiVersion: edgewise/v1alpha1
kind: Site
metadata: {name: lab, annotations: {note: planted-site}}
spec: {link: {bandwidth: 5M, metered: true}, failoverDomain: plant}
---
apiVersion: edgewise/v1alpha1
kind: Secret
metadata: {name: rtsp, namespace: line-3}
spec: {data: {password: planted-secret}}
---
apiVersion: edgewise/v1alpha1
kind: Secret
metadata: {name: spare, namespace: line-3}
spec: {data: {password: planted-spare}}
---
apiVersion: edgewise/v1alpha1
kind: Config
metadata: {name: settings, namespace: line-3}
spec: {data: {url: planted-config}}
---
apiVersion: edgewise/v1alpha1
kind: Workload
metadata: {name: inspector, namespace: line-3, labels: {line: "3"}, annotations: {owner: planted-workload}}
spec:
  artifact: {name: inspector, version: "1"}
  placement: {everyMatchingDevice: {}}
  config: {name: settings}
  secrets: [{name: rtsp}]
"""


@pytest.fixture(scope="module")
def grown(fleet):
    """Two devices, a workload on both, and something secret wherever there is room for it."""
    for name, capacity in (("edge-1", "memory=1Gi"), ("edge-2", "memory=2Gi")):
        token, _ = fleet.type("token", "create", "--site", "lab", "--label", "line=3")
        folder = str(fleet.folder / name)
        words = ["--data", folder, "--class", "box", "--capacity", capacity]
        fleet.type("agent", "join", "--token-file", "-", "--name", name, *words, stdin=token.encode())
        fleet.secrets = [*getattr(fleet, "secrets", []), token.strip()]
    (fleet.folder / "model.onnx").write_bytes(os.urandom(1000))
    fleet.type("artifact", "push", "model.onnx", "--name", "inspector", "-n", "line-3", "--version", "1")
    fleet.type("apply", "-f", "-", stdin=RESOURCES.encode())
    return fleet


def taken(fleet, name="fleet.json"):
    out, err = fleet.type("twin", "snapshot", "-o", name)
    return (fleet.folder / name).read_text(), out, err


def test_a_snapshot_holds_the_fleet_and_says_what_next(grown, tools):
    tools.until(lambda: "inspector.edge-2" in grown.type("get", "instances", "-A", "-o", "name")[0])
    _, out, err = taken(grown)
    assert out == ""
    assert err == (
        "fleet.json: 2 devices, 1 site, 1 class, 1 workload, 1 version\nnext: edgewise simulate -f change.yaml --fleet fleet.json\n"
    )
    fleet = load_fleet(grown.folder / "fleet.json")
    (site,) = fleet.sites
    assert (site.name, site.link.bandwidth, site.link.metered, site.failover_domain) == ("lab", 5_000_000.0, True, "plant")
    assert [(each.name, each.device_class, each.site, each.labels) for each in fleet.devices] == [
        ("edge-1", "box", "lab", {"line": "3"}),
        ("edge-2", "box", "lab", {"line": "3"}),
    ]
    memories = {(each.capacity or fleet.classes[0].capacity).memory for each in fleet.devices}
    assert memories == {2**30, 2**31}
    assert [each.workload for device in fleet.devices for each in device.instances] == ["line-3/inspector"] * 2
    assert [each.metadata.name for each in fleet.versions] == ["inspector:1"]
    assert fleet.secret_names == ("line-3/rtsp", "line-3/spare")
    assert [each.spec.config.name for each in fleet.workloads] == ["settings"]
    assert fleet.configs == ()


def test_nothing_secret_is_in_a_snapshot(grown):
    text, _, _ = taken(grown)
    facts = grown.facts
    agents = json.loads(grown.type("get", "agents", "-o", "json")[0])["items"]
    planted = [
        *(f"planted-{word}" for word in ("site", "secret", "spare", "config", "workload")),
        *grown.secrets,
        facts["adminToken"],
        facts["apiAddress"],
        facts["authorityHash"],
        *(agent["spec"][field] for agent in agents for field in ("keyDigest", "sealingKey")),
        *(agent["status"]["certificateSerial"] for agent in agents),
    ]
    assert all(len(word) > 5 for word in planted)
    assert len(planted) == 5 + 2 + 3 + 4 + 2
    encoded = [base64.b64encode(word.encode()).decode().rstrip("=") for word in planted]
    assert [word for word in [*planted, *encoded] if word in text] == []
    for key in (grown.folder / "edge-1").rglob("*.pem"):
        assert key.read_text().splitlines()[1] not in text


def test_a_snapshot_goes_to_standard_output_too(grown):
    out, err = grown.type("twin", "snapshot", "-o", "-")
    assert len(json.loads(out)["devices"]) == 2
    assert "next: edgewise simulate -f change.yaml --fleet fleet.json" in err


def test_a_snapshot_replaces_the_one_before_and_leaves_nothing_beside(grown):
    (grown.folder / "places").mkdir()
    (grown.folder / "places" / "fleet.json").write_text("old")
    taken(grown, "places/fleet.json")
    assert [each.name for each in (grown.folder / "places").iterdir()] == ["fleet.json"]
    assert stat.S_IMODE((grown.folder / "places" / "fleet.json").stat().st_mode) & 0o600 == 0o600


def test_a_viewer_may_take_a_snapshot(grown):
    token, _ = grown.type("access-token", "create", "--name", "looker", "--role", "viewer")
    contexts = json.loads(grown.contexts.read_text())
    current = contexts["contexts"][contexts["current"]]
    contexts["contexts"]["looker"] = {**current, "token": token.strip()}
    grown.contexts.write_text(json.dumps(contexts))
    out, _ = grown.type("twin", "snapshot", "-o", "-", "--context", "looker")
    assert len(json.loads(out)["devices"]) == 2


@pytest.mark.parametrize(
    ("where", "said"),
    [("nowhere/fleet.json", "there is no such folder"), (".", "it is a folder"), ("", "it is a folder")],
)
def test_a_place_that_cannot_be_written_is_told_before_anything_is_read(grown, where, said):
    _, err = grown.type("twin", "snapshot", "-o", where, code=1)
    assert said in err


def test_a_fleet_without_devices_is_told(own_fleet):
    own_fleet.up()
    _, err = own_fleet.type("twin", "snapshot", "-o", "fleet.json", code=1)
    assert "the fleet has no devices" in err
    assert "edgewise simulate --fleet 100" in err
    assert not (own_fleet.folder / "fleet.json").exists()


def test_a_change_is_rehearsed_on_a_snapshot(grown):
    taken(grown)
    (grown.folder / "change.yaml").write_text(RESOURCES.rpartition("---")[2].replace('version: "1"', 'version: "2"'))
    out, _ = grown.type("simulate", "-f", "change.yaml", "--fleet", "fleet.json", "--runs", "1", "-o", "json")
    report = json.loads(out)
    assert report["about"]["devices"] == 2
    assert report["about"]["fleet"].startswith("snapshot fleet.json, taken 20")
    assert report["about"]["change"] == "line-3/inspector 1 to 2"
    assert any("taken to be as big as version 1" in line for line in report["about"]["assumptions"])
    assert [(each["workload"], each["version"]) for each in report["figures"]["rollouts"]] == [("line-3/inspector", "2")]
