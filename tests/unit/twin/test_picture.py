"""The picture of a rehearsal: what is on it, always the same bytes, and what is said without matplotlib."""

import subprocess
import sys
import xml.etree.ElementTree as ET

import msgspec
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from edgewise.twin import picture
from edgewise.twin.picture import NoPicture, Picture, draw, paths_for, typical, write
from edgewise.twin.rehearsal import Rehearsal
from edgewise.twin.report import About, report_of
from edgewise.twin.result import Moment

ABOUT = About(change="default/inspector 1 to 2", scenario="partition", devices=100, sites=2, assumptions=("Links carry 20 Mbit/s.",) * 30)
PNG = b"\x89PNG\r\n\x1a\n"


def drawn(runs, subject=ABOUT):
    return draw(runs, report_of(Rehearsal(planned=len(runs), runs=tuple(runs)), subject))


@pytest.fixture
def texts(monkeypatch):
    """The figures that are drawn, spared the time that saving them takes."""
    seen = []
    monkeypatch.setattr(picture, "_saved", lambda figure, form: seen.append(figure) or b"")
    return seen


def words_on(figure):
    return {text.get_text() for text in figure.findobj(Text) if text.get_text()}


def test_the_picture_shows_versions_waves_faults_and_devices(made_run, texts):
    runs = [made_run(seed, back=seed == 3, failed=("device-4",) if seed == 2 else ()) for seed in range(1, 6)]
    drawn(runs)
    words = words_on(texts[0])
    assert {"Rehearsal: default/inspector 1 to 2", "inspector 2", "inspector 1", "band: p5 to p95 of 5 runs"} <= words
    times = "\N{MULTIPLICATION SIGN}"
    assert {
        "wave 1 of 3",
        "wave 2",
        "wave 3",
        "succeeded",
        "partition",
        f"power-cut {times}2",
        "control-kill",
        "offline",
        "updating",
    } <= words
    assert "minutes since the change" in words
    assert any(text.startswith("! In 1 of 5 runs default/inspector 2 was rolled back") for text in words)
    assert any(text.startswith("Assumed: Links carry 20 Mbit/s; Links") for text in words)
    assert any("trace hash" in text for text in words)


def test_devices_that_stay_offline_are_drawn_to_the_end(made_run, texts):
    run = made_run(1)
    dark = msgspec.structs.replace(run.counts[5], offline=40)
    drawn([msgspec.structs.replace(run, counts=(*run.counts[:5], dark))])
    axes = texts[0].axes[-1]
    reach = max(point[0] for shape in axes.collections for path in shape.get_paths() for point in path.vertices)
    assert reach == pytest.approx(axes.get_xlim()[1])
    assert any(text.startswith("Nothing went wrong with the change, though up to 40 devices were offline") for text in words_on(texts[0]))


def test_a_rollback_is_shown_as_the_way_back(made_run, texts):
    drawn([made_run(3, back=True)])
    assert {"wave 1 of 3", "wave 2", "back", "rolled back"} <= words_on(texts[0])
    assert "wave 3" not in words_on(texts[0])


@pytest.mark.parametrize(
    "how", [{}, {"back": True}, {"ended": False}, {"devices": 100_000}, {"pace": 0.05}, {"pace": 40.0}, {"pace": 900.0}]
)
def test_no_text_lies_over_another_or_off_the_picture(made_run, texts, how):
    many = tuple(f"device-{number}" for number in range(20))
    drawn([made_run(seed, failed=many, **how) for seed in (1, 2, 3)])
    figure = texts[0]
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in shown_texts(figure)]
    width, height = figure.bbox.width, figure.bbox.height
    for index, (text, box) in enumerate(boxes):
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text
        for other, another in boxes[index + 1 :]:
            assert not box.overlaps(another), (text, other)


