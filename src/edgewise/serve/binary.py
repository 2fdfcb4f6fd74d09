"""Tensors of the Open Inference Protocol's binary tensor data extension, to and from arrays.

Little-endian, row-major, nothing between elements. A BOOL is a byte of 0 or 1, an element of BYTES its length in four bytes and then its
bytes, a BF16 the upper half of an FP32. Arrays look into the request's body where its alignment allows it.
Source: Triton's protocol extensions, "Binary Tensor Data".
"""

import struct
from typing import Any, Final

import numpy as np

from edgewise.serve.tensors import KINDS, Array, TensorRefused, TensorSpec, values_in

_LENGTH: Final = struct.Struct("<I")


def read_binary(spec: TensorSpec, shape: tuple[int, ...], data: memoryview) -> Array:
    """Return `data` as an array of `shape`, which was checked against `spec`. Raises `TensorRefused`."""
    kind, count = KINDS[spec.datatype], values_in(shape)
    if kind.element is str:
        return _read_texts(spec, count, data).reshape(shape)
    if len(data) != count * kind.size:
        raise TensorRefused(
            f"input {spec.name!r} of the shape {list(shape)} has {count * kind.size} bytes as {spec.datatype}, not {len(data)}"
        )
    array: Array
    if kind.element is bool:
        flags = np.frombuffer(data, dtype="uint8")
        if count and int(flags.max()) > 1:
            raise TensorRefused(f"the data of input {spec.name!r} holds bytes that are neither 0 nor 1")
        array = flags.view("bool")
    else:
        array = np.frombuffer(data, dtype=kind.dtype)
        if not array.flags.aligned:
            array = array.copy()  # runtimes read whole vectors at once
    return array.reshape(shape)


def write_binary(spec: TensorSpec, array: Array) -> bytes:
    """Return an output's values."""
    return _write_texts(array) if KINDS[spec.datatype].element is str else array.tobytes()


def _read_texts(spec: TensorSpec, count: int, data: memoryview) -> Array:
    texts: list[str] = []
    at, end = 0, len(data)
    while at < end and len(texts) < count:
        start = at + 4
        at = start + _LENGTH.unpack_from(data, at)[0] if start <= end else end + 1
        if at > end:
            raise TensorRefused(f"the data of input {spec.name!r} ends within an element")
        try:
            texts.append(str(data[start:at], "utf-8"))
        except UnicodeDecodeError as error:
            raise TensorRefused(f"element {len(texts)} of input {spec.name!r} is not UTF-8, and the runtime's strings are") from error
    if at != end or len(texts) != count:
        raise TensorRefused(f"the data of input {spec.name!r} does not hold the {count} elements of its shape")
    array: Array = np.empty(count, dtype=object)
    array[:] = texts
    return array


def _write_texts(array: Array) -> bytes:
    pieces: list[bytes] = []
    values: list[Any] = array.ravel().tolist()
    for value in values:
        text = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
        pieces += (_LENGTH.pack(len(text)), text)
    return b"".join(pieces)
