"""The control plane under virtual time: the real view, reconciling, gateway decisions and enrolment over a real store.

`SimControl` does what the shell does (`control/runner.py`, `gateway.py`, `reports.py`, `polls.py`): it decodes what comes, asks the
controllers, writes, takes what was written over into the view, and answers after the commit. It can be killed, also in the middle of a
write, and comes back with nothing but what the store kept. Certificates are names here: a signing request is the key itself.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from edgewise.controllers import answers
from edgewise.controllers.gateway import decide_report, settle
from edgewise.controllers.limits import GatewayLimits
from edgewise.controllers.reconcile import Changed, Event, Tick, handle
from edgewise.controllers.tokens import JoinTokenSpec, create_join_token
from edgewise.controllers.view import FleetView
from edgewise.store.contract import Change, ConflictError, StoreError, Transaction, Written
from edgewise.trust.tokens import secret_digest
from edgewise.twin.admitting import Admitting
from edgewise.twin.connections import Caller
from edgewise.twin.kernel import Kernel, Ticket
from edgewise.twin.link import Answered, Outcome, Refused, Request
from edgewise.twin.polling import Polling, refused_as
from edgewise.twin.vault import Vault
from edgewise.twin.witness import Witness
from edgewise.wire.enrolment import JoinRequest, RenewRequest
from edgewise.wire.report import Report

__all__ = ["SimControl", "Then", "Witness"]

_REPORT: Final = msgspec.msgpack.Decoder(Report)
_JOIN: Final = msgspec.msgpack.Decoder(JoinRequest)
_RENEW: Final = msgspec.msgpack.Decoder(RenewRequest)
_ENCODER: Final = msgspec.msgpack.Encoder()
_ROUNDS_AT_ONCE: Final = 100
_SLOT_SECONDS: Final = 0.5
_TOKEN_SECONDS: Final = 5 * 365 * 86_400.0
_NOTHING: Final = Answered()

Then = Callable[["Written | StoreError"], None]


class SimControl:
    """One control plane. A `network.Server`; starts with `start`."""

    def __init__(
        self,
        kernel: Kernel,
        vault: Vault,
        *,
        blob_size: Callable[[str], int | None],
        repository: Callable[[str], bytes | None] = lambda _name: None,
        root: bytes = b"",
        limits: GatewayLimits | None = None,
        certificate_seconds: float = 90 * 86_400.0,
    ) -> None:
        self.kernel = kernel
        self.vault = vault
        self.limits = limits or GatewayLimits()
        self.witness: Witness | None = None
        self.up = False
        self.view = FleetView(vault.epoch, kernel.wall)
        self.exchanges = 0
        """Full report and desired exchanges so far."""
        self.write_seconds = 0.0
        """How long a write takes; above 0 what comes meanwhile waits for the next one."""
        self._blob_size = blob_size
        self._repository = repository
        self._polling = Polling(self)
        self._admitting = Admitting(self, root, certificate_seconds)
        self._random = kernel.stream("control")
        self._life = 0
        self._kill_at_write: bool | None = None
        self.on_killed: Callable[[], None] | None = None
        self._forget()

    # ---- its life ----

    def _forget(self) -> None:
        self._heard: dict[str, float] = {}
        self._flush: Ticket | None = None
        self._reporting: dict[str, deque[Callable[[], None]] | None] = {}
        """Agents with a report under way, and what waits behind it."""
        self._waiting: dict[Caller, None] = {}
        self._stirred: Ticket | None = None
        self._wake: Ticket | None = None
        self.wake_at: float | None = None
        self._settling = False
        self._queue: list[tuple[Transaction, Then]] = []
        self._writing = False
        self._transfers = 0

    def start(self) -> None:
        """Begin with what the store kept."""
        self._life += 1
        self.up = True
        view = self.view = FleetView(self.vault.epoch, self.kernel.wall)
        revision = self.vault.revision
        view.load(self.vault.documents())
        for mark in self.vault.marks():
            view.apply_mark(mark)
        view.loaded(revision)
        self.kernel.note("control", "started", f"{view.epoch}.{revision}")
        if self.witness is not None:
            self.witness.lived("started")
        self.stir()

    def kill(self) -> None:
        """Die as by kill -9: connections are reset, what was not written is lost."""
        if not self.up:
            return
        self._life += 1
        self.up = False
        self._kill_at_write = None
        callers = [*self._polling.forget(), *self._waiting, *self._admitting.forget()]
        for ticket in (self._flush, self._stirred, self._wake):
            if ticket is not None:
                ticket.cancel()
        self._forget()
        self.kernel.note("control", "killed")
        for caller in callers:
            caller.reset()
        if self.witness is not None:
            self.witness.lived("killed")

    def kill_at_write(self, *, committed: bool) -> None:
        """Die at the next write: before it is committed, or after that and before anybody hears of it."""
        self._kill_at_write = committed

    def backup(self) -> object:
        """Return a backup of the store."""
        return self.vault.backup()

    def restore(self, backup: object) -> None:
        """Die, and come back with a backup under a new epoch."""
        self.kill()
        self.vault.restore(backup, int(self.kernel.wall))
        if self.witness is not None:
            self.witness.lived("restored")
        self.start()

    # ---- for the operator ----

    def commit(self, transaction: Transaction) -> Written:
        """Write at once and take over what was written. Raises `StoreError`."""
        written = self.vault.write(transaction)
        self.take(written)
        return written

    def make_token(self, secret: str, site: str, uses: int = 100_000) -> None:
        """Make a join token for a site, which is made when it is not there."""
        now = self.kernel.wall
        spec = JoinTokenSpec(digest=secret_digest(secret), expires_at=now + _TOKEN_SECONDS, uses=uses, site=site)
        view = self.view
        known = site in view.sites
        self.commit(create_join_token(spec, known_site=known, user="twin", now=now, epoch=view.epoch, revision=view.revision))

    def stir(self) -> None:
        """Let the controllers look."""
        if self._stirred is None and self.up:
            self._stirred = self.kernel.after(self.limits.reconcile_pause_seconds, self._stir)

    def polling(self, agent: str) -> bool:
        """Whether a poll of `agent` waits here."""
        return self._polling.polling(agent)

    # ---- requests (network.Server) ----

    def handle(self, request: Request, caller: Caller) -> None:
        """See `network.Server`."""
        purpose = request.purpose
        if purpose not in ("join", "renew") and (request.agent, request.key) not in self._admitting.issued:
            caller.reply(Refused(status=401, reason="NoCertificate", message="this takes a client certificate of this fleet"))
            return
        if 0 < request.not_after <= self.kernel.wall:
            caller.reply(Refused(status=401, reason="Expired", message="TLS refuses a certificate that expired"))
            return
        match purpose:
            case "report":
                self._report(request, caller)
            case "desired":
                self._polling.desired(request, caller)
            case "join":
                self._admitting.join(request, caller)
            case "renew":
                self._admitting.renew(request, caller)
            case "blob":
                self._blob(request, caller)
            case "repository":
                self._file(request, caller)

    def hung_up(self, caller: Caller) -> None:
        """See `network.Server`."""
        self._polling.hung_up(caller)

    def transferred(self) -> None:
        """See `network.Server`."""
        self._transfers = max(0, self._transfers - 1)

    def busy(self, message: str, status: int = 503, retry_after: float | None = None) -> Refused:
        """Return the refusal that sheds load."""
        reason, seconds = answers.busy(self.limits, self._random, status, retry_after)
        return Refused(status=status, reason=reason, message=message, retry_after=seconds)

    # ---- reports ----

    def _report(self, request: Request, caller: Caller) -> None:
        agent = request.agent
        if len(self._waiting) >= self.limits.reports_in_flight_max:
            caller.reply(self.busy("too many reports at the moment"))
            return
        try:
            report = _REPORT.decode(request.body)
        except msgspec.DecodeError as error:
            caller.reply(Refused(status=400, reason="Malformed", message=str(error)))
            return
        if agent not in self._reporting:
            self._reporting[agent] = None
            self._write_report(agent, report, caller, 0)
            return
        turns = self._reporting[agent] or deque()
        if len(turns) >= self.limits.reports_waiting_max:
            caller.reply(self.busy("this agent has too many reports under way", 429))
            return
        self._waiting[caller] = None
        turns.append(lambda: self._write_report(agent, report, caller, 0))
        self._reporting[agent] = turns

    def _write_report(self, agent: str, report: Report, caller: Caller, tries: int) -> None:
        if tries >= self.limits.answer_conflicts_max:
            self._answer(agent, caller, self.busy("what this report is about changes too often at the moment"))
            return
        now = self.kernel.wall
        decision = decide_report(report, agent, self.view, now)
        if isinstance(decision, answers.Refusal):
            self.quarantine(agent, decision)
            self._answer(agent, caller, refused_as(decision))
            return
        self.heard(agent, now)

        def then(written: Written | StoreError) -> None:
            match written:
                case ConflictError():
                    self.conflicted(written)
                    self._write_report(agent, report, caller, tries + 1)
                case StoreError():
                    self._answer(agent, caller, self.busy("the store failed"))
                case _:
                    settle(self.view, decision, written)
                    if self.witness is not None:
                        self.witness.reported(agent, report, decision)
                    if written.changes:
                        self.stir()
                        if self.witness is not None:
                            self.witness.wrote(written.changes)
                    self.exchanges += 1
                    self._answer(agent, caller, Answered(body=_ENCODER.encode(decision.answer)))

        if self.write_seconds > 0:
            self._waiting[caller] = None
        self.write(decision.transaction, then)

    def _answer(self, agent: str, caller: Caller, outcome: Outcome) -> None:
        self._waiting.pop(caller, None)
        self.note("report", agent, outcome)
        turns = self._reporting.get(agent)
        if turns:
            self.kernel.after(0.0, self.alive(turns.popleft()))
        else:
            self._reporting.pop(agent, None)
        caller.reply(outcome)

    def quarantine(self, agent: str, refusal: answers.Refusal) -> None:
        """Write down that two devices showed one identity, and end the poll that waits."""
        if refusal.transaction is None:
            return

        def then(written: Written | StoreError) -> None:
            if isinstance(written, ConflictError):
                self.conflicted(written)
            elif not isinstance(written, StoreError):
                self.take(written)
            self._polling.turn_away(agent, self.busy("the control plane is going down, or this agent may not wait"))

        self.write(refusal.transaction, then)

    # ---- blobs and the signed repository ----

    def _blob(self, request: Request, caller: Caller) -> None:
        refusal = answers.refused_agent(self.view.agents.get(request.agent))
        size = self._blob_size(request.path)
        if refusal is not None:
            caller.reply(refused_as(refusal))
        elif self._transfers >= self.limits.transfers_max:
            caller.reply(self.busy("too many downloads at the moment"))
        elif size is None:
            caller.reply(Refused(status=404, reason="NotFound", message="there is no such blob"))
        elif request.offset > size:
            caller.reply(Refused(status=416, reason="RangeNotSatisfiable", message="the blob is shorter"))
        else:
            self._transfers += 1
            caller.reply(Answered(size=size - request.offset))

    def _file(self, request: Request, caller: Caller) -> None:
        refusal = answers.refused_agent(self.view.agents.get(request.agent))
        data = self._repository(request.path)
        if refusal is not None:
            caller.reply(refused_as(refusal))
        elif data is None:
            caller.reply(Refused(status=404, reason="NotFound", message="the signed repository has no such file"))
        else:
            caller.reply(Answered(body=data))

    # ---- who was heard ----

    def heard(self, agent: str, now: float) -> None:
        """Note that an authenticated request of `agent` came."""
        self.view.contact(agent, now)
        self.note_heard(agent)

    def note_heard(self, agent: str) -> None:
        """Note that an agent was heard, without a contact of its own."""
        self.hear(agent, self.kernel.wall)
        if agent in self.view.presence.returned:
            self.stir()

    def hear(self, agent: str, now: float) -> None:
        """Note when an agent was heard, for the store."""
        self._heard[agent] = now
        if self._flush is None:
            self._flush = self.kernel.after(self.limits.liveness_flush_seconds, self._flush_heard)

    def _flush_heard(self) -> None:
        self._flush = None
        heard, self._heard = self._heard, {}
        self.vault.touch(heard)

    # ---- reconciling ----

    def _stir(self) -> None:
        self._stirred = None
        if not self._settling:
            self._settle(Changed())

    def _tick(self) -> None:
        self._wake = None
        if not self._settling:
            self._settle(Tick())

    def _settle(self, cause: Event) -> None:
        """Decide and write until nothing is left to do; ask to be woken when there is something to look at again."""
        life = self._life
        for _ in range(_ROUNDS_AT_ONCE):
            self._polling.refresh()
            decision = handle(cause, self.view, self.kernel.wall)
            cause = Changed()
            if self.witness is not None:
                self.witness.decided(decision)
            if not decision.transactions:
                self._polling.refresh()
                self._rest(decision.wake_at)
                return
            if self.write_seconds > 0:
                self._settling = True
                self._pump(deque(decision.transactions))
                return
            for transaction in decision.transactions:
                result = self._commit(transaction)
                if self._life != life or result is None:
                    return
                if isinstance(result, ConflictError):
                    self.conflicted(result)
                    break
                if isinstance(result, StoreError):
                    break
                self.take(result)
        self.stir()

    def _pump(self, transactions: "deque[Transaction]") -> None:
        """Write one after the other on a slow store, then decide again."""

        def then(written: Written | StoreError) -> None:
            if isinstance(written, ConflictError):
                self.conflicted(written)
                transactions.clear()
            elif isinstance(written, StoreError):
                transactions.clear()
            else:
                self.take(written)
            if transactions:
                self.write(transactions.popleft(), then)
            else:
                self._settling = False
                self.stir()

        self.write(transactions.popleft(), then)

    def _rest(self, wake_at: float | None) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        if self.view.presence.returned:
            self.stir()
        self.wake_at = wake_at
        if wake_at is not None:
            delay = max(self.limits.reconcile_pause_seconds, wake_at - self.kernel.wall)
            self._wake = self.kernel.after(delay, self._tick)

    # ---- writing ----

    def write(self, transaction: Transaction, then: Then) -> None:
        """Commit, and tell `then`: at once, or after the store's own time together with what else waits then."""
        if self.write_seconds <= 0 and not self._queue and not self._writing:
            result = self._commit(transaction)
            if result is not None:
                then(result)
            return
        self._queue.append((transaction, then))
        if not self._writing:
            self._begin_batch()

    def _begin_batch(self) -> None:
        self._writing = True
        batch, self._queue = self._queue, []
        self.kernel.after(self.write_seconds, self.alive(lambda: self._end_batch(batch)))

    def _end_batch(self, batch: list[tuple[Transaction, Then]]) -> None:
        self._writing = False
        results: list[tuple[Then, Written | StoreError]] = []
        for transaction, then in batch:
            result = self._commit(transaction)
            if result is None:
                return
            results.append((then, result))
        if self._queue:
            self._begin_batch()
        life = self._life
        for then, result in results:
            if self._life != life:
                return
            then(result)

    def _commit(self, transaction: Transaction) -> Written | StoreError | None:
        """Commit; None: the control plane died of it."""
        doomed, self._kill_at_write = self._kill_at_write, None
        if doomed is False:
            self._die()
            return None
        try:
            written: Written | StoreError = self.vault.write(transaction)
        except StoreError as error:
            written = error
        if doomed:
            self._die()
            return None
        return written

    def _die(self) -> None:
        self.kill()
        if self.on_killed is not None:
            self.on_killed()

    def take(self, written: Written) -> None:
        """Take what was written over into the view."""
        for change in written.changes:
            self.view.apply(change)
        if written.changes:
            self.stir()
            if self.witness is not None:
                self.witness.wrote(written.changes)

    def conflicted(self, error: ConflictError) -> None:
        """Let the view catch up with what a compare-and-set found."""
        if error.current is not None:
            self.view.apply(Change(revision=error.current.revision, key=error.key, document=error.current))
            self.stir()

    # ---- parts ----

    def alive(self, call: Callable[[], None]) -> Callable[[], None]:
        """Return a call that does nothing once this life of the process is over."""
        life = self._life

        def checked() -> None:
            if self._life == life and self.up:
                call()

        return checked

    def note(self, what: str, subject: str, outcome: Outcome) -> None:
        """Add an answer to the trace."""
        if type(outcome) is Answered:
            self.kernel.note(what, subject, str(len(outcome.body)))
        elif type(outcome) is Refused:
            self.kernel.note(what, subject, f"{outcome.status} {outcome.reason}")
