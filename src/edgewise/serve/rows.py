"""Whether a model answers each row of its inputs by itself, so that requests may be put together."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from edgewise.serve.tensors import KINDS, Array, TensorSpec

_ROWS_TRIED: Final = 3
_RELATIVE: Final = 1e-3
_ABSOLUTE: Final = 1e-5


def can_be_tried(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> bool:
    """Whether a model's shapes let rows be put together: every first dimension is free, and every input a number."""
    free = all(spec.shape[:1] == (-1,) for spec in (*inputs, *outputs))
    return free and bool(inputs) and all(spec.datatype != "BYTES" for spec in inputs)


def sample(spec: TensorSpec, free: int) -> Array:
    """Return a few random rows that fit `spec`, the same ones each time. Other free dimensions are `free`."""
    shape = (_ROWS_TRIED, *(free if size < 0 else size for size in spec.shape[1:]))
    drawn, kind = np.random.default_rng(len(spec.name)).random(shape), KINDS[spec.datatype]
    return (drawn if kind.element is float else drawn.round()).astype(kind.wide)


def is_the_same(together: Sequence[Array], alone: Sequence[Sequence[Array]]) -> bool:
    """Whether the outputs of rows that ran together are those of the rows alone, up to rounding."""
    for at, array in enumerate(together):
        rows = [outputs[at] for outputs in alone]
        if array.ndim < 1 or array.shape[0] != len(rows) or any(row.shape != (1, *array.shape[1:]) for row in rows):
            return False
        one = np.concatenate(rows)
        same = np.array_equal(one, array) if array.dtype.kind != "f" else np.allclose(one, array, _RELATIVE, _ABSOLUTE, equal_nan=True)
        if not same:
            return False
    return True
