"""Outputs as their highest values, `VALUE:INDEX` each. Source: Triton's protocol extensions, "Classification"."""

import numpy as np

from edgewise.serve.tensors import KINDS, Array, TensorRefused, TensorSpec


def top_classes(spec: TensorSpec, array: Array, count: int) -> tuple[TensorSpec, Array]:
    """Return the `count` highest values of each row (of the whole output when it has one dimension), highest first, as BYTES. Raises
    `TensorRefused` when the output holds no numbers, or fewer."""
    if KINDS[spec.datatype].element not in {int, float} or spec.datatype == "BF16":
        raise TensorRefused(f"output {spec.name!r} is {spec.datatype}, which has no highest values")
    rows = array.reshape(1, -1) if array.ndim < 2 else array.reshape(array.shape[0], -1) if array.size else array.reshape(0, 0)
    if count > rows.shape[1]:
        raise TensorRefused(f"output {spec.name!r} has {rows.shape[1]} classes, not {count}")
    # Sorted from behind, so that of equal values the first comes first.
    best = rows.shape[1] - 1 - np.argsort(rows[:, ::-1], axis=1, kind="stable")[:, ::-1][:, :count]
    texts = [[f"{_text(row[index].item())}:{index}" for index in indices] for row, indices in zip(rows, best, strict=True)]
    shape = (count,) if array.ndim < 2 else (len(rows), count)
    return TensorSpec(spec.name, "BYTES", shape), np.array(texts, dtype=object).reshape(shape)


def _text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:f}"
