"""From structs to documents and back: specs and statuses as the store keeps them, and the writes that change them."""

import hashlib
from collections.abc import Mapping
from typing import Literal, Protocol

import msgspec

from edgewise.store.codec import encode
from edgewise.store.contract import ABSENT, ANY, Delete, EventRow, Key, Put, PutStatus


class Row(Protocol):
    """What a row of the view knows of its document."""

    @property
    def key(self) -> Key:
        """The document's address."""
        ...

    @property
    def uid(self) -> str:
        """The document's uid."""
        ...

    @property
    def generation(self) -> int:
        """The spec's generation as of the view."""
        ...


class LabelledRow(Row, Protocol):
    """A row whose document may carry labels and annotations that a write must keep."""

    @property
    def labels(self) -> dict[str, str]:
        """The labels."""
        ...

    @property
    def annotations(self) -> dict[str, str]:
        """The annotations."""
        ...


class StatusRow(Row, Protocol):
    """A row whose status is written with compare-and-set."""

    @property
    def status_revision(self) -> int:
        """The status revision as of the view."""
        ...


def uid_of(key: Key, epoch: int, revision: int) -> str:
    """Return a uid for a document made when the store was at `revision`: equal decisions make equal documents, later ones do not."""
    text = f"{key.kind}/{key.namespace}/{key.name}@{epoch}.{revision}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def create(key: Key, uid: str, spec: msgspec.Struct, status: msgspec.Struct | None = None, labels: Mapping[str, str] | None = None) -> Put:
    """Return the write that makes a document."""
    return Put(
        key=key, spec=encode(spec), expect=ABSENT, uid=uid, status=b"" if status is None else encode(status), labels=dict(labels or {})
    )


def put_spec(row: Row, spec: msgspec.Struct) -> Put:
    """Return the compare-and-set of a spec of a document without labels."""
    return Put(key=row.key, spec=encode(spec), expect=row.generation, uid=row.uid)


def put_labelled(row: LabelledRow, spec: msgspec.Struct, deleted_at: float | None = None) -> Put:
    """Return the compare-and-set of a spec that keeps labels and annotations."""
    return Put(
        key=row.key,
        spec=encode(spec),
        labels=row.labels,
        annotations=row.annotations,
        expect=row.generation,
        uid=row.uid,
        deleted_at=deleted_at,
    )


def put_status(row: StatusRow, status: msgspec.Struct) -> PutStatus:
    """Return the compare-and-set of a status."""
    return PutStatus(key=row.key, status=encode(status), expect=row.status_revision, uid=row.uid)


def delete(row: Row) -> Delete:
    """Return the removal of a document as the view knows it."""
    return Delete(key=row.key, expect=row.generation, uid=row.uid, missing_ok=True)


def delete_any(key: Key, uid: str) -> Delete:
    """Return the removal of a document that only controllers write."""
    return Delete(key=key, expect=ANY, uid=uid, missing_ok=True)


def event(now: float, reason: str, message: str, about: Key | None = None, source: str = "control", *, warning: bool = False) -> EventRow:
    """Return a line of the event log."""
    kind: Literal["Normal", "Warning"] = "Warning" if warning else "Normal"
    return EventRow(at=now, type=kind, reason=reason, message=message, source=source, about=about_of(about), received_at=now)


def audit(now: float, user: str, verb: str, message: str, about: Key | None) -> EventRow:
    """Return the audit record of a change by a person."""
    return EventRow(at=now, type="Audit", reason=verb, message=message, source=user, about=about_of(about), received_at=now)


def about_of(key: Key | None) -> str:
    """Return `KIND/NAMESPACE/NAME`, or nothing."""
    return f"{key.kind}/{key.namespace}/{key.name}" if key is not None else ""
