"""Numbers, times and sizes as people read them, kubectl's way; and the words that people write."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from edgewise.cli.failures import CommandError
from edgewise.resources.kinds import BY_WORD, KINDS, Kind

_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_SPANS: Final = (
    (120, "s", ""),
    (600, "m", "s"),
    (10_800, "m", ""),
    (28_800, "h", "m"),
    (172_800, "h", ""),
    (691_200, "d", "h"),
    (63_072_000, "d", ""),
)
"""Below so many seconds: which unit, and which smaller one beside it."""
_UNITS: Final = ("B", "Ki", "Mi", "Gi", "Ti")


def age(since: float, now: float) -> str:
    """Return how long ago `since` was, with at most two units: `45s`, `3m12s`, `5h30m`, `2d4h`, `31d`."""
    if since <= 0:
        return "<unknown>"
    return span(max(0.0, now - since))


def span(seconds: float) -> str:
    """Return a length of time with at most two units."""
    total = int(seconds)
    for below, unit, small in _SPANS:
        if total < below:
            big, rest = total // _SECONDS[unit], total % _SECONDS[unit]
            tail = rest // _SECONDS[small] if small else 0
            return f"{big}{unit}{tail}{small}" if tail else f"{big}{unit}"
    return f"{total // 31_536_000}y"


def moment(at: float) -> str:
    """Return a time in UTC, to the second; `-` when there is none."""
    if at <= 0:
        return "-"
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return "<invalid>"


def size(count: int) -> str:
    """Return a number of bytes: `512Mi`, `1.5Gi`."""
    value = float(count)
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            return f"{value:.0f}{unit}" if value >= 10 or value == int(value) else f"{value:.1f}{unit}"
        value /= 1024
    raise AssertionError  # pragma: no cover - the last unit always returns


def cpu(milli: int) -> str:
    """Return thousandths of a core: `4`, `500m`."""
    return f"{milli // 1000}" if milli % 1000 == 0 else f"{milli}m"


def labels(pairs: dict[str, str]) -> str:
    """Return labels as `a=b,c=d`, or `<none>`."""
    return ",".join(f"{key}={value}" for key, value in sorted(pairs.items())) or "<none>"


def kind_of(word: str) -> Kind:
    """Return the kind that a person calls `word`. Raises `CommandError` with the nearest one."""
    kind = BY_WORD.get(word.lower())
    if kind is not None:
        return kind
    from difflib import get_close_matches

    near = get_close_matches(word.lower(), BY_WORD, n=1)
    known = ", ".join(each.plural for each in KINDS)
    raise CommandError(f"there is no kind {word!r}", f"did you mean {near[0]!r}?" if near else "", f"kinds: {known}")


def kind_and_names(words: Iterable[str]) -> list[tuple[Kind, str]]:
    """Read `KIND`, `KIND NAME…` or `KIND/NAME…`; a kind without a name has the name ''. Raises `CommandError`."""
    given = list(words)
    if any("/" in word for word in given):
        pairs = [word.partition("/") for word in given]
        if not all(slash and name for _, slash, name in pairs):
            raise CommandError("write either KIND NAME… or KIND/NAME…, not both", hint="such as device edge-1, or device/edge-1")
        return [(kind_of(kind), name) for kind, _, name in pairs]
    kinds = [kind_of(word) for word in given[0].split(",")] if given else []
    if not kinds:
        raise CommandError("say what: a kind, such as devices", hint=f"kinds: {', '.join(each.plural for each in KINDS)}")
    if len(kinds) > 1 and len(given) > 1:
        raise CommandError("names go with one kind only", hint="write KIND/NAME for each")
    return [(kind, name) for kind in kinds for name in given[1:] or [""]]


def pairs_of(texts: Iterable[str], what: str) -> dict[str, str]:
    """Read `KEY=VALUE`, also several behind commas. Raises `CommandError`."""
    found: dict[str, str] = {}
    for text in texts:
        for part in text.split(","):
            key, sign, value = part.partition("=")
            if not sign or not key or key.endswith("!") or value.startswith("="):
                raise CommandError(f"{part!r} is not a {what}", hint="write KEY=VALUE")
            found[key] = value
    return found
