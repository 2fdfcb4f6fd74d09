"""What a device believes of a repository that anybody may serve. The attacks of the TUF specification are in `tests/unit/twin/test_adversary.py`."""

import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tuf.api.metadata import Metadata, TargetFile

from edgewise.ports.files import FilesError
from edgewise.trust import _metadata
from edgewise.trust.repository import (
    LIMITS,
    delegated_metadata,
    refresh_timestamp,
)
from edgewise.trust.rotation import RootChange, rotate_delegation, rotate_root
from edgewise.trust.verify import FetchMissing, Untrusted, verification, verified_target

DAY = 86_400.0
TARGET = ("sha256:" + "a" * 64, 10)


def _reason(call, *arguments, **more) -> str:
    with pytest.raises(Untrusted) as refused:
        call(*arguments, **more)
    return refused.value.reason


def _resigned(fleet, name: str, change, keys) -> bytes:
    metadata = Metadata.from_bytes(fleet.files[name])
    change(metadata.signed)
    return _metadata.sign(metadata.signed, keys)


def test_a_released_target_is_found_and_the_cache_saves_asking(fleet):
    assert fleet.look() == TARGET
    assert fleet.asked == ["2.root.json", "timestamp.json", "2.snapshot.json", "1.targets.json", "2.releases.json"]
    fleet.asked.clear()
    assert fleet.look() == TARGET
    assert fleet.asked == ["2.root.json", "timestamp.json"]


def test_the_cache_may_be_removed_or_damaged(fleet):
    fleet.files.update(rotate_root(fleet.files, fleet.keys.root, fleet.keys.online, RootChange(), fleet.now))
    assert fleet.look() == TARGET
    for name in ("timestamp.json", "snapshot.json", "targets.json", "releases.json", "root_history/2.root.json"):
        (fleet.folder / name).write_bytes(b"torn")
        assert fleet.look() == TARGET
    shutil.rmtree(fleet.folder)
    assert fleet.look() == TARGET


def test_what_nobody_released_is_unknown(fleet):
    assert _reason(fleet.look, "releases/default/inspector/9.json") == "UnknownTarget"


@pytest.mark.parametrize(
    "path",
    ["pipeline/default/inspector/1.json", "rounds/a/b", "other/default/inspector/1.json", "releases/../../etc/passwd", "", "releases/a/b"],
)
def test_other_paths_are_not_even_looked_up(fleet, path):
    assert _reason(fleet.look, path) == "UnknownTarget"
    assert len(fleet.asked) == 0 or path == "releases/a/b"


def test_expired_metadata_is_refused_at_the_second(fleet):
    end = fleet.now + LIMITS.timestamp_lifetime_seconds
    assert fleet.look(now=end - 1) == TARGET
    assert _reason(fleet.look, now=end) == "Expired"
    fleet.files.update(refresh_timestamp(fleet.files, fleet.keys.online, end))
    assert fleet.look(now=end) == TARGET


FILES = {"root": "1.root.json", "targets": "1.targets.json", "releases": "2.releases.json", "snapshot": "2.snapshot.json"}


def _all_fresh(fleet, later: float) -> None:
    """Sign everything anew at `later`, as if it had been renewed in time."""
    keys = {"releases": fleet.keys.releases, "targets": [fleet.keys.targets], "root": fleet.keys.root, "snapshot": [fleet.keys.online]}

    def renew(signed) -> None:
        signed.expires = _metadata.instant(later, DAY)
        if signed.type == "snapshot":
            signed.meta = {name: _metadata.MetaFile(meta.version) for name, meta in signed.meta.items()}

    for role in ("releases", "targets", "root", "snapshot"):
        fleet.files[FILES[role]] = _resigned(fleet, FILES[role], renew, keys[role])
    fleet.root = fleet.files["1.root.json"]
    stamp = Metadata.from_bytes(fleet.files["timestamp.json"]).signed
    stamp.expires = _metadata.instant(later, DAY)
    stamp.snapshot_meta = _metadata.MetaFile(2)
    fleet.files["timestamp.json"] = _metadata.sign(stamp, [fleet.keys.online])


