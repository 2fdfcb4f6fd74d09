"""Joining and renewing at the simulated control plane. Certificates are names here: a signing request is the key itself."""

from typing import TYPE_CHECKING, Final

import msgspec

from edgewise.controllers import answers
from edgewise.controllers.enrolment import complete_join, complete_renew, decide_join, decide_renew
from edgewise.store.contract import ConflictError, StoreError, Transaction, Written
from edgewise.trust.tokens import secret_digest
from edgewise.twin.connections import Caller
from edgewise.twin.link import Answered, Outcome, Refused, Request
from edgewise.twin.polling import refused_as
from edgewise.wire.enrolment import JoinAnswer, JoinRequest, RenewAnswer, RenewRequest

if TYPE_CHECKING:
    from edgewise.twin.control import SimControl, Then

__all__ = ["Admitting", "agent_in", "certificate_text", "expiry_in", "key_digest"]

_JOIN: Final = msgspec.msgpack.Decoder(JoinRequest)
_RENEW: Final = msgspec.msgpack.Decoder(RenewRequest)
_ENCODER: Final = msgspec.msgpack.Encoder()


def certificate_text(agent: str, serial: str, not_after: float) -> str:
    """Return what stands for a certificate."""
    return f"{agent} {serial} {not_after:.0f}"


def agent_in(certificate: str) -> str:
    """Return whom a certificate names, in its PEM frame or without."""
    lines = [line for line in certificate.splitlines() if not line.startswith("-----")]
    return lines[0].partition(" ")[0] if lines else ""


def expiry_in(certificate: str) -> float:
    """Return when a certificate expires, in its PEM frame or without; 0 when that cannot be read."""
    lines = [line for line in certificate.splitlines() if not line.startswith("-----")]
    last = lines[0].rpartition(" ")[2] if lines else ""
    return float(last) if last.isdigit() else 0.0


def key_digest(key: str) -> str:
    """Return the digest of a device's key."""
    return f"sha256:{secret_digest(key)}"


class Admitting:
    """Joins and renewals under way. `issued` are agents and their keys: certificates out there outlive a restored backup."""

    def __init__(self, control: "SimControl", root: bytes, certificate_seconds: float) -> None:
        self._control = control
        self._root = root
        self._certificate_seconds = certificate_seconds
        self._serial = 0
        self.issued: set[tuple[str, str]] = set()
        self._under_way: dict[Caller, None] = {}

    def forget(self) -> list[Caller]:
        """Die; return who waited."""
        callers = list(self._under_way)
        self._under_way = {}
        return callers

    def join(self, request: Request, caller: Caller) -> None:
        """Enrol a device."""
        try:
            asked = _JOIN.decode(request.body)
        except msgspec.DecodeError as error:
            caller.reply(Refused(status=400, reason="Malformed", message=str(error)))
            return
        if len(self._under_way) >= self._control.limits.enrolments_in_flight_max:
            caller.reply(self._control.busy("too many devices join or renew at the moment"))
            return
        self._write_join(asked, caller, 0)

    def _write_join(self, asked: JoinRequest, caller: Caller, tries: int) -> None:
        now, view = self._control.kernel.wall, self._control.view
        if tries >= self._control.limits.answer_conflicts_max:
            self._answer("join", asked.device, caller, self._control.busy("too many devices join with this token at the same moment"))
            return
        decision = decide_join(asked, secret_digest(asked.secret), key_digest(asked.signing_request), view, now)
        if isinstance(decision, answers.Refusal):
            self._answer("join", asked.device, caller, refused_as(decision))
            return
        serial, not_after = self._issue(decision.agent, asked.signing_request, now)

        def then(written: Written | StoreError) -> None:
            match written:
                case ConflictError():
                    self._control.conflicted(written)
                    self._write_join(asked, caller, tries + 1)
                case StoreError():
                    self._answer("join", asked.device, caller, self._control.busy("the store failed"))
                case _:
                    self._control.take(written)
                    self._control.heard(decision.agent, now)
                    text = certificate_text(decision.agent, serial, not_after)
                    answer = JoinAnswer(agent=decision.agent, certificate=text, authority="twin", repository_root=self._root)
                    self._answer("join", asked.device, caller, Answered(body=_ENCODER.encode(answer)))

        self._enrol(complete_join(decision, view, now, serial, not_after), caller, then)

    def renew(self, request: Request, caller: Caller) -> None:
        """Give an agent a new certificate."""
        try:
            asked = _RENEW.decode(request.body)
        except msgspec.DecodeError as error:
            caller.reply(Refused(status=400, reason="Malformed", message=str(error)))
            return
        agent = agent_in(asked.certificate)
        if (agent, asked.signing_request) not in self.issued:
            caller.reply(Refused(status=400, reason="BadCertificate", message="the certificate was not issued here for this key"))
            return
        if len(self._under_way) >= self._control.limits.enrolments_in_flight_max:
            caller.reply(self._control.busy("too many devices join or renew at the moment"))
            return
        self._write_renewal(agent, asked, caller, 0)

    def _write_renewal(self, agent: str, asked: RenewRequest, caller: Caller, tries: int) -> None:
        now, view = self._control.kernel.wall, self._control.view
        if tries >= self._control.limits.answer_conflicts_max:
            self._answer("renew", agent, caller, self._control.busy("the agent changes too often at the moment"))
            return
        decision = decide_renew(agent, key_digest(asked.signing_request), view)
        if isinstance(decision, answers.Refusal):
            self._answer("renew", agent, caller, refused_as(decision))
            return
        serial, not_after = self._issue(agent, asked.signing_request, now)

        def then(written: Written | StoreError) -> None:
            match written:
                case ConflictError():
                    self._control.conflicted(written)
                    self._write_renewal(agent, asked, caller, tries + 1)
                case StoreError():
                    self._answer("renew", agent, caller, self._control.busy("the store failed"))
                case _:
                    self._control.take(written)
                    self._control.heard(agent, now)
                    answer = RenewAnswer(certificate=certificate_text(agent, serial, not_after), authority="twin")
                    self._answer("renew", agent, caller, Answered(body=_ENCODER.encode(answer)))

        self._enrol(complete_renew(decision, view, now, serial, not_after), caller, then)

    def _enrol(self, transaction: Transaction, caller: Caller, then: "Then") -> None:
        if self._control.write_seconds > 0:
            self._under_way[caller] = None
        self._control.write(transaction, then)

    def _answer(self, what: str, subject: str, caller: Caller, outcome: Outcome) -> None:
        self._under_way.pop(caller, None)
        self._control.note(what, subject, outcome)
        caller.reply(outcome)

    def _issue(self, agent: str, key: str, now: float) -> tuple[str, float]:
        self._serial += 1
        self.issued.add((agent, key))
        return f"{self._serial:x}", now + self._certificate_seconds
