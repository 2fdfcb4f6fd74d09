"""How much energy the machine has used, where it can be read without rights: Linux' power capping counters (RAPL), or the power sensors of
boards like the Jetson (INA3221), integrated. What one process used is estimated by its share of the processors' time."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

_RAPL: Final = "class/powercap/intel-rapl:0"
_INA: Final = "bus/i2c/drivers/ina3221"
_SENSORS_MAX: Final = 8


class Meter:
    """Joules of the machine since the first `read`. `root` is `/sys`."""

    def __init__(self, root: Path, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._counter = root / _RAPL / "energy_uj"
        self._wrap = _number(root / _RAPL / "max_energy_range_uj")
        self._sensors = sorted((root / _INA).glob("*/hwmon/hwmon*/power1_input"))[:_SENSORS_MAX]
        self._last: float | None = None
        self._at = 0.0

    def read(self) -> float | None:
        """Return the joules used since the last call, None at the first one and where nothing can be read."""
        count = _number(self._counter)
        if count is not None:
            return self._since(count / 1e6, (self._wrap or 0.0) / 1e6)
        watts = [value / 1e6 for value in map(_number, self._sensors) if value is not None]
        if not watts:
            return None
        now, before = self._monotonic(), self._at
        self._at, first, self._last = now, self._last is None, sum(watts)
        return None if first else sum(watts) * (now - before)

    def _since(self, total: float, wrap: float) -> float | None:
        before, self._last = self._last, total
        if before is None:
            return None
        return total - before if total >= before else max(0.0, total - before + wrap)


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
