"""How numbers and times read, and what people may call things."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.cli.failures import CommandError
from edgewise.cli.words import age, cpu, kind_and_names, kind_of, labels, moment, pairs_of, size, span


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (59, "59s"), (119, "119s"), (120, "2m"), (192, "3m12s"), (599, "9m59s"), (600, "10m"), (10_799, "179m"), (10_800, "3h"),
        (19_800, "5h30m"), (28_800, "8h"), (172_799, "47h"), (172_800, "2d"), (187_200, "2d4h"), (691_200, "8d"), (2_678_400, "31d"),
        (63_071_999, "729d"), (63_072_000, "2y"), (10**10, "317y"),
    ],
)  # fmt: skip
def test_lengths_of_time(seconds, text):
    assert span(seconds) == text


@given(st.floats(min_value=0, max_value=1e11))
def test_lengths_of_time_are_short(seconds):
    assert len(span(seconds)) <= 7


def test_ages():
    assert age(100, 145) == "45s"
    assert age(200, 145) == "0s"
    assert age(0, 145) == "<unknown>"


def test_moments():
    assert moment(0) == "-"
    assert moment(1_700_000_000) == "2023-11-14T22:13:20Z"
    assert moment(1e300) == "<invalid>"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0B"), (1023, "1023B"), (1024, "1Ki"), (1536, "1.5Ki"), (512 * 2**20, "512Mi"), (10 * 2**30, "10Gi"), (3 * 2**50, "3072Ti")],
)
def test_sizes(count, text):
    assert size(count) == text


def test_cores_and_labels():
    assert (cpu(4000), cpu(500), cpu(0)) == ("4", "500m", "0")
    assert labels({"b": "2", "a": "1"}) == "a=1,b=2"
    assert labels({}) == "<none>"


@pytest.mark.parametrize(
    ("word", "kind"), [("device", "Device"), ("devices", "Device"), ("DEV", "Device"), ("wl", "Workload"), ("Workload", "Workload")]
)
def test_kinds_by_every_word(word, kind):
    assert kind_of(word).name == kind


def test_an_unknown_kind_is_told_with_the_nearest():
    with pytest.raises(CommandError, match="no kind 'devcie'") as caught:
        kind_of("devcie")
    assert "'device'" in caught.value.where
    assert "workloads" in caught.value.hint


def test_kinds_and_names():
    def read(*words):
        return [(kind.name, name) for kind, name in kind_and_names(words)]

    assert read("devices") == [("Device", "")]
    assert read("device", "a", "b") == [("Device", "a"), ("Device", "b")]
    assert read("device/a", "wl/b") == [("Device", "a"), ("Workload", "b")]
    assert read("devices,sites") == [("Device", ""), ("Site", "")]
    for wrong in ([], ["device/a", "b"], ["device/"], ["devices,sites", "a"], ["nothing"]):
        with pytest.raises(CommandError):
            read(*wrong)


def test_pairs():
    assert pairs_of(["a=1,b=", "c=x=y"], "label") == {"a": "1", "b": "", "c": "x=y"}
    for wrong in ("a", "=b", "a!=b", "a==b", "a=1,"):
        with pytest.raises(CommandError, match="is not a label"):
            pairs_of([wrong], "label")
