"""What a transaction does to documents: compare-and-set in one place, pure, for every implementation.

`check` refuses what no store may hold, before anything waits for it; `planned` says which changes a transaction makes of the documents
it finds, or raises and makes none.
"""

import math
from collections.abc import Mapping
from typing import Final, assert_never

import msgspec

from edgewise.store.contract import (
    ABSENT,
    ANY,
    Change,
    ConflictError,
    Delete,
    Document,
    FrameRow,
    Key,
    Mark,
    Put,
    PutStatus,
    StoreError,
    StoreLimits,
    Transaction,
    Write,
)

_NUMBER_MAX: Final = 2**62
_SECONDS_MAX: Final = 1e12
_ROW_BYTES: Final = 256
"""What the fixed parts of a row are taken to weigh when the queue's bytes are counted."""


def check(transaction: Transaction, limits: StoreLimits) -> int:
    """Return about how many bytes `transaction` keeps in memory. Raises `StoreError` when a part of it can never be stored."""
    size = 0
    for write in transaction.writes:
        size += _ROW_BYTES + _check_write(write, limits)
    for event in transaction.events:
        size += _ROW_BYTES + len(event.message)
    for frame in transaction.frames:
        size += _ROW_BYTES + _check_frame(frame, limits)
    for mark in transaction.marks:
        _check_mark(mark, limits)
    return size


def _check_write(write: Write, limits: StoreLimits) -> int:
    match write:
        case PutStatus():
            parts: tuple[bytes, ...] = (write.status,)
        case Put():
            parts = (write.spec, write.status)
            for part in (write.key.kind, write.key.namespace, write.key.name):
                _check_name(part, limits)
            for pairs in (write.labels, write.annotations):
                if not _all_of(str, *pairs, *pairs.values()):
                    raise StoreError(f"{write.key}: labels and annotations are text")
        case Delete():
            return 0
        case _:
            assert_never(write)
    if not _all_of(bytes, *parts):
        raise StoreError(f"{write.key}: spec and status are bytes")
    size = sum(map(len, parts))
    if size > limits.document_bytes_max:
        raise _too_large(write.key, size, limits)
    return size


def _check_frame(frame: FrameRow, limits: StoreLimits) -> int:
    _check_name(frame.device, limits)
    for seconds in (frame.start, frame.end):
        if not math.isfinite(seconds) or abs(seconds) > _SECONDS_MAX:
            raise StoreError(f"a frame of {frame.device}: {seconds} is not a time")
    if not _all_of(bytes, frame.summary, frame.body):
        raise StoreError(f"a frame of {frame.device}: summary and body are bytes")
    return len(frame.summary) + len(frame.body)


def _check_mark(mark: Mark, limits: StoreLimits) -> None:
    for part in (mark.agent, mark.incarnation, mark.lane):
        _check_name(part, limits)
    if not (0 <= mark.number <= _NUMBER_MAX and 0 <= mark.dropped <= _NUMBER_MAX):
        raise StoreError(f"a mark of {mark.agent}: number {mark.number}, dropped {mark.dropped} are out of range")


def _all_of(type_: type, *parts: object) -> bool:
    """Structs do not check what they are made of; what is stored wrongly could never be read again."""
    for part in parts:  # noqa: SIM110 - looked at for every write, and a generator costs more than the looking
        if not isinstance(part, type_):
            return False
    return True


def _check_name(part: str, limits: StoreLimits) -> None:
    """Names of what cannot be printed would be cut or confused by what they pass through; so they are refused here."""
    if not part.isprintable():
        raise StoreError(f"{part[:60]!r} holds a character that cannot be printed")
    if len(part) > limits.name_characters_max:
        raise StoreError(f"{part[:60]!r}… has {len(part)} characters, at most {limits.name_characters_max} are allowed")


def _too_large(key: Key, size: int, limits: StoreLimits) -> StoreError:
    return StoreError(f"{key.kind} {key.namespace}/{key.name} has {size} bytes, at most {limits.document_bytes_max} are allowed")


def planned(transaction: Transaction, documents: Mapping[Key, Document | None], revision: int, limits: StoreLimits) -> tuple[Change, ...]:
    """Return the changes that `transaction` makes of `documents`, all at `revision`; none when everything is there already.

    Raises `ConflictError`, or `StoreError` for a document that would be too large; then the transaction does nothing at all.
    """
    changes: list[Change] = []
    own: dict[Key, Document | None] = {}
    for write in transaction.writes:
        key = write.key
        current = own[key] if key in own else documents.get(key)
        match write:
            case PutStatus():
                change = _status_change(write, current, revision)
            case Put():
                change = _put_change(write, current, revision, transaction.now)
            case Delete():
                change = _delete_change(write, current, revision)
            case _:
                assert_never(write)
        if change is None:
            continue
        document = change.document
        if document is not None and (size := document_bytes(document)) > limits.document_bytes_max:
            raise _too_large(key, size, limits)
        own[key] = document
        changes.append(change)
    return tuple(changes)


def document_bytes(document: Document) -> int:
    """Return the bytes that count against `StoreLimits.document_bytes_max`. Text counts by characters."""
    size = len(document.spec) + len(document.status)
    for pairs in (document.labels, document.annotations):
        for name, value in pairs.items():
            size += len(name) + len(value)
    return size


def _status_change(write: PutStatus, current: Document | None, revision: int) -> Change | None:
    if current is None or (write.uid and write.uid != current.uid):
        if write.missing_ok:
            return None
        raise ConflictError(write.key, current, "there is no such document" if current is None else "it has another uid")
    if write.expect not in (ANY, current.status_revision):
        raise ConflictError(write.key, current, f"its status is at revision {current.status_revision}, not {write.expect}")
    if write.status == current.status:
        return None
    document = msgspec.structs.replace(current, revision=revision, status_revision=current.status_revision + 1, status=write.status)
    return Change(revision=revision, key=write.key, document=document, spec_changed=False)


def _put_change(write: Put, current: Document | None, revision: int, now: float) -> Change | None:
    if current is None:
        if write.expect != ABSENT:
            raise ConflictError(write.key, None, "there is no such document")
        document = Document(
            key=write.key,
            uid=write.uid,
            generation=1,
            revision=revision,
            status_revision=1 if write.status else 0,
            created_at=now,
            labels=write.labels,
            annotations=write.annotations,
            spec=write.spec,
            status=write.status,
            deleted_at=write.deleted_at,
        )
        return Change(revision=revision, key=write.key, document=document)
    if write.expect == ABSENT:
        raise ConflictError(write.key, current, "it is there already")
    if write.expect not in (ANY, current.generation):
        raise ConflictError(write.key, current, f"it is at generation {current.generation}, not {write.expect}")
    if write.uid and write.uid != current.uid:
        raise ConflictError(write.key, current, "it has another uid")
    document = msgspec.structs.replace(
        current,
        generation=current.generation + (write.spec != current.spec),
        labels=write.labels,
        annotations=write.annotations,
        spec=write.spec,
        deleted_at=write.deleted_at,
    )
    if document == current:
        return None
    return Change(revision=revision, key=write.key, document=msgspec.structs.replace(document, revision=revision))


def _delete_change(write: Delete, current: Document | None, revision: int) -> Change | None:
    if current is None or (write.uid and write.uid != current.uid):
        if write.missing_ok:
            return None
        raise ConflictError(write.key, current, "there is no such document" if current is None else "it has another uid")
    if write.expect not in (ANY, current.generation):
        raise ConflictError(write.key, current, f"it is at generation {current.generation}, not {write.expect}")
    return Change(revision=revision, key=write.key, document=None)
