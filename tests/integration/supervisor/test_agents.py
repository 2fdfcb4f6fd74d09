"""The agent: started, started again, replaced, given up. A small program stands in for it."""

import json
import os
import sys
import textwrap

import pytest

from edgewise.agent.supervisor_link import Acknowledged, SetAgent, StartAgent, StopAgent, SupervisorRefused

FAST = ("agent_backoff_seconds_first=0.02", "agent_backoff_seconds_max=0.1", "agent_grace_seconds=60")

AGENT = """
import json, os, socket, sys, time
data, name, behaviour = sys.argv[1:4]
with open(os.path.join(data, "diary"), "a") as diary:
    diary.write(name + "\\n")
if behaviour == "crashes":
    sys.exit(1)
link = socket.socket(socket.AF_UNIX)
link.connect(os.path.join(data, "run", "supervisor.sock"))
if behaviour == "works":
    link.sendall(b'{"v":1,"id":1,"do":"healthy"}\\n')
    link.recv(1000)
time.sleep(600)
"""


@pytest.fixture
def agent(supervisor, tmp_path, helpers):
    program = tmp_path / "agent.py"
    program.write_text(textwrap.dedent(AGENT))

    class Agent:
        diary = supervisor.data / "diary"

        def argv(self, name, behaviour):
            return (helpers.python, "-S", str(program), str(supervisor.data), name, behaviour)

        def wrote(self):
            return self.diary.read_text().split() if self.diary.exists() else []

    return Agent()


def test_the_agent_is_started_again_with_growing_pauses(supervisor, agent, helpers):
    supervisor.run(*FAST, agent=agent.argv("one", "crashes"))
    helpers.wait_for(lambda: len(agent.wrote()) >= 4)
    assert set(agent.wrote()) == {"one"}
    errors = supervisor.errors
    assert [pause in errors for pause in ("again in 0.02 s", "again in 0.04 s", "again in 0.08 s")] == [True] * 3
    assert "again in 0.16 s" not in errors


def test_a_killed_agent_comes_back_and_workloads_do_not_notice(supervisor, agent, bundle, helpers):
    supervisor.run(*FAST, agent=agent.argv("one", "works"))
    slots = supervisor.slots()
    started = slots.start("shop/till", "a", bundle("import time\ntime.sleep(600)\n"))
    first = helpers.wait_for(lambda: (status := supervisor.status()).agent_healthy and status)
    os.kill(first.agent_pid, 9)
    second = helpers.wait_for(lambda: (status := supervisor.status()).agent_healthy and status.agent_pid != first.agent_pid and status)
    assert second.agent_starts == 2
    assert [one.launch_id for one in slots.observe()] == [started.launch_id]


def test_stopping_the_agent_stops_no_workload(supervisor, agent, bundle, helpers):
    supervisor.run(*FAST, agent=agent.argv("one", "works"))
    slots = supervisor.slots()
    slots.start("shop/till", "a", bundle("import time\ntime.sleep(600)\n"))
    link = supervisor.link()
    helpers.wait_for(lambda: supervisor.status().agent_healthy)
    pid = supervisor.status().agent_pid
    link.ask(StopAgent(), Acknowledged)
    assert not helpers.alive(pid)
    status = supervisor.status()
    assert (status.agent_state, status.agent_pid, status.slots) == ("stopped", 0, 1)
    link.ask(StopAgent(), Acknowledged)
    link.ask(StartAgent(), Acknowledged)
    link.ask(StartAgent(), Acknowledged)
    helpers.wait_for(lambda: supervisor.status().agent_healthy)
    assert agent.wrote() == ["one", "one"]
    assert slots.observe()[0].exit_code is None


def test_a_new_version_that_reports_healthy_is_kept(supervisor, agent, helpers):
    supervisor.run(*FAST, agent=agent.argv("one", "works"))
    helpers.wait_for(lambda: supervisor.status().agent_healthy)
    supervisor.link().ask(SetAgent(argv=agent.argv("two", "works"), version="2.0"), Acknowledged)
    status = helpers.wait_for(lambda: (one := supervisor.status()).agent_version == "2.0" and one.agent_healthy and one)
    assert status.fell_back == ""
    assert agent.wrote() == ["one", "two"]
    supervisor.process.terminate()
    assert supervisor.process.wait(60) == 0
    supervisor.run(*FAST, agent=agent.argv("one", "works"))
    helpers.wait_for(lambda: supervisor.status().agent_healthy)
    assert agent.wrote() == ["one", "two", "two"], "the new version is what starts from now on"


