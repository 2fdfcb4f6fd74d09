"""Putting verified files onto the disk, and the device's identity."""

import contextlib
import hashlib
from collections.abc import Iterator

import msgspec
import pytest

from edgewise.engine import identity
from edgewise.engine.install import (
    InstallInvalid,
    InstallTransient,
    InstallUntrusted,
    failed,
    plan,
    stage,
    tree_of,
)
from edgewise.engine.limits import EngineLimits
from edgewise.engine.trees import installed_trees, remove, whole_trees
from edgewise.ports.files import Damaged, Full, PathRefused
from edgewise.resources.artifact import Command, File, Variant
from edgewise.twin.disk import Crash, PowerCut, RecordingDisk

CONTENTS = {"bin/run": b"#!/bin/sh\n" * 30, "data/model": b"m" * 1000, "empty": b""}


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def variant(contents: dict[str, bytes] = CONTENTS, **fields: object) -> Variant:
    files = tuple(
        File(path=path, digest=digest(data), size=len(data), mode=0o755 if path.startswith("bin/") else 0o644)
        for path, data in contents.items()
    )
    return Variant(name="v", files=files, **fields)  # type: ignore[arg-type]


class Blobs:
    """A source that counts, and may lie or end early."""

    def __init__(self, contents: dict[str, bytes] = CONTENTS) -> None:
        self.blobs = {digest(data): data for data in contents.values()}
        self.asked: list[tuple[str, int]] = []
        self.served = 0
        self.cut_at: int | None = None

    def __call__(self, wanted: str, offset: int) -> Iterator[bytes]:
        self.asked.append((wanted, offset))
        data = self.blobs[wanted]
        for at in range(offset, len(data), 64):
            if self.cut_at is not None and self.served >= self.cut_at:
                return
            chunk = data[at : at + 64]
            self.served += len(chunk)
            yield chunk


SMALL = EngineLimits(install_chunk_bytes=100, install_sync_bytes=200, install_reserve_bytes=50)


def install(
    disk: RecordingDisk, contents: dict[str, bytes] = CONTENTS, blobs: Blobs | None = None, limits: EngineLimits = SMALL
) -> tuple[str, Blobs]:
    wanted, blobs = variant(contents), blobs or Blobs(contents)
    tree = plan(wanted).tree
    stage(disk, wanted, tree, blobs, limits=limits)
    return tree, blobs


def test_a_variant_is_installed_whole_and_durable() -> None:
    disk = RecordingDisk()
    heard: list[tuple[int, int]] = []
    wanted = variant()
    stage(disk, wanted, plan(wanted).tree, Blobs(), lambda done, total: heard.append((done, total)), limits=SMALL)
    after = disk.crash(Crash.DROPPED)
    assert installed_trees(after) == (plan(wanted).tree,)
    for path, data in CONTENTS.items():
        assert after.read(f"trees/{plan(wanted).tree}/{path}", 10_000) == data
    assert disk.mode_of(f"trees/{plan(wanted).tree}/bin/run") == 0o755
    assert heard[-1] == (1300, 1300)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    assert disk.list("staging") == ()


def test_what_is_installed_is_not_fetched_again() -> None:
    disk = RecordingDisk()
    tree, _ = install(disk)
    again, blobs = install(disk)
    assert again == tree
    assert blobs.asked == []


@pytest.mark.parametrize("path", ["bin/run", "data/model"])
@pytest.mark.parametrize("left", [None, 0, 299, 1001])
def test_a_tree_that_misses_a_part_is_not_whole_and_is_installed_again(path: str, left: int | None) -> None:
    disk = RecordingDisk()
    tree, _ = install(disk)
    install(disk, {**CONTENTS, "new": b"n"})
    assert len(whole_trees(disk)) == 2
    if left is None:
        disk.remove(f"trees/{tree}/{path}")
    else:
        disk.replace(f"trees/{tree}/{path}", (CONTENTS[path] * 9)[:left])
    assert tree not in whole_trees(disk)
    assert len(whole_trees(disk)) == 1
    assert len(installed_trees(disk)) == 2
    before = disk.operations
    other = disk.copy()
    _, blobs = install(other)
    assert blobs.asked == [], "the other tree has all of it"
    for cut in range(before + 1, other.operations + 1):
        after = disk.copy()
        after.cut_after = cut
        with contextlib.suppress(PowerCut):
            install(after)
        after = after.crash(Crash.DROPPED)
        install(after)
        assert len(whole_trees(after)) == 2
        for name, data in CONTENTS.items():
            assert after.read(f"trees/{tree}/{name}", 10_000) == data
        remove(after, installed_trees(after))
        assert disk.list("staging") == ()


