"""Copies of requests: how they travel from the server that serves to its candidate, and how the candidate compares.

`POST /mirror` on the candidate's control socket has the header `edgewise-mirror`, JSON that says what the parts of the body are: the
request as it
was received, then the answer that its client got. The candidate runs the request at the lowest urgency: a thread with a niceness of its
own, only
while none of its own requests wait. What it answers goes nowhere; what remains is one `Comparison`.
"""

import contextlib
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Annotated, Final

import msgspec

from edgewise.resources.decoding import UNREADABLE
from edgewise.serve.answers import Answer, problem
from edgewise.serve.comparison import Comparison, compare, outputs_of
from edgewise.serve.conversation import Request
from edgewise.serve.inference import prepare
from edgewise.serve.limits import ServeLimits
from edgewise.serve.observer import Observer
from edgewise.serve.worker import Worker

MIRROR_HEADER: Final = b"edgewise-mirror"
_NICENESS: Final = 10
_BUSY_SECONDS: Final = 0.002

_Size = Annotated[int, msgspec.Meta(ge=0)]


class _Parts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Bytes of the request and of the answer; how much of each is JSON (0: all of it), how each is compressed."""

    request: _Size
    answer: _Size
    request_json: str = ""
    request_encoding: str = ""
    answer_json: _Size = 0
    answer_encoding: str = ""
    revision: str = ""


class Mirrored(msgspec.Struct, frozen=True, kw_only=True):
    """A copy: what was asked, and what was answered."""

    request: Request
    answer: Answer


_DECODER: Final = msgspec.json.Decoder(_Parts)


def copy_of(request: Request, answer: Answer, revision: str) -> list[bytes]:
    """Return a copy as bytes for the candidate of `revision`, in pieces."""
    parts = _Parts(
        request=len(request.body),
        answer=len(answer.body),
        request_json=request.headers.get("inference-header-content-length", ""),
        request_encoding=request.headers.get("content-encoding", ""),
        answer_json=answer.header_bytes,
        answer_encoding=answer.encoding,
        revision=revision,
    )
    head = b"POST /mirror HTTP/1.1\r\nhost: candidate\r\ncontent-length: %d\r\nedgewise-mirror: %b\r\n\r\n"
    return [head % (len(request.body) + len(answer.body), msgspec.json.encode(parts)), request.body, answer.body]


def read_copy(request: Request, revision: str) -> Mirrored | Answer:
    """Read a copy that is meant for `revision`; 400 when it is none, 409 when it is meant for another."""
    try:
        parts = _DECODER.decode(request.headers.get(MIRROR_HEADER.decode(), ""))
    except UNREADABLE as error:
        return problem(400, f"the header {MIRROR_HEADER.decode()} does not say what the body is: {error}")
    if parts.request + parts.answer != len(request.body):
        return problem(400, f"the body has {len(request.body)} bytes, not {parts.request} and {parts.answer}")
    if parts.revision != revision:
        return problem(409, f"this is {revision}, not {parts.revision[:100]!r}")
    given = {"inference-header-content-length": parts.request_json, "content-encoding": parts.request_encoding}
    headers = {name: value for name, value in given.items() if value}
    asked = Request(method="POST", path=request.path, body=request.body[: parts.request], keep_alive=True, headers=headers)
    answer = Answer(status=200, body=request.body[parts.request :], header_bytes=parts.answer_json, encoding=parts.answer_encoding)
    return Mirrored(request=asked, answer=answer)


class Shadow:
    """The candidate's side: a thread that is started with the first copy and ends when none came for a while. `wake` is called from it
    after each comparison was put into `results`, with the connection that waits."""

    def __init__(self, worker: Worker, observer: Observer, limits: ServeLimits, wake: Callable[[], None]) -> None:
        self._worker = worker
        self._observer = observer
        self._limits = limits
        self._wake = wake
        self._copies: queue.SimpleQueue[tuple[int, Mirrored] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self.results: deque[tuple[int, Comparison]] = deque()

    def submit(self, serial: int, mirrored: Mirrored) -> None:
        """Queue a copy."""
        with self._lock:
            self._copies.put((serial, mirrored))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """End the thread once it is through with what it compares; wait for that shortly."""
        with self._lock:
            thread, self._stopping = self._thread, True
        if thread is not None:
            self._copies.put(None)
            thread.join(1.0)

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # of this thread alone: what the server does for its own clients keeps its urgency
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while True:
            try:
                copy = self._copies.get(timeout=self._limits.mirror_idle_seconds)
            except queue.Empty:
                with self._lock:
                    if self._copies.empty():
                        self._thread = None
                        return
                continue
            if copy is None or self._stopping:
                return
            serial, mirrored = copy
            while self._worker.busy:
                time.sleep(_BUSY_SECONDS)
            comparison = self._compare(mirrored)
            self._observer.compared(comparison)
            self.results.append((serial, comparison))
            self._wake()

    def _compare(self, mirrored: Mirrored) -> Comparison:
        try:
            asked = prepare(mirrored.request, self._worker.model, self._limits)
            if isinstance(asked, Answer):
                return Comparison(agrees=False, failed=True)
            begun = time.monotonic()
            arrays = self._worker.run(asked.inputs, asked.names)
            seconds = time.monotonic() - begun
            ours = [(wanted.spec, array) for wanted, array in zip(asked.wanted, arrays, strict=True)]
            if asked.id:
                self._observer.remember(asked.id, ours)
            return compare(ours, outputs_of(mirrored.answer, self._limits), self._limits, seconds)
        except Exception:  # noqa: BLE001 - whatever the candidate does with a copy is a finding, and no reason to end
            return Comparison(agrees=False, failed=True)
