"""Random lives of a device. The rig checks the invariants at every step; here is what happens, and that it ends well."""

import msgspec
from engine_rig import APP, Rig, want
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewise.engine.machine import next_wake
from edgewise.engine.protocol import Activate, Desired, Failed, Fetch, Heartbeat, Probed, Remove, Route, RunProbe, Start, Stop, Tick
from edgewise.resources.artifact import Probe, Probes
from edgewise.resources.states import InstanceState, UpdateState
from edgewise.wire.desired import Traffic

REVISIONS = ("r1", "r2", "r3")
PROBES = (
    Probes(),
    Probes(
        start=Probe(http_path="/up", period_seconds=1, failure_threshold=3),
        readiness=Probe(http_path="/ready", period_seconds=2, failure_threshold=2),
    ),
    Probes(liveness=Probe(heartbeat=True, period_seconds=3, failure_threshold=2)),
)

wishes = st.builds(
    want,
    st.sampled_from(REVISIONS),
    kind=st.sampled_from(["model", "bundle"]),
    hold=st.booleans(),
    traffic=st.sampled_from([None, None, Traffic(), Traffic(mode="shadow"), Traffic(mode="split", share=0.5)]),
    rejected=st.lists(st.sampled_from(REVISIONS), max_size=2, unique=True).map(tuple),
    probation_seconds=st.sampled_from([0.0, 1.0, 20.0]),
    deadline_seconds=st.sampled_from([2.0, 100.0]),
    exclusive=st.booleans(),
    lost_after_seconds=st.just(20.0),
    desired=st.sampled_from(["Running", "Running", "Running", "Stopped"]),
    uid=st.sampled_from(["uid-1", "uid-1", "uid-1", "uid-2"]),
)

happenings = st.one_of(
    st.tuples(st.just("desire"), st.lists(wishes, max_size=1), st.integers(0, 1)),
    st.tuples(st.just("answer"), st.integers(0, 9), st.sampled_from(["well", "well", "well", "transient", "invalid", "untrusted"])),
    st.tuples(st.just("pass"), st.sampled_from([0.0, 0.1, 1.0, 7.0, 70.0]), st.none()),
    st.tuples(st.just("exit"), st.integers(0, 3), st.sampled_from([0, 1, -9])),
    st.tuples(st.just("restart"), st.booleans(), st.booleans()),
    st.tuples(st.just("disk"), st.booleans(), st.none()),
    st.tuples(st.just("contact"), st.booleans(), st.none()),
    st.tuples(st.just("bad"), st.sets(st.sampled_from(REVISIONS), max_size=2), st.booleans()),
    st.tuples(st.just("heartbeat"), st.none(), st.none()),
)


class Life:
    """Plays one list of happenings."""

    def __init__(self, probes: Probes) -> None:
        self.rig = Rig(probes=probes)
        self.waiting: list[Desired] = []

    def play(self, what: str, first: object, second: object) -> None:
        getattr(self, f"_{what}")(first, second)

    def _desire(self, instances: list, cleared: int) -> None:
        before = self.rig.state.durable.document
        kind = {one.revision: one for one in instances}
        assert len(kind) <= 1
        self.rig.desire(*instances, cleared_refusals=(before.cleared_refusals if before else 0) + cleared)

    def _answer(self, which: int, how: str) -> None:
        pending = list(self.rig.pending.values())
        if not pending:
            return
        effect = pending[which % len(pending)]
        if how == "well" or isinstance(effect, Stop):
            self.rig.answer(effect)
        elif isinstance(effect, RunProbe):
            self.rig.done(effect, Probed(ok=False, message="no"))
        elif isinstance(effect, Fetch | Start | Activate | Route | Remove):
            kind = how if isinstance(effect, Fetch) or (how == "invalid" and isinstance(effect, Start)) else "transient"
            self.rig.done(effect, Failed(kind=kind, reason="Bad", message="made to fail"))

    def _pass(self, seconds: float, _: None) -> None:
        rig, end = self.rig, self.rig.time + seconds
        for _step in range(200):
            wake = next_wake(rig.state)
            if wake is None or wake > end:
                break
            moves = wake > rig.time
            rig.time = max(rig.time, wake)
            rig.post(Tick())
            if not rig.disk_ok and not moves:
                break
        rig.time = max(rig.time, end)

    def _exit(self, which: int, code: int) -> None:
        running = [key for key, slot in self.rig.running.items() if slot.exit_code is None]
        if running:
            instance, slot = running[which % len(running)]
            self.rig.exit(slot, instance, code)

    def _restart(self, reboot: bool, crashed: bool) -> None:
        rig = self.rig
        if crashed:
            rig.running = {key: msgspec.structs.replace(slot, exit_code=1) for key, slot in rig.running.items()}
        rig.restart(reboot=reboot)

    def _disk(self, ok: bool, _: None) -> None:
        self.rig.disk_ok = ok

    def _contact(self, online: bool, _: None) -> None:
        self.rig.contact(online=online)

    def _bad(self, revisions: set[str], crash: bool) -> None:
        self.rig.bad, self.rig.crashing = (set(), revisions) if crash else (revisions, set())

    def _heartbeat(self, _: None, __: None) -> None:
        self.rig.post(Heartbeat(instance=APP))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.sampled_from(PROBES), st.lists(happenings, min_size=5, max_size=40))
def test_whatever_happens_the_device_ends_where_it_should(probes: Probes, story: list) -> None:
    life = Life(probes)
    for what, first, second in story:
        life.play(what, first, second)
    rig = life.rig
    # Everything gets well again, and a person clears what was refused.
    rig.disk_ok, rig.bad, rig.crashing = True, set(), set()
    rig.contact(online=True)
    rig.probes = Probes()
    old = rig.state.durable.document
    rig.n += 1
    wanted = want("final", probation_seconds=1, uid="uid-1")
    rig.desire(wanted, cleared_refusals=(old.cleared_refusals if old else 0) + 1)
    for _ in range(40):
        rig.run(30)
        rig.post(Heartbeat(instance=APP))
    status = rig.status()
    assert (status.state, status.update, status.revision, status.committed) == (InstanceState.RUNNING, UpdateState.IDLE, "final", "final")
    assert rig.revisions() == ["final"]
    assert len(rig.trees) <= 2
    assert not rig.state.owed
    assert not [effect for effect in rig.pending.values() if not isinstance(effect, RunProbe)]
