"""How rows are packed, and how pages are named.

A document, a revision's changes, an event or a frame is one MessagePack `body` beside the columns that find it. A whole batch of rows
goes to SQLite as one JSON text of columns and one blob of bodies, and a whole page comes back as one blob: one statement, one
release of the interpreter's lock, however many rows. Rows passed one by one would each wait for the event loop to let go.
"""

from typing import Final

import msgspec

from edgewise.store.contract import Change, Document, EventRow, FrameRow, Key, StoreError, StoreLimits

SEPARATOR: Final = "\x1f"
"""Between the parts of a key in the database. Smaller than all that may stand in a part, so that keys sort as their parts do."""

_SHIFT: Final = 30
_ENCODER: Final = msgspec.msgpack.Encoder()
_JSON: Final = msgspec.json.Encoder()
_DOCUMENTS: Final = msgspec.msgpack.Decoder(list[Document])
_CHANGES: Final = msgspec.msgpack.Decoder(list[tuple[Change, ...]])
_EVENTS: Final = msgspec.msgpack.Decoder(list[tuple[float, str, str, str, str, str, float]])
_FRAMES: Final = msgspec.msgpack.Decoder(list[tuple[str, float, float, bytes, bytes]])
_NUMBERS: Final = msgspec.json.Decoder(list[int])


class Bodies:
    """Bodies put behind one another. A place is `offset << 30 | length`, offsets counted from 1 as SQL's `substr` does."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._next = 1

    def add(self, data: bytes) -> int:
        """Add a body; return its place."""
        place = self._next << _SHIFT | len(data)
        self._parts.append(data)
        self._next += len(data)
        return place

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._next - 1

    def joined(self) -> bytes:
        """Return all bodies as one."""
        return b"".join(self._parts)


def as_json(value: object) -> str:
    """Return `value` as the JSON text that `json_each` reads."""
    return _JSON.encode(value).decode()


def _array(count: int, bodies: bytes | None) -> bytes:
    """Put MessagePack's array header before bodies that stand behind one another: together they are one array."""
    return b"\xdd" + count.to_bytes(4, "big") + (bodies or b"")


def read_documents(count: int, bodies: bytes | None) -> list[Document]:
    """Return the documents in `bodies`. Raises `msgspec.DecodeError`, as all of these do."""
    return _DOCUMENTS.decode(_array(count, bodies))


def read_changes(count: int, bodies: bytes | None) -> list[tuple[Change, ...]]:
    """Return the changes in `bodies`, one tuple per revision."""
    return _CHANGES.decode(_array(count, bodies))


def document_body(document: Document) -> bytes:
    """Return what is stored of a document."""
    return _ENCODER.encode(document)


def change_body(change: Change, document: bytes | None) -> bytes:
    """Return one change; `document` is its document's body. The fields of `Change`, in order."""
    return _ENCODER.encode((change.revision, change.key, None if document is None else msgspec.Raw(document), change.spec_changed))


def changes_body(changes: list[bytes]) -> bytes:
    """Return what is stored of a revision."""
    return _array(len(changes), b"".join(changes))


def event_body(event: EventRow, received_at: float) -> bytes:
    """Return what is stored of an event beside its number."""
    return _ENCODER.encode((event.at, event.type, event.reason, event.message, event.source, event.about, received_at))


def read_events(count: int, bodies: bytes | None, numbers: str) -> list[EventRow]:
    """Return the events in `bodies`, by number."""
    rows = [
        EventRow(at=at, type=type_, reason=reason, message=message, source=source, about=about, received_at=received_at, number=number)  # type: ignore[arg-type]  # EventRow's own types let nothing else in
        for (at, type_, reason, message, source, about, received_at), number in zip(
            _EVENTS.decode(_array(count, bodies)), _NUMBERS.decode(numbers), strict=True
        )
    ]
    rows.sort(key=lambda row: row.number)
    return rows


def frame_body(frame: FrameRow) -> bytes:
    """Return what is stored of a frame beside its number."""
    return _ENCODER.encode((frame.device, frame.start, frame.end, frame.summary, frame.body))


def read_frames(count: int, bodies: bytes | None, numbers: str) -> list[FrameRow]:
    """Return the frames in `bodies`, by end and number."""
    rows = [
        FrameRow(device=device, start=start, end=end, summary=summary, body=body, number=number)
        for (device, start, end, summary, body), number in zip(_FRAMES.decode(_array(count, bodies)), _NUMBERS.decode(numbers), strict=True)
    ]
    rows.sort(key=lambda row: (row.end, row.number))
    return rows


def microseconds(seconds: float) -> int:
    """Return whole microseconds: what frames are found by."""
    return int(seconds * 1e6 // 1)


def key_text(key: Key) -> str:
    """Return `key` as the database holds it."""
    return f"{key.kind}{SEPARATOR}{key.namespace}{SEPARATOR}{key.name}"


def page_limit(limit: int, limits: StoreLimits) -> int:
    """Return how many items a page may hold that was asked for with `limit`. Raises `StoreError` when that is not positive."""
    if limit < 1:
        raise StoreError(f"a page of {limit} items was asked for; at least 1 is needed")
    return min(limit, limits.list_items_max)


def list_token(last: Key) -> str:
    """Return the `next` of a page that ends with `last`."""
    return f"{last.namespace}/{last.name}"


def list_start(kind: str, namespace: str | None, after: str) -> Key:
    """Return the key after which a page begins (at which, when `after` is empty). Raises `StoreError` for what is no `Page.next`."""
    if not after:
        return Key(kind, namespace or "", "")
    token_namespace, slash, name = after.partition("/")
    if not slash or not after.isprintable() or (namespace is not None and token_namespace != namespace):
        raise StoreError(f"{after[:60]!r} does not continue this list")
    return Key(kind, token_namespace, name)
