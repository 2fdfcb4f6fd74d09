"""Lines for the journal: to standard error, with a level that systemd understands, and no line repeated in quick succession.

The `logging` module would cost a tenth of the agent's memory budget.
"""

import sys
import time
from typing import Literal

from edgewise.agent.limits import LIMITS

Level = Literal["error", "warning", "info"]
_PRIORITIES = {"error": "<3>", "warning": "<4>", "info": "<6>"}
_KEYS_MAX = 200


class Log:
    """Writes one line per call. The same `what` within `repeat_seconds` is counted, not written again."""

    def __init__(self, repeat_seconds: float = LIMITS.log_repeat_seconds, *, quiet: bool = False) -> None:
        self._repeat_seconds = repeat_seconds
        self._quiet = quiet
        self._last: dict[str, tuple[float, int]] = {}

    def error(self, what: str, detail: object = "") -> None:
        """Something that needs a person, or that should not happen."""
        self._write("error", what, detail)

    def warning(self, what: str, detail: object = "") -> None:
        """Something that goes by itself, usually."""
        self._write("warning", what, detail)

    def info(self, what: str, detail: object = "") -> None:
        """Something worth knowing once."""
        self._write("info", what, detail)

    def _write(self, level: Level, what: str, detail: object) -> None:
        now = time.monotonic()
        last, held_back = self._last.get(what, (-1e9, 0))
        if now - last < self._repeat_seconds:
            self._last[what] = (last, held_back + 1)
            return
        if len(self._last) >= _KEYS_MAX:
            self._last.clear()
        self._last[what] = (now, 0)
        if self._quiet:
            return
        text = f"{detail}".replace("\n", " ")[:2000]
        more = f" (and {held_back} more)" if held_back else ""
        try:
            # Systemd reads the level off the front of the line; a person at a terminal wants a word.
            front = f"agent: {level}: " if sys.stderr.isatty() else _PRIORITIES[level]
            sys.stderr.write(f"{front}{what}{': ' if text else ''}{text}{more}\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            return  # nobody listens; the device's work goes on
