"""Fetching, verifying and installing: what must work, and what must be refused."""

import fcntl
import os
import threading
import time

import msgspec
import pytest

from edgewise.agent.fetching import Fetcher
from edgewise.agent.helper import Helper, HelperFailed
from edgewise.agent.jobs import FetchJob, Place, Progress, RenewJob
from edgewise.agent.limits import AgentLimits
from edgewise.engine.install import installed_trees
from edgewise.engine.protocol import Failed, Fetched
from edgewise.ports.disk import DiskFiles
from edgewise.resources.artifact import File, Parameter

BIG = bytes(range(256)) * 12_000  # about 3 MB
LIMITS = AgentLimits(fetch_pause_seconds_max=0.01, read_seconds=30.0)


@pytest.fixture
def device(fleet, tmp_path):
    fleet.join(tmp_path / "device")
    return str(tmp_path / "device")


@pytest.fixture
def fetch(fleet, device):
    """Run a fetch in this process; returns (result, lines)."""

    def run(target, floor: float = 0.0, limits: AgentLimits = LIMITS, **parameters):
        lines: list[Progress] = []
        place = Place(data=device, addresses=(fleet.gateway.address,), floor=floor)
        job = FetchJob(place=place, artifact=target, parameters=parameters)
        return Fetcher(job, DiskFiles(device), lines.append, limits=limits, sleep=lambda _seconds: None).run(), lines

    return run


def test_a_variant_is_fetched_verified_and_installed(fleet, fetch, tmp_path):
    manifest = fleet.bundle(
        {"main.py": b"print(1)\n", "data/big.bin": BIG},
        parameters={
            "threshold": Parameter(type="number", default=0.5),
            "mode": Parameter(default="fast"),
            "count": Parameter(type="integer"),
        },
    )
    result, lines = fetch(fleet.release(manifest), threshold=0.8)
    assert isinstance(result, Fetched), result
    assert result.variant == manifest.variants[0]
    assert result.parameters == {"threshold": 0.8, "mode": "fast"}
    tree = tmp_path / "device" / "trees" / result.tree
    assert (tree / "main.py").read_bytes() == b"print(1)\n"
    assert (tree / "data/big.bin").read_bytes() == BIG
    assert lines[0].stage == "Download"
    assert [line.stage for line in lines][-2:] == ["Verify", "Install"]


def test_what_is_installed_is_not_fetched_again(fleet, fetch):
    target = fleet.release(fleet.bundle({"main.py": b"1", "big": BIG}))
    first, _ = fetch(target)
    before = len([each for each in fleet.gateway.requests if "/blobs/" in each.target])
    second, _ = fetch(target)
    assert first == second
    assert len([each for each in fleet.gateway.requests if "/blobs/" in each.target]) == before + 1  # the manifest


def test_a_cut_download_goes_on_where_it_was(fleet, fetch, helpers, tmp_path):
    target = fleet.release(fleet.bundle({"main.py": b"1", "big": BIG}))
    cuts = [100_000, 1_200_000, 0, 700_000]

    def serve(request, data):
        reply = helpers.serve_blob(request, data)
        if len(data) == len(BIG) and cuts:
            reply.cut = cuts.pop(0)
        return reply

    fleet.blob_handler = serve
    result, _ = fetch(target)
    assert isinstance(result, Fetched), result
    assert cuts == []
    assert (tmp_path / "device" / "trees" / result.tree / "big").read_bytes() == BIG
    sent = [each.headers.get("range", "") for each in fleet.gateway.requests if "/blobs/" in each.target][1:]
    assert sent.count("") == 2  # main.py, and the first try of the other
    assert len([each for each in sent if each.startswith("bytes=")]) >= 3


