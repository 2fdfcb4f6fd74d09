"""A small picture of a comparison: where the difference surely lies, beside nothing at all and the margin.

    worse  ├────────■────────┤   ┊       │       ┊  better        (a line of text)

The new revision is better to the right, whichever direction is better for the metric. `┊` are the margin on both sides, `│` is no
difference.
"""

import math
from typing import Final
from xml.sax.saxutils import escape, quoteattr

import msgspec

from edgewise.resources.rollout import MetricVerdict

COLUMNS_MAX: Final = 60
_UNICODE: Final = {"low": "├", "high": "┤", "line": "─", "value": "■", "zero": "│", "margin": "┊", "left": "◂", "right": "▸"}
_ASCII: Final = {"low": "[", "high": "]", "line": "-", "value": "#", "zero": "|", "margin": ":", "left": "<", "right": ">"}
_COLOURS: Final = {"worse": "#c0392b", "better": "#1e8449", "same": "#1e8449", "within": "#1e8449", "": "#7f8c8d"}


class _Scale(msgspec.Struct, frozen=True, kw_only=True):
    """The bar in parts of its width: its ends (beyond 0 and 1 when unbounded or cut), the estimate, no difference, both margins."""

    low: float
    high: float
    value: float
    zero: float
    margins: tuple[float, float]


def _scale(verdict: MetricVerdict) -> _Scale | None:
    difference = verdict.difference
    if difference is None or not math.isfinite(difference.value):
        return None
    sign = -1.0 if verdict.direction == "lower" else 1.0
    low, high = (-math.inf if difference.low is None else difference.low), (math.inf if difference.high is None else difference.high)
    ends = sorted((sign * low, sign * high))
    value, margin = sign * difference.value, verdict.margin or 0.0
    shown = [0.0, -margin, margin, value, *(end for end in ends if math.isfinite(end))]
    # An end that is far beyond everything else would squeeze the rest into one column: then the bar is cut there.
    reach = 6 * max(abs(value), margin) or max(abs(each) for each in shown) or 1.0
    least, most = max(-reach, min(shown)), min(reach, max(shown))
    width = (most - least) or 1.0

    def at(number: float) -> float:
        return (number - least) / width

    return _Scale(low=at(ends[0]), high=at(ends[1]), value=at(value), zero=at(0.0), margins=(at(-margin), at(margin)))


def bar(verdict: MetricVerdict, *, columns: int = COLUMNS_MAX, ascii_only: bool = False) -> str:
    """Return the interval of a comparison as one line of at most `columns` columns (15 to 60); empty for a verdict that compares
    nothing."""
    scale = _scale(verdict)
    if scale is None:
        return ""
    signs = _ASCII if ascii_only else _UNICODE
    width = max(15, min(columns, COLUMNS_MAX)) - len("worse  ") - len("  better")
    width = max(2, width)
    cells = [" "] * width

    def put(part: float, sign: str) -> None:
        cells[max(0, min(width - 1, round(part * (width - 1))))] = sign

    first, last = (max(0, min(width - 1, round(max(-1.0, min(2.0, part)) * (width - 1)))) for part in (scale.low, scale.high))
    for column in range(first, last + 1):
        cells[column] = signs["line"]
    for margin in scale.margins:
        put(margin, signs["margin"])
    put(scale.zero, signs["zero"])
    put(scale.low if scale.low > -1e-9 else 0.0, signs["low"] if scale.low > -1e-9 else signs["left"])
    put(scale.high if scale.high < 1 + 1e-9 else 1.0, signs["high"] if scale.high < 1 + 1e-9 else signs["right"])
    put(scale.value, signs["value"])
    return f"worse  {''.join(cells)}  better"


def svg(verdict: MetricVerdict, *, width: int = 360, height: int = 48) -> str:
    """Return the same as a small SVG, its title in words; empty for a verdict that compares nothing."""
    scale = _scale(verdict)
    if scale is None:
        return ""
    inner, middle = width - 20, height // 2

    def x(part: float) -> str:
        return f"{10 + max(0.0, min(1.0, part)) * inner:.1f}"

    colour = _COLOURS[verdict.finding]
    marks = "".join(
        f'<line x1="{x(part)}" y1="6" x2="{x(part)}" y2="{height - 14}" stroke="#95a5a6" stroke-dasharray="2 2"/>' for part in scale.margins
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img"'
        f" aria-label={quoteattr(verdict.message)}><title>{escape(verdict.message)}</title>"
        f'{marks}<line x1="{x(scale.zero)}" y1="4" x2="{x(scale.zero)}" y2="{height - 12}" stroke="#2c3e50"/>'
        f'<line x1="{x(scale.low)}" y1="{middle}" x2="{x(scale.high)}" y2="{middle}" stroke="{colour}" stroke-width="4"/>'
        f'<circle cx="{x(scale.value)}" cy="{middle}" r="5" fill="{colour}"/>'
        f'<text x="10" y="{height - 2}" font-size="9" fill="#7f8c8d">worse</text>'
        f'<text x="{width - 10}" y="{height - 2}" font-size="9" fill="#7f8c8d" text-anchor="end">better</text></svg>'
    )
