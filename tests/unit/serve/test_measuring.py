"""What a model server measures of its model, and what it tells."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

datasketches = pytest.importorskip("datasketches")

from edgewise.serve.energy import Meter  # noqa: E402 - only where the runtime's extras are installed
from edgewise.serve.inference import Identity  # noqa: E402 - see above
from edgewise.serve.limits import ServeLimits  # noqa: E402 - see above
from edgewise.serve.measurements import SERIES_MAX, Measurements  # noqa: E402 - see above
from edgewise.serve.observer import Observer  # noqa: E402 - see above
from edgewise.serve.sketching import COLUMNS_MAX, SKETCHES_MAX, Sketches  # noqa: E402 - see above
from edgewise.serve.tensors import TensorSpec  # noqa: E402 - see above


def spec(name="x", datatype="FP32", shape=(-1, -1)):
    return TensorSpec(name, datatype, shape)


def by_name(told):
    return {one.name: one for one in told}


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@given(st.lists(st.integers(-5, 50), min_size=1), st.integers(0, 50))
def test_what_is_put_back_is_told_with_what_came_since(values, split):
    whole, parts = Measurements(), Measurements()
    whole.extend("m", values, "s", (0.0, 10.0))
    parts.extend("m", values[:split], "s", (0.0, 10.0))
    taken = parts.take()
    parts.extend("m", values[split:], "s", (0.0, 10.0))
    parts.put_back(taken)
    assert parts.take() == whole.take()
    assert parts.take() == []


def test_values_that_are_not_finite_are_left_out_and_so_is_a_metric_too_many():
    measurements = Measurements()
    measurements.extend("m", [1.0, math.nan, math.inf, -math.inf])
    measurements.add("only.rubbish", math.nan)
    for number in range(SERIES_MAX):
        measurements.add(f"n{number}", 1.0)
    told = measurements.take()
    assert by_name(told)["m"].count == 1
    assert len(told) == SERIES_MAX - 1


def test_a_sketch_tells_the_distribution_of_each_column_and_merges_with_what_could_not_be_told():
    sketches, rows = Sketches("model.input"), np.stack([np.arange(60), np.arange(60) * 10], axis=1).astype(np.float32)
    sketches.observe([(spec("features"), rows[:30])])
    taken = sketches.take()
    sketches.observe([(spec("features"), rows[30:])])
    sketches.put_back(taken)
    told = by_name(sketches.take())
    assert set(told) == {"model.input.features.0", "model.input.features.1"}
    one = told["model.input.features.1"]
    kll = datasketches.kll_floats_sketch.deserialize(one.sketch)
    assert (one.count, one.min, one.max, one.sketch_type, kll.n) == (60, 0.0, 590.0, "kll-float", 60)
    assert abs(kll.get_quantile(0.5) - 295) <= 30
    assert len(one.sketch) < 4096


@pytest.mark.parametrize(("width", "names"), [(1, 1), (COLUMNS_MAX, COLUMNS_MAX), (COLUMNS_MAX + 1, 1)])
def test_a_wide_tensor_is_sketched_as_a_whole(width, names):
    sketches = Sketches("p")
    sketches.observe([(spec(), np.ones((3, width), np.float32))])
    assert len(sketches.take()) == names


def test_sketches_are_bounded_and_take_no_text_and_nothing_that_is_not_finite():
    sketches = Sketches("p")
    sketches.observe([(spec(), np.array([["a", "b"]], dtype=object)), (spec("y"), np.array([np.nan, np.inf], np.float32))])
    assert sketches.take() == []
    sketches.observe([(spec(f"t{number}"), np.ones(4, np.float32)) for number in range(SKETCHES_MAX + 1)])
    assert len(sketches.take()) == SKETCHES_MAX


def test_a_large_tensor_is_sampled_over_its_whole_length():
    sketches = Sketches("p")
    sketches.observe([(spec(), np.arange(1_000_000, dtype=np.float32))])
    (told,) = sketches.take()
    assert 32 <= told.count <= 64
    assert (told.min, told.max) == (0.0, pytest.approx(1_000_000, rel=0.05))


def test_an_observer_looks_at_some_answers_and_counts_all():
    clock = Clock()
    observer = Observer(ServeLimits(observations_per_second_max=10), monotonic=clock)
    shares = np.array([[0.1, 0.7, 0.2]], np.float32)
    for _ in range(5):
        observer.answered("", [(spec(), np.ones((1, 2), np.float32))], [(spec("probabilities"), shares)])
        observer.served(0.004, 0.001, 200)
    clock.now += 0.1
    observer.answered("", [], [(spec("probabilities"), shares)])
    observer.served(0.1, 0.0, 503)
    observer.served(0.1, 0.0, 422)
    observer.served(0.1, 0.0, 400)
    told = by_name(observer.take(sketches=True))
    assert (told["model.confidence"].count, round(told["model.confidence"].last, 3)) == (2, 0.7)
    assert told["model.output.class"].buckets[1] == 2
    assert (told["model.server.errors"].count, told["model.server.errors"].sum) == (8, 2)
    assert (told["model.server.request.duration"].count, told["model.server.request.duration"].unit) == (5, "s")
    assert {"model.input.x.0", "model.input.x.1"} <= set(told)


def test_inputs_are_sketched_only_where_they_may_be():
    observer = Observer(ServeLimits(), inputs_allowed=False, monotonic=Clock())
    observer.answered("", [(spec(), np.ones((1, 2), np.float32))], [(spec("y", shape=(-1, 1)), np.array([[2.5]], np.float32))])
    assert set(by_name(observer.take(sketches=True))) == {"model.output.y"}


def test_what_the_agent_did_not_take_is_told_again():
    observer = Observer(ServeLimits(), monotonic=Clock())
    observer.answered("", [(spec(), np.ones((1, 2), np.float32))], [(spec("y", shape=(-1, 1)), np.array([[2.5]], np.float32))])
    observer.served(0.1, 0.0, 200)
    first = observer.take(sketches=True)
    before = {one.name: one.count for one in first}
    observer.put_back(first)
    assert {one.name: one.count for one in observer.take(sketches=True)} == before


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_energy_is_read_from_the_power_capping_counter_over_its_wrap(tmp_path):
    zone = tmp_path / "class/powercap/intel-rapl:0"
    write(zone / "max_energy_range_uj", "1000000000")
    write(zone / "energy_uj", "990000000")
    meter = Meter(tmp_path, Clock())
    assert meter.read() is None
    write(zone / "energy_uj", "995000000")
    assert meter.read() == pytest.approx(5.0)
    write(zone / "energy_uj", "2000000")
    assert meter.read() == pytest.approx(7.0)


def test_energy_is_integrated_from_a_boards_sensors(tmp_path):
    clock = Clock()
    write(tmp_path / "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3/power1_input", "4000000")
    meter = Meter(tmp_path, clock)
    assert meter.read() is None
    clock.now += 2.0
    assert meter.read() == pytest.approx(8.0)


@pytest.mark.parametrize("rubbish", [None, "", "no number"])
def test_where_no_energy_can_be_read_none_is_told(tmp_path, rubbish):
    if rubbish is not None:
        write(tmp_path / "class/powercap/intel-rapl:0/energy_uj", rubbish)
    meter = Meter(tmp_path, Clock())
    assert [meter.read(), meter.read()] == [None, None]


def test_prometheus_gets_totals_that_never_go_back_and_quantiles_of_what_is_sketched():
    observer = Observer(ServeLimits(), monotonic=Clock())
    observer.answered("", [(spec(), np.ones((1, 2), np.float32))], [(spec("p"), np.array([[0.1, 0.9]], np.float32))])
    identity = Identity(instance="shop/eye", name="eye", versions=("2",), revision="r1")

    def counts():
        return [line for line in observer.text(identity).splitlines() if "duration" in line and "_count" in line]

    observer.served(0.0004, 0.0, 200)
    assert counts() == [
        'edgewise_model_server_queue_duration_seconds_count{instance="shop/eye",revision="r1"} 1',
        'edgewise_model_server_request_duration_seconds_count{instance="shop/eye",revision="r1"} 1',
    ]
    taken = observer.take(sketches=False)
    observer.served(0.1, 0.0, 200)
    observer.put_back(taken)
    assert [line.rpartition(" ")[2] for line in counts()] == ["2", "2"]
    assert by_name(observer.take(sketches=False))["model.server.request.duration"].count == 2
    assert [line.rpartition(" ")[2] for line in counts()] == ["2", "2"]
    text = observer.text(identity)
    assert 'edgewise_model_server_request_duration_seconds_bucket{instance="shop/eye",revision="r1",le="0.0005"} 1' in text
    assert 'edgewise_model_confidence_bucket{instance="shop/eye",revision="r1",le="0.9"} 1' in text
    assert 'edgewise_model_input_x_1{instance="shop/eye",revision="r1",quantile="0.5"} 1' in text
