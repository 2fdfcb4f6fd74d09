"""Comparisons: verdicts, words, pictures."""

import random
import xml.etree.ElementTree as ET

import msgspec
import pytest

from edgewise.delivery.analysis import judge, overall, winner
from edgewise.delivery.evidence.units import Cell, Side, Sides, Window, plus, side_of
from edgewise.delivery.picture import bar, svg
from edgewise.resources.rollout import Difference, MetricVerdict
from edgewise.resources.states import AnalysisState
from edgewise.resources.workload import AnalysisMetric

ACCURACY = AnalysisMetric(metric="model.accuracy", direction="higher", margin=0.02, min_samples=50, give_up_after="10m")
LATENCY = AnalysisMetric(metric="model.server.request.duration", direction="lower", margin="10%", min_samples=50)
EDGES = (0.005, 0.01, 0.02, 0.05, 0.1)
STATES = AnalysisState


def accuracy(rate, windows=40, devices=12, seed=1, samples=10):
    rng, cells = random.Random(f"{seed}/{rate}/{windows}"), {}
    for device in range(devices):
        cell = Cell("camera")
        for _ in range(windows):
            right = float(sum(rng.random() < rate for _ in range(samples)))
            cell = plus(cell, Window(count=samples, total=right, squares=right))
        cells[f"d{device}"] = cell
    return Side(cells=cells, devices=devices)


def durations(mean, windows=30, devices=10, seed=1, *, histogram=True):
    rng, cells = random.Random(f"{seed}/{mean}"), {}
    for device in range(devices):
        cell = Cell("camera")
        for _ in range(windows):
            values = [rng.expovariate(1 / mean) for _ in range(20)]
            counts = [0] * (len(EDGES) + 1)
            for value in values:
                counts[sum(value > edge for edge in EDGES)] += 1
            window = Window(count=20, total=sum(values), squares=sum(value * value for value in values), buckets=tuple(counts))
            cell = plus(cell, window if histogram else msgspec.structs.replace(window, buckets=()))
        cells[f"d{device}"] = cell
    return Side(cells=cells, devices=devices, bounds=EDGES if histogram else ())


def verdict_of(metric, new, old, *, now=1.0, error_rate=0.01, others=()):
    return judge((metric, *others), {metric.metric: Sides(new=new, old=old)}, error_rate, 0.0, now)[0]


@pytest.mark.parametrize(
    ("rate", "windows", "state", "finding"),
    [
        (0.95, 200, STATES.SUCCESSFUL, "same"),
        (0.96, 40, STATES.SUCCESSFUL, "within"),
        (0.95, 3, STATES.RUNNING, ""),
        (0.85, 40, STATES.FAILED, "worse"),
        (0.99, 200, STATES.SUCCESSFUL, "better"),
    ],
)
def test_what_is_found(rate, windows, state, finding):
    found = verdict_of(ACCURACY, accuracy(rate, windows, seed=2), accuracy(0.9501, windows, seed=3))
    assert (found.state, found.finding) == (state, finding), found.message
    assert found.new.devices == found.old.devices == 12
    assert found.new.samples == found.samples == 120 * windows
    assert found.difference.low < found.difference.value < found.difference.high
    assert found.difference.confidence == pytest.approx(0.98)
    assert (found.harm >= 100) is (finding == "worse")
    assert (found.soundness >= 100) is (state is STATES.SUCCESSFUL)
    assert msgspec.json.decode(msgspec.json.encode(found), type=MetricVerdict) == found
    again = verdict_of(ACCURACY, accuracy(rate, windows, seed=2), accuracy(0.9501, windows, seed=3), now=700.0)
    assert again.state is (STATES.INCONCLUSIVE if state is STATES.RUNNING else state)


def test_the_words():
    found = verdict_of(ACCURACY, accuracy(0.85), accuracy(0.95))
    assert found.message.startswith("model.accuracy of the new revision is ")
    for part in (" points lower (9", " % -> 8", "98 % interval -", "12 devices against 12): worse than the margin of 2 points"):
        assert part in found.message


def test_nothing_reported_is_never_a_success():
    for sides in (Sides(), Sides(new=side_of(1000, 950.0)), Sides(old=side_of(1000, 950.0))):
        for metric in (ACCURACY, LATENCY, msgspec.structs.replace(LATENCY, quantile=0.95)):
            (early,), (late,) = (judge((metric,), {metric.metric: sides}, 0.01, 0.0, now) for now in (1.0, 600.0))
            assert early.state is STATES.RUNNING
            assert late.state is STATES.INCONCLUSIVE
            assert late.message
    assert judge((ACCURACY,), {}, 0.01, None, 1e9)[0].state is STATES.RUNNING


def test_few_samples_are_no_verdict():
    new, old = accuracy(0.1, 4, 1, samples=10), accuracy(0.99, 4, 1, samples=20)
    assert (new.count, old.count) == (40, 80)
    found = verdict_of(ACCURACY, new, old)
    assert found.state is STATES.RUNNING
    assert "40 and 80 of 50 samples" in found.message


