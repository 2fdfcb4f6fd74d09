"""The device's disk is full, read-only, or fails: what runs runs on, the control plane hears of it, and it recovers by itself."""

import contextlib
import errno
import os
import subprocess
import time

import pytest
from system_artifacts import bundle_release, model_release
from system_fleet import until

import edgewise as ew
from edgewise.resources.device import Capacity
from edgewise.resources.states import Health, UpdateState

LIMITS = {
    "agent": {"backoff_first_seconds": 0.2, "backoff_seconds_max": 1.0, "storage_retry_seconds": 0.1, "storage_retry_seconds_max": 0.5},
    "engine": {"storage_retry_seconds": 0.5, "fetch_delay_seconds": 0.3, "fetch_delay_seconds_max": 0.5, "remove_retry_seconds": 1.0},
}
SIZE = 24
"""Of the small disk, in MB. The installer leaves 16 MB free, so there is room for one update that is not too large."""


def health(fleet, device):
    status = fleet.ask(fleet.client.get(ew.Device, device.name)).status
    return status.health, {each.reason for each in status.conditions}


@pytest.fixture(scope="module")
def steady(fleet):
    """A device with a model that serves, and who asks it all the time."""
    device = fleet.device("d", {"plain": "1"}, LIMITS)
    fleet.push(model_release(fleet.folder, "m", 1))
    fleet.run("m", 1, "plain")
    fleet.serves("m", 1)
    return device, fleet.probe(device, "m")


@pytest.mark.parametrize(
    ("number", "said", "version"),
    [
        (errno.ENOSPC, (Health.DEGRADED, {"DiskFull"}), 2),
        (errno.EROFS, (Health.ERROR, {"DiskReadOnly"}), 3),
        (errno.EIO, (Health.ERROR, {"DiskDamaged"}), 4),
    ],
)
def test_a_disk_that_takes_nothing_stops_nothing_and_is_overcome(fleet, steady, number, said, version):
    device, prober = steady
    before, served = device.pids("m"), device.status("m").committed
    device.hooks.order("disk", str(number))
    fleet.push(model_release(fleet.folder, "m", version))
    fleet.run("m", version, "plain")
    until(lambda: health(fleet, device) == said, lambda: f"{health(fleet, device)}: {device.log[-2000:]}")
    seen = len(prober.answers)
    until(lambda: len(prober.answers) > seen + 20, "answers")
    assert device.pids("m") == before
    assert device.status("m").committed == served
    device.hooks.revoke("disk")
    fleet.serves("m", version)
    until(lambda: health(fleet, device) == (Health.HEALTHY, set()), lambda: f"{health(fleet, device)}")
    assert prober.dropped == []
    assert not device.status("m").refused


@pytest.fixture(scope="module")
def small_disk(fleet, tmp_path_factory):
    """A device whose data folder is a small file system of its own, seen by nobody else."""
    inside = ["unshare", "--mount", "--propagation", "private"]
    inside += ["--map-root-user"] if os.geteuid() else []
    if subprocess.run(
        [*inside, "mount", "-t", "tmpfs", "none", str(tmp_path_factory.mktemp("mount"))], check=False, capture_output=True
    ).returncode:
        pytest.skip("a private mount namespace is not permitted here")
    device = fleet.device("small", {"small": "1"}, LIMITS, start=False, capacity=Capacity(disk=10**9))
    seed = device.data.rename(fleet.folder / "seed")
    device.data.mkdir()
    script = f'mount -t tmpfs -o size={SIZE}m,mode=700 none {device.data} && cp -a {seed}/. {device.data} && exec "$@"'
    device.start([*inside, "sh", "-c", script, "sh"])
    device.data = type(device.data)(f"/proc/{device.process.pid}/root{device.data}")
    until((device.data / "run").is_dir, lambda: device.log)
    return device


def _fill(path):
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)) == 4096:
            pass


def test_a_device_whose_disk_is_really_full_works_on_and_updates_when_there_is_room(fleet, small_disk):
    device = small_disk
    fleet.push(model_release(fleet.folder, "s", 1))
    fleet.push(bundle_release(fleet.folder, "other", 1))
    for name in ("s", "other"):
        fleet.run(name, 1, "small")
        fleet.serves(name, 1)
    prober = fleet.probe(device, "s")
    filler = device.data / "filler"
    _fill(filler)
    fleet.push(model_release(fleet.folder, "s", 2, pad=2_000_000))
    fleet.run("s", 2, "small")
    until(lambda: device.status("s").update == UpdateState.FAILED, lambda: fleet.tell("s"))
    assert device.status("s").reason == "DiskFull", device.status("s")

    def told():
        """Every change of the desired state goes into the journal, which has room within its last block only."""
        fleet.run("other", 1, "small", probation=f"{time.monotonic():.2f}s")
        return health(fleet, device) == (Health.DEGRADED, {"DiskFull"})

    until(told, lambda: f"{health(fleet, device)}: {device.log[-2000:]}", every=0.3)
    os.kill(device.pids("other")[0], 9)  # even then what crashes is started again
    old = device.pids("other")
    until(lambda: device.pids("other") and device.pids("other") != old, lambda: device.log)
    filler.unlink()
    fleet.serves("s", 2)
    until(lambda: health(fleet, device) == (Health.HEALTHY, set()), lambda: f"{health(fleet, device)}")
    assert prober.stop().dropped == []
    assert not device.problems_of_trees()


def test_an_update_that_does_not_fit_is_put_off_not_refused(fleet, small_disk):
    """The device said that its disk was larger than it is."""
    device = small_disk
    served = device.status("s").committed
    assert served
    fleet.push(model_release(fleet.folder, "s", 3, pad=(SIZE - 10) * 1_000_000))
    fleet.run("s", 3, "small")
    until(lambda: device.status("s").update == UpdateState.FAILED, lambda: fleet.tell("s"))
    status = device.status("s")
    assert (status.revision, status.ready, status.refused) == (served, True, ())
    assert status.reason == "DiskFull", status
    fleet.push(model_release(fleet.folder, "s", 4))  # a smaller one takes its place
    fleet.run("s", 4, "small")
    fleet.serves("s", 4)
    assert not list((device.data / "staging").iterdir())
