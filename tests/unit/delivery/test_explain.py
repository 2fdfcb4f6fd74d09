"""Why updates failed, in words: from what the devices say, and from who failed and who did not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.delivery.explain import LIMITS, SYMPTOMS, Context, Member, chance, explain


def members(failed, well=0, *, classes=("nano",), others=("pi",), reason="StartProbeFailed", message="the model does not load", **fields):
    bad = [
        Member(device=f"bad{n:02}", device_class=classes[n % len(classes)], failed=True, reason=reason, message=message, **fields)
        for n in range(failed)
    ]
    return (*bad, *(Member(device=f"well{n:02}", device_class=others[n % len(others)], variant="fp32", site="south") for n in range(well)))


def test_without_failures_nothing_is_explained():
    assert explain(()) == explain(members(0, 5)) == ()


def test_a_full_disk_is_told_with_its_numbers_and_a_way_out():
    full = "not enough room: 62000000 bytes and 0 bytes in reserve are needed, 40000000 are free"
    context = Context(variants={"fp32": 62_000_000, "int8": 16_000_000, "fp16": 31_000_000})
    (found,) = explain(members(3, 9, reason="DiskFull", message=full, variant="fp32"), context)
    assert found.cause == "disk"
    assert found.evidence == "3 of 3 failed devices: 40 MB of disk free where 62 MB are needed; all are nano"
    assert found.advice == "free space on these devices, or prefer the smaller variant int8 (16 MB)"
    assert (found.count, found.devices) == (3, ("bad00", "bad01", "bad02"))
    (smallest,) = explain(members(1, reason="DiskFull", message=full, variant="int8"), context)
    assert smallest.advice == "free space on bad00"


@pytest.mark.parametrize(
    ("reason", "message", "cause"),
    [
        ("DiskFull", "", "disk"),
        ("FetchFailed", "OSError: no space left on device", "network"),
        ("StorageFailed", "", "damaged disk"),
        ("Crashed", "revision 0123abcd4567 ended unexpectedly with signal 9", "memory"),
        ("StartProbeFailed", "start probe: MemoryError()", "memory"),
        ("Crashed", "revision 0123abcd4567 ended unexpectedly with signal 99", "unclear"),
        ("Expired", "the repository is not to be trusted: old", "not trusted"),
        ("Refused", "the repository is not to be trusted: it differs", "not trusted"),
        ("Unreachable", "10.0.0.1:7421: timed out", "network"),
        ("InstallTransient", "the connection was reset", "network"),
        ("Crashed", "revision 0123abcd4567 ended unexpectedly with signal 4", "not supported"),
        ("NotRunnable", "no variant", "not supported"),
        ("not healthy within 10m", "", "unclear"),
        ("", "", "unclear"),
    ],
)
def test_what_a_device_says_decides_first(reason, message, cause):
    (found,) = explain((Member(device="d", failed=True, reason=reason, message=message),))
    assert found.cause == cause
    assert found.advice


def test_memory_says_what_the_workload_may_use():
    killed = "revision 0123abcd4567 ended unexpectedly with signal 9"
    (found,) = explain(members(2, 8, reason="Crashed", message=killed), Context(memory=64_000_000))
    assert "Crashed: … ended unexpectedly with signal 9" in found.evidence
    assert "it may use 64 MB" in found.evidence
    assert found.advice.startswith("give the workload more memory")


def test_a_class_that_fails_alone_is_the_cause():
    (found,) = explain(members(4, 20))
    assert found.cause == "device class nano"
    assert found.evidence.startswith(
        "4 of 4 devices of device class nano failed, 0 of 20 others; “StartProbeFailed: the model does not load”"
    )
    assert "placement.selector" in found.advice


def test_a_variant_and_a_site_are_causes_too():
    mixed = members(4, 20, classes=("pi", "nano"), others=("pi", "nano"), variant="int8", site="south")
    assert explain(mixed)[0].cause == "variant int8"
    mixed = members(4, 20, classes=("pi", "nano"), others=("pi", "nano"), variant="fp32", site="north")
    assert explain(mixed)[0].cause == "site north"


def test_what_fails_everywhere_is_the_revision():
    (found,) = explain(members(9, 1, classes=("nano", "pi", "x86"), others=("nano",)))
    assert found.cause == "the revision itself"
    assert found.evidence.startswith("9 of 10 devices of 3 classes failed; “StartProbeFailed: the model does not load”")
    assert "edgewise logs bad00/" in found.advice


def test_what_cannot_be_told_is_called_unclear():
    (one,) = explain(members(1))
    assert one.cause == "unclear"
    assert "too few to tell the revision from the device" in one.evidence
    (some,) = explain(members(3, 17, classes=("a", "b", "c"), others=("a", "b", "c")))
    assert some.cause == "unclear"
    assert "nothing in common" in some.evidence


def test_several_causes_are_told_apart_the_commonest_first():
    killed = Member(device="k", failed=True, reason="Crashed", message="it ended unexpectedly with signal 9")
    found = explain((killed, *members(4, 20)))
    assert [(each.cause, each.count) for each in found] == [("device class nano", 4), ("memory", 1)]


def test_what_is_told_is_bounded():
    found = explain(members(500, 10, message="x" * 5000))
    assert all(len(text) <= LIMITS.characters_max for each in found for text in (each.cause, each.evidence, each.advice))
    assert len(found[0].devices) == LIMITS.devices_named_max
    each = [Member(device=f"d{n}", failed=True, reason=min(symptom.reasons)) for n, symptom in enumerate(SYMPTOMS)]
    assert len(explain((*each, *members(1)))) == LIMITS.explanations_max


@pytest.mark.parametrize(("hit", "group", "failed", "total", "expected"), [(4, 4, 4, 24, 1 / 10626), (1, 1, 1, 2, 0.5), (0, 3, 2, 9, 1.0)])
def test_chance_is_fishers(hit, group, failed, total, expected):
    assert chance(hit, group, failed, total) == pytest.approx(expected)


ANY_MEMBER = st.builds(
    Member,
    device=st.text(max_size=5),
    device_class=st.sampled_from(["", "a", "b"]),
    site=st.sampled_from(["", "s"]),
    variant=st.sampled_from(["", "v", "w"]),
    failed=st.booleans(),
    reason=st.one_of(st.sampled_from(["", "DiskFull", "Crashed"]), st.text(max_size=9)),
    message=st.one_of(st.just("needed 5 bytes are needed, -3 are free"), st.text(max_size=40)),
)


@settings(deadline=None)
@given(st.lists(ANY_MEMBER, max_size=30), st.dictionaries(st.sampled_from("vw"), st.integers(0, 10**9)))
def test_every_failure_is_explained_once(some, variants):
    found = explain(some, Context(variants=variants))
    assert sum(each.count for each in found) == sum(each.failed for each in some)
    assert [each.count for each in found] == sorted((each.count for each in found), reverse=True)
    assert all(each.cause and each.evidence and each.advice for each in found)
