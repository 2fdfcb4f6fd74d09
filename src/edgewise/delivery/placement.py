"""Where a workload runs: filter, choice of variant, rank.

`judge` answers for one device, in words when it is a no; `pick` chooses among those that can. What already runs is only asked whether it
may stay (`must_leave`): nothing moves because something else became a little better.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from edgewise.delivery.facts import Attributes, Demand, DeviceFacts, Room, VariantFacts, demand_of
from edgewise.delivery.variants import amount, meets, unmet_requirement
from edgewise.resources.device import Capacity
from edgewise.resources.selector import Selector, unmet
from edgewise.resources.workload import Peripheral, Resources

_KNOWN_MAX: Final = 1_000


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be placed. `variants` are ranked, the preferred first. `connected`: new instances go to devices that are heard from
    only (replicas; an instance on every device waits for a silent one)."""

    selector: Selector
    resources: Resources
    peripherals: tuple[Peripheral, ...]
    variants: tuple[VariantFacts, ...]
    demands: tuple[Demand, ...]
    connected: bool
    known: dict[int, tuple[Capacity, tuple[int, ...]]] = {}
    """Which variants devices of a capacity run, by the capacity's identity: devices of one make share it."""


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A device that can run it, with which variant (`rank` counts from the preferred one), and what that would take."""

    device: str
    variant: str
    rank: int
    demand: Demand


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """A device that cannot, and why, in words with numbers."""

    device: str
    reason: str


def request_of(
    selector: Selector, resources: Resources, peripherals: tuple[Peripheral, ...], variants: tuple[VariantFacts, ...], *, connected: bool
) -> Request:
    """Return the request for ranked `variants`."""
    demands = tuple(demand_of(resources, peripherals, variant) for variant in variants)
    return Request(selector=selector, resources=resources, peripherals=peripherals, variants=variants, demands=demands, connected=connected)


def must_leave(selector: Selector, facts: DeviceFacts) -> str | None:
    """Return why an instance that runs on a device may not stay there, or None."""
    if facts.leaving:
        return "the device is being decommissioned"
    return unmet(selector, Attributes(facts)) if selector.match_labels or selector.match_expressions else None


def offer_for(request: Request, facts: DeviceFacts, room: Room) -> Offer | None:
    """Return what `judge` does, without the words: None for a no."""
    if facts.leaving or facts.unschedulable or (request.connected and not facts.online):
        return None
    return None if must_leave(request.selector, facts) is not None else fitting(request, facts, room)


def judge(request: Request, facts: DeviceFacts, room: Room) -> Offer | Rejected:
    """Return whether a device can take a new instance, and in which form."""
    reason = must_leave(request.selector, facts)
    if reason is None and facts.unschedulable:
        reason = "the device takes no new instances (unschedulable)"
    if reason is None and request.connected and not facts.online:
        reason = "the device is not connected"
    if reason is not None:
        return Rejected(device=facts.name, reason=reason)
    offer = fitting(request, facts, room)
    if offer is not None:
        return offer
    reasons = (
        f"variant {variant.name}: {unmet_requirement(variant.requirements, facts.capacity) or shortage(demand, facts, room)}"
        for variant, demand in zip(request.variants, request.demands, strict=True)
    )
    return Rejected(device=facts.name, reason="; ".join(reasons) or "the version has no variants")


def fitting(request: Request, facts: DeviceFacts, room: Room) -> Offer | None:
    """Return the first variant that runs on a device and has room there."""
    for rank in _runnable(request, facts.capacity):
        demand = request.demands[rank]
        if has_room(demand, facts, room):
            return Offer(device=facts.name, variant=request.variants[rank].name, rank=rank, demand=demand)
    return None


def _runnable(request: Request, capacity: Capacity) -> tuple[int, ...]:
    known = request.known.get(id(capacity))
    # The capacity is kept beside the answer, so its identity is not given to another one meanwhile.
    if known is not None and known[0] is capacity:
        return known[1]
    if len(request.known) >= _KNOWN_MAX:
        request.known.clear()
    ranks = tuple(rank for rank, variant in enumerate(request.variants) if meets(variant.requirements, capacity))
    request.known[id(capacity)] = (capacity, ranks)
    return ranks


def has_room(demand: Demand, facts: DeviceFacts, room: Room) -> bool:
    """Return whether a demand is free on a device; `shortage` says what is not."""
    if demand.cpu_milli > room.cpu_milli or demand.memory > room.memory or demand.disk > room.disk:
        return False
    return not demand.peripherals or shortage(demand, facts, room) is None


def shortage(demand: Demand, facts: DeviceFacts, room: Room) -> str | None:
    """Return what of a demand is not free on a device, in words with numbers, or None."""
    capacity = facts.capacity
    if demand.cpu_milli > room.cpu_milli:
        return f"cpu: needs {demand.cpu_milli}m, {max(0, room.cpu_milli)}m of {capacity.cpu_milli}m is free"
    if demand.memory > room.memory:
        return f"memory: needs {amount(demand.memory)}, {amount(max(0, room.memory))} of {amount(capacity.memory)} is free"
    if demand.disk > room.disk:
        return f"disk: needs {amount(demand.disk)}, {amount(max(0, room.disk))} of {amount(capacity.disk)} is free"
    return next((reason for peripheral in demand.peripherals if (reason := _unshared(peripheral, facts, room))), None)


def _unshared(peripheral: Peripheral, facts: DeviceFacts, room: Room) -> str | None:
    name, there = peripheral.name, facts.capacity.peripherals
    if name not in there:
        return f"peripheral {name} is not there (there: {', '.join(there) or 'none'})"
    if name in room.owned:
        return f"peripheral {name} belongs to another instance"
    if peripheral.access == "exclusive" and name in room.shared:
        return f"peripheral {name} is already used by another instance"
    return None


class _Head(msgspec.Struct, order=True):
    """The best offer left of one group of one variant rank: ordered by how full its domain and site are, then by the device itself."""

    rank: int
    domain_count: int
    site_count: int
    load: int
    device: str


def pick(
    offers: Iterable[Offer],
    need: int,
    *,
    place_of: Callable[[str], tuple[str, str]],
    load_of: Callable[[str], int],
    present: Mapping[tuple[str, str], int],
) -> list[Offer]:
    """Return at most `need` of `offers`: preferred variants first, then spread over failover domains and sites, then the least loaded,
    then by name. `place_of` gives a device's (domain, site), `load_of` its load in thousandths, `present` how many instances of this
    workload each (domain, site) has already."""
    sites: dict[tuple[str, str], int] = dict(present)
    domains: dict[str, int] = {}
    for (domain, _), count in present.items():
        domains[domain] = domains.get(domain, 0) + count
    groups: dict[tuple[int, str, str], list[tuple[int, str, Offer]]] = {}
    for offer in offers:
        groups.setdefault((offer.rank, *place_of(offer.device)), []).append((load_of(offer.device), offer.device, offer))
    heap: list[tuple[_Head, tuple[int, str, str]]] = []
    for group, members in groups.items():
        members.sort(key=lambda member: (member[0], member[1]), reverse=True)
        heap.append((_head(group, members, domains, sites), group))
    heapq.heapify(heap)
    picked: list[Offer] = []
    while heap and len(picked) < need:
        head, group = heap[0]
        _, domain, site = group
        members = groups[group]
        fresh = _head(group, members, domains, sites)
        if fresh != head:
            # Another group of the same domain grew meanwhile: put it back where it belongs now.
            heapq.heapreplace(heap, (fresh, group))
            continue
        picked.append(members.pop()[2])
        domains[domain] = domains.get(domain, 0) + 1
        sites[domain, site] = sites.get((domain, site), 0) + 1
        if members:
            heapq.heapreplace(heap, (_head(group, members, domains, sites), group))
        else:
            heapq.heappop(heap)
    return picked


def _head(
    group: tuple[int, str, str], members: list[tuple[int, str, Offer]], domains: Mapping[str, int], sites: Mapping[tuple[str, str], int]
) -> _Head:
    rank, domain, site = group
    load, device, _ = members[-1]
    return _Head(rank, domains.get(domain, 0), sites.get((domain, site), 0), load, device)


def load_of(facts: DeviceFacts, room: Room) -> int:
    """Return how full a device is, in thousandths of its scarcest resource, plus one for each instance."""
    capacity = facts.capacity
    fullest = 0
    for free, total in ((room.cpu_milli, capacity.cpu_milli), (room.memory, capacity.memory), (room.disk, capacity.disk)):
        if total > 0:
            fullest = max(fullest, (total - free) * 1000 // total)
    return fullest + room.instances


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """An instance that may be surplus. `failed`: it is broken or its revision is refused there."""

    device: str
    epoch: int
    ready: bool
    failed: bool
    crowd: int


def surplus(holders: list[Holder], replicas: int) -> list[str]:
    """Return which instances to stop so that `replicas` are left: the failed first, then the older epoch (the newer stays), then from
    the fullest domain, then by name. A ready one is only given up when enough ready ones are left."""
    order = sorted(holders, key=lambda holder: (not holder.failed, holder.epoch, holder.ready, -holder.crowd, holder.device))
    excess = len(holders) - replicas
    ready = sum(holder.ready for holder in holders)
    stopped: list[str] = []
    for holder in order:
        if len(stopped) >= excess:
            break
        if holder.ready and ready - 1 < replicas:
            # Wait until what replaces it is ready; what is only late must not be stopped for it.
            break
        ready -= holder.ready
        stopped.append(holder.device)
    return stopped
