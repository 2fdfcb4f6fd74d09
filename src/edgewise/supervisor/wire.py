"""The supervisor's protocol: one JSON object per line over `run/supervisor.sock`, in both directions.

A request is `{"v": 1, "id": N, "do": VERB, …}` and is answered by `{"v": 1, "id": N, "ok": true, …}` or `{"v": 1, "id": N, "ok": false,
"error": REASON, "message": …, "errno": …}`, in any order. What the supervisor tells by itself is `{"v": 1, "event": "exited", …}`.
Unknown fields are ignored, so that an older supervisor understands a newer agent; a verb it does not know is answered `UnknownVerb`.

The `json` package would load `re` and `enum`, which cost this process a megabyte; its C parts alone cost nothing and are used where the
interpreter has them in the expected form.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = 1


class Invalid(Exception):
    """A line is no JSON object, or a field is missing or not what it should be."""


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


class _Rules:
    """What the C scanner asks of its context."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    array_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_refuse_constant)


def _plain_codec() -> "tuple[Callable[[str], object], Callable[[object], str]]":
    import json

    return lambda text: json.loads(text, parse_constant=_refuse_constant), lambda value: json.dumps(value, separators=(",", ":"))


def _small_codec() -> "tuple[Callable[[str], object], Callable[[object], str]]":
    from _json import encode_basestring_ascii, make_encoder, make_scanner

    scan = make_scanner(_Rules())  # type: ignore[arg-type] # any object with these attributes will do
    encode = make_encoder(None, _refuse_value, encode_basestring_ascii, None, ":", ",", False, False, False)  # noqa: FBT003 -- positional only

    def loads(text: str) -> object:
        text = text.strip(" \t\r\n")
        try:
            value, end = scan(text, 0)
        except (StopIteration, SystemError) as error:
            # The scanner takes its error class from `json.decoder`; where that is not loaded, there is only a SystemError.
            raise ValueError("no value") from error
        if end != len(text):
            raise ValueError("more than one value")
        return value

    def dumps(value: object) -> str:
        return "".join(encode(value, 0))

    if loads(dumps({"a": [1, "\u00e9", None]})) != {"a": [1, "\u00e9", None]}:
        raise TypeError("the C parts of json work in another way")
    return loads, dumps


def _refuse_value(value: object) -> object:
    raise TypeError(f"{type(value)} is no JSON")


def _codec() -> "tuple[Callable[[str], object], Callable[[object], str]]":
    try:
        return _small_codec()
    except (ImportError, TypeError, AttributeError, ValueError):
        return _plain_codec()


_loads, _dumps = _codec()


def encode_line(message: "dict[str, object]") -> bytes:
    """Return `message` as one line."""
    return _dumps(message).encode() + b"\n"


def encode_text(message: "dict[str, object]") -> bytes:
    """Return `message` as the content of a file."""
    return encode_line(message)


def decode_object(data: bytes) -> "dict[str, object]":
    """Return the object in `data`. Raises `Invalid`."""
    try:
        value = _loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise Invalid(f"no JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise Invalid("no JSON object")
    return value


def text(message: "dict[str, object]", field: str, longest: int = 4096, default: "str | None" = None) -> str:
    """Return a text field. Raises `Invalid`."""
    value = message.get(field, default)
    if not isinstance(value, str) or len(value) > longest or "\0" in value:
        raise Invalid(f"{field} must be a text of at most {longest} characters")
    return value


def number(message: "dict[str, object]", field: str, highest: float, default: "float | None" = None) -> float:
    """Return a number in [0, `highest`]. Raises `Invalid`."""
    value = message.get(field, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= highest:
        raise Invalid(f"{field} must be a number from 0 to {highest:g}")
    return value


def optional_count(message: "dict[str, object]", field: str) -> "int | None":
    """Return a positive whole number or None. Raises `Invalid`."""
    value = message.get(field)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**60:
        raise Invalid(f"{field} must be a positive whole number")
    return value


def flag(message: "dict[str, object]", field: str) -> bool:
    """Return a truth value, false when it is not there. Raises `Invalid`."""
    value = message.get(field, False)
    if not isinstance(value, bool):
        raise Invalid(f"{field} must be true or false")
    return value


def texts(message: "dict[str, object]", field: str) -> "list[str]":
    """Return a list of texts with at least one. Raises `Invalid`."""
    value = message.get(field)
    if not isinstance(value, list) or not value or not all(isinstance(one, str) and "\0" not in one for one in value):
        raise Invalid(f"{field} must be a list of texts")
    return value


def text_map(message: "dict[str, object]", field: str) -> "dict[str, str]":
    """Return a mapping of texts to texts, empty when it is not there. Raises `Invalid`."""
    value = message.get(field, {})
    if not isinstance(value, dict) or not all(isinstance(one, str) and "\0" not in one for one in value.values()):
        raise Invalid(f"{field} must map texts to texts")
    return value


def folder_name(message: "dict[str, object]", field: str = "folder") -> str:
    """Return a text that is safe as one part of a path. Raises `Invalid`."""
    value = text(message, field, 200)
    if not value or value[0] == "." or not all(letter.isascii() and (letter.isalnum() or letter in "._-+") for letter in value):
        raise Invalid(f"{field} must be a plain name")
    return value


def slot_name(message: "dict[str, object]") -> str:
    """Return `a` or `b`. Raises `Invalid`."""
    value = message.get("slot")
    if value not in ("a", "b"):
        raise Invalid("slot must be a or b")
    return str(value)
