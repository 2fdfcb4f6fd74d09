"""How devices get and renew an identity: the decisions. Certificates are the shell's business.

Both come in two steps, because the certificate is made in between: `decide_join` says whether and under which name, the shell issues the
certificate, `complete_join` says what to write with it. The token is used up by compare-and-set in that same transaction.
"""

import base64
from collections.abc import Mapping

import msgspec

from edgewise.controllers.answers import Refusal, refuse, refused_agent
from edgewise.controllers.documents import create, event, put_status, uid_of
from edgewise.controllers.history import connected
from edgewise.controllers.limits import ReportLimits
from edgewise.controllers.rows import AgentRow, DeviceRow
from edgewise.controllers.tokens import JoinTokenRow, JoinTokenStatus
from edgewise.controllers.view import FleetView
from edgewise.resources.device import AgentSpec, AgentStatus, DeviceHistory, DeviceSpec, DeviceStatus
from edgewise.resources.states import AgentLifecycle, Connection
from edgewise.resources.validation import label_problem
from edgewise.store.codec import encode
from edgewise.store.contract import Key, Put, Transaction, Write, Written
from edgewise.wire.enrolment import JoinRequest

_SEALING_KEY_BYTES = 32


class JoinDecision(msgspec.Struct, frozen=True, kw_only=True):
    """A join that is granted: issue a certificate for `agent`, then write `complete_join(…)`. `token` None: the same device joined with
    the same key before and only lost the answer, so the token is not used again."""

    agent: str
    device: str
    request: JoinRequest
    key_digest: str
    token: JoinTokenRow | None
    site: str
    labels: dict[str, str]


class RenewDecision(msgspec.Struct, frozen=True, kw_only=True):
    """A renewal that is granted: issue a certificate for `agent`, then write `complete_renew(…)`."""

    agent: str


def decide_join(request: JoinRequest, secret_digest: str, key_digest: str, view: FleetView, now: float) -> JoinDecision | Refusal:
    """Return whether a device may join. `secret_digest` is the SHA-256 (hexadecimal) of the token's secret, `key_digest` that of the
    signing request's public key."""
    token = view.join_tokens.get(secret_digest[:16])
    if token is None or token.spec.digest != secret_digest:
        return refuse(401, "UnknownToken", "this join token is not known here")
    labels = {**request.labels, **token.spec.labels}
    device = view.devices.get(request.device)
    again = device is not None and _same_key(view, device, key_digest)
    refusal = _spent(token, now, again=again) or _malformed(request, labels, view.limits.report)
    if refusal is not None:
        return refusal
    if device is not None and not again and _taken(view, device):
        return refuse(409, "NameTaken", f"a device named {request.device} is enrolled already")
    if token.spec.site and token.spec.site not in view.sites:
        return refuse(409, "UnknownSite", f"the token's site {token.spec.site} was deleted; make the site or a new token")
    agent = device.spec.agent if again and device is not None else _agent_name(view, request.device, key_digest)
    return JoinDecision(
        agent=agent,
        device=request.device,
        request=request,
        key_digest=key_digest,
        token=None if again else token,
        site=token.spec.site,
        labels=labels,
    )


def _spent(token: JoinTokenRow, now: float, *, again: bool) -> Refusal | None:
    if now >= token.spec.expires_at:
        return refuse(401, "ExpiredToken", "this join token has expired")
    if not again and token.status.used >= token.spec.uses:
        return refuse(401, "UsedToken", "this join token was used up")
    return None


def _malformed(request: JoinRequest, labels: Mapping[str, str], limits: ReportLimits) -> Refusal | None:
    if len(request.sealing_key) != _SEALING_KEY_BYTES:
        return refuse(400, "Malformed", f"the sealing key must have {_SEALING_KEY_BYTES} bytes")
    if len(labels) > limits.labels_max:
        return refuse(400, "InvalidLabels", f"{len(labels)} labels, at most {limits.labels_max} are allowed")
    for name, value in labels.items():
        problem = label_problem(name, value)
        if problem is not None:
            return refuse(400, "InvalidLabels", problem)
    if len(request.device_class) > limits.labels_max * 2 or not request.device_class.isprintable():
        return refuse(400, "Malformed", "the device class is too long or cannot be printed")
    if len(encode(request.capacity)) > limits.capacity_bytes_max:
        return refuse(413, "TooLarge", f"the inventory is larger than {limits.capacity_bytes_max} bytes")
    return None


