"""New against old over devices: sums, what bad input does, and that the error holds under what fleets do."""

import math
import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.delivery.evidence.compare import CompareLimits, compare
from edgewise.delivery.evidence.mixture import Estimate, e_value, radius
from edgewise.delivery.evidence.units import Cell, Side, Sides, UnitLimits, Window, cell_key, merged, plus, side_of, usable

WHOLE = st.integers(0, 50)
WINDOWS = st.lists(st.builds(lambda count, total: Window(count=count + 1, total=float(total), squares=float(total * total)), WHOLE, WHOLE))


def cell(windows, stratum=""):
    result = Cell(stratum)
    for window in windows:
        result = plus(result, window)
    return result


@settings(max_examples=50, deadline=None)
@given(WINDOWS, WINDOWS, WINDOWS)
def test_sums_do_not_depend_on_the_order(first, second, third):
    one, two, three = cell(first), cell(second), cell(third)
    for left, right in (
        (merged(merged(one, two), three), merged(one, merged(two, three))),
        (merged(one, two), merged(two, one)),
        (merged(one, two), msgspec.structs.replace(cell(first + second), devices=merged(one, two).devices)),
    ):
        for each in ("windows", "count", "devices", "total", "squares", "between"):
            assert getattr(left, each) == pytest.approx(getattr(right, each))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=Cell) == one


def test_buckets_are_of_all_samples_or_none():
    with_buckets = plus(Cell(), Window(count=3, total=1.0, squares=1.0, buckets=(1, 2)))
    assert plus(with_buckets, Window(count=1, total=1.0, squares=1.0, buckets=(0, 1))).buckets == (1, 3)
    assert plus(with_buckets, Window(count=1, total=1.0, squares=1.0)).buckets == ()
    assert merged(with_buckets, Cell()) == with_buckets


@pytest.mark.parametrize(
    ("name", "window", "counts"),
    [
        ("m", Window(count=1, total=5.0, squares=25.0), True),
        ("m", Window(count=0, total=0.0, squares=0.0), False),
        ("m", Window(count=-1, total=0.0, squares=0.0), False),
        ("m", Window(count=1, total=math.nan, squares=0.0), False),
        ("m", Window(count=1, total=0.0, squares=math.inf), False),
        ("m", Window(count=UnitLimits().count_max, total=0.0, squares=0.0), True),
        ("m", Window(count=UnitLimits().count_max + 1, total=0.0, squares=0.0), False),
        ("m", Window(count=1, total=1e15, squares=0.0), True),
        ("m", Window(count=1, total=1.1e15, squares=0.0), False),
        ("model.accuracy", Window(count=10, total=10.0, squares=10.0), True),
        ("model.accuracy", Window(count=10, total=10.5, squares=10.0), False),
        ("model.accuracy", Window(count=10, total=-1.0, squares=10.0), False),
    ],
)
def test_what_can_be_counted(name, window, counts):
    assert usable(name, window) is counts


def test_cells_are_bounded():
    limits, cells = UnitLimits(cells_max=10, shared_max=4), {}
    for number in range(500):
        key = cell_key(cells, f"d{number}", "camera" if number % 2 else "", limits)
        cells[key] = plus(cells.get(key, Cell()), Window(count=1, total=1.0, squares=1.0))
        assert cell_key(cells, f"d{number}", "camera" if number % 2 else "", limits) == key
    assert len(cells) <= 10 + 2 * 4
    assert sum(each.count for each in cells.values()) == 500
    assert [f"d{number}" for number in range(10)] == list(cells)[:10]


def fleet(rng, rate, devices=8, windows=10, samples=10, *, spread=0.0, drift=(), name="d", stratum=""):
    """Return cells of devices whose accuracies differ by `spread`; `drift` is what time does to all of them, per window."""
    cells = {}
    for number in range(devices):
        own = rate + rng.gauss(0, spread)
        right = [sum(rng.random() < own + (drift[window] if drift else 0) for _ in range(samples)) for window in range(windows)]
        cells[f"{name}{number}"] = cell([Window(count=samples, total=float(each), squares=float(each)) for each in right], stratum)
    return cells


