"""Virtual time and seeded chance: the heart of every run.

Calls happen in the order of their time, and in the order in which they were asked for where the time is the same. Every component draws
from a stream of its own, so that one draw more in one place changes nothing elsewhere.
"""

import gc
import heapq
from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

__all__ = ["EPOCH", "Kernel", "Stream", "Ticket", "Trace"]

EPOCH: Final = 1_800_000_000.0
"""The true wall clock at the start of every run, seconds since 1970."""

_push = heapq.heappush
_SLOTS_PER_SECOND: Final = 16.0
_MASK: Final = (1 << 64) - 1
_COLLECTED_AFTER: Final = (50_000, 20, 50)
_UNIT: Final = 1 << 53
_TAIL: Final = 200


class Stream:
    """One component's randomness: SplitMix64 (Steele, Lea & Flood, 2014), small enough for a hundred thousand devices. It is a
    `ports.Randomness`; nothing secret comes from it."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def begin_anew(self, seed: int) -> None:
        """Go on as a fresh stream of that seed."""
        self._state = seed & _MASK

    def bits(self) -> int:
        """Return the next 64 bits."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        mixed = self._state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return mixed ^ (mixed >> 31)

    def unit(self) -> float:
        """Return a number in [0, 1)."""
        self._state = mixed = (self._state + 0x9E3779B97F4A7C15) & _MASK  # as in `bits`, which this saves a call
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((mixed ^ (mixed >> 31)) >> 11) / _UNIT

    def uniform(self, low: float, high: float) -> float:
        """Return a number in [low, high]."""
        return low + (high - low) * self.unit()

    def below(self, count: int) -> int:
        """Return a whole number in [0, count)."""
        return self.bits() % count

    def chance(self, probability: float) -> bool:
        """Return whether something with this probability happens."""
        return probability > 0 and self.unit() < probability

    def token(self, size: int) -> bytes:
        """Return `size` bytes."""
        return b"".join(self.bits().to_bytes(8, "big") for _ in range((size + 7) // 8))[:size]


class Trace:
    """What happened, in order, as a running hash and its last lines. Two runs are the same when their hashes are."""

    __slots__ = ("_hash", "count", "sink", "tail")

    def __init__(self, sink: Callable[[str], None] | None = None) -> None:
        self._hash = blake2b(digest_size=16)
        self.count = 0
        self.tail: deque[str] = deque(maxlen=_TAIL)
        self.sink = sink

    def add(self, line: str) -> None:
        """Note one thing. `line` must depend on nothing but the plan and the seed."""
        self.count += 1
        self._hash.update(f"{line}\n".encode())
        self.tail.append(line)
        if self.sink is not None:
            self.sink(line)

    def hash(self) -> str:
        """Return the hash of everything so far, in hexadecimal."""
        return self._hash.hexdigest()


class Ticket:
    """A call that was asked for."""

    __slots__ = ("at", "call")

    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at = at
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Do not call it any more. Harmless when it was called already."""
        self.call = None


_Planned = tuple[float, int, Ticket]


class Kernel:
    """The clock, the queue of what is to happen, and where chance comes from. `now` is seconds since the run's start."""

    def __init__(self, seed: int, sink: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.now = 0.0
        self.trace = Trace(sink)
        self.called = 0
        self._near: list[_Planned] = []
        """A heap of what comes in the present slot of time, or before."""
        self._slot = 0
        self._far: dict[int, list[_Planned]] = {}
        """What comes later, by its slot and in no order: it is put in order when its time has come."""
        self._slots: list[int] = []
        """A heap of those slots."""
        self._order = 0
        self._streams: list[tuple[Stream, tuple[str | int, ...]]] = []

    @property
    def wall(self) -> float:
        """The true wall clock, seconds since 1970. Devices' own clocks may be wrong."""
        return EPOCH + self.now

    def stream(self, *names: str | int) -> Stream:
        """Return the stream of the component of that name: the same for the same seed and name, whatever else draws. For what is kept:
        it goes on with another seed when the run does."""
        stream = Stream(_seed_of(self.seed, names))
        self._streams.append((stream, names))
        return stream

    def drawn(self, *names: str | int) -> Stream:
        """Return a stream that is drawn from now and not kept."""
        return Stream(_seed_of(self.seed, names))

    def reseed(self, seed: int) -> None:
        """Let all chance come from another seed from now on."""
        self.seed = seed
        for stream, names in self._streams:
            stream.begin_anew(_seed_of(seed, names))

    def at(self, time: float, call: Callable[[], None]) -> Ticket:
        """Call `call` at `time`, or at once when that is past."""
        return self._plan(max(self.now, time), call)

    def after(self, seconds: float, call: Callable[[], None]) -> Ticket:
        """Call `call` in `seconds`."""
        return self._plan(self.now + seconds if seconds > 0.0 else self.now, call)

    def _plan(self, at: float, call: Callable[[], None]) -> Ticket:
        self._order = order = self._order + 1
        ticket = Ticket(at, call)
        slot = int(at * _SLOTS_PER_SECOND)
        if slot <= self._slot:
            _push(self._near, (at, order, ticket))
            return ticket
        far = self._far.get(slot)
        if far is not None:
            far.append((at, order, ticket))
        else:
            self._far[slot] = [(at, order, ticket)]
            _push(self._slots, slot)
        return ticket

    def note(self, kind: str, subject: str, text: str = "") -> None:
        """Add a line to the trace, dated with microseconds."""
        self.trace.add(f"{self.now:.6f} {kind} {subject} {text}")

    def run(self, until: float) -> None:
        """Make all calls up to `until`. Next to nothing of what they make is in cycles: these are looked for more seldom meanwhile."""
        usual = gc.get_threshold()
        gc.set_threshold(*_COLLECTED_AFTER)
        try:
            self._run(until)
        finally:
            gc.set_threshold(*usual)

    def _run(self, until: float) -> None:
        near, slots, pop = self._near, self._slots, heapq.heappop
        last = int(until * _SLOTS_PER_SECOND)
        while True:
            if not near:
                if not slots or slots[0] > last:
                    break
                self._slot = pop(slots)
                near += self._far.pop(self._slot)
                heapq.heapify(near)
            if near[0][0] > until:
                break
            at, _, ticket = pop(near)
            call = ticket.call
            if call is not None:
                self.now = at
                ticket.call = None
                self.called += 1
                call()
        self.now = max(self.now, until)


def _seed_of(seed: int, names: tuple[str | int, ...]) -> int:
    text = "\0".join(map(str, (seed, *names)))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")
