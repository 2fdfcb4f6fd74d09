"""Lets the tests in this folder import its helpers: a disk that loses power, and a device on it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def pytest_terminal_summary(terminalreporter) -> None:
    """Say how many power cuts were tried."""
    device = sys.modules.get("powercut_device")
    if device is not None and device.tried:
        each = ", ".join(f"{name} {count}" for name, count in device.tried.items())
        terminalreporter.write_line(f"power cuts tried: {sum(device.tried.values())} ({each})")
