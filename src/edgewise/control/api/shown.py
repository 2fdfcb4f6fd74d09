"""How documents are shown: as resources, without anything secret."""

from collections import Counter
from collections.abc import Sequence

import msgspec

from edgewise.control.api.errors import not_found
from edgewise.controllers.view import FleetView
from edgewise.resources.artifact import Artifact
from edgewise.resources.config import Secret, SecretSpec
from edgewise.resources.kinds import BY_NAME, Resource
from edgewise.resources.site import Site
from edgewise.resources.version import version_key
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


def counted(view: FleetView, resources: Sequence[Resource]) -> list[Resource]:
    """Return `resources` with what is added up when somebody asks: how many devices stand at a site, the newest version of an artifact."""
    sites = Counter(row.spec.site for row in view.devices.values()) if any(isinstance(each, Site) for each in resources) else Counter()
    return [_counted(view, sites, each) for each in resources]


def _counted(view: FleetView, sites: Counter[str], resource: Resource) -> Resource:
    meta = resource.metadata
    match resource:
        case Site(status=status):
            return msgspec.structs.replace(resource, status=msgspec.structs.replace(status, devices=sites[meta.name]))
        case Artifact(status=status):
            versions = view.versions.get((meta.namespace, meta.name), {})
            latest = max(versions, key=lambda version: (version_key(version), version), default="")
            return msgspec.structs.replace(resource, status=msgspec.structs.replace(status, latest=latest))
        case _:
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
