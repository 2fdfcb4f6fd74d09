"""Workload processes through the eyes of the agent: real supervisor, real processes."""

import json
import threading
import time

import pytest

from edgewise.agent.slots import api_socket_path
from edgewise.agent.supervisor_link import ObserveSlots, ProbeSlot, SlotsSeen, StartSlot, SupervisorGone, SupervisorRefused
from edgewise.engine.protocol import Failed, Finished, Probed, Started, Stopped
from edgewise.resources.artifact import Command, Probe

SLEEPER = "import time\nprint('here', flush=True)\ntime.sleep(600)\n"
STUBBORN = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('here', flush=True)\ntime.sleep(600)\n"


def test_an_exit_code_waits_for_an_agent_that_was_away(supervisor, bundle, helpers):
    supervisor.run()
    first = supervisor.slots()
    first.observe()
    started = first.start("shop/till", "a", bundle("import sys, time\ntime.sleep(0.3)\nsys.exit(7)\n"))
    assert isinstance(started, Started)
    first.close()
    second = supervisor.slots()
    (seen,) = helpers.wait_for(lambda: [one for one in second.observe() if one.exit_code is not None])
    assert (seen.instance, seen.slot, seen.launch_id, seen.revision, seen.exit_code) == ("shop/till", "a", started.launch_id, "r1", 7)
    third = supervisor.slots()
    assert [one.exit_code for one in third.observe()] == [7]
    third.acknowledge(started.launch_id)
    assert third.observe() == ()


def test_an_exit_is_told_once_and_only_after_the_first_observation(supervisor, bundle, helpers):
    supervisor.run()
    slots = supervisor.slots()
    slots.observe()
    started = slots.start("shop/till", "b", bundle("import os\nos.kill(os.getpid(), 9)\n"))
    helpers.wait_for(lambda: supervisor.exits)
    assert supervisor.exits == [helpers.exited(instance="shop/till", slot="b", launch_id=started.launch_id, code=-9)]
    assert [one.exit_code for one in slots.observe()] == [-9]
    assert len(supervisor.exits) == 1
    assert isinstance(slots.start("shop/till", "b", bundle(SLEEPER)), Started)
    assert [one.exit_code for one in slots.observe()] == [None]


def test_a_new_agent_adopts_what_runs(supervisor, bundle, helpers):
    supervisor.run()
    first = supervisor.slots()
    started = first.start("shop/till", "a", bundle(SLEEPER))
    assert first.activate("shop/till", "a") == Finished()
    first.close()
    second = supervisor.slots()
    (seen,) = second.observe()
    assert (seen.launch_id, seen.exit_code, seen.active) == (started.launch_id, None, True)
    helpers.wait_for(lambda: 0 <= seen.runs_for < second.observe()[0].runs_for, what="growing age")
    helpers.wait_for(lambda: "here" in supervisor.log("shop.till"))
    assert second.stop("shop/till", "a", 60) == Stopped(code=-15)
    assert second.observe() == ()
    assert supervisor.exits == []


def test_a_stubborn_process_is_killed_after_its_grace(supervisor, bundle, helpers):
    supervisor.run()
    slots = supervisor.slots()
    slots.start("shop/till", "a", bundle(STUBBORN))
    helpers.wait_for(lambda: "here" in supervisor.log("shop.till"))
    before = time.monotonic()
    assert slots.stop("shop/till", "a", 0.4) == Stopped(code=-9)
    assert time.monotonic() - before >= 0.4


def test_stopping_nothing_is_no_error(supervisor):
    supervisor.run()
    assert supervisor.slots().stop("shop/till", "a", 60) == Stopped(code=None)


FAMILY = """
import os, sys, time
if os.fork() == 0:
    print("child", os.getpid(), flush=True)
    time.sleep(600)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print("daemon", os.getpid(), flush=True)
        time.sleep(600)
    os._exit(0)
time.sleep(float(sys.argv[1]))
"""