def test_a_resume_that_gives_up_is_transient_and_goes_on_in_the_next_fetch(fleet, fetch, helpers):
    target = fleet.release(fleet.bundle({"main.py": b"1", "big": BIG}))
    asked: list[str] = []

    def serve(request, data):
        reply = helpers.serve_blob(request, data)
        if len(data) == len(BIG):
            asked.append(request.headers.get("range", ""))
            reply.cut = 0 if len(asked) > 1 else 2_000_000
        return reply

    fleet.blob_handler = serve
    result, _ = fetch(target)
    assert isinstance(result, Failed)
    assert (result.kind, result.reason) == ("transient", "Unreachable")
    assert len(asked) == 1 + LIMITS.fetch_resumes_max
    fleet.blob_handler = helpers.serve_blob
    result, _ = fetch(target)
    assert isinstance(result, Fetched)
    assert int(fleet.gateway.requests[-1].headers["range"].removeprefix("bytes=").rstrip("-")) > 1_000_000


def test_a_server_that_ignores_ranges_still_serves(fleet, fetch, helpers):
    target = fleet.release(fleet.bundle({"main.py": b"1", "big": BIG}))
    tries: list[int] = []

    def serve(request, data):
        tries.append(1)
        return helpers.Reply(body=data, cut=1_500_000 if len(data) == len(BIG) and len(tries) < 4 else None)

    fleet.blob_handler = serve
    result, _ = fetch(target)
    assert isinstance(result, Fetched), result


@pytest.mark.parametrize("at", [0, 1_500_000, len(BIG) - 1])
def test_a_flipped_byte_is_refused(fleet, fetch, tmp_path, at):
    target = fleet.release(fleet.bundle({"main.py": b"1", "big": BIG}))
    digest = next(digest for digest, data in fleet.blobs.items() if data == BIG)
    fleet.blobs[digest] = BIG[:at] + bytes([BIG[at] ^ 1]) + BIG[at + 1 :]
    result, _ = fetch(target)
    assert isinstance(result, Failed)
    assert (result.kind, result.reason) == ("untrusted", "WrongDigest")
    assert "big" in result.message
    assert installed_trees(DiskFiles(str(tmp_path / "device"))) == ()
    fleet.blobs[digest] = BIG
    assert isinstance(fetch(target)[0], Fetched)


def test_a_longer_or_shorter_blob_is_refused(fleet, fetch):
    target = fleet.release(fleet.bundle({"main.py": b"1", "big": BIG}))
    digest = next(digest for digest, data in fleet.blobs.items() if data == BIG)
    fleet.blobs[digest] = BIG + b"x"
    assert fetch(target)[0].kind == "untrusted"
    fleet.blobs[digest] = BIG[:-1]
    result, _ = fetch(target)
    assert (result.kind, result.reason) == ("untrusted", "WrongSize")


def test_a_manifest_that_was_changed_is_refused(fleet, fetch):
    target = fleet.release(fleet.bundle({"main.py": b"1"}))
    fleet.blobs[target.digest] = fleet.blobs[target.digest].replace(b"main.py", b"evil.py")
    assert fetch(target)[0].kind == "untrusted"


def test_what_nobody_signed_is_refused(fleet, fetch):
    target = fleet.release(fleet.bundle({"main.py": b"1"}))
    result, _ = fetch(msgspec.structs.replace(target, target="releases/line-3/camera/2.json"))
    assert (result.kind, result.reason) == ("untrusted", "UnknownTarget")
    other = fleet.add_blob(b"{}")
    assert fetch(msgspec.structs.replace(target, digest=other))[0].kind == "untrusted"


def test_metadata_that_expired_is_refused(fleet, fetch, issuer, tmp_path):
    target = fleet.release(fleet.bundle({"main.py": b"1"}))
    result, _ = fetch(target, floor=time.time() + 200 * 86400)  # the server's certificate of the tests lives an hour: it is judged first
    assert result.kind == "transient"
    fleet.gateway.stop()
    longer = type(fleet.gateway)(issuer, tmp_path, lifetime=400 * 86400)
    try:
        longer.handler = fleet.handle
        fleet.gateway = longer
        result, _ = fetch(target, floor=time.time() + 200 * 86400)
        assert (result.kind, result.reason) == ("untrusted", "Expired")
    finally:
        longer.stop()


