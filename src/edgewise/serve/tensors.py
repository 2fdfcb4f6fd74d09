"""Datatypes, and tensors of the Open Inference Protocol's JSON form, to and from arrays; `binary.py` has the other.

Numbers come flat in row-major order or nested like the shape. They are counted before they are parsed, parsed with the element type that
the datatype asks for, and must fit it: a bool is no number, 300 is no UINT8, 1e300 is no FP32, NaN does not exist in JSON.
"""

import functools
import math
import struct
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class TensorRefused(ValueError):
    """A tensor is not what its datatype and shape say, or not what the model takes. The message is for whoever sent it."""


class Kind(msgspec.Struct, frozen=True):
    """How a datatype is called in ONNX and in numpy, what its elements are in JSON, and how many bytes one has (0: as many as it needs).
    `code` packs them (empty: nothing does), and `wide` is what they are read as from JSON."""

    onnx: str
    dtype: str
    element: type
    size: int
    code: str = ""
    wide_dtype: str = ""

    @property
    def wide(self) -> str:
        """The type that JSON's numbers are read as before they become this type."""
        return self.wide_dtype or self.dtype


KINDS: Final[dict[str, Kind]] = {
    "BOOL": Kind("tensor(bool)", "bool", bool, 1, "?"),
    "UINT8": Kind("tensor(uint8)", "uint8", int, 1, "B"),
    "UINT16": Kind("tensor(uint16)", "uint16", int, 2, "H"),
    "UINT32": Kind("tensor(uint32)", "uint32", int, 4, "I"),
    "UINT64": Kind("tensor(uint64)", "uint64", int, 8, "Q"),
    "INT8": Kind("tensor(int8)", "int8", int, 1, "b"),
    "INT16": Kind("tensor(int16)", "int16", int, 2, "h"),
    "INT32": Kind("tensor(int32)", "int32", int, 4, "i"),
    "INT64": Kind("tensor(int64)", "int64", int, 8, "q"),
    "FP16": Kind("tensor(float16)", "float16", float, 2, "e"),
    "FP32": Kind("tensor(float)", "float32", float, 4, "f"),
    "FP64": Kind("tensor(double)", "float64", float, 8, "d"),
    # numpy has no such type: 16 bits each, the upper half of an FP32
    "BF16": Kind("tensor(bfloat16)", "uint16", float, 2, "f", "float32"),
    "BYTES": Kind("tensor(string)", "object", str, 0),
}
BF16: Final = "BF16"
_BY_ONNX: Final = {kind.onnx: datatype for datatype, kind in KINDS.items()}
COUNTED_BYTES: Final = 1_000_000
"""Longer data is counted before it is parsed, so that what it becomes in memory is bounded by what the model takes."""
_SPACE: Final = b" \t\r\n"


class TensorSpec(msgspec.Struct, frozen=True):
    """A model's input or output. A dimension of -1 is free."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def datatype_of(onnx_type: str) -> str | None:
    """Return the protocol's name for an ONNX type such as `tensor(float)`, or None when it has none."""
    return _BY_ONNX.get(onnx_type)


def zeros(spec: TensorSpec, free: int) -> Array:
    """Return a tensor of zeros (empty strings) that fits `spec`; the first free dimension is 1, others are `free`."""
    shape = tuple((1 if at == 0 else free) if size < 0 else size for at, size in enumerate(spec.shape))
    kind = KINDS[spec.datatype]
    return np.full(shape, "", dtype=object) if kind.element is str else np.zeros(shape, dtype=kind.dtype)


def values_in(shape: tuple[int, ...]) -> int:
    """Return how many values a tensor of `shape` has."""
    return math.prod(shape)


def check_shape(spec: TensorSpec, shape: tuple[int, ...], datatype: str) -> None:
    """Raise `TensorRefused` unless a tensor of `shape` and `datatype` is what the model takes for `spec`. ONNX Runtime shows an input of
    unknown rank like a scalar, so a shape of no dimensions takes any, and the runtime decides."""
    if datatype != spec.datatype:
        raise TensorRefused(f"input {spec.name!r} is {spec.datatype}, not {datatype[:20]!r}")
    same_rank = len(shape) == len(spec.shape)
    fits = same_rank and all(want in {-1, size} for want, size in zip(spec.shape, shape, strict=True))
    if not (fits or not spec.shape) or any(size < 0 for size in shape):
        raise TensorRefused(f"input {spec.name!r} has the shape {list(spec.shape)}, not {list(shape)}")


