"""Quantities, durations, percentages: as text, as whole numbers, at their edges."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.resources.meta import Digest, Name, Version, VersionedName
from edgewise.resources.quantity import CountOrPercentage, Duration, Percentage, Quantity, milli, seconds, share_of, whole


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1", 1000),
        ("500m", 500),
        ("0.5", 500),
        ("1.5", 1500),
        ("2k", 2_000_000),
        ("1Ki", 1_024_000),
        ("512Mi", 512 * 2**20 * 1000),
        ("1.5Gi", 3 * 2**29 * 1000),
        ("1T", 10**15),
        ("0.0001", 1),
        (2, 2000),
        (0.25, 250),
    ],
)
def test_a_quantity_is_exact_in_thousandths(text, expected):
    assert milli(text) == expected


@pytest.mark.parametrize("text", ["", "Mi", "1 Mi", "-1", "1mm", "1Mib", "1e3", "0x10", "1,5", "5\n", "٣"])
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(ValueError, match="not a quantity"):
        milli(text)


def test_a_negative_number_is_refused():
    with pytest.raises(ValueError, match="negative"):
        milli(-1)


def test_whole_rounds_up():
    assert whole("1m") == 1
    assert whole("512Mi") == 512 * 2**20
    assert whole(0) == 0


@given(st.integers(min_value=0, max_value=10**12), st.sampled_from(["", "m", "k", "Ki", "M", "Mi", "G", "Gi", "T", "Ti"]))
def test_a_quantity_grows_with_its_number(number, unit):
    assert milli(f"{number}{unit}") < milli(f"{number + 1}{unit}")


@given(st.integers(min_value=0, max_value=10**9))
def test_thousandths_and_decimals_say_the_same(number):
    assert milli(f"{number}m") == milli(f"{number // 1000}.{number % 1000:03d}") == number


@pytest.mark.parametrize(("text", "expected"), [("500ms", 0.5), ("30s", 30), ("2m", 120), ("1.5h", 5400), ("7d", 604800), ("0s", 0)])
def test_a_duration_in_seconds(text, expected):
    assert seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "30", "s", "30 s", "-1s", "1w", "1h30m", "30s\n", "1..5s"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="not a duration"):
        seconds(text)


@pytest.mark.parametrize(
    ("amount", "total", "expected"),
    [(1, 10, 1), (20, 10, 10), ("25%", 8, 2), ("1%", 3, 1), ("0%", 5, 0), ("100%", 7, 7), ("50%", 0, 0), ("33%", 3, 1)],
)
def test_a_share_is_rounded_up_and_never_more_than_all(amount, total, expected):
    assert share_of(amount, total) == expected


@given(st.integers(min_value=0, max_value=100), st.integers(min_value=0, max_value=10_000))
def test_a_percentage_is_enough_and_not_one_too_many(percent, total):
    share = share_of(f"{percent}%", total)
    assert share * 100 >= percent * total
    assert (share - 1) * 100 < percent * total or share == 0


@pytest.mark.parametrize(
    ("wanted", "good", "bad"),
    [
        (Percentage, ["0%", "5%", "99.9%", "100%", "100.0%"], ["101%", "100.5%", "5", "-1%", "5%\n"]),
        (CountOrPercentage, [1, 7, "25%"], [0, -1, "7", 1.5]),
        (Quantity, ["512Mi", 5, 0.5], ["5Mb", "x", None]),
        (Duration, ["10s"], ["10", 10, "10s\n"]),
        (Name, ["a", "a-b.c", "0", "a" * 128], ["", "A", "-a", "a-", "a_b", "a" * 129, "a\n", "a/b", "a:1"]),
        (VersionedName, ["a", "a:1", "a:v1.0-rc_1"], ["a:", ":1", "a:1:2", "a:1\n"]),
        (Version, ["1", "v1.0-rc_1", "a" * 64], ["", "-1", "a" * 65, "1 ", "1\n"]),
        (Digest, ["sha256:" + "0" * 64], ["sha256:" + "0" * 63, "sha256:" + "A" * 64, "md5:" + "0" * 64, "sha256:" + "0" * 64 + "\n"]),
    ],
)
def test_types_take_what_fits_and_nothing_else(wanted, good, bad):
    for value in good:
        assert msgspec.convert(value, wanted) == value
    for value in bad:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(value, wanted)
