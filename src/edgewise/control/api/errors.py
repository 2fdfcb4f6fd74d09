"""How the API refuses: one exception, one form of answer."""

import logging
from collections.abc import Sequence
from typing import Final, NoReturn

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

from edgewise.resources.errors import Problem
from edgewise.resources.kinds import Resource
from edgewise.store.contract import CompactedError, OverloadedError, StoreClosedError, StoreError, StoreFullError

_LOG: Final = logging.getLogger("edgewise.control.api")
_REASONS: Final[dict[int, str]] = {
    400: "Invalid",
    401: "Unauthorized",
    403: "Denied",
    404: "NotFound",
    405: "NotAllowed",
    413: "TooLarge",
    503: "Overloaded",
}


class _Body(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What went wrong, for programs (`reason`) and people."""

    reason: str
    message: str
    problems: tuple[Problem, ...] = ()
    current: Resource | None = None
    retry_after: float | None = None


class ErrorEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every 4xx and 5xx."""

    error: _Body


class ApiError(Exception):
    """A request is refused. `current` is what is there instead, of a conflict."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        problems: Sequence[Problem] = (),
        current: Resource | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = _Body(reason=reason, message=message, problems=tuple(problems), current=current, retry_after=retry_after)


def invalid(*problems: Problem) -> ApiError:
    """Return the refusal of something that is not well formed."""
    return ApiError(422, "Invalid", "; ".join(str(problem) for problem in problems)[:2_000], problems=problems)


def not_found(message: str) -> ApiError:
    """Return the refusal for something that is not there."""
    return ApiError(404, "NotFound", message)


def conflict(message: str, current: Resource | None = None) -> ApiError:
    """Return the refusal of a change that was meant for something else than what is there."""
    return ApiError(409, "Conflict", message, current=current)


def respond(error: ApiError) -> Response[bytes]:
    """Return the answer that says `error`."""
    headers = {"retry-after": str(max(1, round(error.body.retry_after)))} if error.body.retry_after is not None else {}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    content = msgspec.json.encode(ErrorEnvelope(error=error.body))
    return Response(content, status_code=error.status, media_type="application/json", headers=headers)


def on_api_error(_request: Request, error: ApiError) -> Response[bytes]:  # type: ignore[type-arg]  # any user, any auth
    """Answer our own refusals."""
    return respond(error)


def on_http_error(_request: Request, error: HTTPException) -> Response[bytes]:  # type: ignore[type-arg]  # any user, any auth
    """Answer what Litestar itself refuses: unknown paths and methods, wrong parameters, too large bodies."""
    detail = error.detail or "the request is refused"
    extra = error.extra if isinstance(error.extra, list) else []
    problems = [Problem(path=str(each.get("key", "")), message=str(each.get("message", ""))) for each in extra if isinstance(each, dict)]
    reason = _REASONS.get(error.status_code, "Refused" if error.status_code < 500 else "Internal")
    return respond(ApiError(error.status_code, reason, detail, problems=problems))


def on_store_error(_request: Request, error: StoreError) -> Response[bytes]:  # type: ignore[type-arg]  # any user, any auth
    """Answer what the store could not do."""
    match error:
        case OverloadedError():
            return respond(ApiError(503, "Overloaded", str(error), retry_after=error.retry_after))
        case StoreFullError():
            return respond(ApiError(507, "Full", "the control plane's disk is full: make room and try again", retry_after=30.0))
        case StoreClosedError():
            return respond(ApiError(503, "Closing", "the control plane is going down", retry_after=5.0))
        case CompactedError():
            return respond(ApiError(410, "Gone", str(error)))
        case _:
            _LOG.error("the store failed: %s", error)
            return respond(ApiError(500, "Internal", "the store failed; the control plane's log says more"))


def on_any_error(request: Request, error: Exception) -> Response[bytes]:  # type: ignore[type-arg]  # any user, any auth
    """Answer what nobody expected, without telling how the inside looks."""
    _LOG.error("a request failed: %s %s", request.method, request.url.path, exc_info=error)
    return respond(ApiError(500, "Internal", "something failed inside; the control plane's log says more"))


def never(message: str) -> NoReturn:
    """Refuse what the caller may never do."""
    raise ApiError(403, "Denied", message)
