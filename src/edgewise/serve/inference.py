"""What an inference request means: a body in, an answer out, and a clear error for whatever is wrong with it.

`prepare` makes arrays of a request, `finish` an answer of the model's arrays. In between the model runs, perhaps on several at once.
"""

import contextlib
from collections.abc import Sequence
from typing import Final

import msgspec

from edgewise.resources.decoding import UNREADABLE
from edgewise.serve.answers import Answer, problem
from edgewise.serve.binary import read_binary, write_binary
from edgewise.serve.classes import top_classes
from edgewise.serve.compression import chosen_encoding, deflate, inflate
from edgewise.serve.conversation import Request
from edgewise.serve.limits import ServeLimits
from edgewise.serve.messages import FlatInput, FlatRequest, InferAnswer, InferRequest, InputTensor, OutputTensor, Parameters
from edgewise.serve.model import Model
from edgewise.serve.runtimes.contract import InferenceFailed
from edgewise.serve.tensors import (
    COUNTED_BYTES,
    KINDS,
    Array,
    TensorRefused,
    TensorSpec,
    check_shape,
    read_numbers,
    read_values,
    values_in,
    write_values,
)

BINARY: Final = "application/octet-stream"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What the server calls its model: the last part of the instance's name, and versions (the first is the one that answers carry)."""

    instance: str
    name: str
    versions: tuple[str, ...]
    revision: str


class Wanted(msgspec.Struct, frozen=True):
    """An output that is asked for, and how: as binary data or JSON; as so many of its highest values (0: as it is)."""

    spec: TensorSpec
    binary: bool
    classes: int = 0


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A request that the model can run: its inputs as arrays by name, the outputs that it asks for, its id (empty: none), how its answer is
    to be compressed (empty: not), and after how many microseconds its sender gives up (0: unknown)."""

    inputs: dict[str, Array]
    wanted: tuple[Wanted, ...]
    id: str
    encoding: str = ""
    timeout_us: int = 0

    @property
    def rows(self) -> int:
        """How many inferences this is: the first dimension of its first input."""
        first = next(iter(self.inputs.values()), None)
        return first.shape[0] if first is not None and first.ndim else 1

    @property
    def names(self) -> list[str]:
        """The names of the outputs that are asked for, in the order of the answer."""
        return [each.spec.name for each in self.wanted]


_DECODER = msgspec.json.Decoder(InferRequest)
_FLAT_DECODER = msgspec.json.Decoder(FlatRequest)
_FLAT_BYTES_MIN: Final = 4096
_ENCODER = msgspec.json.Encoder()


class Plan(msgspec.Struct, frozen=True):
    """What a request's JSON came to, when all its inputs are binary: which bytes behind it are which input, and what is asked for."""

    takes: tuple[tuple[TensorSpec, tuple[int, ...], int, int], ...]
    wanted: tuple[Wanted, ...]
    timeout_us: int


Plans = dict[tuple[bytes, int], Plan]
"""Plans by the JSON and how many bytes follow it. Those who ask often send the same JSON each time."""

_PLANS_MAX: Final = 16
_PLAN_BYTES_MAX: Final = 2048


def prepare(request: Request, model: Model, limits: ServeLimits, plans: Plans | None = None) -> Prepared | Answer:
    """Parse and check a request; answer 400 or 413 when it is wrong. Never raises for anything that a client sent. `plans` remembers what
    was parsed; keep one for each model."""
    body = request.body
    encoding = request.headers.get("content-encoding", "").lower()
    if encoding not in {"", "identity"}:
        plain = inflate(body, encoding, limits)
        if isinstance(plain, Answer):
            return plain
        body = plain
    try:
        return _prepare(body, request, model, limits, plans)
    except UNREADABLE as error:
        return problem(400, f"the body is not an inference request: {error}")
    except TensorRefused as error:
        return problem(400, str(error))


def finish(prepared: Prepared, arrays: Sequence[Array], identity: Identity, limits: ServeLimits) -> Answer:
    """Make the answer of the arrays that the model gave for the outputs asked for, in their order."""
    try:
        outputs, pieces = _outputs(prepared.wanted, arrays, limits)
    except TensorRefused as error:
        return problem(422, str(error))
    head = InferAnswer(model_name=identity.name, model_version=identity.versions[0], id=prepared.id, outputs=outputs)
    body = _ENCODER.encode(head)
    header_bytes = len(body) if pieces else 0
    if header_bytes:
        body = b"".join((body, *pieces))
    encoding = prepared.encoding if len(body) >= limits.compress_bytes_min else ""
    if encoding:
        body = deflate(body, encoding)
    if header_bytes:
        return Answer(status=200, body=body, content_type=BINARY, header_bytes=header_bytes, encoding=encoding)
    return Answer(status=200, body=body, encoding=encoding)


