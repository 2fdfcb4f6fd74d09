"""Labels that arrive later, joined with what the model answered, by the id that the client gave its request.

Only requests with an id are remembered, the newest `remembered_answers_max` of them. Each takes one label: a second one, one for an answer
that is not known (any more) and one that cannot be a label of this model are refused, so that who repeats or invents labels moves nothing.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Final, Literal

import msgspec
import numpy as np

from edgewise.resources.decoding import UNREADABLE
from edgewise.serve.answers import Answer, ok, problem
from edgewise.serve.limits import ServeLimits
from edgewise.serve.measurements import SHARE_BOUNDS, Measurements
from edgewise.serve.tensors import Array, TensorSpec

Label = bool | int | float | Annotated[str, msgspec.Meta(max_length=256)]
Reason = Literal["UnknownRequest", "AlreadyJudged", "WrongLabel"]


class Judged(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One label. `id` is the request's; a request for several rows takes a label for each, or null where there is none."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    label: Label | None = None
    labels: Annotated[tuple[Label | None, ...], msgspec.Meta(max_length=1024)] = ()


class FeedbackRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of `POST /v2/models/NAME/feedback`."""

    feedback: Annotated[tuple[Judged, ...], msgspec.Meta(min_length=1, max_length=1000)]


class RefusedFeedback(msgspec.Struct, frozen=True):
    """A label that was not taken."""

    id: str
    reason: Reason
    message: str


class FeedbackAnswer(msgspec.Struct, frozen=True):
    """How many requests were judged, and which were not."""

    accepted: int
    refused: list[RefusedFeedback]


def unknown_in(answer: Answer) -> bool:
    """Whether an answer says of some request that it is not known here."""
    return answer.status == _OK and b'"UnknownRequest"' in answer.body


def together(here: Answer, there: Answer) -> Answer:
    """Return what two servers said to the same labels, of which each answered a part of the requests: refused is what both refused."""
    try:
        ours, theirs = (_ANSWER_DECODER.decode(answer.body) for answer in (here, there))
    except UNREADABLE:
        return here
    unknown = {one.id for one in theirs.refused if one.reason == "UnknownRequest"}
    judged_there = {one.id: one for one in theirs.refused if one.reason != "UnknownRequest"}
    refused = [
        judged_there.get(one.id, one)
        for one in ours.refused
        if one.reason != "UnknownRequest" or one.id in unknown or one.id in judged_there
    ]
    return ok(FeedbackAnswer(ours.accepted + theirs.accepted, refused))


class Prediction(msgspec.Struct, frozen=True):
    """What the model said of each row: its class (an index, a number or a text), with its confidence where it gives one, or a value."""

    kind: Literal["class", "value"]
    rows: tuple[Label, ...]
    confidence: tuple[float, ...] = ()
    classes: int = 0


class _Refused(Exception):
    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


Outputs = list[tuple[TensorSpec, Array]]

_DECODER: Final = msgspec.json.Decoder(FeedbackRequest)
_ANSWER_DECODER: Final = msgspec.json.Decoder(FeedbackAnswer)
_OK: Final = 200
_SUM_TOLERANCE: Final = 1e-3


def predicted(outputs: Outputs) -> Prediction | None:
    """Return what the outputs say of each row, or None when that is not clear: one that gives a class per row (whole numbers, text or
    BOOL), else one that gives a share or a score per class, else a single number per row."""
    shares = next((array for spec, array in outputs if spec.datatype.startswith("FP") and array.ndim == 2 and array.shape[1] > 1), None)
    named = next((array for spec, array in outputs if not spec.datatype.startswith("FP") and _per_row(array)), None)
    if shares is not None and (named is None or len(named) == len(shares)):
        scores = shares.astype(np.float64)
        best = scores.argmax(axis=1)
        likely = bool(np.isfinite(scores).all() and (scores >= 0).all() and (np.abs(scores.sum(axis=1) - 1) < _SUM_TOLERANCE).all())
        rows = best.tolist() if named is None else _plain(named)
        confidence = tuple(scores.max(axis=1).tolist()) if likely else ()
        return Prediction("class", tuple(rows), confidence, 0 if named is not None else shares.shape[1])
    if named is not None:
        return Prediction("class", tuple(_plain(named)))
    value = next((array for spec, array in outputs if spec.datatype.startswith("FP") and _per_row(array)), None)
    return None if value is None else Prediction("value", tuple(value.reshape(-1).astype(np.float64).tolist()))