def test_rolled_back_metadata_is_refused(fleet, fetch):
    old = dict(fleet.repository_files)
    target = fleet.release(fleet.bundle({"main.py": b"1"}))
    assert isinstance(fetch(target)[0], Fetched)
    fleet.repository_files = old
    result, _ = fetch(target)
    assert (result.kind, result.reason) == ("untrusted", "RolledBack")


@pytest.mark.parametrize(
    ("parameters", "wrong"),
    [({"unknown": 1}, "unknown"), ({"count": "x"}, "count"), ({"count": 11}, "count"), ({"mode": "slow"}, "mode")],
)
def test_parameters_that_were_not_declared_are_refused(fleet, fetch, parameters, wrong):
    declared = {"count": Parameter(type="integer", maximum=10), "mode": Parameter(choices=("fast",))}
    result, _ = fetch(fleet.release(fleet.bundle({"main.py": b"1"}, parameters=declared)), **parameters)
    assert (result.kind, result.reason) == ("invalid", "ParameterRefused")
    assert wrong in result.message


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "a\0b", ".", "a//b"])
def test_paths_that_lead_outside_are_invalid(fleet, fetch, path):
    manifest = fleet.bundle({"main.py": b"1"})
    evil = File(path=path, digest=fleet.add_blob(b"evil"), size=4)
    variant = msgspec.structs.replace(manifest.variants[0], files=(*manifest.variants[0].files, evil))
    result, _ = fetch(fleet.release(msgspec.structs.replace(manifest, variants=(variant,))))
    assert result.kind == "invalid"


def test_a_manifest_under_another_name_is_refused(fleet, fetch):
    target = fleet.release(fleet.bundle({"main.py": b"1"}))
    manifest = msgspec.json.encode(fleet.bundle({"main.py": b"1"}, artifact="other"))
    digest = fleet.add_blob(manifest)
    from edgewise.trust.repository import accept_delegated, add_release, delegated_metadata

    path = "releases/line-3/camera/9.json"
    metadata = add_release(delegated_metadata(fleet.repository_files), path, digest, len(manifest), fleet.keys.releases[0], time.time())
    fleet.repository_files |= accept_delegated(fleet.repository_files, "releases", metadata, fleet.keys.online, time.time())
    result, _ = fetch(msgspec.structs.replace(target, target=path, digest=digest, length=len(manifest)))
    assert (result.kind, result.reason) == ("untrusted", "Mismatch")


def test_an_unknown_variant_or_type_is_invalid(fleet, fetch):
    target = fleet.release(fleet.bundle({"main.py": b"1"}))
    assert fetch(msgspec.structs.replace(target, variant="int8"))[0].reason == "NoSuchVariant"
    assert fetch(msgspec.structs.replace(target, type="model"))[0].reason == "WrongType"


def test_a_busy_control_plane_is_transient(fleet, fetch, helpers):
    target = fleet.release(fleet.bundle({"main.py": b"1"}))
    fleet.blob_handler = lambda request, data: helpers.error_reply(503, "Overloaded", Retry_After="1")
    result, _ = fetch(target)
    assert (result.kind, result.reason) == ("transient", "Refused")
    fleet.blob_handler = lambda request, data: helpers.error_reply(503, "Overloaded", Retry_After="3000")
    before = len(fleet.gateway.requests)
    assert fetch(target)[0].kind == "transient"
    assert len([each for each in fleet.gateway.requests[before:] if "/blobs/" in each.target]) == 1


