"""What the supervisor weighs and what it does while nothing happens."""

import subprocess
import time
from pathlib import Path

PSS_BYTES_MAX = 9_000_000
"""The issue's number."""

HEAVY = {
    "asyncio",
    "collections",
    "contextlib",
    "ctypes",
    "dataclasses",
    "enum",
    "functools",
    "json",
    "logging",
    "pathlib",
    "re",
    "resource",
}
HEAVY |= {"selectors", "signal", "site", "socket", "subprocess", "tempfile", "threading", "typing", "urllib"}

CALM = "import time\nprint('here', flush=True)\ntime.sleep(600)\n"


def pss(pid):
    """What the process costs, in bytes: pages shared with others (here: other interpreters) count in part, so private ones are added to what
    the interpreter's own files would cost if it were alone."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(value.split()[0]) * 1024 for name, _, value in (line.partition(":") for line in lines)}


def cpu_ticks(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def switches(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def test_it_is_small_and_asleep(supervisor, bundle, helpers, record_property):
    supervisor.run()
    supervisor.kill()  # the first run may have compiled the modules, which leaves the heap larger
    supervisor.run()
    idle = pss(supervisor.pid)
    slots = supervisor.slots()
    for name in ("till", "eye"):
        slots.start(f"shop/{name}", "a", bundle(CALM))
        helpers.wait_for(lambda name=name: "here" in supervisor.log(f"shop.{name}"))
    busy = pss(supervisor.pid)
    record_property("supervisor_pss_idle", idle["Pss"])
    record_property("supervisor_pss_two_workloads", busy["Pss"])
    assert idle["Pss"] <= PSS_BYTES_MAX
    assert busy["Pss"] <= PSS_BYTES_MAX
    assert busy["Private_Dirty"] - idle["Private_Dirty"] < 600_000, "two workloads cost next to nothing"

    def quiet():
        """Whether it slept for a whole second. It may still be busy with what was last asked of it."""
        before = cpu_ticks(supervisor.pid), switches(supervisor.pid)
        time.sleep(1.0)
        return (cpu_ticks(supervisor.pid), switches(supervisor.pid)) == before

    helpers.wait_for(quiet, 10, what="a second in which nothing runs, because nothing happens,")


def test_nothing_heavy_is_loaded(supervisor, bundle, helpers):
    supervisor.run()
    program = "import sys; sys.path.append(sys.argv[1]); import edgewise.supervisor.main; print(*sys.modules)"
    source = str(Path(__file__).parents[3] / "src")
    shown = subprocess.run([helpers.python, "-I", "-S", "-c", program, source], capture_output=True, text=True, timeout=60, check=True)
    assert {name.partition(".")[0] for name in shown.stdout.split()} & HEAVY == set()


def test_descriptors_and_notes_do_not_pile_up(supervisor, bundle, helpers):
    supervisor.run()
    slots = supervisor.slots()
    quick = bundle("", argv=("true",))

    def once():
        slots.start("shop/till", "a", quick)
        helpers.wait_for(lambda: supervisor.exits)
        supervisor.exits.clear()

    slots.observe()
    once()
    before = len(list(Path(f"/proc/{supervisor.pid}/fd").iterdir()))
    for _ in range(20):
        once()
    assert len(list(Path(f"/proc/{supervisor.pid}/fd").iterdir())) == before
    assert list((supervisor.data / "run" / "launches").iterdir()) == []
