"""What is wrong with something a person wrote, and the error that carries it.

`Error` is the root of every error that the public Python API raises; the client's own leaves are in `client.errors`.
"""

from collections.abc import Sequence

import msgspec


class Error(Exception):
    """Something that was asked of Edgewise did not happen. The message says what was wrong and, where it helps, what to do next."""


class Problem(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One thing that is wrong. `path` leads to it (`spec.placement.replicas`), `message` says what is wrong, `hint` what to do. `source`,
    `line` and `column` (from 1) say where it was written, when that is known."""

    path: str
    message: str
    hint: str = ""
    source: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.source, self.line, self.column) if part)
        return ": ".join(part for part in (place, self.path, self.message) if part) + (f" ({self.hint})" if self.hint else "")


class Invalid(Error):
    """A resource or file is not well formed. `problems` are all that were found, in the order of the text."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