@pytest.mark.parametrize("by_itself", [True, False])
def test_nothing_of_a_slot_is_left(supervisor, bundle, helpers, by_itself):
    supervisor.run()
    slots = supervisor.slots()
    slots.observe()
    slots.start("shop/till", "a", bundle(FAMILY, argv=("${python}", "-S", "${bundle}/main.py", "0.5" if by_itself else "600")))
    pids = helpers.numbers(supervisor, "shop.till", "child", "daemon")
    if by_itself:
        helpers.wait_for(lambda: supervisor.exits)
        assert supervisor.exits[0].code == 0
    else:
        assert all(map(helpers.alive, pids))
        slots.stop("shop/till", "a", 60)
    assert not any(map(helpers.alive, pids))


def test_what_a_process_sees(supervisor, bundle, helpers):
    supervisor.run()
    source = """
import json, os, resource
print(json.dumps({
    "env": dict(os.environ), "cwd": os.getcwd(), "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
    "core": resource.getrlimit(resource.RLIMIT_CORE), "data": resource.getrlimit(resource.RLIMIT_DATA)[0],
    "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0], "nice": os.nice(0), "umask": os.umask(0),
    "oom": open("/proc/self/oom_score_adj").read().strip(), "stdin": os.readlink("/proc/self/fd/0"),
    "status": open("/proc/self/status").read(), "session": os.getsid(0) == os.getpid(),
}))
"""
    launch = bundle(
        source, environment={"MODE": "${bundle}/x", "EDGEWISE_DEVICE": "liar"}, memory=64 * 2**20, parameters={"threshold": 0.8}
    )
    supervisor.slots().start("shop/till", "a", launch)
    text = helpers.wait_for(lambda: "ended with" in (log := supervisor.log("shop.till")) and log)
    seen = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
    home = str(supervisor.data / "instances" / "shop.till" / "a")
    env = seen["env"]
    assert "A_SECRET_OF_THE_PARENT" not in env
    assert env["HOME"] == seen["cwd"] == home
    tree = str(supervisor.data / "trees" / launch.tree)
    assert env["MODE"] == f"{tree}/x"
    expected = {"INSTANCE": "shop/till", "DEVICE": "device-1", "REVISION": "r1", "SLOT": "a", "BUNDLE": tree}
    assert {name: env[f"EDGEWISE_{name}"] for name in expected} == expected
    assert env["EDGEWISE_API"] == api_socket_path(str(supervisor.data), "shop/till")
    assert json.loads(env["EDGEWISE_PARAMETERS"]) == {"threshold": 0.8}
    assert "EDGEWISE_LISTEN_FD" not in env
    assert len([fd for fd in seen["fds"] if fd > 2]) == 1  # the folder it was listing
    assert (seen["core"], seen["files"], seen["nice"], seen["umask"], seen["oom"]) == ([0, 0], 4096, 5, 0o077, "500")
    assert seen["stdin"] == "/dev/null"
    assert seen["session"]
    assert "NoNewPrivs:\t1" in seen["status"]
    if supervisor.status().limits == "rlimit":
        assert seen["data"] == 2 * 64 * 2**20 + 256 * 2**20


def test_a_leak_is_stopped(supervisor, bundle, helpers):
    supervisor.run("data_factor=1", "data_extra_bytes=0")
    slots = supervisor.slots()
    slots.observe()
    slots.start("shop/till", "a", bundle("kept = []\nwhile True:\n    kept.append(bytearray(1 << 20))\n", memory=64 * 2**20))
    helpers.wait_for(lambda: supervisor.exits)
    assert supervisor.exits[0].code != 0


