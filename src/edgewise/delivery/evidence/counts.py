"""Rates of rare events (crashes, errors), exact at every count.

Of the events of a block, given how many there were on both sides, each is of the new side with probability r n / (r n + o), where n and o
are the exposures (requests, device-hours) and r the ratio of the rates (Lindon, Sanden & Shirikian 2022 for Poisson processes, where time
may change the rate of both sides alike). Against r = `null` each block is bet on with the r that was estimated before it, so the product
of the likelihood ratios is an e-value, even where the exposures change from block to block.
"""

import math

import msgspec


class Rates(msgspec.Struct, frozen=True, array_like=True):
    """The state: events and exposures of both sides so far, and the logarithm of the e-value against "the new rate is at most `null` times
    the old one"."""

    null: float = 1.0
    new_events: float = 0.0
    old_events: float = 0.0
    new_exposure: float = 0.0
    old_exposure: float = 0.0
    log_e: float = 0.0


def with_block(state: Rates, new: tuple[float, float], old: tuple[float, float]) -> Rates:
    """Return the state after one block: `new` and `old` are (events, exposure). A block without exposure on either side says nothing."""
    (new_events, new_exposure), (old_events, old_exposure) = new, old
    log = state.log_e
    if new_exposure > 0 and old_exposure > 0:
        # Only ratios above the null are bet on: below it, the e-value stays valid for "at most" because it does not grow there.
        ratio = max(state.null, _ratio(state))
        share, null = (each * new_exposure / (each * new_exposure + old_exposure) for each in (ratio, state.null))
        log += new_events * math.log(share / null) + old_events * math.log((1 - share) / (1 - null))
    return Rates(
        state.null,
        state.new_events + new_events,
        state.old_events + old_events,
        state.new_exposure + new_exposure,
        state.old_exposure + old_exposure,
        log,
    )


def _ratio(state: Rates) -> float:
    """Return the ratio of the rates so far, drawn towards the null by one event."""
    if state.new_exposure <= 0 or state.old_exposure <= 0:
        return state.null
    expected = state.null * state.new_exposure / (state.null * state.new_exposure + state.old_exposure)
    new, old = state.new_events + expected, state.old_events + 1 - expected
    return (new / state.new_exposure) / (old / state.old_exposure)
