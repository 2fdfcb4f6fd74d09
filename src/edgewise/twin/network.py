"""The way between devices and the control plane: latency, loss, a site's shared bandwidth, duplicates, partitions, captive portals.

What is modelled are messages, not packets: a request that is lost is sent again by TCP, so it comes later; when that fails several times
in a row the connection breaks, and the other end has acted or not. Bytes are counted per site with what HTTP, TLS and TCP add.
"""

from collections.abc import Callable, Iterable
from typing import Literal

from edgewise.twin.connections import LIMITS, Caller, Connection, NetworkLimits, Server
from edgewise.twin.fleet import LinkQuality
from edgewise.twin.kernel import Kernel, Stream
from edgewise.twin.link import Outcome, Request
from edgewise.twin.pipe import Pipe

__all__ = ["LIMITS", "Caller", "DeviceLink", "Direction", "Network", "NetworkLimits", "Server", "SiteLink"]

Direction = Literal["both", "up", "down"]


class SiteLink:
    """A site's link and what went over it, in bytes."""

    __slots__ = ("down_bytes", "name", "pipe", "quality", "up_bytes")

    def __init__(self, name: str, quality: LinkQuality, pipe: Pipe) -> None:
        self.name = name
        self.quality = quality
        self.pipe = pipe
        self.up_bytes = 0
        self.down_bytes = 0


class DeviceLink:
    """One device's way to the control plane (a `link.Link`)."""

    __slots__ = (
        "_stream",
        "dark",
        "device",
        "downs",
        "held",
        "network",
        "open",
        "outages",
        "pipe",
        "portals",
        "quality",
        "site",
        "ups",
        "warm",
    )

    def __init__(self, network: "Network", device: str, site: SiteLink, stream: Stream) -> None:
        self.network = network
        self.device = device
        self.site = site
        self.quality = site.quality
        self.pipe = site.pipe
        self._stream = stream
        self.warm = -1.0
        self.ups = self.downs = self.portals = 0
        self.outages = 0
        """How often the connection was cut so far: what was planned in one outage is void after it."""
        self.dark = False
        """The device lost its power: its connections end without a word."""
        self.open: list[Connection] = []
        """Polls that the control plane holds."""
        self.held: list[tuple[float, Callable[[], None]]] = []
        """What goes on when the link is whole again, and until when it may."""

    @property
    def blocked(self) -> bool:
        """Whether nothing gets through in one direction at least."""
        return bool(self.ups or self.downs or self.portals)

    def send(self, request: Request, done: Callable[[Outcome], None]) -> "Connection":
        """See `link.Link`."""
        exchange = Connection(self, request, done)
        exchange.begin()
        return exchange

    def delay(self, size: int, *, up: bool) -> tuple[float, bool]:
        """Return after how many seconds a message is there, or, when it breaks on the way, that and True."""
        quality, stream, limits = self.quality, self._stream, self.network.limits
        seconds = self.pipe.queue(size, up=up) + quality.latency_seconds
        if quality.jitter_seconds:
            seconds += quality.jitter_seconds * stream.unit()
        if quality.reordering and stream.chance(quality.reordering):
            seconds += stream.uniform(0.0, limits.reorder_seconds)
        if quality.loss:
            losses = 0
            while stream.chance(quality.loss):
                losses += 1
                if losses == limits.losses_max:
                    break
            if losses:
                seconds += limits.retransmit_seconds * (2.0**losses - 1.0)
                return seconds, losses == limits.losses_max
        return seconds, False

    def copies(self) -> float | None:
        """Return after how many seconds the same request comes again, or None."""
        duplication = self.quality.duplication
        return (
            self._stream.uniform(0.0, self.network.limits.duplicate_seconds) if duplication and self._stream.chance(duplication) else None
        )

    def late(self) -> float | None:
        """Return how late the copy is when it comes after the answer, or None when the copy's answer is the one that counts."""
        return self._stream.uniform(0.0, self.network.limits.late_seconds) if self._stream.chance(0.5) else None

    def breaks_at(self, size: int) -> float | None:
        """Return after how many bytes a download breaks, or None."""
        if not self.quality.loss:
            return None
        likely = 1.0 - (1.0 - self.quality.loss) ** (size / self.network.limits.fragile_bytes)
        return self._stream.uniform(0.0, size) if self._stream.chance(likely) else None

    def hold(self, seconds: float, call: Callable[[], None]) -> None:
        """Do `call` once the link is whole again, if that is within `seconds`."""
        self.held.append((self.network.kernel.now + seconds, call))


