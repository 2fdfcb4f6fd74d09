"""Filter, rank, surplus: over drawn fleets."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.delivery.facts import Attributes, Demand, DeviceFacts, room_less, room_of
from edgewise.delivery.placement import Holder, Offer, has_room, load_of, pick, shortage, surplus
from edgewise.resources.device import Capacity
from edgewise.resources.workload import Peripheral

NOTHING = Demand()


def offers_of(drawn):
    return [Offer(device=f"d{n:02}", variant="v", rank=rank, demand=NOTHING) for n, (rank, _, _) in enumerate(drawn)]


DRAWN = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=15)


@given(DRAWN, st.integers(0, 16), st.dictionaries(st.tuples(st.sampled_from(["s0", "s1", "s2"])), st.integers(0, 3)))
def test_pick_is_the_greedy_choice(drawn, need, before):
    """The heap gives what choosing the best one again and again gives."""
    offers = offers_of(drawn)
    site = {f"d{n:02}": f"s{site}" for n, (_, site, _) in enumerate(drawn)}
    load = {f"d{n:02}": load for n, (_, _, load) in enumerate(drawn)}
    present = {(name, name): count for (name,), count in before.items()}
    picked = pick(offers, need, place_of=lambda d: (site[d], site[d]), load_of=load.__getitem__, present=present)
    counts = Counter({name: count for (name, _), count in present.items()})
    left, expected = list(offers), []
    while left and len(expected) < need:
        best = min(left, key=lambda o: (o.rank, counts[site[o.device]], counts[site[o.device]], load[o.device], o.device))
        left.remove(best)
        counts[site[best.device]] += 1
        expected.append(best)
    assert picked == expected


@given(DRAWN, st.integers(1, 16))
def test_spread_over_domains(drawn, need):
    offers = [Offer(device=o.device, variant="v", rank=0, demand=NOTHING) for o in offers_of(drawn)]
    site = {f"d{n:02}": f"s{site}" for n, (_, site, _) in enumerate(drawn)}
    picked = pick(offers, need, place_of=lambda d: (site[d], site[d]), load_of=lambda _: 0, present={})
    taken, there = Counter(site[o.device] for o in picked), Counter(site.values())
    for one, count in taken.items():
        for other in there:
            # A domain has two more than another one only when that one has no device left.
            assert count <= taken[other] + 1 or taken[other] == there[other], (one, other)


def holder(device, epoch=1, ready=True, failed=False, crowd=0):
    return Holder(device=device, epoch=epoch, ready=ready, failed=failed, crowd=crowd)


def test_surplus_keeps_the_newer():
    assert surplus([holder("old"), holder("new", epoch=2)], 1) == ["old"]


def test_surplus_waits_for_the_newer_to_be_ready():
    assert surplus([holder("old"), holder("new", epoch=2, ready=False)], 1) == []


def test_surplus_gives_up_what_failed():
    assert surplus([holder("old"), holder("new", epoch=2, ready=False, failed=True)], 1) == ["new"]


def test_surplus_thins_the_crowd():
    assert surplus([holder("a", crowd=1), holder("b", crowd=2), holder("c", crowd=2)], 2) == ["b"]


@given(
    st.lists(st.tuples(st.integers(1, 3), st.booleans(), st.booleans(), st.integers(0, 2)), max_size=10),
    st.integers(0, 10),
)
def test_surplus_never_stops_too_many(drawn, replicas):
    holders = [holder(f"d{n}", epoch, ready and not failed, failed, crowd) for n, (epoch, ready, failed, crowd) in enumerate(drawn)]
    stopped = surplus(holders, replicas)
    assert len(stopped) <= max(0, len(holders) - replicas)
    ready = sum(h.ready for h in holders)
    left = sum(h.ready for h in holders if h.device not in stopped)
    assert left >= min(ready, replicas)


FACTS = DeviceFacts(
    name="d0",
    site="north",
    device_class="small",
    labels={"camera": "front", "site": "forged"},
    capacity=Capacity(cpu_milli=1000, memory=1000, disk=1000, architecture="arm", peripherals=("mic",), runtimes={"py": "3"}),
)


@pytest.mark.parametrize("field", ["cpu_milli", "memory", "disk"])
@pytest.mark.parametrize(("wanted", "fits"), [(399, True), (400, True), (401, False)])
def test_room_to_the_last_unit(field, wanted, fits):
    room = room_of(FACTS.capacity, (Demand(cpu_milli=600, memory=600, disk=600),))
    demand = Demand(**{field: wanted})
    assert (shortage(demand, FACTS, room) is None) == fits
    assert has_room(demand, FACTS, room) == fits
    if not fits:
        assert "400" in shortage(demand, FACTS, room)


@pytest.mark.parametrize(
    ("held", "wanted", "fits"),
    [
        ((), "read", True),
        ((), "exclusive", True),
        (("read",), "read", True),
        (("read",), "exclusive", False),
        (("exclusive",), "read", False),
    ],
)
def test_peripherals(held, wanted, fits):
    room = room_of(FACTS.capacity, tuple(Demand(peripherals=(Peripheral(name="mic", access=access),)) for access in held))
    assert (shortage(Demand(peripherals=(Peripheral(name="mic", access=wanted),)), FACTS, room) is None) == fits


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99)), max_size=6))
def test_room_step_by_step_is_room_at_once(drawn):
    demands = tuple(Demand(cpu_milli=cpu, memory=memory, disk=disk) for cpu, memory, disk in drawn)
    room = room_of(FACTS.capacity, ())
    for demand in demands:
        room = room_less(room, demand)
    assert room == room_of(FACTS.capacity, demands)
    assert load_of(FACTS, room) >= len(demands)


def test_attributes_are_built_in_first():
    attributes = Attributes(FACTS)
    assert dict(attributes) == {
        "camera": "front",
        "site": "north",
        "class": "small",
        "device": "d0",
        "capacity.cpu": "1000m",
        "capacity.memory": "1000",
        "capacity.disk": "1000",
        "capacity.architecture": "arm",
        "runtime.py": "3",
    }
    assert attributes.get("nope") is None
    assert attributes.get("nope", "x") == "x"
    assert len(attributes) == 9
    with pytest.raises(KeyError):
        attributes["runtime.nope"]
