"""What workloads print: kept, rotated, bounded."""

import os
import time
from pathlib import Path


def test_both_streams_are_kept_with_marks(supervisor, bundle, helpers):
    supervisor.run()
    slots = supervisor.slots()
    slots.observe()
    slots.start("shop/till", "a", bundle("import sys\nprint('to out')\nprint('to err', file=sys.stderr)\nsys.exit(4)\n"))
    helpers.wait_for(lambda: supervisor.exits)
    lines = supervisor.log("shop.till").splitlines()
    assert lines[0] == "[edgewise] revision r1 started in slot a"
    assert sorted(lines[1:3]) == ["to err", "to out"]
    assert lines[3] == "[edgewise] revision r1 in slot a ended with status 4"
    assert (supervisor.data / "logs" / "shop.till" / "current.log").stat().st_mode & 0o777 == 0o600
    slots.start("shop/till", "a", bundle("import os\nos.kill(os.getpid(), 9)\n"))
    helpers.wait_for(lambda: len(supervisor.exits) == 2)
    assert supervisor.log("shop.till").splitlines()[-1] == "[edgewise] revision r1 in slot a was ended by signal 9"
    assert "to out" in supervisor.log("shop.till"), "a restart adds to the log"


def test_logs_rotate_and_the_newest_lines_are_whole(supervisor, bundle, helpers):
    supervisor.run("log_file_bytes_max=10000", "log_files_max=3", "log_burst_bytes=1e9")
    slots = supervisor.slots()
    slots.observe()
    slots.start("shop/till", "a", bundle("for n in range(4000):\n    print(f'line {n:06}', flush=True)\n"))
    helpers.wait_for(lambda: supervisor.exits)
    folder = supervisor.data / "logs" / "shop.till"
    assert sorted(path.name for path in folder.iterdir()) == ["current.log", "current.log.1", "current.log.2"]
    # One read of a full pipe may be larger than a whole file, and is not cut.
    assert all(path.stat().st_size <= 10_000 + 65_536 for path in folder.iterdir())
    lines = [line for line in supervisor.log("shop.till").splitlines() if line.startswith("line")]
    assert lines[-1] == "line 003999"
    assert lines == [f"line {n:06}" for n in range(4000 - len(lines), 4000)]


def test_a_flood_is_dropped_counted_and_costs_little(supervisor, bundle, helpers):
    supervisor.run("log_burst_bytes=100000", "log_bytes_per_second=10000")
    slots = supervisor.slots()
    slots.start("shop/till", "a", bundle("import os\nwhile True:\n    os.write(1, b'x' * 99 + b'\\n')\n"))
    started = time.monotonic()
    helpers.wait_for(lambda: len(supervisor.log("shop.till")) > 100_000, what="the flood")
    before, began = _cpu(supervisor.pid), time.monotonic()
    time.sleep(1.0)
    share = (_cpu(supervisor.pid) - before) / (time.monotonic() - began)
    assert share < 0.1, f"{share:.0%} of a core for a workload that prints without end"
    slots.stop("shop/till", "a", 60)
    log = supervisor.log("shop.till")
    assert len(log) < 120_000 + 10_000 * (time.monotonic() - started)
    assert "bytes of output dropped: more than 10000 bytes per second" in log
    assert log.rstrip().endswith("was ended by signal 15")


def test_a_disk_that_takes_no_logs_stops_no_workload(supervisor, bundle, helpers):
    supervisor.run()
    (supervisor.data / "logs" / "shop.till").write_text("a file where the folder should be")
    slots = supervisor.slots()
    slots.observe()
    slots.start("shop/till", "a", bundle("import sys\nfor n in range(10000):\n    print('something')\nsys.exit(5)\n"))
    helpers.wait_for(lambda: supervisor.exits)
    assert supervisor.exits[0].code == 5


def _cpu(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