def test_what_says_nothing_of_a_tree_does_not_condemn_it() -> None:
    disk = RecordingDisk()
    tree, _ = install(disk)
    disk.replace(f"trees/{tree}/more", b"somebody else's")
    assert whole_trees(disk) == (tree,)
    disk.remove(f"manifests/{tree}")
    disk.replace(f"trees/{tree}/data/model", b"")
    assert whole_trees(disk) == (tree,)


def test_the_name_of_a_tree_is_its_content() -> None:
    assert tree_of(variant()) == tree_of(msgspec.structs.replace(variant(), name="other"))
    assert len(tree_of(variant())) == 32
    assert tree_of(variant()) != tree_of(variant(command=Command(argv=("run",))))
    one = variant(command=Command(argv=("run",), environment={"A": "1", "B": "2"}))
    other = variant(command=Command(argv=("run",), environment={"B": "2", "A": "1"}))
    assert tree_of(one) == tree_of(other)


@pytest.mark.parametrize("cut_at", [1, 64, 65, 500, 1250])
def test_a_download_goes_on_where_it_stopped(cut_at: int) -> None:
    disk = RecordingDisk()
    blobs = Blobs()
    blobs.cut_at = cut_at
    with pytest.raises(InstallTransient):
        install(disk, blobs=blobs)
    first = blobs.served
    assert installed_trees(disk) == ()
    blobs.cut_at = None
    install(disk, blobs=blobs)
    assert blobs.served == 1300
    assert first < 1300


def test_a_staged_part_that_went_bad_is_fetched_anew() -> None:
    disk = RecordingDisk()
    blobs = Blobs()
    blobs.cut_at = 900
    with pytest.raises(InstallTransient):
        install(disk, blobs=blobs)
    path = f"staging/{plan(variant()).tree}/data/model"
    disk.replace(path, b"?" * len(disk.read(path, 9999)))
    blobs.cut_at = None
    tree, _ = install(disk, blobs=blobs)
    assert disk.read(f"trees/{tree}/data/model", 9999) == CONTENTS["data/model"]


def test_files_that_an_installed_tree_holds_are_copied_here() -> None:
    disk = RecordingDisk()
    install(disk)
    more = {**CONTENTS, "new": b"n" * 10}
    tree, blobs = install(disk, more)
    assert [one for one, _ in blobs.asked] == [digest(b"n" * 10)]
    assert disk.read(f"trees/{tree}/data/model", 9999) == CONTENTS["data/model"]


def test_a_local_copy_that_went_bad_is_fetched_instead() -> None:
    disk = RecordingDisk()
    tree, _ = install(disk)
    disk.replace(f"trees/{tree}/data/model", b"?" * 1000)
    other, blobs = install(disk, {**CONTENTS, "new": b"n"})
    assert digest(CONTENTS["data/model"]) in [one for one, _ in blobs.asked]
    assert disk.read(f"trees/{other}/data/model", 9999) == CONTENTS["data/model"]


@pytest.mark.parametrize("rot", [b"\x00", b"\x91\x81\xa4path\xa1\xb3", b"\x91" * 5_000])
def test_a_kept_manifest_that_went_bad_keeps_nothing_from_being_installed(rot: bytes) -> None:
    disk = RecordingDisk()
    tree, _ = install(disk)
    disk.replace(f"manifests/{tree}", rot)
    other, _ = install(disk, {**CONTENTS, "new": b"n"})
    assert disk.read(f"trees/{other}/data/model", 9999) == CONTENTS["data/model"]


def test_what_a_failed_sync_lost_is_written_again() -> None:
    """After a failed sync the system takes for clean what never reached the disk: it reads well, and the next sync succeeds."""
    for at in range(1, 60):
        disk = RecordingDisk()
        disk.fail_at, disk.fail_with = at, Damaged
        with contextlib.suppress(Damaged):
            install(disk)
        disk.fail_at = None
        tree, _ = install(disk)
        after = disk.crash(Crash.DROPPED)
        for path, data in CONTENTS.items():
            assert after.read(f"trees/{tree}/{path}", 9999) == data, f"operation {at}"


