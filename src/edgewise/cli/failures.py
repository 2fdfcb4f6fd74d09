"""Telling errors: what was wrong, where, and what to do next, on standard error."""

import errno
import os
import sys
import traceback
from typing import TYPE_CHECKING, Final, Protocol, cast

if TYPE_CHECKING:
    from edgewise.resources.errors import Error

PIPE_CLOSED: Final = 141
"""What a shell reports for a program that wrote into a closed pipe (128 + SIGPIPE)."""


_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

_HINTS: Final = {
    "Unreachable": "is the control plane running there? edgewise context show says which one is asked",
    "Denied": "edgewise context show says which token is used; an admin makes others with edgewise access-token create",
    "NotFound": "edgewise get lists what there is; -n chooses the namespace, -A shows all",
    "Conflict": "somebody else changed it meanwhile: look at it with edgewise get, then try again",
}
"""What to do about the client's errors, by class name: importing them here would be slow."""


_ONLY_IF: Final = {"Denied": ("token", "role"), "Conflict": ("meanwhile", "generation", "changes too often")}
"""Some errors have several causes: their hint fits messages with one of these words."""


class CommandError(Exception):
    """A command cannot do what it was asked. `where` and `hint` may be empty. Not an `Error` of the client, whose import takes time."""

    def __init__(self, what: str, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.where = where
        self.hint = hint


class _Usage(Protocol):
    exit_code: int

    def format_message(self) -> str: ...


def tell(error: Exception) -> int:
    """Write what `error` means to a person; return the exit code."""
    if hasattr(error, "format_message") and hasattr(error, "exit_code"):
        usage = cast("_Usage", error)
        if type(error).__name__ == "NoArgsIsHelpError":
            # Nothing was asked for: the message is the help text.
            sys.stderr.write(usage.format_message() + "\n")
            return usage.exit_code
        _write(usage.format_message(), "", _usage_hint(error))
        return usage.exit_code
    if isinstance(error, CommandError):
        _write(str(error), error.where, error.hint)
        return 1
    from edgewise.resources.errors import Error

    if isinstance(error, Error):
        _write(*explained(error))
        return 1
    if isinstance(error, OSError) and error.errno in _FULL and not error.filename:
        # Everything that is written to a file of its own names it: this was standard output.
        _write(f"the output cannot be written: {error.strerror}", "", "make room there, or write it elsewhere")
        return 1
    if os.environ.get("EDGEWISE_DEBUG"):
        traceback.print_exception(error)
    defect = "this is a defect of edgewise: please report it. EDGEWISE_DEBUG=1 shows where it happened"
    _write(f"{type(error).__name__}: {error}", "", defect)
    return 1


def explained(error: "Error") -> tuple[str, str, str]:
    """Return what was wrong, where, and what to do."""
    from edgewise.resources.errors import Invalid

    match error:
        case Invalid(problems=problems):
            count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
            return f"not valid, {count}", "\n".join(str(problem) for problem in problems), ""
        case _:
            return str(error), "", _hint(type(error).__name__, str(error))


def _hint(name: str, message: str) -> str:
    """Return what to do next, where that is not in the message itself."""
    fits = _ONLY_IF.get(name)
    return _HINTS.get(name, "") if fits is None or any(word in message for word in fits) else ""


def pipe_closed() -> int:
    """Whoever read our output is gone: say nothing more, and let the interpreter's last flush find a place to go."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, sys.stdout.fileno())
    os.close(descriptor)
    return PIPE_CLOSED


def _usage_hint(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", "") or "edgewise"
    return f"type {command} --help"


def _write(what: str, where: str, hint: str) -> None:
    lines = [f"error: {what}"]
    lines += [f"  {line}" for part in (where, hint) if part for line in part.splitlines()]
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()