class Feedback:
    """The answers that labels may still come for, by request id. `remember` and `answer` may be called by different threads."""

    def __init__(self, measurements: Measurements, limits: ServeLimits, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._measurements = measurements
        self._limits = limits
        self._monotonic = monotonic
        # None: judged already.
        self._known: OrderedDict[str, Outputs | None] = OrderedDict()
        self._allowance = float(limits.feedback_per_second_max)
        self._at = monotonic()

    def remember(self, request: str, outputs: Outputs) -> None:
        """Remember an answer. What it says of each row is found out when a label comes: for most, none does. A request with the id of an
        earlier one takes its place, unless that was judged."""
        rows, values = max((len(array) for _, array in outputs if array.ndim), default=0), sum(array.size for _, array in outputs)
        fits = rows <= self._limits.remembered_rows_max and values <= self._limits.remembered_values_max
        if not fits or len(request) > self._limits.request_id_chars_max:
            return
        if self._known.get(request, outputs) is not None:
            self._known[request] = outputs
        while len(self._known) > self._limits.remembered_answers_max:
            self._known.popitem(last=False)

    def answer(self, body: bytes) -> Answer:
        """Take labels, each or none of a request."""
        try:
            said = _DECODER.decode(body)
        except UNREADABLE as error:
            return problem(400, f"the body is not feedback: {error}")
        if not self._allowed(len(said.feedback)):
            return problem(
                429, f"more than {self._limits.feedback_per_second_max} labels a second", retry_after=self._limits.retry_after_seconds
            )
        refused: list[RefusedFeedback] = []
        for one in said.feedback:
            try:
                self._judge(one)
            except _Refused as error:
                refused.append(RefusedFeedback(one.id, error.reason, str(error)))
        self._measurements.extend("model.feedback.refused", [float(len(refused))] if refused else [])
        return ok(FeedbackAnswer(len(said.feedback) - len(refused), refused))

    def _allowed(self, count: int) -> bool:
        """Take `count` out of a token bucket that holds ten seconds' worth."""
        now, most = self._monotonic(), self._limits.feedback_per_second_max
        self._allowance = min(10.0 * most, self._allowance + (now - self._at) * most)
        self._at = now
        if count > self._allowance:
            return False
        self._allowance -= count
        return True

    def _judge(self, said: Judged) -> None:
        if said.id not in self._known:
            raise _Refused("UnknownRequest", "no request of that id was answered here lately")
        outputs = self._known[said.id]
        if outputs is None:
            raise _Refused("AlreadyJudged", "this request has its label")
        prediction = predicted(outputs)
        if prediction is None:
            raise _Refused("WrongLabel", "what this model answers is neither a class nor a number for each row")
        labels = said.labels or (said.label,)
        if len(labels) != len(prediction.rows) or (said.labels and said.label is not None) or all(label is None for label in labels):
            raise _Refused("WrongLabel", f"the answer has {len(prediction.rows)} rows: give `label` for one, `labels` for several")
        pairs = [(label, row) for label, row in zip(labels, prediction.rows, strict=True) if label is not None]
        if prediction.kind == "value":
            self._judge_values(pairs)
        else:
            self._judge_classes(pairs, labels, prediction)
        self._known[said.id] = None

    def _judge_values(self, pairs: list[tuple[Label, Label]]) -> None:
        errors = []
        for label, row in pairs:
            if isinstance(label, (bool, str)) or not math.isfinite(label) or isinstance(row, str):
                raise _Refused("WrongLabel", "this model answers numbers: the label must be a finite number")
            errors.append(abs(float(label) - float(row)))
        self._measurements.extend("model.error", errors)

    def _judge_classes(self, pairs: list[tuple[Label, Label]], labels: tuple[Label | None, ...], prediction: Prediction) -> None:
        for label, row in pairs:
            if isinstance(label, str) != isinstance(row, str) or isinstance(label, float):
                raise _Refused("WrongLabel", f"this model answers classes such as {row!r}: {label!r} is none")
            if prediction.classes and not isinstance(label, str) and not 0 <= label < prediction.classes:
                raise _Refused("WrongLabel", f"this model has the classes 0 to {prediction.classes - 1}")
        self._measurements.extend("model.accuracy", [float(label == row) for label, row in pairs])
        if prediction.confidence:
            right = [
                (share, float(label == row))
                for label, row, share in zip(labels, prediction.rows, prediction.confidence, strict=True)
                if label is not None
            ]
            # Brier (1950): the mean square between the stated confidence and whether it was right.
            self._measurements.extend("model.brier", [(share - was) ** 2 for share, was in right])
            self._measurements.extend("model.confidence.right", [share for share, was in right if was], "1", SHARE_BOUNDS)
            self._measurements.extend("model.confidence.wrong", [share for share, was in right if not was], "1", SHARE_BOUNDS)


def _per_row(array: Array) -> bool:
    return array.ndim >= 1 and array.size == array.shape[0] and array.size > 0


def _plain(array: Array) -> list[Label]:
    return [value.decode(errors="replace") if isinstance(value, bytes) else value for value in array.reshape(-1).tolist()]