def test_metadata_is_looked_at_by_one_fetch_at_a_time(fleet, fetch, device):
    """Two fetches share the cache: one that read earlier must not write after one that read later."""
    held: list[bool] = []

    class Served(dict):
        def get(self, name):
            folder = os.open(device, os.O_RDONLY)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held.append(False)
            except BlockingIOError:
                held.append(True)
            finally:
                os.close(folder)
            return super().get(name)

    target = fleet.release(fleet.bundle({"main.py": b"1"}))
    fleet.repository_files = Served(fleet.repository_files)
    assert isinstance(fetch(target)[0], Fetched)
    assert held == [True] * 5  # the next root, timestamp, snapshot, targets, releases
    assert isinstance(fetch(target)[0], Fetched)


def test_a_control_plane_that_is_gone_is_transient(fleet, fetch):
    target = fleet.release(fleet.bundle({"main.py": b"1"}))
    fleet.gateway.stop()
    result, _ = fetch(target)
    assert (result.kind, result.reason) == ("transient", "Unreachable")


def test_too_little_room_is_transient(fleet, device, tmp_path):
    target = fleet.release(fleet.bundle({"main.py": b"1", "big": BIG}))
    job = FetchJob(place=Place(data=device, addresses=(fleet.gateway.address,)), artifact=target)
    result = Fetcher(job, DiskFiles(device, quota_bytes=2_000_000), lambda line: None, limits=LIMITS, sleep=lambda _s: None).run()
    assert (result.kind, result.reason) == ("transient", "DiskFull")


# ---- the process itself ----


def test_the_real_process(fleet, device):
    target = fleet.release(fleet.bundle({"main.py": b"1", "big": BIG}))
    helper = Helper()
    lines: list[Progress] = []
    place = Place(data=device, addresses=(fleet.gateway.address,))
    result = helper.fetch(1, FetchJob(place=place, artifact=target), lines.append)
    assert isinstance(result, Fetched), result
    assert lines[-1].stage == "Install"
    renewed = helper.renew(RenewJob(place=place, force=True))
    assert renewed.renewed, renewed


def test_a_fetch_can_be_cancelled_and_goes_on_later(fleet, device, helpers, wait_for):
    target = fleet.release(fleet.bundle({"main.py": b"1", "big": BIG}))
    reached = threading.Event()

    def serve(request, data):
        reply = helpers.serve_blob(request, data)
        if len(data) == len(BIG):
            reached.set()
            reply.delay = 3.0
        return reply

    fleet.blob_handler = serve
    helper, results = Helper(), []
    job = FetchJob(place=Place(data=device, addresses=(fleet.gateway.address,)), artifact=target)
    thread = threading.Thread(target=lambda: results.append(helper.fetch(7, job, lambda line: None)))
    thread.start()
    assert reached.wait(20)
    helper.cancel(7)
    thread.join(5)
    assert results[0].kind == "transient"
    assert helper.fetch(7, job, lambda line: None).message == "cancelled"
    helper.forget(7)
    fleet.blob_handler = helpers.serve_blob
    assert isinstance(helper.fetch(7, job, lambda line: None), Fetched)


@pytest.mark.parametrize(
    ("program", "message", "silence"),
    [
        ("import sys; sys.exit(3)", "without a result", 60),
        ("print('{}')", "no line", 60),
        ("import time; time.sleep(600)", "silent", 0.5),
        ("print('x' * 2000)", "too long", 60),
        ("import sys; sys.stderr.write('boom\\n'); sys.exit(1)", "boom", 60),
    ],
)
def test_a_helper_that_misbehaves_never_wedges(program, message, silence):
    import sys

    limits = AgentLimits(fetch_silence_seconds=silence, fetch_line_bytes_max=1000)
    helper = Helper((sys.executable, "-c", program), limits)
    with pytest.raises(HelperFailed, match=message):
        helper.renew(RenewJob(place=Place(data="/", addresses=())))


def test_a_helper_that_does_not_start_is_said():
    with pytest.raises(HelperFailed, match="started"):
        Helper(("/nowhere/python",)).renew(RenewJob(place=Place(data="/", addresses=())))