def test_a_tree_that_is_there_but_not_for_good_is_there_for_good_on_return() -> None:
    for at in range(1, 60):
        disk = RecordingDisk()
        disk.fail_at, disk.fail_with, disk.fail_late = at, Damaged, True
        with contextlib.suppress(Damaged):
            install(disk)
        disk.fail_at = None
        tree, _ = install(disk)
        assert installed_trees(disk.crash(Crash.DROPPED)) == (tree,), f"operation {at}"


def test_a_flipped_byte_is_refused_and_nothing_of_it_stays() -> None:
    disk, blobs = RecordingDisk(), Blobs()
    wanted = digest(CONTENTS["data/model"])
    blobs.blobs[wanted] = b"x" + CONTENTS["data/model"][1:]
    with pytest.raises(InstallUntrusted, match="data/model") as caught:
        install(disk, blobs=blobs)
    assert failed(caught.value).kind == "untrusted"
    assert "model" not in [entry.name for entry in disk.list(f"staging/{plan(variant()).tree}/data")]
    assert installed_trees(disk) == ()


def test_more_bytes_than_were_signed_are_refused() -> None:
    disk, blobs = RecordingDisk(), Blobs()
    blobs.blobs[digest(CONTENTS["data/model"])] += b"x"
    with pytest.raises(InstallUntrusted, match="more than"):
        install(disk, blobs=blobs)


def test_fewer_bytes_may_come_later() -> None:
    disk, blobs = RecordingDisk(), Blobs()
    blobs.blobs[digest(CONTENTS["data/model"])] = b"m" * 999
    with pytest.raises(InstallTransient, match="999 of 1000") as caught:
        install(disk, blobs=blobs)
    assert failed(caught.value) == msgspec.structs.replace(failed(caught.value), kind="transient", reason="EndedEarly")


@pytest.mark.parametrize("room", [-1, 0])
def test_room_is_checked_first_with_a_reserve(room: int) -> None:
    disk, blobs = RecordingDisk(capacity=1300 + SMALL.install_reserve_bytes + room), Blobs()
    if room < 0:
        with pytest.raises(InstallTransient, match="not enough room"):
            install(disk, blobs=blobs)
        assert blobs.asked == []
    else:
        with pytest.raises(Full):  # the manifest and the like come on top: the reserve is for them
            install(disk, blobs=blobs, limits=SMALL)
        disk.capacity += 1_000
        install(disk, blobs=blobs)


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../x", "a/../x", "a/..", ".", "a/./b", "a//b", "a/", "a\0b", "a\nb", "a\\b", "\ud800", "x" * 256, ".."],
)
def test_paths_that_are_refused(path: str) -> None:
    with pytest.raises(InstallInvalid) as caught:
        plan(Variant(name="v", files=(File(path=path, digest=digest(b""), size=0),)))
    assert failed(caught.value).kind == "invalid"


@pytest.mark.parametrize(
    "paths", [("a", "a"), ("a", "A"), ("straße", "STRASSE"), ("a/b", "A/B"), ("a", "a/b"), ("A/b", "a"), ("é", "e\u0301")]
)
def test_paths_that_collide_on_some_file_system_are_refused(paths: tuple[str, ...]) -> None:
    with pytest.raises(InstallInvalid, match=r"twice|both"):
        plan(Variant(name="v", files=tuple(File(path=path, digest=digest(b""), size=0) for path in paths)))


@pytest.mark.parametrize("path", ["a", "a/b/c", "...", ".hidden", "a b", "ü", "x" * 255])
def test_paths_that_are_fine(path: str) -> None:
    assert plan(Variant(name="v", files=(File(path=path, digest=digest(b""), size=0),))).size == 0


@pytest.mark.parametrize(("more", "fine"), [(-1, True), (0, True), (1, False)])
def test_limits_of_a_plan(more: int, fine: bool) -> None:
    limits = EngineLimits(install_files_max=3, install_bytes_max=100)
    many = Variant(name="v", files=tuple(File(path=str(number), digest=digest(b""), size=0) for number in range(3 + more)))
    large = Variant(name="v", files=(File(path="x", digest=digest(b""), size=100 + more),))
    for wanted in (many, large):
        if fine:
            plan(wanted, limits)
        else:
            with pytest.raises(InstallInvalid):
                plan(wanted, limits)


def test_a_tree_of_another_name_is_refused() -> None:
    with pytest.raises(InstallInvalid):
        stage(RecordingDisk(), variant(), "0" * 32, Blobs())


