"""The one thread that loads the model and runs it, so that the loop answers probes while a long inference runs."""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec

from edgewise.serve.answers import Answer, problem
from edgewise.serve.inference import Identity, infer
from edgewise.serve.limits import ServeLimits
from edgewise.serve.model import Model, ModelFailed


class Loaded(msgspec.Struct, frozen=True):
    """The model is loaded and warm."""

    model: Model


class Broken(msgspec.Struct, frozen=True):
    """The model cannot be used. One line."""

    message: str


class Inferred(msgspec.Struct, frozen=True):
    """The answer to the request of connection `serial`."""

    serial: int
    answer: Answer
    run_seconds: float


Result = Loaded | Broken | Inferred


class Worker:
    """Takes bodies, gives results; `wake` is called from its thread after each result was put into `results`."""

    def __init__(self, load: Callable[[], Model], identity: Identity, limits: ServeLimits, wake: Callable[[], None]) -> None:
        self._load = load
        self._identity = identity
        self._limits = limits
        self._wake = wake
        self._jobs: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self.results: deque[Result] = deque()

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    def submit(self, serial: int, body: bytes) -> None:
        """Queue an inference request."""
        self._jobs.put((serial, body))

    def stop(self) -> None:
        """End the thread once its queue is empty; wait for that shortly."""
        self._jobs.put(None)
        self._thread.join(1.0)

    def _run(self) -> None:
        try:
            model = self._load()
        except ModelFailed as error:
            self._give(Broken(str(error)))
            return
        except Exception as error:  # noqa: BLE001 - whatever a model makes the runtime do must end in one clear line
            self._give(Broken(f"the model does not load: {error!r}"[:500]))
            return
        self._give(Loaded(model))
        while (job := self._jobs.get()) is not None:
            serial, body = job
            started = time.monotonic()
            answer = self._answer(model, body)
            self._give(Inferred(serial, answer, time.monotonic() - started))

    def _answer(self, model: Model, body: bytes) -> Answer:
        try:
            return infer(model, self._identity, body, self._limits)
        except MemoryError:
            return problem(503, "not enough memory for this request", retry_after=self._limits.retry_after_seconds)
        except Exception as error:  # noqa: BLE001 - one request must not end the server
            return problem(500, f"the inference failed: {type(error).__name__}")

    def _give(self, result: Result) -> None:
        self.results.append(result)
        self._wake()
