"""What the server says about itself and its model."""

from collections.abc import Callable
from typing import Final

import msgspec

from edgewise.serve.answers import Answer, ok, problem
from edgewise.serve.counters import Counters
from edgewise.serve.inference import Identity
from edgewise.serve.model import Model
from edgewise.serve.routes import Place


class Facts:
    """The answers that only read. `model` is None until it is loaded and warm."""

    def __init__(self, identity: Identity, counters: Counters) -> None:
        self.identity = identity
        self.counters = counters
        self.model: Model | None = None

    def answer(self, place: Place) -> Answer:
        """Answer a request that only reads."""
        return _ANSWERS[place](self)


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
    about = {"name": identity.name, "versions": identity.versions[:1], "platform": "onnxruntime_onnx"}
    return ok({**about, "inputs": model.inputs, "outputs": model.outputs})


def _server(_: Facts) -> Answer:
    from importlib.metadata import PackageNotFoundError, version  # loads a mail parser, and is asked for by people only

    try:
        edgewise = version("edgewise")
    except PackageNotFoundError:
        edgewise = "unknown"
    return ok({"name": "edgewise", "version": edgewise, "extensions": []})


def _metrics(facts: Facts) -> Answer:
    text = facts.counters.text(facts.identity)
    return Answer(status=200, body=text.encode(), content_type="text/plain; version=0.0.4; charset=utf-8")


_ANSWERS: Final[dict[Place, Callable[[Facts], Answer]]] = {
    "live": _live,
    "ready": _ready,
    "model-ready": _model_ready,
    "model": _model,
    "server": _server,
    "metrics": _metrics,
}
