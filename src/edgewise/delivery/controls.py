"""Which devices a wave is compared with: the most like its members among those that run the revision before."""

from collections.abc import Iterable

import msgspec


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A device as a comparison sees it."""

    device: str
    device_class: str
    site: str


def choose_controls(members: Iterable[Place], others: Iterable[Place], most: int) -> tuple[str, ...]:
    """Return at most `most` of `others`, by name: of the members' class and site first, then of their class, then of their sites, then
    any. Where some share a class with a member, only those are chosen: what differs by its make says little."""
    chosen = list(members)
    classes, sites = {place.device_class for place in chosen}, {place.site for place in chosen}
    both = {(place.device_class, place.site) for place in chosen}

    def rank(place: Place) -> int:
        if (place.device_class, place.site) in both:
            return 0
        return 1 if place.device_class in classes else 2 if place.site in sites else 3

    ranked = sorted((rank(place), place.device) for place in others)
    alike = [device for distance, device in ranked if distance < 2]
    return tuple(sorted((alike or [device for _, device in ranked])[:most]))
