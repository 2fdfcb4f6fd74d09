"""The one thread that loads the model and runs it, so that the loop answers probes while a long inference runs."""

import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from edgewise.serve.answers import Answer, problem
from edgewise.serve.batching import Batches, Turn, joined, parted
from edgewise.serve.conversation import Request
from edgewise.serve.inference import Identity, Plans, Prepared, failed, finish, prepare
from edgewise.serve.limits import ServeLimits
from edgewise.serve.model import Model
from edgewise.serve.observer import Observer
from edgewise.serve.pace import Pace
from edgewise.serve.runtimes.contract import InferenceFailed, ModelFailed
from edgewise.serve.tensors import Array


class Loaded(msgspec.Struct, frozen=True):
    """The model is loaded and warm."""

    model: Model


class Broken(msgspec.Struct, frozen=True):
    """The model cannot be used. One line."""

    message: str


class Spent(msgspec.Struct, frozen=True):
    """Where the time of a request went, in seconds: waiting for its turn, being read, in the model, being answered. What it did not come to
    is 0. `rows`: how many inferences it was (its batch)."""

    queue: float = 0.0
    prepare: float = 0.0
    run: float = 0.0
    finish: float = 0.0
    rows: int = 1


class Inferred(msgspec.Struct, frozen=True):
    """The answer to the request of connection `serial`."""

    serial: int
    answer: Answer
    spent: Spent


Result = Loaded | Broken | Inferred
_Job = tuple[int, Request, float]


