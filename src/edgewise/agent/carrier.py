"""Carries out what the engine asks for. Nothing here decides; every effect with an id comes back as exactly one `Done`."""

import threading
import time
from collections.abc import Callable
from typing import Protocol, assert_never

from edgewise.agent.jobs import Progress
from edgewise.agent.limits import LIMITS, AgentLimits
from edgewise.agent.log import Log
from edgewise.agent.slots import SupervisorGone
from edgewise.agent.supervisor_link import SupervisorRefused
from edgewise.agent.workers import Pool
from edgewise.engine.protocol import (
    Activate,
    Cancel,
    Done,
    Effect,
    Emit,
    Event,
    Failed,
    Fetch,
    Fetched,
    FetchProgress,
    FetchStage,
    Finished,
    Forget,
    Launch,
    Persist,
    Probed,
    ProbeKind,
    Remove,
    Result,
    Route,
    RunProbe,
    Slot,
    Start,
    Started,
    Stop,
    Stopped,
)
from edgewise.resources.artifact import Probe
from edgewise.resources.traffic import Traffic
from edgewise.wire.report import Item, Lane

_STOP_RETRY_SECONDS = 1.0


class SlotDriver(Protocol):
    """What runs on this device (`slots.Slots`)."""

    def start(self, instance: str, slot: Slot, launch: Launch) -> Started | Failed:
        """Start an empty slot."""
        ...

    def stop(self, instance: str, slot: Slot, grace_seconds: float) -> Stopped:
        """Stop a slot."""
        ...

    def activate(self, instance: str, slot: Slot) -> Finished | Failed:
        """Let a slot take the traffic."""
        ...

    def route(self, instance: str, slot: Slot, to: Slot, revision: str, traffic: Traffic) -> Finished | Failed:
        """Tell a slot what of its traffic another one is to see."""
        ...

    def probe(self, instance: str, slot: Slot, kind: ProbeKind, probe: Probe) -> Probed:
        """Run a probe once."""
        ...

    def forget(self, instance: str) -> None:
        """Nothing of the instance is wanted any more."""
        ...


class Helpers(Protocol):
    """The short-lived processes, and what they need to know (`main.Agent` puts them together)."""

    def fetch(self, effect: Fetch, progress: Callable[[Progress], None]) -> Fetched | Failed:
        """Fetch, verify and install."""
        ...

    def cancel(self, effect: int) -> None:
        """Give up a fetch."""
        ...

    def prepare(self, start: Start) -> str:
        """Open the secrets that a start needs; return what is wrong, or an empty text."""
        ...

    def remove(self, effect: Remove) -> None:
        """Remove trees and folders. Raises `FilesError`."""
        ...


