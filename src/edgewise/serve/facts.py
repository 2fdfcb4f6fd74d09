"""What the server says about itself and its model."""

from collections.abc import Callable
from typing import Final

import msgspec

from edgewise.resources.decoding import UNREADABLE
from edgewise.serve.answers import Answer, ok, problem
from edgewise.serve.counters import Counters
from edgewise.serve.inference import Identity
from edgewise.serve.model import Model
from edgewise.serve.observer import Observer
from edgewise.serve.routes import Place
from edgewise.serve.tensors import TensorSpec

EXTENSIONS: Final = ("binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics")
_TRITON_TYPES: Final = {"BYTES": "TYPE_STRING"}


class Facts:
    """The answers that only read. `model` is None until it is loaded and warm."""

    def __init__(self, identity: Identity, counters: Counters, observer: Observer) -> None:
        self.identity = identity
        self.counters = counters
        self.observer = observer
        self.model: Model | None = None

    def answer(self, place: Place, body: bytes = b"") -> Answer:
        """Answer a request that only reads."""
        return _index(self, body) if place == "index" else _ANSWERS[place](self)


def if_well(content: dict[str, object], *, well: bool) -> Answer:
    """Answer 200 or 503 with the same content."""
    return Answer(status=200 if well else 503, body=msgspec.json.encode(content))


def _live(facts: Facts) -> Answer:
    return ok({"live": True, "ready": facts.model is not None})


def _ready(facts: Facts) -> Answer:
    # A draining server still answers whatever reaches it, so it is ready to whoever is still connected.
    well = facts.model is not None
    return if_well({"live": True, "ready": well}, well=well)


def _model_ready(facts: Facts) -> Answer:
    well = facts.model is not None
    return if_well({"name": facts.identity.name, "version": facts.identity.versions[0], "ready": well}, well=well)


def _model(facts: Facts) -> Answer:
    model, identity = facts.model, facts.identity
    if model is None:
        return problem(503, "the model is still loading", retry_after=1)
    about = {"name": identity.name, "versions": identity.versions[:1], "platform": model.platform}
    return ok({**about, "inputs": model.inputs, "outputs": model.outputs})


def _server(_: Facts) -> Answer:
    from importlib.metadata import PackageNotFoundError, version  # loads a mail parser, and is asked for by people only

    try:
        edgewise = version("edgewise")
    except PackageNotFoundError:
        edgewise = "unknown"
    return ok({"name": "edgewise", "version": edgewise, "extensions": EXTENSIONS})


def _stats(facts: Facts) -> Answer:
    """Source: Triton's protocol extensions, "Statistics"."""
    counters, identity = facts.counters, facts.identity
    about = {
        "name": identity.name,
        "version": identity.versions[0],
        "last_inference": counters.last_inference_ms,
        "inference_count": counters.inferences,
        "execution_count": counters.executions,
        "inference_stats": counters.stages,
        "batch_stats": [],
    }
    return ok({"model_stats": [about]})


def _config(facts: Facts) -> Answer:
    """Source: Triton's protocol extensions, "Model Configuration"."""
    model, identity = facts.model, facts.identity
    if model is None:
        return problem(503, "the model is still loading", retry_after=1)
    # No batch size: shapes are told whole, with their first dimension, as the model has them.
    return ok(
        {
            "name": identity.name,
            "platform": model.platform,
            "backend": model.runtime,
            "version_policy": {"latest": {"num_versions": 1}},
            "max_batch_size": 0,
            "input": [_tensor(each) for each in model.inputs],
            "output": [_tensor(each) for each in model.outputs],
            "instance_group": [{"name": identity.name, "kind": "KIND_CPU" if model.device == "cpu" else "KIND_GPU", "count": 1}],
        }
    )


def _tensor(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "data_type": _TRITON_TYPES.get(spec.datatype, f"TYPE_{spec.datatype}"), "dims": spec.shape}


def _index(facts: Facts, body: bytes) -> Answer:
    """Source: Triton's protocol extensions, "Model Repository"."""
    try:
        asked = msgspec.json.decode(body, type=_IndexRequest) if body.strip() else _IndexRequest()
    except UNREADABLE as error:
        return problem(400, f"the body is not a request for the index: {error}")
    ready = facts.model is not None
    about = {"name": facts.identity.name, "version": facts.identity.versions[0]}
    state = {"state": "READY", "reason": ""} if ready else {"state": "LOADING", "reason": "the model is still loading"}
    return ok([{**about, **state}] if ready or not asked.ready else [])


def _load(_: Facts) -> Answer:
    return problem(400, "models are not loaded or unloaded here: a device runs what was signed and rolled out to it (edgewise apply)")


class _IndexRequest(msgspec.Struct, frozen=True):
    ready: bool = False


def _metrics(facts: Facts) -> Answer:
    text = facts.counters.text(facts.identity) + facts.observer.text(facts.identity)
    return Answer(status=200, body=text.encode(), content_type="text/plain; version=0.0.4; charset=utf-8")


_ANSWERS: Final[dict[Place, Callable[[Facts], Answer]]] = {
    "live": _live,
    "ready": _ready,
    "model-ready": _model_ready,
    "model": _model,
    "server": _server,
    "stats": _stats,
    "config": _config,
    "load": _load,
    "metrics": _metrics,
}