def test_what_does_not_belong_in_the_staging_folder_is_not_installed() -> None:
    disk = RecordingDisk()
    tree = plan(variant()).tree
    disk.make_folder(f"staging/{tree}/data/model")
    disk.make_folder(f"staging/{tree}/extra")
    disk.replace(f"staging/{tree}/extra/x", b"x")
    disk.replace(f"staging/{tree}/empty", b"not empty")
    install(disk)
    assert [entry.name for entry in disk.list(f"trees/{tree}")] == ["bin", "data", "empty"]
    assert disk.read(f"trees/{tree}/empty", 10) == b""


def test_an_error_of_the_source_passes_and_keeps_what_came() -> None:
    class Lost(Exception):
        pass

    def source(wanted: str, offset: int) -> Iterator[bytes]:
        yield CONTENTS["bin/run"][offset : offset + 10]
        raise Lost

    disk = RecordingDisk()
    with pytest.raises(Lost):
        stage(disk, variant(), plan(variant()).tree, source, limits=SMALL)
    _, blobs = install(disk)
    assert blobs.asked[0] == (digest(CONTENTS["bin/run"]), 10)


def test_removal_keeps_what_is_to_be_kept() -> None:
    disk = RecordingDisk()
    one, _ = install(disk)
    other, _ = install(disk, {"x": b"x"})
    disk.make_folder("staging/partial")
    disk.make_folder("staging/kept")
    disk.make_folder("instances/ns.app/a")
    disk.make_folder("instances/ns.other/a")
    remove(disk, (one, "kept"), ("ns.app",))
    assert installed_trees(disk) == (one,)
    assert [entry.name for entry in disk.list("staging")] == ["kept"]
    assert [entry.name for entry in disk.list("manifests")] == [one]
    assert [entry.name for entry in disk.list("instances")] == ["ns.other"]
    assert other != one
    remove(disk, (), ())
    assert installed_trees(disk) == ()


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (Full("x", "no room"), "transient", "DiskFull"),
        (Damaged("x", "bad"), "transient", "DiskFailed"),
        (PathRefused("x", "link"), "transient", "DiskFailed"),
    ],
)
def test_what_the_engine_is_told_of_a_disk(error: Exception, kind: str, reason: str) -> None:
    told = failed(error)  # type: ignore[arg-type]
    assert (told.kind, told.reason) == (kind, reason)


# ---- identity ----

KEYS = identity.DeviceKeys(key="-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----\n", sealing_key=bytes(range(32)))


def certificates(serial: int) -> identity.Certificates:
    return identity.Certificates(
        agent="dev-1",
        certificate=f"-----BEGIN CERTIFICATE-----\nleaf{serial}\n-----END CERTIFICATE-----\n",
        authority=f"-----BEGIN CERTIFICATE-----\nroot{serial}\n-----END CERTIFICATE-----\n",
    )


def test_keys_that_came_to_the_disk_late_are_there_for_good_once_joined() -> None:
    for at in range(1, 4):
        disk = RecordingDisk()
        disk.fail_at, disk.fail_with, disk.fail_late = at, Damaged, True
        with pytest.raises(Damaged):
            identity.write_keys(disk, KEYS)
        if identity.read_keys(disk) is None:
            identity.write_keys(disk, KEYS)
        identity.complete_join(disk, certificates(1), b"root")
        assert identity.read_identity(disk.crash(Crash.DROPPED)) is not None


def test_an_identity_is_read_as_it_was_written() -> None:
    disk = RecordingDisk()
    assert identity.read_identity(disk) is None
    assert identity.read_keys(disk) is None
    identity.write_keys(disk, KEYS)
    assert identity.read_keys(disk) == KEYS
    assert identity.read_identity(disk) is None, "without certificates it has not joined"
    identity.complete_join(disk, certificates(1), b"root metadata")
    found = identity.read_identity(disk.crash(Crash.DROPPED))
    assert found == identity.Identity(keys=KEYS, certificates=certificates(1), repository_root=b"root metadata")
    identity.renew(disk, certificates(2))
    assert identity.read_certificates(disk) == certificates(2)
    for path in (identity.KEY_PATH, identity.CERTIFICATE_PATH, identity.SEALING_KEY_PATH):
        assert disk.mode_of(path) == 0o600


def test_the_certificate_file_is_what_tls_libraries_read() -> None:
    disk = RecordingDisk()
    identity.write_keys(disk, KEYS)
    identity.complete_join(disk, certificates(1), b"")
    text = disk.read(identity.CERTIFICATE_PATH, 9999).decode()
    assert text.index("leaf1") < text.index("root1")
    assert text.count("-----BEGIN CERTIFICATE-----") == 2