def read_values(spec: TensorSpec, shape: tuple[int, ...], data: bytes) -> Array:
    """Return JSON `data` as an array of `shape`, which was checked against `spec`. Raises `TensorRefused`."""
    kind, count = KINDS[spec.datatype], values_in(shape)
    if count == 0:
        return _read_empty(spec, shape, data)
    depth = _depth(data)
    if depth not in {1, max(len(shape), 1)}:
        raise TensorRefused(f"the data of input {spec.name!r} is neither flat nor nested like its shape {list(shape)}")
    if kind.element is not str and len(data) > COUNTED_BYTES and data.count(b",") + 1 != count:
        raise TensorRefused(f"the data of input {spec.name!r} does not hold the {count} values of its shape {list(shape)}")
    try:
        values = _decoder(kind.element, depth).decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise TensorRefused(f"the data of input {spec.name!r} is not {spec.datatype}: {error}") from error
    return _made(spec, shape, values, flat=depth == 1)


def read_numbers(spec: TensorSpec, shape: tuple[int, ...], values: list[float]) -> Array:
    """Return a flat list of floats as an array of `shape`, which was checked against `spec`, of a datatype of floats. Raises
    `TensorRefused`."""
    return _made(spec, shape, values, flat=True)


def _made(spec: TensorSpec, shape: tuple[int, ...], values: list[Any], *, flat: bool) -> Array:
    kind, count = KINDS[spec.datatype], values_in(shape)
    try:
        array = _packed(kind, values) if flat and kind.code else _array(kind, values)
    except (ValueError, OverflowError, struct.error) as error:
        raise TensorRefused(f"the data of input {spec.name!r} is not {spec.datatype}: {error}") from error
    if array.size != count or array.shape not in {shape, (count,)}:
        raise TensorRefused(f"the data of input {spec.name!r} does not hold the {count} values of its shape {list(shape)}")
    if kind.element is float and not np.isfinite(array).all():
        raise TensorRefused(f"the data of input {spec.name!r} holds values that {spec.datatype} cannot")
    return (_to_bf16(array) if spec.datatype == BF16 else array).reshape(shape)


def write_values(spec: TensorSpec, array: Array) -> list[Any]:
    """Return an output's values, flat in row-major order. Raises `TensorRefused` when JSON cannot carry them."""
    if spec.datatype == BF16:
        array = _from_bf16(array)
    if KINDS[spec.datatype].element is float and not np.isfinite(array).all():
        raise TensorRefused(f"output {spec.name!r} is not finite for this input, and JSON cannot carry that: ask for binary data")
    return list(array.ravel().tolist())


def _read_empty(spec: TensorSpec, shape: tuple[int, ...], data: bytes) -> Array:
    if data.translate(None, b"[], \t\r\n") or not data.startswith(b"["):
        raise TensorRefused(f"the data of input {spec.name!r} holds values, and none fits its shape {list(shape)}")
    return np.empty(shape, dtype=KINDS[spec.datatype].dtype)


def _packed(kind: Kind, values: list[Any]) -> Array:
    """Make an array of a flat list, three times as fast as numpy does; numbers that do not fit are refused on the way."""
    return np.frombuffer(struct.pack(f"={len(values)}{kind.code}", *values), dtype=kind.wide)


def _array(kind: Kind, values: list[Any]) -> Array:
    with np.errstate(over="ignore"):  # looked at by the caller
        return np.array(values, dtype=kind.wide)


def _to_bf16(array: Array) -> Array:
    """Return FP32 values as BF16, rounded to nearest, ties to even. All are finite; what rounds beyond the largest becomes infinite."""
    bits: Array = np.ascontiguousarray(array, dtype="float32").view("uint32")
    rounded: Array = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("uint16")
    return rounded


def _from_bf16(array: Array) -> Array:
    wide: Array = (array.astype("uint32") << 16).view("float32")
    return wide


def _depth(data: bytes) -> int:
    """Count the brackets that open the data."""
    depth = at = 0
    while at < len(data) and depth <= 64:
        byte = data[at : at + 1]
        if byte == b"[":
            depth += 1
        elif byte not in _SPACE:
            break
        at += 1
    return depth


@functools.lru_cache(maxsize=64)
def _decoder(element: type, depth: int) -> msgspec.json.Decoder[Any]:
    nested: Any = element
    for _ in range(depth):
        nested = list[nested]
    return msgspec.json.Decoder(nested)
