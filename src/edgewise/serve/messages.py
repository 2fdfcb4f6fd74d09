"""The JSON of inference requests and answers, as the protocol has it."""

from typing import Any

import msgspec

Parameters = dict[str, str | int | float | bool | None]


class InputTensor(msgspec.Struct, frozen=True, kw_only=True):
    """One input as it came; `data` is not parsed yet, and unset when it follows the JSON."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parameters: Parameters = {}


class FlatInput(msgspec.Struct, frozen=True, kw_only=True):
    """One input whose data is a flat list of numbers, parsed at once."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[float]
    parameters: Parameters = {}


class OutputRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One output that is asked for."""

    name: str
    parameters: Parameters = {}


class InferRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `POST …/infer`, or the JSON at its beginning. Without `outputs`, all are answered."""

    inputs: tuple[InputTensor, ...]
    outputs: tuple[OutputRequest, ...] = ()
    id: str = ""
    parameters: Parameters = {}


class FlatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`InferRequest`, where all data are flat lists of numbers."""

    inputs: tuple[FlatInput, ...]
    outputs: tuple[OutputRequest, ...] = ()
    id: str = ""
    parameters: Parameters = {}


class OutputTensor(msgspec.Struct, frozen=True):
    """One output; `data` is flat in row-major order, and unset when it follows the JSON."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, int] | msgspec.UnsetType = msgspec.UNSET
    data: list[Any] | msgspec.UnsetType = msgspec.UNSET


class InferAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of a successful inference, or the JSON at its beginning."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str = ""