def test_what_cannot_start_is_said_with_its_kind(supervisor, bundle):
    supervisor.run()
    slots = supervisor.slots()
    gone = slots.start("shop/till", "a", bundle(SLEEPER, argv=("${bundle}/not-there",)))
    assert (gone.kind, gone.reason) == ("invalid", "NotStarted")
    no_program = slots.start("shop/till", "a", bundle(SLEEPER, argv=("${bundle}/main.py",)))
    assert (no_program.kind, no_program.reason) == ("invalid", "NotStarted")
    too_much = slots.start("shop/till", "a", bundle(SLEEPER, environment={"BIG": "x" * 200_000}))
    assert (too_much.kind, too_much.reason) == ("invalid", "NotStarted")
    missing = bundle(SLEEPER)
    (supervisor.data / "trees" / missing.tree / "main.py").unlink()
    (supervisor.data / "trees" / missing.tree).rmdir()
    assert slots.start("shop/till", "a", missing).reason == "TreeMissing"
    assert slots.observe() == ()
    assert isinstance(slots.start("shop/till", "a", bundle(SLEEPER)), Started)
    again = slots.start("shop/till", "a", bundle(SLEEPER))
    assert isinstance(again, Failed)
    assert (again.kind, again.reason) == ("transient", "Occupied")
    assert slots.activate("shop/till", "b").reason == "NotRunning"
    assert [path.name for path in (supervisor.data / "run" / "launches").iterdir()] == [slots.observe()[0].launch_id]


def test_a_process_without_a_command_is_invalid(supervisor, bundle):
    supervisor.run()
    launch = bundle(SLEEPER, driver="model")
    answer = supervisor.slots().start(
        "shop/till", "a", type(launch)(**{name: getattr(launch, name) for name in launch.__struct_fields__} | {"driver": "process"})
    )
    assert (answer.kind, answer.reason) == ("invalid", "NoCommand")


@pytest.mark.parametrize(
    ("source", "seconds", "ok", "message"),
    [
        ("import os; print(os.environ['EDGEWISE_INSTANCE'], os.environ['WHICH'])", 60, True, ""),
        ("import sys; print('no picture'); sys.exit(3)", 60, False, "exit status 3: no picture"),
        ("import time; time.sleep(600)", 0.3, False, "longer than 0.3 s"),
    ],
)
def test_command_probes(supervisor, bundle, source, seconds, ok, message):
    supervisor.run()
    slots = supervisor.slots()
    slots.start("shop/till", "a", bundle(SLEEPER))
    command = Command(argv=("${python}", "-S", "-c", source), environment={"WHICH": "one"})
    answer = slots.probe("shop/till", "a", "liveness", Probe(command=command, timeout_seconds=seconds))
    assert answer.ok is ok, answer
    assert message in answer.message


def test_probes_of_what_is_not_there(supervisor, bundle):
    supervisor.run()
    slots = supervisor.slots()
    nothing = Probed(ok=False, message="nothing runs in this slot")
    assert slots.probe("shop/till", "a", "start", Probe(http_path="/")) == nothing
    slots.start("shop/till", "a", bundle(SLEEPER))
    assert not slots.probe("shop/till", "a", "start", Probe(http_path="/")).ok
    assert not slots.probe("shop/till", "a", "start", Probe(heartbeat=True)).ok
    assert not slots.probe("shop/till", "a", "start", Probe(command=Command(argv=("/not/there",)))).ok
    with pytest.raises(SupervisorRefused):
        supervisor.link().ask(ProbeSlot(instance="no/such", slot="a", argv=("true",), env={}, timeout=1), SlotsSeen)


def test_command_probes_are_bounded_in_number(supervisor, bundle, helpers):
    supervisor.run("probes_max=1")
    slots = supervisor.slots()
    slots.start("shop/till", "a", bundle(SLEEPER))
    begun, over = supervisor.data / "begun", supervisor.data / "over"
    waits = f"touch {begun}; until [ -e {over} ]; do sleep 0.02; done"
    probe = Probe(command=Command(argv=("sh", "-c", waits)), timeout_seconds=60)
    answers = []
    first = threading.Thread(target=lambda: answers.append(slots.probe("shop/till", "a", "start", probe)))
    first.start()
    helpers.wait_for(begun.exists)
    refused = slots.probe("shop/till", "a", "start", probe)
    assert not refused.ok
    assert "1 command probes run already" in refused.message
    over.touch()
    first.join()
    assert [answer.ok for answer in answers] == [True]
    assert slots.probe("shop/till", "a", "start", probe).ok


