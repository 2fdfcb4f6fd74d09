"""The supervisor itself dies, is started twice, is told to end."""

import json
import os
import signal
import subprocess
from pathlib import Path

from edgewise.agent.supervisor_link import Acknowledged, StopAgent, StopAll
from edgewise.engine.protocol import Stopped
from edgewise.supervisor import stale
from edgewise.supervisor.launch import supervisor_argv

FAMILY = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(1, f"daemon {os.getpid()}\\n".encode())  # in one piece: both write to the same log
        time.sleep(600)
    os._exit(0)
os.write(1, f"leader {os.getpid()}\\n".encode())
time.sleep(600)
"""


def family(supervisor, helpers, folder="shop.till"):
    return helpers.numbers(supervisor, folder, "leader", "daemon")


def test_a_killed_supervisor_takes_its_workloads_along_and_the_next_one_what_is_left(supervisor, bundle, helpers):
    supervisor.run()
    supervisor.slots().start("shop/till", "a", bundle(FAMILY))
    leader, daemon = family(supervisor, helpers)
    supervisor.kill()
    helpers.wait_for(lambda: not helpers.alive(leader), what="the leader's end")
    assert helpers.alive(daemon), "this is what the next supervisor is tested with"
    supervisor.run()
    assert not helpers.alive(daemon)
    assert supervisor.slots().observe() == ()
    assert list((supervisor.data / "run" / "launches").iterdir()) == []
    assert "left behind" in supervisor.errors


UNDEAD = """
import ctypes, os, threading, time
print("leader", os.getpid(), flush=True)
threading.Thread(target=time.sleep, args=(600,)).start()
ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)
"""
"""The first thread ends, the process does not."""


def test_a_process_whose_first_thread_has_ended_is_killed_and_waited_for(supervisor, bundle, helpers):
    """Until the last of its threads has gone it holds its sockets and devices. Servers with many threads pass through this when they are killed."""
    supervisor.run()
    supervisor.slots().start("shop/till", "a", bundle(UNDEAD))
    (leader,) = helpers.numbers(supervisor, "shop.till", "leader")
    helpers.wait_for(lambda: not helpers.alive(leader), what="the end of the first thread")
    note = next(file for file in (supervisor.data / "run" / "launches").iterdir() if f'"pid":{leader}' in file.read_text().replace(" ", ""))
    noted = json.loads(note.read_text())
    assert stale.processes_of([stale.Trace(note.name, noted["pid"], noted["started"])]) == [leader]
    supervisor.kill()
    supervisor.run()
    helpers.wait_for(lambda: not Path(f"/proc/{leader}").exists(), what="the end of its last thread")


def test_a_stranger_with_a_recycled_process_id_is_left_alone(supervisor, helpers):
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        try:
            launches = supervisor.data / "run" / "launches"
            launches.mkdir(parents=True)
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            (launches / "feedfacefeedface").write_text(f'{{"pid":{stranger.pid},"started":99999999999,"boot":"{boot}"}}')
            (launches / "0123456789abcdef").write_text(f'{{"pid":{stranger.pid},"started":1,"boot":"an earlier one"}}')
            (launches / "cut-off").write_text('{"pid":')
            supervisor.run()
            assert helpers.alive(stranger.pid)
            assert list(launches.iterdir()) == []
        finally:
            stranger.kill()


def test_two_supervisors_do_not_share_a_folder(supervisor, bundle):
    supervisor.run()
    second = subprocess.run([*supervisor_argv(str(supervisor.data), []), "--"], capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 3
    assert "runs already" in second.stderr
    assert supervisor.slots().observe() == ()


def test_a_second_run_starts_the_agent_that_was_stopped(supervisor, helpers):
    agent = (helpers.python, "-S", "-c", "import time; time.sleep(600)")
    supervisor.run(agent=agent)
    helpers.wait_for(lambda: supervisor.status().agent_state == "running")
    argv = supervisor_argv(str(supervisor.data), agent)
    assert subprocess.run(argv, capture_output=True, timeout=60, check=False).returncode == 3
    supervisor.link().ask(StopAgent(), Acknowledged)
    again = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 0
    assert "started its agent again" in again.stderr
    status = supervisor.status()
    assert (status.pid, status.agent_state, status.agent_starts) == (supervisor.pid, "running", 2)


def test_an_agent_that_ends_everything_does_not_wait_for_itself(supervisor, bundle, helpers, tmp_path):
    program = tmp_path / "agent.py"
    program.write_text(
        "import socket, sys\nlink = socket.socket(socket.AF_UNIX)\nlink.connect(sys.argv[1])\n"
        "sys.stdin = open(sys.argv[2])\nsys.stdin.read()\n"
        """link.sendall(b'{"v":1,"id":1,"do":"stop-all","grace":60}\\n')\nprint(link.recv(1000))\n"""
    )
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    supervisor.run(
        "agent_grace_seconds=600", agent=(helpers.python, "-S", str(program), str(supervisor.data / "run/supervisor.sock"), str(fifo))
    )
    supervisor.slots().start("shop/eye", "a", bundle(FAMILY))
    pids = family(supervisor, helpers, "shop.eye")
    fifo.write_text("")
    assert supervisor.process.wait(60) == 0
    assert not any(map(helpers.alive, pids))


def test_wrong_command_lines_and_folders(tmp_path):
    def run(*arguments):
        argv = supervisor_argv("unused", [])[:4]
        return subprocess.run([*argv, *arguments], capture_output=True, text=True, timeout=60, check=False)

    assert run().returncode == 2
    assert run("--data").returncode == 2
    assert run("--wrong", "x").returncode == 2
    assert run("--data", str(tmp_path / "d"), "--limit", "no_such=1").returncode == 2
    assert run("--data", str(tmp_path / "d"), "--limit", "slots_max=many").returncode == 2
    (tmp_path / "file").write_text("")
    unusable = run("--data", str(tmp_path / "file"), "--")
    assert unusable.returncode == 4
    assert "cannot be used" in unusable.stderr


def test_sigterm_stops_workloads_in_order_and_ends_with_0(supervisor, bundle, helpers):
    supervisor.run()
    source = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit(0)))\nprint('here', flush=True)\ntime.sleep(600)\n"
    supervisor.slots().start("shop/till", "a", bundle(source))
    supervisor.slots().start("shop/eye", "b", bundle(FAMILY))
    pids = family(supervisor, helpers, "shop.eye")
    helpers.wait_for(lambda: "here" in supervisor.log("shop.till"))
    supervisor.process.send_signal(signal.SIGTERM)
    assert supervisor.process.wait(60) == 0
    assert "bye" in supervisor.log("shop.till")
    assert not any(map(helpers.alive, pids))
    assert not (supervisor.data / "run" / "supervisor.sock").exists()
    assert supervisor.exits == []


def test_stop_all_over_the_socket(supervisor, bundle, helpers):
    supervisor.run()
    slots = supervisor.slots()
    slots.start("shop/eye", "a", bundle(FAMILY))
    pids = family(supervisor, helpers, "shop.eye")
    assert supervisor.link().ask(StopAll(grace=60), Acknowledged) == Acknowledged()
    assert supervisor.process.wait(60) == 0
    assert not any(map(helpers.alive, pids))


def test_a_stop_under_way_is_hurried_by_a_stricter_one(supervisor, bundle, helpers):
    supervisor.run()
    slots = supervisor.slots()
    slots.start(
        "shop/till", "a", bundle("import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('leader', 'daemon')\ntime.sleep(600)\n")
    )
    helpers.wait_for(lambda: "leader" in supervisor.log("shop.till"))
    import threading

    patient = []
    thread = threading.Thread(target=lambda: patient.append(slots.stop("shop/till", "a", 600)))
    thread.start()
    helpers.wait_for(lambda: slots.start("shop/till", "a", bundle("")).reason == "Occupied")
    assert slots.stop("shop/till", "a", 0.1) == Stopped(code=-9)
    thread.join(10)
    assert patient == [Stopped(code=-9)]
