"""The control plane's memory: a fleet enrolled and away, and all of it connected with a poll open each."""

from collections.abc import Iterator

from benchmarks._storm import AGENTS, Memory, storm
from benchmarks.row import Row

IDLE_MB_MAX = 150.0
CONNECTED_MB_MAX = 800.0


def measure() -> Iterator[Row]:
    """Read the memory before and after the wave of reconnecting agents."""
    measured = storm()
    yield _row(f"control plane, {AGENTS:,} enrolled", measured.idle, IDLE_MB_MAX, "each with a device and an instance")
    yield _row(f"control plane, {AGENTS:,} connected", measured.connected, CONNECTED_MB_MAX, f"{measured.wave.open_polls:,} polls open")


def _row(name: str, memory: Memory, most: float, note: str) -> Row:
    return Row(
        name=name,
        unit="MB",
        value=memory.rss,
        target=f"at most {most:.0f} MB",
        met=memory.rss <= most,
        note=f"resident; at most {memory.peak:.0f} MB until then; {memory.pss:.0f} MB proportional; {note}",
    )
