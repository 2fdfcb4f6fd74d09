"""Versions that do not work: taken back, remembered, and nobody who asks what ran before notices. Damaged, unsigned or hostile ones: never
started, and said so clearly."""

import json
import subprocess
import time

import msgspec
import pytest
from system_artifacts import IDLE, bundle_release, model, model_release, server_release
from system_fleet import EDGEWISE, kill, resting, until

from edgewise.client.connection import API
from edgewise.client.errors import Invalid
from edgewise.client.publishing import hash_release
from edgewise.resources.artifact import Command, Probe, Probes
from edgewise.resources.states import RolloutState, UpdateState
from edgewise.resources.workload import Workload
from edgewise.trust.repository import refresh_timestamp

LIMITS = {
    "agent": {"fetch_resumes_max": 1, "fetch_pause_seconds_max": 0.1},
    "engine": {
        "restart_delay_seconds": 0.2,
        "fetch_delay_seconds": 0.3,
        "fetch_delay_seconds_max": 0.5,
        "untrusted_delay_seconds": 3.0,
        "untrusted_delay_seconds_max": 3.0,
    },
}
READY = Probe(http_path="/ready", period_seconds=0.5, failure_threshold=240)
NEVER_READY = Probe(http_path="/ready", period_seconds=0.5, failure_threshold=6)
SICK = Probe(command=Command(argv=("/bin/sh", "-c", "echo sick; exit 7")), period_seconds=0.2, failure_threshold=2)
ANSWERS = Probe(http_path="/", period_seconds=0.5, failure_threshold=6)


class Bad:
    """A version that does not work, and what the device says of it."""

    def __init__(self, message, good=model_release, bad=model_release, **release):
        self.message = message
        self.good = good
        self.bad = bad
        self.release = release
        self.path = "/" if good is server_release else None


BAD = {
    "garbage": Bad("ended unexpectedly with exit status 3", content=b"this is no model"),
    "crasher": Bad("signal 9"),
    "endless": Bad("not started within 3 s", content=model(2, endless=True).SerializeToString(), probes=Probes(start=NEVER_READY)),
    "sick": Bad("exit status 7: sick", probes=Probes(start=READY, liveness=SICK)),
    "exits": Bad("exit status 4", server_release, bundle_release, program="raise SystemExit(4)"),
    "hangs": Bad("not started within 3 s", server_release, bundle_release, program=IDLE, probes=Probes(start=ANSWERS)),
}


@pytest.fixture(scope="module")
def device(fleet):
    return fleet.device("d", limits=LIMITS)


def test_versions_that_do_not_work_are_taken_back_and_nobody_notices(fleet, device):
    for name, bad in BAD.items():
        fleet.push(bad.good(fleet.folder, name, 1))
        fleet.run(name, 1, probation="100ms")
    good = {name: fleet.serves(name, 1) for name in BAD}
    probers = {name: fleet.probe(device, name, bad.path) for name, bad in BAD.items()}
    for name, bad in BAD.items():
        fleet.push(bad.bad(fleet.folder, name, 2, **bad.release))
        fleet.run(
            name, 2, probation="6s" if name == "crasher" else "5m"
        )  # the others show soon what they are, and not too late when it is slow
    for _ in range(2):  # what crashes does so twice, soon after its start

        def candidate():
            found = [each for each in device.slots("crasher").values() if each.revision != good["crasher"]]
            return found[0].pid if found else 0

        kill(until(candidate, lambda: fleet.tell("crasher")))
    for name, bad in BAD.items():
        ended = fleet.ended(name, 2)
        assert ended.status.state == RolloutState.ROLLED_BACK, fleet.tell(name)
        until(lambda name=name: resting(device.instance(name), good[name]), lambda name=name: fleet.tell(name))
        assert ended.spec.to_revision in device.status(name).refused, name
        said = [each.message for each in fleet.events(source="d", reason="Refused") if ended.spec.to_revision in each.message]
        assert bad.message in said[0], (name, said)
    for name, prober in probers.items():
        seen = len(prober.answers)
        until(lambda prober=prober, seen=seen: len(prober.answers) > seen + 2, "answers")
        prober.stop()
        assert prober.dropped == [], name
        assert not prober.mixed({good[name]: 1, fleet.rollout(name).spec.to_revision: 2}), name
        assert prober.answers[-1] == (1, good[name]), name
    _tries_again_when_told(fleet, device)


def _tries_again_when_told(fleet, device):
    """What crashed was not at fault, and an operator knows: once the workload's refusals are cleared, it goes out again."""
    revision = fleet.rollout("crasher").spec.to_revision
    path = f"{API}/namespaces/{fleet.client.namespace}/workloads/crasher/clear-refused"
    fleet.ask(fleet.client._connection.json("POST", path, Workload))
    fleet.settled("crasher", revision)
    assert device.status("crasher").refused == ()


PICKY = "import os, sys\nif os.environ['VERSION'] == '2' and not os.path.exists({flag!r}): sys.exit(1)\n" + IDLE


def test_a_device_tries_again_what_it_refused_once_a_person_clears_that(fleet, device):
    """The second version needs something that only comes later. The rollout bears that one device fails."""
    flag = fleet.folder / "there"
    for version in (1, 2):
        fleet.push(bundle_release(fleet.folder, "picky", version, PICKY.format(flag=str(flag))))
    fleet.run("picky", 1)
    fleet.serves("picky", 1)
    fleet.run("picky", 2, budget="100%", probation="5s")
    revision = fleet.ended("picky", 2).spec.to_revision
    until(lambda: device.status("picky").refused == (revision,), lambda: fleet.tell("picky"))
    until(lambda: device.status("picky").ready, "the first version again")
    flag.write_text("")
    fleet.ask(fleet.client.clear_refused("d"))
    fleet.settled("picky", revision)
    assert device.status("picky").refused == ()


