"""What a joined, idle device costs: memory and processor time of agent and supervisor, beside a bare interpreter with the same imports.

PSS divides a shared page by those who share it: with many Python processes on the machine the code of the interpreter and of OpenSSL counts
for little, on a device with two it counts for half or in full. So USS (only the process's own) and RSS (as if nothing were shared) are told
too; the truth of any device is between them.
"""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks._device import Place, control_plane, device, join
from benchmarks.row import Row

_SETTLE_SECONDS = 45.0
_IDLE_SECONDS = 30.0
_POLL_SECONDS = 10.0
_AGENT_MB_MAX = 5.0
_SUPERVISOR_MB_MAX = 9.0
_CPU_PERCENT_MAX = 0.3
_SCHEDULER_CLOCK = 2
"""With a process's number it makes the id of its clock: clock_getcpuclockid(3), which Python does not offer."""
_BARE = "import msgspec, psutil, zstandard, h11, sys; sys.stdout.write('x'); sys.stdout.flush(); sys.stdin.read()"
_MINE = "import msgspec, h11, ssl, sys; sys.stdout.write('x'); sys.stdout.flush(); sys.stdin.read()"


class Memory(msgspec.Struct, frozen=True):
    """Megabytes (10^6 bytes): proportional, unique and resident set size."""

    pss: float
    uss: float
    rss: float


def memory_of(pid: int) -> Memory:
    """Read /proc/PID/smaps_rollup."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    number = {name: int(value.split()[0]) * 1024 / 1e6 for name, value in fields.items()}
    return Memory(number["Pss"], number["Private_Clean"] + number["Private_Dirty"], number["Rss"])


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far, to the nanosecond, children not counted."""
    return time.clock_gettime(~pid << 3 | _SCHEDULER_CLOCK)


@contextlib.contextmanager
def bare(place: Place, program: str) -> Iterator[int]:
    """Run an interpreter that imports something and waits."""
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=place.environment) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        yield process.pid


def measure() -> Iterator[Row]:
    """Yield the rows."""
    with tempfile.TemporaryDirectory(prefix="edgewise-bench-") as folder, control_plane(Path(folder)) as place:
        data = join(place, "idle-1", "--poll-wait", f"{_POLL_SECONDS:g}s")
        with device(place, data) as running, bare(place, _BARE) as base_pid, bare(place, _MINE) as mine_pid:
            time.sleep(_SETTLE_SECONDS)
            agent, base, mine = memory_of(running.agent), memory_of(base_pid), memory_of(mine_pid)
            supervisor = memory_of(running.supervisor)
            before = [cpu_seconds(pid) for pid in (running.agent, running.supervisor)]
            time.sleep(_IDLE_SECONDS)
            spent = [cpu_seconds(pid) - start for pid, start in zip((running.agent, running.supervisor), before, strict=True)]
    note = f"{agent.pss:.1f} MB and {base.pss:.1f} MB in all, measured at the same moment (msgspec, psutil, zstandard, h11); as if nothing "
    note += f"were shared (RSS): {agent.rss:.1f} MB and {base.rss:.1f} MB, {agent.rss - base.rss:+.1f} MB, most of it OpenSSL's code"
    yield _memory_row("resident agent, PSS above a bare interpreter", agent.pss, base.pss, _AGENT_MB_MAX, note)
    note = (
        f"{agent.uss:.1f} MB and {base.uss:.1f} MB in all; the agent itself loads neither psutil nor zstandard; beside an interpreter with "
    )
    note += f"only what it loads (msgspec, h11, ssl): PSS {agent.pss - mine.pss:+.1f} MB, USS {agent.uss - mine.uss:+.1f} MB, "
    note += f"RSS {agent.rss - mine.rss:+.1f} MB"
    yield _memory_row("resident agent, USS above a bare interpreter", agent.uss, base.uss, _AGENT_MB_MAX, note)
    yield Row(
        name="supervisor, PSS",
        unit="MB",
        value=supervisor.pss,
        target=f"at most {_SUPERVISOR_MB_MAX:g}",
        met=supervisor.pss <= _SUPERVISOR_MB_MAX,
        note=f"USS {supervisor.uss:.1f} MB, RSS {supervisor.rss:.1f} MB",
    )
    percent = sum(spent) / _IDLE_SECONDS * 100
    yield Row(
        name="agent and supervisor, processor, idle",
        unit="% of a core",
        value=percent,
        target=f"at most {_CPU_PERCENT_MAX:g}",
        met=percent <= _CPU_PERCENT_MAX,
        note=f"over {_IDLE_SECONDS:g} s with a poll every {_POLL_SECONDS:g} s, far more than usual: "
        f"agent {spent[0] * 1e3:.1f} ms, supervisor {spent[1] * 1e3:.1f} ms",
    )


def _memory_row(name: str, value: float, base: float, most: float, note: str) -> Row:
    return Row(
        name=name,
        unit="MB",
        value=value - base,
        baseline=base,
        target=f"at most {most:g} above",
        met=value - base <= most,
        note=note,
    )


if __name__ == "__main__":
    for row in measure():
        print(
            f"{row.name}: {row.value:.2f} {row.unit} (baseline {row.baseline}; {row.target}: {'met' if row.met else 'NOT met'}) {row.note}"
        )
