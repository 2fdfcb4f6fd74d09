import bisect
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.agent.aggregate import AggregateLimits, Aggregator, Sample, Summary

FLOATS = st.floats(-1e6, 1e6)


def sample(values, name="m", instance="shop/till", revision="r1", **fields):
    return Sample(name=name, values=values, instance=instance, revision=revision, **fields)


@given(st.lists(st.lists(FLOATS, min_size=1, max_size=5), min_size=1, max_size=5))
def test_a_summary_is_what_the_values_sum_up_to(groups):
    aggregator = Aggregator()
    for group in groups:
        aggregator.add(sample(group), 100.0, 5.0)
    (series,) = aggregator.take(115.0, 20.0).series
    values = [value for group in groups for value in group]
    assert (series.count, series.min, series.max, series.last) == (len(values), min(values), max(values), values[-1])
    assert math.isclose(series.sum, math.fsum(values), rel_tol=1e-9, abs_tol=1e-6)
    assert math.isclose(series.sum_squares, math.fsum(value * value for value in values), rel_tol=1e-9, abs_tol=1e-6)


def test_one_series_per_name_unit_type_instance_and_revision():
    aggregator = Aggregator()
    different = [{}, {"name": "n"}, {"unit": "s"}, {"type": "counter"}, {"instance": "shop/eye"}, {"revision": "r2"}]
    for fields in different * 2:
        aggregator.add(sample([1.0], **fields), 0, 0)
    assert [series.count for series in aggregator.take(1, 1).series] == [2] * len(different)


def test_a_window_begins_with_its_first_sample_and_ends_when_taken():
    aggregator = Aggregator(AggregateLimits(window_seconds=15))
    assert aggregator.due_in(0.0) is None
    assert aggregator.take(0.0, 0.0) is None
    aggregator.add(sample([1.0]), 1000.0, 50.0)
    assert aggregator.due_in(55.0) == 10.0
    assert aggregator.due_in(65.0) == 0.0
    assert aggregator.due_in(99.0) == 0.0
    window = aggregator.take(1015.0, 65.0)
    assert (window.start, window.end, window.monotonic, window.dropped) == (1000.0, 1015.0, 65.0, 0)
    assert aggregator.due_in(65.0) is None


def test_a_wall_clock_that_jumped_back_gives_no_window_that_ends_before_it_begins():
    aggregator = Aggregator()
    aggregator.add(sample([1.0]), 1000.0, 50.0)
    window = aggregator.take(10.0, 65.0)
    assert window.start <= window.end == 10.0


@pytest.mark.parametrize("most", [1, 3])
def test_series_are_bounded_and_what_is_dropped_is_counted(most):
    aggregator = Aggregator(AggregateLimits(series_max=most))
    taken = [aggregator.add(sample([1.0, 2.0], name=f"m{n}"), 0, 0) for n in range(most + 2)]
    assert taken == [True] * most + [False] * 2
    assert aggregator.add(sample([1.0], name="m0"), 0, 0), "known series go on"
    window = aggregator.take(1, 1)
    assert (len(window.series), window.dropped) == (most, 4)
    assert aggregator.add(sample([1.0], name="m9"), 1, 1), "the next window has room again"


def test_one_reporter_cannot_take_all_series():
    aggregator = Aggregator(AggregateLimits(series_max=10, series_per_instance_max=2))
    taken = [aggregator.add(sample([1.0], name=f"m{n}"), 0, 0, "shop/loud") for n in range(4)]
    assert taken == [True, True, False, False]
    assert aggregator.add(sample([1.0], name="m9"), 0, 0, "shop/till")


def summary(values, bounds=(), **fields):
    buckets = [0] * (len(bounds) + 1)
    for value in values:
        buckets[bisect.bisect_left(bounds, value)] += 1
    numbers = {"count": len(values), "sum": sum(values), "sum_squares": sum(value * value for value in values)}
    ends = {"min": min(values), "max": max(values), "last": values[-1]}
    about = {"name": "m", "instance": "shop/till", "revision": "r1", "type": "gauge"}
    return Summary(**about | numbers | ends | {"bounds": bounds, "buckets": tuple(buckets) if bounds else ()} | fields)


@given(st.lists(st.lists(st.integers(-100, 100), min_size=1, max_size=5), min_size=1, max_size=5))
def test_summaries_add_up_to_the_summary_of_all_values(groups):
    aggregator = Aggregator()
    for group in groups:
        assert aggregator.add_summary(summary(group, (-10.0, 10.0)), 0, 0, "")
    (series,) = aggregator.take(1, 1).series
    expected = summary([value for group in groups for value in group], (-10.0, 10.0))
    assert (series.count, series.sum, series.sum_squares, series.min, series.max, series.last, series.buckets) == (
        expected.count, expected.sum, expected.sum_squares, expected.min, expected.max, expected.last, expected.buckets,
    )  # fmt: skip


@pytest.mark.parametrize("first", ["values", "other bounds"])
def test_buckets_that_would_not_be_true_of_all_values_are_left_out(first):
    aggregator = Aggregator()
    if first == "values":
        aggregator.add(sample([1.0]), 0, 0)
    else:
        aggregator.add_summary(summary([1.0], (5.0,)), 0, 0, "")
    aggregator.add_summary(summary([2.0], (1.0, 3.0)), 0, 0, "")
    (series,) = aggregator.take(1, 1).series
    assert (series.count, series.sum, series.bounds, series.buckets) == (2, 3.0, (), ())


def test_buckets_are_left_out_when_single_values_join_them():
    aggregator = Aggregator()
    aggregator.add_summary(summary([2.0], (1.0, 3.0)), 0, 0, "")
    aggregator.add(sample([1.0]), 0, 0)
    (series,) = aggregator.take(1, 1).series
    assert (series.count, series.bounds, series.buckets) == (2, (), ())


@pytest.mark.parametrize(("room", "taken"), [(9, [True, False]), (10, [True, True]), (11, [True, True])])
def test_sketches_of_a_window_are_bounded(room, taken):
    aggregator = Aggregator(AggregateLimits(sketch_bytes_max=room))
    for window in range(2):
        sketches = [summary([1.0], name=f"m{n}", sketch=b"12345", sketch_type="kll-float") for n in range(2)]
        assert [aggregator.add_summary(one, window, window, "") for one in sketches] == taken
        series = aggregator.take(window, window).series
        assert [(one.sketch, one.sketch_type) for one in series] == [(b"12345", "kll-float")] * sum(taken)


def test_a_series_takes_one_sketch_in_a_window_and_nothing_of_a_second():
    aggregator = Aggregator()
    assert aggregator.add_summary(summary([1.0], sketch=b"1"), 0, 0, "")
    assert aggregator.add_summary(summary([2.0]), 0, 0, "")
    assert not aggregator.add_summary(summary([3.0], sketch=b"2"), 0, 0, "")
    (series,) = aggregator.take(1, 1).series
    assert (series.count, series.sketch) == (2, b"1")


def test_summaries_count_for_their_reporters_share():
    aggregator = Aggregator(AggregateLimits(series_per_instance_max=1))
    assert aggregator.add_summary(summary([1.0]), 0, 0, "shop/loud")
    assert not aggregator.add_summary(summary([1.0], name="n"), 0, 0, "shop/loud")
    assert aggregator.add_summary(summary([1.0], name="n"), 0, 0, "shop/quiet")
