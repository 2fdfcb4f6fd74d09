"""Where a device's power comes from and goes to: mains or a battery, a sun by the hour, and heat that makes it slow."""

import math
from typing import Final

from edgewise.twin.fleet import DeviceClass
from edgewise.twin.kernel import Kernel

_SUNRISE: Final = 6 * 3600.0
_DAYLIGHT: Final = 12 * 3600.0
_DAY: Final = 86_400.0
_LOOK_SECONDS: Final = 900.0
_COMES_BACK_SHARE: Final = 0.05
_SLOWEST: Final = 0.25
_USUAL_CELSIUS: Final = 60.0
"""How warm a device is that works on a usual day: heat comes on top."""
_DEGREES_TO_SLOWEST: Final = 30.0


class Power:
    """One device's energy, brought up to date only when something changes. Watts, watt-hours, seconds."""

    __slots__ = ("_celsius", "_class", "_dark", "_kernel", "_since", "_stored", "_used", "_watts")

    def __init__(self, kernel: Kernel, sort: DeviceClass) -> None:
        self._kernel = kernel
        self._class = sort
        self._since = kernel.now
        self._watts = 0.0
        self._used = 0.0
        self._stored = sort.energy.battery_watt_hours
        self._dark = False
        self._celsius = _USUAL_CELSIUS

    @property
    def has_battery(self) -> bool:
        """Whether it may run out of power."""
        return self._class.energy.battery_watt_hours > 0

    @property
    def refills(self) -> bool:
        """Whether a battery that ran out fills again by itself."""
        return self.has_battery and self._class.energy.harvest_watts > 0

    @property
    def used(self) -> float:
        """What the device has drawn so far, watt-hours."""
        self._settle()
        return self._used

    @property
    def share(self) -> float:
        """How full the battery is; 1 on mains."""
        self._settle()
        return self._stored / self._class.energy.battery_watt_hours if self.has_battery else 1.0

    @property
    def speed(self) -> float:
        """How fast the device works now, the reference being 1."""
        above = self._celsius - self._class.throttles_above_celsius
        return self._class.speed * max(_SLOWEST, 1.0 - max(0.0, above) / _DEGREES_TO_SLOWEST * (1.0 - _SLOWEST))

    def draw(self, busy: float | None) -> None:
        """From now on draw power for this share of work; None: the device is off."""
        self._settle()
        energy = self._class.energy
        self._watts = 0.0 if busy is None else energy.idle_watts + (energy.busy_watts - energy.idle_watts) * min(1.0, busy)

    def set_battery(self, share: float | None) -> None:
        """Let the battery hold `share` of what it can, under a dark sky; None: the sun is back."""
        self._settle()
        self._dark = share is not None
        if share is not None:
            self._stored = share * self._class.energy.battery_watt_hours

    def heat(self, celsius: float | None) -> None:
        """Make it hotter than usual by so many degrees; None: as usual."""
        self._celsius = _USUAL_CELSIUS + (celsius or 0.0)

    def enough(self) -> bool:
        """Whether the device can run: the battery has not run out, or holds enough again to begin."""
        self._settle()
        if not self.has_battery:
            return True
        return self._stored > (0.0 if self._watts else _COMES_BACK_SHARE * self._class.energy.battery_watt_hours)

    def look_again(self) -> float | None:
        """Return in how many seconds `enough` may give another answer, or None: never on mains."""
        if not self.has_battery:
            return None
        net = self._watts - self._sun(self._kernel.wall) if not self._dark else self._watts
        if net <= 0 or not self._watts:
            return _LOOK_SECONDS
        return min(_LOOK_SECONDS, max(1.0, self._stored * 3600.0 / net))

    def _settle(self) -> None:
        now = self._kernel.now
        seconds, self._since = now - self._since, now
        if seconds <= 0:
            return
        drawn = self._watts * seconds / 3600.0
        self._used += drawn
        most = self._class.energy.battery_watt_hours
        if most > 0:
            came = 0.0 if self._dark else self._harvested(self._kernel.wall - seconds, self._kernel.wall)
            self._stored = min(most, max(0.0, self._stored + came - drawn))

    def _sun(self, wall: float) -> float:
        return self._class.energy.harvest_watts * max(0.0, math.sin(math.pi * ((wall % _DAY) - _SUNRISE) / _DAYLIGHT))

    def _harvested(self, start: float, end: float) -> float:
        """Return the watt-hours that the sun brought in between."""
        peak = self._class.energy.harvest_watts
        return peak * (_sunshine(end) - _sunshine(start)) / 3600.0 if peak else 0.0


def _sunshine(wall: float) -> float:
    """Return the seconds of noon sun that there were since 1970, the sun's height being a sine."""
    days, seconds = divmod(wall, _DAY)
    phase = min(1.0, max(0.0, (seconds - _SUNRISE) / _DAYLIGHT))
    return _DAYLIGHT / math.pi * (2.0 * days + 1.0 - math.cos(math.pi * phase))
