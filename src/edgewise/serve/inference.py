"""What an inference request means: JSON in, JSON out, and a clear error for whatever is wrong with it."""

from typing import Any

import msgspec

from edgewise.resources.decoding import UNREADABLE
from edgewise.serve.answers import Answer, ok, problem
from edgewise.serve.limits import ServeLimits
from edgewise.serve.model import InferenceFailed, Model
from edgewise.serve.tensors import TensorRefused, TensorSpec, check_shape, read_values, values_in, write_values

Parameters = dict[str, str | int | float | bool | None]


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What the server calls its model: the last part of the instance's name, and versions (the first is the one that answers carry)."""

    instance: str
    name: str
    versions: tuple[str, ...]
    revision: str


class InputTensor(msgspec.Struct, frozen=True, kw_only=True):
    """One input as it came; `data` is not parsed yet."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: msgspec.Raw
    parameters: Parameters = {}


class OutputRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One output that is asked for."""

    name: str
    parameters: Parameters = {}


class InferRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `POST …/infer`. Without `outputs`, all are answered."""

    inputs: tuple[InputTensor, ...]
    outputs: tuple[OutputRequest, ...] = ()
    id: str = ""
    parameters: Parameters = {}


class OutputTensor(msgspec.Struct, frozen=True, kw_only=True):
    """One output; `data` is flat in row-major order."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: list[Any]


class InferAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of a successful inference."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str = ""


_DECODER = msgspec.json.Decoder(InferRequest)


def infer(model: Model, identity: Identity, body: bytes, limits: ServeLimits) -> Answer:
    """Answer one inference request. Never raises for anything that a client sent."""
    try:
        request = _DECODER.decode(body)
    except UNREADABLE as error:
        return problem(400, f"the body is not an inference request: {error}")
    try:
        inputs = {each.name: read_values(spec, each.shape, bytes(each.data)) for each, spec in _matched(model.inputs, request, limits)}
        wanted = _wanted(model.outputs, request, limits)
    except TensorRefused as error:
        return problem(400, str(error))
    try:
        arrays = model.run(inputs, [spec.name for spec in wanted])
    except InferenceFailed as error:
        return problem(422, f"the model cannot run on this input: {error}")
    try:
        outputs = _outputs(wanted, arrays, limits)
    except TensorRefused as error:
        return problem(422, str(error))
    return ok(InferAnswer(model_name=identity.name, model_version=identity.versions[0], id=request.id, outputs=outputs))


def _matched(specs: tuple[TensorSpec, ...], request: InferRequest, limits: ServeLimits) -> list[tuple[InputTensor, TensorSpec]]:
    """Pair the request's inputs with the model's, checked, before any data is parsed."""
    known, names = {spec.name: spec for spec in specs}, [each.name for each in request.inputs]
    if len(names) > limits.tensors_max or len(set(names)) != len(names):
        raise TensorRefused(f"inputs are named twice, or are more than {limits.tensors_max}")
    missing = [name for name in known if name not in names]
    unknown = [name for name in names if name not in known]
    if missing or unknown:
        raise TensorRefused(f"the model takes {_list(known)}: " + (f"{_list(missing)} missing" if missing else f"not {_list(unknown)}"))
    pairs = [(each, known[each.name]) for each in request.inputs]
    for each, spec in pairs:
        if len(each.shape) > limits.rank_max:
            raise TensorRefused(f"a tensor has at most {limits.rank_max} dimensions")
        if "binary_data_size" in each.parameters:
            raise TensorRefused("binary tensors are not served: send JSON")
        check_shape(spec, each.shape, each.datatype)
    if sum(values_in(each.shape) for each in request.inputs) > limits.values_max:
        raise TensorRefused(f"the inputs have more than {limits.values_max} values")
    return pairs


def _wanted(specs: tuple[TensorSpec, ...], request: InferRequest, limits: ServeLimits) -> list[TensorSpec]:
    if not request.outputs:
        return list(specs)
    known = {spec.name: spec for spec in specs}
    names = [each.name for each in request.outputs]
    if len(names) > limits.tensors_max or len(set(names)) != len(names) or any(name not in known for name in names):
        raise TensorRefused(f"the model answers {_list(known)}, each once, not {_list(names)}")
    if any(each.parameters.get("binary_data") for each in request.outputs):
        raise TensorRefused("binary tensors are not served: ask for JSON")
    return [known[name] for name in names]


def _outputs(specs: list[TensorSpec], arrays: list[Any], limits: ServeLimits) -> list[OutputTensor]:
    if sum(array.size for array in arrays) > limits.values_max:
        raise TensorRefused(f"the outputs have more than {limits.values_max} values")
    return [
        OutputTensor(name=spec.name, datatype=spec.datatype, shape=array.shape, data=write_values(spec, array))
        for spec, array in zip(specs, arrays, strict=True)
    ]


def _list(names: object) -> str:
    shown = [repr(str(name)[:60]) for name in names][:10] if isinstance(names, (list, dict)) else []
    return ", ".join(shown)
