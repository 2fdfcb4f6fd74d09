"""The picture of a rehearsal: a timeline that one would put in a change request, as SVG and PNG.

draw(results, report) -> Picture: equal bytes for equal input (with the same matplotlib). Needs the extra `twin`.
"""

import io
import math
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

import msgspec

from edgewise.resources.errors import Error
from edgewise.twin import units
from edgewise.twin.distributions import began_at, change_seconds, nearest_rank, rollouts_of
from edgewise.twin.report import Report, all_well
from edgewise.twin.result import Counts, Moment, RunResult
from edgewise.twin.scenario import FaultKind

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["NoPicture", "Picture", "draw", "paths_for", "typical", "write"]

_WIDE: Final = 11.0
_LEFT: Final = 1.85
_HEAD: Final = 1.62
_TALL: Final = 3.5
_GAP: Final = 0.36
_FOOT: Final = 0.72
_NOTE: Final = 0.175
"""Inches: the whole width, the room for names, the head, the first panel, the room between panels, the foot and each line in it."""

_DOTS_PER_INCH: Final = 150
_STEPS: Final = 400
_ROLLOUTS_MAX: Final = 6
_FAULTS_MAX: Final = 8
_WORDS_MAX: Final = 3
_LINE: Final = 118
"""About how many letters fit into a line at the foot."""

# Okabe and Ito's colours, told apart by everybody; versions differ in their dashes too.
_BLUE: Final = "#0072B2"
_SHADE: Final = "#4F9BCB"
_ORANGE: Final = "#E69F00"
_GREEN: Final = "#009E73"
_RED: Final = "#D55E00"
_PURPLE: Final = "#CC79A7"
_SKY: Final = "#56B4E9"
_GREY: Final = "#6F7680"
_INK: Final = "#20262E"
_FAINT: Final = "#E4E7EB"

_NEW_LINES: Final = ((_BLUE, "-"), (_PURPLE, "-."), (_GREEN, (0, (1, 1.2))), (_RED, (0, (4, 1, 1, 1, 1, 1))))
_OLD_LINES: Final = ((_GREY, (0, (5, 2))), ("#A5ABB3", (0, (2, 1.5))), (_ORANGE, (0, (5, 2))))
"""Colour and dashes of the versions that the change moves to, and of those that were there before."""

_AXIS: Final = ((120.0, 1.0, "seconds"), (3.0 * 3600, 60.0, "minutes"), (4.0 * 86400, 3600.0, "hours"), (math.inf, 86400.0, "days"))
"""Up to how long an axis has which unit."""

_Dashes = str | tuple[float, tuple[float, ...]]

_STATES: Final = {
    "Succeeded": (_GREEN, "succeeded"),
    "RolledBack": (_RED, "rolled back"),
    "RollingBack": (_RED, "rolling back"),
    "Aborted": (_RED, "aborted"),
    "Paused": (_ORANGE, "paused"),
    "Superseded": (_GREY, "superseded"),
    "Progressing": (_SKY, "not ended"),
    "Pending": (_SKY, "not begun"),
}
_SETTINGS: Final = {
    "svg.hashsalt": "edgewise",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.linewidth": 0.8,
    "figure.dpi": _DOTS_PER_INCH,
    "savefig.dpi": _DOTS_PER_INCH,
}


class NoPicture(Error):
    """There is no picture: the extra is missing, no run came to a result, or the file cannot be written."""


class Picture(msgspec.Struct, frozen=True):
    """One drawing in both forms."""

    svg: bytes
    png: bytes


def paths_for(path: Path) -> tuple[Path, ...]:
    """Return the files that are meant: `path` itself with the suffix .svg or .png, both files without a suffix. Raises `NoPicture`."""
    if path.suffix.lower() in (".svg", ".png"):
        return (path,)
    if path.suffix:
        raise NoPicture(f"{path}: a picture is an .svg or a .png (both without a suffix)")
    return (path.with_suffix(".svg"), path.with_suffix(".png"))


def check_place(path: Path) -> None:
    """Raise `NoPicture` when the files that `path` means cannot be written: better before the runs than after them."""
    for target in paths_for(path):
        folder = target.parent
        if not folder.is_dir():
            raise NoPicture(f"{target}: there is no folder {folder}")
        if target.is_dir():
            raise NoPicture(f"{target}: is a folder")
        if not os.access(target if target.exists() else folder, os.W_OK):
            raise NoPicture(f"{target}: may not be written")


