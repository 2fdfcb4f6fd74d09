"""What the server answers, before it becomes bytes on a connection."""

from typing import Final

import msgspec

JSON: Final = "application/json"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One response. `allow` lists methods (405), `retry_after` is in seconds (503). `header_bytes`: so much of the body, before it was
    compressed, is JSON, the rest binary tensors; 0 when there are none. `encoding`: how the body is compressed."""

    status: int
    body: bytes
    content_type: str = JSON
    allow: str = ""
    retry_after: int = 0
    header_bytes: int = 0
    encoding: str = ""


class _Error(msgspec.Struct, frozen=True):
    error: str


def ok(content: object) -> Answer:
    """Answer 200 with JSON."""
    return Answer(status=200, body=msgspec.json.encode(content))


def problem(status: int, message: str, *, allow: str = "", retry_after: int = 0) -> Answer:
    """Answer an error, `{"error": message}`."""
    return Answer(status=status, body=msgspec.json.encode(_Error(message)), allow=allow, retry_after=retry_after)