def infer(model: Model, identity: Identity, request: Request, limits: ServeLimits) -> Answer:
    """Answer one inference request. Never raises for anything that a client sent."""
    prepared = prepare(request, model, limits)
    if isinstance(prepared, Answer):
        return prepared
    try:
        arrays = model.run(prepared.inputs, prepared.names)
    except InferenceFailed as error:
        return failed(error)
    return finish(prepared, arrays, identity, limits)


def failed(error: InferenceFailed) -> Answer:
    """Answer that the runtime could not run the model on this input."""
    return problem(422, f"the model cannot run on this input: {error}")


# ---- what is asked ----


def _prepare(body: bytes, request: Request, model: Model, limits: ServeLimits, plans: Plans | None) -> Prepared:
    header_bytes = request.header_bytes
    if header_bytes == 0:
        return _prepare_raw(body, request, model)
    encoding = chosen_encoding(request.headers.get("accept-encoding", ""))
    if header_bytes is None:
        asked = _decoded(body, model)
        inputs, _ = _inputs(_matched(model.inputs, asked, limits), None)
        wanted = _wanted(model.outputs, asked, limits)
        return Prepared(inputs=inputs, wanted=wanted, id=asked.id, encoding=encoding, timeout_us=_timeout(asked.parameters))
    if not 0 < header_bytes <= len(body):
        raise TensorRefused(f"Inference-Header-Content-Length is no length within the body's {len(body)} bytes")
    head, tail = body[:header_bytes], memoryview(body)[header_bytes:]
    plan = plans.get((head, len(tail))) if plans is not None else None
    if plan is not None:
        inputs = {spec.name: read_binary(spec, shape, tail[start:end]) for spec, shape, start, end in plan.takes}
        return Prepared(inputs=inputs, wanted=plan.wanted, id="", encoding=encoding, timeout_us=plan.timeout_us)
    asked = _DECODER.decode(head)
    inputs, takes = _inputs(_matched(model.inputs, asked, limits), tail)
    wanted, timeout_us = _wanted(model.outputs, asked, limits), _timeout(asked.parameters)
    if plans is not None and len(takes) == len(inputs) and not asked.id and len(head) <= _PLAN_BYTES_MAX:
        if len(plans) >= _PLANS_MAX:
            plans.clear()
        plans[head, len(tail)] = Plan(takes, wanted, timeout_us)
    return Prepared(inputs=inputs, wanted=wanted, id=asked.id, encoding=encoding, timeout_us=timeout_us)


def _decoded(body: bytes, model: Model) -> InferRequest | FlatRequest:
    """Parse JSON. Data is passed over at first, and parsed once it is known to be what its shape says; of models that take floats alone,
    data of some size that is flat is parsed at once, which saves passing over it."""
    if _FLAT_BYTES_MIN <= len(body) <= COUNTED_BYTES and all(KINDS[spec.datatype].element is float for spec in model.inputs):
        with contextlib.suppress(msgspec.ValidationError):
            return _FLAT_DECODER.decode(body)
    return _DECODER.decode(body)