def sides(new, old, *, paired=False):
    return Sides(new=Side(cells=new, devices=len(new)), old=Side(cells=old, devices=len(old)), paired=paired)


def test_a_difference_is_found_where_it_is():
    rng = random.Random(1)
    found = compare(sides(fleet(rng, 0.8, windows=60), fleet(rng, 0.9, windows=60)), 1.0, 0.01, unit_range=True)
    reach = radius(found.contrast, 0.01)
    assert found.contrast.value - reach < -0.1 < found.contrast.value + reach < 0
    assert found.new == pytest.approx(0.8, abs=0.02)
    assert found.old == pytest.approx(0.9, abs=0.02)
    assert (found.clipped, found.left_out) == (0, 0)


def test_nothing_is_said_of_too_little():
    limits = CompareLimits()
    one = {"a": cell([Window(count=5, total=5.0, squares=5.0)] * 4)}
    assert compare(sides(one, one), 1.0, 0.01, unit_range=True) is not None
    few = {"a": cell([Window(count=4, total=4.0, squares=4.0)] * 4 + [Window(count=3, total=3.0, squares=3.0)])}
    assert few["a"].count == limits.samples_min - 1
    short = {"a": cell([Window(count=50, total=40.0, squares=40.0)] * (limits.windows_min - 1))}
    for too_little in (few, short, {}):
        assert compare(sides(too_little, one), 1.0, 0.01, unit_range=True) is None
        assert compare(sides(one, too_little), 1.0, 0.01, unit_range=True) is None


def test_devices_are_compared_within_their_class():
    """Cameras see 95 %, microphones 70 %: with more microphones among the new ones, only the classes say that nothing changed."""
    rng = random.Random(2)
    new = fleet(rng, 0.95, 4, 40, name="a", stratum="camera") | fleet(rng, 0.70, 8, 40, name="b", stratum="microphone")
    old = fleet(rng, 0.95, 8, 40, name="c", stratum="camera") | fleet(rng, 0.70, 4, 40, name="d", stratum="microphone")
    found = compare(sides(new, old), 1.0, 0.01, unit_range=True)
    assert abs(found.contrast.value) < 0.03
    alone = new | fleet(rng, 0.1, 3, 40, name="e", stratum="lidar")
    again = compare(sides(alone, old), 1.0, 0.01, unit_range=True)
    assert again.left_out == 3
    assert abs(again.contrast.value) < 0.03
    mixed = compare(sides(fleet(rng, 0.5, stratum="a"), fleet(rng, 0.6, stratum="b")), 1.0, 0.01, unit_range=True)
    assert mixed.left_out == 0


def test_a_pair_is_compared_with_itself():
    """Devices differ by 30 points, and the new revision is 5 points worse on each: paired that is plain, unpaired it is not."""
    rng, new, old = random.Random(3), {}, {}
    for number in range(10):
        rate = rng.uniform(0.3, 0.9)
        new |= fleet(rng, rate - 0.05, 1, 60, 20, name=f"d{number}-")
        old |= fleet(rng, rate, 1, 60, 20, name=f"d{number}-")
    paired = compare(sides(new, old, paired=True), 1.0, 0.01, unit_range=True).contrast
    assert paired.value + radius(paired, 0.01) < -0.01
    unpaired = compare(sides(new, old), 1.0, 0.01, unit_range=True).contrast
    assert radius(unpaired, 0.01) > 4 * radius(paired, 0.01)
    missing = dict(list(old.items())[:7])
    assert compare(sides(new, missing, paired=True), 1.0, 0.01, unit_range=True).left_out == 3
    assert compare(sides(new, fleet(rng, 0.5, name="x"), paired=True), 1.0, 0.01, unit_range=True) is None


