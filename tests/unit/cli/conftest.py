"""One resource of every kind, as a fleet in the middle of something would have them."""

import msgspec
import pytest

from edgewise.resources.kinds import BY_NAME

NOW = 1_800_000_000.0
DIGEST = "sha256:" + "0" * 64
FILE = {"path": "model.onnx", "digest": DIGEST, "size": 4_200_000}
MANIFEST = {
    "type": "model",
    "namespace": "line-3",
    "artifact": "inspector",
    "version": "2",
    "variants": [{"name": "fp32", "files": [FILE], "runtime": "onnxruntime"}, {"name": "int8", "files": [FILE], "precision": "int8"}],
    "parameters": {"threshold": {"type": "number", "default": 0.5}},
}
WORKLOAD = {
    "artifact": {"name": "inspector", "version": "2"},
    "placement": {"everyMatchingDevice": {}, "selector": {"matchLabels": {"line": "3"}}},
    "strategy": {"analysis": [{"metric": "model.accuracy", "min": 0.95, "minSamples": 200}]},
}
BODIES = {
    "Site": ({"timeZone": "Europe/Berlin"}, {"devices": 4}),
    "Device": (
        {"site": "lab", "deviceClass": "camera-box", "agent": "edge-1", "unschedulable": True},
        {"connection": "Online", "health": "Healthy", "update": "Updating", "lastSeen": NOW - 30, "desiredNumber": 7, "observedNumber": 5,
         "capacity": {"architecture": "aarch64", "cpuMilli": 4000, "memory": 2**31, "memoryNominal": 2**32, "runtimes": {"onnxruntime": "1.20"},
                      "accelerators": [{"name": "orin", "kind": "gpu", "sharedMemory": True}]}},
    ),
    "Agent": ({"devices": ["edge-1"], "quarantined": True}, {"certificateNotAfter": NOW + 1000}),
    "Artifact": ({"aliases": {"champion": "2"}}, {"latest": "2"}),
    "ArtifactVersion": ({"manifest": MANIFEST, "target": "releases/line-3/inspector/2.json", "digest": DIGEST, "length": 9}, {}),
    "Workload": (WORKLOAD, {"revision": "abcdef123456", "stableRevision": "123456abcdef", "revisions": 2, "instances": 4, "ready": 3,
                            "conditions": [{"type": "Ready", "status": "False", "reason": "Rolling", "message": "one to go", "since": NOW - 5}]}),
    "WorkloadRevision": ({"workload": "inspector", "hash": "abcdef123456", "number": 2,
                          "template": {"artifact": "inspector", "version": "2", "manifestDigest": DIGEST}}, {}),
    "Instance": ({"workload": "inspector", "device": "edge-1", "revision": "abcdef123456", "variant": "int8", "rollout": "inspector-2"},
                 {"state": "Running", "update": "Probation", "updateRevision": "abcdef123456", "revision": "123456abcdef", "ready": True,
                  "refused": ["ffffff000000"], "startedAt": NOW - 500, "message": "warming up"}),
    "Rollout": ({"workload": "inspector", "toRevision": "abcdef123456", "fromRevision": "123456abcdef", "version": "2"},
                {"state": "Progressing", "wave": 2, "waves": 3, "members": {"succeeded": 1, "updating": 1, "failed": 1, "unreached": 1},
                 "failures": {"edge-2": "the probe failed"}, "startedAt": NOW - 60, "touched": 2, "touchedDevices": ["edge-1"],
                 "analysis": "Running", "verdicts": [{"metric": "model.accuracy", "state": "Running", "mean": 0.97, "samples": 120}]}),
    "Config": ({"data": {"a": "1"}}, {}),
    "Secret": ({}, {"keys": ["password"]}),
}  # fmt: skip
NAMES = {"ArtifactVersion": "inspector:2", "Instance": "inspector.edge-1", "Rollout": "inspector-2", "Device": "edge-1", "Site": "lab"}


def resource(kind):
    spec, status = BODIES[kind]
    meta = {"name": NAMES.get(kind, "inspector"), "createdAt": NOW - 3600, "labels": {"line": "3"}, "generation": 2}
    if BY_NAME[kind].namespaced:
        meta["namespace"] = "line-3"
    return msgspec.convert({"kind": kind, "metadata": meta, "spec": spec, "status": status}, BY_NAME[kind].type)


@pytest.fixture
def make():
    return resource


@pytest.fixture
def now():
    return NOW
