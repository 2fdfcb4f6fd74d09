"""What can go wrong between the device and the control plane."""

from typing import Final

from edgewise.wire.enrolment import ErrorAnswer

_IDENTITY_STATUSES: Final = frozenset({401, 403})
_TOO_BUSY: Final = 429
_SERVER_ERRORS: Final = 500


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


def is_distrust(error: LinkError) -> bool:
    """Tell whether the control plane turned this device's identity down, or the device the control plane's."""
    return isinstance(error, TlsFailed) or (isinstance(error, Refused) and error.status in _IDENTITY_STATUSES)


def is_contact(error: LinkError) -> bool:
    """Tell whether the control plane knows, from this exchange, that the device is there. One that was too busy to look does not."""
    return isinstance(error, Refused) and error.status not in {*_IDENTITY_STATUSES, _TOO_BUSY} and error.status < _SERVER_ERRORS
