"""Who a device is, and what time it thinks it is: months in a drawer, revoked, cloned, with a clock that lies."""

import shutil
import time

import pytest
from system_artifacts import COUNTER, IDLE, bundle_release, model_release
from system_fleet import Device, until

import edgewise as ew
from edgewise.client.connection import API
from edgewise.engine.identity import Certificates, read_certificates, read_keys, renew
from edgewise.ports.disk import DiskFiles
from edgewise.resources.device import Agent
from edgewise.resources.states import Connection
from edgewise.trust.authority import Issuer, leaf_der, not_after_of
from edgewise.trust.keys import signing_request

LIMITS = {
    "agent": {
        "backoff_first_seconds": 0.2,
        "backoff_seconds_max": 1.0,
        "refused_backoff_seconds_max": 1.0,
        "renew_retry_seconds": 1.0,
        "renew_first_seconds": 1.0,
    }
}
DAY = 86_400.0


@pytest.fixture(scope="module")
def running(fleet):
    """A workload that runs on every device, to see that it stays."""
    fleet.push(bundle_release(fleet.folder, "idle", 1, IDLE))
    fleet.run("idle", 1)
    return fleet


def online(fleet, name):
    return fleet.ask(fleet.client.get(ew.Device, name)).status.connection == Connection.ONLINE


def not_after(device):
    files = DiskFiles(str(device.data))
    try:
        return not_after_of(leaf_der(read_certificates(files).certificate))
    finally:
        files.close()


def age(device):
    """Give a device that is off the certificate that it would have after half a year in a drawer."""
    folder = device.fleet.folder / "control" / "online"
    issuer = Issuer(*((folder / name).read_text() for name in ("issuing.key", "issuing.crt", "authority-root.crt")))
    files = DiskFiles(str(device.data))
    old, keys = read_certificates(files), read_keys(files)
    chain = issuer.issue_agent(signing_request(keys.key, old.agent), old.agent, time.time() - 180 * DAY)
    renew(files, Certificates(agent=old.agent, certificate=chain, authority=old.authority))
    files.close()
    assert not_after(device) < time.time() - 60 * DAY


def test_a_certificate_that_expired_months_ago_is_renewed_unless_it_was_revoked(running):
    fleet = running
    kept, revoked = (fleet.device(name, limits=LIMITS) for name in ("drawer", "thief"))
    for device in (kept, revoked):
        until(lambda device=device: device.status("idle").ready, lambda: fleet.tell("idle"))
        device.stop()
        age(device)
    fleet.ask(fleet.client._connection.json("POST", f"{API}/agents/thief/revoke", Agent))
    for device in (kept, revoked):
        device.start()
    until(lambda: not_after(kept) > time.time() + 30 * DAY, lambda: kept.log)
    until(lambda: online(fleet, "drawer") and kept.status("idle").ready, lambda: fleet.tell("idle"))

    until(lambda: "Revoked" in revoked.log, lambda: revoked.log)
    until(lambda: revoked.pids("idle"), "the workload of the revoked device")  # it runs on, but nobody listens to it
    assert not_after(revoked) < time.time()
    assert fleet.ask(fleet.client.get(Agent, "thief")).spec.revoked
    revoked.stop()


def test_two_devices_with_one_identity_are_both_quarantined(running):
    fleet = running
    device = fleet.device("twin", limits=LIMITS)
    until(lambda: device.status("idle").ready, lambda: fleet.tell("idle"))
    device.stop()
    clone = Device(fleet, "clone", LIMITS)
    shutil.copytree(device.data, clone.data, symlinks=True)
    fleet.devices["clone"] = clone
    device.start()
    clone.start()
    until(lambda: fleet.ask(fleet.client.get(Agent, "twin")).spec.quarantined, lambda: fleet.tell("idle"))
    for one in (device, clone):
        until(lambda one=one: "Quarantined" in one.log, lambda one=one: one.log)
        until(lambda one=one: one.pids("idle"), "what ran runs on")
    assert fleet.events(reason="Quarantined")
    clone.stop()

    fleet.ask(fleet.client._connection.json("POST", f"{API}/agents/twin/approve", Agent))  # an operator found the wrong one
    until(lambda: online(fleet, "twin") and device.status("idle").ready, lambda: device.log)


CLOCKS = {"ahead": f"+{DAY}", "behind": f"-{DAY}", "seventy": "=0"}


def test_devices_whose_clocks_are_wrong_work_like_any_other(running):
    """They join, are trusted, fetch, serve, report, count; and what they tell is told with times that a person can use."""
    fleet = running
    devices = []
    for name, clock in CLOCKS.items():
        device = fleet.device(name, {"wrong": "1"}, LIMITS, start=False)
        device.hooks.order("clock", clock)
        devices.append(device.start())
    for release in (model_release(fleet.folder, "m", 1), bundle_release(fleet.folder, "counter", 1, COUNTER)):
        fleet.push(release)
        fleet.run(release.name, 1, "wrong")
    fleet.serves("m", 1, set(CLOCKS))
    fleet.serves("counter", 1, set(CLOCKS))
    for device in devices:
        (home,) = (device.data / "instances").glob("*counter*/a")
        (home / "goal").write_text("20")
        until(
            lambda device=device: fleet.total(device.name, "parts") == 20,
            lambda device=device: f"20 parts of {device.name}, not {fleet.total(device.name, 'parts')}",
        )
        told = [event.at for event in fleet.events(source=device.name) if event.reason == "Committed"]
        assert told
        assert all(abs(time.time() - at) < 300 for at in told), told
    # The clock is set right, as time synchronisation does once there is a network; then the battery of the clock is empty again.
    seventy = devices[-1]
    for clock in ("+0", "=0"):
        seventy.stop()
        seventy.hooks.order("clock", clock)
        seventy.start()
        until(lambda: online(fleet, "seventy") and seventy.status("m").ready, lambda: seventy.log)
    fleet.push(model_release(fleet.folder, "m", 2))
    fleet.run("m", 2, "wrong")
    fleet.serves("m", 2, set(CLOCKS))
