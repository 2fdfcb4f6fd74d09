"""Whether two revisions of a model said the same.

Outputs agree when their whole numbers, texts and BOOLs are equal, when their scores (an output of numbers with one row per input and
several
columns) are highest in the same columns, and when other numbers differ by no more than a share of their size. How far apart they are is
the mean
of their differences over the mean of what the incumbent said: 0 is equal, 1 is as far as saying nothing.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from edgewise.serve.answers import Answer
from edgewise.serve.binary import read_binary
from edgewise.serve.compression import inflate
from edgewise.serve.limits import ServeLimits
from edgewise.serve.messages import Parameters
from edgewise.serve.tensors import BF16, KINDS, Array, TensorRefused, TensorSpec, read_values

_ROWS_AND_COLUMNS: Final = 2
_DISTANCE_MAX: Final = 1e9
_TINY: Final = 1e-12


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One copy, compared. `failed`: the candidate gave no answer at all, which is no agreement. `distance` is None where there is none to
    measure. `seconds` is what the candidate's run took."""

    agrees: bool
    failed: bool = False
    distance: float | None = None
    seconds: float | None = None


class _Output(msgspec.Struct, frozen=True):
    name: str
    datatype: str
    shape: tuple[int, ...]
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parameters: Parameters = {}


class _Outputs(msgspec.Struct, frozen=True):
    outputs: tuple[_Output, ...]


_DECODER: Final = msgspec.json.Decoder(_Outputs)


def outputs_of(answer: Answer, limits: ServeLimits) -> dict[str, tuple[TensorSpec, Array]]:
    """Read what an answer says. Raises `TensorRefused` or msgspec's errors when it says nothing clear."""
    body = answer.body
    if answer.encoding:
        plain = inflate(body, answer.encoding, limits)
        if isinstance(plain, Answer):
            raise TensorRefused("the answer is not what its encoding says")
        body = plain
    head, tail = (body[: answer.header_bytes], memoryview(body)[answer.header_bytes :]) if answer.header_bytes else (body, memoryview(b""))
    found, at = {}, 0
    for output in _DECODER.decode(head).outputs:
        spec = TensorSpec(output.name, output.datatype, output.shape)
        if output.data is not msgspec.UNSET:
            found[output.name] = (spec, read_values(spec, output.shape, bytes(output.data)))
            continue
        size = output.parameters.get("binary_data_size")
        if not isinstance(size, int):
            raise TensorRefused(f"output {output.name!r} comes without data")
        found[output.name] = (spec, read_binary(spec, output.shape, tail[at : at + size]))
        at += size
    return found


def compare(
    ours: Sequence[tuple[TensorSpec, Array]],
    theirs: dict[str, tuple[TensorSpec, Array]],
    limits: ServeLimits,
    seconds: float | None = None,
) -> Comparison:
    """Compare the candidate's outputs (`ours`) with the incumbent's. Outputs that only one of them has, or that differ in shape or kind, do
    not agree."""
    agrees, distances = True, []
    for spec, array in ours:
        found = theirs.get(spec.name)
        if found is not None and _kind(found[0]) is str and _kind(spec) is float:  # asked for as classes
            agrees = agrees and _best_of(found[1]) == _rows_best(array)
            continue
        if found is None or found[1].shape != array.shape or _kind(found[0]) is not _kind(spec):
            agrees = False
            continue
        same, distance = _pair(_numbers(spec, array), _numbers(*found), limits)
        agrees = agrees and same
        distances.append(distance)
    apart = min(float(np.mean(distances)), _DISTANCE_MAX) if distances else None
    return Comparison(agrees=agrees, distance=apart, seconds=seconds)


def _best_of(classes: Array) -> list[str]:
    """Return the first class of each row, of texts such as `0.93:7:cat`."""
    rows = classes.reshape(-1, classes.shape[-1]) if classes.ndim > 1 else classes.reshape(1, -1)
    return [str(row[0]).split(":")[1] for row in rows]


def _rows_best(array: Array) -> list[str]:
    rows = array.reshape(array.shape[0], -1) if array.ndim > 1 else array.reshape(1, -1)
    return [str(int(best)) for best in rows.argmax(axis=1)]


def _kind(spec: TensorSpec) -> type:
    return KINDS[spec.datatype].element


def _numbers(spec: TensorSpec, array: Array) -> Array:
    """Return an array in which equal values are equal; numbers as double precision."""
    if spec.datatype == BF16:
        array = (array.astype(np.uint32) << 16).view(np.float32)
    if _kind(spec) is float:
        return array.astype(np.float64)
    if _kind(spec) is str:
        return np.array([each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in array.ravel()], dtype=object)
    return array


def _pair(ours: Array, theirs: Array, limits: ServeLimits) -> tuple[bool, float]:
    if not ours.size:
        return True, 0.0
    if ours.dtype != np.float64:
        differ = float(np.mean(ours != theirs))
        return differ == 0.0, differ
    if not (np.isfinite(ours) == np.isfinite(theirs)).all():
        return False, 1.0
    finite: npt.NDArray[Any] = np.isfinite(theirs)
    if not finite.all():
        if not np.array_equal(ours[~finite], theirs[~finite], equal_nan=True):
            return False, 1.0
        ours, theirs = np.where(finite, ours, 0.0), np.where(finite, theirs, 0.0)
    apart, size = float(np.abs(ours - theirs).mean()), float(np.abs(theirs).mean())
    distance = apart / max(size, _TINY) if apart else 0.0
    if ours.ndim == _ROWS_AND_COLUMNS and ours.shape[1] > 1:
        return bool((ours.argmax(axis=1) == theirs.argmax(axis=1)).all()), distance
    return apart <= limits.agree_absolute + limits.agree_relative * size, distance