def test_every_role_expires(fleet):
    lifetimes = {"releases": 730, "targets": 5 * 365, "root": 10 * 365}
    for role, days in lifetimes.items():
        later = fleet.now + days * DAY + 1
        shutil.rmtree(fleet.folder, ignore_errors=True)
        _all_fresh(fleet, later)
        assert fleet.look(now=later) == TARGET
        fleet.files[FILES[role]] = _resigned(
            fleet,
            FILES[role],
            lambda s, later=later: setattr(s, "expires", _metadata.instant(later)),
            {"releases": fleet.keys.releases, "targets": [fleet.keys.targets], "root": fleet.keys.root}[role],
        )
        fleet.root = fleet.files["1.root.json"]
        shutil.rmtree(fleet.folder)
        with pytest.raises(Untrusted, match=f"{role}.*expired") as refused:
            fleet.look(now=later)
        assert refused.value.reason == "Expired"


def test_the_snapshot_expires(fleet):
    later = fleet.now + LIMITS.snapshot_lifetime_seconds
    stamp = Metadata.from_bytes(fleet.files["timestamp.json"]).signed
    stamp.expires = _metadata.instant(later, DAY)
    fleet.files["timestamp.json"] = _metadata.sign(stamp, [fleet.keys.online])
    assert fleet.look(now=later - 1) == TARGET
    with pytest.raises(Untrusted, match=r"snapshot\.json is expired"):
        fleet.look(now=later)


@pytest.mark.parametrize("now", [-1e9, 0.0, 1e5])
def test_a_clock_at_1970_expires_nothing(fleet, now):
    """A device whose clock and floor say 1970 still checks signatures and versions; the floor is what guards time."""
    assert fleet.look(now=now) == TARGET


@pytest.mark.parametrize("now", [1e12, 1e300])
def test_a_clock_beyond_all_dates_expires_everything(fleet, now):
    assert _reason(fleet.look, now=now) == "Expired"


def _target(path: str):
    from tuf.api.metadata import TargetFile

    return TargetFile(5, {"sha256": "e" * 64}, path)


def test_a_device_that_wants_pipeline_targets_says_so(fleet):
    path = "pipeline/default/inspector/1.json"
    fleet.files["2.pipeline.json"] = _resigned(
        fleet, "1.pipeline.json", lambda s: (setattr(s, "version", 2), s.targets.update({path: _target(path)})), [fleet.keys.pipeline]
    )
    metas = dict(_metadata.snapshot_of(fleet.files).signed.meta)
    metas["pipeline.json"] = _metadata.MetaFile(2)
    fleet.files.update(_metadata.online_files(metas, (3, 3), fleet.keys.online, fleet.now))
    assert fleet.look(path, prefixes=("pipeline/",)) == ("sha256:" + "e" * 64, 5)
    assert _reason(fleet.look, path) == "UnknownTarget"


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["timestamp.json", "2.snapshot.json", "1.targets.json", "2.releases.json"]), st.integers(0, 5000), st.integers(0, 255)
)
def test_a_changed_byte_never_changes_the_answer(fleet, tmp_path, name, at, byte):
    shutil.rmtree(fleet.folder, ignore_errors=True)
    data = bytearray(fleet.files[name])
    data[at % len(data)] = byte
    served = {**fleet.files, name: bytes(data)}

    def fetch(asked: str, limit: int) -> bytes:
        if asked not in served:
            raise FetchMissing(asked)
        return served[asked]

    try:
        answer = verified_target(fleet.disk, fleet.root, fetch, "releases/default/inspector/1.json", fleet.now)
    except (Untrusted, FetchMissing):
        return
    assert answer == TARGET


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b"{}", b"[" * 10_000, b'{"signed": {"_type": "timestamp"}, "signatures": []}', b"\x00" * 16_384]
)
def test_other_bytes_are_refused(fleet, data):
    fleet.files["timestamp.json"] = data
    assert _reason(fleet.look) == "Malformed"


def test_more_bytes_than_asked_for_are_refused(fleet):
    fine = fleet.files["timestamp.json"]
    for size in (LIMITS.timestamp_bytes_max - 1, LIMITS.timestamp_bytes_max):
        fleet.files["timestamp.json"] = fine + b" " * (size - len(fine))
        assert fleet.look() == TARGET
    fleet.files["timestamp.json"] = fine + b" " * (LIMITS.timestamp_bytes_max + 1 - len(fine))
    assert _reason(fleet.look) == "Mismatch"


