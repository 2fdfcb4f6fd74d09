"""What a lane of the outbox counts and writes down."""

import msgspec


class LaneState(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """What a lane writes down beside its items. `last` is the last number given, `ceiling` the last one that may be sent; `clean`: written
    at an end after which nothing more was sent."""

    mark: int = 0
    acknowledged: int = 0
    dropped: int = 0
    skipped: int = 0
    last: int = 0
    ceiling: int = 0
    clean: bool = False


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
