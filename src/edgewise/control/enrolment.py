"""Joining and renewing: the certificates around the controllers' decisions. Certificates are made off the loop."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgewise.control.messages import Refusal, busy, refusal_of
from edgewise.control.services import Services
from edgewise.controllers import answers
from edgewise.controllers.enrolment import JoinDecision
from edgewise.controllers.gateway import complete_join, complete_renew, decide_join, decide_renew
from edgewise.store.contract import ConflictError
from edgewise.trust.authority import LIMITS as CERTIFICATES
from edgewise.trust.authority import AuthorityError, Issuer, check_renewal, leaf_der, not_after_of, serial_of
from edgewise.trust.tokens import secret_digest
from edgewise.wire.enrolment import JoinAnswer, JoinRequest, RenewAnswer, RenewRequest

_BAD: Final = (AuthorityError, ValueError)
"""What a certificate or signing request that somebody sent may raise (`NameRefusedError` and `KeyRefusedError` are `ValueError`s)."""


class _Certificate(msgspec.Struct, frozen=True):
    """A certificate that was just issued."""

    chain: str
    serial: str
    not_after: float


class Enrolment:
    """Joins and renewals under way: a bounded number at a time."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._in_flight = 0

    async def join(self, request: JoinRequest) -> JoinAnswer:
        """Enrol a device. Raises `Refusal`."""
        async with self._turn():
            digest, key = secret_digest(request.secret), await _off_loop(_key_digest, request.signing_request)
            decision, certificate = await self._joined(request, digest, key)
            root = self._services.repository.root
            authority = self._services.issuer.authority_pem
            return JoinAnswer(agent=decision.agent, certificate=certificate.chain, authority=authority, repository_root=root)

    async def renew(self, request: RenewRequest, peer: str | None) -> RenewAnswer:
        """Give an agent a new certificate for an old one, expired or not. `peer` is the agent of the connection's own certificate, if it
        has one. Raises `Refusal`."""
        services = self._services
        async with self._turn():
            now = services.clock.wall()
            agent = await _off_loop(check_renewal, request.certificate, request.signing_request, services.issuer, now)
            if peer is not None and peer != agent:
                raise Refusal(403, "WrongAgent", "the connection is another agent's than the certificate")
            key = await _off_loop(_key_digest, request.signing_request)
            for _ in range(services.limits.answer_conflicts_max):
                decision = decide_renew(agent, key, services.runner.view)
                if isinstance(decision, answers.Refusal):
                    raise refusal_of(decision)
                certificate = await _off_loop(_issue, services.issuer, request.signing_request, agent, now)
                written = complete_renew(decision, services.runner.view, now, certificate.serial, certificate.not_after)
                try:
                    await services.runner.commit(written)
                except ConflictError as error:
                    await services.runner.conflicted(error)
                    continue
                services.runner.heard(agent, now)
                return RenewAnswer(certificate=certificate.chain, authority=services.issuer.authority_pem)
            raise busy(services.limits, "the agent changes too often at the moment")

    async def _joined(self, request: JoinRequest, digest: str, key: str) -> tuple[JoinDecision, _Certificate]:
        services = self._services
        for _ in range(services.limits.answer_conflicts_max):
            now = services.clock.wall()
            decision = decide_join(request, digest, key, services.runner.view, now)
            if isinstance(decision, answers.Refusal):
                raise refusal_of(decision)
            certificate = await _off_loop(_issue, services.issuer, request.signing_request, decision.agent, now)
            written = complete_join(decision, services.runner.view, now, certificate.serial, certificate.not_after)
            try:
                await services.runner.commit(written)
            except ConflictError as error:  # somebody else used the token, or took the name, meanwhile
                await services.runner.conflicted(error)
                continue
            services.runner.heard(decision.agent, now)
            return decision, certificate
        raise busy(services.limits, "too many devices join with this token at the same moment")

    @asynccontextmanager
    async def _turn(self) -> AsyncGenerator[None, None]:
        if self._in_flight >= self._services.limits.enrolments_in_flight_max:
            raise busy(self._services.limits, "too many devices join or renew at the moment")
        self._in_flight += 1
        try:
            yield
        except _BAD as error:
            reason = error.reason if isinstance(error, AuthorityError) else "BadRequest"
            raise Refusal(400, reason, str(error)[:500]) from error
        finally:
            self._in_flight -= 1


_off_loop = asyncio.to_thread


def _issue(issuer: Issuer, signing_request: str, agent: str, now: float) -> _Certificate:
    chain = issuer.issue_agent(signing_request, agent, now, CERTIFICATES.agent_lifetime_seconds)
    leaf = leaf_der(chain)
    return _Certificate(chain, serial_of(leaf), not_after_of(leaf))


def _key_digest(signing_request: str) -> str:
    """Return the digest of a request's public key. Whether the request is signed by it is checked when the certificate is made."""
    if len(signing_request) > CERTIFICATES.request_characters_max:
        raise ValueError(f"a signing request has at most {CERTIFICATES.request_characters_max} characters")
    try:
        request = x509.load_pem_x509_csr(signing_request.encode("utf-8", "replace"))
        spki = request.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except Exception as error:
        raise ValueError("the signing request is damaged") from error
    return f"sha256:{hashlib.sha256(spki).hexdigest()}"