def write(picture: Picture, path: Path) -> tuple[Path, ...]:
    """Write `picture` to the files that `path` means; return them. Raises `NoPicture`."""
    paths = paths_for(path)
    for target in paths:
        try:
            target.write_bytes(picture.svg if target.suffix.lower() == ".svg" else picture.png)
        except OSError as error:
            raise NoPicture(f"{target}: {error.strerror or error}") from error
    return paths


def check() -> None:
    """Raise `NoPicture` when the extra that draws is missing: better before the runs than after them."""
    try:
        import matplotlib.figure  # noqa: F401 - only whether it is there
    except ModuleNotFoundError as error:
        raise NoPicture(f"a picture needs {(error.name or '').split('.')[0]}: type pip install 'edgewise[twin]'") from None


def typical(results: Sequence[RunResult]) -> RunResult:
    """Return the run whose change takes the median time (nearest rank; of equals the first)."""
    ordered = sorted(results, key=_length)
    middle = nearest_rank([float(index) for index in range(len(ordered))], 50)
    return ordered[int(middle or 0)]


def _length(result: RunResult) -> tuple[bool, float]:
    taken = change_seconds(result)
    return taken is None, taken or 0.0


def draw(results: Sequence[RunResult], report: Report) -> Picture:
    """Return the picture of `results`, which `report` is of. Raises `NoPicture`."""
    check()
    if not results:
        raise NoPicture("there is no picture: no run gave a result")
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)  # type: ignore[arg-type]  # a plain dict of settings
        figure = _figure(results, report)
        return Picture(svg=_saved(figure, "svg"), png=_saved(figure, "png"))


def _saved(figure: "Figure", form: str) -> bytes:
    target = io.BytesIO()
    nothing = {"Date": None, "Creator": None} if form == "svg" else {"Software": None}
    figure.savefig(target, format=form, metadata=nothing, facecolor="white")
    return target.getvalue()


class _Clock:
    """Seconds of a run on the axis of the picture: seconds, minutes, hours or days since the change."""

    def __init__(self, seconds: float) -> None:
        self.scale, self.unit = next((scale, unit) for most, scale, unit in _AXIS if seconds <= most)
        self.end = seconds / self.scale

    def __call__(self, seconds: float) -> float:
        return seconds / self.scale


def _figure(results: Sequence[RunResult], report: Report) -> "Figure":
    from matplotlib.figure import Figure

    shown = typical(results)
    start = began_at(shown)
    latest = max((taken for taken in map(change_seconds, results) if taken is not None), default=0.0)
    clock = _Clock(max(_shown_seconds(shown, start), min(latest * 1.02, 2 * _shown_seconds(shown, start))))
    moves = _moves(shown)
    faults = _faults(shown)
    notes = _notes(report)
    heights = (_TALL, 0.34 * max(len(moves), 1) + 0.1, 0.26 * max(len(faults), 1) + 0.1, 0.85)
    foot = _FOOT + _NOTE * len(notes)
    tall = _HEAD + sum(heights) + _GAP * (len(heights) - 1) + foot
    figure = Figure(figsize=(_WIDE, tall))
    axes: list[Axes] = []
    top = tall - _HEAD
    for height in heights:
        place = (_LEFT / _WIDE, (top - height) / tall, (_WIDE - _LEFT - 0.4) / _WIDE, height / tall)
        axes.append(figure.add_axes(place, sharex=axes[0] if axes else None))
        top -= height + _GAP
    _versions(axes[0], results, shown, clock)
    _waves(axes[1], shown, moves, start, clock)
    _bars(axes[2], faults, start, clock)
    _away(axes[3], shown, start, clock)
    for index, panel in enumerate(axes):
        _tidy(panel, clock, last=index == len(axes) - 1)
    _frame(figure, tall, report, shown, notes)
    return figure


def _shown_seconds(shown: RunResult, start: float) -> float:
    """Return how much of the run is worth showing: to its end, but no long quiet after it."""
    ends = [rollout.ended_at for rollout in rollouts_of(shown).values() if rollout.ended_at is not None]
    busy = [*(moment.until or moment.at for moment in shown.timeline), *ends]
    last = max([*(counts.at for counts in shown.counts), *busy], default=shown.simulated_seconds)
    quiet = max(busy, default=last) - start
    room = max(ends, default=start) - start
    # Behind the last bar stands how its rollout ended.
    return max(20.0, min(last - start, quiet * 1.06) if quiet > 0 else last - start, room / 0.87)