@pytest.mark.parametrize(
    ("behaviour", "limits", "reason"),
    [
        ("crashes", ("agent_trial_exits_max=2",), "ended 2 times"),
        ("hangs", ("agent_healthy_seconds_max=0.3",), "did not report healthy within 0.3 s"),
    ],
)
def test_a_new_version_that_does_not_work_is_given_up(supervisor, agent, bundle, helpers, behaviour, limits, reason):
    supervisor.run(*FAST, *limits, agent=agent.argv("one", "works"))
    slots = supervisor.slots()
    started = slots.start("shop/till", "a", bundle("import time\ntime.sleep(600)\n"))
    helpers.wait_for(lambda: supervisor.status().agent_healthy)
    supervisor.link().ask(SetAgent(argv=agent.argv("two", behaviour), version="2.0"), Acknowledged)
    status = helpers.wait_for(lambda: (one := supervisor.status()).fell_back == "2.0" and one.agent_healthy and one)
    assert status.agent_version == ""
    assert agent.wrote()[-1] == "one"
    assert reason in supervisor.errors
    assert [one.launch_id for one in slots.observe()] == [started.launch_id]


def test_a_program_that_is_not_there_is_given_up_too(supervisor, agent, helpers):
    supervisor.run(*FAST, agent=agent.argv("one", "works"))
    helpers.wait_for(lambda: supervisor.status().agent_healthy)
    supervisor.link().ask(SetAgent(argv=("/not/there",), version="3.0"), Acknowledged)
    helpers.wait_for(lambda: (one := supervisor.status()).fell_back == "3.0" and one.agent_healthy)


def test_a_version_on_trial_that_takes_the_device_down_is_given_up(supervisor, agent, helpers):
    supervisor.run(*FAST, agent=agent.argv("one", "works"))
    helpers.wait_for(lambda: supervisor.status().agent_healthy)
    supervisor.link().ask(SetAgent(argv=agent.argv("two", "hangs"), version="2.0"), Acknowledged)
    for _ in range(3):
        helpers.wait_for(lambda: agent.wrote()[-1] == "two")
        agent.diary.unlink()
        supervisor.kill()
        supervisor.run(*FAST, agent=agent.argv("one", "works"))
        helpers.wait_for(agent.wrote)
    assert agent.wrote() == ["one"]
    assert supervisor.status().fell_back == "2.0"


def test_an_agent_that_a_person_installed_wins_over_what_was_kept(supervisor, agent, helpers):
    supervisor.run(*FAST, agent=agent.argv("one", "works"))
    helpers.wait_for(lambda: supervisor.status().agent_healthy)
    supervisor.link().ask(SetAgent(argv=agent.argv("two", "works"), version="2.0"), Acknowledged)
    helpers.wait_for(lambda: supervisor.status().agent_version == "2.0" and supervisor.status().agent_healthy)
    supervisor.process.terminate()
    supervisor.process.wait(60)
    supervisor.run(*FAST, agent=agent.argv("three", "works"))
    helpers.wait_for(lambda: supervisor.status().agent_healthy)
    assert agent.wrote() == ["one", "two", "three"]


@pytest.mark.parametrize("content", ["", "{", '{"current": {"argv": []}}', '{"current": {"argv": [1], "version": "x"}, "base": []}', "[1]"])
def test_a_damaged_file_of_versions_is_no_file(supervisor, agent, helpers, content):
    (supervisor.data / "supervisor").mkdir(parents=True)
    (supervisor.data / "supervisor" / "agents.json").write_text(content)
    supervisor.run(*FAST, agent=agent.argv("one", "works"))
    helpers.wait_for(lambda: supervisor.status().agent_healthy)
    assert agent.wrote() == ["one"]


def test_a_version_that_cannot_be_written_down_is_refused_and_nothing_changes(supervisor, agent, helpers):
    supervisor.run(*FAST, agent=agent.argv("one", "works"))
    helpers.wait_for(lambda: supervisor.status().agent_healthy)
    (supervisor.data / "supervisor" / "agents.json.new").mkdir()
    with pytest.raises(SupervisorRefused):
        supervisor.link().ask(SetAgent(argv=agent.argv("two", "works"), version="2.0"), Acknowledged)
    assert supervisor.status().agent_version == ""
    assert agent.wrote() == ["one"]


def test_a_killed_supervisor_takes_its_agent_along(supervisor, agent, helpers):
    supervisor.run(*FAST, agent=agent.argv("one", "works"))
    pid = helpers.wait_for(lambda: supervisor.status().agent_pid)
    supervisor.kill()
    helpers.wait_for(lambda: not helpers.alive(pid))


def test_without_a_word_the_agent_beside_it_runs(supervisor, helpers):
    supervisor.run(
        argv=[sys.executable, "-m", "edgewise.supervisor", "--data", str(supervisor.data), "--limit", "agent_backoff_seconds_first=60"]
    )
    pid = helpers.wait_for(lambda: supervisor.status().agent_starts and supervisor.status())
    assert pid
    assert supervisor.status().agent_state in ("running", "waiting")
    kept = supervisor.data / "supervisor" / "agents.json"
    assert not kept.exists() or json.loads(kept.read_text())["current"] is None