class Carrier:
    """Hands effects to threads and their results to `post`. `emit` puts an item into the outbox, `forget` ends the device's enrolment,
    `gone` is called when the supervisor is no more."""

    def __init__(
        self,
        slots: SlotDriver,
        helpers: Helpers,
        log: Log,
        *,
        post: Callable[[Event], None],
        emit: Callable[[Lane, Item], None],
        forget: Callable[[], None],
        gone: Callable[[], None],
        limits: AgentLimits = LIMITS,
    ) -> None:
        self._slots = slots
        self._helpers = helpers
        self._log = log
        self._post = post
        self._emit = emit
        self._forget = forget
        self._gone = gone
        self._work = Pool("worker", limits.workers_max, limits.worker_idle_seconds, log)
        self._fetches = Pool("fetch", limits.fetches_max, limits.worker_idle_seconds, log)
        self._fetching: set[int] = set()
        self._lock = threading.Lock()

    def carry(self, effect: Effect) -> None:
        """Begin `effect`; never waits for it."""
        match effect:
            case Emit():
                self._emit(effect.lane, effect.item)
            case Fetch() | Cancel():
                self._carry_fetch(effect)
            case Start() | Stop() | Activate() | Route() | RunProbe() | Remove():
                self._carry_slot(effect)
            case Forget():
                self._forget()
            case Persist():
                return  # the loop has done it
            case _:
                assert_never(effect)

    def _carry_fetch(self, effect: Fetch | Cancel) -> None:
        with self._lock:
            known = effect.id in self._fetching
            if isinstance(effect, Fetch):
                self._fetching.add(effect.id)
        match effect:
            case Fetch():
                self._fetches.submit(lambda: self._fetch(effect))
            case Cancel():
                if known:
                    self._helpers.cancel(effect.id)
            case _:
                assert_never(effect)

    def _carry_slot(self, effect: Start | Stop | Activate | Route | RunProbe | Remove) -> None:
        match effect:
            case Start():
                self._submit(effect.id, lambda: self._start(effect), _failed)
            case Stop():
                self._work.submit(lambda: self._stop(effect))
            case Activate():
                self._submit(effect.id, lambda: self._slots.activate(effect.instance, effect.slot), _failed)
            case Route():
                route = (effect.instance, effect.slot, effect.to, effect.revision, effect.traffic)
                self._submit(effect.id, lambda: self._slots.route(*route), _failed)
            case RunProbe():
                probe = (effect.instance, effect.slot, effect.kind, effect.probe)
                self._submit(effect.id, lambda: self._slots.probe(*probe), lambda error: Probed(ok=False, message=str(error)))
            case Remove():
                self._submit(effect.id, lambda: self._remove(effect), _failed)
            case _:
                assert_never(effect)

    def _submit(self, effect: int, work: Callable[[], Result], fallback: Callable[[Exception], Result]) -> None:
        def run() -> None:
            try:
                result = work()
            except SupervisorGone:
                self._gone()
                return
            except Exception as error:  # noqa: BLE001  # the engine must hear of every effect's end
                self._log.error(f"an effect failed: {type(error).__name__}", error)
                result = fallback(error)
            self._post(Done(id=effect, result=result))

        self._work.submit(run)

    def _fetch(self, effect: Fetch) -> None:
        told: list[tuple[FetchStage, str]] = []

        def progress(line: Progress) -> None:
            if told[-1:] != [(line.stage, line.tree)]:
                told.append((line.stage, line.tree))
                self._post(FetchProgress(id=effect.id, stage=line.stage, tree=line.tree))

        try:
            result: Fetched | Failed = self._helpers.fetch(effect, progress)
        except Exception as error:  # noqa: BLE001  # as above
            self._log.error(f"a fetch failed: {type(error).__name__}", error)
            result = _failed(error)
        with self._lock:
            self._fetching.discard(effect.id)
        self._post(Done(id=effect.id, result=result))

    def _start(self, effect: Start) -> Started | Failed:
        wrong = self._helpers.prepare(effect)
        if wrong:
            return Failed(kind="transient", reason="SecretsClosed", message=wrong)
        return self._slots.start(effect.instance, effect.slot, effect.launch)

    def _stop(self, effect: Stop) -> None:
        """Only `Stopped` is an answer to a stop: until the slot is empty, it is tried again."""
        while True:
            try:
                stopped = self._slots.stop(effect.instance, effect.slot, effect.grace_seconds)
            except SupervisorGone:
                self._gone()
                return
            except Exception as error:  # noqa: BLE001  # as above
                self._log.error(f"a stop failed: {type(error).__name__}", error)
                time.sleep(_STOP_RETRY_SECONDS)
                continue
            self._post(Done(id=effect.id, result=stopped))
            return

    def _remove(self, effect: Remove) -> Finished | Failed:
        for instance in effect.instances:
            try:
                self._slots.forget(instance)
            except SupervisorRefused as refused:
                return Failed(kind="transient", reason=refused.reason, message=str(refused))
        self._helpers.remove(effect)
        return Finished()


def _failed(error: Exception) -> Failed:
    return Failed(kind="transient", reason="AgentError", message=f"{type(error).__name__}: {error}")
