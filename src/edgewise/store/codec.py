"""Documents to resources and back.

A document's `spec` and `status` are MessagePack of the resource's own structs; its metadata stands in the document's other fields. An
empty `status` is the kind's default status. Encoding is deterministic, so that equal resources are equal bytes and writing one that is
there already changes nothing.
"""

from functools import cache
from typing import Any, Final, Protocol, cast

import msgspec

from edgewise.resources.decoding import UNREADABLE
from edgewise.resources.kinds import BY_NAME, BY_TYPE, Resource
from edgewise.resources.meta import Metadata
from edgewise.store.contract import Document, Key, StoreError


class CodecError(StoreError):
    """A document cannot be read as a resource: its kind is not a resource's, or its bytes are damaged or of a newer version."""


class _Make(Protocol):
    """A resource's constructor."""

    def __call__(self, *, metadata: Metadata, spec: object, status: object) -> Resource: ...


class _Codec(msgspec.Struct, frozen=True):
    """How the documents of one kind are read. The decoders yield the kind's own spec and status types."""

    make: _Make
    spec: msgspec.msgpack.Decoder[Any]
    status: msgspec.msgpack.Decoder[Any]
    no_status: object


_ENCODER: Final = msgspec.msgpack.Encoder(order="deterministic")


@cache
def _codec(kind: str) -> _Codec | None:
    """Return the codec of `kind`, or None when it names no resource."""
    entry = BY_NAME.get(kind)
    if entry is None:
        return None
    fields = {field.name: field for field in msgspec.structs.fields(entry.type)}
    status = fields["status"].type
    return _Codec(
        make=cast("_Make", entry.type),
        spec=msgspec.msgpack.Decoder(fields["spec"].type),
        status=msgspec.msgpack.Decoder(status),
        no_status=status(),
    )


def decode(document: Document) -> Resource:
    """Return the resource that `document` holds. Raises `CodecError`."""
    key = document.key
    codec = _codec(key.kind)
    if codec is None:
        raise CodecError(f"{key.kind!r} is not a kind of resource")
    try:
        return codec.make(
            metadata=metadata_of(document),
            spec=codec.spec.decode(document.spec),
            status=codec.status.decode(document.status) if document.status else codec.no_status,
        )
    except UNREADABLE as error:
        raise CodecError(f"{key.kind} {key.namespace}/{key.name} cannot be read: {error}") from error


def metadata_of(document: Document) -> Metadata:
    """Return the metadata that `document` carries."""
    return Metadata(
        name=document.key.name,
        namespace=document.key.namespace,
        uid=document.uid,
        labels=document.labels,
        annotations=document.annotations,
        generation=document.generation,
        revision=document.revision,
        status_revision=document.status_revision,
        created_at=document.created_at,
        deleted_at=document.deleted_at,
    )


def encode_spec(resource: Resource) -> bytes:
    """Return a document's `spec` for `resource`."""
    return _ENCODER.encode(resource.spec)


def encode_status(resource: Resource) -> bytes:
    """Return a document's `status` for `resource`."""
    return _ENCODER.encode(resource.status)


def encode(part: msgspec.Struct) -> bytes:
    """Return the bytes of a spec or status alone, as `encode_spec` and `encode_status` do of a whole resource."""
    return _ENCODER.encode(part)


def key_of(resource: Resource) -> Key:
    """Return the key under which `resource` is stored."""
    return Key(BY_TYPE[type(resource)].name, resource.metadata.namespace, resource.metadata.name)
