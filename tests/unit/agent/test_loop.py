"""The engine's thread: persist before everything else, survive a disk that takes nothing, tick when asked."""

import threading

import pytest

from edgewise.agent.loop import Loop
from edgewise.engine.protocol import (
    ContactChanged,
    Desired,
    Emit,
    Exited,
    Heartbeat,
    Persist,
    StorageFailed,
    StorageRecovered,
    Tick,
)
from edgewise.engine.records import Gone
from edgewise.engine.turns import storage_kind
from edgewise.ports.files import Damaged, Full, ReadOnly
from edgewise.wire.desired import DeviceDesired, Position
from edgewise.wire.report import EventReport

EMIT = Emit(lane="events", item=EventReport(device="d", at=0, type="Normal", reason="X", message=""))
PERSIST = Persist(records=(Gone(instance="n/w"),))


def desired(n: int, device: str = "d") -> Desired:
    return Desired(document=DeviceDesired(device=device, uid="u", position=Position(1, n)))


class Engine:
    """Keeps every event it took; persists those that `durable` names."""

    def __init__(self, durable: tuple[type, ...] = ()) -> None:
        self.durable = durable
        self.wake: float | None = None
        self.offered: list[object] = []
        self.broken: tuple[type, ...] = ()

    def handle(self, state, event, now):
        self.offered.append(event)
        if isinstance(event, self.broken):
            raise TypeError("defect")
        if isinstance(event, Tick):
            self.wake = None
        effects = [PERSIST, EMIT] if isinstance(event, self.durable) else [EMIT]
        return (*state, event), effects

    def next_wake(self, state):
        return self.wake


class Disk:
    def __init__(self, log: list[str]) -> None:
        self.error: Exception | None = None
        self.log = log

    def persist(self, records) -> None:
        if self.error is not None:
            raise self.error
        self.log.append("persist")


@pytest.fixture
def world(clock, log):
    class World:
        def __init__(self) -> None:
            self.order: list[str] = []
            self.engine = Engine((Exited, Desired))
            self.disk = Disk(self.order)
            self.taken: list[object] = []
            self.crashes: list[object] = []
            self.loop = Loop(
                self.engine,
                (),
                clock=clock,
                persist=self.disk.persist,
                carry=lambda effect: self.order.append("carry"),
                log=log,
                taken=lambda event, state: self.taken.append(event),
                on_crash=lambda event, error: self.crashes.append(event),
            )

        def give(self, event) -> None:
            self.loop.post(event)
            self.loop.step()

    return World()


EXIT = Exited(instance="n/w", slot="a", launch_id="1", code=1)


def test_records_are_on_the_disk_before_anything_else_happens(world):
    world.give(EXIT)
    assert world.order == ["persist", "carry"]
    assert world.taken == [EXIT]
    assert world.loop.state == (EXIT,)


@pytest.mark.parametrize(("error", "kind"), [(Full("x", "y"), "full"), (ReadOnly("x", "y"), "read-only"), (Damaged("x", "y"), "damaged")])
def test_nothing_happens_when_the_disk_takes_nothing(world, error, kind):
    world.disk.error = error
    world.give(EXIT)
    assert world.order == ["carry"]  # of StorageFailed itself
    assert [type(each) for each in world.loop.state] == [StorageFailed]
    assert world.loop.state[0].kind == kind == storage_kind(error)
    assert EXIT not in world.taken


def test_the_event_comes_again_and_the_engine_hears_of_the_recovery(world, clock):
    world.disk.error = Full("x", "y")
    world.give(EXIT)
    world.give(Heartbeat(instance="n/w"))  # goes on meanwhile
    assert Heartbeat(instance="n/w") in world.taken
    clock.time += 0.5
    world.loop._patience = lambda: 0.001
    world.loop.step()
    assert world.engine.offered.count(EXIT) == 1  # too early
    clock.time += 1.0
    world.loop.step()
    assert world.engine.offered.count(EXIT) == 2  # still full
    clock.time += 1.5
    world.loop.step()
    assert world.engine.offered.count(EXIT) == 2  # the interval has doubled
    world.disk.error = None
    clock.time += 1.0
    world.loop.step()
    assert world.taken[-2:] == [EXIT, StorageRecovered()]
    assert sum(isinstance(each, StorageFailed) for each in world.engine.offered) == 1


def test_only_the_newest_document_waits_for_the_disk(world, clock):
    world.disk.error = Full("x", "y")
    for n in range(5):
        world.give(desired(n))
    world.give(desired(1, device="other"))
    world.disk.error = None
    world.loop._patience = lambda: 0.001
    clock.time += 100
    world.loop.step()
    assert [each for each in world.taken if isinstance(each, Desired)] == [desired(4), desired(1, device="other")]


def test_what_waits_for_the_disk_is_offered_before_the_engine_hears_that_it_recovered(world):
    world.disk.error = Full("x", "y")
    world.give(desired(1))
    world.disk.error = None
    world.give(EXIT)
    assert [type(each) for each in world.engine.offered] == [Desired, StorageFailed, Exited, Desired, StorageRecovered]
    assert world.loop._turns.deferred == ()


def test_what_waits_for_the_disk_goes_on_waiting_where_it_fails_again(world):
    world.disk.error = Full("x", "y")
    world.give(desired(1))
    world.give(EXIT)
    tries = iter([None, None, Full("x", "y")])

    def persist(_records):
        error = next(tries)
        if error is not None:
            raise error

    world.loop.persist = persist
    world.give(Exited(instance="n/w", slot="a", launch_id="2", code=2))
    assert [type(each) for each in world.loop._turns.deferred] == [Exited]
    assert type(world.engine.offered[-1]) is StorageFailed


def test_what_waits_is_bounded(world, clock, log):
    world.disk.error = Full("x", "y")
    for code in range(1100):
        world.give(Exited(instance="n/w", slot="a", launch_id=str(code), code=code))
    assert len(world.loop._turns.deferred) == 1000
    assert world.loop._turns.deferred[-1].code == 1099


def test_a_tick_comes_when_it_was_asked_for(world, clock):
    world.engine.wake = clock.time + 0.05
    world.loop._patience = lambda: 0.001
    world.loop.step()
    assert world.engine.offered == []
    clock.time += 0.06
    world.loop.step()
    assert world.engine.offered == [Tick()]


def test_waiting_is_as_long_as_the_engine_said(world, clock):
    assert world.loop._patience() is None
    world.engine.wake = clock.time + 7.0
    world.loop._turns.look_again()
    assert world.loop._patience() == pytest.approx(7.0)
    world.engine.wake = clock.time - 7.0
    world.loop._turns.look_again()
    assert 0 < world.loop._patience() < 0.1


def test_a_defect_in_the_engine_ends_nothing(world):
    world.engine.broken = (ContactChanged,)
    event = ContactChanged(online=True, last_contact=0)
    world.give(event)
    world.give(EXIT)
    assert world.crashes == [event]
    assert world.loop.state == (EXIT,)


def test_stop_wakes_a_waiting_loop(world):
    thread = threading.Thread(target=world.loop.step)
    thread.start()
    world.loop.stop()
    thread.join(2)
    assert not thread.is_alive()
    assert world.engine.offered == []