def _prepare_raw(body: bytes, request: Request, model: Model) -> Prepared:
    """Take the whole body as the model's only input, and answer all outputs as binary data. Source: Triton's raw binary request."""
    if len(model.inputs) != 1:
        raise TensorRefused(
            f"a body without JSON is for models with one input; this one takes {_list([each.name for each in model.inputs])}"
        )
    spec = model.inputs[0]
    size, rest = KINDS[spec.datatype].size, spec.shape[1:]
    row = values_in(rest) * size
    if not size or any(each < 0 for each in rest) or not row or not spec.shape:
        raise TensorRefused(f"the shape {list(spec.shape)} of input {spec.name!r} does not follow from how long a body without JSON is")
    shape = (len(body) // row if spec.shape[0] < 0 else spec.shape[0], *rest)
    wanted = tuple(Wanted(each, binary=True) for each in model.outputs)
    encoding = chosen_encoding(request.headers.get("accept-encoding", ""))
    return Prepared(inputs={spec.name: read_binary(spec, shape, memoryview(body))}, wanted=wanted, id="", encoding=encoding)


def _matched(
    specs: tuple[TensorSpec, ...], asked: InferRequest | FlatRequest, limits: ServeLimits
) -> list[tuple[InputTensor | FlatInput, TensorSpec]]:
    """Pair the request's inputs with the model's, checked, before any data is parsed."""
    known, names = {spec.name: spec for spec in specs}, [each.name for each in asked.inputs]
    if len(names) > limits.tensors_max or len(set(names)) != len(names):
        raise TensorRefused(f"inputs are named twice, or are more than {limits.tensors_max}")
    if known.keys() != set(names):
        missing = [name for name in known if name not in names]
        unknown = [name for name in names if name not in known]
        raise TensorRefused(
            f"the model takes {_list(list(known))}: " + (f"{_list(missing)} missing" if missing else f"not {_list(unknown)}")
        )
    if "sequence_id" in asked.parameters:
        raise TensorRefused("the model keeps no state between requests, so there are no sequences")
    pairs = [(each, known[each.name]) for each in asked.inputs]
    values = 0
    for each, spec in pairs:
        if len(each.shape) > limits.rank_max:
            raise TensorRefused(f"a tensor has at most {limits.rank_max} dimensions")
        if "shared_memory_region" in each.parameters:
            raise TensorRefused("shared memory is not served: send the data with the request")
        check_shape(spec, each.shape, each.datatype)
        count = values_in(each.shape)
        if count == 0 and max(each.shape) > limits.values_max:
            raise TensorRefused(f"a dimension has more than {limits.values_max} values")
        # What is sent as numbers in binary cannot be more than the body, which is bounded.
        values += count if not KINDS[spec.datatype].size or "binary_data_size" not in each.parameters else 0
    if values > limits.values_max:
        raise TensorRefused(f"the inputs have more than {limits.values_max} values")
    return pairs


def _inputs(
    pairs: list[tuple[InputTensor | FlatInput, TensorSpec]], tail: memoryview | None
) -> tuple[dict[str, Array], tuple[tuple[TensorSpec, tuple[int, ...], int, int], ...]]:
    """Return the inputs' values, and for binary ones which bytes of `tail` they are."""
    inputs: dict[str, Array] = {}
    takes = []
    at, rest = 0, len(tail) if tail is not None else 0
    for each, spec in pairs:
        size = each.parameters.get("binary_data_size")
        if size is None:
            if each.data is msgspec.UNSET:
                raise TensorRefused(f"input {spec.name!r} comes without data")
            data = each.data
            inputs[spec.name] = (
                read_numbers(spec, each.shape, data) if isinstance(data, list) else read_values(spec, each.shape, bytes(data))
            )
            continue
        if tail is None:
            raise TensorRefused("binary tensors need the header Inference-Header-Content-Length: where the JSON ends")
        if each.data is not msgspec.UNSET:
            raise TensorRefused(f"input {spec.name!r} comes both as JSON and as binary data")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= rest - at:
            raise TensorRefused(f"the binary_data_size of input {spec.name!r} is not within the {rest} bytes behind the JSON")
        inputs[spec.name] = read_binary(spec, each.shape, tail[at : at + size])
        takes.append((spec, each.shape, at, at + size))
        at += size
    if at != rest:
        raise TensorRefused(f"{rest} bytes follow the JSON, and the binary inputs have {at}")
    return inputs, tuple(takes)


def _wanted(specs: tuple[TensorSpec, ...], asked: InferRequest | FlatRequest, limits: ServeLimits) -> tuple[Wanted, ...]:
    binary = asked.parameters.get("binary_data_output") is True
    if not asked.outputs:
        return tuple(Wanted(spec, binary) for spec in specs)
    known = {spec.name: spec for spec in specs}
    names = [each.name for each in asked.outputs]
    if len(names) > limits.tensors_max or len(set(names)) != len(names) or any(name not in known for name in names):
        raise TensorRefused(f"the model answers {_list(list(known))}, each once, not {_list(names)}")
    wanted = []
    for each in asked.outputs:
        if "shared_memory_region" in each.parameters:
            raise TensorRefused("shared memory is not served: outputs come with the answer")
        flag, classes = each.parameters.get("binary_data"), each.parameters.get("classification", 0)
        if not isinstance(classes, int) or classes < 0:
            raise TensorRefused(f"the classification of output {each.name!r} is not a count")
        wanted.append(Wanted(known[each.name], binary if flag is None else flag is True, classes))
    return tuple(wanted)


def _timeout(parameters: Parameters) -> int:
    value = parameters.get("timeout", 0)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


# ---- what is answered ----


def _outputs(wanted: tuple[Wanted, ...], arrays: Sequence[Array], limits: ServeLimits) -> tuple[list[OutputTensor], list[bytes]]:
    """Return the outputs' descriptions and their binary data."""
    outputs: list[OutputTensor] = []
    pieces: list[bytes] = []
    values = size = 0
    for each, given in zip(wanted, arrays, strict=True):
        spec, array = each.spec, given
        if each.classes:
            spec, array = top_classes(spec, array, each.classes)
        # Only what is a number and goes out as binary data costs no more than its bytes.
        values += 0 if each.binary and KINDS[spec.datatype].size else array.size
        size += array.nbytes if each.binary else 0
        if values > limits.values_max or size > limits.answer_bytes_max:
            raise TensorRefused(f"the outputs have more than {limits.values_max} values or {limits.answer_bytes_max} bytes")
        if each.binary:
            data = write_binary(spec, array)
            pieces.append(data)
            outputs.append(OutputTensor(spec.name, spec.datatype, array.shape, {"binary_data_size": len(data)}))
        else:
            outputs.append(OutputTensor(spec.name, spec.datatype, array.shape, data=write_values(spec, array)))
    return outputs, pieces


def _list(names: list[str]) -> str:
    return ", ".join(repr(name[:60]) for name in names[:10])
