"""Refusals of what devices ask, and who is refused everything."""

from typing import Final, Protocol

import msgspec

from edgewise.controllers.rows import AgentRow
from edgewise.ports.randomness import Randomness
from edgewise.resources.states import AgentLifecycle
from edgewise.store.contract import Transaction
from edgewise.wire.enrolment import ErrorAnswer


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A request that is not granted: the HTTP status, the body, and what is to be written nevertheless (a quarantine)."""

    status: int
    answer: ErrorAnswer
    transaction: Transaction | None = None


def refuse(status: int, reason: str, message: str, retry_after: float | None = None) -> Refusal:
    """Return a refusal without writes."""
    return Refusal(status=status, answer=ErrorAnswer(reason=reason, message=message, retry_after=retry_after))


_LIFECYCLES: Final = {
    AgentLifecycle.REVOKED: ("Revoked", "this agent was revoked; join again with a new token"),
    AgentLifecycle.DECOMMISSIONED: ("Decommissioned", "this agent was decommissioned; join again with a new token"),
    AgentLifecycle.PENDING_APPROVAL: ("PendingApproval", "this agent waits for approval"),
}


def refused_agent(row: AgentRow | None) -> Refusal | None:
    """Return why an agent is refused everything, or None."""
    if row is None:
        return refuse(403, "UnknownAgent", "no agent of this name is enrolled here; join again with a new token")
    if row.spec.revoked:
        return refuse(403, *_LIFECYCLES[AgentLifecycle.REVOKED])
    if row.spec.quarantined:
        return refuse(403, "Quarantined", "two devices showed this identity; an operator must decide which one is real")
    if not row.spec.approved:
        return refuse(403, *_LIFECYCLES[AgentLifecycle.PENDING_APPROVAL])
    words = _LIFECYCLES.get(row.status.lifecycle)
    return refuse(403, *words) if words is not None else None


class RetryLimits(Protocol):
    """Within what time somebody who is turned away is asked to come back, in seconds."""

    @property
    def retry_seconds_min(self) -> float:
        """The least."""
        ...

    @property
    def retry_seconds_max(self) -> float:
        """The most, where nothing asks for more."""
        ...


def busy(limits: RetryLimits, randomness: Randomness, status: int = 503, retry_after: float | None = None) -> tuple[str, float]:
    """Return the reason and the Retry-After that shed load: come back later, each at another moment."""
    least = limits.retry_seconds_min if retry_after is None else retry_after
    most = max(least * 2, limits.retry_seconds_max)
    return "Overloaded" if status == 503 else "TooManyRequests", randomness.uniform(least, most)