def test_one_poisoned_device_cannot_decide():
    rng = random.Random(4)
    new, old = fleet(rng, 0.9, 12, 20), fleet(rng, 0.9, 12, 20)
    before = compare(sides(new, old), 1.0, 0.02, unit_range=False).contrast
    lie = Window(count=9_000_000, total=-9e12, squares=9e18)
    poisoned = compare(sides(new | {"d0": cell([lie] * 20)}, old), 1.0, 0.02, unit_range=False)
    assert poisoned.clipped == 1
    assert poisoned.contrast.value == pytest.approx(before.value, abs=0.03)
    assert e_value(worse(poisoned.contrast), 0.02) < 100


def test_correlated_samples_are_little_news():
    """A camera that is blind for whole windows: ten times as many samples of each window must not make it certain."""
    rng = random.Random(5)

    def blind(samples):
        return {
            f"d{device}": cell(
                [
                    Window(count=samples, total=float(right), squares=float(right))
                    for right in (samples * (rng.random() < 0.9) for _ in range(30))
                ]
            )
            for device in range(6)
        }

    few = compare(sides(blind(10), blind(10)), 1.0, 0.01, unit_range=True).contrast
    many = compare(sides(blind(1000), blind(1000)), 1.0, 0.01, unit_range=True).contrast
    assert math.sqrt(many.variance) > 0.6 * math.sqrt(few.variance)
    assert math.sqrt(many.variance) > 0.02


def test_equal_values_are_no_division_by_zero():
    same = {f"d{number}": cell([Window(count=10, total=50.0, squares=250.0)] * 5) for number in range(3)}
    higher = {f"d{number}": cell([Window(count=10, total=60.0, squares=360.0)] * 5) for number in range(3)}
    for one, other in ((same, same), (same, higher)):
        found = compare(sides(one, other), 1.0, 0.1, unit_range=False)
        assert math.isfinite(found.contrast.value)
        assert found.contrast.variance > 0
    zero = {"d": cell([Window(count=10, total=0.0, squares=0.0)] * 5)}
    assert math.isfinite(compare(sides(zero, zero), 1.0, 0.0, unit_range=False).contrast.value)


def worse(estimate: Estimate) -> Estimate:
    return msgspec.structs.replace(estimate, value=-estimate.value)


@pytest.mark.parametrize(
    ("devices", "spread", "drift", "most"),
    # Each row is seeded, so its outcome is always the same; `most` is 1 % of 100 canaries with slack.
    [(4, 0.0, 0.0, 3), (10, 0.04, 0.0, 3), (6, 0.02, 0.05, 3), (1, 0.0, 0.0, 2)],
)
def test_no_difference_is_not_found_worse_however_often_one_looks(devices, spread, drift, most):
    rng, wrong = random.Random(11), 0
    for _ in range(100):
        moves = [drift * math.sin(window / 3) for window in range(20)]
        rates = [[0.88 + rng.gauss(0, spread) for _ in range(devices)] for _ in range(2)]
        cells = [dict.fromkeys((f"{side}{number}" for number in range(devices)), Cell()) for side in range(2)]
        for move in moves:
            for side in range(2):
                for number, rate in enumerate(rates[side]):
                    right = float(sum(rng.random() < rate + move for _ in range(6)))
                    key = f"{side}{number}"
                    cells[side][key] = plus(cells[side][key], Window(count=6, total=right, squares=right))
            found = compare(sides(*cells), 1.0, 0.0, unit_range=True)
            if found is not None and e_value(worse(found.contrast), 0.0) >= 100:
                wrong += 1
                break
    assert wrong <= most


def test_a_fall_is_caught_in_time():
    """From 95 % to 90 %: half of the canaries within 1.5 times the 552 samples that a fixed-sample test needs for a power of 80 %."""
    rng, caught = random.Random(12), 0
    for _ in range(40):
        new, old = fleet(rng, 0.90, 10, 16, 5), fleet(rng, 0.95, 10, 16, 5)
        found = compare(sides(new, old), 1.0, 0.0, unit_range=True)
        caught += e_value(worse(found.contrast), 0.0) >= 100
    assert caught >= 16


def test_a_short_way_to_say_a_sum():
    assert side_of(0, 0.0) == Side()
    assert (side_of(10, 9.0).count, side_of(10, 9.0).total) == (10, 9.0)
