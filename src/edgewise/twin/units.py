"""Figures in words with their units, for tables and pictures."""

import math
from typing import Final

__all__ = ["amount", "bytes_", "duration", "energy", "minutes", "share"]

_TIMES: Final = (
    (60, 1, "s", 1, ""),
    (3600, 60, "min", 1, "s"),
    (86400, 3600, "h", 60, "min"),
    (math.inf, 86400, "d", 3600, "h"),
)
"""Below how many seconds which unit is used, and which for the rest."""

_BYTES: Final = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def duration(seconds: float) -> str:
    """Return `45 s`, `4 min 30 s`, `2 h 5 min` or `3 d 4 h`; below ten seconds with a tenth."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for below, size, name, small, little in _TIMES:
        whole = round(seconds / small) * small
        if whole < below:
            rest = whole % size // small
            return f"{whole // size} {name}" + (f" {rest} {little}" if rest else "")
    raise AssertionError("no time is as long as for ever")


def bytes_(count: float) -> str:
    """Return `512 B`, `1.5 kB`, `230 MB`, in powers of ten."""
    for size, name in _BYTES:
        if count >= size:
            scaled = count / size
            return f"{scaled:.0f} {name}" if scaled >= 99.5 else f"{scaled:.1f} {name}"
    return f"{count:.0f} B"


def minutes(count: float) -> str:
    """Return minutes, with a tenth below a hundred; less than a minute in seconds."""
    if 0 < count * 60 < 59.5:
        return duration(max(count * 60, 0.1))
    return f"{count:,.0f} min" if count >= 99.95 or count == 0 else f"{count:.1f} min"


def energy(watt_hours: float) -> str:
    """Return watt-hours or kilowatt-hours; below one with a second digit, so that little is told from nothing."""
    if watt_hours >= 1000:
        return f"{watt_hours / 1000:,.1f} kWh"
    return f"{watt_hours:.1f} Wh" if watt_hours >= 1 or watt_hours == 0 else f"{watt_hours:.2f} Wh" if watt_hours >= 0.005 else "< 0.01 Wh"


def share(part: float) -> str:
    """Return a percentage: exact zero and whole, and enough digits in between to tell small shares from none."""
    percent = part * 100
    if percent in (0, 100):
        return f"{percent:.0f} %"
    if percent < 0.005:
        return "< 0.01 %"
    if percent > 99.995:
        return "> 99.99 %"
    return f"{percent:.1f} %" if 10 <= percent < 99.95 else f"{percent:.2f} %"


def amount(count: float) -> str:
    """Return a count with thousands set apart."""
    return f"{count:,.0f}"