def test_forgetting_an_instance(supervisor, bundle, helpers):
    supervisor.run()
    slots = supervisor.slots()
    launch = bundle(SLEEPER, environment={"EDGEWISE_SERVICE": "1"})
    started = slots.start("shop/till", "a", launch)
    assert slots.address_of("shop/till") == started.address != ""
    with pytest.raises(SupervisorRefused):
        slots.forget("shop/till")
    slots.stop("shop/till", "a", 60)
    slots.forget("shop/till")
    assert not (supervisor.data / "logs" / "shop.till").exists()
    assert json.loads((supervisor.data / "supervisor" / "ports.json").read_text()) == {}
    slots.forget("shop/till")


def test_slots_are_bounded_and_stop_workloads_empties_them(supervisor, bundle, helpers):
    supervisor.run("slots_max=2")
    slots = supervisor.slots()
    assert isinstance(slots.start("shop/a", "a", bundle(STUBBORN)), Started)
    assert isinstance(slots.start("shop/b", "a", bundle(STUBBORN)), Started)
    assert slots.start("shop/c", "a", bundle(SLEEPER)).reason == "TooManySlots"
    helpers.wait_for(lambda: "here" in supervisor.log("shop.a") and "here" in supervisor.log("shop.b"))
    before = time.monotonic()
    slots.stop_workloads(1.0)
    assert time.monotonic() - before < 1.9, "they are stopped at the same time"
    assert slots.observe() == ()


def test_a_working_folder_outside_the_data_folder_is_refused(supervisor):
    supervisor.run()
    order = StartSlot(
        instance="x/y", slot="a", folder="x.y", revision="r", argv=("true",), env={}, cwd=str(supervisor.data / ".." / "elsewhere")
    )
    with pytest.raises(SupervisorRefused, match="inside"):
        supervisor.link().ask(order, SlotsSeen)


def test_the_end_of_the_supervisor_is_told(supervisor, helpers):
    supervisor.run()
    gone = []
    link = supervisor.link(on_gone=lambda: gone.append(True))
    supervisor.kill()
    with pytest.raises(SupervisorGone):
        link.ask(ObserveSlots(), SlotsSeen)
    helpers.wait_for(lambda: gone == [True])
    with pytest.raises(SupervisorGone):
        supervisor.link()


def test_a_full_disk_keeps_no_workload_from_starting(supervisor, bundle, helpers):
    supervisor.run()
    slots = supervisor.slots()
    slots.observe()
    launch = bundle("import sys\nsys.exit(5)\n", environment={"EDGEWISE_SERVICE": "1"})
    slots.start("shop/till", "a", launch)
    helpers.wait_for(lambda: supervisor.exits)
    # As root nothing is ever full or forbidden; folders that are gone, and files where folders should be, fail in the same places.
    for name in ("run/launches", "supervisor"):
        folder = supervisor.data / name
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        folder.write_text("")
    assert isinstance(slots.start("shop/till", "a", launch), Started)
    helpers.wait_for(lambda: len(supervisor.exits) == 2)
    assert supervisor.exits[1].code == 5
    assert "could not be noted" in supervisor.errors


def test_a_data_folder_too_deep_for_a_socket_path(supervisor, bundle, helpers):
    supervisor.data = supervisor.data / ("deep" * 30) / ("deeper" * 20)
    supervisor.data.mkdir(parents=True)
    supervisor.run()
    slots = supervisor.slots()
    slots.start("shop/till", "a", bundle(SLEEPER))
    helpers.wait_for(lambda: "here" in supervisor.log("shop.till"))
    assert len(slots.observe()) == 1