def _tidy(panel: "Axes", clock: _Clock, *, last: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    panel.set_xlim(0, clock.end)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(axis="x", color=_FAINT, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(length=3, labelbottom=last)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=10, steps=[1, 2, 5, 10]))
    if last:
        panel.set_xlabel(f"{clock.unit} since the change")


def _versions(panel: "Axes", results: Sequence[RunResult], shown: RunResult, clock: _Clock) -> None:
    """Draw the share of devices on each version: the shown run as a line, p5 to p95 of all runs as a band."""
    from matplotlib.patches import Patch

    grid = [clock.end * clock.scale * step / _STEPS for step in range(_STEPS + 1)]
    times = [clock(at) for at in grid]
    new = {f"{workload} {version}" for workload, version in rollouts_of(shown)}
    handles: list[Artist] = []
    banded = False
    for name, (colour, dashes) in _version_lines(shown).items():
        handles += panel.step(
            times, _curve(shown, name, grid), where="post", color=colour, linestyle=dashes, linewidth=2.0, label=_short(name)
        )
        if len(results) > 1 and name in new:
            columns = [sorted(column) for column in zip(*(_curve(result, name, grid) for result in results), strict=True)]
            low, high = ([nearest_rank(column, percent) or 0.0 for column in columns] for percent in (5, 95))
            panel.fill_between(times, low, high, step="post", color=colour, alpha=0.17, linewidth=0)
            banded = True
    if banded:
        handles.append(Patch(facecolor=_GREY, alpha=0.3, label=f"band: p5 to p95 of {len(results)} runs"))
    panel.set_ylim(0, 103)
    panel.set_yticks([0, 25, 50, 75, 100])
    panel.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
    panel.grid(axis="y", color=_FAINT, linewidth=0.8)
    _caption(panel, "devices on each version, ready")
    panel.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0 + 0.26 / _TALL),
        borderaxespad=0.0,
        borderpad=0.0,
        ncols=4,
        frameon=False,
        handlelength=2.4,
        columnspacing=1.6,
    )


def _caption(panel: "Axes", text: str) -> None:
    panel.set_title(text, loc="left", fontsize=9, color=_GREY, pad=4)


def _version_lines(shown: RunResult) -> "dict[str, tuple[str, _Dashes]]":
    """Return the versions to draw and their lines: what the change moves to first, then what was there."""
    seen = {name for counts in shown.counts for name in counts.versions}
    new = [f"{workload} {version}" for workload, version in rollouts_of(shown)]
    changed = {workload for workload, _ in rollouts_of(shown)}
    old = sorted(name for name in seen if name not in new and (name.rpartition(" ")[0] in changed or not changed))
    lines: dict[str, tuple[str, _Dashes]] = dict(zip((name for name in new if name in seen), _NEW_LINES, strict=False))
    return lines | dict(zip(old, _OLD_LINES, strict=False))


def _short(name: str) -> str:
    """Return WORKLOAD VERSION without the namespace, which would fill the room that there is."""
    return name.partition("/")[2] or name


def _curve(result: RunResult, name: str, grid: Sequence[float]) -> list[float]:
    """Return the percentage of devices on a version at the times of `grid` since the change; what was last counted holds on."""
    start = began_at(result)
    times = [counts.at - start for counts in result.counts]
    values = [100.0 * counts.versions.get(name, 0) / max(result.devices, 1) for counts in result.counts]
    return [values[max(bisect_right(times, at) - 1, 0)] if values else 0.0 for at in grid]


class _Move(msgspec.Struct, frozen=True):
    """A rollout on its row: where its waves begin and what they are called, when it turned back, how it ended."""

    name: str
    state: str
    start: float
    end: float | None
    back: float | None
    waves: tuple[tuple[float, str], ...]


def _moves(shown: RunResult) -> list[_Move]:
    moves = []
    for rollout in sorted(rollouts_of(shown).values(), key=lambda rollout: (rollout.started_at, rollout.name)):
        subjects = (rollout.name, rollout.workload, f"{rollout.workload.partition('/')[0]}/{rollout.name}")
        until = rollout.ended_at if rollout.ended_at is not None else math.inf
        told = [moment for moment in shown.timeline if moment.kind == "wave" and moment.subject in subjects]
        waves = [(moment.at, _called(moment)) for moment in told if rollout.started_at <= moment.at <= until]
        waves = waves or [(rollout.started_at, "all at once")]
        name = f"{rollout.workload} {rollout.version}"
        moves.append(_Move(name, rollout.state, rollout.started_at, rollout.ended_at, rollout.rollback_at, tuple(sorted(waves))))
    return moves[:_ROLLOUTS_MAX]


