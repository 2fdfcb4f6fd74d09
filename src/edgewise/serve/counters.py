"""What the server counts, and the Prometheus text of it."""

import bisect
import os
import time
from pathlib import Path
from typing import Final

import msgspec

from edgewise.serve.inference import Identity
from edgewise.serve.worker import Spent

_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Duration(msgspec.Struct):
    """How often something happened, and how long it took in all, in nanoseconds."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """Count once more."""
        self.count += 1
        self.ns += int(seconds * 1e9)


class Stages(msgspec.Struct):
    """Where the time of inference requests went, in the words of Triton's statistics."""

    success: Duration = msgspec.field(default_factory=Duration)
    fail: Duration = msgspec.field(default_factory=Duration)
    queue: Duration = msgspec.field(default_factory=Duration)
    compute_input: Duration = msgspec.field(default_factory=Duration)
    compute_infer: Duration = msgspec.field(default_factory=Duration)
    compute_output: Duration = msgspec.field(default_factory=Duration)
    cache_hit: Duration = msgspec.field(default_factory=Duration)
    cache_miss: Duration = msgspec.field(default_factory=Duration)


class Counters:
    """Counts since the process started; kept by the loop's thread alone."""

    def __init__(self) -> None:
        self.answers: dict[int, int] = {}
        self.connections_accepted = 0
        self.connections_open = 0
        self.waiting = 0
        self.load_seconds = 0.0
        self._buckets = [0] * (len(_BOUNDS) + 1)
        self._infer_seconds = 0.0
        self._run_seconds = 0.0
        self.stages = Stages()
        self.inferences = 0
        self.executions = 0
        self.last_inference_ms = 0

    def answered(self, status: int) -> None:
        """Count an answer."""
        self.answers[status] = self.answers.get(status, 0) + 1

    def inferred(self, seconds: float) -> None:
        """Count an inference request whose client waits for it: from whole request to answer."""
        self._buckets[bisect.bisect_left(_BOUNDS, seconds)] += 1
        self._infer_seconds += seconds

    def spent(self, status: int, spent: Spent) -> None:
        """Count where the time of an inference request went, and how it ended."""
        stages = self.stages
        stages.queue.add(spent.queue)
        whole = spent.queue + spent.prepare + spent.run + spent.finish
        self._run_seconds += spent.prepare + spent.run + spent.finish
        self.last_inference_ms = time.time_ns() // 1_000_000
        if status != 200:
            stages.fail.add(whole)
            return
        stages.success.add(whole)
        stages.compute_input.add(spent.prepare)
        stages.compute_infer.add(spent.run)
        stages.compute_output.add(spent.finish)
        self.inferences += spent.rows
        self.executions += 1

    def text(self, identity: Identity) -> str:
        """Return the Prometheus text form."""
        total = sum(self._buckets)
        lines = [
            "# TYPE edgewise_serve_info gauge",
            f'edgewise_serve_info{{instance="{identity.instance}",revision="{identity.revision}",version="{identity.versions[0]}"}} 1',
            "# TYPE edgewise_serve_answers_total counter",
            *(f'edgewise_serve_answers_total{{code="{status}"}} {count}' for status, count in sorted(self.answers.items())),
            "# TYPE edgewise_serve_infer_seconds histogram",
            *self._histogram(),
            f'edgewise_serve_infer_seconds_bucket{{le="+Inf"}} {total}',
            f"edgewise_serve_infer_seconds_sum {self._infer_seconds:.9g}",
            f"edgewise_serve_infer_seconds_count {total}",
            "# TYPE edgewise_serve_run_seconds_total counter",
            f"edgewise_serve_run_seconds_total {self._run_seconds:.9g}",
            "# TYPE edgewise_serve_connections_accepted_total counter",
            f"edgewise_serve_connections_accepted_total {self.connections_accepted}",
            "# TYPE edgewise_serve_connections gauge",
            f"edgewise_serve_connections {self.connections_open}",
            "# TYPE edgewise_serve_waiting_requests gauge",
            f"edgewise_serve_waiting_requests {self.waiting}",
            "# TYPE edgewise_serve_load_seconds gauge",
            f"edgewise_serve_load_seconds {self.load_seconds:.9g}",
            "# TYPE process_resident_memory_bytes gauge",
            f"process_resident_memory_bytes {_resident_bytes()}",
        ]
        return "\n".join(lines) + "\n"

    def _histogram(self) -> list[str]:
        seen, lines = 0, []
        for bound, count in zip(_BOUNDS, self._buckets, strict=False):
            seen += count
            lines.append(f'edgewise_serve_infer_seconds_bucket{{le="{bound:g}"}} {seen}')
        return lines


def _resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0
