"""What `join` leaves for the agent on the disk, beside the identity, and the floor under the clock."""

from typing import Final

import msgspec

from edgewise.agent.limits import LIMITS
from edgewise.ports.clock import Clock
from edgewise.ports.files import Files, FilesError, Missing
from edgewise.resources.decoding import UNREADABLE
from edgewise.resources.device import Capacity

_FOLDER: Final = "agent"
_CONFIG: Final = f"{_FOLDER}/config.json"
_FLOOR: Final = f"{_FOLDER}/floor"
_CONFIG_BYTES_MAX: Final = 256 * 1024
_FLOOR_STEP_SECONDS: Final = 6 * 3600.0
_DAY_SECONDS: Final = 86400.0


class ConfigError(Exception):
    """The agent's configuration is not there or cannot be read: the device has not joined, or its disk is damaged."""


class AgentConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`addresses` of the device gateway in order of preference; `capacity` is what a person declared over what the device says of itself;
    `telemetry_seconds` is the window of a telemetry frame, 0 for none; `poll_seconds` is how long a poll waits for news; `proxy` is
    `http://[USER:PASSWORD@]HOST:PORT` or empty."""

    agent: str
    device: str
    addresses: tuple[str, ...]
    labels: dict[str, str] = {}
    device_class: str = ""
    capacity: Capacity = Capacity()
    telemetry_seconds: float = 15.0
    poll_seconds: float = LIMITS.poll_wait_seconds
    proxy: str = ""
    version: int = 1


def read_config(files: Files) -> AgentConfig:
    """Return what `join` wrote. Raises `ConfigError`, and `FilesError` other than `Missing`."""
    try:
        data = files.read(_CONFIG, _CONFIG_BYTES_MAX)
    except Missing as error:
        raise ConfigError("this device has not joined: run `edgewise agent join`") from error
    try:
        return msgspec.json.decode(data, type=AgentConfig)
    except UNREADABLE as error:
        raise ConfigError(f"{_CONFIG} cannot be read: {error}") from error


def write_config(files: Files, config: AgentConfig) -> None:
    """Put `config` on the disk, readable by its owner only (a proxy may have a password). Raises `FilesError`."""
    files.make_folder(_FOLDER)
    files.replace(_CONFIG, msgspec.json.encode(config))


class TimeFloor:
    """The later of the clock and what trusted others said the time was. The device's own clock never moves the floor: one that is ahead
    today may be right tomorrow."""

    def __init__(self, files: Files, clock: Clock) -> None:
        self._files = files
        self._clock = clock
        self.floor = _read_floor(files)
        self._written = self.floor

    def now(self) -> float:
        """Return the time to judge certificates and metadata by, in seconds since the Unix epoch."""
        return max(self._clock.wall(), self.floor)

    def learn(self, time: float, not_after: float) -> None:
        """Take in what the control plane says the time is, while its certificate, good until `not_after`, vouches for it. A day is taken
        off, for a control plane whose clock is a little ahead. Written seldom: flash wears out."""
        believed = min(time, not_after) - _DAY_SECONDS
        if believed <= self.floor:
            return
        self.floor = believed
        if believed - self._written < _FLOOR_STEP_SECONDS:
            return
        try:
            self._files.make_folder(_FOLDER)
            self._files.replace(_FLOOR, f"{believed:.0f}".encode())
        except FilesError:
            return  # the next one may be written; the floor in memory holds until then
        self._written = believed


def _read_floor(files: Files) -> float:
    try:
        text = files.read(_FLOOR, 64).decode("ascii", "replace").strip()
    except FilesError:
        return 0.0
    return float(text) if text.isdigit() else 0.0
