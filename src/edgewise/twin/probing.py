"""Probes whose answers are known: in large fleets they are not asked again and again.

The answer to such a probe is left open, as if the probe took long: to one that passes until something happens to its process, and to one
that fails until its process has loaded. It is given when an answer would be another one, at the time at which the engine would have asked.
"""

import math

from edgewise.engine.limits import EngineLimits
from edgewise.engine.model import SlotView
from edgewise.engine.protocol import RunProbe
from edgewise.twin.workloads import Process

__all__ = ["Held"]


class Held:
    """One probe that was asked at `at` (the kernel's time)."""

    __slots__ = ("at", "effect", "process")

    def __init__(self, effect: RunProbe, process: Process, at: float) -> None:
        self.effect, self.process, self.at = effect, process, at

    def passes(self, now: float, *, waited_for: bool) -> bool:
        """Whether it passes, and nobody waits to hear that."""
        known = self.effect.kind == "liveness" or (self.effect.kind == "readiness" and not waited_for)
        return known and not self.process.turned_at and self.process.steady(now)

    def fails(self, now: float) -> bool:
        """Whether it fails because the process is still loading."""
        process = self.process
        return self.effect.kind == "start" and process.well and now < process.loads_at and process.behaviour.fails == ""

    def loaded_after(self, now: float, slot: SlotView, limits: EngineLimits) -> float:
        """Return in how many seconds the engine would ask for the first time after the process has loaded: ever more slowly, up to the
        probe's period (`engine.probes.answered`)."""
        period, tries, at = self.effect.probe.period_seconds, slot.probes[self.effect.kind].tries, now
        while at < self.process.loads_at:
            at += min(period, limits.probe_first_seconds * 2.0 ** min(tries, 30))
            tries += 1
        return at - now

    def next_after(self, now: float) -> float:
        """Return in how many seconds it would be asked again, a period after the other."""
        period = self.effect.probe.period_seconds
        return max(0.0, self.at + math.ceil((now - self.at) / period) * period - now)
