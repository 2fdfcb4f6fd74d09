"""Renewing the device's certificate. Short-lived process only.

The old certificate may have expired long ago: the signing request, signed by the same key, is the proof. So no client certificate is shown.
"""

import msgspec

from edgewise.agent.errors import LinkError
from edgewise.agent.gateway import BODY_HEADERS
from edgewise.agent.jobs import Renewed, RenewJob
from edgewise.agent.limits import LIMITS
from edgewise.agent.place import connect, now
from edgewise.engine.identity import Certificates, Identity, IdentityDamaged, mend, read_identity, renew
from edgewise.ports.files import Files, FilesError
from edgewise.trust.authority import CertificateRefused, leaf_der, not_after_of, not_before_of, renew_at
from edgewise.trust.keys import KeyRefusedError, signing_request
from edgewise.wire.enrolment import RenewAnswer, RenewRequest


def renew_certificate(job: RenewJob, files: Files) -> Renewed:
    """Renew if it is time, or if `force`. Never raises for what the world does."""
    try:
        mend(files)
        identity = read_identity(files)
        if identity is None:
            return Renewed(renewed=False, due_in=0.0, not_after=0.0, error="this device has not joined")
        due_at, not_after = _times(identity.certificates.certificate)
        wait = due_at - now(job.place)
        if wait > 0 and not job.force:
            return Renewed(renewed=False, due_in=wait, not_after=not_after)
    except (IdentityDamaged, FilesError, CertificateRefused) as error:
        return Renewed(renewed=False, due_in=0.0, not_after=0.0, error=str(error))
    try:
        fresh = _ask(job, identity)
        due_at, fresh_not_after = _times(fresh.certificate)
        renew(files, fresh)
    except (LinkError, FilesError, CertificateRefused, KeyRefusedError, ValueError) as error:
        return Renewed(renewed=False, due_in=0.0, not_after=not_after, error=str(error))
    return Renewed(renewed=True, due_in=max(0.0, due_at - now(job.place)), not_after=fresh_not_after)


def _ask(job: RenewJob, identity: Identity) -> Certificates:
    old = identity.certificates
    request = RenewRequest(certificate=old.certificate, signing_request=signing_request(identity.keys.key, old.agent))
    client = connect(job.place, identity, as_device=False)
    try:
        body = msgspec.msgpack.encode(request)
        response = client.request("POST", "/v1/renew", body=body, headers=BODY_HEADERS, body_limit=LIMITS.enrolment_bytes_max)
    finally:
        client.close()
    answer = msgspec.msgpack.decode(response.body, type=RenewAnswer)
    return Certificates(agent=old.agent, certificate=answer.certificate, authority=answer.authority)


def _times(chain_pem: str) -> tuple[float, float]:
    """Return (when to renew, when it expires)."""
    leaf = leaf_der(chain_pem)
    return renew_at(not_before_of(leaf), not_after_of(leaf)), not_after_of(leaf)
