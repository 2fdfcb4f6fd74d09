"""Publishing: who may sign what, and what the control plane takes."""

import json

import pytest
from tuf.api.metadata import Metadata, TargetFile, Targets

from edgewise.trust import _metadata, repository
from edgewise.trust.repository import (
    LIMITS,
    MetadataRefused,
    RepositoryOptions,
    StaleMetadata,
    accept_delegated,
    add_release,
    cosign,
    create_repository,
    delegated_metadata,
    expiries,
    is_repository_file,
    new_key,
    newest_root,
    obsolete,
    public_pem,
    refresh_timestamp,
    renew_delegated,
)

PATH = "releases/default/inspector/2.json"
DIGEST = "sha256:" + "b" * 64
DAY = 86_400.0


def _signed(fleet, change, keys=None) -> bytes:
    """The next releases metadata with `change` made to it, signed by the release key or `keys`."""
    metadata = Metadata.from_bytes(delegated_metadata(fleet.files))
    metadata.signed.version += 1
    change(metadata.signed)
    return _metadata.sign(metadata.signed, keys or fleet.keys.releases)


def _refused(fleet, data: bytes, role="releases") -> str:
    before = dict(fleet.files)
    with pytest.raises(MetadataRefused) as refused:
        accept_delegated(fleet.files, role, data, fleet.keys.online, fleet.now)
    assert fleet.files == before
    return refused.value.reason


def test_a_release_is_added_and_taken(fleet):
    data = add_release(delegated_metadata(fleet.files), PATH, DIGEST, 5, fleet.keys.releases[0], fleet.now)
    changed = accept_delegated(fleet.files, "releases", data, fleet.keys.online, fleet.now)
    assert list(changed) == ["3.releases.json", "3.snapshot.json", "timestamp.json"]  # the order of writing
    fleet.files.update(changed)
    assert set(Targets.from_dict(json.loads(delegated_metadata(fleet.files))["signed"]).targets) == {
        "releases/default/inspector/1.json",
        PATH,
    }


def test_people_and_machines_hold_different_keys(fleet):
    offline, online = fleet.keys.offline_files(), fleet.keys.online_files()
    assert set(offline) == {"root-1.pem", "targets.pem", "releases-1.pem"}
    assert set(online) == {"online.pem", "pipeline.pem", "rounds.pem"}
    assert len({*offline.values(), *online.values()}) == 6
    assert "PRIVATE" not in repr(fleet.keys)


def test_a_release_follows_the_current_version(fleet):
    one = add_release(delegated_metadata(fleet.files), PATH, DIGEST, 5, fleet.keys.releases[0], fleet.now)
    other = add_release(delegated_metadata(fleet.files), PATH.replace("2", "3"), DIGEST, 5, fleet.keys.releases[0], fleet.now)
    fleet.files.update(accept_delegated(fleet.files, "releases", one, fleet.keys.online, fleet.now))
    with pytest.raises(StaleMetadata, match="at version 3"):
        accept_delegated(fleet.files, "releases", other, fleet.keys.online, fleet.now)
    assert _refused(fleet, _signed(fleet, lambda signed: setattr(signed, "version", 9))) == "Stale"


def test_versions_are_immutable(fleet):
    with pytest.raises(MetadataRefused) as refused:
        add_release(delegated_metadata(fleet.files), "releases/default/inspector/1.json", DIGEST, 5, fleet.keys.releases[0], fleet.now)
    assert refused.value.reason == "Immutable"
    path = "releases/default/inspector/1.json"
    assert _refused(fleet, _signed(fleet, lambda s: s.targets.update({path: TargetFile(5, {"sha256": "b" * 64}, path)}))) == "Immutable"


@pytest.mark.parametrize("signer", ["online", "pipeline", "rounds", "targets", "stranger"])
def test_no_other_key_signs_releases(fleet, signer):
    key = new_key() if signer == "stranger" else getattr(fleet.keys, signer)
    assert _refused(fleet, _signed(fleet, lambda _: None, [key])) == "BadSignature"