class Network:
    """All links of a run. `server` is the control plane."""

    def __init__(self, kernel: Kernel, server: Server, limits: NetworkLimits = LIMITS) -> None:
        self.kernel = kernel
        self.server = server
        self.limits = limits
        self.sites: dict[str, SiteLink] = {}
        self.links: dict[str, DeviceLink] = {}
        self._changed: dict[str, list[tuple[int, LinkQuality, Pipe]]] = {}

    def add_site(self, name: str, quality: LinkQuality) -> None:
        """Lay a site's link."""
        self.sites[name] = SiteLink(name, quality, Pipe(self.kernel, quality.bandwidth))

    def add_device(self, device: str, site: str) -> DeviceLink:
        """Connect a device, and return its link. Raises `KeyError` for an unknown site."""
        link = self.links[device] = DeviceLink(self, device, self.sites[site], self.kernel.stream("link", device))
        return link

    def bytes_by_site(self) -> dict[str, int]:
        """Return what went over each site's link, both ways."""
        return {name: site.up_bytes + site.down_bytes for name, site in self.sites.items()}

    def cut(self, devices: Iterable[str], direction: Direction) -> None:
        """Begin a partition. Partitions of one device add up."""
        for link in self._links(devices):
            before = link.blocked
            link.ups += direction in ("both", "up")
            link.downs += direction in ("both", "down")
            if not before:
                self._silence(link)

    def mend(self, devices: Iterable[str], direction: Direction) -> None:
        """End a partition that `cut` began."""
        for link in self._links(devices):
            link.ups -= direction in ("both", "up")
            link.downs -= direction in ("both", "down")
            self._perhaps_whole(link)

    def portal(self, devices: Iterable[str], *, on: bool) -> None:
        """Put a captive portal before devices, or take it away."""
        for link in self._links(devices):
            before = link.blocked
            link.portals += 1 if on else -1
            if on and not before:
                self._silence(link)
            elif not on:
                self._perhaps_whole(link)

    def change(self, number: int, devices: Iterable[str], quality: LinkQuality) -> None:
        """Give links another quality; those of one site share its bandwidth. `number` names the change."""
        pipes: dict[str, Pipe] = {}
        for link in self._links(devices):
            pipe = pipes.get(link.site.name)
            if pipe is None:
                pipe = pipes[link.site.name] = Pipe(self.kernel, quality.bandwidth)
            self._changed.setdefault(link.device, []).append((number, quality, pipe))
            link.quality, link.pipe = quality, pipe

    def restore(self, number: int, devices: Iterable[str]) -> None:
        """End the change of that number."""
        for link in self._links(devices):
            left = self._changed[link.device] = [each for each in self._changed.get(link.device, ()) if each[0] != number]
            if left:
                _, link.quality, link.pipe = left[-1]
            else:
                link.quality, link.pipe = link.site.quality, link.site.pipe

    def _links(self, devices: Iterable[str]) -> list[DeviceLink]:
        return [self.links[name] for name in devices if name in self.links]

    def _silence(self, link: DeviceLink) -> None:
        for exchange in list(link.open):
            exchange.cut()

    def _perhaps_whole(self, link: DeviceLink) -> None:
        if link.blocked:
            return
        link.outages += 1
        held, link.held = link.held, []
        for until, call in held:
            if until > self.kernel.now:
                self.kernel.after(link.quality.latency_seconds, call)
        for exchange in list(link.open):
            exchange.whole()