def _flipped(data):
    return data[:40] + bytes([data[40] ^ 1]) + data[41:]


DAMAGES = {
    "flipped": (_flipped, "not what was signed"),
    "truncated": (lambda data: data[:40], "is shorter than what was signed"),
    "oversized": (lambda data: data + b"more", "bytes that were signed"),
    "empty": (lambda _: b"", "0 of"),
}


def test_what_is_damaged_in_the_store_is_refused_until_it_is_whole_again(fleet, device):
    for name in DAMAGES:
        fleet.push(bundle_release(fleet.folder, name, 1))
        fleet.run(name, 1, probation="100ms")
    for name in DAMAGES:
        fleet.serves(name, 1)
    before = {name: device.pids(name) for name in DAMAGES}
    whole = {}
    for name, (damage, _) in DAMAGES.items():
        pushed = fleet.push(bundle_release(fleet.folder, name, 2, IDLE + f"# of {name}, the second\n"))
        path = fleet.blob(pushed.spec.manifest.variants[0].files[0].digest)
        whole[path] = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(damage(whole[path]))
        fleet.run(name, 2, probation="100ms")
    for name, (_, word) in DAMAGES.items():
        until(lambda name=name, word=word: word in device.status(name).message, lambda name=name: fleet.tell(name))
        assert device.status(name).update == UpdateState.FAILED
    assert {name: device.pids(name) for name in DAMAGES} == before
    assert not any(device.status(name).refused for name in DAMAGES)
    for path, data in whole.items():
        path.write_bytes(data)
    for name in DAMAGES:
        fleet.serves(name, 2)


def test_metadata_that_was_rolled_back_or_has_expired_is_refused(fleet, device):
    fleet.push(bundle_release(fleet.folder, "meta", 1))
    fleet.run("meta", 1)
    fleet.serves("meta", 1)
    pids = device.pids("meta")
    served, folder = fleet.hooks.folder / "repository", fleet.folder / "control" / "repository"
    served.mkdir()
    old = (folder / "timestamp.json").read_bytes()
    fleet.push(bundle_release(fleet.folder, "meta", 2))
    fleet.push(bundle_release(fleet.folder, "later", 1))
    fleet.run("later", 1)
    fleet.serves("later", 1)  # so that the device knows what is newer than the old timestamp

    (served / "timestamp.json").write_bytes(old)
    fleet.run("meta", 2)
    until(lambda: device.status("meta").reason == "RolledBack", lambda: fleet.tell("meta"))
    online = next((fleet.folder / "control" / "online").rglob("*online*.pem")).read_text()
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    for name, data in refresh_timestamp(files, online, time.time() - 60 * 86_400, force=True).items():
        (served / name).write_bytes(data)
    until(lambda: device.status("meta").reason == "Expired", lambda: fleet.tell("meta"))
    assert device.pids("meta") == pids
    for file in served.iterdir():
        file.unlink()
    fleet.serves("meta", 2)


HOSTILE = {"up": "../../outside", "absolute": "/tmp/outside", "inside": "a/../../outside"}


def test_a_release_that_would_write_elsewhere_is_refused_on_all_sides(fleet, device):
    """The release key signed it: a publisher's mistake, or a stolen key. First an honest control plane, then one that was taken over."""
    good = hash_release(bundle_release(fleet.folder, "hostile", 1)).manifest
    manifests = {}
    for name, path in HOSTILE.items():
        fleet.push(bundle_release(fleet.folder, name, 1))
        fleet.run(name, 1, probation="100ms")
        variant = good.variants[0]
        files = (*variant.files, msgspec.structs.replace(variant.files[0], path=path))
        manifests[name] = msgspec.structs.replace(
            good, artifact=name, version="2", variants=(msgspec.structs.replace(variant, files=files),)
        )
        with pytest.raises(Invalid, match="path"):
            fleet.push_manifest(manifests[name])
    for name in HOSTILE:
        fleet.serves(name, 1)
    before = {name: device.pids(name) for name in HOSTILE}
    fleet.hooks.order("lenient", "")
    for name, manifest in manifests.items():
        fleet.push_manifest(manifest)
        fleet.run(name, 2, budget="100%")
    fleet.hooks.revoke("lenient")
    for name, path in HOSTILE.items():
        revision = fleet.ended(name, 2).spec.to_revision
        until(lambda name=name, revision=revision: revision in device.status(name).refused, lambda name=name: fleet.tell(name))
        said = [each.message for each in fleet.events(source="d", reason="Refused") if revision in each.message]
        assert path in said[0], said
    assert {name: device.pids(name) for name in HOSTILE} == before
    assert not list(fleet.folder.rglob("outside"))


def test_links_and_devices_are_not_published(fleet, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "main.py").write_text(IDLE)
    (tree / "link").symlink_to("/etc/passwd")
    typed = [EDGEWISE, "artifact", "push", "-f", str(tmp_path / "artifact.yaml")]
    variant = {"name": "python", "path": "tree", "command": {"argv": ["${python}", "${bundle}/main.py"]}}
    (tmp_path / "artifact.yaml").write_text(json.dumps({"name": "linked", "version": "1", "type": "bundle", "variants": [variant]}))
    ended = subprocess.run(typed, env=fleet.environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "tree/link is a link or a device; only files and folders can be published" in ended.stderr
