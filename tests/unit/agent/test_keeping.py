"""What the agent keeps and does by itself: configuration, time floor, secrets, schedule, renewal, outlet, views."""

import threading
from types import SimpleNamespace

import pytest

from edgewise.agent.chores import Renewal
from edgewise.agent.config import AgentConfig, ConfigError, TimeFloor, read_config, write_config
from edgewise.agent.helper import HelperFailed
from edgewise.agent.jobs import Renewed, Unsealed
from edgewise.agent.limits import AgentLimits
from edgewise.agent.outlet import Outlet
from edgewise.agent.runtime import Runtime
from edgewise.agent.schedule import Schedule
from edgewise.agent.secrets import Secrets
from edgewise.agent.views import release_of, views
from edgewise.engine.limits import EngineLimits
from edgewise.engine.model import Live, SlotView, State
from edgewise.engine.records import Durable, Kept, Release
from edgewise.engine.tables import SlotPhase
from edgewise.ports.disk import DiskFiles
from edgewise.ports.files import Full, ReadOnly
from edgewise.resources.artifact import File, Variant
from edgewise.wire.desired import SealedSecret
from edgewise.wire.report import LaneItems, Report, ReportAnswer

DAY = 86400.0
CONFIG = AgentConfig(agent="a", device="d", addresses=("https://x:1",), labels={"k": "v"}, proxy="http://p:1")


@pytest.fixture
def files(tmp_path):
    return DiskFiles(str(tmp_path))


def test_the_configuration_is_kept(files):
    with pytest.raises(ConfigError, match="join"):
        read_config(files)
    write_config(files, CONFIG)
    assert read_config(files) == CONFIG
    files.replace("agent/config.json", b"{")
    with pytest.raises(ConfigError, match="read"):
        read_config(files)


def test_a_later_agents_configuration_is_still_read(files):
    write_config(files, CONFIG)
    data = files.read("agent/config.json", 10_000)
    files.replace("agent/config.json", data[:-1] + b',"new_field":1}')
    assert read_config(files) == CONFIG


def test_the_floor_holds_through_a_restart_with_a_clock_at_1970(files, clock):
    now = clock.wall()
    floor = TimeFloor(files, clock)
    assert floor.now() == now
    floor.learn(now, now + 90 * DAY)
    clock.time -= clock.wall() - 1000.0
    assert floor.now() == now - DAY
    assert TimeFloor(files, clock).now() == pytest.approx(now - DAY, abs=1)


def test_the_floor_is_never_beyond_what_vouches_for_it_and_never_goes_back(files, clock):
    now = clock.wall()
    floor = TimeFloor(files, clock)
    floor.learn(now + 1000 * DAY, now + 10 * DAY)
    assert floor.floor == now + 9 * DAY
    floor.learn(now, now + 10 * DAY)
    assert floor.floor == now + 9 * DAY


def test_the_floor_is_written_seldom(files, clock):
    written = []
    replace = files.replace
    files.replace = lambda *arguments: (written.append(1), replace(*arguments))
    floor = TimeFloor(files, clock)
    for minute in range(600):
        floor.learn(clock.wall() + minute * 60, clock.wall() + 90 * DAY)
    assert 1 <= len(written) <= 3


def test_a_floor_that_is_nonsense_counts_for_nothing(files, clock):
    files.make_folder("agent")
    files.replace("agent/floor", b"nan")
    assert TimeFloor(files, clock).floor == 0.0


# ---- secrets ----


SEALED = SealedSecret(name="rtsp", sealed=b"1")


def test_secrets_are_opened_once_and_again_when_they_change():
    asked = []

    def unseal(namespace, secrets):
        asked.append((namespace, secrets))
        return Unsealed(secrets={each.name: {"v": each.sealed.decode()} for each in secrets})

    secrets = Secrets(unseal)
    assert secrets.get("n/w", "rtsp") is None
    assert secrets.prepare("n/w", (SEALED,)) == ""
    assert secrets.prepare("n/w", (SEALED,)) == ""
    assert asked == [("n", (SEALED,))]
    assert secrets.get("n/w", "rtsp") == {"v": "1"}
    assert secrets.get("n/other", "rtsp") is None
    secrets.prepare("n/w", (SealedSecret(name="rtsp", sealed=b"2"),))
    assert secrets.get("n/w", "rtsp") == {"v": "2"}
    secrets.keep({"n/other": None})
    assert secrets.get("n/w", "rtsp") is None


