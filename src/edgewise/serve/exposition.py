"""Measurements in the text format of Prometheus (exposition format 0.0.4)."""

import re
from collections.abc import Iterable
from typing import Final

from edgewise.serve.measurements import Told

_UNITS: Final = {"s": "_seconds", "J": "_joules"}
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_:]")


def lines(measured: Iterable[Told], labels: str) -> list[str]:
    """Return the measurements as histograms where they have buckets, else as summaries of count and sum. `labels` are the pairs that each
    line carries, without braces."""
    found = []
    for one in measured:
        name = "edgewise_" + _NO_NAME.sub("_", one.name) + _UNITS.get(one.unit, "")
        found.append(f"# TYPE {name} {'histogram' if one.bounds else 'summary'}")
        seen = 0
        for bound, count in zip(one.bounds, one.buckets, strict=False):
            seen += count
            found.append(f'{name}_bucket{{{labels},le="{bound:g}"}} {seen}')
        if one.bounds:
            found.append(f'{name}_bucket{{{labels},le="+Inf"}} {one.count}')
        found += [f"{name}_sum{{{labels}}} {one.sum:.9g}", f"{name}_count{{{labels}}} {one.count}"]
    return found


def quantile_lines(quantiles: Iterable[tuple[str, float, float]], labels: str) -> list[str]:
    """Return the quantiles of sketched tensors: triples of metric name, quantile and value."""
    found: list[str] = []
    for metric, quantile, value in quantiles:
        name = "edgewise_" + _NO_NAME.sub("_", metric)
        if not any(line.startswith(f"# TYPE {name} ") for line in found):
            found.append(f"# TYPE {name} gauge")
        found.append(f'{name}{{{labels},quantile="{quantile:g}"}} {value:.9g}')
    return found