class Worker:
    """Takes requests, gives results; `wake` is called from its thread after each result was put into `results`."""

    def __init__(
        self, load: Callable[[], Model], identity: Identity, limits: ServeLimits, wake: Callable[[], None], observer: Observer
    ) -> None:
        self._observer = observer
        self._load = load
        self._identity = identity
        self._limits = limits
        self._wake = wake
        self._complained = False
        self._turn = threading.Lock()
        self._pace = Pace(limits)
        self._plans: Plans = {}
        self._model: Model | None = None
        self._unseen: tuple[Prepared, Sequence[Array]] | None = None
        self._submitted = self._completed = 0  # each written by one thread alone
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self.results: deque[Result] = deque()

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    @property
    def model(self) -> Model:
        """The model, once it is loaded."""
        assert self._model is not None  # noqa: S101 - nobody is asked for anything before
        return self._model

    @property
    def busy(self) -> bool:
        """Whether requests run or wait."""
        return self._submitted != self._completed

    def run(self, inputs: dict[str, Array], names: list[str]) -> Sequence[Array]:
        """Run the model on the caller's thread, alone: it is called by one thread at a time."""
        with self._turn:
            return self.model.run(inputs, names)

    def submit(self, serial: int, request: Request) -> None:
        """Queue an inference request."""
        self._submitted += 1
        self._jobs.put((serial, request, time.monotonic()))

    def answer_now(self, serial: int, request: Request) -> tuple[Answer, Spent] | None:
        """Answer at once, on the caller's thread: when nothing runs or waits, and the model has been so quick lately that handing the
        request over would cost more than the wait. Otherwise None. Once the answer is on its way, call `observe`."""
        model, now = self._model, time.monotonic()
        quick = self._pace.expects_quick(serial, len(request.body), now)
        if model is None or self._submitted != self._completed or not quick:
            return None
        answer, spent, self._unseen = self._answer(model, request, now)
        return answer, spent

    def observe(self) -> None:
        """Take what was answered at once into the measurements."""
        if self._model is not None and self._unseen is not None:
            self._observe(self._model, *self._unseen)
            self._unseen = None

    def stop(self) -> bool:
        """End the thread once its queue is empty; wait for that shortly. Return whether it ended: a model may never come back."""
        self._jobs.put(None)
        self._thread.join(1.0)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            model = self._load()
        except ModelFailed as error:
            self._give(Broken(str(error)))
            return
        except Exception as error:  # noqa: BLE001 - whatever a model makes the runtime do must end in one clear line
            self._give(Broken(f"the model does not load: {error!r}"[:500]))
            return
        self._model = model
        self._give(Loaded(model))
        batches = Batches(self._limits, allowed=model.answers_rows_alone)
        while jobs := self._next(batches.requests_max):
            turns = [turn for job in jobs if (turn := self._begin(model, *job)) is not None]
            for group in batches.groups(turns):
                self._run_together(model, batches, group)

    def _next(self, most: int) -> list[_Job]:
        """Wait for a request; return it and those that wait behind it, `most` in all. Nothing: the end."""
        jobs: list[_Job] = []
        while len(jobs) < most and not self._ending:
            try:
                job = self._jobs.get(block=not jobs)
            except queue.Empty:
                break
            if job is None:
                self._ending = True
            else:
                jobs.append(job)
        return jobs

    def _begin(self, model: Model, serial: int, request: Request, since: float) -> Turn | None:
        """Read a request; one that is wrong or late is answered at once."""
        begun = time.monotonic()
        spent = Spent(queue=begun - since)
        try:
            prepared = prepare(request, model, self._limits, self._plans)
        except MemoryError:
            prepared = self._too_large()
        except Exception as error:  # noqa: BLE001 - one request must not end the server
            prepared = _unexpected(error)
        ready = time.monotonic()
        if not isinstance(prepared, Answer) and 0 < prepared.timeout_us < (ready - since) * 1e6:
            prepared = problem(504, f"the request waited longer than its time-out of {prepared.timeout_us} microseconds")
        if isinstance(prepared, Answer):
            self._end(serial, prepared, msgspec.structs.replace(spent, prepare=ready - begun))
            return None
        return Turn(serial, request, prepared, since, begun, ready)

    def _run_together(self, model: Model, batches: Batches, group: list[Turn]) -> None:
        started = time.monotonic()
        try:
            inputs = joined(group)
            with self._turn:
                arrays = model.run(inputs, group[0].prepared.names)
            parts = parted(arrays, group)
        except InferenceFailed as error:
            parts, answer = None, failed(error)
        except MemoryError:
            parts, answer = None, self._too_large()
        except Exception as error:  # noqa: BLE001 - one request must not end the server
            parts, answer = None, _unexpected(error)
        else:
            answer = problem(500, "the model answered with another number of rows than it was asked for")
        ran = time.monotonic()
        if parts is None and len(group) > 1:  # whichever of them it was, it fails alone
            for turn in group:
                self._run_together(model, batches, [turn])
            return
        if parts is None:
            turn = group[0]
            self._end(turn.serial, answer, Spent(queue=turn.begun - turn.since, prepare=turn.ready - turn.begun))
            return
        batches.took(sum(turn.prepared.rows for turn in group), ran - started)
        for turn, part in zip(group, parts, strict=True):
            self._finish(model, turn, part, ran - started)

    def _finish(self, model: Model, turn: Turn, arrays: Sequence[Array], run_seconds: float) -> None:
        begun = time.monotonic()
        try:
            answer = finish(turn.prepared, arrays, self._identity, self._limits)
        except MemoryError:
            answer = self._too_large()
        except Exception as error:  # noqa: BLE001 - one request must not end the server
            answer = _unexpected(error)
        done = time.monotonic()
        self._pace.took(len(turn.request.body), turn.ready - turn.begun + run_seconds + done - begun)
        queue_seconds, prepare_seconds = turn.begun - turn.since, turn.ready - turn.begun
        spent = Spent(queue=queue_seconds, prepare=prepare_seconds, run=run_seconds, finish=done - begun, rows=turn.prepared.rows)
        self._end(turn.serial, answer, spent)
        self._observe(model, turn.prepared, arrays)

    def _end(self, serial: int, answer: Answer, spent: Spent) -> None:
        self._give(Inferred(serial, answer, spent))
        self._completed += 1

    def _too_large(self) -> Answer:
        return problem(503, "not enough memory for this request", retry_after=self._limits.retry_after_seconds)

    def _observe(self, model: Model, prepared: Prepared, arrays: Sequence[Array]) -> None:
        inputs = [(spec, prepared.inputs[spec.name]) for spec in model.inputs if spec.name in prepared.inputs]
        outputs = [(wanted.spec, array) for wanted, array in zip(prepared.wanted, arrays, strict=True)]
        try:
            self._observer.answered(prepared.id, inputs, outputs)
        except Exception as error:  # noqa: BLE001 - what cannot be measured is still answered
            self._unobserved(error)

    def _unobserved(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            sys.stderr.write(f"edgewise.serve: an answer cannot be measured: {error!r}\n"[:500])

    def _answer(self, model: Model, request: Request, since: float) -> tuple[Answer, Spent, tuple[Prepared, Sequence[Array]] | None]:
        begun = time.monotonic()
        spent = Spent(queue=begun - since)
        try:
            prepared = prepare(request, model, self._limits, self._plans)
            ready = time.monotonic()
            spent = Spent(queue=begun - since, prepare=ready - begun)
            if isinstance(prepared, Answer):
                return prepared, spent, None
            with self._turn:
                arrays = model.run(prepared.inputs, prepared.names)
            ran = time.monotonic()
            answer = finish(prepared, arrays, self._identity, self._limits)
            done = time.monotonic()
        except InferenceFailed as error:
            return failed(error), spent, None
        except MemoryError:
            return self._too_large(), spent, None
        except Exception as error:  # noqa: BLE001 - one request must not end the server
            return _unexpected(error), spent, None
        self._pace.took(len(request.body), done - begun)
        spent = Spent(queue=begun - since, prepare=ready - begun, run=ran - ready, finish=done - ran, rows=prepared.rows)
        return answer, spent, (prepared, arrays)

    def _give(self, result: Result) -> None:
        self.results.append(result)
        self._wake()


def _unexpected(error: Exception) -> Answer:
    return problem(500, f"the inference failed: {type(error).__name__}")