def test_secrets_that_do_not_open_are_told():
    def fail(namespace, secrets):
        raise HelperFailed("no process")

    assert Secrets(fail).prepare("n/w", (SEALED,)) == "no process"
    assert "rtsp: wrong key" in Secrets(lambda n, s: Unsealed(secrets={}, failed={"rtsp": "wrong key"})).prepare("n/w", (SEALED,))


# ---- schedule ----


def test_tasks_run_when_they_are_due(clock, log):
    schedule, runs = Schedule(clock.monotonic, log), []
    schedule.add("a", lambda: runs.append("a") or 10.0)
    schedule.add("b", lambda: runs.append("b"), after=None)
    assert schedule.run_due() == 10.0
    clock.time += 9
    assert schedule.run_due() == pytest.approx(1.0)
    assert runs == ["a"]
    schedule.ask("b")
    clock.time += 1
    schedule.run_due()
    assert runs == ["a", "a", "b"]


def test_a_task_that_breaks_comes_again(clock, log):
    schedule = Schedule(clock.monotonic, log)
    schedule.add("a", lambda: 1 / 0)
    assert 0 < schedule.run_due() <= 60.0


# ---- renewal ----


class Errands:
    def __init__(self) -> None:
        self.results: list[object] = []
        self.forced: list[bool] = []

    def renew(self, *, force):
        self.forced.append(force)
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


@pytest.fixture
def renewal(clock, randomness, log):
    class World:
        pass

    world = World()
    world.errands, world.renewed = Errands(), []
    world.limits = AgentLimits()
    world.renewal = Renewal(world.errands, clock, randomness, log, renewed=lambda: world.renewed.append(1), limits=world.limits)
    return world


def settled(world, wait_for, count: int) -> None:
    wait_for(lambda: len(world.errands.forced) == count and not world.renewal._decisions.busy)


def test_a_certificate_is_looked_at_now_and_then(renewal, clock, wait_for):
    renewal.errands.results += [
        Renewed(renewed=False, due_in=30 * DAY, not_after=5.0),
        Renewed(renewed=True, due_in=30 * DAY, not_after=6.0),
    ]
    renewal.renewal.run()
    settled(renewal, wait_for, 1)
    assert (renewal.renewal.not_after, renewal.renewed) == (5.0, [])
    clock.time += renewal.limits.renew_check_seconds
    renewal.renewal.run()
    assert renewal.errands.forced == [False]  # the jitter is still to come
    clock.time += renewal.limits.renew_check_seconds / 10
    renewal.renewal.run()
    settled(renewal, wait_for, 2)
    assert (renewal.renewal.not_after, renewal.renewed) == (6.0, [1])


@pytest.mark.parametrize("failure", [HelperFailed("x"), RuntimeError("x"), Renewed(renewed=False, due_in=0, not_after=1, error="x")])
def test_a_failed_renewal_comes_again(renewal, clock, wait_for, failure):
    renewal.errands.results += [failure, Renewed(renewed=True, due_in=DAY, not_after=6.0)]
    renewal.renewal.run()
    settled(renewal, wait_for, 1)
    clock.time += renewal.limits.renew_retry_seconds * 1.1
    renewal.renewal.run()
    settled(renewal, wait_for, 2)
    assert renewal.renewed == [1]


def test_distrust_forces_a_renewal_but_not_again_and_again(renewal, clock, wait_for):
    renewal.errands.results += [Renewed(renewed=False, due_in=30 * DAY, not_after=5.0), Renewed(renewed=True, due_in=DAY, not_after=6.0)]
    renewal.renewal.run()
    settled(renewal, wait_for, 1)
    assert renewal.renewal.distrusted()
    assert not renewal.renewal.distrusted()
    renewal.renewal.run()
    settled(renewal, wait_for, 2)
    assert renewal.errands.forced == [False, True]
    clock.time += renewal.limits.renew_retry_seconds
    assert renewal.renewal.distrusted()


# ---- outlet ----