def test_the_release_key_signs_nothing_else(fleet):
    assert _refused(fleet, _signed(fleet, lambda s: setattr(s, "version", 2)), role="pipeline") == "BadSignature"
    assert _refused(fleet, _signed(fleet, lambda s: None), role="nothing") == "UnknownRole"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("pipeline/default/x/1.json", "OutsideDelegation"),
        ("releases/default/x", "OutsideDelegation"),
        ("releases/default/x/y/1.json", "BadTarget"),
        ("releases/../x/1.json", "BadTarget"),
        ("releases//x/1.json", "BadTarget"),
        ("/releases/default/x", "BadTarget"),
        ("releases/default/x/1.json\n", "BadTarget"),
        ("releases/default/" + "x" * 129 + "/1.json", "BadTarget"),
    ],
)
def test_paths_outside_the_delegation_are_refused(fleet, path, reason):
    data = _signed(fleet, lambda s: s.targets.update({path: TargetFile(5, {"sha256": "b" * 64}, path)}))
    assert _refused(fleet, data) == reason


def test_targets_need_a_sha256_and_a_bounded_length(fleet):
    for target in (TargetFile(5, {"sha512": "b" * 128}, PATH), TargetFile(LIMITS.target_length_max + 1, {"sha256": "b" * 64}, PATH)):
        assert _refused(fleet, _signed(fleet, lambda s, target=target: s.targets.update({PATH: target}))) == "BadTarget"
    current, key = delegated_metadata(fleet.files), fleet.keys.releases[0]
    for digest, length in (("b" * 64, 5), ("sha256:B", 5), (DIGEST, -1), (DIGEST, LIMITS.target_length_max + 1)):
        with pytest.raises(MetadataRefused):
            add_release(current, PATH, digest, length, key, fleet.now)
    for length in (LIMITS.target_length_max - 1, LIMITS.target_length_max):
        assert add_release(current, PATH, DIGEST, length, key, fleet.now)


def test_releases_do_not_delegate_further(fleet):
    delegations = repository._new_delegations(fleet.keys, 1)
    assert _refused(fleet, _signed(fleet, lambda s: setattr(s, "delegations", delegations))) == "Delegates"


def test_expired_metadata_is_not_taken(fleet):
    data = _signed(fleet, lambda _: None)
    fleet.now += 3 * 365 * DAY
    assert _refused(fleet, data) == "Expired"


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 100_000, b'{"signed": 1}', b"\xff" * 10])
def test_other_bytes_are_refused(fleet, data):
    assert _refused(fleet, data) == "Malformed"


def test_another_role_s_metadata_is_refused(fleet):
    assert _refused(fleet, fleet.files["timestamp.json"]) == "WrongRole"


def test_the_size_is_bounded(fleet):
    fine = _signed(fleet, lambda _: None)
    padded = fine + b" " * (LIMITS.targets_bytes_max - len(fine))
    for data in (padded[:-1], padded):
        assert accept_delegated(fleet.files, "releases", data, fleet.keys.online, fleet.now)
    assert _refused(fleet, padded + b" ") == "TooLarge"


def test_unsigned_parts_are_not_passed_on(fleet):
    data = json.loads(_signed(fleet, lambda _: None, [*fleet.keys.releases, new_key()]))
    data["note"] = "not signed"
    changed = accept_delegated(fleet.files, "releases", json.dumps(data).encode(), fleet.keys.online, fleet.now)
    stored = json.loads(changed["3.releases.json"])
    assert set(stored) == {"signatures", "signed"}
    assert len(stored["signatures"]) == 1


def test_an_operator_signs_only_on_top_of_what_people_signed(fleet):
    """A captured control plane slips in a target and asks an operator to add another one on top."""
    key = fleet.keys.releases[0]
    slipped = json.loads(delegated_metadata(fleet.files))
    slipped["signed"]["targets"]["releases/default/evil/1.json"] = {"length": 5, "hashes": {"sha256": "e" * 64}}
    with pytest.raises(MetadataRefused) as refused:
        add_release(json.dumps(slipped).encode(), PATH, DIGEST, 5, key, fleet.now)
    assert refused.value.reason == "BadSignature"
    forged = _signed(fleet, lambda _: None, [fleet.keys.online])
    with pytest.raises(MetadataRefused) as refused:
        add_release(forged, PATH, DIGEST, 5, key, fleet.now)
    assert refused.value.reason == "WrongKey"


