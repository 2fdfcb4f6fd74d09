"""Ten thousand agents find the control plane again at once: TLS handshakes with client certificates, and each fetches its desired state.

Their devices are Offline in the documents, so all of them are written Online meanwhile. The agents share this one process and the second
core; beside it stands the same wave on a bare endpoint.
"""

from collections.abc import Iterator

from benchmarks._storm import AGENTS, storm
from benchmarks.row import Row

SECONDS_MAX = 25.0


def measure() -> Iterator[Row]:
    """Measure the wave."""
    measured = storm()
    wave = measured.wave
    clean = len(wave.served_at) == AGENTS and not wave.without_retry_after and not wave.broken
    yield Row(
        name=f"{AGENTS:,} agents reconnect at once",
        unit="s",
        value=wave.seconds,
        baseline=measured.bare.seconds,
        ratio=wave.seconds / measured.bare.seconds,
        target=f"all served within {SECONDS_MAX:.0f} s, no 5xx but 503 with Retry-After",
        met=clean and wave.seconds <= SECONDS_MAX,
        note=f"{wave.describe()}; bare endpoint: {measured.bare.describe()}",
    )
