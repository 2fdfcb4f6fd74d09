"""What is counted of reports: sides, waves, cumulative series, a restart, and bounded memory."""

import msgspec
import pytest

from edgewise.controllers.metrics import MetricLimits, WaveMetrics, restored
from edgewise.delivery.evidence.units import LIMITS
from edgewise.wire.report import Series

NAMES = frozenset({"m", "model.accuracy"})


def series(revision="new", **fields):
    known = {
        "name": "m", "unit": "1", "type": "gauge", "instance": "shop/app", "count": 10, "sum": 5.0, "sum_squares": 4.0, "min": 0.0, "max": 1.0,
        "last": 0.5,
    }  # fmt: skip
    return Series(**{**known, "revision": revision, **fields})


def both(**fields):
    return WaveMetrics("new", 1, NAMES, old_revision="old", **fields)


def test_both_sides_count_while_both_are_heard():
    wave = both()
    assert wave.add("a", series("new"), now=0.0)  # for the threshold, not for the comparison
    assert not wave.of()["m"].new.cells
    assert wave.add("b", series("old"), now=1.0)
    assert wave.add("a", series("new"), now=2.0)
    sides = wave.of()["m"]
    assert (sides.new.count, sides.old.count, sides.wave.count) == (10, 10, 20)
    assert not wave.add("b", series("other"), now=3.0)
    # The new revision is silent for more than two minutes: what the old one says meanwhile is of another time.
    assert wave.add("b", series("old"), now=122.0)
    assert not wave.add("b", series("old"), now=122.1)


def test_only_controls_count():
    wave = both(controls=frozenset({"c"}))
    wave.add("a", series("new"))
    assert not wave.add("b", series("old"))
    assert wave.add("c", series("old"))
    assert list(wave.of()["m"].old.cells) == ["c"]


def test_nothing_is_compared_without_an_old_revision():
    wave = WaveMetrics("new", 1, NAMES)
    wave.add("a", series("new"))
    assert not wave.add("b", series(""))
    assert wave.of()["m"].new.count == 0
    assert wave.of()["m"].wave.count == 10


def test_classes_become_strata():
    wave = both()
    wave.add("b", series("old"), "camera")
    wave.add("a", series("new"), "camera")
    assert wave.of()["m"].new.cells["a"].stratum == "camera"


@pytest.mark.parametrize(
    "fields",
    [
        {"sum": float("nan")},
        {"sum_squares": float("inf")},
        {"count": LIMITS.count_max + 1},
        {"name": "model.accuracy", "sum": 11.0},
        {"name": "model.accuracy", "sum": -1.0},
        {"sum": 1e300},
    ],
)
def test_what_cannot_be_is_dropped_and_counted(fields):
    wave = both()
    wave.add("b", series("old", name=fields.get("name", "m")))
    assert not wave.add("a", series("new", **fields))
    sides = wave.of()[fields.get("name", "m")]
    assert (sides.new.dropped, sides.wave.dropped, sides.new.count) == (1, 1, 0)


def test_histograms_count_when_they_add_up():
    wave = both()
    wave.add("b", series("old"))
    for buckets in ((4, 6), (4, 7), (-1, 11), (1, 2, 7)):
        wave.add("a", series("new", bounds=(0.5,), buckets=buckets))
        wave.add(f"a{buckets}", series("new", bounds=(0.5,), buckets=buckets))
    cells = wave.of()["m"].new.cells
    assert cells["a(4, 6)"].buckets == (4, 6)
    assert all(not cells[key].buckets for key in cells if key != "a(4, 6)")
    falling = both()
    falling.add("b", series("old"))
    falling.add("a", series("new", bounds=(2.0, 1.0), buckets=(1, 2, 7)))
    assert falling.of()["m"].new.bounds == ()


def test_cumulative_series_count_their_growth():
    wave = both()
    wave.add("b", series("old"))
    for count, total, buckets in ((10, 5.0, (5, 5)), (15, 8.0, (7, 8)), (15, 8.0, (7, 8)), (4, 1.0, (2, 2))):
        wave.add("a", series("new", count=count, sum=total, sum_squares=total, temporality="cumulative", bounds=(0.5,), buckets=buckets))
    cell = wave.of()["m"].new.cells["a"]
    assert (cell.count, cell.total, cell.windows, cell.buckets) == (19, 9.0, 3, (9, 10))


def test_a_restart_forgets_nothing_and_counts_nothing_twice():
    wave = both(paired=True)
    wave.add("b", series("old"))
    for _ in range(3):
        wave.add("a", series("new"))
        wave.add("b", series("old"))
    wave.add("a", series("new", name="model.accuracy", temporality="cumulative"))
    again = both(paired=True, stored=wave.stored())
    assert again.of() == wave.of()
    assert not again.add("a", series("new", name="model.accuracy", count=12, sum=6.0, temporality="cumulative"))
    assert again.add("a", series("new", name="model.accuracy", count=14, sum=7.0, temporality="cumulative"))
    assert again.of()["model.accuracy"].wave.count == 12
    # The next wave goes on with the comparison and begins the threshold anew; another way to compare begins anew.
    later = WaveMetrics("new", 2, NAMES, old_revision="old", paired=True, stored=wave.stored())
    assert later.of()["m"].new == wave.of()["m"].new
    assert later.of()["m"].wave.count == 0
    carried = WaveMetrics("new", 2, NAMES, old_revision="old", paired=True, before=wave)
    assert carried.of()["m"].new == wave.of()["m"].new
    assert carried.of()["m"].wave.count == 0
    assert both(stored=wave.stored()).of()["m"].new.count == 0
    assert WaveMetrics("new", 2, NAMES, old_revision="old", before=wave).of() == {}
    assert WaveMetrics("newer", 2, NAMES, old_revision="old", paired=True, before=wave, stored=wave.stored()).of() == {}


@pytest.mark.parametrize("stored", [b"x", b"", b"\x78\x9c", msgspec.msgpack.encode([1, "new"])])
def test_what_cannot_be_read_begins_anew(stored):
    assert restored(stored, "new") is None
    assert both(stored=stored).of() == {}


def test_ten_thousand_devices_take_bounded_room():
    wave = both()
    wave.add("x", series("old"))
    for number in range(10_000):
        wave.add(f"device-{number}", series("new"), "camera" if number % 3 else "microphone")
        wave.add(f"control-{number}", series("old"), "camera")
    sides = wave.of()["m"]
    most = LIMITS.cells_max + 2 * LIMITS.shared_max
    assert len(sides.new.cells) <= most
    assert len(sides.old.cells) <= most
    assert sides.new.count == 100_000
    assert sides.new.devices == sum(cell.devices for cell in sides.new.cells.values()) == 10_000
    stored = wave.stored()
    assert 0 < len(stored) < 30_000
    again = both(stored=stored)
    assert again.of()["m"].new.devices == 10_000
    again.add("device-9999", series("new"))
    assert again.of()["m"].new.devices == 10_000


def test_too_much_is_not_stored():
    wave = both()
    wave.add("a", series("new"))
    size = len(wave.stored())
    assert wave.stored(MetricLimits(stored_bytes_max=size))
    assert wave.stored(MetricLimits(stored_bytes_max=size - 1)) == b""
