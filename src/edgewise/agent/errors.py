"""What can go wrong between the device and the control plane."""

from edgewise.engine.contact import Failure
from edgewise.wire.enrolment import ErrorAnswer


class LinkError(Exception):
    """An exchange with the control plane did not succeed."""


class Unreachable(LinkError):
    """No address answered, the connection broke, or a deadline passed. Try again later."""


class TlsFailed(LinkError):
    """The two ends do not trust each other: wrong authority, wrong name, expired, or the server turned the device's certificate down."""


class Refused(LinkError):
    """The control plane answered 4xx or 5xx. `retry_after` in seconds, when it said so."""

    def __init__(self, status: int, answer: ErrorAnswer, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {answer.reason}: {answer.message}")
        self.status = status
        self.answer = answer
        self.retry_after = retry_after


class ProtocolBroken(LinkError):
    """The other end does not speak the protocol, or sent more than a limit allows."""


def failure_of(error: LinkError) -> Failure:
    """Return what the link's decisions know of an error."""
    if isinstance(error, Refused):
        return Failure(status=error.status, retry_after=error.retry_after or 0.0)
    return Failure(untrusted=isinstance(error, TlsFailed))