class Unplugged(Exception):
    pass


def test_errors_of_the_network_come_out_as_they_are(fleet):
    def unplugged(name: str, limit: int) -> bytes:
        raise Unplugged(name)

    with pytest.raises(Unplugged):
        verified_target(fleet.disk, fleet.root, unplugged, "releases/default/inspector/1.json", fleet.now)


def test_a_repository_that_is_not_there_is_missing(fleet):
    del fleet.files["timestamp.json"]
    with pytest.raises(FetchMissing, match="timestamp"):
        fleet.look()


def test_a_folder_that_takes_no_writes_is_an_error_of_the_disk(fleet):
    fleet.folder.write_text("in the way")
    with pytest.raises(FilesError):
        fleet.look()


def test_a_cache_that_cannot_be_read_is_asked_for_again(fleet):
    """It is only a cache: what guards against a roll-back is gone with it, and the pinned root is not."""
    assert fleet.look() == TARGET
    for name in ("timestamp.json", "snapshot.json", "targets.json", "releases.json"):
        (fleet.folder / name).unlink()
        (fleet.folder / name).symlink_to("/dev/zero")
        assert fleet.look() == TARGET


def test_a_library_that_does_not_let_the_time_be_set_is_not_trusted(fleet):
    class Frozen:
        pass

    with pytest.raises(Untrusted, match="does not let the time be set"):
        next(verification(fleet.disk, fleet.root, "releases/default/inspector/1.json", fleet.now, trusting=lambda _root: Frozen()))


# ---- rotation ----


def test_a_new_root_is_followed_from_any_earlier_one(fleet):
    first = fleet.root
    assert fleet.look() == TARGET
    keys = fleet.keys.root
    for _ in range(3):
        new = (_metadata.new_key(), _metadata.new_key())
        fleet.files.update(rotate_root(fleet.files, keys, fleet.keys.online, RootChange(root_keys=new, threshold=2), fleet.now))
        keys = new
    assert "4.root.json" in fleet.files
    assert fleet.look() == TARGET
    shutil.rmtree(fleet.folder)
    fleet.root = first
    assert fleet.look() == TARGET
    fleet.root = fleet.files["4.root.json"]
    assert fleet.look() == TARGET


def test_a_root_takes_the_signatures_of_the_old_one(fleet):
    stranger = _metadata.new_key()
    with pytest.raises(_metadata.MetadataRefused) as refused:
        rotate_root(fleet.files, [stranger], fleet.keys.online, RootChange(root_keys=(stranger,)), fleet.now)
    assert refused.value.reason == "BadThreshold"
    forged = _resigned(fleet, "1.root.json", lambda s: setattr(s, "version", 2), [stranger])
    fleet.files["2.root.json"] = forged
    assert _reason(fleet.look) == "BadSignature"


def test_a_stolen_online_key_is_replaced(fleet):
    assert fleet.look() == TARGET
    stolen, new = fleet.keys.online, _metadata.new_key()
    fleet.files.update(rotate_root(fleet.files, fleet.keys.root, stolen, RootChange(online_key=new), fleet.now))
    assert fleet.look() == TARGET
    fleet.files.update(refresh_timestamp(fleet.files, stolen, fleet.now, force=True))
    assert _reason(fleet.look) == "BadSignature"
    fleet.files.update(refresh_timestamp(fleet.files, new, fleet.now, force=True))
    assert fleet.look() == TARGET


def test_a_stolen_release_key_is_replaced(fleet):
    assert fleet.look() == TARGET
    stolen, new = fleet.keys.releases[0], _metadata.new_key()
    changed = rotate_delegation(
        fleet.files, "releases", [new], 1, targets_key=fleet.keys.targets, online_key=fleet.keys.online, now=fleet.now
    )
    fleet.files.update(changed)
    assert fleet.look() == TARGET
    fleet.release("releases/default/inspector/2.json", key=new)
    assert fleet.look("releases/default/inspector/2.json") == TARGET
    evil = _resigned(fleet, _metadata.targets_name(fleet.files, "releases"), lambda s: setattr(s, "version", 9), [stolen])
    fleet.files.update(_metadata.publish(fleet.files, {"releases": (9, evil)}, fleet.keys.online, fleet.now))
    assert _reason(fleet.look) == "BadSignature"


