"""Reading what people send: bounded, strict, with the path of what is wrong."""

import re
from typing import Any, Final, TypeVar, get_args

import msgspec
from litestar import Request, Response

from edgewise.control.api.errors import ApiError, invalid
from edgewise.resources.decoding import UNREADABLE
from edgewise.resources.errors import Problem
from edgewise.resources.meta import Name, Version, VersionedName
from edgewise.resources.quantity import seconds

T = TypeVar("T")
AnyRequest = Request[Any, Any, Any]

_PATH: Final = re.compile(r"^(?P<message>.*?) - at `\$(?P<path>[^`]*)`$", re.DOTALL)
_WORDS: Final = {
    f"Expected `str` matching regex {meta.pattern!r}": f"does not fit: {meta.description}"
    for each in (Name, VersionedName, Version)
    for meta in get_args(each)[1:]
}
"""What to say in place of a pattern that a text does not match."""
_LABELS_MAX: Final = 20


async def read_json(request: AnyRequest, wanted: type[T]) -> T:
    """Return the body as a `wanted`. Raises `ApiError` naming the path of what is wrong."""
    body = await request.body()
    try:
        return msgspec.json.decode(body or b"{}", type=wanted)
    except msgspec.ValidationError as error:
        match = _PATH.match(str(error))
        message, path = (match["message"], match["path"].lstrip(".")) if match else (str(error), "")
        raise invalid(Problem(path=path, message=_WORDS.get(message, message))) from error
    except UNREADABLE as error:
        raise ApiError(400, "Malformed", f"the body is not JSON: {error}", problems=(Problem(path="", message=str(error)),)) from error


def answer(content: msgspec.Struct | bytes, status: int = 200) -> Response[bytes]:
    """Return an answer in JSON."""
    body = content if isinstance(content, bytes) else msgspec.json.encode(content)
    return Response(body, status_code=status, media_type="application/json")


def duration(text: str, path: str, most: float) -> float:
    """Return a duration in seconds. Raises `ApiError` when it is none, not positive, or longer than `most`."""
    try:
        value = seconds(text)
    except ValueError as error:
        raise invalid(Problem(path=path, message=str(error))) from error
    if not 0 < value <= most:
        raise invalid(Problem(path=path, message=f"{text} is not between 0 and {most:g} seconds"))
    return value


def number(request: AnyRequest, name: str, default: int, least: int, most: int) -> int:
    """Return a whole number from the query, brought into [least, most]. Raises `ApiError` when it is none."""
    text = request.query_params.get(name)
    if text is None or text == "":
        return default
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise invalid(Problem(path=name, message=f"{text[:50]!r} is not a whole number"))
    return max(least, min(int(text), most))


def flag(request: AnyRequest, name: str) -> bool:
    """Return whether the query says `true`. Raises `ApiError` for anything but `true` and `false`."""
    text = request.query_params.get(name, "false")
    if text not in {"true", "false"}:
        raise invalid(Problem(path=name, message=f"{text[:50]!r} is neither true nor false"))
    return bool(text == "true")


def label_selector(request: AnyRequest) -> dict[str, str]:
    """Return the labels of `labelSelector=a=b,c=d` (`==` is as good). Raises `ApiError`."""
    text = request.query_params.get("labelSelector", "")
    labels: dict[str, str] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        key, equals, value = part.partition("=")
        if not (key and equals) or key.endswith("!"):
            raise invalid(Problem(path="labelSelector", message=f"{part[:80]!r} is not of the form label=value"))
        labels[key.strip()] = value.removeprefix("=").strip()
    if len(labels) > _LABELS_MAX:
        raise invalid(Problem(path="labelSelector", message=f"more than {_LABELS_MAX} labels"))
    return labels
