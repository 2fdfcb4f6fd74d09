"""What a lane of the outbox counts and writes down."""

from collections.abc import Sequence
from typing import Final

import msgspec

ITEM: Final = 1
"""The kind of a frame that holds an item behind its number."""
STATE: Final = 2
"""The kind of a frame that holds what a lane counts."""
NUMBER_BYTES: Final = 8


class LaneState(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """What a lane writes down beside its items. `last` is the last number given, `ceiling` the last one that may be sent; `clean`: written
    at an end after which nothing more was sent."""

    mark: int = 0
    acknowledged: int = 0
    dropped: int = 0
    skipped: int = 0
    last: int = 0
    ceiling: int = 0
    clean: bool = False


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(LaneState)


def encoded(state: LaneState) -> bytes:
    """Return a state as it is written down."""
    return _ENCODER.encode(state)


def decoded(payload: bytes) -> LaneState:
    """Return what was written down. Raises one of `UNREADABLE`."""
    return _DECODER.decode(payload)


def numbered(number: int, payload: bytes) -> bytes:
    """Return an item as it is written down."""
    return number.to_bytes(NUMBER_BYTES, "little") + payload


def number_of(written: bytes) -> int:
    """Return the number of an item that was written down."""
    return int.from_bytes(written[:NUMBER_BYTES], "little")


class LaneCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a lane's items. `produced = acknowledged + held + dropped`."""

    produced: int
    acknowledged: int
    held: int
    dropped: int


class LaneRules(msgspec.Struct, frozen=True, kw_only=True):
    """How a lane is kept. `lazy`: its items are not synced before they are sent."""

    name: str
    use: int
    bytes_max: int
    lazy: bool = False


class Run(msgspec.Struct, kw_only=True, gc=False):
    """Consecutive items in one segment."""

    segment: int
    first: int
    last: int


class Pending(msgspec.Struct, frozen=True, gc=False):
    """An item that the disk has not taken yet."""

    number: int
    payload: bytes


def later(one: LaneState, other: LaneState) -> LaneState:
    """Return what two states say together: all their numbers only ever grow."""
    return LaneState(
        mark=max(one.mark, other.mark),
        acknowledged=max(one.acknowledged, other.acknowledged),
        dropped=max(one.dropped, other.dropped),
        skipped=max(one.skipped, other.skipped),
        last=max(one.last, other.last),
        ceiling=max(one.ceiling, other.ceiling),
        clean=other.clean,
    )


def after_start(state: LaneState, *, lazy: bool) -> LaneState:
    """Return from where to go on after a start that found `state`: above every number that may have been sent."""
    last, skipped = max(state.last, state.mark), state.skipped
    if state.ceiling > last and not state.clean:
        skipped += 0 if lazy else state.ceiling - last
        last = state.ceiling
    return msgspec.structs.replace(state, last=last, skipped=skipped, clean=False)


def without(state: LaneState, runs: Sequence[Run], pending: Sequence[Pending], up_to: int) -> LaneState:
    """Return what a lane counts once all that it holds up to a number is dropped."""
    lost = count(runs, pending, state.mark, up_to)
    return msgspec.structs.replace(state, mark=max(state.mark, up_to), dropped=state.dropped + lost)


def count(runs: Sequence[Run], pending: Sequence[Pending], above: int, up_to: int) -> int:
    """Return how many items are held whose number is above one and not above another."""
    held = sum(above < item.number <= up_to for item in pending) if pending else 0
    for run in runs:
        first, last = max(run.first, above + 1), min(run.last, up_to)
        if first <= last:
            held += last - first + 1
    return held


def note(runs: list[Run], segment: int, number: int) -> None:
    """Enter the item `number`, which stands behind all others, into the runs."""
    run = runs[-1] if runs else None
    if run is not None and run.segment == segment and run.last + 1 == number:
        run.last = number
    else:
        runs.append(Run(segment=segment, first=number, last=number))
