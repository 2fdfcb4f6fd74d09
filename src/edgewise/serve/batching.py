"""Requests that wait at the same time are run together, where that is known to change no answer.

Nothing waits for a batch to fill: what has come while the last inference ran makes the next one, as much of it as lately ran within
`batch_seconds_max`. That bound is found as TCP finds a window: it grows by a row while batches stay below it, and halves when one does not
(Chiu & Jain, "Analysis of the increase and decrease algorithms", 1989; Clipper, NSDI 2017, does the same for models).
"""

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from edgewise.serve.conversation import Request
from edgewise.serve.inference import Prepared
from edgewise.serve.limits import ServeLimits
from edgewise.serve.tensors import Array


class Turn(msgspec.Struct, frozen=True):
    """A request that is next: of connection `serial`, there since `since`, begun and `ready` to run (seconds, monotonic)."""

    serial: int
    request: Request
    prepared: Prepared
    since: float
    begun: float
    ready: float


_Kind = tuple[tuple[tuple[str, str, tuple[int, ...]], ...], tuple[str, ...]]


class Batches:
    """How many rows may run together now. `allowed`: whether the model answers each row by itself."""

    def __init__(self, limits: ServeLimits, *, allowed: bool) -> None:
        self._limits = limits
        self._allowed = allowed
        self._rows = 1

    @property
    def requests_max(self) -> int:
        """How many waiting requests are worth looking at."""
        return self._rows if self._allowed else 1

    def groups(self, turns: Iterable[Turn]) -> list[list[Turn]]:
        """Return the turns that run together, each of them once, the longest waiting first."""
        groups: list[list[Turn]] = []
        open_groups: dict[_Kind, tuple[list[Turn], int]] = {}
        for turn in turns:
            kind, rows = _kind(turn.prepared), turn.prepared.rows
            group, filled = open_groups.get(kind, ([], 0)) if kind is not None and self._allowed else ([], 0)
            if not group or filled + rows > self._rows:
                group, filled = [], 0
                groups.append(group)
            group.append(turn)
            if kind is not None:
                open_groups[kind] = group, filled + rows
        return groups

    def took(self, rows: int, seconds: float) -> None:
        """Take in how long a batch ran."""
        if seconds > self._limits.batch_seconds_max:
            self._rows = max(1, min(self._rows, rows) // 2)
        elif rows >= self._rows:
            self._rows = min(self._limits.batch_rows_max, self._rows + 1)


def joined(turns: Sequence[Turn]) -> dict[str, Array]:
    """Return the inputs of a group, one below the other."""
    if len(turns) == 1:
        return turns[0].prepared.inputs
    return {name: np.concatenate([turn.prepared.inputs[name] for turn in turns]) for name in turns[0].prepared.inputs}


def parted(arrays: Sequence[Array], turns: Sequence[Turn]) -> list[list[Array]] | None:
    """Return each turn's part of a group's outputs, or None when they do not have as many rows as the inputs."""
    if len(turns) == 1:
        return [list(arrays)]
    ends = np.cumsum([turn.prepared.rows for turn in turns])
    if any(array.ndim < 1 or array.shape[0] != ends[-1] for array in arrays):
        return None
    cuts = [np.split(array, ends[:-1]) for array in arrays]
    return [[cut[at] for cut in cuts] for at in range(len(turns))]


def _kind(prepared: Prepared) -> _Kind | None:
    """Return what must be alike for requests to run together, or None when this one runs alone."""
    rows = prepared.rows
    if any(array.ndim < 1 or array.shape[0] != rows for array in prepared.inputs.values()) or not rows:
        return None
    inputs = tuple((name, array.dtype.str, array.shape[1:]) for name, array in sorted(prepared.inputs.items()))
    return inputs, tuple(prepared.names)