def _called(moment: Moment) -> str:
    """Return what to call a wave, which a moment calls `wave 2 of 3`."""
    words = moment.message.replace(":", " ").split()[:4]
    return "all at once" if words[2:] == ["of", "1"] else " ".join(words[:2] if words[1:2] != ["1"] else words)


def _waves(panel: "Axes", shown: RunResult, moves: Sequence[_Move], start: float, clock: _Clock) -> None:
    """Draw each rollout as a bar of its waves, with how it ended behind it."""
    for row, move in enumerate(moves):
        end = min(clock(move.end - start) if move.end is not None else clock.end, clock.end)
        for first, last, colour, text in _pieces(move, start, clock, end):
            panel.barh(row, last - first, left=first, height=0.62, color=colour, edgecolor="white", linewidth=1.2)
            _inside(panel, row, (first, last), clock, text)
        _beside(panel, row, end, clock, move.state)
    for moment in shown.timeline:
        if moment.kind == "failure" and moves:
            panel.plot([clock(moment.at - start)], [-0.48], marker="v", color=_RED, markersize=5, clip_on=False, linestyle="none")
    _rows(panel, [_short(move.name) for move in moves] or ["none"])
    _caption(panel, "waves of each rollout" + (", ▼ a device failed" if any(moment.kind == "failure" for moment in shown.timeline) else ""))


def _pieces(move: _Move, start: float, clock: _Clock, end: float) -> Iterator[tuple[float, float, str, str]]:
    """Yield from, to, colour and text of each wave, and of the way back."""
    turned = clock(move.back - start) if move.back is not None else None
    waves = [(clock(at - start), called) for at, called in move.waves if turned is None or clock(at - start) < turned]
    borders = [at for at, _ in waves]
    stops = [*borders[1:], turned if turned is not None else end]
    for number, ((first, called), last) in enumerate(zip(waves, stops, strict=True)):
        yield max(first, 0.0), min(last, clock.end), _SHADE if number % 2 else _BLUE, called
    if turned is not None:
        yield turned, end, _RED, "back"


def _inside(panel: "Axes", row: int, span: tuple[float, float], clock: _Clock, text: str) -> None:
    """Write into a bar what fits into it: all of it, its last word, or nothing."""
    first, last = span
    share = (last - first) / clock.end
    words = text.split()
    shorter = (text, " ".join(words[:2]), words[1] if len(words) > 1 else "")
    fitting = next((said for said in shorter if said and share > 0.0095 * len(said) + 0.006), "")
    if fitting:
        panel.text((first + last) / 2, row, fitting, ha="center", va="center", color="white", fontsize=8, fontweight="bold")


def _beside(panel: "Axes", row: int, end: float, clock: _Clock, state: str) -> None:
    """Write behind a bar how it ended, or over its end where there is no room behind it."""
    colour, words = _STATES.get(state, (_GREY, state))
    step = clock.end * 0.006
    if end < clock.end * (0.985 - 0.0095 * len(words)):
        panel.text(end + step, row, words, ha="left", va="center", color=colour, fontsize=8.5, fontweight="bold")
        return
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    panel.text(clock.end - step, row, words, ha="right", va="center", color=colour, fontsize=8.5, fontweight="bold", bbox=box)


def _rows(panel: "Axes", names: Sequence[str]) -> None:
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.set_yticks(range(len(names)), [name if len(name) <= 25 else name[:24] + "…" for name in names])
    panel.tick_params(axis="y", length=0)


def _faults(shown: RunResult) -> dict[str, list[Moment]]:
    """Return the faults of a run by kind, in the order in which the kinds first came."""
    found: dict[str, list[Moment]] = {}
    for moment in shown.timeline:
        if moment.kind == "fault":
            found.setdefault(_kind_of(moment), []).append(moment)
    return dict(list(found.items())[:_FAULTS_MAX])


def _kind_of(moment: Moment) -> str:
    words = f"{moment.subject} {moment.message}".replace(":", " ").replace(",", " ").split()
    return next((word for word in words if word in get_args(FaultKind)), moment.message or moment.subject)