@pytest.mark.parametrize("bad", [("", "x"), ("-----BEGIN CERTIFICATE-----", ""), ("no", "-----BEGIN CERTIFICATE-----")])
def test_certificates_that_are_none_replace_nothing(bad: tuple[str, str]) -> None:
    disk = RecordingDisk()
    identity.complete_join(disk, certificates(1), b"")
    with pytest.raises(ValueError, match="certificate"):
        identity.renew(disk, identity.Certificates(agent="dev-1", certificate=bad[0], authority=bad[1]))
    assert identity.read_certificates(disk) == certificates(1)


@pytest.mark.parametrize("path", [identity.KEY_PATH, identity.SEALING_KEY_PATH, identity.CERTIFICATE_PATH])
def test_a_damaged_identity_is_said_to_be_without_its_content(path: str) -> None:
    disk = RecordingDisk()
    identity.write_keys(disk, KEYS)
    identity.complete_join(disk, certificates(1), b"r")
    disk.replace(path, b"secret garbage")
    if path == identity.CERTIFICATE_PATH:
        disk.replace(identity.COPY_PATH, b"secret garbage")
        with pytest.raises(identity.IdentityDamaged):
            identity.mend(disk)
    with pytest.raises(identity.IdentityDamaged) as caught:
        identity.read_identity(disk)
    assert "garbage" not in str(caught.value)
    assert "abc" not in repr(KEYS)


def test_a_certificate_file_that_rots_is_noticed_wherever_it_does_and_mended_from_its_copy() -> None:
    disk = RecordingDisk()
    assert not identity.mend(disk)
    identity.write_keys(disk, KEYS)
    identity.complete_join(disk, certificates(1), b"r")
    assert not identity.mend(disk)
    whole = disk.read(identity.CERTIFICATE_PATH, 9999)
    rotten = [whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :] for at in range(len(whole) - 1)]
    rotten += [whole[:at] for at in range(len(whole) - 1)]
    for path, other in ((identity.CERTIFICATE_PATH, identity.COPY_PATH), (identity.COPY_PATH, identity.CERTIFICATE_PATH)):
        for data in rotten:
            disk.replace(path, data)
            assert identity.read_certificates(disk) == certificates(1), data
            identity.mend(disk)
            assert identity._parsed(disk.read(path, 9999)) == certificates(1), data
            disk.replace(path, whole)
        assert disk.read(other, 9999) == whole


def test_a_certificate_file_of_before_the_checksum_is_read_and_a_copy_that_cannot_be_written_costs_nothing() -> None:
    disk = RecordingDisk()
    identity.write_keys(disk, KEYS)
    identity.complete_join(disk, certificates(1), b"r")
    disk.remove(identity.COPY_PATH)
    disk.replace(identity.CERTIFICATE_PATH, disk.read(identity.CERTIFICATE_PATH, 9999).rpartition(b"\nsum: ")[0] + b"\n")
    assert identity.read_certificates(disk) == certificates(1)
    assert not identity.mend(disk)
    identity.renew(disk, certificates(2))
    kept = []
    for at in (1, 2):
        other = disk.copy()
        other.fail_at, other.fail_with = other.operations + at, Damaged
        with contextlib.suppress(Damaged):
            identity.renew(other, certificates(3))
        other.fail_at = None
        kept.append(identity.read_certificates(other))
        assert not identity.mend(other)
        assert other.read(identity.COPY_PATH, 9999) == other.read(identity.CERTIFICATE_PATH, 9999)
    assert kept == [certificates(2), certificates(3)]


def test_missing_parts_of_an_identity() -> None:
    disk = RecordingDisk()
    identity.complete_join(disk, certificates(1), b"r")
    with pytest.raises(identity.IdentityDamaged, match="keys"):
        identity.read_identity(disk)
    identity.write_keys(disk, KEYS)
    disk.remove(identity.ROOT_PATH)
    with pytest.raises(identity.IdentityDamaged, match="root"):
        identity.read_identity(disk)


def test_forgetting_an_identity() -> None:
    disk = RecordingDisk()
    identity.remove_identity(disk)
    identity.write_keys(disk, KEYS)
    identity.complete_join(disk, certificates(1), b"r")
    identity.remove_identity(disk)
    assert identity.read_identity(disk) is None
    assert disk.list("identity") == ()
