"""What can go wrong between a person and the control plane: `Error` > `Invalid`, `Conflict`, `NotFound`, `Denied`, `Unreachable`."""

from typing import TYPE_CHECKING

from edgewise.resources.errors import Error, Invalid, Problem

if TYPE_CHECKING:
    from edgewise.resources.kinds import Resource

__all__ = ["Conflict", "ContextError", "Denied", "Error", "Invalid", "NotFound", "Problem", "Refused", "TimedOut", "Unreachable"]


class Conflict(Error):
    """Something else is there than what the change was meant for. `current` is what is there, when it is known: read it, decide again."""

    def __init__(self, message: str, current: "Resource | None" = None) -> None:
        super().__init__(message)
        self.current = current


class NotFound(Error):
    """There is no such thing."""


class Denied(Error):
    """The token is unknown, expired or revoked, or its role may not do this. The message says which."""


class Unreachable(Error):
    """The control plane could not be reached, or was too busy for too long. Nothing is known of whether a change was made, unless the
    message says that it was not sent."""


class Refused(Error):
    """The control plane answered, but with an error that has no class of its own. `reason` is one CamelCase word."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class TimedOut(Error):
    """What was waited for did not happen in time; it may still happen."""


class ContextError(Error):
    """The file of contexts is missing, damaged, readable by others, or has no such context. The message says what to do."""
