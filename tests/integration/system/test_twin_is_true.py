"""How good is the twin? One small story by real processes and in the twin: the same decisions in the same order, in about the same time.

The twin gets what a user's twin gets: a snapshot of the real fleet, and the same manifests. What no document says is measured (how long
workloads take to start) or stated (the link, the boot, and why the third version fails). docs/twin.md says what came of it.
"""

import contextlib
import os

import msgspec
import pytest
from system_artifacts import bundle_release, model_release, server_release
from system_links import Site, missing
from system_story import Circumstances, RealStage, Story, TwinStage, there

from edgewise.resources.artifact import Probe, Probes
from edgewise.twin.fleet import LinkQuality
from edgewise.twin.run import run
from edgewise.twin.scenario import Behaviour

SITES = {"a": "north", "b": "north", "c": "south"}
START = Probes(start=Probe(http_path="/", period_seconds=0.2, failure_threshold=600))
LOOPBACK = LinkQuality(latency_seconds=0.0001, jitter_seconds=0.0, bandwidth=10e9)
FAR_SECONDS, FAR_LOSS = 0.08, 0.02
FAR = LinkQuality(latency_seconds=FAR_SECONDS, jitter_seconds=0.0, bandwidth=1e9, loss=FAR_LOSS)
SECONDS_OFF, TIMES_OFF = 8.0, 3.0
"""How far a duration may be off: so many seconds, or so many times, whichever is more. Wide, because the real processes share their machine
with other tests and the twin's do not: here a failure means that one of both waits for something that the other does not know. How far
they are off is told at the end."""


def published(fleet):
    """Publish what the story needs: two good versions of the inspector, one that ends at once, and a recorder."""
    for version in (1, 2):
        fleet.push(server_release(fleet.folder, Story.inspector, version, probes=START))
    fleet.push(bundle_release(fleet.folder, Story.inspector, 3, "raise SystemExit(4)"))
    fleet.push(model_release(fleet.folder, Story.recorder, 1))


def circumstances(record, link):
    """Return what a twin of the fleet is told."""
    return Circumstances(
        link=link,
        behaviours=(
            Behaviour(workload=Story.inspector, version="3", fails="crashes-at-start", start_seconds=0.1),
            Behaviour(workload=Story.inspector, start_seconds=record.start_seconds(Story.inspector)),
            Behaviour(workload=Story.recorder, start_seconds=record.start_seconds(Story.recorder)),
        ),
        boot_seconds=0.5,
    )


def compared(real, twin):
    """Return a line for every duration, and those that are too far off."""
    assert real.keys() == twin.keys()
    lines, wrong = [], []
    for name, seconds in real.items():
        off = abs(seconds - twin[name])
        line = f"{name}: real {seconds:.1f} s, twin {twin[name]:.1f} s, real is {seconds / twin[name]:.2f} times that"
        lines.append(line)
        if off > SECONDS_OFF and max(seconds, twin[name]) > TIMES_OFF * min(seconds, twin[name]):
            wrong.append(line)
    return lines, wrong


def told(fleet, link, tell, inside=None):
    """Tell the story twice and compare. `tell` hears of the durations."""
    stage, story = RealStage(fleet, inside), Story()
    stage.until(lambda record: there(record, SITES), "all agents")
    before = stage.snapshot()
    try:
        story.tell(stage)
    finally:
        real = stage.close()
    given = circumstances(real, link)
    simulated = TwinStage(given.plan(before, story.first()))
    story.tell(simulated)
    twin = simulated.close()

    assert twin.orders() == real.orders()
    assert len(real.rollouts) == 4
    lines, wrong = compared(real.durations(), twin.durations())
    tell(lines)
    assert not wrong, lines
    assert not alike_without_being_told(given, before, story, real)
    for change, seen in stage.rehearsable:
        rehearsed_as_it_came(given.plan(seen, (change,)), change, real)


def alike_without_being_told(given, fleet, story, real):
    """Whether a twin that takes the third version for a good one decides the same. If it does, nothing was compared."""
    stage = TwinStage(msgspec.structs.replace(given, behaviours=given.behaviours[1:]).plan(fleet, story.first()))
    story.tell(stage)
    return stage.close().orders() == real.orders()


def rehearsed_as_it_came(plan, change, real):
    """A rehearsal on a snapshot from right before a change foretells how its rollout ends."""
    version = change.spec.artifact.version
    (ended,) = (each for each in run(plan).rollouts if each.version == version)
    (one,) = (each for each in real.rollouts.values() if each.spec.workload == Story.inspector and each.spec.version == version)
    members = one.status.members
    assert (ended.state, ended.touched, ended.failed) == (one.status.state, one.status.touched, members.failed)
    assert ended.members == sum(getattr(members, each) for each in members.__struct_fields__)


@pytest.fixture
def tell(request):
    """Have lines told at the end of the tests, and kept in their report. (`record_property` does not like every form of that.)"""
    return lambda lines: request.node.user_properties.extend(("twin", line) for line in lines)


def test_the_twin_decides_as_the_real_fleet_does(fleets, tell):
    fleet = fleets()
    for name, site in SITES.items():
        fleet.device(name, site=site)
    published(fleet)
    told(fleet, LOOPBACK, tell)


if os.environ.get("EDGEWISE_NAMESPACES") == "1":
    # Not one of the tests that everybody's change has to pass: it needs root, and a kernel with namespaces and tun or netem. `make true-twin`.

    @pytest.fixture
    def sites():
        """Two sites in namespaces of their own, far away."""
        if reason := missing():
            pytest.skip(reason)
        with contextlib.ExitStack() as stack:
            made = {}
            for number, name in enumerate(sorted(set(SITES.values())), 1):
                made[name] = Site(number, FAR_SECONDS, FAR_LOSS)
                stack.callback(made[name].close)
            yield made

    def test_the_twin_decides_as_a_fleet_far_away_does(sites, fleets, tell):
        fleet = fleets(gateway_host=sites["north"].here)
        inside = {name: sites[site].inside for name, site in SITES.items()}
        for name, site in SITES.items():
            fleet.device(name, site=site, start=False).start(inside[name])
        published(fleet)
        tell([f"over links with {FAR_SECONDS * 1000:g} ms each way and {FAR_LOSS:.0%} loss, made by {sites['north'].how}:"])
        told(fleet, FAR, tell, inside)