def test_the_targets_key_is_replaced(fleet):
    new = _metadata.new_key()
    fleet.files.update(rotate_root(fleet.files, fleet.keys.root, fleet.keys.online, RootChange(targets_key=new), fleet.now))
    assert fleet.look() == TARGET
    with pytest.raises(_metadata.MetadataRefused) as refused:
        rotate_delegation(
            fleet.files, "releases", [_metadata.new_key()], 1, targets_key=fleet.keys.targets, online_key=fleet.keys.online, now=fleet.now
        )
    assert refused.value.reason == "WrongKey"


def test_an_old_root_is_extended(fleet):
    later = fleet.now + LIMITS.root_lifetime_seconds + DAY
    fleet.files.update(rotate_root(fleet.files, fleet.keys.root, fleet.keys.online, RootChange(), later))
    fleet.files.update(refresh_timestamp(fleet.files, fleet.keys.online, later))
    expires = json.loads(fleet.files["2.root.json"])["signed"]["expires"]
    assert expires.startswith(("2046", "2047"))
    assert _reason(fleet.look, now=later) == "Expired"  # targets and releases are people's to renew
    assert delegated_metadata(fleet.files)


@pytest.mark.parametrize(("keys", "threshold"), [(1, 0), (1, 2), (0, 1)])
def test_a_delegation_needs_a_threshold_that_can_be_met(fleet, keys, threshold):
    with pytest.raises(_metadata.MetadataRefused):
        rotate_delegation(
            fleet.files,
            "releases",
            [_metadata.new_key() for _ in range(keys)],
            threshold,
            targets_key=fleet.keys.targets,
            online_key=fleet.keys.online,
            now=fleet.now,
        )


def test_roots_are_followed_up_to_a_bound_and_no_further(fleet):
    """Going on with a root in the middle would be to trust keys that were replaced since."""
    for version in range(2, LIMITS.root_rotations_max + 2):
        fleet.files[f"{version}.root.json"] = _resigned(
            fleet, "1.root.json", lambda s, version=version: setattr(s, "version", version), fleet.keys.root
        )
    last = f"{LIMITS.root_rotations_max + 1}.root.json"
    newest = fleet.files.pop(last)
    assert fleet.look() == TARGET
    fleet.files[last] = newest
    assert fleet.look() == TARGET
    over = LIMITS.root_rotations_max + 2
    fleet.files[f"{over}.root.json"] = _resigned(fleet, "1.root.json", lambda s: setattr(s, "version", over), fleet.keys.root)
    assert _reason(fleet.look) == "Refused"


# ---- what our own repositories never hold, whoever signs it ----


def _new_snapshot(fleet, **files: bytes) -> None:
    """Serve a snapshot over these targets files, each at version 9, and a timestamp over it."""
    metas = dict(_metadata.snapshot_of(fleet.files).signed.meta)
    for role, data in files.items():
        metas[f"{role}.json"] = _metadata.MetaFile(9)
        fleet.files[f"9.{role}.json"] = data
    fleet.files.update(_metadata.online_files(metas, (9, 9), fleet.keys.online, fleet.now))


def test_keys_of_another_kind_do_not_count(fleet):
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
    from securesystemslib.signer import CryptoSigner

    signer = CryptoSigner(generate_private_key(65537, 2048))

    def more(signed) -> None:
        signed.version = 2
        signed.add_key(signer.public_key, "timestamp")

    fleet.files["2.root.json"] = _resigned(fleet, "1.root.json", more, fleet.keys.root)
    with pytest.raises(Untrusted, match="rsa/rsassa-pss-sha256") as refused:
        fleet.look()
    assert refused.value.reason == "Refused"
    fleet.root = fleet.files.pop("2.root.json")
    assert _reason(fleet.look) == "Refused"