def _same_key(view: FleetView, device: DeviceRow, key_digest: str) -> bool:
    agent = view.agents.get(device.spec.agent)
    return agent is not None and agent.spec.key_digest == key_digest and refused_agent(agent) is None


def _taken(view: FleetView, device: DeviceRow) -> bool:
    """Return whether a device is somebody's: one whose agent is out of use may join again under its name."""
    agent = view.agents.get(device.spec.agent)
    if agent is None:
        return False
    return not (agent.spec.revoked or agent.status.lifecycle in (AgentLifecycle.DECOMMISSIONED, AgentLifecycle.REVOKED))


def _agent_name(view: FleetView, device: str, key_digest: str) -> str:
    """Return a name that was never given before: an old certificate must not speak for a new device."""
    if device not in view.agents:
        return device
    return f"{device[:100]}-{key_digest.removeprefix('sha256:')[:12].lower()}"


def complete_join(decision: JoinDecision, view: FleetView, now: float, serial: str, not_after: float) -> Transaction:
    """Return what a granted join writes. `serial` and `not_after` are the new certificate's. The same join decided again on a view that
    has it writes its certificate only."""
    agent_key, device_key = Key("Agent", "", decision.agent), Key("Device", "", decision.device)
    known = view.agents.get(decision.agent)
    status = AgentStatus(certificate_serial=serial, certificate_not_after=not_after, joined_at=now)
    if decision.token is None and known is not None:
        status = msgspec.structs.replace(known.status, certificate_serial=serial, certificate_not_after=not_after)
        return Transaction(now=now, writes=(put_status(known, status),))
    request = decision.request
    spec = AgentSpec(
        devices=(decision.device,),
        key_digest=decision.key_digest,
        sealing_key=base64.urlsafe_b64encode(request.sealing_key).decode().rstrip("="),
    )
    writes: list[Write] = [create(agent_key, uid_of(agent_key, view.epoch, view.revision), spec, status)]
    writes += _device_writes(decision, view, device_key, now)
    if decision.token is not None:
        writes.append(put_status(decision.token, JoinTokenStatus(used=decision.token.status.used + 1)))
    message = f"device {decision.device} joined at site {decision.site or '(none)'}"
    return Transaction(now=now, writes=tuple(writes), events=(event(now, "Joined", message, device_key),))


def _device_writes(decision: JoinDecision, view: FleetView, key: Key, now: float) -> list[Write]:
    request = decision.request
    before = view.devices.get(decision.device)
    history = connected(before.status, Connection.ONLINE, now, now).history if before is not None else DeviceHistory(since=now)
    status = DeviceStatus(connection=Connection.ONLINE, last_seen=now, capacity=request.capacity, history=history)
    if before is None:
        spec = DeviceSpec(agent=decision.agent, site=decision.site, device_class=request.device_class)
        return [create(key, uid_of(key, view.epoch, view.revision), spec, status, decision.labels)]
    spec = msgspec.structs.replace(
        before.spec,
        agent=decision.agent,
        site=decision.site or before.spec.site,
        device_class=request.device_class or before.spec.device_class,
        decommission=False,
    )
    labels = {**before.labels, **decision.labels}
    put = Put(key=key, spec=encode(spec), labels=labels, annotations=before.annotations, expect=before.generation, uid=before.uid)
    return [put, put_status(before, status)]


def settle_join(view: FleetView, decision: JoinDecision, written: Written, now: float) -> None:
    """Take over a join that was written. The agent counts as heard from now on."""
    for change in written.changes:
        view.apply(change)
    view.contact(decision.agent, now)


def decide_renew(agent: str, key_digest: str, view: FleetView) -> RenewDecision | Refusal:
    """Return whether an agent may have a new certificate. The shell has checked that the old one was issued here (expired or not) and that
    the signing request proves the key whose digest this is."""
    row = view.agents.get(agent)
    refusal = refused_agent(row)
    if refusal is not None or row is None:
        return refusal if refusal is not None else refuse(403, "UnknownAgent", "no agent of this name is enrolled here")
    if row.spec.key_digest != key_digest:
        return refuse(403, "WrongKey", "the request is not signed by the key that this agent joined with")
    return RenewDecision(agent=agent)


def complete_renew(decision: RenewDecision, view: FleetView, now: float, serial: str, not_after: float) -> Transaction:
    """Return what a granted renewal writes."""
    row: AgentRow | None = view.agents.get(decision.agent)
    if row is None:
        return Transaction(now=now)
    status = msgspec.structs.replace(row.status, certificate_serial=serial, certificate_not_after=not_after)
    return Transaction(now=now, writes=(put_status(row, status),))
