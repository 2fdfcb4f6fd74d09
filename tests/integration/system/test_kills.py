"""`kill -9` of every process in every state of an update: old or new, never a mixture, and it converges without help.

One fleet serves all: on each device another process is the victim. A workload beside the one that is updated must not notice.
"""

import pytest
from system_artifacts import model_release, server_release
from system_fleet import alive, kill, resting, until

from edgewise.resources.artifact import Command, Probe, Probes

QUICK = {
    "agent": {"backoff_first_seconds": 0.2, "backoff_seconds_max": 1.0},
    "engine": {"fetch_delay_seconds": 0.3, "restart_delay_seconds": 0.3},
}
FETCHING = ("Download", "Verify", "Install")
GOING = (*FETCHING, "Probation.m", "before-Committed.m", "after-Committed.m")
GIVING_UP = ("before-Refused.m", "Rollback.m")
SICK = Probes(
    start=Probe(http_path="/ready", period_seconds=0.5),
    liveness=Probe(command=Command(argv=("/bin/false",)), period_seconds=0.2, failure_threshold=1),
)


def kill_agent(device):
    below = device.fetches()
    device.kill_agent()
    until(lambda: not any(map(alive, below)), "the end of the fetch process with its agent")


def kill_supervisor(device):
    device.kill_supervisor()


def kill_fetch_and_servers(device):
    kill(*device.fetches(), *device.pids("m"))


def cut_power(device):
    device.kill()
    device.start()


VICTIMS = {
    "agent": kill_agent,
    "supervisor": kill_supervisor,
    "server": kill_fetch_and_servers,
    "power": cut_power,
}
KEEP_ALL = {"supervisor", "power"}
"""Where the workloads end with what is killed."""


class World:
    """The fleet, and what every version answers."""

    def __init__(self, fleet):
        self.fleet = fleet
        self.version = 0
        self.answers = {}
        for name in VICTIMS:
            fleet.device(name, limits=QUICK)
        fleet.push(server_release(fleet.folder, "beside", 1))
        fleet.run("beside", 1)
        self.update()
        fleet.serves("beside", 1)
        self.probers = {name: fleet.probe(device, "m") for name, device in fleet.devices.items()}

    def publish(self, **options):
        self.version += 1
        self.fleet.push(model_release(self.fleet.folder, "m", self.version, **options))

    def update(self):
        """Bring the next version to all devices, undisturbed."""
        self.publish()
        self.fleet.run("m", self.version, budget="100%")
        return self.finished()

    def finished(self):
        self.answers[self.fleet.serves("m", self.version)] = self.version
        return self.version

    def hold(self, *moments):
        for device in self.fleet.devices.values():
            for moment in moments:
                device.hooks.hold(moment)

    def strike(self, moment):
        """When all devices have come to `moment`, kill the victims and the control plane, and let what lives go on."""
        for device in self.fleet.devices.values():
            until(
                lambda device=device: device.hooks.held(moment), lambda device=device: f"{moment} on {device.name}: {self.fleet.tell('m')}"
            )
        assert not self.wrong(), self.wrong()
        self.fleet.kill_control()
        for name, device in self.fleet.devices.items():
            VICTIMS[name](device)
            device.hooks.let_go(moment)
        self.fleet.start_control()

    def wrong(self):
        return {name: problems for name, device in self.fleet.devices.items() if (problems := device.problems_of_trees())}

    def beside(self):
        return {name: device.pids("beside") for name, device in self.fleet.devices.items() if name not in KEEP_ALL}

    def check(self, before):
        """Nothing is mixed, nothing is left over, and who was not hit did not notice."""
        assert not self.wrong(), self.wrong()
        assert self.beside() == before
        for name, prober in self.probers.items():
            assert not prober.mixed(self.answers), name
            if name == "agent":
                assert prober.dropped == []
            prober.dropped.clear()
        assert all(one.status.address for one in self.fleet.instances("m").values())
        for device in self.fleet.devices.values():
            until(lambda device=device: len(list((device.data / "trees").iterdir())) <= 3, f"old files are removed on {device.name}")
            assert not list((device.data / "staging").glob("*")), device.name


@pytest.fixture(scope="module")
def world(fleets):
    return World(fleets())


def test_an_update_that_is_struck_in_every_state_arrives_all_the_same(world):
    """The agent is killed as often as a trial survives; each kill finds the update where the one before left it, or further back."""
    before = world.beside()
    world.hold(*GOING)
    world.publish()
    world.fleet.run("m", world.version, budget="100%")
    for moment in GOING:
        world.strike(moment)
    world.finished()
    world.check(before)


def test_a_commit_that_is_struck_is_a_commit(world):
    before = world.beside()
    world.hold("Commit.m")
    world.publish()
    world.fleet.run("m", world.version, budget="100%")
    world.strike("Commit.m")
    world.finished()
    world.check(before)


def test_a_way_back_that_is_struck_in_every_state_arrives_all_the_same(world):
    """The version is sick: every device gives it up, remembers that, and serves the one before."""
    fleet, before, good = world.fleet, world.beside(), world.version
    (old,) = {one.status.committed for one in fleet.instances("m").values()}
    world.hold(*GIVING_UP)
    world.publish(probes=SICK)
    fleet.run("m", world.version, budget="100%", probation="5m")  # however busy the machine is, it is not committed before it shows
    for moment in GIVING_UP:
        world.strike(moment)
    revision = fleet.ended("m", world.version).spec.to_revision
    world.answers[revision] = world.version

    def back():
        found = fleet.instances("m")
        return all(resting(one, old) and revision in one.status.refused for one in found.values()) and len(found) == len(VICTIMS)

    until(back, lambda: fleet.tell("m"))
    world.check(before)
    for prober in world.probers.values():
        seen = len(prober.answers)
        until(lambda prober=prober, seen=seen: len(prober.answers) > seen + 3, "answers")
        assert prober.answers[-1] == (good, old)