def _bars(panel: "Axes", faults: dict[str, list[Moment]], start: float, clock: _Clock) -> None:
    """Draw every fault as a bar on the row of its kind; short ones are as wide as can be seen."""
    least = clock.end * 0.004
    for row, moments in enumerate(faults.values()):
        spans = [
            (clock(moment.at - start), max(clock((moment.until if moment.until is not None else moment.at) - moment.at), least))
            for moment in moments
        ]
        panel.broken_barh(spans, (row - 0.29, 0.58), facecolor=_ORANGE, alpha=max(0.45, 0.95 - 0.02 * len(spans)), linewidth=0)
    names = [f"{kind} ×{len(moments)}" if len(moments) > 1 else kind for kind, moments in faults.items()]  # noqa: RUF001 - a times sign
    _rows(panel, names or ["none"])
    _caption(panel, "faults")


def _away(panel: "Axes", shown: RunResult, start: float, clock: _Clock) -> None:
    """Draw how many devices are offline and how many are updating."""
    from matplotlib.ticker import MaxNLocator

    times = [clock(counts.at - start) for counts in shown.counts]
    offline, updating = (_column(shown.counts, name) for name in ("offline", "updating"))
    if times and times[-1] < clock.end:
        # What was last counted holds on to the end.
        times, offline, updating = [*times, clock.end], [*offline, offline[-1]], [*updating, updating[-1]]
    panel.fill_between(times, offline, step="post", color=_ORANGE, alpha=0.55, linewidth=0, label="offline")
    panel.step(times, updating, where="post", color=_BLUE, linewidth=1.3, label="updating")
    panel.set_ylim(0, max([*offline, *updating, 1.0]) * 1.1)
    panel.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10], integer=True))
    _caption(panel, "devices")
    panel.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False, borderaxespad=0.2, handlelength=1.6)


def _column(counts: Sequence[Counts], name: str) -> list[float]:
    return [float(getattr(at, name)) for at in counts]


def _frame(figure: "Figure", tall: float, report: Report, shown: RunResult, notes: Sequence[tuple[str, bool]]) -> None:
    """Write title and foot."""
    left = 0.35 / _WIDE
    figure.text(left, 1 - 0.27 / tall, f"Rehearsal: {report.about.change}", fontsize=15, fontweight="bold", va="top")
    figure.text(left, 1 - 0.63 / tall, _subtitle(report, shown), fontsize=9.5, color=_GREY, va="top")
    for index, (text, bold) in enumerate(reversed(notes)):
        figure.text(left, (0.18 + _NOTE * index) / tall, text, fontsize=8, color=_INK if bold else _GREY, va="bottom")


def _subtitle(report: Report, shown: RunResult) -> str:
    subject = report.about
    count = len(report.runs)
    parts = [
        f"{units.amount(subject.devices)} devices at {units.amount(subject.sites)} site{'s' * (subject.sites != 1)}"
        if subject.devices
        else "random fleets",
        f"scenario {subject.scenario}",
        f"{count} runs; lines: the median run (seed {shown.seed})" if count > 1 else f"one run, seed {shown.seed}",
    ]
    if report.figures is not None and report.figures.change_seconds is not None:
        spread = report.figures.change_seconds
        low, middle, high = ("not ended" if value is None else units.duration(value) for value in (spread.p5, spread.p50, spread.p95))
        parts.append(f"takes {middle}" if low == high else f"takes {middle} ({low} to {high})")
    return "  ·  ".join(parts)


def _notes(report: Report) -> list[tuple[str, bool]]:
    """Return the lines at the foot and whether each is of weight: what went wrong, what was assumed, where it can be replayed."""
    notes = [(f"! {sentence[:1].upper()}{sentence[1:]}", True) for sentence in report.words[:_WORDS_MAX]] or [(all_well(report), True)]
    if len(report.words) > _WORDS_MAX:
        notes.append((f"… and {len(report.words) - _WORDS_MAX} more (see the report)", True))
    assumed = "; ".join(assumption.rstrip(".") for assumption in report.about.assumptions)
    notes += [(line, False) for line in _wrapped(f"Assumed: {assumed}.")] if assumed else []
    incomplete = f" INTERRUPTED after {len(report.runs)} of {report.planned} runs." if report.interrupted else ""
    notes.append((f"Simulated by the Edgewise twin; trace hash {report.trace_hash}.{incomplete}", False))
    return [(text if len(text) <= _LINE + 30 else text[: _LINE + 29] + "…", bold) for text, bold in notes]


def _wrapped(text: str) -> list[str]:
    import textwrap

    lines = textwrap.wrap(text, _LINE + 22)
    return [*lines[:2], lines[2] + " …"] if len(lines) > 3 else lines
