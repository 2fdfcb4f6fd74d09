from collections.abc import Callable

import pytest

from edgewise.agent.log import Log


class FakeClock:
    def __init__(self) -> None:
        self.time = 1000.0

    def wall(self) -> float:
        return self.time + 1_700_000_000

    def monotonic(self) -> float:
        return self.time


class FakeRandomness:
    """Always the upper end, so that a test sees the longest wait."""

    def token(self, size: int) -> bytes:
        return bytes(size)

    def uniform(self, low: float, high: float) -> float:
        return high


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def randomness() -> FakeRandomness:
    return FakeRandomness()


@pytest.fixture
def log() -> Log:
    return Log(quiet=True)


@pytest.fixture
def wait_for() -> Callable[..., None]:
    import time

    def wait(condition: Callable[[], bool], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "waited in vain"
            time.sleep(0.005)

    return wait
