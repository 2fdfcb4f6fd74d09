"""Finds a shorter way to the same failure: delta debugging (Zeller & Hildebrandt, 2002) over the faults of a plan, then over its acts.

shrink(plan, fails, budget) -> Plan, which still fails; replay_command(plan) -> the one command that shows it
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from edgewise.twin.chaos import chaos_plan
from edgewise.twin.plan import Act, Plan
from edgewise.twin.schedule import kept, schedule

__all__ = ["kept_acts", "replay_command", "shrink", "with_acts"]

_NUMBERS_MAX: Final = 2_000
"""A command names at most so many faults; longer than that nobody reads or types it."""


def shrink(plan: Plan, fails: Callable[[Plan], bool], budget: int = 200) -> Plan:
    """Return a plan that still fails, with as few faults and acts as were found in at most `budget` runs: taking away any single one more
    would have let it pass, unless the budget ended before. `plan` is known to fail; `fails` must answer the same for the same plan.
    """
    tries = _Tries(fails, budget)
    numbers = [fault.number for fault in kept(schedule(plan.scenario, plan.fleet, plan.seed), plan.only)]

    def with_faults(chosen: Sequence[int]) -> Plan:
        return msgspec.structs.replace(plan, only=tuple(chosen))

    numbers = [] if tries.fails(with_faults(())) else _smallest(numbers, lambda chosen: tries.fails(with_faults(chosen)))
    smaller = with_faults(numbers)

    def with_some(chosen: Sequence[int]) -> Plan:
        return with_acts(smaller, tuple(chosen))

    acts = _smallest(list(range(1, len(plan.acts) + 1)), lambda chosen: tries.fails(with_some(chosen)))
    fewer = with_some(acts)
    if len(acts) < len(plan.acts) and len(numbers) > 1:
        # With less going on, fewer faults may do.
        numbers = _smallest(numbers, lambda chosen: tries.fails(msgspec.structs.replace(fewer, only=tuple(chosen))))
    return msgspec.structs.replace(fewer, only=tuple(numbers))


def with_acts(plan: Plan, numbers: Sequence[int]) -> Plan:
    """Return the plan with those of its acts only; they count from 1."""
    wanted = frozenset(numbers)
    return msgspec.structs.replace(plan, acts=tuple(act for number, act in enumerate(plan.acts, start=1) if number in wanted))


def replay_command(plan: Plan) -> str:
    """Return the command that makes the run of a chaos plan again. What was left out of what the seed gives is named."""
    words = ["edgewise", "simulate", "--chaos", "--seed", str(plan.seed)]
    if plan.only is not None and len(plan.only) <= _NUMBERS_MAX:
        words += ["--only", ",".join(map(str, plan.only)) or "none"]
    acts = kept_acts(plan)
    if acts is not None:
        words += ["--acts", ",".join(map(str, acts)) or "none"]
    return " ".join(words)


def kept_acts(plan: Plan) -> tuple[int, ...] | None:
    """Return the numbers of the acts that are left of those that a chaos plan's seed gives; None: all of them."""
    return _positions(plan.acts, chaos_plan(plan.seed).acts)


def _positions(left: Sequence[Act], whole: Sequence[Act]) -> tuple[int, ...] | None:
    if len(left) == len(whole):
        return None
    found: list[int] = []
    start = 0
    for act in left:
        while start < len(whole) and whole[start] != act:
            start += 1
        if start == len(whole):
            return None
        found.append(start + 1)
        start += 1
    return tuple(found)


class _Tries:
    """Asks whether a plan fails, at most so often, and never twice for the same plan."""

    def __init__(self, fails: Callable[[Plan], bool], budget: int) -> None:
        self._fails = fails
        self._left = budget
        self._known: dict[bytes, bool] = {}

    def fails(self, plan: Plan) -> bool:
        key = msgspec.msgpack.encode((plan.only, plan.acts))
        if key in self._known:
            return self._known[key]
        if self._left <= 0:
            return False
        self._left -= 1
        answer = self._known[key] = self._fails(plan)
        return answer


def _smallest(numbers: list[int], fails: Callable[[list[int]], bool]) -> list[int]:
    """Return a part of `numbers` that fails and of which no single one can be left out (ddmin)."""
    parts = 2
    while len(numbers) >= 2:
        size = -(-len(numbers) // parts)
        chunks = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        chunk = next((chunk for chunk in chunks if fails(chunk)), None)
        if chunk is not None:
            numbers, parts = chunk, 2
            continue
        rest = None
        if len(chunks) > 2:
            rest = next((left for chunk in chunks if fails(left := [number for number in numbers if number not in chunk])), None)
        if rest is not None:
            numbers, parts = rest, max(parts - 1, 2)
        elif size == 1:
            break
        else:
            parts = min(len(numbers), 2 * parts)
    if len(numbers) == 1 and fails([]):
        return []
    return numbers