class Box:
    def __init__(self) -> None:
        self.items, self.flushes, self.marks, self.closed = [], 0, [], False

    @property
    def empty(self):
        return not self.items

    def append(self, lane, item):
        self.items.append((lane, item))

    def flush(self):
        self.flushes += 1

    def next_report(self):
        lanes = {"events": LaneItems(first=1, items=())} if self.items else {}
        return Report(incarnation="i", session="s", lanes=lanes)

    def acknowledge(self, answer):
        self.marks.append(answer)

    def close(self):
        self.closed = True


def test_the_outlet_flushes_once_and_wakes_the_uplink():
    box, woken = Box(), []
    outlet = Outlet(box, lambda: woken.append(1))
    outlet.flush()
    assert (box.flushes, woken, outlet.next_report()) == (0, [], None)
    outlet.append("events", 1)
    outlet.append("events", 2)
    outlet.flush()
    outlet.flush()
    assert (box.flushes, woken) == (1, [1])
    assert outlet.next_report() is not None
    outlet.acknowledge(ReportAnswer(marks={}, time=0))
    assert len(box.marks) == 1
    outlet.append("events", 3)
    outlet.close()
    assert (box.flushes, box.closed) == (2, True)


def test_the_outlet_is_safe_between_threads():
    box = Box()
    outlet = Outlet(box, lambda: None)

    def work():
        for number in range(300):
            outlet.append("events", number)
            outlet.flush()
            outlet.next_report()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(box.items) == 1200


# ---- views ----


def release(revision: str, **changes) -> Release:
    variant = Variant(name="v", files=(File(path="a", digest="sha256:" + "0" * 64, size=1),))
    return Release(revision=revision, type="model", tree="t", variant=variant, **changes)


def state(live: Live, kept: Kept | None) -> State:
    return State(device="d", limits=EngineLimits(), live={"n/w": live}, durable=Durable(instances={"n/w": kept} if kept else {}))


def test_the_active_slot_is_what_others_see():
    old, new = release("r1", config={"a": "1"}), release("r2", parameters={"p": 2}, secrets=(SEALED,))
    slots = {
        "a": SlotView(phase=SlotPhase.UP, release=old, revision="r1", address="http://127.0.0.1:1", ready=True, active=False),
        "b": SlotView(phase=SlotPhase.UP, release=new, revision="r2", address="http://127.0.0.1:1", ready=True, active=True),
    }
    here = state(Live(name="n/w", uid="u", slots=slots), Kept(uid="u", committed=old, candidate=new))
    view = views(here)["n/w"]
    assert (view.revision, view.also_running, view.ready, view.address) == ("r2", ("r1",), True, "http://127.0.0.1:1")
    assert (view.parameters, view.config, view.secrets) == ({"p": 2}, {}, ("rtsp",))
    assert release_of(here, "n/w", "r1") == old
    assert release_of(here, "n/w", "r9") is None
    assert release_of(here, "n/x", "r1") is None


def test_an_instance_is_known_before_its_process_starts():
    view = views(state(Live(name="n/w", uid="u"), Kept(uid="u", candidate=release("r1", config={"a": "1"}))))["n/w"]
    assert (view.revision, view.ready, view.address, view.config) == ("r1", False, "", {"a": "1"})
    assert views(state(Live(name="n/w", uid="u"), None))["n/w"].revision == ""
    assert views(state(Live(name="n/w", uid="u", removed=True), None)) == {}


def test_a_read_only_disk_is_no_reason_to_fail(clock):
    class Broken:
        def read(self, path, limit):
            raise ReadOnly(path, "no")

        def make_folder(self, path):
            raise ReadOnly(path, "no")

    floor = TimeFloor(Broken(), clock)
    floor.learn(clock.wall(), clock.wall() + DAY)
    assert floor.floor > 0


# ---- a full disk ----


@pytest.mark.parametrize("room", [True, False])
def test_a_journal_that_finds_the_disk_full_takes_room_from_the_outbox(room):
    class FullOnce:
        tries = 0

        def append(self, records):
            self.tries += 1
            if self.tries == 1:
                raise Full("journal", "no space left")

    device = SimpleNamespace(_journal=FullOnce(), _outlet=SimpleNamespace(make_room=lambda: room), _loop=SimpleNamespace(state=None))
    if room:
        Runtime._persist(device, ())
    else:
        with pytest.raises(Full):
            Runtime._persist(device, ())
    assert device._journal.tries == 1 + room
