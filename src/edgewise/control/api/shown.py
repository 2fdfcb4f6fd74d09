"""How documents are shown: as resources, without anything secret."""

import msgspec

from edgewise.control.api.errors import not_found
from edgewise.resources.config import Secret, SecretSpec
from edgewise.resources.kinds import BY_NAME, Resource
from edgewise.store.codec import decode
from edgewise.store.contract import Document, Key, Store


def shown(document: Document) -> Resource:
    """Return the resource that a document holds, fit to be answered. Raises `CodecError`."""
    return without_secrets(decode(document))


def without_secrets(resource: Resource) -> Resource:
    """Return `resource` without what nobody may read."""
    if isinstance(resource, Secret):
        return msgspec.structs.replace(resource, spec=SecretSpec())
    return resource


def key_for(kind: str, namespace: str, name: str) -> Key:
    """Return the key of a resource as a path names it."""
    return Key(kind, namespace if BY_NAME[kind].namespaced else "", name)


def words(key: Key) -> str:
    """Return how people call what is at `key`."""
    place = f" in namespace {key.namespace}" if key.namespace else ""
    return f"{key.kind} {key.name}{place}"


async def found(store: Store, key: Key) -> Document:
    """Return the document at `key`. Raises `ApiError` when there is none."""
    document = await store.get(key)
    if document is None:
        raise not_found(f"there is no {words(key)}")
    return document