def test_colleagues_sign_on_top_of_each_other(make_fleet):
    fleet = make_fleet(RepositoryOptions(release_keys=2))
    ann, bob = fleet.keys.releases
    fleet.release(PATH, key=ann)
    current = delegated_metadata(fleet.files)
    with pytest.raises(MetadataRefused):
        add_release(current, PATH.replace("2", "3"), DIGEST, 5, bob, fleet.now)
    data = add_release(current, PATH.replace("2", "3"), DIGEST, 5, bob, fleet.now, trusted_keys=[public_pem(ann)])
    fleet.files.update(accept_delegated(fleet.files, "releases", data, fleet.keys.online, fleet.now))
    assert fleet.look(PATH.replace("2", "3")) == (DIGEST, 5)


def test_a_threshold_of_two_takes_two_keys(make_fleet):
    fleet = make_fleet(RepositoryOptions(release_keys=3, release_threshold=2))
    ann, bob, _ = fleet.keys.releases
    alone = add_release(delegated_metadata(fleet.files), PATH, DIGEST, 5, ann, fleet.now)
    assert _refused(fleet, alone) == "BadSignature"
    assert _refused(fleet, cosign(alone, ann)) == "BadSignature"
    fleet.files.update(accept_delegated(fleet.files, "releases", cosign(alone, bob), fleet.keys.online, fleet.now))
    assert fleet.look(PATH) == (DIGEST, 5)


@pytest.mark.parametrize(
    "options", [{"root_threshold": 2}, {"release_threshold": 0}, {"release_keys": 0}, {"root_keys": LIMITS.signatures_max}]
)
def test_thresholds_that_cannot_be_met_are_refused(now, options):
    with pytest.raises(MetadataRefused):
        create_repository(now, RepositoryOptions(**options))


def test_the_timestamp_is_signed_again_when_it_is_due(fleet):
    due = fleet.now + LIMITS.timestamp_lifetime_seconds * LIMITS.resign_after
    assert refresh_timestamp(fleet.files, fleet.keys.online, due - 1) == {}
    assert list(refresh_timestamp(fleet.files, fleet.keys.online, due + 1)) == ["timestamp.json"]
    assert list(refresh_timestamp(fleet.files, fleet.keys.online, fleet.now, force=True)) == ["timestamp.json"]
    assert list(refresh_timestamp(fleet.files, fleet.keys.online, fleet.now + 10 * DAY)) == ["3.snapshot.json", "timestamp.json"]


def test_people_s_metadata_is_renewed_by_people(fleet):
    later = fleet.now + 600 * DAY
    data = renew_delegated(delegated_metadata(fleet.files), fleet.keys.releases[0], later)
    fleet.files.update(accept_delegated(fleet.files, "releases", data, fleet.keys.online, later))
    assert expiries(fleet.files)["releases"] == later + LIMITS.delegated_lifetime_seconds
    assert fleet.look(now=later)


def test_expiries_name_every_role(fleet):
    assert set(expiries(fleet.files)) == {"root", "targets", "releases", "pipeline", "rounds", "snapshot", "timestamp"}


def test_old_versions_are_obsolete_and_what_is_left_works(fleet):
    for n in range(2, 9):
        fleet.release(f"releases/default/inspector/{n}.json")
    gone = obsolete(fleet.files)
    assert gone
    for name in gone:
        del fleet.files[name]
    assert "1.root.json" in fleet.files
    assert sum(name.endswith(".snapshot.json") for name in fleet.files) == LIMITS.versions_kept
    assert fleet.look()


@pytest.mark.parametrize(
    ("name", "fine"),
    [
        ("timestamp.json", True),
        ("1.root.json", True),
        ("12.releases.json", True),
        ("0.root.json", False),
        ("root.json", False),
        ("1.evil.json", False),
        ("../1.root.json", False),
        ("1.root.json\n", False),
    ],
)
def test_only_repository_files_are_looked_up(name, fine):
    assert is_repository_file(name) == fine


def test_a_damaged_repository_is_named(fleet):
    for name in ("timestamp.json", "2.snapshot.json", "2.releases.json"):
        with pytest.raises(MetadataRefused, match=name):
            delegated_metadata({k: v for k, v in fleet.files.items() if k != name})
    with pytest.raises(MetadataRefused):
        newest_root({})


@pytest.mark.parametrize("pem", ["", "x"])
def test_bad_keys_are_refused(fleet, pem):
    with pytest.raises(MetadataRefused):
        add_release(delegated_metadata(fleet.files), PATH, DIGEST, 5, pem, fleet.now)
    with pytest.raises(MetadataRefused):
        add_release(delegated_metadata(fleet.files), PATH, DIGEST, 5, fleet.keys.online, fleet.now, trusted_keys=[pem])