def test_a_relative_margin_and_the_other_direction():
    same = verdict_of(LATENCY, durations(0.0201, 200), durations(0.02, 200))
    assert same.state is STATES.SUCCESSFUL
    assert same.margin == pytest.approx(0.1 * same.old.value, rel=0.1)
    slower = verdict_of(LATENCY, durations(0.03), durations(0.02))
    assert (slower.state, slower.finding) == (STATES.FAILED, "worse")
    assert " ms higher (" in slower.message
    faster = verdict_of(LATENCY, durations(0.01), durations(0.02))
    assert (faster.state, faster.finding) == (STATES.SUCCESSFUL, "better")


def test_quantiles():
    metric = msgspec.structs.replace(LATENCY, quantile=0.9)
    slower = verdict_of(metric, durations(0.06), durations(0.006))
    assert (slower.state, slower.finding) == (STATES.FAILED, "worse")
    assert "(quantile 0.9)" in slower.message
    faster = verdict_of(metric, durations(0.006), durations(0.06))
    assert (faster.state, faster.finding) == (STATES.SUCCESSFUL, "better")
    # Both lie between the same two edges: a histogram cannot tell, so nothing is told.
    assert verdict_of(metric, durations(0.012), durations(0.012)).state is STATES.RUNNING
    none = verdict_of(metric, durations(0.06, histogram=False), durations(0.006, histogram=False))
    assert none.state is STATES.RUNNING
    assert "no histogram" in none.message
    higher = AnalysisMetric(metric="x", direction="higher", margin=0.001, quantile=0.5)
    assert verdict_of(higher, durations(0.006), durations(0.06)).finding == "worse"
    assert verdict_of(higher, durations(0.06), durations(0.006)).finding == "better"


def test_a_threshold_on_a_quantile():
    metric = AnalysisMetric(metric="x", max=0.05, quantile=0.9)
    assert verdict_of(metric, durations(0.01), Side()).state is STATES.SUCCESSFUL
    bad = verdict_of(metric, durations(0.06), Side())
    assert bad.state is STATES.FAILED
    assert "quantile 0.9" in bad.message
    assert verdict_of(metric, durations(0.01, histogram=False), Side()).state is STATES.RUNNING


def test_a_threshold_counts_its_wave_only():
    metric = AnalysisMetric(metric="m", min=0.9)
    sides = Sides(new=side_of(100, 50.0), wave=side_of(10, 10.0))
    assert judge((metric,), {"m": sides}, 0.01, None, 0.0)[0].state is STATES.SUCCESSFUL


def test_metrics_share_the_error_rate():
    alone = verdict_of(ACCURACY, accuracy(0.9), accuracy(0.95))
    shared = verdict_of(ACCURACY, accuracy(0.9), accuracy(0.95), others=(LATENCY, msgspec.structs.replace(LATENCY, quantile=0.5)))
    threshold = verdict_of(ACCURACY, accuracy(0.9), accuracy(0.95), others=(AnalysisMetric(metric="y", min=1.0),))
    assert alone.error_rate == threshold.error_rate == 0.01
    assert shared.error_rate == pytest.approx(0.01 / 3)
    assert shared.difference.high > alone.difference.high
    assert shared.difference.low == alone.difference.low


def test_who_wins():
    def of(*findings):
        states = {"worse": STATES.FAILED, "": STATES.RUNNING}
        return winner(tuple(MetricVerdict(metric="m", state=states.get(each, STATES.SUCCESSFUL), finding=each) for each in findings))

    assert of("better") == of("better", "within") == of("same", "better") == "new"
    assert of("worse", "better") == of("", "worse") == "old"
    assert of("same") == of("same", "same") == "none"
    assert of("within") == of("", "better") == of("within", "same") == of() == ""
    assert overall(()) is STATES.SUCCESSFUL


def test_pictures():
    found = verdict_of(ACCURACY, accuracy(0.85), accuracy(0.95))
    for columns in (10, 40, 60, 500):
        for ascii_only in (False, True):
            line = bar(found, columns=columns, ascii_only=ascii_only)
            assert len(line) <= max(17, min(columns, 60))
            assert line.isascii() is ascii_only
            assert line.startswith("worse ")
    assert bar(found, ascii_only=True).index("#") < bar(found, ascii_only=True).index("|")
    better = verdict_of(LATENCY, durations(0.01), durations(0.02))
    assert bar(better, ascii_only=True).index("#") > bar(better, ascii_only=True).index("|")
    assert "1e8449" in svg(better)
    threshold = verdict_of(AnalysisMetric(metric="m", min=0.5), side_of(10, 9.0), Side())
    assert bar(threshold) == svg(threshold) == ""


@pytest.mark.parametrize("ends", [(None, None), (-1e300, 1e300), (None, 0.0), (0.0, 0.0), (-0.2, None)])
def test_pictures_of_anything(ends):
    verdict = MetricVerdict(
        metric="m",
        state=STATES.RUNNING,
        message='<script> & "quotes"',
        margin=0.0,
        difference=Difference(value=0.0, low=ends[0], high=ends[1]),
    )
    assert len(bar(verdict)) <= 60
    picture = ET.fromstring(svg(verdict))
    assert picture.attrib["aria-label"] == verdict.message
    assert "<script>" not in svg(verdict)