def test_a_delegation_to_keys_of_another_kind_does_not_count(fleet):
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from securesystemslib.signer import CryptoSigner

    signer = CryptoSigner(generate_private_key(SECP256R1()))

    def change(signed) -> None:
        signed.version = 9
        signed.delegations.keys[signer.public_key.keyid] = signer.public_key
        signed.delegations.roles["releases"].keyids = [signer.public_key.keyid]

    _new_snapshot(fleet, targets=_resigned(fleet, "1.targets.json", change, [fleet.keys.targets]))
    assert _reason(fleet.look) == "Refused"


@pytest.mark.parametrize("name", ["../identity/key", "Releases", "a/b", "a" * 65])
def test_a_delegated_role_has_a_plain_name(fleet, name):
    """It becomes the name of a file in the cache."""

    def change(signed) -> None:
        signed.version = 9
        role = signed.delegations.roles.pop("releases")
        role.name = name
        signed.delegations.roles[name] = role

    _new_snapshot(fleet, targets=_resigned(fleet, "1.targets.json", change, [fleet.keys.targets]))
    with pytest.raises(Untrusted, match="no name for a delegated role"):
        fleet.look()


@pytest.mark.parametrize(("terminating", "answer"), [(True, "UnknownTarget"), (False, "released")])
def test_a_terminating_delegation_ends_the_search(fleet, terminating, answer):
    """`releases` may sign the path and does not: whether another role is asked is for `targets` to say."""
    path = "releases/default/odd/1.json"

    def delegate(signed) -> None:
        signed.version = 9
        signed.delegations.roles["releases"].terminating = terminating
        signed.delegations.roles["pipeline"].paths = ["releases/*/*/*"]

    def release(signed) -> None:
        signed.version = 9
        signed.targets[path] = _target(path)

    targets = _resigned(fleet, "1.targets.json", delegate, [fleet.keys.targets])
    pipeline = _resigned(fleet, "1.pipeline.json", release, [fleet.keys.pipeline])
    _new_snapshot(fleet, targets=targets, pipeline=pipeline)
    if answer == "released":
        assert fleet.look(path) == ("sha256:" + "e" * 64, 5)
    else:
        assert _reason(fleet.look, path) == answer


@pytest.mark.parametrize("name", ["root", "timestamp", "snapshot", "targets", ""])
def test_a_delegated_role_does_not_take_the_place_of_a_top_one(fleet, name):
    data = json.loads(fleet.files["1.targets.json"])
    data["signed"]["version"] = 9
    data["signed"]["delegations"]["roles"][0]["name"] = name
    _new_snapshot(fleet, targets=json.dumps(data).encode())
    assert _reason(fleet.look) == "Malformed"


@pytest.mark.parametrize("length", [LIMITS.snapshot_bytes_max - 1, LIMITS.snapshot_bytes_max, LIMITS.snapshot_bytes_max + 1])
def test_a_timestamp_cannot_have_a_device_read_without_end(fleet, length):
    stamp = Metadata.from_bytes(fleet.files["timestamp.json"]).signed
    stamp.version = 9
    stamp.snapshot_meta = _metadata.MetaFile(2, length=length)
    fleet.files["timestamp.json"] = _metadata.sign(stamp, [fleet.keys.online])
    fine = fleet.files["2.snapshot.json"]
    fleet.files["2.snapshot.json"] = fine + b" " * (length - len(fine))
    limits: dict[str, int] = {}
    honest = fleet.fetch
    fleet.fetch = lambda name, limit: (limits.setdefault(name, limit), honest(name, limit))[1]
    if length <= LIMITS.snapshot_bytes_max:
        assert fleet.look() == TARGET
    else:
        assert _reason(fleet.look) == "Mismatch"
    assert limits["2.snapshot.json"] == min(length, LIMITS.snapshot_bytes_max)


@pytest.mark.parametrize("digest", ["e" * 63, "e" * 65, "E" * 64, "../" + "e" * 61])
def test_a_digest_is_a_digest(fleet, digest):
    path = "releases/default/odd/1.json"

    def change(signed) -> None:
        signed.version = 9
        signed.targets[path] = TargetFile(5, {"sha256": digest}, path)

    _new_snapshot(fleet, releases=_resigned(fleet, "2.releases.json", change, fleet.keys.releases))
    assert _reason(fleet.look, path) == "Refused"
    assert fleet.look() == TARGET