def shown_texts(figure):
    """All texts that are to be seen, and no tick's that are off their axes."""
    texts = list(figure.texts)
    for panel in figure.axes:
        texts += [*panel.texts, panel._left_title, panel.xaxis.label, *(panel.legend_.get_texts() if panel.legend_ else ())]
        for axis, (low, high) in ((panel.xaxis, panel.get_xlim()), (panel.yaxis, sorted(panel.get_ylim()))):
            for tick in axis.get_major_ticks():
                if low <= tick.get_loc() <= high and tick.label1.get_visible():
                    texts.append(tick.label1)
    return [text for text in texts if text.get_text().strip()]


def test_equal_input_gives_equal_bytes(made_run):
    both = drawn([made_run(1), made_run(2)])
    assert both == drawn([made_run(1), made_run(2)])
    assert both.png.startswith(PNG)
    assert ET.fromstring(both.svg).tag.endswith("svg")


def test_bytes_do_not_depend_on_the_hash_seed_or_the_settings_of_a_user(made_run, tmp_path):
    # A process of its own with another hash seed, another zone and a matplotlibrc.
    run = made_run(1)
    (tmp_path / "run").write_bytes(msgspec.msgpack.encode(run))
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 20\nfont.size: 40\nsavefig.dpi: 20\n")
    script = f"""
import sys
sys.path[:0] = {sys.path!r}
import msgspec
from edgewise.twin.picture import draw, write
from edgewise.twin.rehearsal import Rehearsal
from edgewise.twin.report import About, report_of
from edgewise.twin.result import RunResult
from pathlib import Path
run = msgspec.msgpack.decode(Path("run").read_bytes(), type=RunResult)
write(draw([run], report_of(Rehearsal(planned=1, runs=(run,)), About(change="a change", scenario="calm"))), Path("picture"))
"""
    environment = {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "SOURCE_DATE_EPOCH": "1"}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    here = drawn([run], About(change="a change", scenario="calm"))
    assert (tmp_path / "picture.svg").read_bytes() == here.svg
    assert (tmp_path / "picture.png").read_bytes() == here.png


def test_the_typical_run_is_that_of_the_median(made_run):
    runs = [made_run(1, pace=3), made_run(1), made_run(1, ended=False), made_run(1, pace=2), made_run(1, pace=4)]
    assert typical(runs) is runs[0]
    assert typical(runs[:2]) is runs[1]


def test_a_run_in_which_nothing_happens_can_be_drawn(made_run, texts):
    run = msgspec.structs.replace(made_run(1), rollouts=(), timeline=(), counts=(), workloads=())
    drawn([run])
    assert "none" in words_on(texts[0])


def test_an_unknown_fault_has_its_own_row(made_run, texts):
    run = made_run(1)
    odd = Moment(at=20.0, kind="fault", subject="hall-1", message="locusts")
    drawn([msgspec.structs.replace(run, timeline=(odd, *run.timeline))])
    assert "locusts" in words_on(texts[0])


def test_without_results_there_is_no_picture():
    with pytest.raises(NoPicture, match="no run gave a result"):
        draw([], report_of(Rehearsal(planned=1), ABOUT))


def test_without_the_extra_the_error_says_what_to_type(made_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure", raising=False)
    with pytest.raises(NoPicture, match=r"a picture needs matplotlib: type pip install 'edgewise\[twin\]'"):
        drawn([made_run(1)])


def test_both_forms_are_written_without_a_suffix(tmp_path):
    both = Picture(svg=b"an svg", png=b"a png")
    assert write(both, tmp_path / "a") == (tmp_path / "a.svg", tmp_path / "a.png")
    assert (tmp_path / "a.svg").read_bytes() == both.svg
    assert write(both, tmp_path / "b.PNG") == (tmp_path / "b.PNG",)
    assert (tmp_path / "b.PNG").read_bytes() == both.png


def test_other_suffixes_and_unwritable_places_are_told(tmp_path):
    with pytest.raises(NoPicture, match=r"an \.svg or a \.png"):
        paths_for(tmp_path / "a.jpg")
    with pytest.raises(NoPicture, match="No such file or directory"):
        write(Picture(svg=b"", png=b""), tmp_path / "nowhere" / "a.svg")
